package iscsitest

import (
	"maps"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// lostConn is a connection that has ended while its session goes on, and whose
// tasks live (RFC 7143 §7.5): it was lost and not logged out yet, or it was
// logged out for recovery and its tasks wait for reassignment.
type lostConn struct {
	c         *conn
	loggedOut bool // its CID is free, only its tasks are left
	timer     *time.Timer
}

// keep is how long the state of a lost connection is kept (§7.5.1).
func (s *session) keep() time.Duration {
	return time.Duration(s.neg.DefaultTime2Wait+s.neg.DefaultTime2Retain) * time.Second
}

// findSession finds the session that a login names by its TSIH (§6.3.1), to add
// a connection or to put one in place of that with the same CID.
func (t *Target) findSession(key sessionKey, tsih, cid uint16) (*session, pdu.LoginStatus, string) {
	t.mu.Lock()
	s := t.sessions[key]
	t.mu.Unlock()
	if s == nil || s.tsih != tsih {
		return nil, pdu.LoginNoSession, "no such session"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status, why := s.lockedAdmits(cid)
	return s, status, why
}

// lockedAdmits reports whether a connection of that CID may join.
func (s *session) lockedAdmits(cid uint16) (pdu.LoginStatus, string) {
	switch {
	case s.dead:
		return pdu.LoginNoSession, "the session is over"
	case s.lockedFind(cid) == nil && uint32(len(s.conns)) >= s.neg.MaxConnections:
		return pdu.LoginTooManyConnections, "the session has as many connections as were negotiated"
	}
	return pdu.LoginSuccess, ""
}

// lockedFind returns the connection of a CID, alive or lost, nil if the CID is
// free.
func (s *session) lockedFind(cid uint16) *conn {
	if c := s.conns[cid]; c != nil {
		return c
	}
	for c, lost := range s.lost {
		if c.cid == cid && !lost.loggedOut {
			return c
		}
	}
	return nil
}

// lockedHas reports whether c is a connection of the session now.
func (s *session) lockedHas(c *conn) bool { return !s.dead && s.conns[c.cid] == c }

// attach makes room for a connection whose login is about to succeed: one with
// the same CID is logged out first, and what had to end with it is over when
// attach returns (§6.3.4, §11.14).
func (s *session) attach(cid uint16) (pdu.LoginStatus, string) {
	s.mu.Lock()
	status, why := s.lockedAdmits(cid)
	if status != pdu.LoginSuccess {
		s.mu.Unlock()
		return status, why
	}
	old := s.lockedFind(cid)
	var tasks []*task
	if old != nil {
		tasks = s.lockedLogout(old, s.neg.ErrorRecoveryLevel == 2)
	}
	s.mu.Unlock()
	s.abortTasks(tasks, endReinstated)
	s.attendCleared(tasks)
	if old != nil {
		s.t.cfg.Logf("session %d: connection %d (CID %d) is reinstated", s.tsih, old.number, cid)
		old.abort(false)
	}
	return pdu.LoginSuccess, ""
}

// connLost is called when a connection has ended, however it did. One that was
// not logged out leaves its tasks behind, for as long as was negotiated (§7.5).
func (s *session) connLost(c *conn) {
	s.mu.Lock()
	if !s.lockedHas(c) {
		s.mu.Unlock()
		return
	}
	delete(s.conns, c.cid)
	s.lockedForgetPings(c)
	if s.t.cfg.Quirks.DropSessionWithConnection && s.neg.ErrorRecoveryLevel < 2 {
		s.mu.Unlock()
		s.end(endTimeout)
		return
	}
	s.recovering = true
	lost := s.lockedKeep(c, false)
	s.mu.Unlock()
	if lost.timer == nil {
		s.expire(lost)
	}
}

// lockedKeep keeps the state of a connection that has ended until its time is over.
func (s *session) lockedKeep(c *conn, loggedOut bool) *lostConn {
	lost := &lostConn{c: c, loggedOut: loggedOut}
	s.lost[c] = lost
	if keep := s.keep(); keep > 0 {
		lost.timer = time.AfterFunc(keep, func() { s.expire(lost) })
	}
	return lost
}

// expire ends what a lost connection left (§8.1, transition M1), and the session
// if there is nothing else of it.
func (s *session) expire(lost *lostConn) {
	s.mu.Lock()
	if s.dead || s.lost[lost.c] != lost {
		s.mu.Unlock()
		return
	}
	delete(s.lost, lost.c)
	tasks := s.lockedDiscard(lost.c, false)
	over := s.lockedOver()
	s.mu.Unlock()
	s.abortTasks(tasks, endTimeout)
	s.attendCleared(tasks)
	if over {
		s.end(endTimeout)
	}
}

// lockedOver reports whether nothing keeps the session alive (§6.3.5), and then
// lets nobody join it any more.
func (s *session) lockedOver() bool {
	if len(s.conns) == 0 && len(s.lost) == 0 {
		s.dead = true
	}
	return s.dead
}

// lockedDiscard forgets the requests of a connection whose turn has not come, so
// that they leave gaps in the order of CmdSN, and takes out its tasks: all, or
// those among the former.
func (s *session) lockedDiscard(c *conn, undelivered bool) []*task {
	maps.DeleteFunc(s.waiting, func(_ uint32, r *request) bool { return r.c == c })
	return s.lockedTakeTasks(func(t *task) bool { return t.c == c && !(undelivered && t.delivered) })
}

// lockedLogout takes a connection out of the session and returns the tasks that
// have to be aborted: all, or with recovery those that were not acknowledged by
// ExpCmdSN, while the others wait for reassignment (§11.14).
func (s *session) lockedLogout(c *conn, recovery bool) []*task {
	if s.conns[c.cid] == c {
		delete(s.conns, c.cid)
		s.lockedForgetPings(c)
	}
	if lost := s.lost[c]; lost != nil {
		if lost.timer != nil {
			lost.timer.Stop()
		}
		delete(s.lost, c)
	}
	s.recovering = true
	recovery = recovery && s.keep() > 0
	tasks := s.lockedDiscard(c, recovery)
	if recovery {
		s.lockedKeep(c, true)
	}
	return tasks
}

// abortTasks aborts tasks that were taken out of their sessions. Those that a hold
// lets live on are remembered until the session is reinstated.
func (s *session) abortTasks(tasks []*task, why endReason) {
	for _, task := range tasks {
		if !task.abort(why) {
			s.t.mu.Lock()
			s.t.limbo[task.s.key] = append(s.t.limbo[task.s.key], task)
			s.t.mu.Unlock()
		}
		task.s.mu.Lock()
		delete(task.s.dying, task)
		task.s.mu.Unlock()
	}
}

// attendCleared tells the initiator by UNIT ATTENTION that tasks ended with their
// connection (§11.14.5).
func (s *session) attendCleared(tasks []*task) {
	for _, task := range tasks {
		if task.lun != nil && task.delivered {
			s.attend(task.lun, scsi.ASCCommandsClearedByEvent)
		}
	}
}

// logout ends the session or a connection (§11.14). A connection that logs
// itself out closes when the response is out.
func (s *session) logout(r *request) {
	v, c := pdu.LogoutView(r.header()), r.c
	switch v.Reason() {
	case pdu.LogoutCloseSession:
		s.endBut(endLogout, c)
		s.answerLogout(r, pdu.LogoutDone)
		c.leave()
	case pdu.LogoutForRecovery:
		if s.neg.ErrorRecoveryLevel < 2 {
			s.answerLogout(r, pdu.LogoutRecoveryUnsupported)
			return
		}
		s.logoutConn(r, true)
	case pdu.LogoutCloseConnection:
		s.logoutConn(r, false)
	default:
		c.violation(v, "unknown reason code (§11.14.1)")
		c.reject(r.header(), pdu.RejectInvalidField)
	}
}

func (s *session) answerLogout(r *request, result pdu.LogoutResult) {
	o := &outPDU{}
	(&pdu.LogoutResponse{
		Response: result, ITT: r.header().ITT(),
		Time2Wait: uint16(s.neg.DefaultTime2Wait), Time2Retain: uint16(s.neg.DefaultTime2Retain),
	}).AppendTo(o.bhs[:0])
	r.c.reply(o)
}

// logoutConn logs out the connection that a request names: its own, another, or
// one that was lost. What had to end is over before the answer.
func (s *session) logoutConn(r *request, recovery bool) {
	s.mu.Lock()
	leaving := s.lockedFind(pdu.LogoutView(r.header()).CID())
	if leaving == nil {
		s.mu.Unlock()
		s.answerLogout(r, pdu.LogoutNoCID)
		return
	}
	tasks := s.lockedLogout(leaving, recovery)
	over := s.lockedOver()
	s.mu.Unlock()
	s.t.cfg.Logf("session %d: connection %d (CID %d) is logged out", s.tsih, leaving.number, leaving.cid)
	s.abortAll(tasks, endLogout, func() {
		s.attendCleared(tasks)
		if leaving != r.c {
			leaving.abort(false)
		}
		if over {
			s.endBut(endLogout, r.c)
		}
		s.answerLogout(r, pdu.LogoutDone)
		if leaving == r.c {
			r.c.leave()
		}
	})
}

// lostCIDs are the CIDs of connections that were lost and not logged out.
func (s *session) lockedLostCIDs() (cids []uint16) {
	for c, lost := range s.lost {
		if !lost.loggedOut {
			cids = append(cids, c.cid)
		}
	}
	slices.Sort(cids)
	return cids
}
