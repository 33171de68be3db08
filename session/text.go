package session

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
)

// maxTextAnswer bounds the answer to one Text request over all its parts.
const maxTextAnswer = 4 << 20

// TargetInfo is one target of a SendTargets answer.
type TargetInfo struct {
	Name    string
	Portals []PortalInfo
}

// PortalInfo is one address of a target.
type PortalInfo struct {
	Address string // "host:port"
	TPGT    int    // portal group tag; -1: not told
}

// textExchange is a Text request whose answer has not come in full.
type textExchange struct {
	itt  uint32
	got  []byte
	done func([]byte, *Error)
	// immediate is the I bit of its requests.
	immediate bool
	// held: the next request waits for room in the command window; for the rest of
	// the answer with this tag and LUN.
	held bool
	ttt  uint32
	lun  uint64
}

// SendTargets asks a discovery session for all targets (RFC 7143 Appendix C; no
// other session may ask for all). done is called on the loop, once. One request at
// a time. An answer that is not complete within Config.LoginTimeout ends the
// session.
func (s *Session) SendTargets(done func([]TargetInfo, *Error)) {
	finish := func(text []byte, err *Error) {
		if err != nil {
			done(nil, err)
			return
		}
		targets, perr := parseTargets(text, s.cfg.Portal)
		if perr != nil {
			done(nil, s.err(KindProtocol, "the list of targets cannot be read: %v", perr))
			return
		}
		done(targets, nil)
	}
	if s.state != StateLoggedIn || s.conn.dead || s.logoutAt != 0 || s.text != nil || !s.cfg.Discovery {
		finish(nil, s.err(KindClosed, "the session is not ready for a text request"))
		return
	}
	t := s.tasks.add(taskText, s.conn, s.env.Now())
	if t == nil {
		finish(nil, s.err(KindClosed, "too many requests are under way"))
		return
	}
	s.text = &textExchange{itt: t.itt, done: finish}
	t.pos = s.conn.out.queued
	s.sendText(t, pdu.AppendKey(nil, "SendTargets", "All"), pdu.ReservedTag, 0)
	s.touch(t.at)
	s.schedule(t, t.at+int64(s.cfg.LoginTimeout))
}

// sendText sends a Text request (§11.10), or the next one of a long answer,
// which has the same task tag (§11.10.3).
func (s *Session) sendText(t *task, text []byte, ttt uint32, lun uint64) {
	c := s.conn
	start := c.header()
	p := pdu.Text{
		Final: true, LUN: lun, ITT: t.itt, TTT: ttt,
		CmdSN: s.cmdSN, ExpStatSN: c.expStatSN, DataLen: len(text),
	}
	t.cmdSN = s.cmdSN
	if ttt == pdu.ReservedTag {
		// The I bit is one for the whole exchange (§11.10.3).
		s.text.immediate = serial.Less(s.maxCmdSN, s.cmdSN) // the command window is closed
	}
	if p.Immediate = s.text.immediate; !p.Immediate {
		s.cmdSN++
	}
	c.out.chunk.buf = p.AppendTo(c.out.chunk.buf)
	c.seal(start)
	c.text(text)
	c.flush()
}

// textResponse collects the parts of an answer (§11.11, §6.2).
func (c *conn) textResponse(v pdu.TextResponseView, data []byte) error {
	s, x := c.s, c.s.text
	t := c.task(v.ITT())
	if x == nil || t == nil || t.kind != taskText || x.itt != v.ITT() {
		return c.protocolErr("text response for task %08x, which is not in flight", v.ITT())
	}
	if len(x.got)+len(data) > maxTextAnswer {
		return c.protocolErr("a text answer of more than %d bytes", maxTextAnswer)
	}
	x.got = append(x.got, data...)
	if v.Final() && !v.Continue() {
		s.tasks.remove(t)
		s.text = nil
		x.done(x.got, nil)
		return nil
	}
	if v.TTT() == pdu.ReservedTag {
		return c.protocolErr("the target breaks a text answer off in the middle")
	}
	if !c.reply(maxReplies) {
		return c.protocolErr("the target keeps sending parts of a text answer but reads no requests for them")
	}
	x.held, x.ttt, x.lun = true, v.TTT(), v.LUN()
	s.resumeText()
	return nil
}

// resumeText sends the request that waited for room in the command window, if
// there is some; an immediate one needs none.
func (s *Session) resumeText() {
	x := s.text
	if !x.held || s.logoutSent || !x.immediate && serial.Less(s.maxCmdSN, s.cmdSN) { // nothing new may follow a logout
		return
	}
	if t := s.tasks.find(x.itt); t != nil && !t.conn.dead {
		x.held = false
		s.sendText(t, nil, x.ttt, x.lun)
	}
}

// parseTargets reads a SendTargets answer; a target without an address has the
// one the question went to.
func parseTargets(text []byte, asked string) ([]TargetInfo, error) {
	var out []TargetInfo
	err := pdu.WalkKeys(text, func(key, value []byte) error {
		switch string(key) {
		case "TargetName":
			out = append(out, TargetInfo{Name: string(value)})
		case "TargetAddress":
			if len(out) == 0 {
				return fmt.Errorf("an address %q before any target name", value)
			}
			p, err := parseTargetAddress(string(value))
			if err != nil {
				return err
			}
			last := &out[len(out)-1]
			last.Portals = append(last.Portals, p)
		}
		return nil
	})
	for i := range out {
		if len(out[i].Portals) == 0 {
			out[i].Portals = []PortalInfo{{Address: asked, TPGT: -1}}
		}
	}
	return out, err
}

// parseTargetAddress reads "host[:port],tag" (RFC 7143 §13.8); the port defaults to 3260.
func parseTargetAddress(v string) (PortalInfo, error) {
	addr, tag, ok := strings.Cut(v, ",")
	p := PortalInfo{Address: addr, TPGT: -1}
	if ok {
		n, err := strconv.ParseUint(tag, 0, 16)
		if err != nil {
			return p, fmt.Errorf("portal group tag %q of address %q is not a number up to 65535", tag, v)
		}
		p.TPGT = int(n)
	}
	if addr == "" {
		return p, fmt.Errorf("empty target address")
	}
	if i := strings.LastIndexByte(addr, ':'); i < 0 || strings.HasSuffix(addr, "]") {
		p.Address += ":3260"
	}
	return p, nil
}
