package iscsitest

import (
	"fmt"
	"slices"

	"github.com/iscsimp/iscsimp/pdu"
)

// nopOut answers a ping, or takes the answer to one of ours (RFC 7143 §11.18).
func (s *session) nopOut(r *request) {
	v, c := pdu.NOPOutView(r.header()), r.c
	if v.TTT() != pdu.ReservedTag {
		s.mu.Lock()
		asked := s.pings[v.TTT()]
		s.lockedPong(v.TTT())
		s.mu.Unlock()
		switch {
		case asked == nil || asked.c != c:
			c.violation(v, "Target Transfer Tag of no NOP-In (§11.18.2)")
			c.reject(r.header(), pdu.RejectInvalidField)
			return
		case asked.lun != v.LUN():
			c.violation(v, "LUN is not that of the NOP-In (§11.18.2)")
		}
	}
	if v.ITT() == pdu.ReservedTag {
		if !v.Immediate() {
			c.violation(v, "a NOP-Out that wants no answer must be immediate (§11.18.1)")
		}
		if v.TTT() == pdu.ReservedTag {
			s.mu.Lock()
			s.lockedAcknowledged(c, v.LUN())
			s.mu.Unlock()
		}
		return
	}
	o := &outPDU{data: slices.Clone(r.data[:min(len(r.data), int(c.neg.SendMRDSL))])}
	(&pdu.NOPIn{ITT: v.ITT(), TTT: pdu.ReservedTag}).AppendTo(o.bhs[:0])
	c.reply(o)
}

// ping is a NOP-In that wants an answer.
type ping struct {
	c     *conn
	lun   uint64
	fence *fence // that waits for it, or nil
}

// fence holds up a response until others have arrived (§4.2.2.3).
type fence struct {
	left int // guarded by session.mu
	done func()
}

// lockedPing sends a NOP-In that wants an answer on a connection.
func (s *session) lockedPing(p *ping) {
	ttt := s.lockedTTT()
	s.pings[ttt] = p
	o := &outPDU{stat: statShown}
	(&pdu.NOPIn{ITT: pdu.ReservedTag, TTT: ttt, LUN: p.lun}).AppendTo(o.bhs[:0])
	p.c.send(o)
}

// lockedPong ends the wait for the answer to a ping.
func (s *session) lockedPong(ttt uint32) {
	p := s.pings[ttt]
	if p == nil {
		return
	}
	delete(s.pings, ttt)
	if p.fence == nil {
		return
	}
	if p.fence.left--; p.fence.left == 0 {
		s.t.wg.Go(p.fence.done) // not under the session's lock
	}
}

// lockedForgetPings ends the wait for answers from a connection that has ended.
func (s *session) lockedForgetPings(c *conn) {
	for ttt, p := range s.pings {
		if p.c == c {
			s.lockedPong(ttt)
		}
	}
}

// behindOthers calls done when the initiator has got all that was sent on the
// other connections of the session before: it is pinged, and acknowledges that
// with the answer (§4.2.2.3.3).
func (s *session) behindOthers(c *conn, done func()) {
	s.mu.Lock()
	f := &fence{done: done}
	for _, other := range s.lockedConns() {
		if other != c {
			f.left++
			s.lockedPing(&ping{c: other, fence: f})
		}
	}
	none := f.left == 0
	s.mu.Unlock()
	if none {
		done()
	}
}

// textExchange is a Text negotiation that takes several PDUs (§11.10).
type textExchange struct {
	ttt uint32
	in  []byte // while the initiator goes on (C bit)
	out []byte // what did not fit into the last response
}

