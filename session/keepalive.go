package session

import (
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// Keep-alive. Any byte received proves life; so does the peer's taking bytes
// from a socket that was full. With something outstanding and nothing heard for
// half of SuspectAfter a ping goes out; nothing heard for all of it makes the
// session silent; nothing heard for NoopTimeout since the ping ends the
// connection. An idle connection is pinged every NoopInterval. Pings are
// immediate NOP-Outs: gotgt hangs on others, and the command window may be closed.

// waitingSince gives the time since when an answer is due, 0 if none is.
func (s *Session) waitingSince() int64 {
	t := s.tasks.first()
	if t == nil {
		return 0
	}
	return max(t.at, s.lastRecv, s.lastTaken)
}

// nextKeepAlive is the time keepAlive wants to be called. While commands come
// and go it stays ahead without being moved for each of them.
func (s *Session) nextKeepAlive() int64 {
	since := s.waitingSince()
	switch {
	case s.conn.logoutSent:
		return s.logoutAt // nothing new may follow a logout, pings neither
	case since == 0 && s.cfg.NoopInterval < 0:
		return 0
	case since == 0:
		return s.lastRecv + int64(s.cfg.NoopInterval)
	case s.ping == nil:
		return since + int64(s.cfg.SuspectAfter)/2
	case !s.silent:
		return min(since+int64(s.cfg.SuspectAfter), s.pingDeadline(since))
	}
	return s.pingDeadline(since)
}

func (s *Session) pingDeadline(since int64) int64 {
	return max(s.ping.at, since) + int64(s.cfg.NoopTimeout)
}

// touch makes sure, at the start of a command, that the silence of its answer
// will be noticed in time.
func (s *Session) touch(now int64) {
	if due := now + int64(s.cfg.SuspectAfter)/2; s.timerAt == 0 || s.timerAt > due {
		s.timerAt = due
		s.env.SetTimer(due)
	}
}

// keepAlive looks for silence. Called at the times nextKeepAlive asked for.
func (s *Session) keepAlive(now int64) {
	if s.logoutAt != 0 && now >= s.logoutAt {
		msg := "the target asked for a logout and commands were still in flight when its time was up"
		if s.conn.logoutSent {
			msg = "the target asked for a logout and did not answer it in time"
		}
		s.Drop(s.err(KindTarget, "%s", msg))
		return
	}
	if s.conn.logoutSent {
		return
	}
	since := s.waitingSince()
	quiet := time.Duration(now - since)
	switch {
	case since == 0:
		if s.cfg.NoopInterval >= 0 && now-s.lastRecv >= int64(s.cfg.NoopInterval) {
			s.sendPing(now)
		}
	case s.ping == nil:
		if quiet >= s.cfg.SuspectAfter/2 {
			s.sendPing(now)
		}
	case now >= s.pingDeadline(since):
		s.Drop(s.err(KindTimeout, "nothing received for %v, and no answer to a ping", quiet.Round(time.Millisecond)))
	case !s.silent && quiet >= s.cfg.SuspectAfter:
		s.silent = true
		s.obs.SessionSilent(s)
	}
}

// alive ends a silence.
func (s *Session) alive() {
	s.silent = false
	s.obs.SessionAlive(s)
}

// sendPing sends a NOP-Out that asks for an answer (RFC 7143 §11.18).
func (s *Session) sendPing(now int64) {
	t := s.tasks.add(taskNOP, now)
	if t == nil {
		return
	}
	c := s.conn
	s.ping = t
	start := c.header()
	t.pos = c.out.queued
	p := pdu.NOPOut{
		Immediate: true, ITT: t.itt, TTT: pdu.ReservedTag,
		CmdSN: s.cmdSN, ExpStatSN: c.expStatSN,
	}
	c.out.chunk.buf = p.AppendTo(c.out.chunk.buf)
	c.seal(start)
	c.flush()
}

// maxReplies bounds the answers to a target's pings that wait to be sent, for
// targets that ask without ever reading.
const maxReplies = 4096

// nopIn handles an answer to our ping, or a ping of the target (§11.19).
func (c *conn) nopIn(v pdu.NOPInView) error {
	s := c.s
	if v.ITT() != pdu.ReservedTag {
		t := s.tasks.find(v.ITT())
		if t == nil || t.kind != taskNOP {
			return nil // an answer nobody waits for any more
		}
		s.tasks.remove(t)
		s.ping = nil
		return nil
	}
	if v.TTT() == pdu.ReservedTag || c.logoutSent {
		return nil // the target only told its numbers, or we are leaving
	}
	if c.replies++; c.replies > maxReplies {
		return c.protocolErr("the target keeps sending pings but reads no answers")
	}
	start := c.header()
	p := pdu.NOPOut{
		Immediate: true, ITT: pdu.ReservedTag, TTT: v.TTT(), LUN: v.LUN(),
		CmdSN: s.cmdSN, ExpStatSN: c.expStatSN,
	}
	c.out.chunk.buf = p.AppendTo(c.out.chunk.buf)
	c.seal(start)
	c.flush()
	return nil
}
