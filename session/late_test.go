package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// takenBack is a session with a write that was sent whole and taken back.
func takenBack(t *testing.T) (w *world, itt uint32, over *int) {
	w = newWorld(t)
	w.quick()
	c := &Command{Owner: w, Dir: DirWrite, Data: make([]byte, 512)}
	require.True(t, w.s.Submit(c))
	over = new(int)
	require.False(t, w.s.DetachWatched(c, func() { *over++ }), "its data has not left")
	w.settleOutput()
	itt = w.s.tasks.slots[c.slot-1].itt
	require.True(t, w.s.DetachWatched(c, func() { *over++ }))
	require.Zero(t, *over)
	return w, itt, over
}

func TestLateAnswerTellsThatACommandIsOver(t *testing.T) {
	for name, status := range map[string]scsi.Status{"good": scsi.Good, "failed": scsi.CheckCondition} {
		t.Run(name, func(t *testing.T) {
			w, itt, over := takenBack(t)
			c := w.s.conn
			rsp := pdu.SCSIResponse{ITT: itt, Status: uint8(status), StatSN: c.expStatSN, ExpCmdSN: w.s.cmdSN, MaxCmdSN: w.s.maxCmdSN}
			w.feed(rsp.AppendTo(nil), 4096)
			require.Equal(t, 1, *over)
			require.Equal(t, StateLoggedIn, w.s.State())
		})
	}
}

// TestLateAnswerThatTellsNothing: the target says that it could not finish the
// command. Whether anything of it may still happen only a new session settles.
func TestLateAnswerThatTellsNothing(t *testing.T) {
	w, itt, over := takenBack(t)
	rsp := pdu.SCSIResponse{
		Response: pdu.ServiceTargetFailure, ITT: itt, StatSN: w.s.conn.expStatSN, ExpCmdSN: w.s.cmdSN, MaxCmdSN: w.s.maxCmdSN,
	}
	w.feed(rsp.AppendTo(nil), 4096)
	require.Zero(t, *over)
	require.NotNil(t, w.aborted, "the session is given up")
}

func TestAbortTellsThatACommandIsOver(t *testing.T) {
	w, itt, over := takenBack(t)
	w.now += int64(w.s.cfg.DetachTimeout) + 1
	w.s.Tick()
	w.settleOutput()
	m := w.s.tasks.first()
	for m != nil && m.kind != taskTMF {
		m = w.s.tasks.after(m)
	}
	require.NotNil(t, m, "it is aborted when nothing comes")
	require.Equal(t, itt, m.tmf.ref)
	rsp := pdu.TaskMgmtResponse{Response: pdu.TMNoTask, ITT: m.itt, StatSN: w.s.conn.expStatSN, ExpCmdSN: w.s.cmdSN, MaxCmdSN: w.s.maxCmdSN}
	w.feed(rsp.AppendTo(nil), 4096)
	require.Equal(t, 1, *over)
}

func TestLostSessionTellsNothingOfACommandTakenBack(t *testing.T) {
	w, _, over := takenBack(t)
	w.s.Drop(w.s.err(KindTimeout, "dropped by hand"))
	w.h.Closed(w.aborted)
	require.Zero(t, *over)
}
