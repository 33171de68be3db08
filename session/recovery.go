package session

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
)

// dial begins a login attempt.
func (s *Session) dial() {
	s.redirects, s.redirect, s.sentTo, s.via = 0, "", "", ""
	s.dialTo(s.cfg.Portal)
}

func (s *Session) dialTo(addr string) {
	now := s.env.Now()
	s.conn = newConn(s, 0)
	s.retryAt = 0
	s.cmdSN, s.logoutSent = 1, false
	s.deadline = now + int64(s.cfg.LoginTimeout)
	s.env.Dial(addr, s.cfg.LoginTimeout, s.conn)
	s.rearm()
}

func (s *Session) dialNow() {
	s.to(evRetry)
	s.dial()
}

// Connected is the answer to Env.Dial: st serves the handler given there.
func (s *Session) Connected(h loop.Handler, st loop.Stream) {
	c := s.awaited(h)
	if c == nil {
		st.Abort(nil) // Close came first
		return
	}
	c.lastRecv = s.env.Now()
	s.beginLogin(c, st)
}

// awaited gives the connection that h is the handler of if it waits for its dial.
func (s *Session) awaited(h loop.Handler) *conn {
	c, ok := h.(*conn)
	if !ok || c.stream != nil || c.dead {
		return nil
	}
	if s.state == StateLogin && s.conn == c {
		return c
	}
	if m := s.memberOf(c); s.state == StateLoggedIn && m != nil && m.state == memberJoining {
		return c
	}
	return nil
}

// DialFailed is the other answer to Env.Dial.
func (s *Session) DialFailed(h loop.Handler, err error) {
	c := s.awaited(h)
	if c == nil {
		return
	}
	c.dead, c.closed = true, true
	s.connClosed(c, s.dialError(err))
}

// loggedIn enters the full-feature phase.
func (s *Session) loggedIn(c *conn) {
	if m := s.memberOf(c); m != nil {
		s.joined(m)
		return
	}
	if s.state != StateLogin {
		return
	}
	r := c.machine.Result()
	up := Up{First: s.logins == 0, TPGT: r.TargetPortalGroupTag, TSIH: c.machine.TSIH(), Via: s.via}
	// What reinstatement needs is checked in full, since acknowledged data hangs on it.
	// Behind a redirect, this time or the last, may be another machine.
	up.Conclusive = up.TSIH != 0 && c.machine.SecurityStage() && up.TPGT >= 0 && s.redirects == 0
	up.Reinstated = up.Conclusive && !up.First && up.TPGT == s.tpgt && !s.strayed
	if up.First || up.TPGT >= 0 {
		s.tpgt = up.TPGT
	}
	s.strayed = s.redirects > 0
	s.fullTaken = s.fullTaken || !s.minimal
	s.cuts, s.rebuffs = 0, 0
	s.tsih = up.TSIH
	s.noteAuth(c, r)
	if c.machine.OfferedTaskReporting() {
		s.reporting = reportingTaken
	}
	c.machine, c.chap = nil, nil
	s.to(evLoggedIn)
	s.logins++
	s.loggedAt = s.env.Now()
	s.backoff, s.waitFloor, s.deadline, s.lastErr = 0, 0, 0, nil
	s.silent, s.logoutAt, s.taskDue, s.buried = false, 0, 0, s.buried[:0]
	s.nextBuried = 0
	s.assemble(c)
	s.rearm()
	s.log.Debug("logged in", "tsih", up.TSIH, "tpgt", up.TPGT, "reinstated", up.Reinstated)
	s.obs.SessionUp(s, up)
}

