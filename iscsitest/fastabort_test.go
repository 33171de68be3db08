package iscsitest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

const fullReporting = "TaskReporting=FastAbort,ResponseFence,RFC3720"

func TestTaskReporting(t *testing.T) {
	for _, tc := range []struct {
		most        TaskReporting
		offer, want string
		violations  int
	}{
		{ReportRFC3720, fullReporting, "RFC3720", 0},
		{ReportResponseFence, fullReporting, "ResponseFence", 0},
		{ReportFastAbort, fullReporting, "FastAbort", 0},
		{ReportFastAbort, "TaskReporting=RFC3720,ResponseFence", "RFC3720", 0},
		{ReportFastAbort, "TaskReporting=FastAbort", "FastAbort", 1},
		{ReportFastAbort, "TaskReporting=Other", "Reject", 1},
	} {
		tgt := startTarget(t, Config{Params: Params{TaskReporting: tc.most}})
		c := loggedIn(t, tgt, tc.offer)
		assert.Equal(t, tc.want, c.keys["TaskReporting"], tc.offer)
		assert.Len(t, tgt.Violations(), tc.violations, tc.offer)
		got := tgt.Sessions()[0].Negotiated.TaskReporting
		assert.Equal(t, tc.want, map[bool]string{true: "Reject", false: got.String()}[tc.want == "Reject"])
	}
	_, err := NewTarget(Config{Params: Params{TaskReporting: ReportFastAbort + 1}})
	require.ErrorContains(t, err, "TaskReporting")
	assert.Equal(t, "unknown", (ReportFastAbort + 1).String())
}

// asked sends a write and returns the R2T for its data.
func (c *client) asked(lba uint64) pdu.R2T {
	c.t.Helper()
	c.send(c.command(0, scsi.Write(lba, 8, 0), 4096, false, true), nil)
	return pdu.R2TView(c.recv(pdu.OpR2T).BHS).Decode()
}

// TestFastAbortTarget: the connection of the request must not send any more data,
// another one not after it acknowledged the event.
func TestFastAbortTarget(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{TaskReporting: ReportFastAbort}})
	var clients []*client
	for i, keys := range []string{fullReporting, fullReporting, "InitialR2T=Yes"} {
		c := connect(t, tgt, 0)
		c.isid[5] = byte(i + 1)
		c.login(keys)
		clients = append(clients, c)
	}
	own, other, old := clients[0], clients[1], clients[2]
	data := make([]byte, 4096)
	first, second, third := own.asked(0), other.asked(16), old.asked(32)

	require.Equal(t, pdu.TMComplete, own.taskMgmt(pdu.TaskMgmt{Function: pdu.TMLUNReset}))
	require.Empty(t, tgt.Violations())
	own.answerR2T(first, data, 4096)
	own.expectNothing()
	require.Len(t, tgt.Violations(), 1, "data after the request")

	e := pdu.AsyncView(other.recv(pdu.OpAsync).BHS)
	require.Equal(t, pdu.AsyncTaskTermination, e.AsyncEvent())
	require.Equal(t, 1, tgt.Sessions()[1].Terminations)
	other.answerR2T(second, data, 4096)
	other.expectNothing()
	require.Len(t, tgt.Violations(), 1, "data before the event was acknowledged")
	ack := pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: pdu.ReservedTag, CmdSN: other.cmdSN, ExpStatSN: other.expStat}
	ack.LUN = 1 << 48
	other.send(&ack, nil)
	other.expectNothing()
	require.Equal(t, 1, tgt.Sessions()[1].Terminations, "of another unit")
	ack.LUN = 0
	other.send(&ack, nil)
	other.expectNothing()
	require.Zero(t, tgt.Sessions()[1].Terminations)
	other.answerR2T(second, data, 4096)
	other.expectNothing()
	require.Len(t, tgt.Violations(), 2, "data after that")

	old.answerR2T(third, data, 4096)
	old.expectNothing()
	require.Len(t, tgt.Violations(), 2, "no event without FastAbort, and data as ever")
	require.Zero(t, tgt.Sessions()[2].Terminations)

	for _, c := range clients { // tags may be used again
		c.run(0, scsi.TestUnitReady(), 0)
		c.itt = 0
		c.answerR2T(c.asked(0), data, 4096)
		require.Equal(t, scsi.Good, c.await().status)
	}
	require.Len(t, tgt.Violations(), 2)
}
