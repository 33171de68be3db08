package session

import (
	"cmp"
	"time"

	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
)

// Several connections in one session (MC/S, RFC 7143 §4.2.1, §7.1.5). The first
// login makes the session; the others join it with its TSIH and a CID of their
// own. CmdSN counts over all of them, a task is allegiant to the one its command
// was sent on.
//
// Below ErrorRecoveryLevel 2 the session ends with any of its connections, as LIO
// ends it; tgtd could not clean one up either, since it never looks at the CID of a
// Logout.
//
// At level 2 a connection that is lost while others live is cleaned up by a Logout
// for its CID over one of these. After that its tasks are provably over: those the
// target never received are sent again under their old number, which also closes
// the gap that the target would wait for; the others fail as settled. If the
// clean-up fails in any way the whole session is given up and reinstated.

// memberState is where one of the connections stands.
type memberState uint8

const (
	memberIdle     memberState = iota // not there; dialed again at retryAt
	memberJoining                     // dialing or logging in
	memberUp                          // carries commands
	memberCleaning                    // lost; its Logout is under way
	memberProving                     // logged out; a ping proves that the target meant this connection
	memberSettling                    // logged out for recovery; its tasks end at deadline
)

// member is the place of one connection, by CID.
type member struct {
	cid      uint16
	state    memberState
	conn     *conn // memberJoining, memberUp; the lost one from memberCleaning to memberSettling
	lostFor  *Error
	retryAt  int64
	deadline int64 // memberJoining: of the login; memberCleaning: of the Logout; memberProving: of the ping; memberSettling: see there
	backoff  time.Duration
	logout   *task         // memberCleaning: the Logout; memberProving: the ping
	wait     time.Duration // memberProving: from the Logout until the tasks end
}

func (m *member) up() bool { return m.state == memberUp && !m.conn.dead }

// assemble makes the places for the connections that the login allows.
func (s *Session) assemble(lead *conn) {
	n := min(s.cfg.Connections, int(s.params.MaxConnections))
	if n < 2 || s.cfg.Discovery || s.via != "" || s.onlyOneIsSafe() {
		return
	}
	s.members = make([]member, n)
	for i := range s.members {
		s.members[i] = member{cid: uint16(i), retryAt: s.env.Now()}
	}
	s.members[0].state, s.members[0].conn = memberUp, lead
}

// aliasOfLIO is what Linux's target calls itself in every login.
const aliasOfLIO = "LIO Target"

// onlyOneIsSafe reports whether several connections could cost the target its
// kernel. In LIO (seen with 6.1.192) a login that reinstates a session of several
// connections races with their end, in iscsit_stop_session, and level 2 can crash
// it too; that has to be asked for.
func (s *Session) onlyOneIsSafe() bool {
	if s.params.TargetAlias != aliasOfLIO || s.cfg.ErrorRecoveryLevel > 0 {
		return false
	}
	if s.logins == 1 {
		s.log.Warn("one connection is used, not several: Linux's target can crash its kernel when one of several is lost; " +
			"use several portals, or ErrorRecoveryLevel 2 at your own risk")
	}
	return true
}

// memberOf gives the place of c, or nil.
func (s *Session) memberOf(c *conn) *member {
	for i := range s.members {
		if s.members[i].conn == c {
			return &s.members[i]
		}
	}
	return nil
}

// other gives a live connection besides c, or nil.
func (s *Session) other(c *conn) *conn {
	for i := range s.members {
		if m := &s.members[i]; m.up() && m.conn != c {
			return m.conn
		}
	}
	return nil
}

// tickMembers does what is due for the connections.
func (s *Session) tickMembers(now int64) {
	for i := range s.members {
		m := &s.members[i]
		switch {
		case s.state != StateLoggedIn:
			return
		case m.state == memberIdle && now >= m.retryAt && s.mayGrow():
			s.join(m, now)
		case m.state == memberJoining && now >= m.deadline:
			s.joinTimedOut(m, now)
		case (m.state == memberCleaning || m.state == memberProving) && now >= m.deadline:
			s.Drop(s.err(KindTimeout, "connection %d was lost and the target did not answer its logout", m.cid))
			return
		case m.state == memberSettling && now >= m.deadline:
			s.cleanUp(m)
		}
	}
}

// nextMember is the time tickMembers wants to be called, 0 for never.
func (s *Session) nextMember() int64 {
	at := int64(0)
	for i := range s.members {
		m := &s.members[i]
		due := m.deadline
		switch m.state {
		case memberIdle:
			if due = m.retryAt; !s.mayGrow() {
				due = 0
			}
		case memberUp:
			due = m.conn.nextKeepAlive()
		}
		at = earlier(at, due)
	}
	return at
}

