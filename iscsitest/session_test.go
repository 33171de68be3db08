package iscsitest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestReinstatementEndsTheOldSession(t *testing.T) {
	tgt := startTarget(t, Config{})
	hold := NewHold(HoldStrict)
	tgt.Inject(And(Writes(), First(1)), HoldWrite(hold))
	old := loggedIn(t, tgt)
	old.send(old.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 1))
	require.NoError(t, hold.WaitHeld(t.Context(), 1))

	fresh := connect(t, tgt, 0) // same ISID, TSIH 0
	fresh.login()
	assert.NotZero(t, fresh.tsih)
	assert.NotEqual(t, old.tsih, fresh.tsih)
	assert.Len(t, tgt.Sessions(), 1)
	old.expectEnd()
	require.Equal(t, scsi.Good, fresh.write(0, pattern(512, 2)).status)
	hold.Release()
	fresh.ping()
	assert.True(t, isPattern(fresh.read(0, 1), 2), "the old write must not land")
	assert.Empty(t, tgt.Violations())
}

func TestSessionsThatDifferDoNotReinstate(t *testing.T) {
	tgt := startTarget(t, Config{Portals: []Portal{{TPGT: 1}, {TPGT: 2}, {TPGT: 1}}})
	first := loggedIn(t, tgt)
	otherISID := connect(t, tgt, 0)
	otherISID.isid[5] = 9
	otherISID.login()
	otherGroup := connect(t, tgt, 1)
	otherGroup.login()
	assert.Len(t, tgt.Sessions(), 3)
	samePG := connect(t, tgt, 2) // another portal of the same group
	samePG.login()
	assert.Len(t, tgt.Sessions(), 3)
	first.expectEnd()
	otherISID.ping()
	otherGroup.ping()
}

func TestReinstatementQuirks(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		tgt := startTarget(t, Config{Quirks: Quirks{NoReinstatement: true}})
		old := loggedIn(t, tgt)
		loggedIn(t, tgt)
		old.ping()
		assert.Len(t, tgt.Sessions(), 2)
	})
	t.Run("only with security stage", func(t *testing.T) {
		tgt := startTarget(t, Config{Quirks: Quirks{ReinstateNeedsSecurity: true}})
		old := loggedIn(t, tgt)
		second := connect(t, tgt, 0)
		second.requireLoggedIn(second.loginStep(second.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), nameKeys...))
		old.ping()
		third := connect(t, tgt, 0)
		third.login()
		second.expectEnd()
		old.ping()
	})
}

// TestHoldScopes says which held writes still land after what.
func TestHoldScopes(t *testing.T) {
	for _, tc := range []struct {
		scope                            HoldScope
		afterLoss, afterAbort, afterPort bool // the write lands after connection loss, ABORT TASK, reinstatement
	}{
		{HoldStrict, false, false, false},
		{HoldHung, true, false, false},
		{HoldZombie, true, true, true},
	} {
		events := map[string]struct {
			do   func(tgt *Target, c *client, itt uint32)
			want bool
		}{
			"loss":          {func(tgt *Target, _ *client, _ uint32) { tgt.CutConnections(nil) }, tc.afterLoss},
			"abort":         {func(_ *Target, c *client, itt uint32) { c.abortTask(itt, c.cmdSN-1) }, tc.afterAbort},
			"reinstatement": {func(tgt *Target, c *client, _ uint32) { loggedIn(c.t, tgt) }, tc.afterPort},
			"loss, then reinstatement": {func(tgt *Target, c *client, _ uint32) {
				tgt.CutConnections(nil)
				c.expectEnd()
				loggedIn(c.t, tgt)
			}, tc.afterPort},
		}
		for name, ev := range events {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tgt := startTarget(t, Config{})
					hold := NewHold(tc.scope)
					tgt.Inject(Writes(), HoldWrite(hold))
					c := loggedIn(t, tgt, "DefaultTime2Wait=0", "DefaultTime2Retain=0")
					cmd := c.command(0, scsi.Write(0, 1, 0), 512, false, true)
					c.send(cmd, pattern(512, 5))
					require.NoError(t, hold.WaitHeld(t.Context(), 1))
					ev.do(tgt, c, cmd.ITT)
					synctest.Wait()
					hold.Release()
					synctest.Wait()
					assert.Equal(t, ev.want, isPattern(readMedium(t, tgt, 0, 1), 5))
				})
			})
		}
	}
}

