package iscsitest

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/iscsimp/iscsimp/pdu"
)

// maxLoginText bounds the text of one request; §6.1 asks for 64 KiB where long
// authentication items may come.
const maxLoginText = 64 << 10

// loginState is the Login Phase of one connection (RFC 7143 §6.3), on its
// reading goroutine.
type loginState struct {
	c      *conn
	params Params
	first  *pdu.Login // header of the first request
	hdr    pdu.Login  // header of the current one
	stage  pdu.Stage

	initiator string
	target    string
	discovery bool
	node      *node // nil for unnamed discovery sessions
	auth      AuthExchange
	neg       *negotiation
	passedSec bool     // the security stage was passed
	join      *session // that the login adds a connection to; nil: a new one
	saidTPGT  bool

	text []byte // of the request, until a PDU with C=0
	out  []byte // of the answer, what did not fit into one PDU
	then struct {
		transit bool
		nsg     pdu.Stage
	}
}

// login runs the Login Phase and reports whether full feature phase was reached.
func (c *conn) login() bool {
	l := &loginState{c: c, params: c.t.Params()}
	l.neg = newNegotiation(l.params, c.t.cfg.Quirks, func(format string, args ...any) {
		var bhs [pdu.BHSLen]byte
		l.hdr.AppendTo(bhs[:0])
		c.violation(bhs[:], format, args...)
	})
	for {
		p, err := c.receive()
		if err != nil {
			c.survives(p, err) // for the log; nothing survives here
			return false
		}
		if e := l.event(p); c.t.rules.any() {
			if stop, ignore := l.inject(e); stop {
				return false
			} else if ignore {
				continue
			}
		}
		done, goOn := l.step(p)
		if done || !goOn {
			return done
		}
	}
}

func (l *loginState) event(p pdu.PDU) *Event {
	return &Event{Dir: FromInitiator, Portal: l.c.portal.index, Conn: l.c.number, CID: pdu.LoginView(p.BHS).CID(), BHS: p.BHS, Data: p.Data, Index: l.c.index - 1}
}

// inject applies the rules for a PDU of the login.
func (l *loginState) inject(e *Event) (stop, ignore bool) {
	a := merge(l.c.t.rules.match(e))
	if !l.c.pause(a) {
		return true, false
	}
	switch a.terminal {
	case actDrop:
		return false, true
	case actClose:
		return true, false
	case actReset:
		l.c.abort(true)
		return true, false
	case actFailLogin:
		l.hdr = pdu.LoginView(e.BHS).Decode()
		l.fail(a.login, "injected")
		return true, false
	}
	return false, false
}

// fail answers with a status and ends the connection (§11.13.5).
func (l *loginState) fail(status pdu.LoginStatus, why string, keys ...KeyValue) (done, goOn bool) {
	c := l.c
	c.t.cfg.Logf("connection %d: login refused: %v (%s)", c.number, status, why)
	if c.t.cfg.Quirks.SilentFailure {
		return false, false
	}
	var text []byte
	for _, kv := range keys {
		text = pdu.AppendKey(text, kv.Key, kv.Value)
	}
	l.respond(pdu.LoginResponse{StatusClass: status.Class(), StatusDetail: status.Detail()}, text, nil)
	return false, false
}

// respond completes the header of a Login Response and sends it.
func (l *loginState) respond(r pdu.LoginResponse, text []byte, switchTo *pdu.Digests) {
	r.ISID, r.ITT = l.hdr.ISID, l.hdr.ITT
	if r.TSIH == 0 {
		r.TSIH = l.hdr.TSIH
	}
	if r.StatusClass == 0 && r.MaxCmdSN == 0 && r.ExpCmdSN == 0 {
		r.ExpCmdSN = l.hdr.CmdSN
		r.MaxCmdSN = l.hdr.CmdSN + l.params.CmdWindow - 1
		if l.join != nil {
			r.ExpCmdSN, r.MaxCmdSN = l.join.window()
		}
	}
	o := &outPDU{data: text, noCmdSN: true, switchTo: switchTo}
	r.AppendTo(o.bhs[:0])
	l.c.send(o)
}

