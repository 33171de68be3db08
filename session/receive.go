package session

import (
	"time"

	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// dispatch handles one complete PDU other than a Data-In of the full-feature phase.
func (c *conn) dispatch(bhs pdu.BHS, data []byte) error {
	op := bhs.Opcode()
	if c.phase == phaseLogin {
		if op != pdu.OpLoginResponse {
			return c.protocolErr("%v during login", op)
		}
		return c.loginResponse(pdu.LoginResponseView(bhs), data)
	}
	switch op {
	case pdu.OpSCSIResponse:
		return c.scsiResponse(pdu.SCSIResponseView(bhs), data)
	case pdu.OpR2T:
		return c.r2t(pdu.R2TView(bhs))
	case pdu.OpNOPIn:
		v := pdu.NOPInView(bhs)
		c.window(v.ExpCmdSN(), v.MaxCmdSN())
		if v.ITT() != pdu.ReservedTag {
			c.status(v.StatSN())
		}
		return c.nopIn(v)
	case pdu.OpAsync:
		v := pdu.AsyncView(bhs)
		c.window(v.ExpCmdSN(), v.MaxCmdSN())
		c.status(v.StatSN())
		return c.async(v, data)
	case pdu.OpReject:
		v := pdu.RejectView(bhs)
		c.window(v.ExpCmdSN(), v.MaxCmdSN())
		c.status(v.StatSN())
		return c.rejected(v, data)
	case pdu.OpTextResponse:
		v := pdu.TextResponseView(bhs)
		c.window(v.ExpCmdSN(), v.MaxCmdSN())
		c.status(v.StatSN())
		return c.textResponse(v, data)
	case pdu.OpLogoutResponse:
		v := pdu.LogoutResponseView(bhs)
		c.status(v.StatSN())
		return c.logoutResponse(v)
	case pdu.OpTaskMgmtResponse:
		v := pdu.TaskMgmtResponseView(bhs)
		c.window(v.ExpCmdSN(), v.MaxCmdSN())
		c.status(v.StatSN())
		return c.tmfResponse(v)
	}
	return c.protocolErr("unexpected %v", op)
}

// dataInDest checks a Data-In header and says where its data goes; a nil
// destination means discard. With DataPDUInOrder and DataSequenceInOrder=Yes, the
// default, data comes without holes (RFC 7143 §13.18-19); else in any order, but
// each byte once.
func (c *conn) dataInDest(v pdu.DataInView) (*task, []byte, error) {
	t := c.task(v.ITT())
	if c.tooLate(v.ITT()) {
		return nil, nil, nil
	}
	if t == nil || t.kind != taskSCSI {
		return nil, nil, c.protocolErr("Data-In for task %08x, which is not in flight", v.ITT())
	}
	n, off := uint32(v.DataLen()), v.BufferOffset()
	switch {
	case t.waiting:
		return nil, nil, c.protocolErr("Data-In for task %08x, which was answered before", v.ITT())
	case !t.read && n > 0:
		return nil, nil, c.protocolErr("Data-In for task %08x, which reads nothing", v.ITT())
	case v.DataSN() != t.dataSN:
		return nil, nil, c.protocolErr("Data-In number %d of task %08x, expected %d", v.DataSN(), v.ITT(), t.dataSN)
	case n > 0 && off != t.inNext && c.s.ordered():
		return nil, nil, c.protocolErr("Data-In at offset %d of task %08x, expected %d", off, v.ITT(), t.inNext)
	case uint64(off)+uint64(n) > uint64(t.inLen) && n > 0:
		return nil, nil, c.protocolErr("Data-In for bytes %d+%d of a read of %d bytes", off, n, t.inLen)
	case v.HasStatus() && t.read && t.write:
		return nil, nil, c.protocolErr("Data-In with the status of task %08x, which is bidirectional", v.ITT()) // §11.7.3
	case n > 0 && !c.s.ordered() && !t.gets(off, off+n):
		return nil, nil, c.protocolErr("Data-In for bytes %d+%d of task %08x comes twice, or leaves too many holes", off, n, v.ITT())
	}
	t.dataSN++
	if t.cmd == nil || n == 0 {
		return t, nil, nil
	}
	if t.cmd.Dir == DirBoth {
		return t, t.cmd.In[off : off+n], nil
	}
	return t, t.cmd.Data[off : off+n], nil
}

// ordered reports whether data of a read comes in the order of its offsets.
func (s *Session) ordered() bool { return s.params.DataPDUInOrder && s.params.DataSequenceInOrder }

// gets notes bytes of a read that come in any order.
func (t *task) gets(lo, hi uint32) bool {
	if t.got == nil {
		t.got = new(ranges)
	}
	return t.got.add(lo, hi)
}

// dataInDone counts the data of a Data-In that is wholly there, and completes
// the command if the PDU brought its status (RFC 7143 §11.7.3).
func (c *conn) dataInDone(t *task, v pdu.DataInView) error {
	c.window(v.ExpCmdSN(), v.MaxCmdSN())
	if t == nil { // detached meanwhile; the slot is still there, unless it was aborted
		if t = c.task(v.ITT()); t == nil || t.aborted || t.kind != taskSCSI {
			if v.HasStatus() {
				c.status(v.StatSN())
			}
			return nil
		}
	}
	t.inNext += uint32(v.DataLen())
	if v.Ack() && c.s.params.ErrorRecoveryLevel > 0 {
		if err := c.acknowledgeData(v); err != nil {
			return err
		}
	}
	if !v.HasStatus() {
		return nil
	}
	c.status(v.StatSN())
	if !v.Final() {
		return c.protocolErr("Data-In of task %08x has a status but not the F bit", v.ITT())
	}
	if cmd := t.cmd; cmd != nil {
		cmd.Status = scsi.Status(v.Status())
		cmd.moved(v.Underflow(), v.Overflow(), v.ResidualCount())
	}
	return c.answered(t)
}

// moved takes the residual count, which means nothing unless one of the bits says
// of what (RFC 7143 §11.4.5.1).
func (c *Command) moved(under, over bool, residual uint32) {
	c.Underflow, c.Overflow = under, over
	if under || over {
		c.Residual = residual
	}
}

// acknowledgeData answers the A bit of a Data-In (RFC 7143 §11.7.2, §11.16).
func (c *conn) acknowledgeData(v pdu.DataInView) error {
	if c.s.logoutSent { // nothing may follow a logout
		return nil
	}
	if !c.reply(maxAcks) { // PDUs without data can want one, too
		return c.protocolErr("the target keeps asking for acknowledgements but reads none")
	}
	start := c.header()
	p := pdu.SNACK{
		Type: pdu.SNACKDataACK, LUN: v.LUN(), ITT: pdu.ReservedTag, TTT: v.TTT(),
		ExpStatSN: c.expStatSN, BegRun: v.DataSN() + 1,
	}
	c.out.chunk.buf = p.AppendTo(c.out.chunk.buf)
	c.seal(start)
	c.flush()
	return nil
}

// scsiResponse completes a command (RFC 7143 §11.4).
func (c *conn) scsiResponse(v pdu.SCSIResponseView, data []byte) error {
	c.window(v.ExpCmdSN(), v.MaxCmdSN())
	c.status(v.StatSN())
	t := c.task(v.ITT())
	if c.tooLate(v.ITT()) {
		return nil
	}
	if t == nil || t.kind != taskSCSI || t.waiting {
		return c.protocolErr("SCSI response for task %08x, which is not in flight", v.ITT())
	}
	switch cmd := t.cmd; {
	case !v.Response().Known():
		return c.protocolErr("SCSI response with the reserved code %02x", uint8(v.Response()))
	case v.Response() == pdu.ServiceCompleted && cmd != nil:
		cmd.Status = scsi.Status(v.Status())
		cmd.moved(v.Underflow(), v.Overflow(), v.ResidualCount())
		if t.read && t.write && (v.BidiUnderflow() || v.BidiOverflow()) { // §11.4.6
			cmd.InUnderflow, cmd.InOverflow, cmd.InResidual = v.BidiUnderflow(), v.BidiOverflow(), v.BidiResidualCount()
		}
		cmd.Sense = senseOf(data)
	case v.Response() == pdu.ServiceCompleted:
		defer c.s.lateSense(scsi.Status(v.Status()), senseOf(data))
	case v.Response() != pdu.ServiceCompleted && cmd != nil: // status and flags mean nothing then (§11.4.3)
		cmd.Err = c.s.err(KindResponse, "the target could not finish the command (response %02x)", uint8(v.Response()))
		cmd.Err.Sent = true
	case v.Response() != pdu.ServiceCompleted && t.over != nil:
		// This answer does not say whether the command is over. A new session does.
		t.over = nil
		defer c.s.Drop(c.s.err(KindResponse, "the target could not finish a command that was taken back (response %02x)", uint8(v.Response())))
	}
	return c.answered(t)
}

// answered ends a task with the target's status. Good status for a write whose
// data the target never fetched is a lie that would lose the data, and for a read
// with a hole in it one that would make some up.
func (c *conn) answered(t *task) error {
	cmd := t.cmd
	good := cmd != nil && cmd.Err == nil && cmd.Status == scsi.Good
	switch {
	case good && t.write && t.next < t.length && !cmd.Underflow:
		return c.protocolErr("GOOD status for a write of %d bytes of which only %d were asked for", t.length, t.next)
	case good && t.got != nil && t.got.prefix() < t.got.total:
		return c.protocolErr("GOOD status for a read with a hole behind byte %d", t.got.prefix())
	}
	c.finish(t)
	return nil
}

// senseOf takes the sense data out of a data segment. One that is cut short still
// says more than none.
func senseOf(data []byte) []byte {
	sense, _, _ := pdu.SplitSense(data)
	return sense
}

// finish ends a task the target has answered. A write can be answered before
// all its data has left; then the buffer is still ours, and completion waits.
func (c *conn) finish(t *task) {
	cmd := t.cmd
	if cmd == nil {
		c.s.late(t)
		c.s.drained()
		return
	}
	if t.write && c.out.sent < t.end {
		t.waiting = true
		cmd.Sense = append([]byte(nil), cmd.Sense...)
		c.waiting++
		return
	}
	c.complete(t)
}

func (c *conn) complete(t *task) {
	cmd := t.cmd
	if t.read {
		cmd.Received = int(t.inNext)
		if t.got != nil {
			cmd.Received = int(t.got.prefix())
		}
	}
	cmd.slot = 0
	t.unloaded(c.s.env.Now(), !t.aborted)
	c.s.tasks.remove(t)
	cmd.Owner.CommandDone(cmd)
	c.s.drained()
}

// completeWaiting completes the commands whose last bytes have left by now.
func (c *conn) completeWaiting() {
	s := c.s
	for t := s.tasks.first(); t != nil && c.waiting > 0; {
		if t.waiting && t.conn == c && c.out.sent >= t.end {
			c.waiting--
			c.complete(t)
			t = s.tasks.first() // the list may have changed altogether
			continue
		}
		t = s.tasks.after(t)
	}
}

// async handles an Asynchronous Message (RFC 7143 §11.9).
func (c *conn) async(v pdu.AsyncView, data []byte) error {
	s := c.s
	s.noticed(&s.lastAsync, v.AsyncEvent().String())
	switch ev := v.AsyncEvent(); ev {
	case pdu.AsyncSCSIEvent:
		if sense, ok := scsi.ParseSense(senseOf(data)); ok {
			s.log.Info("target reports", "lun", scsi.LUN(v.LUN()).String(), "sense", sense.String())
			s.obs.AsyncSense(s, scsi.LUN(v.LUN()), senseOf(data))
		}
	case pdu.AsyncLogoutRequest, pdu.AsyncNegotiationRequest:
		// A renegotiation is answered by a fresh login, which settles everything anew.
		wait := time.Duration(v.Param3()) * time.Second
		s.log.Info("target asks for a logout", "within", wait)
		if s.logoutSent {
			return nil // that its answer is late is not to be excused by asking again
		}
		// The Logout leaves in any case, in time for its answer (§11.9.1). Asking again
		// does not put it off.
		s.logoutAt = earlier(s.logoutAt, s.env.Now()+int64(max(wait*3/4, 100*time.Millisecond)))
		s.rearm()
		s.drained()
	case pdu.AsyncConnectionDrop:
		e := s.err(KindTarget, "the target announces that it drops the connection")
		if len(s.members) > 0 && v.Param1() != c.cid {
			s.dropMember(v.Param1(), e)
			return nil
		}
		s.waitFloor = time.Duration(v.Param2()) * time.Second
		return e
	case pdu.AsyncSessionDrop:
		s.waitFloor = time.Duration(v.Param2()) * time.Second
		e := s.err(KindTarget, "the target announces that it drops the session")
		s.abandon(e)
		return e
	case pdu.AsyncTaskTermination:
		return c.terminating(v)
	default:
		if !ev.Known() {
			return c.protocolErr("an event that is not assigned: %v", ev)
		}
		s.log.Info("target sends an event", "event", ev.String())
	}
	return nil
}

// drained goes on with a logout that waited for the commands in flight.
func (s *Session) drained() {
	if s.logoutAt != 0 && s.state == StateLoggedIn && s.tasks.scsi == 0 && !s.conn.dead && !s.logoutSent {
		s.sendLogout()
	}
}

// rejected handles a Reject (RFC 7143 §11.17): the command it names fails; a
// rejected PDU of any other kind ends the connection.
func (c *conn) rejected(v pdu.RejectView, data []byte) error {
	e := c.s.err(KindTarget, "the target rejected a request: %v", v.Reason())
	e.Sent = true
	c.s.noticed(&c.s.lastReject, v.Reason().String())
	if !v.Reason().Known() {
		return c.protocolErr("a reject for a reason that is not assigned: %v", v.Reason())
	}
	if len(data) < pdu.BHSLen {
		return e
	}
	bad := pdu.BHS(data[:pdu.BHSLen])
	t := c.task(bad.ITT())
	switch {
	case t == nil:
		return nil // of a task that is over
	case t.kind == taskNOP && bad.Opcode() == pdu.OpNOPOut:
		c.s.pinged(t) // it answered, which is all a ping is for
		return nil
	case t.kind == taskTMF && bad.Opcode() == pdu.OpTaskMgmt:
		c.s.end(t, e) // whoever asked for it goes on
		return nil
	case t.kind == taskSCSI && bad.Opcode() == pdu.OpSCSICommand && !t.waiting:
		if !serial.Less(t.cmdSN, c.s.expCmdSN) {
			// The target does not count the command: it would wait for its number
			// for ever (RFC 7143 §7.3).
			return e
		}
		if t.cmd != nil {
			t.cmd.Err = e
		}
		c.finish(t)
		return nil
	}
	return e
}
