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

func TestDelayInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(SCSI(scsi.OpRead10), Delay(30*time.Second))
		c := loggedIn(t, tgt)
		start := time.Now()
		c.send(c.command(0, scsi.Read(0, 1, 0), 512, true, false), nil)
		c.ping() // others overtake it
		assert.Zero(t, time.Since(start))
		c.nc.SetReadDeadline(time.Time{})
		p, err := pdu.ReadPDU(c.nc, nil, c.digests, pdu.Limits{MaxData: pdu.MaxDataLen})
		require.NoError(t, err)
		assert.Equal(t, pdu.OpDataIn, p.BHS.Opcode())
		assert.Equal(t, 30*time.Second, time.Since(start))
	})
}

func TestDelayedAnswersOvertakeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(And(Op(pdu.OpDataIn), First(1)), Delay(time.Second))
		c := loggedIn(t, tgt)
		first := c.command(0, scsi.Read(0, 1, 0), 512, true, false)
		second := c.command(0, scsi.Read(0, 1, 0), 512, true, false)
		c.send(first, nil)
		c.send(second, nil)
		assert.Equal(t, second.ITT, c.await().pdus[0].ITT)
		assert.Equal(t, first.ITT, c.await().pdus[0].ITT)
	})
}

func TestActionsThatEndAPDU(t *testing.T) {
	read := func(c *client) { c.send(c.command(0, scsi.Read(0, 1, 0), 512, true, false), nil) }
	t.Run("drop a command", func(t *testing.T) {
		tgt := startTarget(t, Config{})
		rule := tgt.Inject(Reads(), Drop())
		c := loggedIn(t, tgt)
		read(c)
		c.expectNothing()
		assert.Equal(t, 1, tgt.Sessions()[0].Tasks)
		assert.Equal(t, 1, rule.Hits())
		assert.Equal(t, pdu.TMComplete, c.abortTask(c.itt-1, c.cmdSN-1))
	})
	t.Run("drop an answer", func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(Op(pdu.OpSCSIResponse), Drop())
		c := loggedIn(t, tgt)
		c.send(c.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 4))
		c.expectNothing()
		assert.True(t, isPattern(readMedium(t, tgt, 0, 1), 4))
		assert.Zero(t, tgt.Sessions()[0].Tasks)
	})
	t.Run("reject", func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(Reads(), RejectPDU(pdu.RejectImmediate))
		c := loggedIn(t, tgt)
		read(c)
		assert.Equal(t, pdu.RejectImmediate, pdu.RejectView(c.recv(pdu.OpReject).BHS).Reason())
		c.ping()
	})
	t.Run("fail", func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(Writes(), FailSense(scsi.KeyMediumError, scsi.ASCWriteError))
		c := loggedIn(t, tgt, "InitialR2T=No", "ImmediateData=Yes")
		o := c.write(0, pattern(512, 1))
		assert.Equal(t, scsi.CheckCondition, o.status)
		assert.Equal(t, scsi.ASCWriteError, o.sense.Code)
		assert.True(t, o.under)
		assert.EqualValues(t, 512, o.resid)
		assert.True(t, isZero(readMedium(t, tgt, 0, 1)))
	})
	t.Run("status without sense", func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(Reads(), FailStatus(scsi.Busy, nil))
		c := loggedIn(t, tgt)
		read(c)
		assert.Equal(t, scsi.Busy, c.await().status)
	})
	t.Run("close", func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(Reads(), Close())
		c := loggedIn(t, tgt)
		read(c)
		c.expectEnd()
	})
	t.Run("reset instead of the answer", func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(Op(pdu.OpSCSIResponse), Reset())
		c := loggedIn(t, tgt)
		c.send(c.command(0, scsi.TestUnitReady(), 0, false, false), nil)
		c.expectEnd()
	})
	t.Run("fail login", func(t *testing.T) {
		tgt := startTarget(t, Config{})
		tgt.Inject(And(Op(pdu.OpLogin), OnIndex(1)), FailLogin(pdu.LoginOutOfResources))
		c := connect(t, tgt, 0)
		c.loginStep(c.loginPDU(true, pdu.StageSecurity, pdu.StageOperational), nameKeys...)
		r := c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature))
		assert.Equal(t, pdu.LoginOutOfResources, r.LoginStatus())
		c.expectEnd()
	})
}

