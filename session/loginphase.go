package session

import (
	"errors"
	"fmt"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/login"
)

// maxRedirects bounds how often one login attempt is sent elsewhere.
const maxRedirects = 4

// beginLogin sends the first Login Request over a fresh connection.
func (s *Session) beginLogin(c *conn, st loop.Stream) {
	c.stream = st
	var err error
	if c.chap, err = s.newCHAP(); err != nil { // New has checked the configuration
		c.abort(&Error{Kind: KindLogin, Portal: s.portal(), Login: pdu.LoginAuthFailure, Msg: err.Error()})
		return
	}
	c.machine = login.New(login.Config{
		CHAP:          c.chap,
		InitiatorName: s.cfg.InitiatorName,
		TargetName:    s.cfg.TargetName,
		Discovery:     s.cfg.Discovery,
		ISID:          s.cfg.ISID,
		TPGT:          s.expectedTPGT(c),
		Minimal:       s.minimal,
		CID:           c.cid,
		TaskReporting: !s.cfg.NoTaskReporting && s.reporting != reportingWithheld,
		TSIH:          s.joinTSIH(c),
		Offer: login.Offer{
			HeaderDigest: s.cfg.HeaderDigest, DataDigest: s.cfg.DataDigest,
			MaxRecvDataSegmentLength: s.cfg.MaxRecvDataSegmentLength,
			MaxBurstLength:           s.cfg.MaxBurstLength,
			FirstBurstLength:         s.cfg.FirstBurstLength,
			MaxOutstandingR2T:        s.offeredR2Ts(),
			InitialR2T:               s.cfg.InitialR2T,
			ImmediateData:            !s.cfg.NoImmediateData,
			AnyPDUOrder:              s.cfg.AnyPDUOrder,
			AnySequenceOrder:         s.cfg.AnySequenceOrder,
			MaxConnections:           uint16(s.cfg.Connections),
			ErrorRecoveryLevel:       s.offeredERL(),
		},
	})
	c.sendLogin(c.machine.First())
}

// joinTSIH is the session that the login of c joins, 0 for a new one.
func (s *Session) joinTSIH(c *conn) uint16 {
	if s.memberOf(c) == nil {
		return 0
	}
	return s.tsih
}

// offeredR2Ts: with ordered data sequences, levels above 0 allow one (§13.17).
func (s *Session) offeredR2Ts() uint16 {
	if s.offeredERL() > 0 && !s.cfg.AnySequenceOrder {
		return 1
	}
	return s.cfg.MaxOutstandingR2T
}

// expectedTPGT: a further connection must lead to the group of the first.
func (s *Session) expectedTPGT(c *conn) int {
	if s.memberOf(c) != nil && s.tpgt >= 0 {
		return s.tpgt
	}
	if s.via != "" {
		return s.viaTPGT
	}
	return s.cfg.TPGT
}

// offeredERL: a level above 0 is of use only for the clean-up of a lost connection.
func (s *Session) offeredERL() uint8 {
	if s.cfg.Discovery { // §13.20
		return 0
	}
	return s.cfg.ErrorRecoveryLevel
}

// sendLogin stamps and sends a Login Request. CmdSN does not advance during
// login: login requests are immediate (RFC 7143 §11.12.8).
func (c *conn) sendLogin(r login.Request) {
	h := r.Header
	h.ITT, h.CmdSN, h.ExpStatSN = c.loginITT, c.s.cmdSN, c.expStatSN
	start := c.header()
	c.out.chunk.buf = h.AppendTo(c.out.chunk.buf)
	c.seal(start)
	c.text(r.Text)
	c.flush()
}

// loginResponse steps the negotiation.
func (c *conn) loginResponse(v pdu.LoginResponseView, text []byte) error {
	s := c.s
	if v.ITT() != c.loginITT {
		return c.protocolErr("login response with task tag %08x instead of %08x", v.ITT(), c.loginITT)
	}
	c.heard = true
	c.expStatSN = v.StatSN() + 1
	next, err := c.machine.Step(v.Decode(), text)
	if err != nil {
		return c.loginFailed(err)
	}
	if !c.machine.Done() {
		c.sendLogin(next)
		return nil
	}
	if err := c.checkAuth(); err != nil {
		return err
	}
	c.enterFull(v)
	s.loggedIn(c)
	return nil
}

// enterFull takes over what the login settled.
func (c *conn) enterFull(v pdu.LoginResponseView) {
	s := c.s
	r := c.machine.Result()
	c.phase = phaseFull
	c.digests = pdu.Digests{Header: r.HeaderDigest, Data: r.DataDigest}
	c.maxSend = r.MaxSendDataSegmentLength &^ 3 // whole words but for the last PDU of a sequence (§11.7.7)
	if s.memberOf(c) != nil {                   // the session's parameters stand
		c.window(v.ExpCmdSN(), v.MaxCmdSN())
		return
	}
	s.params = Params{
		HeaderDigest: r.HeaderDigest, DataDigest: r.DataDigest,
		MaxRecvDataSegmentLength: r.MaxRecvDataSegmentLength,
		MaxSendDataSegmentLength: r.MaxSendDataSegmentLength,
		MaxBurstLength:           r.MaxBurstLength,
		FirstBurstLength:         r.FirstBurstLength,
		MaxOutstandingR2T:        r.MaxOutstandingR2T,
		InitialR2T:               r.InitialR2T,
		ImmediateData:            r.ImmediateData,
		DataPDUInOrder:           r.DataPDUInOrder,
		DataSequenceInOrder:      r.DataSeqInOrder,
		DefaultTime2Wait:         r.DefaultTime2Wait,
		DefaultTime2Retain:       r.DefaultTime2Retain,
		ErrorRecoveryLevel:       r.ErrorRecoveryLevel,
		MaxConnections:           r.MaxConnections,
		TargetPortalGroupTag:     r.TargetPortalGroupTag,
		TargetAlias:              r.TargetAlias,
		TaskReporting:            r.TaskReporting,
	}
	// A new session: the window starts afresh, whatever the last one had.
	s.expCmdSN, s.maxCmdSN = v.ExpCmdSN(), v.MaxCmdSN()
	if serial.Less(s.maxCmdSN, s.expCmdSN-1) {
		s.maxCmdSN = s.expCmdSN - 1
	}
}

// loginFailed turns the negotiation's error into the session's, and follows
// redirects of the session's first login (RFC 7143 §11.13.5: the initiator MUST
// follow TargetAddress).
func (c *conn) loginFailed(err error) *Error {
	s := c.s
	e := s.err(KindProtocol, "%v", err)
	var le *login.Error
	if !errors.As(err, &le) {
		return e
	}
	e.Msg, e.Hint, e.Login = le.Msg, le.Hint, le.Status
	if le.Status != 0 {
		e.Kind = KindLogin
		c.refusedCHAP(le)
	}
	if le.Redirect == "" {
		return e
	}
	if s.memberOf(c) != nil { // it is to join the session where that is, and nowhere else
		e.Msg = fmt.Sprintf("a further connection of the session is sent on to %s", le.Redirect)
		e.Hint = "the portals of one session must not redirect its connections; use one connection per portal"
		return e
	}
	if s.redirects >= maxRedirects {
		e.Msg = fmt.Sprintf("sent on to other portals %d times, last to %s", s.redirects, le.Redirect)
		e.Hint = "the target's portals redirect in a circle; check its configuration"
		e.SentTo = ""
		return e
	}
	s.redirects++
	s.redirect = le.Redirect
	return e
}
