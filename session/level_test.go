package session

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
)

// TestErrorRecoveryLevels that make sense.
func TestErrorRecoveryLevels(t *testing.T) {
	cfg := Config{InitiatorName: hostName, TargetName: "iqn.2026-01.test:disk", Portal: "127.0.0.1:3260"}
	for _, tt := range []struct {
		level       uint8
		connections int
		ok          bool
	}{{0, 1, true}, {0, 4, true}, {2, 4, true}, {2, 0, false}, {2, 1, false}, {1, 4, false}, {3, 4, false}} {
		cfg.ErrorRecoveryLevel, cfg.Connections = tt.level, tt.connections
		_, err := cfg.withDefaults()
		assert.Equal(t, tt.ok, err == nil, "%+v: %v", tt, err)
	}
}

// TestLevel0AsksForNoCleanUp: with a connection the session ends at once; no
// Logout is sent, and no login with the old session's TSIH.
func TestLevel0AsksForNoCleanUp(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		rec := &iscsitest.Recorder{}
		tgt := mcsTarget(t, at, 2, rec)
		l := logIn(t, at, tgt, Config{Connections: 3})
		l.awaitConnections(3)
		before := len(rec.Records())
		require.Equal(t, 1, tgt.CutConnection(nil, 1))
		down := l.await("down")
		assert.Equal(t, KindTransport, down.err.Kind)
		assert.NotContains(t, down.err.Error(), "given up", "the first reason counts")
		assert.True(t, l.await("up").up.Reinstated)
		for _, r := range rec.Records()[before:] {
			require.NotEqual(t, pdu.OpLogout, r.BHS().Opcode())
			if r.BHS().Opcode() == pdu.OpLogin {
				require.Zero(t, pdu.LoginView(r.BHS()).TSIH())
				break // what follows joins the new session
			}
		}
	})
}

// TestSeveralConnectionsToLIO are made only for those who insist, since its kernel
// does not bear the loss of one.
func TestSeveralConnectionsToLIO(t *testing.T) {
	for level, want := range map[uint8]int{0: 1, 2: 3} {
		inBubble(t, func(t *testing.T, at place) {
			var log strings.Builder
			tgt := newTarget(t, at, iscsitest.Config{
				Alias: "LIO Target", Params: iscsitest.Params{MaxConnections: 4, ErrorRecoveryLevel: 2},
			})
			l := logIn(t, at, tgt, Config{
				Connections: 3, ErrorRecoveryLevel: level, ReconnectMin: time.Millisecond,
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			l.awaitConnections(want)
			l.do(func() { l.s.Drop(nil) })
			l.await("down")
			l.await("up")
			l.awaitConnections(want)
			require.Len(t, tgt.Sessions()[0].Conns, want)
			l.close()
			require.Equal(t, 2-int(level), 2*strings.Count(log.String(), "one connection is used"), "told once: %s", &log)
		})
	}
}

// TestNothingFollowsTheSessionsLogout: no request, ping or answer goes out on any
// connection once one of them carried the session's Logout, and none joins.
func TestNothingFollowsTheSessionsLogout(t *testing.T) {
	for _, level := range []uint8{0, 2} {
		inBubble(t, func(t *testing.T, at place) {
			rec := &iscsitest.Recorder{}
			tgt := mcsTarget(t, at, 2, rec)
			hold := iscsitest.NewHold(iscsitest.HoldStrict)
			inject(t, tgt, iscsitest.Op(pdu.OpLogout), iscsitest.Hang(hold))
			// The fourth login never ends.
			inject(t, tgt, iscsitest.And(iscsitest.Op(pdu.OpLogin), iscsitest.OnCID(3)), iscsitest.Drop())
			l := logIn(t, at, tgt, Config{Connections: 4, ErrorRecoveryLevel: level, ReconnectMin: time.Millisecond})
			l.awaitConnections(3)
			synctest.Wait() // until the request of the fourth has come, too
			all := iscsitest.ByTSIH(tgt.Sessions()[0].TSIH)
			require.Equal(t, 3, tgt.SendAsync(all, pdu.Async{AsyncEvent: pdu.AsyncLogoutRequest, Param3: 4}, nil))
			require.NoError(t, hold.WaitHeld(t.Context(), 1))
			synctest.Wait()
			asked := len(rec.Records())
			require.Equal(t, 3, tgt.SendNOPIn(all, true))
			time.Sleep(2500 * time.Millisecond) // the session is patient for 3 s
			for _, r := range rec.Records()[asked:] {
				require.Equal(t, iscsitest.FromTarget, r.Dir, "level %d: %s", level, r.Trace())
			}
			hold.Release()
			require.Equal(t, KindTarget, l.await("down").err.Kind)
		})
	}
}