func (c *client) taskMgmt(p pdu.TaskMgmt) pdu.TMResponse {
	c.t.Helper()
	p.Immediate, p.ITT, p.CmdSN, p.ExpStatSN = true, c.nextITT(), c.cmdSN, c.expStat
	if p.Function != pdu.TMAbortTask {
		p.RefTaskTag = pdu.ReservedTag
	}
	c.send(&p, nil)
	r := c.recv(pdu.OpTaskMgmtResponse)
	require.Equal(c.t, p.ITT, r.BHS.ITT())
	return pdu.TaskMgmtResponseView(r.BHS).Response()
}

func (c *client) abortTask(itt, refCmdSN uint32) pdu.TMResponse {
	c.t.Helper()
	return c.taskMgmt(pdu.TaskMgmt{Function: pdu.TMAbortTask, RefTaskTag: itt, RefCmdSN: refCmdSN})
}

func TestAbortTask(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt, "InitialR2T=Yes", "ImmediateData=No")
	cmd := c.command(0, scsi.Write(0, 1, 0), 512, false, true)
	c.send(cmd, nil)
	r2t := pdu.R2TView(c.recv(pdu.OpR2T).BHS).Decode()
	assert.Equal(t, pdu.TMComplete, c.abortTask(cmd.ITT, cmd.CmdSN))
	c.answerR2T(r2t, pattern(512, 1), 512) // was on its way
	c.expectNothing()
	assert.Zero(t, tgt.Sessions()[0].Tasks)
	assert.True(t, isZero(c.read(0, 1)))
	assert.Equal(t, pdu.TMNoTask, c.abortTask(cmd.ITT, cmd.CmdSN))
	assert.Empty(t, tgt.Violations())
}

func TestAbortOfATaskThatWasNotReceived(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	lost := c.command(0, scsi.TestUnitReady(), 0, false, false) // never sent
	next := c.command(0, scsi.TestUnitReady(), 0, false, false)
	c.send(next, nil) // waits for the one before
	assert.EqualValues(t, lost.CmdSN, tgt.Sessions()[0].ExpCmdSN)
	itt := c.nextITT()
	c.send(&pdu.TaskMgmt{
		Immediate: true, Function: pdu.TMAbortTask, ITT: itt, RefTaskTag: lost.ITT, RefCmdSN: lost.CmdSN,
		CmdSN: c.cmdSN, ExpStatSN: c.expStat,
	}, nil)
	c.recv(pdu.OpTaskMgmtResponse)
	assert.EqualValues(t, lost.CmdSN+2, tgt.Sessions()[0].ExpCmdSN, "the gap is closed")
	assert.Equal(t, next.ITT, c.await().resp.ITT)
	assert.Empty(t, tgt.Violations())
}

func TestTaskManagementOfWholeUnits(t *testing.T) {
	for _, tc := range []struct {
		function       pdu.TMFunction
		want           pdu.TMResponse
		ownLeft, other int // tasks left of this and of the other session
		ua             scsi.ASC
	}{
		{pdu.TMAbortTaskSet, pdu.TMComplete, 0, 1, 0},
		{pdu.TMClearTaskSet, pdu.TMComplete, 0, 0, scsi.ASCCommandsCleared},
		{pdu.TMLUNReset, pdu.TMComplete, 0, 0, scsi.ASCDeviceReset},
		{pdu.TMTargetWarmReset, pdu.TMUnsupported, 1, 1, 0},
		{pdu.TMTargetColdReset, pdu.TMUnsupported, 1, 1, 0},
		{pdu.TMClearACA, pdu.TMUnsupported, 1, 1, 0},
		{pdu.TMTaskReassign, pdu.TMReassignUnsupported, 1, 1, 0},
	} {
		t.Run(tc.function.String(), func(t *testing.T) {
			tgt := startTarget(t, Config{})
			rule := tgt.Inject(Reads(), Drop())
			a, b := loggedIn(t, tgt), connect(t, tgt, 0)
			b.isid[5] = 2
			b.login()
			for _, c := range []*client{a, b} {
				c.send(c.command(0, scsi.Read(0, 1, 0), 512, true, false), nil)
				c.ping()
			}
			rule.Remove()
			assert.Equal(t, tc.want, a.taskMgmt(pdu.TaskMgmt{Function: tc.function}))
			s := tgt.Sessions()
			assert.Equal(t, []int{tc.ownLeft, tc.other}, []int{s[0].Tasks, s[1].Tasks})
			o := b.run(0, scsi.TestUnitReady(), 0)
			if tc.ua == 0 {
				assert.Equal(t, scsi.Good, o.status)
				return
			}
			assert.Equal(t, scsi.CheckCondition, o.status)
			assert.Equal(t, scsi.Sense{Key: scsi.KeyUnitAttention, Code: tc.ua}, o.sense)
			assert.Equal(t, scsi.Good, b.run(0, scsi.TestUnitReady(), 0).status, "reported once")
		})
	}
	c := loggedIn(t, startTarget(t, Config{}))
	assert.Equal(t, pdu.TMNoLUN, c.taskMgmt(pdu.TaskMgmt{Function: pdu.TMLUNReset, LUN: uint64(scsi.MakeLUN(9))}))
}

