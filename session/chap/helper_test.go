package chap

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

const (
	aliceSecret   = "alice's own secret"
	storageSecret = "what the storage knows"
)

func secretOf(t testing.TB, value string) Secret {
	t.Helper()
	s, err := NewSecret(value)
	require.NoError(t, err)
	return s
}

func oneWay(t testing.TB) Config {
	return Config{User: "alice", Secret: secretOf(t, aliceSecret), Registry: NewRegistry()}
}

func mutual(t testing.TB) Config {
	cfg := oneWay(t)
	cfg.MutualUser, cfg.MutualSecret = "storage", secretOf(t, storageSecret)
	return cfg
}

func targetConfig(t testing.TB) TargetConfig {
	return TargetConfig{
		User: "alice", Secret: secretOf(t, aliceSecret),
		MutualUser: "storage", MutualSecret: secretOf(t, storageSecret), Registry: NewRegistry(),
	}
}

func initiator(t testing.TB, cfg Config) *Initiator {
	t.Helper()
	in, err := New(cfg)
	require.NoError(t, err)
	return in
}

func target(t testing.TB, cfg TargetConfig) *Target {
	t.Helper()
	tg, err := NewTarget(cfg)
	require.NoError(t, err)
	return tg
}

// keysOf reads text as a peer does.
func keysOf(t testing.TB, text []byte) Keys {
	t.Helper()
	var k Keys
	require.NoError(t, pdu.WalkKeys(text, func(key, value []byte) error {
		known, err := k.Set(string(key), string(value))
		require.True(t, known, "%s", key)
		return err
	}))
	return k
}

// login runs both sides against each other; the errors are those of either.
func login(t testing.TB, in *Initiator, tg *Target) (inErr, tgErr error) {
	t.Helper()
	text, err := tg.Challenge(nil, keysOf(t, in.AppendOffer(nil)))
	if err != nil {
		return nil, err
	}
	if text, err = in.Step(nil, keysOf(t, text)); err != nil {
		return err, nil
	}
	if text, err = tg.Answer(nil, keysOf(t, text)); err != nil {
		return nil, err
	}
	if in.Mutual() {
		return in.Verify(keysOf(t, text)), nil
	}
	require.Empty(t, text)
	return nil, nil
}

func requireReason(t testing.TB, want Reason, err error) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, want, e.Reason, "%v", err)
	assert.NotEmpty(t, e.Hint, "%v says what to do", err)
	for _, secret := range []string{aliceSecret, storageSecret} {
		assert.NotContains(t, err.Error(), secret)
	}
}
