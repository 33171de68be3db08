package iscsitest

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// startMulti starts a target that takes four connections per session.
func startMulti(t *testing.T, change func(*Config)) *Target {
	t.Helper()
	cfg := Config{Params: Params{MaxConnections: 4, DefaultTime2Retain: 20}}
	if change != nil {
		change(&cfg)
	}
	return startTarget(t, cfg)
}

// leading logs in the first connection of a session.
func leading(t *testing.T, tgt *Target, keys ...string) *client {
	t.Helper()
	c := connect(t, tgt, 0)
	c.login(append([]string{"MaxConnections=4", "DefaultTime2Wait=2", "DefaultTime2Retain=20", "ErrorRecoveryLevel=2"}, keys...)...)
	return c
}

// another is a connection that is to join the session of c. CmdSN and ITT
// belong to the session: set them before use where that matters.
func (c *client) another(tgt *Target, cid uint16) *client {
	c.t.Helper()
	n := connect(c.t, tgt, 0)
	n.isid, n.tsih, n.cid, n.cmdSN, n.itt = c.isid, c.tsih, cid, c.cmdSN, c.itt+uint32(cid)<<16
	return n
}

// joined is another connection in full feature phase.
func (c *client) joined(tgt *Target, cid uint16, keys ...string) *client {
	c.t.Helper()
	n := c.another(tgt, cid)
	n.login(keys...)
	require.Equal(c.t, c.tsih, n.tsih)
	return n
}

// loginStatus tries to log in and returns the final status.
func (c *client) loginStatus() pdu.LoginStatus {
	c.t.Helper()
	r := c.loginStep(c.loginPDU(true, pdu.StageSecurity, pdu.StageOperational), append([]string{"AuthMethod=None"}, nameKeys...)...)
	return r.LoginStatus()
}

// numberedTUR is a TEST UNIT READY with a given CmdSN.
func (c *client) numberedTUR(cmdSN uint32) *pdu.SCSICommand {
	return &pdu.SCSICommand{
		Final: true, Attr: pdu.AttrSimple, ITT: c.nextITT(), CmdSN: cmdSN, ExpStatSN: c.expStat, CDB: scsi.TestUnitReady(),
	}
}

// logout sends an immediate Logout and returns the response.
func (c *client) logout(reason pdu.LogoutReason, cid uint16) pdu.LogoutResponse {
	c.t.Helper()
	itt := c.nextITT()
	c.send(&pdu.Logout{Immediate: true, Reason: reason, CID: cid, ITT: itt, CmdSN: c.cmdSN, ExpStatSN: c.expStat}, nil)
	r := pdu.LogoutResponseView(c.recv(pdu.OpLogoutResponse).BHS).Decode()
	require.Equal(c.t, itt, r.ITT)
	return r
}

// awaitLost waits until the target knows that connections were lost.
func awaitLost(t *testing.T, tgt *Target, cids ...uint16) {
	t.Helper()
	require.Eventually(t, func() bool {
		s := tgt.Sessions()
		return len(s) == 1 && assert.ObjectsAreEqual(cids, s[0].Lost)
	}, patience, time.Millisecond)
}

