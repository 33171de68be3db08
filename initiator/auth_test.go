package initiator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/chaptest"
	"github.com/iscsimp/iscsimp/iscsitest"
)

func oneWay(t *testing.T) initiator.CHAP {
	return initiator.CHAP{User: chaptest.User, Secret: secret(t, chaptest.Secret)}
}

func mutual(t *testing.T) initiator.CHAP {
	c := oneWay(t)
	c.MutualUser, c.MutualSecret = chaptest.MutualUser, secret(t, chaptest.MutualSecret)
	return c
}

func secret(t *testing.T, value string) initiator.Secret {
	s, err := initiator.NewSecret(value)
	require.NoError(t, err)
	return s
}

func withCHAP(cfg initiator.Config, c initiator.CHAP) initiator.Config {
	cfg.CHAP = c
	return cfg
}

// TestCHAP: the target and the portals it names, discovery and LUNs, in both modes.
func TestCHAP(t *testing.T) {
	for name, chap := range map[string]initiator.CHAP{"one-way": oneWay(t), "mutual": mutual(t)} {
		t.Run(name, func(t *testing.T) {
			bothLoops(t, func(t *testing.T, portable bool) {
				tgt := target(t, iscsitest.Config{Portals: portals(2), Authenticate: chaptest.New(t)})
				cfg := withCHAP(config(tgt), chap)
				cfg.Portable, cfg.Wait = portable, 2
				dev := open(t, cfg)
				_, err := dev.ReadAt(make([]byte, 4096), 0)
				require.NoError(t, err)
				ask := initiator.DiscoverConfig{Portals: cfg.Portals, InitiatorName: me, CHAP: chap, Portable: portable}
				found, err := initiator.Discover(t.Context(), ask)
				require.NoError(t, err)
				assert.Len(t, found.Targets, 1)
				luns, err := initiator.Luns(t.Context(), tgt.Name(), ask)
				require.NoError(t, err)
				assert.Len(t, luns.LUNs, 1)
			})
		})
	}
}

// TestDiscoveryHasItsOwnAccount: another account opens discovery than the target.
func TestDiscoveryHasItsOwnAccount(t *testing.T) {
	finder := initiator.CHAP{User: "finder", Secret: secret(t, "the finder's secret")}
	auth := chaptest.New(t)
	auth.Config.User, auth.Config.Secret = finder.User, finder.Secret
	tgt := target(t, iscsitest.Config{Portals: portals(2), Authenticate: perSession{auth, chaptest.New(t)}})
	cfg := withCHAP(config(tgt), mutual(t))
	cfg.DiscoveryCHAP, cfg.Wait = finder, 2
	open(t, cfg)
}

// perSession has one account for discovery and another for everything else.
type perSession struct{ discovery, normal *chaptest.Authenticator }

func (p perSession) Begin(initiatorName, target string) iscsitest.AuthExchange {
	if target == "" {
		return p.discovery.Begin(initiatorName, target)
	}
	return p.normal.Begin(initiatorName, target)
}

func TestCHAPFailuresAreClassed(t *testing.T) {
	tgt := target(t, iscsitest.Config{Authenticate: chaptest.New(t)})
	wrong := mutual(t)
	wrong.Secret = secret(t, "a wrong secret indeed")
	unproven := mutual(t)
	unproven.MutualSecret = secret(t, "another wrong secret")
	for name, c := range map[string]initiator.CHAP{"none": {}, "wrong secret": wrong, "target has another secret": unproven} {
		t.Run(name, func(t *testing.T) {
			cfg := withCHAP(config(tgt), c)
			_, err := initiator.Open(t.Context(), cfg)
			require.Equal(t, initiator.KindAuth, initiator.KindOf(err), "%v", err)
			noSecret(t, err.Error())
			ask := initiator.DiscoverConfig{Portals: cfg.Portals, InitiatorName: me, CHAP: c}
			_, err = initiator.Discover(t.Context(), ask)
			assert.Equal(t, initiator.KindAuth, initiator.KindOf(err), "%v", err)
			_, err = initiator.Luns(t.Context(), tgt.Name(), ask)
			assert.Equal(t, initiator.KindAuth, initiator.KindOf(err), "%v", err)
		})
	}
}

func TestCHAPConfiguration(t *testing.T) {
	base := initiator.Config{Target: "iqn.2026-01.test:a", Portals: []string{"127.0.0.1"}, InitiatorName: me}
	same := mutual(t)
	same.MutualSecret = same.Secret
	noSecretGiven := oneWay(t)
	noSecretGiven.Secret = initiator.Secret{}
	for want, c := range map[string]initiator.CHAP{
		"the same":         same,
		"no CHAP secret":   noSecretGiven,
		"user is empty":    {Secret: secret(t, chaptest.Secret)},
		"user but no secr": {User: "a", Secret: secret(t, chaptest.Secret), MutualUser: "b"},
	} {
		_, err := initiator.Open(t.Context(), withCHAP(base, c))
		require.ErrorContains(t, err, want)
		require.Equal(t, initiator.KindInvalid, initiator.KindOf(err))
		_, err = initiator.Discover(t.Context(), initiator.DiscoverConfig{Portals: base.Portals, InitiatorName: me, CHAP: c})
		require.Equal(t, initiator.KindInvalid, initiator.KindOf(err), "%v", err)
	}
	cross := withCHAP(base, mutual(t))
	cross.DiscoveryCHAP = initiator.CHAP{User: "finder", Secret: secret(t, chaptest.MutualSecret)}
	_, err := initiator.Open(t.Context(), cross)
	require.ErrorContains(t, err, "the same", "a secret for both directions, if in different places")
	_, err = initiator.ParseCHAPAlgorithms("md4")
	require.Equal(t, initiator.KindInvalid, initiator.KindOf(err))
	_, err = initiator.LoadSecretFile("/nonexistent/secret")
	require.Equal(t, initiator.KindInvalid, initiator.KindOf(err))
	_, err = initiator.NewSecret("")
	require.Equal(t, initiator.KindInvalid, initiator.KindOf(err))
}

// lines is a log that several goroutines write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestShortSecretsAreWarnedAboutOnce, and never logged.
func TestShortSecretsAreWarnedAboutOnce(t *testing.T) {
	auth := chaptest.New(t)
	auth.Config.Secret = secret(t, "sesame123")
	tgt := target(t, iscsitest.Config{Portals: portals(2), Authenticate: auth})
	c := mutual(t)
	c.Secret = auth.Config.Secret
	log := &lines{}
	cfg := withCHAP(config(tgt), c)
	cfg.Wait, cfg.Logger = 2, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dev := open(t, cfg)
	snap, err := dev.Snapshot(t.Context())
	require.NoError(t, err)
	shown, err := json.Marshal(snap)
	require.NoError(t, err)
	require.NoError(t, dev.Close(t.Context()))
	assert.Equal(t, 1, strings.Count(log.String(), "has only 9 bytes"), log)
	noSecret(t, log.String(), string(shown), fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg.CHAP))
	assert.NotContains(t, log.String(), "sesame")
}

func noSecret(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		assert.NotContains(t, text, chaptest.Secret)
		assert.NotContains(t, text, chaptest.MutualSecret)
		assert.NotContains(t, text, "wrong secret indeed")
	}
}
