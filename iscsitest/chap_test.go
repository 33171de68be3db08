package iscsitest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
)

func secretOf(t *testing.T, text string) chap.Secret {
	t.Helper()
	s, err := chap.NewSecret(text)
	require.NoError(t, err)
	return s
}

// chapUsers are alice and bob.
func chapUsers(t *testing.T) *CHAP {
	t.Helper()
	return &CHAP{Users: map[string]chap.Secret{
		"alice": secretOf(t, "alice's secret, long"),
		"bob":   secretOf(t, "bob's secret, longer"),
	}}
}

// chapLogin logs in with CHAP and returns how the target and the initiator see it.
func (c *client) chapLogin(cfg chap.Config, keys ...string) (pdu.LoginStatus, error) {
	c.t.Helper()
	cfg.Registry = chap.NewRegistry()
	in, err := chap.New(cfg)
	require.NoError(c.t, err)
	step := func(transit bool, text []byte, more ...string) pdu.LoginResponse {
		require.NoError(c.t, pdu.WalkKeys(text, func(k, v []byte) error {
			more = append(more, string(k)+"="+string(v))
			return nil
		}))
		c.keys = map[string]string{}
		return c.loginStep(c.loginPDU(transit, pdu.StageSecurity, pdu.StageOperational), more...)
	}
	r := step(false, nil, append([]string{"AuthMethod=CHAP,None"}, append(nameKeys, keys...)...)...)
	if r.LoginStatus() != pdu.LoginSuccess {
		return r.LoginStatus(), nil
	}
	require.Equal(c.t, "CHAP", c.keys["AuthMethod"])
	if r = step(false, in.AppendOffer(nil)); r.LoginStatus() != pdu.LoginSuccess {
		return r.LoginStatus(), nil
	}
	text, err := in.Step(nil, chap.KeysFromMap(c.keys))
	if err != nil {
		return pdu.LoginSuccess, err
	}
	if r = step(true, text); r.LoginStatus() != pdu.LoginSuccess {
		return r.LoginStatus(), nil
	}
	require.True(c.t, r.Transit)
	if in.Mutual() {
		if err := in.Verify(chap.KeysFromMap(c.keys)); err != nil {
			return pdu.LoginSuccess, err
		}
	}
	c.requireLoggedIn(c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature)))
	return pdu.LoginSuccess, nil
}

func TestCHAP(t *testing.T) {
	alice := chap.Config{User: "alice", Secret: secretOf(t, "alice's secret, long")}
	bob := chap.Config{User: "bob", Secret: secretOf(t, "bob's secret, longer")}
	mixed := chap.Config{User: "alice", Secret: bob.Secret}
	mutual := alice
	mutual.MutualUser, mutual.MutualSecret = "disk", secretOf(t, "secret of the target")
	knowsMutual := func(c *CHAP) { c.MutualUser, c.MutualSecret = mutual.MutualUser, mutual.MutualSecret }
	for _, tc := range []struct {
		name   string
		change func(*CHAP)
		cfg    chap.Config
		want   pdu.LoginStatus
		fails  bool // the initiator refuses the target
	}{
		{"alice", nil, alice, pdu.LoginSuccess, false},
		{"bob", nil, bob, pdu.LoginSuccess, false},
		{"the secret of another", nil, mixed, pdu.LoginAuthFailure, false},
		{"unknown", nil, chap.Config{User: "eve", Secret: alice.Secret}, pdu.LoginAuthFailure, false},
		{"mutual", knowsMutual, mutual, pdu.LoginSuccess, false},
		{"mutual, but the target has no secret", nil, mutual, pdu.LoginAuthFailure, false},
		{"not asked for mutual", knowsMutual, alice, pdu.LoginSuccess, false},
		{
			"no common algorithm", func(c *CHAP) { c.Algorithms = []chap.Algorithm{chap.SHA3256} },
			chap.Config{User: "bob", Secret: bob.Secret, Algorithms: []chap.Algorithm{chap.MD5}},
			pdu.LoginAuthFailure, false,
		},
		{"fault", func(c *CHAP) { knowsMutual(c); c.Faults.WrongResponse = true }, mutual, pdu.LoginSuccess, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := chapUsers(t)
			if tc.change != nil {
				tc.change(cfg)
			}
			tgt := startMulti(t, func(c *Config) { c.CHAP = cfg })
			c := connect(t, tgt, 0)
			status, err := c.chapLogin(tc.cfg)
			assert.Equal(t, tc.want, status)
			assert.Equal(t, tc.fails, err != nil, "%v", err)
			if tc.want == pdu.LoginSuccess && !tc.fails {
				c.ping()
			} else {
				assert.Empty(t, tgt.Sessions())
			}
		})
	}
}

