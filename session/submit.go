package session

import (
	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
)

// Submit sends c. False means that there is no room now (see Room) and c is
// still the caller's. The answer comes by c.Owner.CommandDone, never from
// inside Submit. CmdSN and ExpStatSN are stamped here, in the order of writing:
// the send queue of a connection is first in, first out.
func (s *Session) Submit(c *Command) bool {
	if len(c.Long) > maxCDB { // our own caller's mistake, never a peer's
		panic("session: a CDB of more than 260 bytes")
	}
	if s.Room() == 0 {
		return false
	}
	now := s.env.Now()
	t := s.tasks.add(taskSCSI, s.pick(), now)
	if t == nil {
		return false
	}
	t.cmdSN = s.cmdSN
	s.cmdSN++
	c.slot = int32(t.itt&ittIndexMask) + 1
	c.Err, c.Status, c.Sense, c.Received = nil, 0, nil, 0
	c.Underflow, c.Overflow, c.Residual = false, false, 0
	c.InUnderflow, c.InOverflow, c.InResidual = false, false, 0
	c.SubmittedAt = now
	t.cmd, t.lun, t.length = c, c.LUN, uint32(len(c.Data))
	switch {
	case t.length == 0 && c.Dir != DirBoth:
	case c.Dir == DirRead:
		t.read, t.inLen = true, t.length
	case c.Dir == DirWrite:
		t.write = true
	case c.Dir == DirBoth:
		t.both(c)
	}
	t.conn.sendCommand(t)
	s.touch(now)
	return true
}

// sendCommand queues a SCSI Command with its immediate data (RFC 7143 §11.3)
// and the unsolicited Data-Outs that the login allowed (§4.2.5.2, §11.7).
func (c *conn) sendCommand(t *task) {
	s, cmd := c.s, t.cmd
	p := pdu.SCSICommand{
		Final: true, Read: t.read, Write: t.write, Attr: pdu.AttrSimple,
		LUN: uint64(cmd.LUN), ITT: t.itt, ExpectedDataLen: t.length,
		CmdSN: t.cmdSN, ExpStatSN: c.expStatSN, CDB: cmd.CDB,
	}
	t.loaded()
	var ahs []byte
	if cmd.Long != nil || t.read && t.write {
		ahs = t.headers(&p)
	}
	unsolicited := uint32(0)
	if t.write {
		first := min(t.length, s.params.FirstBurstLength)
		if s.params.ImmediateData {
			t.next = min(first, c.maxSend)
			p.DataLen = int(t.next)
		}
		if !s.params.InitialR2T {
			unsolicited = first
		}
		p.Final = t.next >= unsolicited
	}
	start := c.header()
	t.pos = c.out.queued
	c.out.chunk.buf = append(p.AppendTo(c.out.chunk.buf), ahs...)
	c.seal(start)
	if t.write {
		c.payload(cmd.Data[:t.next])
		if t.next < unsolicited {
			c.sendData(t, pdu.ReservedTag, 0, t.next, unsolicited-t.next)
			t.next = unsolicited
		}
	}
	t.end = c.out.queued
	c.flush()
}

// sendData queues one sequence of Data-Outs: cmd.Data[offset:offset+n], split
// by the target's MaxRecvDataSegmentLength (RFC 7143 §11.7). lun and ttt are
// the R2T's; without one they are reserved.
func (c *conn) sendData(t *task, ttt uint32, lun uint64, offset, n uint32) {
	p := pdu.DataOut{LUN: lun, ITT: t.itt, TTT: ttt, ExpStatSN: c.expStatSN}
	for n > 0 {
		k := min(n, c.maxSend)
		p.BufferOffset, p.DataLen, p.Final = offset, int(k), k == n
		start := c.header()
		c.out.chunk.buf = p.AppendTo(c.out.chunk.buf)
		c.seal(start)
		c.payload(t.cmd.Data[offset : offset+k])
		p.DataSN++
		offset += k
		n -= k
	}
	t.end = c.out.queued
}