// earlier gives the earlier of two times of which 0 means never.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// mayGrow reports whether connections may join: not when the session is being left,
// or given up. A dial or a login would hold its end up, and with it all its commands.
func (s *Session) mayGrow() bool { return s.logoutAt == 0 && !s.logoutSent && s.downFor == nil }

// join dials one more connection, to where the login that made the session was sent.
func (s *Session) join(m *member, now int64) {
	m.state, m.conn, m.retryAt = memberJoining, newConn(s, m.cid), 0
	m.deadline = now + int64(s.cfg.LoginTimeout)
	s.env.Dial(cmp.Or(s.sentTo, s.cfg.Portal), s.cfg.LoginTimeout, m.conn)
}

func (s *Session) joinTimedOut(m *member, now int64) {
	e := s.err(KindTimeout, "no complete login of connection %d within %v", m.cid, s.cfg.LoginTimeout)
	m.deadline = now + int64(s.cfg.LoginTimeout)
	if m.conn.stream != nil {
		m.conn.abort(e)
		return
	}
	s.env.CancelDial(m.conn)
	m.conn.dead = true
	s.connClosed(m.conn, e)
}

// joined takes a connection in whose login is complete.
func (s *Session) joined(m *member) {
	m.state, m.backoff, m.deadline = memberUp, 0, 0
	m.conn.machine, m.conn.chap = nil, nil
	s.log.Debug("connection joined the session", "cid", m.cid)
	s.tellSilence()
	s.rearm()
	s.obs.SessionChanged(s)
}

// memberClosed handles the end of one connection of several, and reports
// whether the session goes on.
func (s *Session) memberClosed(m *member, reason *Error) bool {
	c := m.conn
	wasUp := m.state == memberUp
	if !wasUp {
		m.conn, m.state = nil, memberIdle
	}
	if s.state == StateClosing || s.logoutSent {
		// The others close as the target carries the Logout out; the one that carried
		// it brings the answer.
		if c == s.conn {
			s.abandon(reason)
		}
		return s.anyOpen()
	}
	next := s.other(c)
	switch {
	case !wasUp:
		s.leave(m, reason)
	case next != nil && s.params.ErrorRecoveryLevel == 2:
		s.lose(m, next, reason)
		return true
	default:
		s.abandon(reason)
	}
	return s.anyOpen()
}

// abandon gives the session up with all its connections. The first reason is the
// one that counts.
func (s *Session) abandon(reason *Error) {
	if s.downFor == nil && len(s.members) > 0 {
		s.downFor = reason
	}
	s.abortMembers(reason)
}

// abortMembers gives up every connection that is still there.
func (s *Session) abortMembers(reason *Error) {
	s.abortJoins(reason)
	for i := range s.members {
		if m := &s.members[i]; m.state == memberUp {
			m.conn.abort(reason)
		}
	}
}

// abortJoins gives up every connection whose login is under way.
func (s *Session) abortJoins(reason *Error) {
	for i := range s.members {
		m := &s.members[i]
		switch {
		case m.state != memberJoining || m.conn == nil:
		case m.conn.stream == nil:
			s.env.CancelDial(m.conn)
			m.conn, m.state = nil, memberIdle
		default:
			m.conn.abort(reason)
		}
	}
}

// dropMember gives up the connection with this CID, if it is there: the target
// may also speak of one that is lost already.
func (s *Session) dropMember(cid uint16, reason *Error) {
	for i := range s.members {
		if m := &s.members[i]; m.cid == cid && m.up() {
			m.conn.abort(reason)
		}
	}
}

// anyOpen reports whether a driver may still touch buffers of a connection.
func (s *Session) anyOpen() bool {
	for i := range s.members {
		if c := s.members[i].conn; c != nil && !c.closed {
			return true
		}
	}
	return false
}

// leave plans the next try of a connection that is not there.
func (s *Session) leave(m *member, reason *Error) {
	m.state = memberIdle
	m.retryAt = s.env.Now() + int64(s.pause(&m.backoff, reason))
	s.lastErr = reason
	s.log.Info("connection is missing in the session", "cid", m.cid, "err", reason)
	s.rearm()
}

// lose begins the clean-up of a lost connection over the live one next.
func (s *Session) lose(m *member, next *conn, reason *Error) {
	if s.conn == m.conn {
		s.conn = next
	}
	s.losses++
	m.state, m.lostFor = memberCleaning, reason
	s.lastErr = reason
	s.failTMFs(m.conn, reason)
	if s.state != StateLoggedIn { // whoever was told may have done anything
		return
	}
	s.log.Info("connection lost, cleaning up over another", "cid", m.cid, "over", next.cid, "err", reason)
	s.logoutMember(m, next)
	// A Logout for yet another connection may have gone down with this one.
	for i := range s.members {
		o := &s.members[i]
		if (o.state == memberCleaning || o.state == memberProving) && o.logout != nil && o.logout.conn == m.conn {
			s.tasks.remove(o.logout)
			s.logoutMember(o, next)
		}
	}
	s.tellSilence()
	s.rearm()
	s.obs.SessionChanged(s)
}

