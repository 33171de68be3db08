package session

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/chaptest"
	"github.com/iscsimp/iscsimp/internal/transcript"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
)

// counting is a source of bytes for challenges that can be foretold.
type counting byte

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(*c)
		*c++
	}
	return len(p), nil
}

// chapConfig reads chap, mutual and algs=LIST of a config command.
func chapConfig(t *testing.T, c transcript.Cmd) *chap.Config {
	if !c.Has("chap") && !c.Has("mutual") {
		return nil
	}
	cfg := &chap.Config{User: chaptest.User, Secret: chaptest.SecretOf(t, chaptest.Secret), Rand: new(counting), Registry: chap.NewRegistry()}
	if c.Has("mutual") {
		cfg.MutualUser, cfg.MutualSecret = chaptest.MutualUser, chaptest.SecretOf(t, chaptest.MutualSecret)
	}
	if list, ok := c.Args["algs"]; ok {
		var err error
		cfg.Algorithms, err = chap.ParseAlgorithms(list)
		require.NoError(t, err)
	}
	return cfg
}

func oneWay(t testing.TB) *chap.Config {
	return &chap.Config{User: chaptest.User, Secret: chaptest.SecretOf(t, chaptest.Secret)}
}

func mutual(t testing.TB) *chap.Config {
	cfg := oneWay(t)
	cfg.MutualUser, cfg.MutualSecret = chaptest.MutualUser, chaptest.SecretOf(t, chaptest.MutualSecret)
	return cfg
}

// TestCHAPLive: with a test target, over both drivers: the login, discovery, and
// the reinstatement after a loss.
func TestCHAPLive(t *testing.T) {
	for name, configure := range map[string]func(testing.TB) *chap.Config{"one-way": oneWay, "mutual": mutual} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, at place) {
				tgt := newTarget(t, at, iscsitest.Config{Authenticate: chaptest.New(t)})
				l := logIn(t, at, tgt, Config{CHAP: configure(t)})
				l.do(func() { l.s.Drop(nil) })
				l.await("down")
				require.True(t, l.await("up").up.Reinstated)
				l.close()
				logIn(t, at, tgt, Config{CHAP: configure(t), Discovery: true}).close()
			})
		})
	}
}

// TestCHAPRefused: failures are those of authentication, final, and without the secret.
func TestCHAPRefused(t *testing.T) {
	wrong := oneWay(t)
	wrong.Secret = chaptest.SecretOf(t, "not alice's secret")
	stranger := oneWay(t)
	stranger.User = "bob"
	for name, tt := range map[string]struct {
		chap *chap.Config
		auth func(*chaptest.Authenticator)
		want string
	}{
		"wrong secret":        {wrong, nil, "user or secret differ"},
		"wrong user":          {stranger, nil, "user or secret differ"},
		"none configured":     {nil, nil, "authentication failure"},
		"target unproven":     {mutual(t), func(a *chaptest.Authenticator) { a.Config.Faults.WrongResponse = true }, "the CHAP response is wrong"},
		"target is open":      {mutual(t), func(a *chaptest.Authenticator) { a.Config.Faults.NoAnswer = true }, "does not"},
		"no common hash":      {oneWay(t), func(a *chaptest.Authenticator) { a.Config.Algorithms = []chap.Algorithm{chap.SHA1} }, "compare the algorithms"},
		"SHA-1 taken for 7":   {&chap.Config{User: chaptest.User, Secret: chaptest.SecretOf(t, chaptest.Secret), Algorithms: []chap.Algorithm{chap.SHA256}}, func(a *chaptest.Authenticator) { a.Config.Faults.SHA1As7 = true }, "user or secret differ"},
		"unoffered algorithm": {oneWay(t), func(a *chaptest.Authenticator) { a.Config.Faults.Algorithm = chap.SHA1 }, "was not offered"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, at place) {
				auth := chaptest.New(t)
				if tt.auth != nil {
					tt.auth(auth)
				}
				tgt := newTarget(t, at, iscsitest.Config{Authenticate: auth})
				l := newLive(t, at, tgt, Config{CHAP: tt.chap})
				l.do(l.s.Start)
				down := l.next("down")
				require.Equal(t, KindLogin, down.err.Kind)
				require.Equal(t, pdu.LoginAuthFailure, down.err.Login)
				require.True(t, down.err.Permanent())
				require.Contains(t, down.err.Error(), tt.want)
				require.NotContains(t, down.err.Error(), chaptest.Secret)
				require.Greater(t, down.retryAt-l.driver.Now(), int64(10*time.Second), "not tried again soon")
			})
		})
	}
}

// TestCHAPFallback: a target that means SHA-1 by 7 is logged in to with MD5, the
// first time at the second attempt, afterwards at the first, and nobody hears of it.
func TestCHAPFallback(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		auth := chaptest.New(t)
		auth.Config.Faults.SHA1As7 = true
		cfg := oneWay(t)
		cfg.Algorithms = []chap.Algorithm{chap.SHA256, chap.MD5}
		l := newLive(t, at, newTarget(t, at, iscsitest.Config{Authenticate: auth}), Config{CHAP: cfg})
		l.do(l.s.Start)
		require.True(t, l.next("up").up.First)
		l.do(func() { l.s.Drop(nil) })
		l.next("down")
		l.next("up")
	})
}