func TestLoginByTSIHAndCID(t *testing.T) {
	tgt := startMulti(t, func(c *Config) {
		c.Params.MaxConnections = 2
		c.Portals = []Portal{{}, {TPGT: 2}}
	})
	a := leading(t, tgt)
	assert.Equal(t, "2", a.keys["MaxConnections"])
	b := a.joined(tgt, 1, "MaxRecvDataSegmentLength=512", "HeaderDigest=CRC32C")
	full := a.another(tgt, 2)
	assert.Equal(t, pdu.LoginTooManyConnections, full.loginStatus())
	full.expectEnd()
	unknown := a.another(tgt, 2)
	unknown.tsih += 7
	assert.Equal(t, pdu.LoginNoSession, unknown.loginStatus())
	newISID := a.another(tgt, 2)
	newISID.isid[5]++
	assert.Equal(t, pdu.LoginNoSession, newISID.loginStatus())
	otherGroup, err := tgt.Dial(1)
	require.NoError(t, err)
	og := newClient(t, otherGroup)
	og.isid, og.tsih, og.cid = a.isid, a.tsih, 2
	assert.Equal(t, pdu.LoginNoSession, og.loginStatus(), "a session is in one portal group")

	s := tgt.Sessions()
	require.Len(t, s, 1)
	require.Len(t, s[0].Conns, 2)
	assert.EqualValues(t, []uint16{0, 1}, []uint16{s[0].Conns[0].CID, s[0].Conns[1].CID})
	assert.False(t, s[0].Conns[0].Negotiated.HeaderDigest)
	assert.True(t, s[0].Conns[1].Negotiated.HeaderDigest)
	a.cmdSN, b.cmdSN = 100, 101
	require.Equal(t, scsi.Good, a.write(0, pattern(1024, 3)).status)
	o := b.run(0, scsi.Read(0, 2, 0), 1024)
	assert.Len(t, o.pdus, 2, "MaxRecvDataSegmentLength is the connection's")
	assert.True(t, isPattern(o.data, 3))
	assert.Empty(t, tgt.Violations())
}

func TestJoinMayNotNegotiateForTheSession(t *testing.T) {
	tgt := startMulti(t, nil)
	b := leading(t, tgt).joined(tgt, 1, "MaxBurstLength=4096")
	assert.Equal(t, "Irrelevant", b.keys["MaxBurstLength"])
	require.Len(t, tgt.Violations(), 1)
	assert.Contains(t, tgt.Violations()[0].Text, "leading")
	assert.EqualValues(t, 262144, tgt.Sessions()[0].Conns[1].Negotiated.MaxBurstLength)
}

func TestQuirkJoinNeedsSecurity(t *testing.T) {
	tgt := startMulti(t, func(c *Config) { c.Quirks.JoinNeedsSecurity = true })
	a := leading(t, tgt)
	a.joined(tgt, 1)
	n := a.another(tgt, 2)
	n.requireLoggedIn(n.loginStep(n.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), nameKeys...))
	assert.NotEqual(t, a.tsih, n.tsih)
	assert.Len(t, tgt.Sessions(), 2)
	a.ping()
}

// TestCommandsInOrderOverConnections sends every request of a session over
// another connection than the one before, in reverse order.
func TestCommandsInOrderOverConnections(t *testing.T) {
	tgt := startMulti(t, nil)
	a := leading(t, tgt)
	b, c := a.joined(tgt, 1), a.joined(tgt, 2)
	first := a.cmdSN
	write := func(c *client, sn uint32, seed byte) {
		cmd := c.command(0, scsi.Write(0, 1, 0), 512, false, true)
		cmd.CmdSN = sn
		c.send(cmd, pattern(512, seed))
	}
	write(c, first+2, 3)
	c.ping() // immediate, so at once
	write(b, first+1, 2)
	b.ping()
	assert.Equal(t, first, tgt.Sessions()[0].ExpCmdSN)
	assert.True(t, isZero(readMedium(t, tgt, 0, 1)), "nothing is executed before its turn")
	write(a, first, 1)
	for i, cl := range []*client{a, b, c} {
		o := cl.await()
		assert.Equal(t, scsi.Good, o.status)
		assert.EqualValues(t, cl.expStat-1, o.resp.StatSN, "connection %d: StatSN is the connection's", i)
	}
	assert.True(t, isPattern(readMedium(t, tgt, 0, 1), 3), "the last in order of CmdSN wins")
	assert.Equal(t, first+3, tgt.Sessions()[0].ExpCmdSN)
	assert.Empty(t, tgt.Violations())
}