// connClosed ends a connection: nothing touches its buffers any more. At
// ErrorRecoveryLevel 0 the session ends with it (RFC 7143 §7.1.4).
func (s *Session) connClosed(c *conn, reason *Error) {
	switch m := s.memberOf(c); {
	case m != nil:
		if s.memberClosed(m, reason) {
			return
		}
	case s.conn != c:
		return
	}
	was := s.state
	reason = cmp.Or(s.downFor, reason)
	s.conn, s.members, s.silent, s.downFor = nil, nil, false, nil
	if was == StateClosing {
		s.failTasks(s.err(KindClosed, "the session was closed"))
		s.closed()
		return
	}
	if was == StateLogin && (s.followRedirect() || s.tryAgain()) {
		return
	}
	if was == StateLogin && s.unreported(c, reason) {
		s.log.Debug("login broken off: once more without TaskReporting", "err", reason)
		s.dial()
		return
	}
	if was == StateLogin && reason.Kind == KindTransport && c.stream != nil && s.via == "" {
		s.cutShort(c, reason)
	}
	s.to(evLost)
	if was == StateLoggedIn {
		if s.via == "" {
			s.losses++
		}
		s.noteBrief(c, reason)
		s.minimal = s.minimal && !s.fullTaken
		s.waitFloor = max(s.waitFloor, time.Duration(s.params.DefaultTime2Wait)*time.Second)
	}
	s.lastErr = reason
	s.planRetry(reason)
	s.log.Debug("session down", "was", was, "err", reason)
	s.failTasks(reason)
	if s.state == StateClosing { // an owner closed the session meanwhile
		s.closed()
		return
	}
	s.rearm()
	s.obs.SessionDown(s, reason, s.retryAt)
}

const (
	briefSession  = 10 * time.Second // a session that is ended sooner is odd ...
	briefSessions = 3                // ... and so many in a row mean something
)

// noteBrief looks for what happens if two initiators log in with one name: each
// login of the one reinstates, and so ends, the session of the other (RFC 7143
// §6.3.5), in turn and for ever.
func (s *Session) noteBrief(c *conn, reason *Error) {
	if !c.hungUp || time.Duration(s.env.Now()-s.loggedAt) >= briefSession {
		s.brief = 0
		return
	}
	if s.brief++; s.brief >= briefSessions && reason.Hint == "" {
		reason.Hint = "so ended the last sessions, each soon after its login: see whether another host or process uses the initiator name " +
			s.cfg.InitiatorName + ", and to the network"
	}
}

// cutShort notes that the peer hung up in the middle of a login, in either stage,
// without saying why. It may be a key that it cannot bear: the next login has the
// smallest set of keys, the one after it all of them again, and so on. A target
// that has taken all of them before was more likely cut off by chance, and gets
// two more tries with them first.
func (s *Session) cutShort(c *conn, reason *Error) {
	s.cuts++
	s.noteRebuff(c, reason)
	every := 2
	if s.fullTaken {
		every = 4
	}
	s.minimal = s.cuts%every == every-1
}

// followRedirect goes on with the login at the address the target named.
func (s *Session) followRedirect() bool {
	to := s.redirect
	s.redirect = ""
	if to == "" || s.via != "" { // what a detour is to prove holds at its portal only
		return false
	}
	level := slog.LevelInfo
	if told := &s.sendings[s.redirects-1]; *told == to { // it does so each time
		level = slog.LevelDebug
	} else {
		*told = to
	}
	s.log.Log(context.Background(), level, "login redirected", "to", to)
	s.sentTo = to
	s.dialTo(to)
	return true
}

// planRetry sets the time of the next dial, not before Time2Wait has passed
// (RFC 7143 §7.5).
func (s *Session) planRetry(reason *Error) {
	pause := max(s.backoff, s.cfg.ReconnectMin)
	if s.via == "" { // else it says nothing about the session's own portal
		pause = s.pause(&s.backoff, reason)
	}
	now := s.env.Now()
	s.notBefore = now + int64(s.waitFloor)
	s.retryAt = max(now+int64(pause), s.notBefore)
	s.waitFloor = 0
}

// pause gives the time to wait before the next dial: doubling from ReconnectMin
// to ReconnectMax with jitter, and far off after a refusal that will not change soon.
func (s *Session) pause(backoff *time.Duration, reason *Error) time.Duration {
	*backoff = min(max(2**backoff, s.cfg.ReconnectMin), s.cfg.ReconnectMax)
	pause := *backoff
	if reason.Permanent() {
		pause = 10 * s.cfg.ReconnectMax
	}
	return pause/2 + time.Duration(s.env.Jitter()*float64(pause)/2)
}

