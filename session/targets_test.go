package session

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
)

// TestDiscovery: the list of targets, also where it takes many answers.
func TestDiscovery(t *testing.T) {
	for _, limit := range []uint32{0, 100, 7} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			everywhere(t, func(t *testing.T, at place) {
				cfg := iscsitest.Config{
					Portals: []iscsitest.Portal{{TPGT: 3}, {TPGT: 4, Advertise: "[2001:db8::1]:3261"}},
					Params:  iscsitest.Params{TextLength: max(limit, 64) * min(limit, 1)},
				}
				for i := range 3 {
					cfg.Targets = append(cfg.Targets, iscsitest.Node{Name: fmt.Sprintf("iqn.2026-01.test:d%d", i), LUNs: []iscsitest.LUN{{Size: 1 << 20}}, Portals: []int{i % 2}})
				}
				tgt := newTarget(t, at, cfg)
				l := logIn(t, at, tgt, Config{Discovery: true, MaxRecvDataSegmentLength: max(512, limit)})
				require.NoError(t, tgt.SetParams(iscsitest.Params{}))
				var targets []TargetInfo
				var refused *Error
				done := make(chan struct{})
				l.do(func() {
					l.s.SendTargets(func(ts []TargetInfo, err *Error) {
						assert.Nil(t, err)
						targets = ts
						close(done)
					})
					l.s.SendTargets(func(_ []TargetInfo, err *Error) { refused = err })
					require.Zero(t, l.s.Room(), "no commands in a discovery session")
				})
				<-done
				require.NotNil(t, refused, "one at a time")
				require.Len(t, targets, 4)
				assert.Equal(t, []PortalInfo{{tgt.Addr(0), 3}, {"[2001:db8::1]:3261", 4}}, targets[0].Portals)
				assert.Equal(t, TargetInfo{"iqn.2026-01.test:d1", []PortalInfo{{"[2001:db8::1]:3261", 4}}}, targets[2])
				l.close()
				require.Empty(t, tgt.Sessions())
			})
		})
	}
}

func TestParseTargetAddress(t *testing.T) {
	for v, want := range map[string]PortalInfo{
		"10.0.0.1:3261,2":       {"10.0.0.1:3261", 2},
		"10.0.0.1,0":            {"10.0.0.1:3260", 0},
		"10.0.0.1":              {"10.0.0.1:3260", -1},
		"disk.example.org,0x10": {"disk.example.org:3260", 16},
		"[::1]:3261,65535":      {"[::1]:3261", 65535},
		"[::1],1":               {"[::1]:3260", 1},
		"[2001:db8::2]":         {"[2001:db8::2]:3260", -1},
	} {
		got, err := parseTargetAddress(v)
		require.NoError(t, err, v)
		require.Equal(t, want, got, v)
	}
	for _, v := range []string{"", ",1", "10.0.0.1,", "10.0.0.1,65536", "10.0.0.1,-1", "10.0.0.1,a"} {
		_, err := parseTargetAddress(v)
		require.Error(t, err, v)
	}
}

// TestRedirected: a login sent on to another portal, and round in a circle.
func TestRedirected(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		// Over pipes the addresses are known before, over TCP the port is not.
		elsewhere := newTarget(t, at, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: 1 << 20}}})
		addr := elsewhere.Addr(0)
		portals := []iscsitest.Portal{{}, {}}
		if at.pipe {
			addr = "192.0.2.2:3260" // the second portal of the target itself
		}
		portals[0].Redirect = &iscsitest.Redirect{Address: addr + ",1"}
		tgt := newTarget(t, at, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: 1 << 20}}, Portals: portals})
		l := logIn(t, at, tgt, Config{})
		l.run(newOp(DirRead, 0, make([]byte, 512)))
		var st Stats
		l.do(func() { st = l.s.Stats() })
		assert.Equal(t, tgt.Addr(0), st.Portal)
		assert.NotEmpty(t, st.LocalAddr)
	})
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{Portals: []iscsitest.Portal{
			{Redirect: &iscsitest.Redirect{Address: "192.0.2.2:3260"}},
			{Redirect: &iscsitest.Redirect{Address: "192.0.2.1:3260", Permanent: true}},
		}})
		l := newLive(t, at, tgt, Config{})
		l.do(l.s.Start)
		require.Contains(t, l.next("down").err.Error(), "in a circle")
	})
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{Portals: []iscsitest.Portal{{Redirect: &iscsitest.Redirect{Address: "192.0.2.9:3260"}}}})
		var log bytes.Buffer
		l := newLive(t, at, tgt, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		l.do(l.s.Start)
		for range 3 {
			require.Contains(t, l.next("down").err.Error(), "192.0.2.1:3260: at 192.0.2.9:3260, where it sends logins: cannot connect")
		}
		l.do(func() { assert.Equal(t, 1, strings.Count(log.String(), "login redirected"), log.String()) })
	})
}