// text takes a Text Request.
func (s *session) text(r *request) {
	v, c := pdu.TextView(r.header()), r.c
	if v.Continue() && v.Final() {
		c.violation(v, "F and C bit together (§11.10.2)")
		c.reject(r.header(), pdu.RejectProtocolError)
		return
	}
	x := s.exchange(v)
	if x == nil {
		c.violation(v, "Target Transfer Tag of no Text Response (§11.10.4)")
		c.reject(r.header(), pdu.RejectInvalidField)
		return
	}
	if len(x.out) > 0 {
		s.sendText(c, v, x)
		return
	}
	if len(x.in)+len(r.data) > maxLoginText {
		s.forget(v.ITT())
		c.reject(r.header(), pdu.RejectLongOp)
		return
	}
	x.in = append(x.in, r.data...)
	if v.Continue() {
		o := &outPDU{}
		(&pdu.TextResponse{ITT: v.ITT(), TTT: x.ttt}).AppendTo(o.bhs[:0])
		c.reply(o)
		return
	}
	keys, err := parseKeys(x.in)
	x.in = nil
	if err != nil {
		s.forget(v.ITT())
		c.violation(v, "%v (§6.1)", err)
		c.reject(r.header(), pdu.RejectProtocolError)
		return
	}
	for _, kv := range s.textKeys(c, keys) {
		x.out = pdu.AppendKey(x.out, kv.Key, kv.Value)
	}
	s.sendText(c, v, x)
}

// exchange returns the state of the exchange a request belongs to, nil if it
// continues one that does not exist.
func (s *session) exchange(v pdu.TextView) *textExchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.TTT() == pdu.ReservedTag { // a new one; forgets an old one of that tag
		s.texts[v.ITT()] = &textExchange{ttt: s.lockedTTT()}
		return s.texts[v.ITT()]
	}
	if x := s.texts[v.ITT()]; x != nil && x.ttt == v.TTT() {
		return x
	}
	return nil
}

func (s *session) forget(itt uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.texts, itt)
}

// sendText sends the next part of the answer. F=1 ends the exchange, if the
// initiator had nothing more to say either.
func (s *session) sendText(c *conn, v pdu.TextView, x *textExchange) {
	limit := int(c.neg.SendMRDSL)
	if n := int(s.params.TextLength); n > 0 {
		limit = min(limit, n)
	}
	part := x.out[:min(len(x.out), limit)]
	x.out = x.out[len(part):]
	res := pdu.TextResponse{ITT: v.ITT(), TTT: x.ttt, Continue: len(x.out) > 0}
	if v.Final() && len(x.out) == 0 {
		res.Final, res.TTT = true, pdu.ReservedTag
		s.forget(v.ITT())
	}
	o := &outPDU{data: part}
	res.AppendTo(o.bhs[:0])
	c.reply(o)
}

// textKeys answers the keys of a Text Request.
func (s *session) textKeys(c *conn, keys []KeyValue) (out []KeyValue) {
	for _, kv := range keys {
		switch {
		case kv.Key == "SendTargets":
			list, ok := s.sendTargets(c, kv.Value)
			if !ok {
				out = append(out, KeyValue{kv.Key, "Reject"})
			}
			out = append(out, list...)
		case kv.Key == "InitiatorAlias":
		case kv.Key == "InitiatorName", kv.Key == "TargetName", kv.Key == "AuthMethod",
			kv.Key == "SessionType", isOperational(kv.Key):
			out = append(out, KeyValue{kv.Key, "Reject"}) // not renegotiated here
		default:
			out = append(out, KeyValue{kv.Key, "NotUnderstood"})
		}
	}
	return out
}

// sendTargets lists targets and their addresses (RFC 7143 Appendix C): all or
// one in a discovery session, the own one in a normal session.
func (s *session) sendTargets(c *conn, what string) (out []KeyValue, ok bool) {
	own := s.key.target
	switch {
	case what == "" && s.discovery && own == "":
		return nil, false
	case what == "":
		what = own
	case !s.discovery && what != own:
		return nil, false
	}
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.nodes {
		if what != "All" && n.name != what {
			continue
		}
		out = append(out, KeyValue{"TargetName", n.name})
		for _, p := range t.portals {
			if n.behind(p.index) && !p.cfg.Hidden {
				out = append(out, KeyValue{"TargetAddress", fmt.Sprintf("%s,%d", p.advertised(), p.cfg.TPGT)})
			}
		}
	}
	return out, true
}

func (p *portal) advertised() string {
	if p.cfg.Advertise != "" {
		return p.cfg.Advertise
	}
	return p.addr
}