func TestCHAPIsDemanded(t *testing.T) {
	withoutStage := func(c *client) pdu.LoginStatus {
		r := c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), nameKeys...)
		return r.LoginStatus()
	}
	withoutMethod := func(c *client) pdu.LoginStatus {
		r := c.loginStep(c.loginPDU(true, pdu.StageSecurity, pdu.StageOperational), nameKeys...)
		return r.LoginStatus()
	}
	discovery := func(c *client) pdu.LoginStatus {
		r := c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), nameKeys[0], "SessionType=Discovery")
		return r.LoginStatus()
	}
	normal := map[string]func(*client) pdu.LoginStatus{
		"None": (*client).loginStatus, "no stage": withoutStage, "no method": withoutMethod,
	}
	for name, tc := range map[string]struct {
		change            func(*CHAP)
		normal, discovery pdu.LoginStatus
	}{
		"all":       {func(*CHAP) {}, pdu.LoginAuthFailure, pdu.LoginAuthFailure},
		"normal":    {func(c *CHAP) { c.Sessions = CHAPNormalSessions }, pdu.LoginAuthFailure, pdu.LoginSuccess},
		"discovery": {func(c *CHAP) { c.Sessions = CHAPDiscoverySessions }, pdu.LoginSuccess, pdu.LoginAuthFailure},
		"optional":  {func(c *CHAP) { c.Optional = true }, pdu.LoginSuccess, pdu.LoginSuccess},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := chapUsers(t)
			tc.change(cfg)
			tgt := startTarget(t, Config{CHAP: cfg})
			for how, login := range normal {
				assert.Equal(t, tc.normal, login(connect(t, tgt, 0)), how)
			}
			assert.Equal(t, tc.discovery, discovery(connect(t, tgt, 0)))
		})
	}
}

// TestCHAPOnEachConnection has a connection that joins a session prove itself too.
func TestCHAPOnEachConnection(t *testing.T) {
	tgt := startMulti(t, func(c *Config) { c.CHAP = chapUsers(t) })
	alice := chap.Config{User: "alice", Secret: secretOf(t, "alice's secret, long")}
	a := connect(t, tgt, 0)
	status, err := a.chapLogin(alice)
	require.NoError(t, err)
	require.Equal(t, pdu.LoginSuccess, status)
	stranger := a.another(tgt, 0)
	assert.Equal(t, pdu.LoginAuthFailure, stranger.loginStatus())
	a.ping() // was not reinstated
	again := a.another(tgt, 0)
	status, err = again.chapLogin(alice)
	require.NoError(t, err)
	assert.Equal(t, pdu.LoginSuccess, status)
	a.expectEnd()
}

func TestCHAPConfigIsChecked(t *testing.T) {
	akin := chapUsers(t)
	akin.MutualUser, akin.MutualSecret = "disk", akin.Users["bob"]
	for name, cfg := range map[string]Config{
		"no users":         {CHAP: &CHAP{}},
		"the same secrets": {CHAP: akin},
		"two ways":         {CHAP: chapUsers(t), Authenticate: stubAuth{}},
	} {
		_, err := NewTarget(cfg)
		assert.Error(t, err, name)
	}
}

type stubAuth struct{}

func (stubAuth) Begin(string, string) AuthExchange { return nil }
