package session

import (
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// Keep-alive. Any byte received proves life; so does the peer's taking bytes
// from a socket that was full. With something outstanding and nothing heard for
// half of SuspectAfter a ping goes out; nothing heard for all of it makes the
// connection silent; nothing heard for NoopTimeout since the ping ends the
// connection. An idle connection is pinged every NoopInterval. Pings are
// immediate NOP-Outs: gotgt hangs on others, and the command window may be closed.
// In a discovery session a target has to reject them (RFC 7143 §4.3), and LIO
// answers nothing more then: there they are left out, and the limit of the text
// request bounds the wait.

// waitingSince gives the time since when an answer is due on c, 0 if none is.
func (c *conn) waitingSince() int64 {
	tt := &c.s.tasks
	t := tt.first()
	for t != nil && t.conn != c {
		t = tt.after(t)
	}
	if t == nil {
		return 0
	}
	return max(t.at, c.lastRecv, c.lastTaken)
}

// nextKeepAlive is the time keepAlive wants to be called for c, 0 for never.
// While commands come and go it stays ahead without being moved for each of them.
func (c *conn) nextKeepAlive() int64 {
	cfg := &c.s.cfg
	since := c.waitingSince()
	switch {
	case c.dead, c.s.logoutSent, cfg.Discovery: // nothing new may follow a logout, pings neither
		return 0
	case since == 0 && cfg.NoopInterval < 0:
		return 0
	case since == 0:
		return c.lastRecv + int64(cfg.NoopInterval)
	case c.ping == nil:
		return since + int64(cfg.SuspectAfter)/2
	case !c.silent:
		return min(since+int64(cfg.SuspectAfter), c.pingDeadline(since))
	}
	return c.pingDeadline(since)
}

func (c *conn) pingDeadline(since int64) int64 {
	return max(c.ping.at, since) + int64(c.s.cfg.NoopTimeout)
}

// touch makes sure, at the start of a command, that the silence of its answer
// will be noticed in time.
func (s *Session) touch(now int64) {
	if due := now + int64(s.cfg.SuspectAfter)/2; s.timerAt == 0 || s.timerAt > due {
		s.timerAt = due
		s.env.SetTimer(due)
	}
}

// logoutOverdue goes on with a logout that the target asked for when commands
// are still in flight: it is sent all the same, and ends them. If it is not
// answered either, the session is given up.
func (s *Session) logoutOverdue(now int64) {
	if !s.logoutSent && !s.conn.dead {
		s.logoutAt = now + int64(s.cfg.LogoutTimeout)
		s.sendLogout()
		return
	}
	s.logoutAt = 0
	s.Drop(s.err(KindTarget, "the target asked for a logout and did not answer it in time"))
}

// keepAlive looks for silence on c. Called at the times nextKeepAlive asked for.
func (c *conn) keepAlive(now int64) {
	s := c.s
	if c.dead || s.logoutSent || s.cfg.Discovery {
		return
	}
	since := c.waitingSince()
	quiet := time.Duration(now - since)
	switch {
	case since == 0:
		if s.cfg.NoopInterval >= 0 && now-c.lastRecv >= int64(s.cfg.NoopInterval) {
			c.ping = c.sendPing(now)
		}
	case c.ping == nil:
		if quiet >= s.cfg.SuspectAfter/2 {
			c.ping = c.sendPing(now)
		}
	case now >= c.pingDeadline(since):
		c.abort(s.err(KindTimeout, "nothing received for %v, and no answer to a ping", quiet.Round(time.Millisecond)))
	case !c.silent && quiet >= s.cfg.SuspectAfter:
		c.silent = true
		s.tellSilence()
	}
}

// alive ends a silence.
func (c *conn) alive() {
	c.silent = false
	c.s.tellSilence()
}

// tellSilence tells the observer when the session as a whole falls silent or
// comes back: with several connections, as long as one answers it is not silent.
func (s *Session) tellSilence() {
	silent := s.conn != nil && s.conn.silent
	for i := range s.members {
		if m := &s.members[i]; m.up() && !m.conn.silent {
			silent = false
		}
	}
	if silent == s.silent || s.state != StateLoggedIn {
		return
	}
	if s.silent = silent; silent {
		s.obs.SessionSilent(s)
	} else {
		s.obs.SessionAlive(s)
	}
}

// sendPing sends a NOP-Out that asks for an answer (RFC 7143 §11.18); nil: no
// room for it.
func (c *conn) sendPing(now int64) *task {
	s := c.s
	t := s.tasks.add(taskNOP, c, now)
	if t == nil {
		return nil
	}
	t.pos = c.out.queued
	c.sendNOP(pdu.NOPOut{Immediate: true, ITT: t.itt, TTT: pdu.ReservedTag, CmdSN: s.cmdSN})
	return t
}

// sendNOP queues a NOP-Out, with what came so far acknowledged in it, and has it sent.
func (c *conn) sendNOP(p pdu.NOPOut) {
	start := c.header()
	p.ExpStatSN = c.expStatSN
	c.out.chunk.buf = p.AppendTo(c.out.chunk.buf)
	c.seal(start)
	c.flush()
}

// maxReplies bounds the answers to a target's pings that wait to be sent, for
// targets that ask without ever reading.
const maxReplies = 4096

// maxAcks is the same for what a target asks for with each piece of data.
const maxAcks = 65536

// reply counts an answer that is about to be queued, and reports whether fewer than
// limit of them wait. Under load the queue may never be empty: what counts is that
// it moves.
func (c *conn) reply(limit int) bool {
	if c.out.sent > c.replyMark {
		c.replies, c.replyMark = 0, c.out.queued
	}
	c.replies++
	return c.replies <= limit
}

// nopIn handles an answer to our ping, or a ping of the target (§11.19).
func (c *conn) nopIn(v pdu.NOPInView) error {
	s := c.s
	if v.ITT() != pdu.ReservedTag {
		if t := c.task(v.ITT()); t != nil && t.kind == taskNOP {
			s.pinged(t)
		} // else an answer nobody waits for any more
		return nil
	}
	if v.TTT() == pdu.ReservedTag || s.logoutSent {
		return nil // the target only told its numbers, or we are leaving
	}
	if !c.reply(maxReplies) {
		return c.protocolErr("the target keeps sending pings but reads no answers")
	}
	c.sendNOP(pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: v.TTT(), LUN: v.LUN(), CmdSN: s.cmdSN})
	return nil
}

// pinged takes any answer to the ping t.
func (s *Session) pinged(t *task) {
	if t.conn.ping == t {
		t.conn.ping = nil
	}
	m := s.provenBy(t)
	s.tasks.remove(t)
	if m != nil {
		s.proved(m)
	}
}
