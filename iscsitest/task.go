package iscsitest

import (
	"fmt"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// task is one SCSI command from its reception to its response.
type task struct {
	s         *session
	c         *conn // allegiance (§4.2.5.1)
	cmd       Command
	cdb       scsi.CDB // to be carried out; see executable
	immediate bool
	edtl      uint32 // Expected Data Transfer Length
	inLen     uint32 // the same of what is read
	bidi      bool   // it has a read length besides
	exchange  bool   // the write gives old XOR new data back (XDWRITEREAD)
	lun       *lun   // nil if there is none of that number
	action    Action

	// Guarded by s.mu.
	delivered   bool    // its turn in the order of CmdSN has come
	begun       bool    // nothing (delay, hang) keeps it from asking for data
	ran         bool    // handed to the LUN, or answered
	failed      *result // what it will be answered with, known before all data is here
	buf         []byte  // the write data wanted
	got         uint32  // unsolicited bytes received
	unsolicited bool    // unsolicited Data-Out PDUs are still to come
	unsolSN     uint32  // DataSN of the next one
	asked       uint32  // bytes received unsolicited or asked for by R2T
	todo        []part  // what is still to be asked for, in the order chosen
	divided     bool    // todo was made
	r2ts        []*r2t  // outstanding, oldest first
	r2tSN       uint32  // R2TSN of the next one

	// exec is held while the LUN works on the task: abort waits for it, so that
	// nothing happens on the medium after an abort was answered.
	exec  sync.Mutex    // guards everything below
	over  bool          // must not be carried out any more
	held  *Hold         // what it waits for now
	ended chan struct{} // closed with over; nil unless somebody waits
}

// result is what a LUN makes of a command.
type result struct {
	status scsi.Status
	sense  []byte
	data   []byte // Data-In, all that the command has to give
	moved  uint32 // Data-Out bytes the command wanted, if it succeeded
}

func checkCondition(key scsi.SenseKey, asc scsi.ASC) result {
	return result{status: scsi.CheckCondition, sense: scsi.AppendFixedSense(nil, key, asc)}
}

// lockedNewTask makes the task of a SCSI Command PDU. It is not ok if the
// Initiator Task Tag is in use; known is true if that is by the same command,
// sent again, which has to be ignored (§7.2.1).
func (s *session) lockedNewTask(r *request) (known, ok bool) {
	v := pdu.SCSICommandView(r.header())
	if old := s.tasks[v.ITT()]; old != nil {
		return !v.Immediate() && old.cmd.CmdSN == v.CmdSN() && old.cmd.CDB == scsi.CDB(v.CDB()), false
	}
	s.commands++
	delete(s.aborted, v.ITT())
	delete(s.noData, v.ITT())
	t := &task{
		s: s, c: r.c, cmd: *commandOf(v), immediate: v.Immediate(),
		edtl: v.ExpectedDataLen(), action: r.action,
	}
	long, err := longCDB(r.header(), r.ahs)
	if err != nil {
		t.lockedFail(v, fmt.Sprintf("%v (§11.2.2)", err), scsi.ASCInvalidFieldInCDB)
	}
	t.cmd.Long = long
	t.cdb, t.exchange = executable(t.cmd.CDB, long)
	if t.inLen = t.edtl; t.cmd.Write {
		t.inLen, t.bidi = bidiLen(r.ahs)
	}
	if t.bidi && !t.cmd.Read {
		t.lockedFail(v, "the AHS for a read length in a command that reads nothing (§11.2.2.4)", scsi.ASCInvalidFieldInCDB)
	}
	if n, ok := t.cmd.LUN.Number(); ok && s.node != nil {
		t.lun = s.node.lun(n)
	}
	if t.cmd.Write && t.lun != nil {
		t.buf = make([]byte, min(uint64(t.edtl), t.lun.dataOutLen(t.cdb)))
	}
	r.task = t
	s.tasks[v.ITT()] = t
	t.lockedImmediate(v, r.data)
	return true, true
}

// lockedImmediate checks the command PDU itself and takes its data (§11.3).
func (t *task) lockedImmediate(v pdu.SCSICommandView, data []byte) {
	neg, n := &t.s.neg, uint32(len(data))
	t.unsolicited = t.cmd.Write && !v.Final()
	var why string
	switch {
	case !t.cmd.Write && !v.Final():
		why = "neither W nor F bit (§11.3.1)"
	case n > 0 && !t.cmd.Write:
		why = "immediate data without W bit (§11.3.6)"
	case n > 0 && !neg.ImmediateData:
		why = "immediate data although ImmediateData=No (§13.11)"
	case n > neg.FirstBurstLength:
		why = fmt.Sprintf("%d bytes of immediate data, FirstBurstLength is %d (§13.14)", n, neg.FirstBurstLength)
	case n > 0 && n > t.edtl:
		why = fmt.Sprintf("%d bytes of immediate data, Expected Data Transfer Length is %d (§11.3.4)", n, t.edtl)
	case t.unsolicited && neg.InitialR2T:
		why = "F=0 although InitialR2T=Yes (§13.10)"
	case t.unsolicited && n == t.edtl:
		why = "F=0 although all data is in the command (§11.3.4)"
	case t.cmd.Read && t.cmd.Write && !t.bidi:
		why = "a bidirectional command without the AHS for its read length (§11.3.4)"
	}
	if why != "" {
		t.lockedFail(v, why, scsi.ASCUnexpectedUnsolicited)
	}
	t.got = n
	copy(t.buf, data)
}

// lockedFail notes a violation that ends the task with CHECK CONDITION once
// all data that is on its way has come (§11.4.7.2, §11.17.1).
func (t *task) lockedFail(bhs []byte, why string, asc scsi.ASC) {
	t.c.violation(bhs, "%s", why)
	if t.failed == nil {
		res := checkCondition(scsi.KeyAbortedCommand, asc)
		t.failed = &res
	}
}

// startTask begins a task whose turn has come.
func (s *session) startTask(r *request) {
	t := r.task
	switch {
	case t.action.terminal == actDrop:
	case t.action.delay > 0 || t.action.hang != nil:
		s.t.wg.Go(func() {
			if t.sleep(t.action.delay) && t.waitFor(t.action.hang) {
				s.begin(t)
			}
		})
	default:
		s.begin(t)
	}
}

// begin lets a task ask for its data, or run if there is nothing to ask for.
func (s *session) begin(t *task) {
	early := t.preview() // may look at the LUN, so not under the session's lock
	s.mu.Lock()
	t.begun = true
	if t.failed == nil {
		t.failed = early
	}
	t.asked = max(t.got, t.asked)
	run := s.lockedAdvance(t)
	s.mu.Unlock()
	if run {
		s.run(t)
	}
}

// preview is the result of a task that will not be carried out, else nil.
func (t *task) preview() *result {
	if t.action.terminal == actFail {
		return &result{status: t.action.status, sense: t.action.sense}
	}
	return t.s.judge(t)
}

// lockedAdvance asks for more data, and reports whether the task can run.
func (s *session) lockedAdvance(t *task) (run bool) {
	if !t.begun || t.ran || t.unsolicited || s.tasks[t.cmd.ITT] != t {
		return false
	}
	if t.failed == nil {
		s.lockedSolicit(t)
	}
	if len(t.r2ts) > 0 {
		return false
	}
	t.ran = true
	return true
}

// run carries a task out: here and now if the medium is memory, else on a
// goroutine of its own, because it may take its time.
func (s *session) run(t *task) {
	switch {
	case t.failed != nil:
		s.finish(t, *t.failed)
	case t.action.holdWrite != nil:
		s.t.wg.Go(func() {
			if t.waitFor(t.action.holdWrite) {
				s.execute(t)
			}
		})
	case t.lun != nil && t.lun.mayBlock:
		s.t.wg.Go(func() { s.execute(t) })
	default:
		s.execute(t)
	}
}

// execute has the LUN do the work, unless the task was aborted.
func (s *session) execute(t *task) {
	t.exec.Lock()
	if t.over {
		t.exec.Unlock()
		return
	}
	res := s.work(t)
	t.exec.Unlock()
	s.finish(t, res)
}

// abort keeps a task, which must have been taken out of its session, from being
// carried out, and waits if that is just happening. It returns false if a hold
// lets the task live on.
func (t *task) abort(why endReason) bool {
	t.exec.Lock()
	defer t.exec.Unlock()
	if t.over {
		return true
	}
	if t.held != nil && why != endClosed {
		switch t.held.Scope {
		case HoldZombie:
			return true // nobody can reach it any more
		case HoldHung:
			if why == endTimeout || why == endDropped {
				return false
			}
		}
	}
	t.over = true
	if t.ended != nil {
		close(t.ended)
	}
	return true
}

// lockedEnded returns a channel that closes when the task is aborted.
func (t *task) lockedEnded() <-chan struct{} {
	if t.ended == nil {
		t.ended = make(chan struct{})
	}
	return t.ended
}

// sleep waits for d; false if the task was aborted meanwhile.
func (t *task) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t.exec.Lock()
	over, ended := t.over, t.lockedEnded()
	t.exec.Unlock()
	if over {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ended:
		return false
	}
}