// logoutMember asks the target to forget a lost connection (RFC 7143 §11.14). The
// reason is "remove for recovery", the only one that LIO answers for a connection
// it has lost; its tasks end with the timers.
func (s *Session) logoutMember(m *member, over *conn) {
	t := s.tasks.add(taskLogout, over, s.env.Now())
	m.state, m.logout = memberCleaning, t
	if t == nil {
		over.abort(s.err(KindClosed, "no room for a logout"))
		return
	}
	m.deadline = s.env.Now() + int64(s.cfg.LogoutTimeout)
	over.sendLogout(t, pdu.LogoutForRecovery, m.cid)
}

// memberLoggedOut takes the answer to logoutMember (§11.15). It is not believed
// yet: tgtd never looks at the CID and ends the connection that carried the
// Logout. Only if that one still answers a ping was the lost one meant.
func (s *Session) memberLoggedOut(m *member, over *conn, v pdu.LogoutResponseView) error {
	m.logout, m.wait = nil, 0
	switch {
	case v.Response() == pdu.LogoutDone:
		// §11.14: without a reassignment the tasks end after both times.
		m.wait = (time.Duration(v.Time2Wait()) + time.Duration(v.Time2Retain())) * time.Second
	case v.Response() == pdu.LogoutNoCID:
		// A target that does not know the connection has no tasks of it either: with
		// Time2Retain 0 it may forget both at once.
	default:
		return s.err(KindTarget, "the target could not clean up connection %d: %v", m.cid, v.Response())
	}
	now := s.env.Now()
	if m.logout = over.sendPing(now); m.logout == nil {
		return s.err(KindClosed, "no room for a ping")
	}
	m.state, m.deadline = memberProving, now+int64(s.cfg.LogoutTimeout)
	s.rearm()
	return nil
}

// provenBy gives the lost connection whose Logout the ping t is to prove, or nil.
func (s *Session) provenBy(t *task) *member {
	for i := range s.members {
		if m := &s.members[i]; m.state == memberProving && m.logout == t {
			return m
		}
	}
	return nil
}

// proved goes on with the clean-up of a lost connection.
func (s *Session) proved(m *member) {
	m.logout = nil
	m.state, m.deadline = memberSettling, s.env.Now()+int64(m.wait)
	if m.wait == 0 {
		s.cleanUp(m)
	}
	s.rearm()
}

// cleanUp ends the tasks of a lost connection: no copy of them can be executed
// any more. A CmdSN that the target still waits for belongs to a command it
// never received; that one is sent again as it was (a retry, §7.2.1).
func (s *Session) cleanUp(m *member) {
	gone := m.conn
	m.conn = nil
	settled := *m.lostFor
	settled.Sent, settled.Settled = true, true
	s.leave(m, m.lostFor)
	if s.params.DefaultTime2Wait > 0 {
		m.retryAt = max(m.retryAt, s.env.Now()+int64(s.params.DefaultTime2Wait)*int64(time.Second))
	}
	for t := s.tasks.first(); t != nil; {
		next := s.tasks.after(t)
		switch {
		case t.conn != gone:
		case t.kind == taskSCSI && !t.waiting && !serial.Less(t.cmdSN, s.expCmdSN):
			over := t.over // of a command that was taken back and never arrived
			t.over = nil
			s.sendAgain(t)
			if over != nil {
				over()
				next = s.tasks.first()
				if s.state != StateLoggedIn {
					return
				}
			}
		default:
			s.end(t, &settled)
			next = s.tasks.first() // whoever was told may have done anything
			if s.state != StateLoggedIn {
				return
			}
		}
		t = next
	}
	s.obs.SessionChanged(s)
}

// sendAgain sends a command under its old number over a live connection. One
// that was detached has no data any more: a NOP-Out takes its number.
func (s *Session) sendAgain(t *task) {
	c := s.pick()
	t.conn, t.next, t.inNext, t.dataSN, t.r2tSN = c, 0, 0, 0, 0
	t.asked, t.got = nil, nil
	t.halted, t.denied = nil, false // the function that halted it went down with its connection
	if t.cmd != nil {
		c.sendCommand(t)
		return
	}
	t.kind, t.due = taskNOP, 0
	s.tasks.scsi--
	t.pos = c.out.queued
	c.sendNOP(pdu.NOPOut{ITT: t.itt, TTT: pdu.ReservedTag, CmdSN: t.cmdSN})
}