// step takes one Login Request. goOn is false if the connection is to be closed.
func (l *loginState) step(p pdu.PDU) (done, goOn bool) {
	if p.BHS.Opcode() != pdu.OpLogin {
		l.hdr = pdu.Login{ITT: p.BHS.ITT()}
		l.c.violation(p.BHS, "only Login Requests may be sent during the Login Phase (§6.3)")
		return l.fail(pdu.LoginInvalidRequest, "not a Login Request")
	}
	l.hdr = pdu.LoginView(p.BHS).Decode()
	if status, why := l.checkHeader(); why != "" {
		l.c.violation(p.BHS, "%s", why)
		return l.fail(status, why)
	}
	if len(l.out) > 0 { // the initiator asks for the rest of our answer
		if len(p.Data) > 0 {
			l.c.violation(p.BHS, "text in answer to a response with C=1 (§6.2)")
		}
		return l.sendText(nil)
	}
	if len(l.text)+len(p.Data) > maxLoginText {
		return l.fail(pdu.LoginOutOfResources, "too much text")
	}
	l.text = append(l.text, p.Data...)
	if l.hdr.Continue {
		l.respond(pdu.LoginResponse{CSG: l.stage}, nil, nil)
		return false, true
	}
	keys, err := parseKeys(l.text)
	l.text = l.text[:0]
	if err != nil {
		l.c.violation(p.BHS, "%v (§6.1)", err)
		return l.fail(pdu.LoginInitiatorError, err.Error())
	}
	if !l.saidTPGT {
		if status, why, redirect := l.identify(keys); status != pdu.LoginSuccess {
			return l.fail(status, why, redirect...)
		}
	}
	return l.negotiate(keys)
}

func parseKeys(text []byte) (keys []KeyValue, err error) {
	err = pdu.WalkKeys(text, func(key, value []byte) error {
		keys = append(keys, KeyValue{string(key), string(value)})
		return nil
	})
	return keys, err
}

// checkHeader checks the header of a request by itself and against the first.
func (l *loginState) checkHeader() (pdu.LoginStatus, string) {
	h := &l.hdr
	if h.VersionMin > 0 {
		return pdu.LoginUnsupportedVersion, "only version 0 is supported (§11.12.4)"
	}
	if l.first == nil {
		first := *h
		l.first, l.stage = &first, h.CSG
		l.c.cid = h.CID
	}
	f := l.first
	switch {
	case h.ISID != f.ISID || h.TSIH != f.TSIH || h.CID != f.CID:
		return pdu.LoginInitiatorError, "ISID, TSIH or CID changed during the login (§6.3)"
	case h.ITT != f.ITT:
		return pdu.LoginInitiatorError, "the Initiator Task Tag changed during the login (§11.12)"
	case h.Transit && h.Continue:
		return pdu.LoginInitiatorError, "T and C bit together (§11.12.2)"
	case h.CSG != l.stage:
		return pdu.LoginInitiatorError, fmt.Sprintf("current stage is %v, not %v (§11.12.3)", l.stage, h.CSG)
	case h.CSG != pdu.StageSecurity && h.CSG != pdu.StageOperational:
		return pdu.LoginInitiatorError, "CSG is neither security nor operational (§11.12.3)"
	case h.Transit && (h.NSG <= h.CSG || h.NSG == 2):
		return pdu.LoginInitiatorError, "NSG is not a stage after CSG (§11.12.3)"
	}
	return 0, ""
}