// waitFor waits for a hold, if there is one; false if the task was aborted
// meanwhile or the target closed.
func (t *task) waitFor(h *Hold) bool {
	if h == nil {
		return true
	}
	t.exec.Lock()
	over, ended := t.over, t.lockedEnded()
	if !over {
		t.held = h
	}
	t.exec.Unlock()
	if over {
		return false
	}
	h.arrive()
	select {
	case <-h.released:
	case <-ended:
	case <-t.s.t.done:
		return false
	}
	t.exec.Lock()
	defer t.exec.Unlock()
	t.held = nil
	return !t.over
}

// finish answers a task, if it still is one.
func (s *session) finish(t *task, res result) {
	if len(res.sense) > 0 && t.lun != nil {
		res.sense = t.lun.formatSense(res.sense)
	}
	out := t.answer(res)
	if !s.t.rules.any() {
		s.answer(t, out)
		return
	}
	a := t.c.responseAction(out[len(out)-1], &t.cmd)
	switch a.terminal {
	case actClose, actReset:
		t.c.abort(a.terminal == actReset)
		return
	case actDrop:
		out = nil
	}
	if a.delay == 0 && a.hang == nil {
		s.answer(t, out)
		return
	}
	s.t.wg.Go(func() {
		if t.sleep(a.delay) && t.waitFor(a.hang) {
			s.answer(t, out)
		}
	})
}

