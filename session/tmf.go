package session

import (
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// Task management (RFC 7143 §11.5, §11.6). All requests are immediate: the
// command window may be closed, and gotgt hangs on others. They are bounded by
// a timeout of their own, and fail with the connection they went over.
//
// The answer "function complete" ends the tasks concerned, and for ABORT TASK
// "task does not exist" does, since the request followed everything sent for the
// task: what is over at the target cannot be executed later. Answers to the
// tasks that come before that of the function count.

// maxTMFs bounds the task management requests under way; they have slots of
// their own, so that pings and logouts never want for one.
const maxTMFs = 16

// TMFResult is the outcome of a task management function.
type TMFResult struct {
	// Function is what was asked for.
	Function pdu.TMFunction
	// Response is the target's answer (RFC 7143 §11.6.1), valid if Err is nil.
	Response pdu.TMResponse
	// Err says why there is no answer: KindTimeout if the target did not give one
	// in time, KindTarget if it rejected the PDU, else why the connection was
	// lost. What the target did with the request is then unknown.
	Err *Error
}

// Ended reports whether the tasks the function was meant for are over.
func (r TMFResult) Ended() bool {
	return r.Err == nil &&
		(r.Response == pdu.TMComplete || r.Response == pdu.TMNoTask && r.Function == pdu.TMAbortTask)
}

// String tells function and outcome in words.
func (r TMFResult) String() string {
	if r.Err != nil {
		return fmt.Sprintf("%v: %v", r.Function, r.Err)
	}
	return fmt.Sprintf("%v: %v", r.Function, r.Response)
}

// tmf is what a task of kind taskTMF stands for.
type tmf struct {
	function pdu.TMFunction
	lun      scsi.LUN
	ref      uint32 // ABORT TASK: the tag of the task
	done     func(TMFResult)
}

// AbortTask asks the target to end c (ABORT TASK), within Config.AbortTimeout. If
// it does, c completes with an Error of KindAborted, Sent and Settled, unless
// its answer came first; done follows in any case, once, on the loop, never from
// inside AbortTask. From now on no more data is sent for c: if the target refuses,
// a write may never complete, and the caller has to go on to ResetLUN or Drop.
// False if it cannot be asked: c is not in flight, was answered, is being aborted,
// or its connection is being given up. Then done does not come.
func (s *Session) AbortTask(c *Command, done func(TMFResult)) bool {
	if c.slot == 0 {
		return false
	}
	t := &s.tasks.slots[c.slot-1]
	return t.cmd == c && s.abortTask(t, done)
}

func (s *Session) abortTask(t *task, done func(TMFResult)) bool {
	if t.kind != taskSCSI || t.waiting || t.aborting {
		return false
	}
	// The request follows the task's own bytes on the same connection (§11.5.1).
	m := &tmf{function: pdu.TMAbortTask, lun: t.lun, ref: t.itt, done: done}
	if !s.sendTMF(t.conn, m, t.cmdSN, s.cfg.AbortTimeout) {
		return false
	}
	t.aborting = true
	return true
}

// AbortTaskSet asks the target to end all commands of this session to lun, within
// Config.LUResetTimeout. While it and the functions below are under way, of which there
// is one at a time, Submit takes nothing; R2Ts are answered as ever
// (RFC 7143 §4.2.3.3). When the target says that it is complete the commands
// concerned complete as with AbortTask, and done follows. False: not
// logged in, or one of these functions is under way.
func (s *Session) AbortTaskSet(lun scsi.LUN, done func(TMFResult)) bool {
	return s.multiTask(pdu.TMAbortTaskSet, lun, s.cfg.LUResetTimeout, done)
}

// ClearTaskSet is AbortTaskSet for the commands of all hosts, as far as the unit
// has one task set for them.
func (s *Session) ClearTaskSet(lun scsi.LUN, done func(TMFResult)) bool {
	return s.multiTask(pdu.TMClearTaskSet, lun, s.cfg.LUResetTimeout, done)
}

// ResetLUN resets a unit (LOGICAL UNIT RESET): the commands of all hosts and
// sessions end; those of other sessions without an answer. As AbortTaskSet else.
func (s *Session) ResetLUN(lun scsi.LUN, done func(TMFResult)) bool {
	return s.multiTask(pdu.TMLUNReset, lun, s.cfg.LUResetTimeout, done)
}

// TargetWarmReset resets all units of the target, for all hosts, within
// Config.TargetResetTimeout; as ResetLUN else. Targets need not know it.
func (s *Session) TargetWarmReset(done func(TMFResult)) bool {
	return s.multiTask(pdu.TMTargetWarmReset, 0, s.cfg.TargetResetTimeout, done)
}

// TargetColdReset is TargetWarmReset after which the target closes all
// connections of all hosts; the answer may get lost with them.
func (s *Session) TargetColdReset(done func(TMFResult)) bool {
	return s.multiTask(pdu.TMTargetColdReset, 0, s.cfg.TargetResetTimeout, done)
}

func (s *Session) multiTask(f pdu.TMFunction, lun scsi.LUN, timeout time.Duration, done func(TMFResult)) bool {
	if s.state != StateLoggedIn || s.barrier != nil || s.cfg.Discovery {
		return false
	}
	c := s.conn
	if c.dead {
		c = s.other(c)
	}
	m := &tmf{function: f, lun: lun, ref: pdu.ReservedTag, done: done}
	if c == nil || !s.sendTMF(c, m, 0, timeout) {
		return false
	}
	s.barrier = m
	s.halt(c, m)
	return true
}

// sendTMF queues a Task Management Function Request.
func (s *Session) sendTMF(c *conn, m *tmf, refCmdSN uint32, timeout time.Duration) bool {
	if s.state != StateLoggedIn || c.dead || s.logoutSent || s.tmfs >= maxTMFs {
		return false
	}
	now := s.env.Now()
	t := s.tasks.add(taskTMF, c, now)
	if t == nil {
		return false
	}
	s.tmfs++
	t.tmf = m
	start := c.header()
	t.pos = c.out.queued
	p := pdu.TaskMgmt{
		Immediate: true, Function: m.function, LUN: uint64(m.lun), ITT: t.itt, RefTaskTag: m.ref,
		CmdSN: s.cmdSN, ExpStatSN: c.expStatSN, RefCmdSN: refCmdSN,
	}
	c.out.chunk.buf = p.AppendTo(c.out.chunk.buf)
	c.seal(start)
	c.flush()
	s.schedule(t, now+int64(timeout))
	return true
}

// tmfResponse takes the answer to a function (RFC 7143 §11.6). One that nobody
// waits for any more is discarded (§4.2.3.3).
func (c *conn) tmfResponse(v pdu.TaskMgmtResponseView) error {
	t := c.task(v.ITT())
	if t == nil || t.kind != taskTMF {
		return nil
	}
	if !v.Response().Known() {
		return c.protocolErr("task management response with the reserved code %02x", uint8(v.Response()))
	}
	s, m := c.s, t.tmf
	s.tasks.remove(t)
	r := TMFResult{Function: m.function, Response: v.Response()}
	c.fenced(m)
	if r.Ended() {
		s.concludeAll(c, m, r)
	}
	s.tmfOver(m, r)
	return nil
}

// tmfOver tells whoever asked for m how it ended. Its slot is free by now.
func (s *Session) tmfOver(m *tmf, r TMFResult) {
	s.tmfs--
	if t := s.tasks.find(m.ref); t != nil {
		t.aborting = false
	}
	lifted := s.barrier == m
	if lifted {
		s.barrier = nil
		s.resume(m, r)
	}
	s.log.Debug("task management", "function", r.Function, "result", r.String())
	if m.done != nil {
		m.done(r)
	}
	if lifted && s.state == StateLoggedIn {
		s.obs.SessionChanged(s)
	}
}

// concludeAll ends the tasks that the answer to m, over c, is about. The barrier
// still stands, so that what their owners do adds none.
func (s *Session) concludeAll(c *conn, m *tmf, r TMFResult) {
	var tags []uint32
	for t := s.tasks.first(); t != nil; t = s.tasks.after(t) {
		if s.concerns(m, t) {
			tags = append(tags, t.itt)
		}
	}
	why := s.err(KindAborted, "%s", r.String())
	why.Sent, why.Settled = true, true
	for _, itt := range tags {
		if t := s.tasks.find(itt); t != nil {
			s.conclude(t, why)
		}
	}
}

// concerns reports whether t is over after m. With several connections a command
// that the target still waits for, or one before it, is not: it may come later.
// What was sent over a lost connection is the clean-up's business.
func (s *Session) concerns(m *tmf, t *task) bool {
	switch {
	case t.kind != taskSCSI || t.waiting || t.conn.dead:
		return false
	case m.function == pdu.TMAbortTask:
		return t.itt == m.ref
	case len(s.members) > 0 && !serial.Less(t.cmdSN, s.expCmdSN):
		return false
	}
	return m.covers(t.lun)
}

// covers reports whether a function for many tasks is about a unit.
func (m *tmf) covers(lun scsi.LUN) bool {
	return lun == m.lun || m.function == pdu.TMTargetWarmReset || m.function == pdu.TMTargetColdReset
}

// conclude ends a task that the target has ended without a SCSI response. Bytes
// of it that are queued in the middle of the stream still leave before its
// buffer is given back.
func (s *Session) conclude(t *task, why *Error) {
	t.aborted = true
	t.conn.in.forget(t)
	s.bury(t.itt)
	if t.cmd != nil {
		t.cmd.Err = why
	}
	t.conn.finish(t)
}

// maxBuried is the number of aborted tasks of which late answers are known as such.
const maxBuried = 256

// bury remembers the tag of an aborted task. A target must not answer it any
// more; if one does that is no reason to lose the connection.
func (s *Session) bury(itt uint32) {
	if len(s.buried) < maxBuried {
		s.buried = append(s.buried, itt)
		return
	}
	s.buried[s.nextBuried] = itt
	s.nextBuried = (s.nextBuried + 1) % maxBuried
}

// tooLate reports whether a PDU for the tag comes after the end of its task by an
// abort, or answers a task management function as if it were a command, which is
// what gotgt does before it aborts a write that waits for data.
func (c *conn) tooLate(itt uint32) bool {
	if t := c.task(itt); t != nil {
		return t.aborted || t.kind == taskTMF
	}
	return slices.Contains(c.s.buried, itt)
}

// schedule sees to it that tickTasks looks at t at the given time.
func (s *Session) schedule(t *task, at int64) {
	t.due = at
	s.taskDue = earlier(s.taskDue, at)
	s.rearm()
}

// tickTasks does what is due for single tasks: functions and texts that were not
// answered in time, and detached commands that were not answered at all.
func (s *Session) tickTasks(now int64) {
	if s.taskDue == 0 || now < s.taskDue {
		return
	}
	s.taskDue = 0
	var due []uint32
	for t := s.tasks.first(); t != nil; t = s.tasks.after(t) {
		switch {
		case t.due == 0:
		case now < t.due:
			s.taskDue = earlier(s.taskDue, t.due)
		default:
			t.due = 0
			due = append(due, t.itt)
		}
	}
	for _, itt := range due {
		t := s.tasks.find(itt)
		switch {
		case t == nil || s.state != StateLoggedIn:
		case t.kind == taskTMF:
			took := time.Duration(now - t.at).Round(time.Millisecond)
			s.end(t, s.err(KindTimeout, "the target did not answer it for %v", took))
		case t.kind == taskText:
			s.Drop(s.err(KindTimeout, "no complete answer to a text request within %v", s.cfg.LoginTimeout))
		case t.kind == taskSCSI && t.cmd == nil:
			s.abortDetached(t, now)
		}
	}
}

// detachedPause is when an abort that cannot be sent now is tried again.
const detachedPause = time.Second

// abortDetached ends a command that nobody waits for but whose place in the
// command window is lost until the target answers it (RFC 7143 §7.11).
func (s *Session) abortDetached(t *task, now int64) {
	itt := t.itt
	asked := s.abortTask(t, func(r TMFResult) {
		if r.Ended() || r.Err != nil && r.Err.Kind != KindTimeout && r.Err.Kind != KindTarget {
			return // else lost with its connection, which is what a drop would do
		}
		if s.tasks.find(itt) != nil {
			s.Drop(s.err(KindTimeout, "a command that was taken back is not answered, and cannot be aborted: %v", r))
		}
	})
	if !asked {
		s.schedule(t, now+int64(detachedPause))
	}
}

// failTMFs ends the functions that went over a lost connection.
func (s *Session) failTMFs(c *conn, why *Error) {
	var tags []uint32
	for t := s.tasks.first(); t != nil; t = s.tasks.after(t) {
		if t.kind == taskTMF && t.conn == c {
			tags = append(tags, t.itt)
		}
	}
	sent := *why
	sent.Sent = true
	for _, itt := range tags {
		if t := s.tasks.find(itt); t != nil {
			s.end(t, &sent)
		}
	}
}