// TestCHAPNotWanted: one-way CHAP is not insisted on, mutual is.
func TestCHAPNotWanted(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		auth := chaptest.New(t)
		auth.Open = true
		var log bytes.Buffer
		tgt := newTarget(t, at, iscsitest.Config{Authenticate: auth})
		l := logIn(t, at, tgt, Config{CHAP: oneWay(t), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		l.do(func() { l.s.Drop(nil) })
		l.await("up")
		l.close()
		require.Equal(t, 1, strings.Count(log.String(), "asks for no authentication"), "%s", &log)
		logIn(t, at, tgt, Config{CHAP: mutual(t)}).close() // it can do CHAP, and has to
		// A target that knows no authentication at all.
		l = newLive(t, at, newTarget(t, at, iscsitest.Config{}), Config{CHAP: mutual(t)})
		l.do(l.s.Start)
		require.Equal(t, pdu.LoginAuthFailure, l.next("down").err.Login)
	})
}

// TestReflectionAcrossSessions: sessions share the challenges they issued, so that
// none answers another's.
func TestReflectionAcrossSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		auth := chaptest.New(t)
		auth.Config.Faults = chap.Faults{Mirror: &chap.Mirror{}, AnyInitiator: true, WrongResponse: true}
		tgt := newTarget(t, at, iscsitest.Config{Authenticate: auth})
		for i, want := range []string{"the CHAP response is wrong", "issued ourselves"} {
			l := newLive(t, at, tgt, Config{CHAP: mutual(t), ISID: [6]byte{0x80, byte(i)}})
			l.do(l.s.Start)
			require.Contains(t, l.next("down").err.Error(), want)
		}
	})
}

func TestCHAPConfig(t *testing.T) {
	base := Config{InitiatorName: hostName, TargetName: "iqn.2026-01.test:disk", Portal: "127.0.0.1:3260"}
	same := mutual(t)
	same.MutualSecret = same.Secret
	for want, cfg := range map[string]*chap.Config{
		"secrets of both directions are the same": same,
		"user is empty":           {Secret: chaptest.SecretOf(t, chaptest.Secret)},
		"there is no CHAP secret": {User: chaptest.User},
	} {
		base.CHAP = cfg
		_, err := New(base, nil, nil)
		require.ErrorContains(t, err, want)
	}
	base.CHAP = oneWay(t)
	_, err := New(base, nil, nil)
	require.NoError(t, err)
	require.Nil(t, base.CHAP.Registry, "the caller's is left alone")
}

// TestCHAPOnEveryConnection: further connections authenticate as the first did.
func TestCHAPOnEveryConnection(t *testing.T) {
	for name, algorithms := range map[string][]chap.Algorithm{"default": nil, "after a fallback": {chap.SHA256, chap.MD5}} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, at place) {
				auth := chaptest.New(t)
				auth.Config.Faults.SHA1As7 = true
				tgt := newTarget(t, at, iscsitest.Config{Authenticate: auth, Params: iscsitest.Params{MaxConnections: 8}})
				cfg := mutual(t)
				cfg.Algorithms = algorithms
				l := logIn(t, at, tgt, Config{CHAP: cfg, Connections: 3})
				l.awaitConnections(3)
				l.close()
			})
		})
	}
}

// mixed asks the first login for CHAP, and no other.
type mixed struct {
	*chaptest.Authenticator
	logins atomic.Int32
}

func (m *mixed) Begin(initiator, target string) iscsitest.AuthExchange {
	a := *m.Authenticator
	a.Open = m.logins.Add(1) > 1
	return a.Begin(initiator, target)
}

// renamed gives the target another name in each login but the first.
type renamed struct {
	*chaptest.Authenticator
	logins atomic.Int32
}

func (r *renamed) Begin(initiator, target string) iscsitest.AuthExchange {
	a := *r.Authenticator
	if r.logins.Add(1) > 1 {
		a.Config.MutualUser = "somebody else"
	}
	return a.Begin(initiator, target)
}

// TestConnectionsLeadToOneTarget: whoever proves itself under another name on a
// further connection does not get in, even where any name would do.
func TestConnectionsLeadToOneTarget(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		auth := &renamed{Authenticator: chaptest.New(t)}
		tgt := newTarget(t, at, iscsitest.Config{Authenticate: auth, Params: iscsitest.Params{MaxConnections: 8}})
		cfg := mutual(t)
		cfg.MutualUser = ""
		l := logIn(t, at, tgt, Config{CHAP: cfg, Connections: 2})
		for range 300 { // virtual
			time.Sleep(time.Second)
		}
		require.Greater(t, auth.logins.Load(), int32(2), "it is tried again")
		l.do(func() { require.Equal(t, 1, l.s.Stats().Connections) })
		l.do(func() { l.s.Drop(nil) })
		l.await("up") // a new session is bound to nothing that was before
		l.awaitConnections(2)
		l.close()
	})
}

func TestConnectionsAreNotMixed(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		auth := &mixed{Authenticator: chaptest.New(t)}
		tgt := newTarget(t, at, iscsitest.Config{Authenticate: auth, Params: iscsitest.Params{MaxConnections: 8}})
		l := logIn(t, at, tgt, Config{CHAP: oneWay(t), Connections: 2})
		for range 300 { // virtual
			time.Sleep(time.Second)
		}
		require.Greater(t, auth.logins.Load(), int32(2), "it is tried again")
		l.do(func() { require.Equal(t, 1, l.s.Stats().Connections) })
		l.close()
	})
}
