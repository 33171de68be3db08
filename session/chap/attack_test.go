package chap

import (
	"encoding/base64"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

// TestMisbehavingTargets holds a target with each fault against a mutual login.
func TestMisbehavingTargets(t *testing.T) {
	for name, tc := range map[string]struct {
		faults Faults
		want   Reason
	}{
		"algorithm outside the list": {Faults{Algorithm: SHA1}, ReasonAlgorithm},
		"unknown algorithm":          {Faults{Algorithm: 99}, ReasonAlgorithm},
		"identifier 256":             {Faults{Identifier: "256"}, ReasonProtocol},
		"challenge of 1025 bytes":    {Faults{ChallengeLen: 1025}, ReasonProtocol},
		"no answer":                  {Faults{NoAnswer: true}, ReasonNoAnswer},
		"wrong response":             {Faults{WrongResponse: true}, ReasonResponse},
		"short response":             {Faults{ShortResponse: true}, ReasonProtocol},
		"our own response":           {Faults{EchoResponse: true}, ReasonReflection},
		"made with our secret":       {Faults{InitiatorSecret: true}, ReasonSameSecret},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := targetConfig(t)
			cfg.Faults = tc.faults
			in := initiator(t, mutual(t))
			inErr, tgErr := login(t, in, target(t, cfg))
			require.NoError(t, tgErr)
			requireReason(t, tc.want, inErr)
			assert.False(t, in.Done())
		})
	}
}

func TestTargetsNameAndSecretMustMatch(t *testing.T) {
	cfg := targetConfig(t)
	cfg.MutualUser = "rogue"
	inErr, _ := login(t, initiator(t, mutual(t)), target(t, cfg))
	requireReason(t, ReasonName, inErr)

	nameless := mutual(t)
	nameless.MutualUser = ""
	inErr, tgErr := login(t, initiator(t, nameless), target(t, cfg))
	require.NoError(t, inErr, "no name is asked for")
	require.NoError(t, tgErr)

	cfg = targetConfig(t)
	cfg.MutualSecret = secretOf(t, "a rogue's own secret")
	inErr, _ = login(t, initiator(t, mutual(t)), target(t, cfg))
	requireReason(t, ReasonResponse, inErr)
}

func TestPartialAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		keys Keys
		want Reason
	}{
		"nothing":         {Keys{}, ReasonNoAnswer},
		"no name":         {Keys{Response: "0x00"}, ReasonProtocol},
		"no response":     {Keys{Name: "storage"}, ReasonProtocol},
		"new challenge":   {Keys{Name: "storage", Response: "0x00", Challenge: "0x00"}, ReasonProtocol},
		"response no hex": {Keys{Name: "storage", Response: "zz"}, ReasonProtocol},
		"challenge alone": {Keys{Identifier: "1", Challenge: "0x00"}, ReasonNoAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			in := initiator(t, mutual(t))
			in.AppendOffer(nil)
			_, err := in.Step(nil, Keys{Algorithm: "5", Identifier: "7", Challenge: "0x0102"})
			require.NoError(t, err)
			err = in.Verify(tc.keys)
			requireReason(t, tc.want, err)
			assert.Same(t, err, in.Verify(tc.keys))
		})
	}
}

// rogue is a target of §9.2.1 that knows no secret and mirrors challenges.
func rogue(t *testing.T, m *Mirror) *Target {
	return target(t, TargetConfig{
		User: "alice", Secret: secretOf(t, "unknown to the rogue"), MutualUser: "storage",
		MutualSecret: secretOf(t, "also unknown to it"), Faults: Faults{Mirror: m, AnyInitiator: true},
	})
}

// TestReflectionAcrossConnections plays steps a to d of §9.2.1.
func TestReflectionAcrossConnections(t *testing.T) {
	for _, second := range []string{"mutual", "one way"} {
		t.Run(second, func(t *testing.T) {
			var mirror Mirror
			cfg := mutual(t)
			first, rogue1 := initiator(t, cfg), rogue(t, &mirror)
			text, err := rogue1.Challenge(nil, keysOf(t, first.AppendOffer(nil)))
			require.NoError(t, err)
			text, err = first.Step(nil, keysOf(t, text))
			require.NoError(t, err)
			issued := keysOf(t, text)
			_, err = rogue1.Answer(nil, issued) // keeps Alice's challenge
			require.NoError(t, err)

			if second == "one way" {
				cfg.MutualUser, cfg.MutualSecret = "", Secret{}
			}
			other := initiator(t, cfg)
			text, err = rogue(t, &mirror).Challenge(nil, keysOf(t, other.AppendOffer(nil)))
			require.NoError(t, err)
			reflected := keysOf(t, text)
			require.Equal(t, issued.Challenge, reflected.Challenge)
			out, err := other.Step(nil, reflected)
			requireReason(t, ReasonReflection, err)
			assert.Empty(t, out, "no response leaves")

			// The same in another encoding and under another identifier.
			other = initiator(t, cfg)
			other.AppendOffer(nil)
			reflected.Identifier = "1"
			reflected.Challenge = "0b" + base64.StdEncoding.EncodeToString(first.challenge)
			_, err = other.Step(nil, reflected)
			requireReason(t, ReasonReflection, err)

			// It is the Registry that tells: another one does not know the challenge.
			cfg.Registry = NewRegistry()
			other = initiator(t, cfg)
			other.AppendOffer(nil)
			_, err = other.Step(nil, reflected)
			require.NoError(t, err)
		})
	}
}

