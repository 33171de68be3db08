package session

import (
	"fmt"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
	"github.com/iscsimp/iscsimp/session/login"
)

// challenges is shared by all logins of the process, so that none of them answers
// a challenge that another one issued (RFC 7143 §9.2.1).
var challenges = chap.NewRegistry()

// checkCHAP validates what is configured, and gives it the registry of the process.
func checkCHAP(given *chap.Config) (*chap.Config, error) {
	if given == nil {
		return nil, nil
	}
	cfg := *given
	if cfg.Registry == nil {
		cfg.Registry = challenges
	}
	_, err := chap.New(cfg)
	return &cfg, err
}

// newCHAP makes this side's part of the authentication of one login, nil if none
// is configured.
func (s *Session) newCHAP() (*chap.Initiator, error) {
	if s.cfg.CHAP == nil {
		return nil, nil
	}
	cfg := *s.cfg.CHAP
	if s.algorithms != nil {
		cfg.Algorithms = s.algorithms
	}
	return chap.New(cfg)
}

// refusedCHAP notes, when a login was refused, whether another one with other
// algorithms makes sense at once; see chap.Fallback. When that was tried already,
// the next login begins with all of them again. Further connections use what the
// first one was let in with.
func (c *conn) refusedCHAP(e *login.Error) {
	if c.chap == nil || c.s.memberOf(c) != nil {
		return
	}
	s := c.s
	s.algorithms = nil
	if e.Err != nil { // this side does not accept the target
		return
	}
	s.algorithms, s.again = chap.Fallback(c.chap.Offered(), c.chap.Chosen(), e.Status)
}

// tryAgain begins the second login that refusedCHAP wants.
func (s *Session) tryAgain() bool {
	if !s.again {
		return false
	}
	s.again = false
	s.log.Info("the target refuses the CHAP response: once more with other algorithms", "algorithms", fmt.Sprint(s.algorithms))
	s.dial()
	return true
}

// checkAuth refuses a further connection that is not authenticated as the session
// is: the two must not be mixed, and there must be one target at their other ends
// (RFC 7143 §9.2).
func (c *conn) checkAuth() error {
	s := c.s
	if s.memberOf(c) == nil {
		return nil
	}
	var e *Error
	switch proven := c.machine.Result().AuthMethod == "CHAP"; {
	case proven != s.proven:
		e = s.err(KindLogin, "the target asks for CHAP on some connections of a session only")
		e.Hint = "set it up on all portals of the target, or on none"
	case c.peer() != s.peer:
		e = s.err(KindLogin, "the target has proven itself as %q on one connection, and as %q on another of the same session", s.peer, c.peer())
		e.Hint = "give it one CHAP name on all portals, or find out who is behind this one"
	default:
		return nil
	}
	e.Login = pdu.LoginAuthFailure
	return e
}

// peer is the name under which the target has proven itself on c.
func (c *conn) peer() string {
	if c.chap == nil {
		return ""
	}
	return c.chap.Peer()
}

// noteAuth tells, once, of a target that did not want the authentication
// configured for it. Discovery is often open although the targets are not.
func (s *Session) noteAuth(c *conn, r login.Result) {
	s.proven, s.peer = r.AuthMethod == "CHAP", c.peer()
	if s.cfg.CHAP == nil || r.AuthMethod == "CHAP" || s.toldOpen {
		return
	}
	s.toldOpen = true
	if s.cfg.Discovery {
		s.log.Debug("the target asks for no authentication in discovery")
		return
	}
	s.log.Warn("the target asks for no authentication although CHAP is configured here; set it up on the target, or take it out here")
}

// noteRebuff looks at a login in which the peer hung up. LIO does not answer one
// without authentication when it demands CHAP; since a login is rebuffed for a
// key that the target cannot bear, too, only the second in a row tells that.
func (s *Session) noteRebuff(c *conn, reason *Error) {
	if !c.hungUp || c.heard || s.cfg.CHAP != nil || s.logins > 0 || !c.machine.InSecurityStage() {
		s.rebuffs = 0
		return
	}
	if s.rebuffs++; s.rebuffs < 2 {
		return
	}
	reason.AuthLikely = true
	reason.Msg = "the peer hangs up on logins without authentication"
	reason.Hint = "it probably demands CHAP: give a user and a secret; if not, " + hintNotThere
}