// failTasks completes everything that was in flight.
func (s *Session) failTasks(reason *Error) {
	s.failing = true
	defer func() { s.failing = false }()
	sent, unsent := *reason, *reason
	sent.Sent, unsent.Sent = true, false
	for t := s.tasks.first(); t != nil; t = s.tasks.first() {
		if t.conn.out.sent > t.pos {
			s.end(t, &sent)
		} else {
			s.end(t, &unsent)
		}
	}
	if x := s.text; x != nil {
		s.text = nil
		x.done(nil, &sent)
	}
}

// end ends a task without an answer that counts.
func (s *Session) end(t *task, why *Error) {
	cmd, waiting, over := t.cmd, t.waiting, t.over
	if t.kind == taskSCSI {
		t.unloaded(0, false)
	}
	m := t.tmf
	s.tasks.remove(t)
	if m != nil {
		s.tmfOver(m, TMFResult{Function: m.function, Err: why})
	}
	if cmd == nil {
		if over != nil && why.Settled {
			over()
		}
		return
	}
	cmd.slot = 0
	// An answer that waited for the send queue counts, but a good status for
	// data that was still in there is none.
	if !waiting || cmd.Err == nil && cmd.Status == scsi.Good {
		cmd.Err = why
		if waiting && !why.Sent {
			sent := *why
			sent.Sent = true
			cmd.Err = &sent
		}
	}
	cmd.Owner.CommandDone(cmd)
}

// rearm sets the timer for whatever is due next.
func (s *Session) rearm() {
	at := s.nextDue()
	if at != s.timerAt {
		s.timerAt = at
		s.env.SetTimer(at)
	}
}

func (s *Session) nextDue() int64 {
	switch s.state {
	case StateLogin, StateClosing:
		return s.deadline
	case StateRecovering:
		return s.retryAt
	case StateLoggedIn:
		if len(s.members) > 0 {
			return earlier(earlier(s.nextMember(), s.logoutAt), s.taskDue)
		}
		return earlier(earlier(s.conn.nextKeepAlive(), s.logoutAt), s.taskDue)
	}
	return 0
}

// Tick tells that the time asked for by SetTimer has come.
func (s *Session) Tick() {
	now := s.env.Now()
	s.timerAt = 0
	switch s.state {
	case StateLogin:
		if now >= s.deadline {
			s.loginTimedOut()
		}
	case StateClosing:
		if now >= s.deadline && s.conn != nil {
			s.abortMembers(s.err(KindTimeout, "no answer to the logout"))
			s.conn.abort(s.err(KindTimeout, "no answer to the logout"))
			s.deadline = now + int64(s.cfg.LogoutTimeout)
		}
	case StateRecovering:
		if now >= s.retryAt {
			s.dialNow()
		}
	case StateLoggedIn:
		s.tickLoggedIn(now)
	}
	s.rearm()
}

func (s *Session) tickLoggedIn(now int64) {
	if s.tickTasks(now); s.state != StateLoggedIn {
		return
	}
	if s.logoutAt != 0 && now >= s.logoutAt {
		s.logoutOverdue(now)
		return
	}
	if len(s.members) == 0 {
		s.conn.keepAlive(now)
		return
	}
	for i := range s.members {
		if s.members[i].up() {
			s.members[i].conn.keepAlive(now)
		}
	}
	s.tickMembers(now)
}

func (s *Session) loginTimedOut() {
	e := s.err(KindTimeout, "no complete login within %v", s.cfg.LoginTimeout)
	e.Hint = "check that an iSCSI target answers at this portal"
	if s.conn.stream == nil {
		s.env.CancelDial(s.conn)
		s.conn.dead, s.conn.closed = true, true
		s.connClosed(s.conn, e)
		return
	}
	s.conn.abort(e)
	s.deadline = s.env.Now() + int64(s.cfg.LoginTimeout)
}
