package iscsitest

import (
	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// taskMgmt carries out a task management function (RFC 7143 §11.5). What it
// aborts has ended, medium included, before the response is sent.
//
// Simplification: without FastAbort, ABORT TASK SET and CLEAR TASK SET do not wait for the data
// asked for by R2T (§4.2.3.3); what still comes is ignored without a Reject.
func (s *session) taskMgmt(r *request) {
	v := pdu.TaskMgmtView(r.header())
	c := r.c
	respond := func(res pdu.TMResponse) {
		o := &outPDU{}
		(&pdu.TaskMgmtResponse{Response: res, ITT: v.ITT()}).AppendTo(o.bhs[:0])
		c.reply(o)
	}
	switch v.Function() {
	case pdu.TMAbortTask:
		task, res := s.abortTask(c, v)
		s.abortAll(task, endAborted, func() {
			respond(res)
			s.t.wg.Go(s.deliverReady) // not here: this may be a part of it
		})
	case pdu.TMAbortTaskSet, pdu.TMClearTaskSet, pdu.TMLUNReset:
		u := s.unit(v.LUN())
		if u == nil {
			respond(pdu.TMNoLUN)
			return
		}
		tasks := s.takeSet(v, u)
		terminate(c, tasks)
		s.abortAll(tasks, endAborted, func() {
			// What was sent of the tasks must arrive before (§4.2.2.3.4).
			s.behindOthers(c, func() { respond(pdu.TMComplete) })
		})
	case pdu.TMTaskReassign:
		respond(pdu.TMReassignUnsupported)
	default:
		respond(pdu.TMUnsupported)
	}
}

// unit is the logical unit of a LUN field, nil if there is none.
func (s *session) unit(field uint64) *lun {
	n, ok := scsi.LUN(field).Number()
	if !ok || s.node == nil {
		return nil
	}
	return s.node.lun(n)
}

// abortAll aborts tasks that were taken out of their sessions, then calls done.
// If a medium may block that does not hold up the connection.
func (s *session) abortAll(tasks []*task, why endReason, done func()) {
	work := func() {
		s.abortTasks(tasks, why)
		done()
	}
	for _, t := range tasks {
		if t.lun != nil && t.lun.mayBlock {
			s.t.wg.Go(work)
			return
		}
	}
	work()
}

// abortTask finds the task of ABORT TASK, or answers for one that is not there
// (§11.6.1). It may be that requests get ready which waited for that one.
func (s *session) abortTask(c *conn, v pdu.TaskMgmtView) (tasks []*task, res pdu.TMResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[v.RefTaskTag()]; t != nil && uint64(t.cmd.LUN) == v.LUN() {
		if t.c != c {
			c.violation(v, "ABORT TASK must come on the connection of the task (§11.5.1)")
			return nil, pdu.TMRejected
		}
		return s.lockedTakeTasks(func(x *task) bool { return x == t }), pdu.TMComplete
	}
	ref := v.RefCmdSN()
	inWindow := serial.LessEq(s.expCmdSN, ref) && serial.LessEq(ref, s.maxCmdSN)
	if !inWindow || !serial.Less(ref, v.CmdSN()) {
		return nil, pdu.TMNoTask
	}
	// The command was not received yet: its CmdSN counts as received, so that it
	// is ignored when it comes.
	blank := &request{action: Action{terminal: actDrop}}
	switch {
	case s.waiting[ref] != nil:
		if s.waiting[ref].c != nil { // it was received, and is not what the request names
			return nil, pdu.TMNoTask
		}
	case ref == s.expCmdSN:
		s.lockedDrain(blank)
	default:
		s.waiting[ref] = blank
	}
	return nil, pdu.TMComplete
}

// takeSet takes out the tasks that a function on a whole unit ends, and tells
// other sessions by UNIT ATTENTION.
func (s *session) takeSet(v pdu.TaskMgmtView, u *lun) []*task {
	t := s.t
	function := v.Function()
	if function == pdu.TMAbortTaskSet {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lockedTakeTasks(func(x *task) bool {
			return x.lun == u && (x.immediate || serial.Less(x.cmd.CmdSN, v.CmdSN()))
		})
	}
	t.mu.Lock()
	sessions := t.lockedSessions()
	var tasks []*task
	if function == pdu.TMLUNReset {
		for _, hung := range t.limbo { // they stay listed; aborting twice does no harm
			for _, x := range hung {
				if x.lun == u {
					tasks = append(tasks, x)
				}
			}
		}
	}
	t.mu.Unlock()
	cleared := make(map[*session]bool)
	for _, other := range sessions {
		other.mu.Lock()
		taken := other.lockedTakeTasks(func(x *task) bool { return x.lun == u })
		other.mu.Unlock()
		tasks = append(tasks, taken...)
		cleared[other] = len(taken) > 0
	}
	if function == pdu.TMLUNReset {
		u.mu.Lock()
		u.swp, u.dsense = false, false
		u.mu.Unlock()
		t.attention(u, scsi.ASCDeviceReset, nil)
		return tasks
	}
	for other := range cleared {
		if other != s && cleared[other] {
			other.attend(u, scsi.ASCCommandsCleared)
		}
	}
	return tasks
}
