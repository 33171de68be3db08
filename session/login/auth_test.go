package login

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
)

const (
	aliceSecret   = "alice's own secret"
	storageSecret = "what the storage knows"
)

func secretOf(t testing.TB, value string) chap.Secret {
	s, err := chap.NewSecret(value)
	require.NoError(t, err)
	return s
}

// withCHAP is testConfig with authentication.
func withCHAP(t testing.TB, mutual bool) Config {
	c := chap.Config{User: "alice", Secret: secretOf(t, aliceSecret), Registry: chap.NewRegistry()}
	if mutual {
		c.MutualUser, c.MutualSecret = "storage", secretOf(t, storageSecret)
	}
	in, err := chap.New(c)
	require.NoError(t, err)
	cfg := testConfig()
	cfg.CHAP = in
	return cfg
}

func chapTarget(t testing.TB, faults chap.Faults) *chap.Target {
	tgt, err := chap.NewTarget(chap.TargetConfig{
		User: "alice", Secret: secretOf(t, aliceSecret), MutualUser: "storage", MutualSecret: secretOf(t, storageSecret), Faults: faults,
	})
	require.NoError(t, err)
	return tgt
}

func chapKeys(t testing.TB, text []byte) chap.Keys {
	m := map[string]string{}
	require.NoError(t, pdu.WalkKeys(text, func(k, v []byte) error { m[string(k)] = string(v); return nil }))
	return chap.KeysFromMap(m)
}

var staySecurity = pdu.LoginResponse{CSG: pdu.StageSecurity}

// exchange plays the security stage against a target up to the response to its
// answer, and returns what the machine makes of that.
func exchange(t testing.TB, m *Machine, tgt *chap.Target, last pdu.LoginResponse) (Request, error) {
	r := m.First()
	require.False(t, r.Header.Transit)
	require.Zero(t, r.Header.NSG)
	r, err := m.Step(staySecurity, kv("AuthMethod=CHAP"))
	require.NoError(t, err)
	require.False(t, r.Header.Transit, "not before the response to the challenge")
	text, err := tgt.Challenge(nil, chapKeys(t, r.Text))
	require.NoError(t, err)
	r, err = m.Step(staySecurity, text)
	require.NoError(t, err)
	require.True(t, r.Header.Transit)
	require.Equal(t, pdu.StageOperational, r.Header.NSG)
	text, err = tgt.Answer(nil, chapKeys(t, r.Text))
	require.NoError(t, err)
	return m.Step(last, text)
}

func TestCHAP(t *testing.T) {
	for name, mutual := range map[string]bool{"one-way": false, "mutual": true} {
		for ending, last := range map[string]pdu.LoginResponse{"at once": toOperational, "after one more": staySecurity} {
			t.Run(name+" "+ending, func(t *testing.T) {
				cfg := withCHAP(t, mutual)
				cfg.Minimal, cfg.Discovery = true, mutual // also when it is to be short
				m := New(cfg)
				r, err := exchange(t, m, chapTarget(t, chap.Faults{}), last)
				require.NoError(t, err)
				if ending != "at once" {
					require.Empty(t, r.Text)
					require.True(t, r.Header.Transit)
					r, err = m.Step(toOperational, nil)
					require.NoError(t, err)
				}
				require.Equal(t, pdu.StageOperational, r.Header.CSG)
				require.Equal(t, chap.Keys{}, chapKeys(t, r.Text))
				_, err = m.Step(toFull, nil)
				require.NoError(t, err)
				require.True(t, m.Done())
				assert.Equal(t, "CHAP", m.Result().AuthMethod)
				assert.True(t, m.SecurityStage())
			})
		}
	}
}