// responseAction is what the rules say about a response.
func (c *conn) responseAction(o *outPDU, cmd *Command) Action {
	e := &Event{
		Dir: FromTarget, Portal: c.portal.index, Conn: c.number, CID: c.cid, TSIH: c.sess.tsih,
		BHS: o.bhs[:], Data: o.data, Index: int(c.outIndex.Load()), Command: cmd,
	}
	return merge(c.t.rules.match(e))
}

// reply sends the response to a request that is no SCSI command, as the rules
// have it.
func (c *conn) reply(o *outPDU) {
	if !c.t.rules.any() {
		c.send(o)
		return
	}
	a := c.responseAction(o, nil)
	switch {
	case a.terminal == actClose, a.terminal == actReset:
		c.abort(a.terminal == actReset)
	case a.terminal == actDrop:
	case a.delay > 0 || a.hang != nil:
		c.t.wg.Go(func() {
			if c.pause(a) {
				c.send(o)
			}
		})
	default:
		c.send(o)
	}
}

// answer sends the answer of a task and forgets it. A task that was aborted
// meanwhile is not answered (§11.5.1).
func (s *session) answer(t *task, out []*outPDU) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks[t.cmd.ITT] != t {
		return
	}
	delete(s.tasks, t.cmd.ITT)
	s.lockedReleaseSlot(t)
	s.lockedSend(t, out...)
}

// lockedSend sends on the connection of a task; nothing if that was logged out,
// when no more must come (§11.14).
func (s *session) lockedSend(t *task, out ...*outPDU) {
	if s.lockedHas(t.c) {
		t.c.send(out...)
	}
}
