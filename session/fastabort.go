package session

import (
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session/login"
)

// FastAbort (RFC 7143 §4.2.3.4), where the target agreed to TaskReporting=FastAbort:
// it waits for no data of the tasks that a function ends, and none is sent for
// them. The send queue of a connection is first in, first out: Data-Outs that were
// queued before the request, or before the acknowledgement of an event, reach the
// target before it, and none follows.

// Targets that were offered TaskReporting and broke the login off get it never
// again: it is worth less than a login. Those that agreed once keep getting it.

// fastAborts reports whether FastAbort was agreed on.
func (s *Session) fastAborts() bool { return s.params.TaskReporting == login.ReportFastAbort }

// halts reports whether an R2T is left unanswered because its task is to end.
func (t *task) halts() bool {
	if t.halted != nil {
		t.denied = true
	}
	return t.aborting || t.halted != nil
}

// halt sees to it that no more data is sent for the tasks that m is about, once its
// request is queued on c. Tasks on other connections go on until an event comes there.
func (s *Session) halt(c *conn, m *tmf) {
	if !s.fastAborts() {
		return
	}
	for t := s.tasks.first(); t != nil; t = s.tasks.after(t) {
		if t.kind == taskSCSI && t.conn == c && t.write && m.covers(t.lun) {
			t.halted = m
		}
	}
}

// resume lets the tasks that a function did not end have their data after all. One
// that was denied some could never complete: its session ends.
func (s *Session) resume(m *tmf, r TMFResult) {
	if !s.fastAborts() || s.state != StateLoggedIn {
		return
	}
	refused := r.Err == nil || r.Err.Kind == KindTarget
	denied := false
	for t := s.tasks.first(); t != nil; t = s.tasks.after(t) {
		if t.kind != taskSCSI || t.halted != m || t.aborted || t.conn.dead {
			continue
		}
		denied = denied || t.denied
		if refused { // else the target may still do it, and wants no data
			t.halted = nil
		}
	}
	if denied {
		s.Drop(s.err(KindTarget, "the target did not end a write for which it got no data any more: %v", r))
	}
}

// terminating takes the event that all tasks of a unit are being ended (§11.9.1).
// What was asked for before it is queued already, and leaves before the
// acknowledgement: from then on the target may forget those R2Ts. One that comes after
// the event, on the same connection, is for a command that the event is not about: it
// may have been on its way when that was sent. What becomes of the others the target
// tells by a response or a unit attention, or the command's timer finds out.
func (c *conn) terminating(v pdu.AsyncView) error {
	s := c.s
	if !s.fastAborts() {
		s.log.Info("target sends an event that was not agreed on", "event", v.AsyncEvent().String())
		return nil
	}
	s.log.Info("target ends all commands to a unit", "lun", scsi.LUN(v.LUN()).String())
	if !c.reply(maxReplies) {
		return c.protocolErr("the target keeps sending events but reads no answers")
	}
	c.acknowledge(v.LUN())
	return nil
}

// acknowledge tells the target at once which of its PDUs came (§11.18).
func (c *conn) acknowledge(lun uint64) {
	s := c.s
	if s.logoutSent { // nothing may follow a logout
		return
	}
	c.sendNOP(pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: pdu.ReservedTag, LUN: lun, CmdSN: s.cmdSN})
}

// fenced acknowledges the answer to a function for many tasks: with several
// connections a target that fences responses holds back all others until then
// (§4.2.2.3.3).
func (c *conn) fenced(m *tmf) {
	if s := c.s; s.barrier == m && len(s.members) > 0 && s.params.TaskReporting != login.ReportRFC3720 {
		c.acknowledge(0)
	}
}

// unreported notes that a login in which TaskReporting was offered failed, and
// reports whether to begin another one without it at once.
func (s *Session) unreported(c *conn, reason *Error) bool {
	if c.machine == nil || !c.machine.OfferedTaskReporting() || s.reporting != reportingOpen || s.memberOf(c) != nil {
		return false
	}
	s.reporting = reportingWithheld
	if s.via != "" {
		return false
	}
	return reason.Kind == KindTransport || reason.Login == pdu.LoginInitiatorError
}

// How a target takes the offer of TaskReporting.
type reportingState uint8

const (
	reportingOpen     reportingState = iota // nothing is known against it
	reportingTaken                          // a login with it succeeded
	reportingWithheld                       // not offered any more
)