func TestCommandsAreDeliveredInOrder(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	var cmds []*pdu.SCSICommand
	for range 3 {
		cmds = append(cmds, c.command(0, scsi.TestUnitReady(), 0, false, false))
	}
	c.send(cmds[2], nil)
	c.send(cmds[1], nil)
	c.expectNothing()
	c.send(cmds[0], nil)
	for _, cmd := range cmds {
		assert.Equal(t, cmd.ITT, c.await().resp.ITT)
	}
	assert.Empty(t, tgt.Violations())
}

func TestCommandWindow(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{CmdWindow: 2}})
	hold := NewHold(HoldStrict)
	tgt.Inject(And(Reads(), First(2)), Hang(hold))
	c := loggedIn(t, tgt)
	var cmds []*pdu.SCSICommand
	for range 3 {
		cmd := c.command(0, scsi.Read(0, 1, 0), 512, true, false)
		cmds = append(cmds, cmd)
		c.send(cmd, nil)
	}
	require.NoError(t, hold.WaitHeld(t.Context(), 2))
	c.ping() // immediate: passes through a closed window
	s := tgt.Sessions()[0]
	assert.Equal(t, cmds[2].CmdSN, s.ExpCmdSN)
	assert.Equal(t, s.ExpCmdSN-1, s.MaxCmdSN, "closed")
	assert.Equal(t, 2, s.Tasks, "the third command is ignored")
	require.Len(t, tgt.Violations(), 1)
	hold.Release()
	c.await()
	c.await()
	s = tgt.Sessions()[0]
	assert.Equal(t, s.ExpCmdSN+1, s.MaxCmdSN, "open again")
	c.send(cmds[2], nil)
	assert.Equal(t, scsi.Good, c.await().status)
	c.send(cmds[0], nil) // a duplicate
	c.expectNothing()
}

func TestCmdSNWrapsAround(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{CmdWindow: 4}})
	c := connect(t, tgt, 0)
	c.cmdSN = 0xfffffffd
	c.login()
	for range 8 {
		require.Equal(t, scsi.Good, c.run(0, scsi.TestUnitReady(), 0).status)
	}
	assert.EqualValues(t, 5, tgt.Sessions()[0].ExpCmdSN)
	assert.Empty(t, tgt.Violations())
}

func TestSessionOutlivesItsConnectionForAsLongAsNegotiated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := startTarget(t, Config{Params: Params{DefaultTime2Wait: 2, DefaultTime2Retain: 3}})
		c := loggedIn(t, tgt, "DefaultTime2Wait=2", "DefaultTime2Retain=20")
		tgt.CutConnections(nil)
		c.expectEnd()
		time.Sleep(5*time.Second - time.Millisecond)
		assert.Len(t, tgt.Sessions(), 1)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		assert.Empty(t, tgt.Sessions())
	})
}

func TestLogout(t *testing.T) {
	for _, tc := range []struct {
		reason pdu.LogoutReason
		cid    uint16
		want   pdu.LogoutResult
		ends   bool
	}{
		{pdu.LogoutCloseSession, 0, pdu.LogoutDone, true},
		{pdu.LogoutCloseConnection, 0, pdu.LogoutDone, true},
		{pdu.LogoutCloseConnection, 7, pdu.LogoutNoCID, false},
		{pdu.LogoutForRecovery, 0, pdu.LogoutRecoveryUnsupported, false},
	} {
		t.Run(tc.want.String(), func(t *testing.T) {
			tgt := startTarget(t, Config{})
			c := loggedIn(t, tgt)
			c.send(&pdu.Logout{Immediate: true, Reason: tc.reason, CID: tc.cid, ITT: c.nextITT(), CmdSN: c.cmdSN, ExpStatSN: c.expStat}, nil)
			p := c.recv(pdu.OpLogoutResponse)
			assert.Equal(t, tc.want, pdu.LogoutResponseView(p.BHS).Response())
			if !tc.ends {
				c.ping()
				return
			}
			assert.Empty(t, tgt.Sessions())
			c.expectEnd()
		})
	}
}