func TestHangStopsBeforeTheData(t *testing.T) {
	tgt := startTarget(t, Config{})
	hold := NewHold(HoldStrict)
	tgt.Inject(Writes(), Hang(hold))
	c := loggedIn(t, tgt, "InitialR2T=Yes", "ImmediateData=No")
	cmd := c.command(0, scsi.Write(0, 1, 0), 512, false, true)
	c.send(cmd, nil)
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	c.expectNothing() // no R2T
	hold.Release()
	c.answerR2Ts(cmd, pattern(512, 1), 512)
	assert.True(t, isPattern(c.read(0, 1), 1))
}

func TestPredicates(t *testing.T) {
	read := &Event{BHS: (&pdu.SCSICommand{}).AppendTo(nil), Command: &Command{LUN: scsi.MakeLUN(3), CDB: scsi.Read(100, 8, 0)}, Portal: 1, Conn: 2}
	write := &Event{BHS: (&pdu.SCSICommand{}).AppendTo(nil), Command: &Command{CDB: scsi.Write(100, 8, 0)}}
	dataIn := &Event{BHS: (&pdu.DataIn{}).AppendTo(nil), Command: read.Command, Dir: FromTarget}
	nop := &Event{BHS: (&pdu.NOPOut{}).AppendTo(nil)}
	for _, tc := range []struct {
		p    Predicate
		want [4]bool // read, write, dataIn, nop
	}{
		{Any(), [4]bool{true, true, true, true}},
		{Reads(), [4]bool{true, false, false, false}},
		{Writes(), [4]bool{false, true, false, false}},
		{OfCommand(scsi.OpRead10), [4]bool{true, false, true, false}},
		{Op(pdu.OpNOPOut, pdu.OpDataIn), [4]bool{false, false, true, true}},
		{Dir(FromTarget), [4]bool{false, false, true, false}},
		{OnLUN(3), [4]bool{true, false, true, false}},
		{OnPortal(1), [4]bool{true, false, false, false}},
		{OnConn(2), [4]bool{true, false, false, false}},
		{Blocks(107, 1), [4]bool{true, true, true, false}},
		{Blocks(108, 9), [4]bool{false, false, false, false}},
		{Blocks(0, 100), [4]bool{false, false, false, false}},
		{And(Reads(), OnLUN(3)), [4]bool{true, false, false, false}},
		{Or(Reads(), Op(pdu.OpNOPOut)), [4]bool{true, false, false, true}},
		{Not(Reads()), [4]bool{false, true, true, true}},
		{OnIndex(1), [4]bool{false, true, false, false}},
		{First(2), [4]bool{true, true, false, false}},
		{From(2), [4]bool{false, false, true, true}},
		{And(Or(Reads(), Op(pdu.OpNOPOut)), OnIndex(1)), [4]bool{false, false, false, true}},
	} {
		t.Run(tc.p.String(), func(t *testing.T) {
			var got [4]bool
			for i, e := range []*Event{read, write, dataIn, nop} {
				got[i] = tc.p.Match(e)
			}
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestRandomlyIsReproducible(t *testing.T) {
	draw := func(p Predicate) (hits []int) {
		for i := range 10000 {
			if p.Match(&Event{}) {
				hits = append(hits, i)
			}
		}
		return hits
	}
	a := draw(Randomly(0.1, 7))
	assert.Equal(t, a, draw(Randomly(0.1, 7)))
	assert.NotEqual(t, a, draw(Randomly(0.1, 8)))
	assert.InDelta(t, 1000, len(a), 150)
	assert.Empty(t, draw(Randomly(0, 7)))
	assert.Len(t, draw(Randomly(1, 7)), 10000)
}

func TestHold(t *testing.T) {
	h := NewHold(HoldStrict)
	ctx, cancel := testContext(t, time.Millisecond)
	defer cancel()
	require.Error(t, h.WaitHeld(ctx, 1))
	go h.arrive()
	require.NoError(t, h.WaitHeld(t.Context(), 1))
	assert.Equal(t, 1, h.Held())
	h.Release()
	h.Release()
}