// TestTwoInitiatorsWithOneName: each ends the sessions of the other. That is said.
func TestTwoInitiatorsWithOneName(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{})
		l := logIn(t, at, tgt, Config{})
		const hint = "another host or process uses the initiator name"
		lose := func() string {
			tgt.DropSessions(nil)
			e := l.next("down").err
			l.next("up")
			return e.Error()
		}
		for range briefSessions - 1 {
			require.NotContains(t, lose(), hint)
		}
		require.Contains(t, lose(), hint)
		require.Contains(t, lose(), hint)
		time.Sleep(briefSession)
		require.NotContains(t, lose(), hint, "this one has lived")
	})
}

// TestPickyTargets: targets with habits of their own that a session gets along with.
func TestPickyTargets(t *testing.T) {
	for name, q := range map[string]iscsitest.Quirks{
		"offers keys":  {OfferKeys: true},
		"unknown keys": {CloseOnUnknownKey: true, SilentFailure: true},
		"no tag":       {NoPortalGroupTag: true},
		"zero handle":  {TSIHZero: true},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, at place) {
				cfg := iscsitest.Config{Quirks: q, LUNs: []iscsitest.LUN{{Size: 16 << 20}}, Alias: "a disk"}
				cfg.Params.HeaderDigest = iscsitest.DigestRequired
				tgt := newTarget(t, at, cfg)
				l := logIn(t, at, tgt, Config{HeaderDigest: true})
				newLoad(l, 2, 2, 20, 300).run(t)
				var st Stats
				l.do(func() { st = l.s.Stats() })
				assert.Equal(t, "a disk", st.Params.TargetAlias)
				assert.True(t, st.Params.HeaderDigest)
			})
		})
	}
}

// TestFewerKeys: a target that hangs up on a key it does not know, in the
// operational stage, is logged in to with the smallest set at the second attempt.
func TestFewerKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: 16 << 20}}})
		inject(t, tgt, iscsitest.Func("a key of these times", func(e *iscsitest.Event) bool {
			return e.Opcode() == pdu.OpLogin && strings.Contains(string(e.Data), "MaxConnections")
		}), iscsitest.Close())
		l := newLive(t, at, tgt, Config{})
		l.do(l.s.Start)
		require.Contains(t, l.next("down").err.Error(), "in the middle of the login")
		l.next("up")
		newLoad(l, 3, 2, 20, 300).run(t)
		l.do(func() { l.s.Drop(nil) })
		l.next("down")
		l.next("up", "up")
	})
}

// TestDigestInsisted: a target that will not do without a digest nobody asked for.
func TestDigestInsisted(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{Params: iscsitest.Params{DataDigest: iscsitest.DigestRequired}})
		l := newLive(t, at, tgt, Config{})
		l.do(l.s.Start)
		require.Equal(t, KindLogin, l.next("down").err.Kind)
	})
}

// TestOversizedData: a target that ignores what we declared is dropped before a
// byte lands.
func TestOversizedData(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: 1 << 20}}, Quirks: iscsitest.Quirks{IgnoreMRDSL: true}})
		l := logIn(t, at, tgt, Config{MaxRecvDataSegmentLength: 4096})
		o := newOp(DirRead, 0, make([]byte, 64<<10))
		l.submit(o)
		o.wait(t)
		require.NotNil(t, o.Err)
		require.Equal(t, KindProtocol, o.Err.Kind)
		require.Contains(t, o.Err.Error(), "at most 4096 are allowed")
		require.Zero(t, o.Received)
	})
}

// TestRefusals: what the target says to a login reaches the user, with a remedy.
func TestRefusals(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{})
		for _, st := range []pdu.LoginStatus{pdu.LoginAuthFailure, pdu.LoginNotFound, pdu.LoginOutOfResources} {
			rule := inject(t, tgt, iscsitest.And(iscsitest.Op(pdu.OpLogin), iscsitest.First(1)), iscsitest.FailLogin(st))
			l := newLive(t, at, tgt, Config{ReconnectMin: time.Second})
			l.do(l.s.Start)
			down := l.next("down")
			assert.Equal(t, KindLogin, down.err.Kind)
			assert.Equal(t, st, down.err.Login)
			assert.Equal(t, st.Class() == 2, down.err.Permanent())
			assert.Contains(t, down.err.Error(), st.String())
			l.close()
			rule.Remove()
		}
	})
}
