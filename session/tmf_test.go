package session

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// function asks for a task management function and waits for its outcome.
func (l *live) function(ask func(done func(TMFResult)) bool) TMFResult {
	l.t.Helper()
	result := make(chan TMFResult, 2)
	var asked bool
	l.do(func() { asked = ask(func(r TMFResult) { result <- r }) })
	require.True(l.t, asked)
	select {
	case r := <-result:
		return r
	case <-time.After(patience):
		l.t.Fatal("a task management function never ended")
	}
	return TMFResult{}
}

func requireAborted(t *testing.T, o *op) {
	t.Helper()
	o.wait(t)
	require.NotNil(t, o.Err)
	require.Equal(t, KindAborted, o.Err.Kind)
	require.True(t, o.Err.Sent && o.Err.Settled)
	require.Equal(t, int32(1), o.times.Load())
}

// TestAbortedCommandsAreOver: what hangs at the target is aborted, one by one or
// with the unit, and does not happen when the target wakes up.
func TestAbortedCommandsAreOver(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{})
		l := logIn(t, at, tgt, Config{})
		before := content(t, tgt)
		for name, hang := range map[string]func(*iscsitest.Hold) iscsitest.Action{
			"before the data": iscsitest.Hang, "before the medium": iscsitest.HoldWrite,
		} {
			hold := iscsitest.NewHold(iscsitest.HoldStrict)
			rule := inject(t, tgt, iscsitest.Or(iscsitest.Writes(), iscsitest.Reads()), iscsitest.Hang(hold))
			if name == "before the medium" {
				rule.Remove()
				rule = inject(t, tgt, iscsitest.Writes(), hang(hold))
			}
			// Longer than what may be sent unasked, so that an R2T has to come.
			w := newOp(DirWrite, 0, bytes.Repeat([]byte{0xee}, 512<<10))
			small := newOp(DirWrite, 2000, bytes.Repeat([]byte{0xee}, 512))
			l.submit(w, small)
			require.NoError(t, hold.WaitHeld(t.Context(), 2))
			r := l.function(func(done func(TMFResult)) bool { return l.s.AbortTask(&w.Command, done) })
			require.True(t, r.Ended(), r.String())
			requireAborted(t, w)
			r = l.function(func(done func(TMFResult)) bool { return l.s.ResetLUN(scsi.MakeLUN(0), done) })
			require.True(t, r.Ended(), r.String())
			requireAborted(t, small)
			rule.Remove()
			hold.Release()
			l.submit(newOp(DirNone, 0, nil)) // takes the UNIT ATTENTION of the reset
			l.run(newOp(DirRead, 0, make([]byte, 512)))
			require.True(t, bytes.Equal(before, content(t, tgt)), "%s: an aborted write was executed", name)
		}
	})
}

// TestFunctionsThatAreNotAnswered: time limits, refusals, and a loss of the connection.
func TestFunctionsThatAreNotAnswered(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{})
		l := logIn(t, at, tgt, Config{AbortTimeout: patience / 2, TargetResetTimeout: patience / 2})
		hold := iscsitest.NewHold(iscsitest.HoldStrict)
		defer hold.Release()
		inject(t, tgt, iscsitest.Reads(), iscsitest.Hang(hold))
		o := newOp(DirRead, 0, make([]byte, 512))
		l.submit(o)
		abort := func(done func(TMFResult)) bool { return l.s.AbortTask(&o.Command, done) }

		if at.pipe { // where waiting takes no time
			rule := inject(t, tgt, iscsitest.Op(pdu.OpTaskMgmt), iscsitest.Drop())
			r := l.function(abort)
			require.False(t, r.Ended())
			require.Equal(t, KindTimeout, r.Err.Kind)
			rule.Remove()
		}

		rule := inject(t, tgt, iscsitest.Op(pdu.OpTaskMgmt), iscsitest.RejectPDU(pdu.RejectUnsupported))
		r := l.function(abort)
		require.False(t, r.Ended())
		require.Equal(t, KindTarget, r.Err.Kind)
		rule.Remove()

		r = l.function(l.s.TargetColdReset)
		require.False(t, r.Ended())
		require.Equal(t, pdu.TMUnsupported, r.Response)

		inject(t, tgt, iscsitest.Op(pdu.OpTaskMgmt), iscsitest.Reset())
		r = l.function(l.s.TargetWarmReset)
		require.False(t, r.Ended())
		require.NotNil(t, r.Err)
		o.wait(t)
		require.False(t, o.Err.Settled)
		l.await("up")
	})
}

// TestAbortsOverTheirConnection: with several connections each ABORT TASK goes
// where its task is, which the target insists on, and none is lost.
func TestAbortsOverTheirConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := mcsTarget(t, at, 0, nil)
		l := logIn(t, at, tgt, Config{Connections: 4})
		l.awaitConnections(4)
		hold := iscsitest.NewHold(iscsitest.HoldStrict)
		defer hold.Release()
		inject(t, tgt, iscsitest.Reads(), iscsitest.Hang(hold))
		var ops []*op
		for i := range 12 {
			ops = append(ops, newOp(DirRead, uint64(i), make([]byte, 512)))
		}
		l.submit(ops...)
		require.NoError(t, hold.WaitHeld(t.Context(), len(ops)))
		for _, o := range ops {
			r := l.function(func(done func(TMFResult)) bool { return l.s.AbortTask(&o.Command, done) })
			require.True(t, r.Ended(), r.String())
			requireAborted(t, o)
		}
		var st Stats
		l.do(func() { st = l.s.Stats() })
		require.Zero(t, st.InFlight)
	})
}