// r2t serves a Ready To Transfer (RFC 7143 §11.8). R2Ts of a task are served
// in the order in which they come.
func (c *conn) r2t(v pdu.R2TView) error {
	c.window(v.ExpCmdSN(), v.MaxCmdSN())
	t := c.task(v.ITT())
	if t != nil && t.halts() || c.tooLate(v.ITT()) {
		return nil // no more data is sent for a task that is to end
	}
	if t == nil || t.kind != taskSCSI || !t.write {
		return c.protocolErr("R2T for task %08x, which is not a write in progress", v.ITT())
	}
	off, n := v.BufferOffset(), v.DesiredDataLen()
	number, again := t.r2tNumber(), c.again(t, off, n)
	switch {
	case t.cmd == nil || t.waiting:
		return c.protocolErr("R2T for task %08x, which has all its data", v.ITT())
	case c.s.params.ErrorRecoveryLevel > 0 && serial.Less(v.R2TSN(), *number):
		return nil // sent again for a reason of the target's; it was served (§7.9)
	case v.R2TSN() != *number:
		return c.protocolErr("R2T number %d of task %08x, expected %d", v.R2TSN(), v.ITT(), *number)
	case n == 0 || uint64(off)+uint64(n) > uint64(t.length):
		return c.protocolErr("R2T for bytes %d+%d of a write of %d bytes", off, n, t.length)
	case !again && off != t.next && c.s.params.DataSequenceInOrder:
		// R2Ts follow one another without gap or overlap (§11.8). So what was asked
		// for is known by one number, and no write is queued over and over.
		return c.protocolErr("R2T for bytes %d+%d of task %08x, expected %d", off, n, v.ITT(), t.next)
	case n > c.s.params.MaxBurstLength:
		return c.protocolErr("R2T for %d bytes, MaxBurstLength is %d", n, c.s.params.MaxBurstLength)
	case v.LUN() != uint64(t.cmd.LUN) && v.LUN() != 0: // gotgt leaves it out
		return c.protocolErr("R2T for LUN %x of task %08x, which is for LUN %x", v.LUN(), v.ITT(), uint64(t.cmd.LUN))
	case v.TTT() == pdu.ReservedTag:
		return c.protocolErr("R2T for task %08x without a target transfer tag", v.ITT())
	case !again && !c.s.params.DataSequenceInOrder && !t.asks(off, off+n):
		return c.protocolErr("R2T for bytes %d+%d of task %08x, which were asked for before", off, n, v.ITT())
	}
	*number++
	if !again {
		t.next += n
	}
	c.sendData(t, v.TTT(), v.LUN(), off, n)
	c.flush()
	return nil
}

// again reports whether an R2T asks for bytes that were sent before, and may: a
// recovery R2T, above level 0 (RFC 7143 §11.8), once all that was queued has left,
// so that they never pile up.
func (c *conn) again(t *task, off, n uint32) bool {
	if c.s.params.ErrorRecoveryLevel == 0 || c.out.sent < t.end || uint64(off)+uint64(n) > uint64(t.length) {
		return false
	}
	if t.asked != nil {
		return t.asked.covers(off, off+n)
	}
	return off+n <= t.next
}

// asks notes that an R2T asks for bytes, in any order.
func (t *task) asks(lo, hi uint32) bool {
	if t.asked == nil {
		t.asked = new(ranges)
		if t.next > 0 {
			t.asked.add(0, t.next) // unsolicited
		}
	}
	return t.asked.add(lo, hi)
}

// r2tNumber is the R2TSN expected next.
func (t *task) r2tNumber() *uint32 {
	if t.read { // bidirectional: R2T and Data-In share one sequence (§11.8.2)
		return &t.dataSN
	}
	return &t.r2tSN
}

// Detach takes c back from the session while it is in flight: its buffer is
// never touched again, what still comes for it is discarded, and CommandDone is
// never called. The target still works on the command and it still fills a
// place in the command window, until it is answered or, after
// Config.DetachTimeout, aborted. False if that cannot be promised: c is a write of which data
// may still be sent (give the session up with Drop then), or is not in flight.
func (s *Session) Detach(c *Command) bool { return s.DetachWatched(c, nil) }

// DetachWatched is Detach for a command whose fate matters. over is called on the
// loop, at most once, when the target has provably ended the command, so that
// nothing of it can be executed later: it answered, or an abort ended it, or the
// clean-up of its connection did. If the session is lost before, over never
// comes: what the session's end proves is up to its successor (Up.Reinstated).
func (s *Session) DetachWatched(c *Command, over func()) bool {
	if c.slot == 0 || s.conn == nil {
		return false
	}
	t := &s.tasks.slots[c.slot-1]
	if t.cmd != c || t.waiting {
		return false
	}
	if t.write && (t.next < t.length || t.conn.out.sent < t.end) {
		return false
	}
	t.cmd, t.over = nil, over
	c.slot = 0
	t.conn.in.forget(t)
	s.schedule(t, s.env.Now()+int64(s.cfg.DetachTimeout))
	return true
}

// window takes the target's numbers (RFC 7143 §4.2.2.1): a pair that is out of
// order in itself is ignored, and each number only ever moves forward.
func (c *conn) window(exp, limit uint32) {
	if serial.Less(limit, exp-1) {
		return
	}
	s := c.s
	s.expCmdSN = serial.Max(s.expCmdSN, exp)
	s.maxCmdSN = serial.Max(s.maxCmdSN, limit)
	if s.text != nil {
		s.resumeText()
	}
}

// statusAhead is how far ahead of the expected one a StatSN may be: more would
// acknowledge answers that cannot exist.
const statusAhead = maxTasks + 1024

// status takes a StatSN that the target used up. Repetitions are borne with:
// gotgt repeats numbers when commands overlap. So are gaps: TCP loses nothing and a
// bad header digest ends the connection, hence a number that is missing was lost in
// the target, or never used by it. The first is found out by the command that stays
// unanswered; to drop the connection would lock out targets that do the second.
func (c *conn) status(statSN uint32) {
	switch ahead := serial.Diff(statSN, c.expStatSN); {
	case ahead > statusAhead:
		c.abort(c.protocolErr("StatSN %d where %d was expected", statSN, c.expStatSN))
		return
	case ahead > 0 && !c.s.toldGap:
		c.s.toldGap = true
		c.s.log.Info("the target leaves out numbers of answers: it may have lost some", "statsn", statSN, "expected", c.expStatSN)
	}
	c.expStatSN = serial.Max(c.expStatSN, statSN+1)
}