// identify takes the declarations that the first complete request must carry.
func (l *loginState) identify(keys []KeyValue) (status pdu.LoginStatus, why string, redirect []KeyValue) {
	sessionType := "Normal"
	for _, kv := range keys {
		switch kv.Key {
		case "InitiatorName":
			l.initiator = kv.Value
		case "TargetName":
			l.target = kv.Value
		case "SessionType":
			sessionType = kv.Value
		}
	}
	l.discovery = sessionType == "Discovery"
	l.neg.discovery = l.discovery
	switch {
	case l.initiator == "":
		return pdu.LoginMissingParameter, "no InitiatorName", nil
	case sessionType != "Normal" && sessionType != "Discovery":
		return pdu.LoginSessionType, "SessionType=" + sessionType, nil
	case l.target == "" && !l.discovery:
		return pdu.LoginMissingParameter, "no TargetName", nil
	}
	if l.target != "" {
		l.node = l.c.t.node(l.target)
		if l.node == nil || !l.node.behind(l.c.portal.index) {
			return pdu.LoginNotFound, "no target " + l.target, nil
		}
	}
	if r := l.c.t.redirect(l.c.portal); r != nil && !l.discovery {
		status = pdu.LoginMovedTemporarily
		if r.Permanent {
			status = pdu.LoginMovedPermanently
		}
		return status, "redirected", []KeyValue{{"TargetAddress", r.Address}}
	}
	if l.hdr.TSIH != 0 {
		if l.join, status, why = l.c.t.findSession(l.key(), l.hdr.TSIH, l.hdr.CID); status != pdu.LoginSuccess {
			return status, why, nil
		}
		l.neg.joins = true
		if slices.ContainsFunc(keys, func(kv KeyValue) bool { return kv.Key == "SessionType" }) {
			l.neg.complaint("SessionType is for the leading connection only (§13.21)")
		}
	}
	if l.auth = l.c.t.authentication(l); l.auth != nil && l.auth.Required() && l.stage != pdu.StageSecurity {
		return pdu.LoginAuthFailure, "the security stage was skipped", nil
	}
	return pdu.LoginSuccess, "", nil
}

// authentication begins what the initiator has to pass; nil is nothing.
func (t *Target) authentication(l *loginState) AuthExchange {
	switch {
	case t.cfg.CHAP != nil && t.cfg.CHAP.covers(l.discovery):
		return t.cfg.CHAP.begin(t)
	case t.cfg.Authenticate != nil:
		return t.cfg.Authenticate.Begin(l.initiator, l.target)
	}
	return nil
}

// key is what the session would be known by (§4.4.3, §7.4.2).
func (l *loginState) key() sessionKey {
	k := sessionKey{initiator: l.initiator, isid: l.hdr.ISID, target: l.target, tpgt: l.c.portal.cfg.TPGT}
	if l.target == "" {
		k.address = l.c.portal.index + 1
	}
	return k
}

// negotiate answers the keys of a complete request and moves on if it can.
func (l *loginState) negotiate(keys []KeyValue) (done, goOn bool) {
	var out []KeyValue
	if !l.saidTPGT {
		l.saidTPGT = true
		if !l.c.t.cfg.Quirks.NoPortalGroupTag {
			out = append(out, KeyValue{"TargetPortalGroupTag", strconv.Itoa(int(l.c.portal.cfg.TPGT))})
		}
		if l.node != nil && l.node.alias != "" && !l.discovery {
			out = append(out, KeyValue{"TargetAlias", l.node.alias})
		}
	}
	transit := l.hdr.Transit
	if l.stage == pdu.StageSecurity {
		answer, ready, status := l.security(keys)
		if status != pdu.LoginSuccess {
			return l.fail(status, "security negotiation")
		}
		out = append(out, answer...)
		transit = transit && ready
	} else {
		answer, status, why := l.neg.answer(keys)
		if status != pdu.LoginSuccess {
			return l.fail(status, why)
		}
		out = append(out, answer...)
		out = append(out, l.neg.declare()...)
		transit = transit && !l.neg.open()
	}
	var text []byte
	for _, kv := range out {
		text = pdu.AppendKey(text, kv.Key, kv.Value)
	}
	l.then.transit, l.then.nsg = transit, l.hdr.NSG
	return l.sendText(text)
}

// security takes the keys of the security stage (§6.3.2).
func (l *loginState) security(keys []KeyValue) (out []KeyValue, ready bool, status pdu.LoginStatus) {
	own := make(map[string]string) // for the authentication
	for _, kv := range keys {
		switch kv.Key {
		case "InitiatorName", "InitiatorAlias", "TargetName", "SessionType":
		case "AuthMethod":
			if l.auth != nil {
				own[kv.Key] = kv.Value
				continue
			}
			method := firstOf(kv.Value, "None")
			if method == "Reject" {
				return nil, false, pdu.LoginAuthFailure
			}
			out = append(out, KeyValue{kv.Key, method})
		default:
			if isOperational(kv.Key) {
				l.neg.complaint("operational key %s in the security stage (§6.3.2)", kv.Key)
				return nil, false, pdu.LoginInitiatorError
			}
			if l.auth != nil {
				if _, twice := own[kv.Key]; twice {
					l.neg.complaint("key %s was sent twice (§6.2)", kv.Key)
					return nil, false, pdu.LoginInitiatorError
				}
				own[kv.Key] = kv.Value
				continue
			}
			out = append(out, KeyValue{kv.Key, "NotUnderstood"})
		}
	}
	if l.auth != nil {
		return l.auth.Step(own)
	}
	return out, true, pdu.LoginSuccess
}