func TestAllegiance(t *testing.T) {
	tgt := startMulti(t, nil)
	a := leading(t, tgt, "InitialR2T=Yes", "ImmediateData=No")
	b := a.joined(tgt, 1)
	cmd := a.command(0, scsi.Write(0, 1, 0), 512, false, true)
	a.send(cmd, nil)
	r2t := pdu.R2TView(a.recv(pdu.OpR2T).BHS).Decode()
	assert.Equal(t, pdu.TMRejected, b.abortTask(cmd.ITT, cmd.CmdSN))
	b.answerR2T(r2t, pattern(512, 1), 512)
	b.recv(pdu.OpReject)
	assert.Len(t, tgt.Violations(), 2)
	a.answerR2T(r2t, pattern(512, 2), 512)
	assert.Equal(t, scsi.Good, a.await().status)
	assert.True(t, isPattern(readMedium(t, tgt, 0, 1), 2))
}

func TestLossOfAConnectionKeepsTheSession(t *testing.T) {
	tgt := startMulti(t, nil)
	a := leading(t, tgt)
	b := a.joined(tgt, 1)
	a.nc.Close()
	awaitLost(t, tgt, 0)
	b.cmdSN = a.cmdSN
	require.Equal(t, scsi.Good, b.write(0, pattern(512, 1)).status)
	again := b.joined(tgt, 0) // without Logout: reinstates CID 0
	again.ping()
	assert.Empty(t, tgt.Sessions()[0].Lost)
	assert.Len(t, tgt.Sessions()[0].Conns, 2)
	assert.Empty(t, tgt.Violations())
}

func TestQuirkDropSessionWithConnection(t *testing.T) {
	tgt := startMulti(t, func(c *Config) { c.Quirks.DropSessionWithConnection = true })
	a := leading(t, tgt)
	b := a.joined(tgt, 1)
	a.nc.Close()
	b.expectEnd()
	require.Eventually(t, func() bool { return len(tgt.Sessions()) == 0 }, patience, time.Millisecond)
}

// heldWrite begins a WRITE that the medium does not get before the hold is released.
func heldWrite(t *testing.T, tgt *Target, c *client) (*Hold, *pdu.SCSICommand) {
	t.Helper()
	hold := NewHold(HoldStrict)
	tgt.Inject(And(Writes(), First(1)), HoldWrite(hold))
	cmd := c.command(0, scsi.Write(0, 1, 0), 512, false, true)
	c.send(cmd, pattern(512, 1))
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	return hold, cmd
}

// TestTasksOfALostConnectionEnd has each way of ending them finish before it is
// answered: what is written afterwards stays.
func TestTasksOfALostConnectionEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		alive bool // the connection lives when it is ended by another
		end   func(tgt *Target, other *client)
	}{
		"logout": {false, func(_ *Target, b *client) {
			require.Equal(b.t, pdu.LogoutDone, b.logout(pdu.LogoutCloseConnection, 0).Response)
		}},
		"logout of a living one": {true, func(_ *Target, b *client) {
			require.Equal(b.t, pdu.LogoutDone, b.logout(pdu.LogoutCloseConnection, 0).Response)
		}},
		"reinstatement":           {false, func(tgt *Target, b *client) { b.joined(tgt, 0) }},
		"reinstatement of living": {true, func(tgt *Target, b *client) { b.joined(tgt, 0) }},
	} {
		t.Run(name, func(t *testing.T) {
			tgt := startMulti(t, nil)
			a := leading(t, tgt)
			b := a.joined(tgt, 1)
			hold, _ := heldWrite(t, tgt, a)
			b.cmdSN = a.cmdSN
			if !tc.alive {
				a.nc.Close()
				awaitLost(t, tgt, 0)
			}
			assert.Equal(t, 1, tgt.Sessions()[0].Tasks, "still alive")
			tc.end(tgt, b)
			assert.Zero(t, tgt.Sessions()[0].Tasks)
			if tc.alive {
				a.expectEnd()
			}
			o := b.write(0, pattern(512, 2))
			assert.Equal(t, scsi.ASCCommandsClearedByEvent, o.sense.Code)
			require.Equal(t, scsi.Good, b.write(0, pattern(512, 2)).status)
			hold.Release()
			b.ping()
			assert.True(t, isPattern(b.read(0, 1), 2), "no late write")
			assert.Empty(t, tgt.Violations())
		})
	}
}

