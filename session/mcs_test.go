package session

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
)

// awaitConnections waits until n connections of the session are up.
func (l *live) awaitConnections(n int) {
	l.t.Helper()
	there := make(chan struct{})
	l.do(func() {
		l.onChange = func() {
			if l.s.Stats().Connections == n {
				l.onChange = nil
				close(there)
			}
		}
		l.onChange()
	})
	select {
	case <-there:
	case <-time.After(patience):
		var st Stats
		l.do(func() { st = l.s.Stats() })
		l.t.Fatalf("not %d connections: %+v", n, st)
	}
}

func mcsTarget(t *testing.T, at place, erl uint8, rec *iscsitest.Recorder) *iscsitest.Target {
	return newTarget(t, at, iscsitest.Config{
		Recorder: rec,
		Params:   iscsitest.Params{MaxConnections: 8, ErrorRecoveryLevel: erl},
	})
}

// TestSeveralConnections: all connections of a session carry commands, in order
// of CmdSN on each, and nothing is wrong with the data.
func TestSeveralConnections(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		rec := &iscsitest.Recorder{}
		tgt := mcsTarget(t, at, 0, rec)
		l := logIn(t, at, tgt, Config{Connections: 4})
		l.awaitConnections(4)
		newLoad(l, 1, 16, 1500, 128).run(t)
		require.Len(t, tgt.Sessions(), 1)
		l.close()
		last, used := map[int]uint32{}, map[int]int{}
		for _, r := range rec.Records() {
			if r.BHS().Opcode() == pdu.OpSCSICommand {
				require.True(t, used[r.Conn] == 0 || serial.Less(last[r.Conn], r.BHS().CmdSN()), "CmdSN goes back on connection %d", r.Conn)
				last[r.Conn] = r.BHS().CmdSN()
				used[r.Conn]++
			}
		}
		require.Len(t, used, 4)
		for conn, n := range used {
			require.Greater(t, n, 100, "connection %d is hardly used", conn)
		}
	})
}

// TestConnectionsTheTargetDoesNotAllow: a target that allows one gets one.
func TestConnectionsTheTargetDoesNotAllow(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{})
		l := logIn(t, at, tgt, Config{Connections: 4})
		newLoad(l, 1, 4, 100, 64).run(t)
		var st Stats
		l.do(func() { st = l.s.Stats() })
		require.Equal(t, 1, st.Connections)
		require.Equal(t, uint16(1), st.Params.MaxConnections)
	})
}

// TestLostConnections cuts single connections of a session under load, again
// and again: the session lives on, no command is lost or done twice, and what
// failed is settled.
func TestLostConnections(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		l, cuts := cutUnderLoad(t, at, 2)
		var st Stats
		l.do(func() { st = l.s.Stats() })
		require.Equal(t, uint64(1), st.Logins, "the session was given up")
		t.Logf("%d connections cut", cuts)
	})
}

// TestLostConnectionsAtLevel0: with one connection goes the session; it is
// reinstated as a whole, and nothing is lost.
func TestLostConnectionsAtLevel0(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		l, cuts := cutUnderLoad(t, at, 0)
		var st Stats
		l.do(func() { st = l.s.Stats() })
		require.Greater(t, st.Logins, uint64(1))
		require.LessOrEqual(t, st.Logins, uint64(cuts+1))
		require.Zero(t, st.Params.ErrorRecoveryLevel)
		require.Equal(t, uint16(8), st.Params.MaxOutstandingR2T, "several R2Ts are only forbidden above level 0")
	})
}

// cutUnderLoad cuts single connections of three again and again, at an
// ErrorRecoveryLevel, and checks what the load left behind.
func cutUnderLoad(t *testing.T, at place, erl uint8) (l *live, cuts int) {
	tgt := mcsTarget(t, at, 2, nil)
	l = logIn(t, at, tgt, Config{Connections: 3, ErrorRecoveryLevel: erl, ReconnectMin: time.Millisecond, ReconnectMax: 20 * time.Millisecond})
	l.awaitConnections(3)
	ld := newLoad(l, 2, 16, 3000, 128)
	rng := rand.New(rand.NewPCG(7, uint64(erl)))
	l.do(func() {
		started := 0
		ld.starts = func(*worker) {
			if started++; started%200 != 0 {
				return
			}
			var live []*conn
			for i := range l.s.members {
				if m := &l.s.members[i]; m.up() {
					live = append(live, m.conn)
				}
			}
			if len(live) > 1 {
				cuts++
				live[rng.IntN(len(live))].abort(l.s.err(KindTransport, "cut by the test"))
			}
		}
		l.onChange = ld.kick
	})
	ld.run(t)
	require.Greater(t, cuts, 1) // in virtual time the load is over before a connection is back
	l.awaitConnections(3)
	return l, cuts
}

// TestAllConnectionsLost: with the last connection goes the session; it is
// reinstated, and its connections join it again.
func TestAllConnectionsLost(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := mcsTarget(t, at, 0, nil)
		l := logIn(t, at, tgt, Config{Connections: 3, ReconnectMin: time.Millisecond, ReconnectMax: 20 * time.Millisecond})
		l.awaitConnections(3)
		for range 3 {
			l.do(func() { l.s.Drop(l.s.err(KindTransport, "dropped by the test")) })
			l.await("down")
			up := l.await("up")
			require.True(t, up.up.Reinstated)
			l.awaitConnections(3)
		}
		newLoad(l, 3, 8, 300, 64).run(t)
	})
}

// TestCloseWithSeveralConnections, also while some are still on their way.
func TestCloseWithSeveralConnections(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := mcsTarget(t, at, 0, nil)
		l := logIn(t, at, tgt, Config{Connections: 8})
		l.close()
		require.Empty(t, tgt.Sessions())
	})
}

// TestLogoutAskedForWithSeveralConnections: the target wants the session to end;
// it does, as a whole, and comes back with all connections.
func TestLogoutAskedForWithSeveralConnections(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := mcsTarget(t, at, 0, nil)
		l := logIn(t, at, tgt, Config{Connections: 3, ReconnectMin: time.Millisecond, ReconnectMax: 20 * time.Millisecond})
		l.awaitConnections(3)
		require.Equal(t, 3, tgt.SendAsync(iscsitest.ByTSIH(tgt.Sessions()[0].TSIH), pdu.Async{AsyncEvent: pdu.AsyncLogoutRequest, Param3: 2}, nil))
		down := l.await("down")
		require.Equal(t, KindTarget, down.err.Kind)
		l.await("up")
		l.awaitConnections(3)
		newLoad(l, 3, 8, 200, 64).run(t)
	})
}

// TestNoticeOfALostConnection: LIO tells over a living connection that another
// one is going down, also when it is gone already. That is no reason to drop the
// one that carried the news.
func TestNoticeOfALostConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := mcsTarget(t, at, 2, nil)
		l := logIn(t, at, tgt, Config{Connections: 3, ErrorRecoveryLevel: 2, ReconnectMin: time.Millisecond, ReconnectMax: 20 * time.Millisecond})
		l.awaitConnections(3)
		l.do(func() { l.s.members[1].conn.abort(l.s.err(KindTransport, "cut by the test")) })
		notice := pdu.Async{AsyncEvent: pdu.AsyncConnectionDrop, Param1: 1}
		require.NotZero(t, tgt.SendAsync(iscsitest.ByTSIH(tgt.Sessions()[0].TSIH), notice, nil))
		newLoad(l, 3, 8, 200, 64).run(t)
		l.awaitConnections(3)
		var st Stats
		l.do(func() { st = l.s.Stats() })
		require.Equal(t, uint64(1), st.Logins)
	})
}