// sendText sends text, or the next part of it (C bit) if it is long, and when
// all of it is out makes the transition that the request asked for.
func (l *loginState) sendText(text []byte) (done, goOn bool) {
	l.out = append(l.out, text...)
	limit := defaultMRDSL
	if n := int(l.params.TextLength); n > 0 {
		limit = min(limit, n)
	}
	if len(l.out) > limit {
		part := append([]byte(nil), l.out[:limit]...)
		l.out = l.out[limit:]
		l.respond(pdu.LoginResponse{Continue: true, CSG: l.stage}, part, nil)
		return false, true
	}
	rest := l.out
	l.out = nil
	if !l.then.transit {
		l.respond(pdu.LoginResponse{CSG: l.stage}, rest, nil)
		return false, true
	}
	if l.then.nsg == pdu.StageFullFeature {
		return l.finish(rest)
	}
	r := pdu.LoginResponse{Transit: true, CSG: l.stage, NSG: l.then.nsg}
	l.passedSec = l.stage == pdu.StageSecurity
	l.stage = l.then.nsg
	l.respond(r, rest, nil)
	return false, true
}

// finish makes the session and sends the Login Final-Response. What an old
// session of the same name was doing is over before that (§6.3.5).
func (l *loginState) finish(text []byte) (done, goOn bool) {
	res := l.neg.res
	if (l.params.HeaderDigest == DigestRequired && !res.HeaderDigest) ||
		(l.params.DataDigest == DigestRequired && !res.DataDigest) {
		return l.fail(pdu.LoginInitiatorError, "digests are required")
	}
	c := l.c
	c.neg, c.recvMax = res, int(res.RecvMRDSL)
	c.digests = pdu.Digests{Header: res.HeaderDigest, Data: res.DataDigest}
	secure := l.passedSec || l.stage == pdu.StageSecurity
	if l.join != nil && (secure || !c.t.cfg.Quirks.JoinNeedsSecurity) {
		return l.finishJoin(text)
	}
	s := c.t.establish(l)
	if s == nil {
		return l.fail(pdu.LoginServiceUnavailable, "the target is closing")
	}
	return l.enter(s, text)
}

// finishJoin ends a login that adds a connection to a session.
func (l *loginState) finishJoin(text []byte) (done, goOn bool) {
	c, s := l.c, l.join
	c.t.establishing.Lock() // nobody else may take the CID or the place
	defer c.t.establishing.Unlock()
	if status, why := s.attach(c.cid); status != pdu.LoginSuccess {
		return l.fail(status, why)
	}
	neg := s.neg // session-wide, but for these:
	neg.HeaderDigest, neg.DataDigest = c.neg.HeaderDigest, c.neg.DataDigest
	neg.SendMRDSL, neg.RecvMRDSL = c.neg.SendMRDSL, c.neg.RecvMRDSL
	c.neg = neg
	return l.enter(s, text)
}

// enter sends the Login Final-Response and makes the connection part of its session.
func (l *loginState) enter(s *session, text []byte) (done, goOn bool) {
	c := l.c
	r := pdu.LoginResponse{Transit: true, CSG: l.stage, NSG: pdu.StageFullFeature, TSIH: s.tsih}
	if c.t.cfg.Quirks.TSIHZero {
		r.TSIH = 0
	}
	r.ExpCmdSN, r.MaxCmdSN = s.window()
	digests := c.digests
	c.sess = s
	if !s.join(c, func() { l.respond(r, text, &digests) }) {
		return l.fail(pdu.LoginNoSession, "the session ended meanwhile")
	}
	c.t.cfg.Logf("connection %d: %s logged in to %s, TSIH %d, CID %d", c.number, l.initiator, l.target, s.tsih, c.cid)
	return true, true
}