func TestLogoutAnswers(t *testing.T) {
	tgt := startMulti(t, nil)
	a := leading(t, tgt)
	b, c := a.joined(tgt, 1), a.joined(tgt, 2)
	assert.Equal(t, pdu.LogoutNoCID, a.logout(pdu.LogoutCloseConnection, 9).Response)
	assert.Equal(t, pdu.LogoutRecoveryUnsupported, a.logout(pdu.LogoutForRecovery, 1).Response)
	r := b.logout(pdu.LogoutCloseConnection, 1)
	assert.Equal(t, pdu.LogoutDone, r.Response)
	assert.Equal(t, a.cmdSN, r.ExpCmdSN)
	b.expectEnd()
	assert.Equal(t, pdu.LogoutNoCID, a.logout(pdu.LogoutCloseConnection, 1).Response)
	a.ping()
	assert.Len(t, tgt.Sessions()[0].Conns, 2)
	assert.Equal(t, pdu.LogoutDone, a.logout(pdu.LogoutCloseSession, 0).Response)
	c.expectEnd()
	a.expectEnd()
	assert.Empty(t, tgt.Sessions())
	assert.Empty(t, tgt.Violations())
}

func TestLogoutOfTheLastConnectionEndsTheSession(t *testing.T) {
	tgt := startMulti(t, nil)
	a := leading(t, tgt)
	b := a.joined(tgt, 1)
	b.logout(pdu.LogoutCloseConnection, 1)
	assert.Len(t, tgt.Sessions(), 1)
	a.logout(pdu.LogoutCloseConnection, 0)
	assert.Empty(t, tgt.Sessions())
}

// TestGapIsFilledByRetry loses a connection with one request that never arrived
// and one that waits behind it.
func TestGapIsFilledByRetry(t *testing.T) {
	rec := &Recorder{}
	tgt := startMulti(t, func(c *Config) { c.Recorder = rec })
	a := leading(t, tgt)
	b := a.joined(tgt, 1)
	sn := a.cmdSN
	done := a.numberedTUR(sn)
	a.send(done, nil)
	a.await()
	onItsWay := a.numberedTUR(sn + 1) // never arrives
	stuck := a.numberedTUR(sn + 2)
	a.send(stuck, nil)
	a.cmdSN = sn + 3
	a.ping()
	b.send(b.numberedTUR(sn+3), nil)
	b.cmdSN = sn + 4
	b.ping()
	a.nc.Close()
	awaitLost(t, tgt, 0)
	r := b.logout(pdu.LogoutCloseConnection, 0)
	assert.Equal(t, sn+1, r.ExpCmdSN)
	assert.Equal(t, 1, tgt.Sessions()[0].Tasks, "what waited on the lost connection is discarded")
	b.send(stuck, nil)
	b.send(done, nil) // by mistake: is ignored
	b.ping()
	assert.Equal(t, sn+1, tgt.Sessions()[0].ExpCmdSN)
	b.send(onItsWay, nil)
	for _, want := range []uint32{onItsWay.ITT, stuck.ITT} {
		o := b.await()
		assert.Equal(t, want, o.resp.ITT)
		assert.Equal(t, scsi.Good, o.status)
	}
	b.await()
	assert.Equal(t, sn+4, tgt.Sessions()[0].ExpCmdSN)
	assert.Empty(t, tgt.Violations())
	assert.Len(t, rec.Select(And(OnCID(0), Op(pdu.OpSCSICommand))), 2)
	assert.NoError(t, rec.CheckCmdSNOrder(), "retries are exempt")
}

func TestTasksTimeOutWithTheirConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := startMulti(t, nil)
		a := leading(t, tgt) // Time2Wait 2, Time2Retain 20
		b := a.joined(tgt, 1)
		hold, _ := heldWrite(t, tgt, a)
		a.nc.Close()
		synctest.Wait()
		time.Sleep(22*time.Second - time.Millisecond)
		assert.Equal(t, []uint16{0}, tgt.Sessions()[0].Lost)
		assert.Equal(t, 1, tgt.Sessions()[0].Tasks)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		assert.Empty(t, tgt.Sessions()[0].Lost)
		assert.Zero(t, tgt.Sessions()[0].Tasks)
		assert.Equal(t, pdu.LogoutNoCID, b.logout(pdu.LogoutCloseConnection, 0).Response)
		hold.Release()
		synctest.Wait()
		assert.True(t, isZero(readMedium(t, tgt, 0, 1)))
	})
}

func TestRecoveryLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := startMulti(t, func(c *Config) { c.Params.ErrorRecoveryLevel = 2 })
		a := leading(t, tgt)
		require.Equal(t, "2", a.keys["ErrorRecoveryLevel"])
		b := a.joined(tgt, 1)
		hold, cmd := heldWrite(t, tgt, a)
		a.send(a.numberedTUR(a.cmdSN+1), nil) // behind a gap
		a.ping()
		b.cmdSN = a.cmdSN
		r := b.logout(pdu.LogoutForRecovery, 0)
		assert.Equal(t, pdu.LogoutDone, r.Response)
		assert.EqualValues(t, []uint16{2, 20}, []uint16{r.Time2Wait, r.Time2Retain})
		assert.Equal(t, a.cmdSN, r.ExpCmdSN)
		a.expectEnd()
		assert.Equal(t, 1, tgt.Sessions()[0].Tasks, "the acknowledged one waits for reassignment")
		assert.Equal(t, pdu.TMReassignUnsupported,
			b.taskMgmt(pdu.TaskMgmt{Function: pdu.TMTaskReassign, RefTaskTag: cmd.ITT, RefCmdSN: cmd.CmdSN}))
		time.Sleep(22*time.Second + time.Millisecond)
		synctest.Wait()
		assert.Zero(t, tgt.Sessions()[0].Tasks)
		hold.Release()
		synctest.Wait()
		assert.True(t, isZero(readMedium(t, tgt, 0, 1)))
		b.ping()
		assert.Empty(t, tgt.Violations())
	})
}

func TestDropConnection(t *testing.T) {
	tgt := startMulti(t, nil)
	a := leading(t, tgt)
	b := a.joined(tgt, 1)
	assert.Zero(t, tgt.DropConnection(nil, 7))
	assert.Equal(t, 1, tgt.DropConnection(nil, 0))
	msg := pdu.AsyncView(b.recv(pdu.OpAsync).BHS).Decode()
	assert.Equal(t, pdu.AsyncConnectionDrop, msg.AsyncEvent)
	assert.EqualValues(t, []uint16{0, 2, 20}, []uint16{msg.Param1, msg.Param2, msg.Param3})
	a.expectEnd()
	awaitLost(t, tgt, 0)
	assert.Equal(t, pdu.LogoutDone, b.logout(pdu.LogoutCloseConnection, 0).Response)
	assert.Equal(t, 1, tgt.DropConnection(nil, 1))
	b.recv(pdu.OpAsync)
	b.expectEnd()
}

func TestDataDigestErrorAboveLevel0(t *testing.T) {
	tgt := startMulti(t, func(c *Config) { c.Params.ErrorRecoveryLevel = 1 })
	c := leading(t, tgt, "DataDigest=CRC32C")
	cmd := c.command(0, scsi.Write(0, 1, 0), 512, false, true)
	wire := pdu.AppendPDU(nil, cmd.AppendTo(nil), nil, pattern(512, 1), c.digests)
	wire[100] ^= 1
	_, err := c.nc.Write(wire)
	require.NoError(t, err)
	r := c.recv(pdu.OpReject)
	assert.Equal(t, pdu.RejectDataDigest, pdu.RejectView(r.BHS).Reason())
	c.send(cmd, pattern(512, 1))
	assert.Equal(t, scsi.Good, c.await().status)
}