func TestTargetRefusesItsOwnChallenge(t *testing.T) {
	cfg := targetConfig(t)
	tg := target(t, cfg)
	in := initiator(t, mutual(t))
	text, err := tg.Challenge(nil, keysOf(t, in.AppendOffer(nil)))
	require.NoError(t, err)
	sent := keysOf(t, text)
	text, err = in.Step(nil, sent)
	require.NoError(t, err)
	answer := keysOf(t, text)
	answer.Challenge = sent.Challenge
	_, err = tg.Answer(nil, answer)
	requireReason(t, ReasonReflection, err)
}

// TestKinSecretsCollide shows why secrets that begin alike are refused.
func TestKinSecretsCollide(t *testing.T) {
	short, long := secretOf(t, "abc"), secretOf(t, "abcd")
	for _, a := range []Algorithm{MD5, SHA1, SHA256, SHA3256} {
		assert.Equal(t, a.response(1, long, []byte("xyz")), a.response(1, short, []byte("dxyz")))
	}
	assert.True(t, short.akin(long))
	assert.True(t, long.akin(short))
	assert.False(t, long.akin(Secret{}))
	assert.False(t, long.akin(secretOf(t, "abx")))
}

func TestRegistryIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := mutual(t)
		in, tg := initiator(t, cfg), target(t, targetConfig(t))
		text, err := tg.Challenge(nil, keysOf(t, in.AppendOffer(nil)))
		require.NoError(t, err)
		text, err = in.Step(nil, keysOf(t, text))
		require.NoError(t, err)
		text, err = tg.Answer(nil, keysOf(t, text))
		require.NoError(t, err)

		time.Sleep(RegistryTTL - 1)
		assert.True(t, cfg.Registry.holds(in.challenge))
		assert.Equal(t, 1, cfg.Registry.Len())
		early := *in
		require.NoError(t, early.Verify(keysOf(t, text)))

		time.Sleep(1)
		assert.False(t, cfg.Registry.holds(in.challenge))
		assert.Zero(t, cfg.Registry.Len())
		requireReason(t, ReasonExpired, in.Verify(keysOf(t, text)))
	})
}

func TestRegistryIsBoundedInNumber(t *testing.T) {
	r := NewRegistry()
	name := func(i int) []byte { return fmt.Appendf(nil, "challenge %d", i) }
	for i := range RegistrySize + 3 {
		require.True(t, r.add(name(i)))
	}
	assert.Equal(t, RegistrySize, r.Len())
	assert.Len(t, r.issued, RegistrySize)
	assert.False(t, r.holds(name(2)), "the oldest are gone")
	assert.True(t, r.holds(name(3)))
	assert.False(t, r.add(name(3)))
}

func TestRegistryInParallel(t *testing.T) {
	const logins = 50
	cfg, honest := mutual(t), targetConfig(t)
	var mirror Mirror
	honest.Faults.Mirror = &mirror
	errs := make([][logins]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		ins, tgs := make([]*Initiator, logins), make([]*Target, logins)
		for j := range logins {
			ins[j], tgs[j] = initiator(t, cfg), target(t, honest)
		}
		wg.Go(func() {
			for j := range logins {
				errs[i][j] = exchange(ins[j], tgs[j])
			}
		})
	}
	wg.Wait()
	passed := 0
	for i := range errs {
		for _, err := range errs[i] {
			if err == nil {
				passed++
				continue
			}
			requireReason(t, ReasonReflection, err)
		}
	}
	assert.Positive(t, passed, "nothing to mirror at first")
	assert.LessOrEqual(t, passed, len(errs), "everything mirrored is noticed")
}

// exchange is login for goroutines, which must not end a test.
func exchange(in *Initiator, tg *Target) error {
	read := func(text []byte) (k Keys) {
		_ = pdu.WalkKeys(text, func(key, value []byte) error {
			_, err := k.Set(string(key), string(value))
			return err
		})
		return k
	}
	text, err := tg.Challenge(nil, read(in.AppendOffer(nil)))
	if err != nil {
		return err
	}
	if text, err = in.Step(nil, read(text)); err != nil {
		return err
	}
	if text, err = tg.Answer(nil, read(text)); err != nil {
		return err
	}
	return in.Verify(read(text))
}