func TestTargetInitiatedPDUs(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	require.Equal(t, 1, tgt.SendNOPIn(ByTSIH(c.tsih), true))
	p := c.recv(pdu.OpNOPIn)
	in := pdu.NOPInView(p.BHS).Decode()
	assert.EqualValues(t, uint32(pdu.ReservedTag), in.ITT)
	assert.Equal(t, 1, tgt.Sessions()[0].Pings)
	c.send(&pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: in.TTT, LUN: in.LUN, CmdSN: c.cmdSN, ExpStatSN: c.expStat}, nil)
	c.ping()
	assert.Zero(t, tgt.Sessions()[0].Pings)

	require.Equal(t, 1, tgt.SendAsync(nil, pdu.Async{AsyncEvent: pdu.AsyncLogoutRequest, Param3: 4}, nil))
	a := pdu.AsyncView(c.recv(pdu.OpAsync).BHS).Decode()
	assert.Equal(t, pdu.AsyncLogoutRequest, a.AsyncEvent)
	assert.EqualValues(t, 4, a.Param3)
	assert.Empty(t, tgt.Violations())

	require.Equal(t, 1, tgt.DropSessions(nil))
	c.expectEnd()
	assert.Empty(t, tgt.Sessions())
}

func TestRejects(t *testing.T) {
	raw := func(op pdu.Opcode) appender { return rawHeader{byte(op), 0x80} }
	for _, tc := range []struct {
		name string
		pdu  appender
		want pdu.RejectReason
	}{
		{"unknown opcode", raw(0x1c), pdu.RejectUnsupported},
		{"target's opcode", raw(pdu.OpR2T), pdu.RejectUnsupported},
		{"login", &pdu.Login{ITT: 3}, pdu.RejectProtocolError},
		{"SNACK", &pdu.SNACK{ITT: 3}, pdu.RejectSNACK},
		{"data for no task", &pdu.DataOut{ITT: 3, TTT: pdu.ReservedTag}, pdu.RejectInvalidField},
		{"answer to no ping", &pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: 3}, pdu.RejectInvalidField},
		{"continuation of no text", &pdu.Text{Immediate: true, Final: true, ITT: 3, TTT: 9}, pdu.RejectInvalidField},
		{"logout for no reason", &pdu.Logout{Immediate: true, Reason: 9, ITT: 3}, pdu.RejectInvalidField},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tgt := startTarget(t, Config{})
			c := loggedIn(t, tgt)
			c.send(tc.pdu, nil)
			p := c.recv(pdu.OpReject)
			assert.Equal(t, tc.want, pdu.RejectView(p.BHS).Reason())
			assert.Equal(t, tc.pdu.AppendTo(nil), p.Data, "the header comes back")
			c.ping()
			assert.NotEmpty(t, tgt.Violations())
		})
	}
}

// rawHeader is the start of a header of any opcode.
type rawHeader []byte

func (r rawHeader) AppendTo(dst []byte) []byte {
	return append(append(dst, r...), make([]byte, pdu.BHSLen-len(r))...)
}

func TestTaskTagInUse(t *testing.T) {
	tgt := startTarget(t, Config{})
	tgt.Inject(And(Reads(), First(1)), Drop())
	c := loggedIn(t, tgt)
	c.send(c.command(0, scsi.Read(0, 1, 0), 512, true, false), nil)
	again := c.command(0, scsi.Read(8, 1, 0), 512, true, false)
	again.ITT--
	c.send(again, nil)
	assert.Equal(t, pdu.RejectTaskInProgress, pdu.RejectView(c.recv(pdu.OpReject).BHS).Reason())
}

// TestAbortNamesAnotherTask: a command whose turn has not come is not ended by an
// ABORT TASK that names its CmdSN, but not its unit.
func TestAbortNamesAnotherTask(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	first := c.command(0, scsi.TestUnitReady(), 0, false, false)
	waits := c.command(0, scsi.TestUnitReady(), 0, false, false)
	c.send(waits, nil)
	require.Equal(t, pdu.TMNoTask, c.taskMgmt(pdu.TaskMgmt{
		Function: pdu.TMAbortTask, LUN: uint64(scsi.MakeLUN(7)), RefTaskTag: waits.ITT, RefCmdSN: waits.CmdSN,
	}))
	// The right one ends it, and again is no news.
	require.Equal(t, pdu.TMComplete, c.abortTask(waits.ITT, waits.CmdSN))
	c.send(first, nil)
	assert.Equal(t, first.ITT, c.await().resp.ITT)
	c.expectNothing()
	assert.EqualValues(t, waits.CmdSN+1, tgt.Sessions()[0].ExpCmdSN)
	assert.Empty(t, tgt.Violations())
}
