package session

import (
	"cmp"
	"time"
)

// A detour is one login through another portal of the same portal group. With
// the session's own ISID and TSIH 0 it ends, at the target, the session that was
// lost, although the session's own portal is not to be reached (RFC 7143 §6.3.5:
// what counts is the portal group, not the portal). It is the session itself that
// takes it, so that it can never stand against a login through the own portal.

// detourTimeout bounds the login of a detour, besides LoginTimeout: the portal is
// one that answers others meanwhile, and the own one is not dialed so long.
const detourTimeout = 3 * time.Second

// Detour logs in through another portal of portal group tpgt, once, instead of
// waiting for the session's own portal or dialing it; a login under way is given
// up. The observer hears of it as of every other login, with Up.Via; a login
// answered with another group tag is refused, and a redirect is not followed. The
// session must then be left with Leave or Close. It reports whether it began:
// not while logged in or closing, nor before Time2Wait has passed, nor if the last
// login was redirected, because where the old session lives is not known then.
func (s *Session) Detour(portal string, tpgt int) bool {
	if s.failing || s.strayed || s.cfg.Discovery || portal == "" || tpgt < 0 {
		return false
	}
	switch s.state {
	case StateRecovering:
		if s.env.Now() < s.notBefore { // Time2Wait (§7.5)
			return false
		}
		s.to(evRetry)
	case StateLogin:
		s.giveWay()
	default:
		return false
	}
	s.redirects, s.redirect, s.sentTo, s.again = 0, "", "", false
	s.via, s.viaTPGT = portal, tpgt
	s.log.Debug("login through another portal of the group", "via", portal, "tpgt", tpgt)
	s.dialTo(portal)
	s.deadline = min(s.deadline, s.env.Now()+int64(detourTimeout))
	s.rearm()
	return true
}

// portal is the one that is dialed or was logged in to.
func (s *Session) portal() string { return cmp.Or(s.via, s.cfg.Portal) }

// giveWay ends a login under way without telling the observer.
func (s *Session) giveWay() {
	c := s.conn
	s.conn = nil // what becomes of it is nobody's business any more
	if c.stream == nil {
		s.env.CancelDial(c)
		c.dead, c.closed = true, true
		return
	}
	c.abort(s.err(KindClosed, "gave way to a login through another portal"))
}

// Leave ends a detour: it logs out once no command is in flight, in LogoutTimeout
// at the latest, and goes back to dialing the session's own portal.
func (s *Session) Leave() {
	if s.state != StateLoggedIn || s.via == "" || s.logoutAt != 0 {
		return
	}
	s.logoutAt = s.env.Now() + int64(s.cfg.LogoutTimeout)
	s.rearm()
	s.drained()
}
