package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
)

// TestStatsOfConnections: every connection is described, and one that is lost as
// missing.
func TestStatsOfConnections(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := mcsTarget(t, at, 2, nil)
		l := logIn(t, at, tgt, Config{Connections: 3, ErrorRecoveryLevel: 2, ReconnectMin: time.Hour})
		l.awaitConnections(3)
		var st Stats
		l.do(func() { st = l.s.Stats() })
		require.Len(t, st.Conns, 3)
		for i, c := range st.Conns {
			assert.Equal(t, uint16(i), c.CID)
			assert.Equal(t, "up", c.State)
			assert.NotEmpty(t, c.LocalAddr)
			assert.Zero(t, c.Outstanding)
		}
		missing := make(chan struct{})
		l.do(func() {
			l.onChange = func() {
				if l.s.Stats().Conns[2].State == "waiting" {
					l.onChange = nil
					close(missing)
				}
			}
			l.s.members[2].conn.abort(l.s.err(KindTransport, "cut by the test"))
		})
		<-missing
		l.do(func() { st = l.s.Stats() })
		assert.Equal(t, "waiting", st.Conns[2].State)
		assert.Positive(t, st.Conns[2].RetryIn)
		assert.Equal(t, 2, st.Connections)
	})
}

// TestStatsOfOneConnection: a session with one connection describes it in the
// same form; without a login there is none.
func TestStatsOfOneConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, Config{})
		var st Stats
		l.do(func() { st = l.s.Stats() })
		require.Len(t, st.Conns, 1)
		assert.Equal(t, ConnStats{State: "up", LocalAddr: st.LocalAddr, Latency: st.Conns[0].Latency}, st.Conns[0])
		l.close()
		l.do(func() { st = l.s.Stats() })
		assert.Empty(t, st.Conns)
	})
}

// TestNotices: what the target says on its own is kept for those who ask later.
func TestNotices(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, Config{})
		var st Stats
		l.do(func() { st = l.s.Stats() })
		assert.Equal(t, Notice{}, st.LastReject)
		inject(t, tgt, iscsitest.And(iscsitest.Reads(), iscsitest.OnIndex(0)), iscsitest.RejectPDU(pdu.RejectInvalidField))
		o := newOp(DirRead, 0, make([]byte, 512))
		l.submit(o)
		o.wait(t)
		require.Equal(t, 1, tgt.SendAsync(nil, pdu.Async{AsyncEvent: pdu.AsyncTaskTermination}, nil))
		again := newOp(DirRead, 0, make([]byte, 512))
		l.submit(again) // its answer comes after the message
		again.wait(t)
		l.do(func() { st = l.s.Stats() })
		assert.Equal(t, pdu.RejectInvalidField.String(), st.LastReject.Text)
		assert.Equal(t, uint64(1), st.LastReject.Count)
		assert.Positive(t, st.LastReject.At)
		assert.Equal(t, pdu.AsyncTaskTermination.String(), st.LastAsync.Text)
	})
}
