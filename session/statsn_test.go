package session

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// TestStatusGapIsTold: a StatSN that is left out costs nothing but a line in the
// log, once; the command whose answer it was is found by its timer. One that comes
// again is not even that.
func TestStatusGapIsTold(t *testing.T) {
	var log bytes.Buffer
	w := loggedInWorld(t, "")
	w.s.log = slog.New(slog.NewTextHandler(&log, nil))
	c := &census{done: map[*Command]int{}}
	for i, statSN := range []uint32{3, 3, 5, 4, 9} {
		want := 0
		if i >= 2 {
			want = 1
		}
		cmd := &Command{LUN: scsi.MakeLUN(1), CDB: scsi.TestUnitReady(), Owner: c}
		require.True(t, w.s.Submit(cmd))
		itt := w.s.tasks.slots[cmd.slot-1].itt
		rsp := pdu.SCSIResponse{ITT: itt, StatSN: statSN, ExpCmdSN: w.s.cmdSN, MaxCmdSN: w.s.cmdSN + 10}
		give(w, pdu.AppendPDU(nil, rsp.AppendTo(nil), nil, nil, pdu.Digests{}))
		require.Equal(t, 1, c.done[cmd])
		told := strings.Count(log.String(), "leaves out numbers")
		require.Equal(t, want, told, "step %d: %s", i, &log)
	}
	require.Equal(t, StateLoggedIn, w.s.State())
	require.EqualValues(t, 10, w.s.conn.expStatSN)
}