// TestMinimalDiscoverySkipsOneWayCHAP: gotgt takes no other, and with one-way
// CHAP a target without it is taken in any case.
func TestMinimalDiscoverySkipsOneWayCHAP(t *testing.T) {
	cfg := withCHAP(t, false)
	cfg.Discovery, cfg.Minimal = true, true
	m := New(cfg)
	require.Equal(t, pdu.StageOperational, m.First().Header.CSG)
	_, err := m.Step(toFull, nil)
	require.NoError(t, err)
	require.True(t, m.Done())
	require.Empty(t, m.Result().AuthMethod)
}

// TestCHAPFaults: a target that does not prove itself is not logged in to.
func TestCHAPFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		faults chap.Faults
		reason chap.Reason
	}{
		"no answer":      {chap.Faults{NoAnswer: true}, chap.ReasonNoAnswer},
		"wrong response": {chap.Faults{WrongResponse: true}, chap.ReasonResponse},
		"short response": {chap.Faults{ShortResponse: true}, chap.ReasonProtocol},
		"echo":           {chap.Faults{EchoResponse: true}, chap.ReasonReflection},
		"our secret":     {chap.Faults{InitiatorSecret: true}, chap.ReasonSameSecret},
	} {
		for _, last := range []pdu.LoginResponse{toOperational, staySecurity} {
			t.Run(name, func(t *testing.T) {
				m := New(withCHAP(t, true))
				r, err := exchange(t, m, chapTarget(t, tt.faults), last)
				require.Zero(t, r)
				e, ok := errors.AsType[*Error](err)
				require.True(t, ok)
				require.Equal(t, pdu.LoginAuthFailure, e.Status)
				require.NotEmpty(t, e.Hint)
				c, ok := errors.AsType[*chap.Error](err)
				require.True(t, ok)
				require.Equal(t, tt.reason, c.Reason)
				require.False(t, m.SecurityStage())
			})
		}
	}
}

// TestNobodyGetsPastMutualCHAP: whatever a target without the secret says, in
// whatever order, no login is completed, and no text goes out beyond the
// security stage.
func TestNobodyGetsPastMutualCHAP(t *testing.T) {
	pool := []string{
		"AuthMethod=CHAP", "AuthMethod=None", "AuthMethod=Reject", "CHAP_A=5", "CHAP_A=8", "CHAP_A=Reject", "CHAP_I=1", "CHAP_I=0",
		"CHAP_C=0x00", "CHAP_C=0x0102030405060708090a0b0c0d0e0f10", "CHAP_N=storage", "CHAP_N=alice",
		"CHAP_R=0x00", "CHAP_R=0x000102030405060708090a0b0c0d0e0f", "TargetPortalGroupTag=1", "X-a=b",
	}
	deepest := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 7))
		m := New(withCHAP(t, true))
		sent := m.First()
		for range 12 {
			require.Equal(t, pdu.StageSecurity, sent.Header.CSG, "seed %d", seed)
			var said []string
			for range r.IntN(4) {
				said = append(said, pool[r.IntN(len(pool))])
			}
			next := chapKeys(t, sent.Text)
			switch { // what leads on, often enough to get deep
			case r.IntN(3) == 0:
			case next.Algorithm != "":
				said = []string{"CHAP_A=5", "CHAP_I=1", "CHAP_C=0x1234"}
				deepest = max(deepest, 1)
			case next.Challenge != "":
				said = []string{"CHAP_N=storage", "CHAP_R=" + next.Response}
				deepest = max(deepest, 2)
			default:
				said = []string{"AuthMethod=CHAP"}
			}
			resp := pdu.LoginResponse{CSG: pdu.StageSecurity, Transit: r.IntN(3) == 0, Continue: r.IntN(8) == 0}
			if resp.Transit {
				resp.NSG = pdu.StageOperational
			}
			var err error
			if sent, err = m.Step(resp, kv(said...)); err != nil {
				break
			}
		}
		require.False(t, m.SecurityStage(), "seed %d", seed)
		require.False(t, m.Done(), "seed %d", seed)
	}
	require.Equal(t, 2, deepest)
}
