package session

import (
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// sendLogout asks to close the session (RFC 7143 §11.14, reason 0). From now on no
// request is sent on any of its connections, and none joins it.
func (s *Session) sendLogout() {
	c := s.conn
	t := s.tasks.add(taskLogout, c, s.env.Now())
	if t == nil {
		c.abort(s.err(KindClosed, "no room for a logout"))
		return
	}
	s.logoutSent = true
	s.abortJoins(s.err(KindClosed, "the session is logged out"))
	c.sendLogout(t, pdu.LogoutCloseSession, c.cid)
}

// sendLogout queues a Logout. It is immediate: the window may be closed, or the
// target may wait for a command that will never come.
func (c *conn) sendLogout(t *task, reason pdu.LogoutReason, cid uint16) {
	start := c.header()
	t.pos = c.out.queued
	p := pdu.Logout{
		Immediate: true, Reason: reason, ITT: t.itt, CID: cid,
		CmdSN: c.s.cmdSN, ExpStatSN: c.expStatSN,
	}
	c.out.chunk.buf = p.AppendTo(c.out.chunk.buf)
	c.seal(start)
	c.flush()
}

// logoutResponse ends the connection (§11.15): nothing may follow a logout.
func (c *conn) logoutResponse(v pdu.LogoutResponseView) error {
	s := c.s
	c.window(v.ExpCmdSN(), v.MaxCmdSN())
	t := c.task(v.ITT())
	if t == nil || t.kind != taskLogout {
		return c.protocolErr("logout response for task %08x, which is not in flight", v.ITT())
	}
	if !v.Response().Known() {
		return c.protocolErr("logout response with the reserved code %02x", uint8(v.Response()))
	}
	s.tasks.remove(t)
	for i := range s.members {
		if m := &s.members[i]; m.state == memberCleaning && m.logout == t {
			return s.memberLoggedOut(m, c, v)
		}
	}
	kind, msg := KindClosed, "logged out"
	if s.via != "" && s.state == StateLoggedIn {
		msg = "the detour is over"
	} else if s.state == StateLoggedIn {
		kind, msg = KindTarget, "logged out, as the target asked for"
		s.waitFloor = time.Duration(v.Time2Wait()) * time.Second
	}
	c.dead, c.reason = true, s.err(kind, "%s", msg)
	c.stream.Close(c.reason)
	return nil
}