// TestOrderUnderLoad has four connections send writes to one block as fast as
// they can; whatever the order of arrival, the last by CmdSN wins.
func TestOrderUnderLoad(t *testing.T) {
	const each, conns = 25, 4
	tgt := startMulti(t, nil)
	clients := []*client{leading(t, tgt)}
	for cid := uint16(1); cid < conns; cid++ {
		clients = append(clients, clients[0].joined(tgt, cid))
	}
	first := clients[0].cmdSN
	var wg sync.WaitGroup
	for i, c := range clients {
		var wire []byte
		for n := range uint32(each) {
			cmd := c.command(0, scsi.Write(0, 8, 0), 4096, false, true)
			cmd.CmdSN = first + n*conns + uint32(i)
			wire = append(wire, pdu.AppendPDU(nil, cmd.AppendTo(nil), nil, pattern(4096, byte(n*conns+uint32(i))), c.digests)...)
		}
		wg.Go(func() {
			_, err := c.nc.Write(wire)
			assert.NoError(t, err)
		})
		wg.Go(func() {
			for range each {
				p, err := c.recvErr()
				if !assert.NoError(t, err) || !assert.Equal(t, pdu.OpSCSIResponse, p.BHS.Opcode()) {
					return
				}
			}
		})
	}
	wg.Wait()
	assert.True(t, isPattern(readMedium(t, tgt, 0, 8), each*conns-1))
	assert.Equal(t, first+each*conns, tgt.Sessions()[0].ExpCmdSN)
	assert.Empty(t, tgt.Violations())
}

// TestConnectionsComeAndGo has connections cut, reinstated and logged out while
// others write. It looks for races and for what hangs.
func TestConnectionsComeAndGo(t *testing.T) {
	tgt := startMulti(t, nil)
	keeper := leading(t, tgt)
	var wg sync.WaitGroup
	for cid := uint16(1); cid < 4; cid++ {
		wg.Go(func() {
			for range 20 {
				c := keeper.another(tgt, cid)
				c.login()
				c.ping()
				if cid == 1 {
					c.logout(pdu.LogoutCloseConnection, cid)
				} else {
					tgt.CutConnection(nil, cid)
				}
				c.expectEnd()
			}
		})
	}
	wg.Wait()
	for cid := uint16(1); cid < 4; cid++ {
		assert.Contains(t, []pdu.LogoutResult{pdu.LogoutDone, pdu.LogoutNoCID}, keeper.logout(pdu.LogoutCloseConnection, cid).Response)
	}
	s := tgt.Sessions()
	require.Len(t, s, 1)
	assert.Len(t, s[0].Conns, 1)
	assert.Empty(t, s[0].Lost)
	assert.Empty(t, tgt.Violations())
}

// TestResponseFence has the answer to a LUN reset wait until the initiator has
// got what was sent on the other connection, or that is lost.
func TestResponseFence(t *testing.T) {
	for _, lost := range []bool{false, true} {
		tgt := startMulti(t, nil)
		a := leading(t, tgt)
		b := a.joined(tgt, 1)
		itt := a.nextITT()
		a.send(&pdu.TaskMgmt{Immediate: true, Function: pdu.TMLUNReset, ITT: itt, RefTaskTag: pdu.ReservedTag, CmdSN: a.cmdSN, ExpStatSN: a.expStat}, nil)
		in := pdu.NOPInView(b.recv(pdu.OpNOPIn).BHS).Decode()
		a.ping() // the next PDU: there is no response yet
		if lost {
			b.nc.Close()
		} else {
			b.send(&pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: in.TTT, LUN: in.LUN, CmdSN: a.cmdSN, ExpStatSN: b.expStat}, nil)
		}
		r := a.recv(pdu.OpTaskMgmtResponse)
		assert.Equal(t, pdu.TMComplete, pdu.TaskMgmtResponseView(r.BHS).Response())
		assert.Empty(t, tgt.Violations())
	}
}
