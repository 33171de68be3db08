package session

import (
	"github.com/iscsimp/iscsimp/pdu"
)

// Sizes of the receive buffer. Small PDUs arrive many to a read; the payload of
// large ones goes straight to its destination, and while the stream carries
// such, only about a header is read ahead, so that nothing has to be copied.
const (
	scratchSize  = 128 << 10
	readAhead    = 512      // while large segments flow
	largeSegment = 16 << 10 // a data segment this long is large
	maxAHS       = 255 * 4  // TotalAHSLength is one byte, in words (RFC 7143 §11.2.1.5)
	maxLoginData = 64 << 10 // targets that exceed the 8192 of the login phase are borne with
	maxOtherData = 1 << 20  // data segment of anything but Data-In: text, sense, rejected headers
)

// inbound cuts the byte stream into PDUs.
type inbound struct {
	buf     []byte
	r, w    int  // unread bytes are buf[r:w]
	ahead   bool // large segments flow
	discard [8 << 10]byte

	// The Data-In segment under way, if inData.
	inData bool
	bhs    [pdu.BHSLen]byte
	task   *task // nil: discard (the command was detached)
	dst    []byte
	start  []byte // dst as it was at the start of the segment, for the digest
	remain int    // bytes of the segment still to come
	layout pdu.Layout
}

// ReadBuffers implements loop.Handler.
func (c *conn) ReadBuffers() (direct, scratch []byte) {
	in := &c.in
	if in.r == in.w {
		in.r, in.w = 0, 0
	} else if len(in.buf)-in.w < pdu.BHSLen+maxAHS {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	scratch = in.buf[in.w:]
	if in.ahead && len(scratch) > readAhead {
		scratch = scratch[:readAhead]
	}
	if in.remain > 0 {
		if direct = in.dst; direct == nil {
			direct = in.discard[:min(len(in.discard), in.remain)]
			if len(direct) < in.remain {
				return direct, nil // no gap may open between direct and scratch
			}
		}
	}
	return direct, scratch
}

// DidRead implements loop.Handler.
func (c *conn) DidRead(n int) error {
	s := c.s
	c.lastRecv = s.env.Now()
	s.bytesReceived += uint64(n)
	if c.silent {
		c.alive()
	}
	in := &c.in
	if in.remain > 0 {
		k := min(n, in.remain)
		if in.dst != nil {
			in.dst = in.dst[k:]
		}
		in.remain -= k
		n -= k
	}
	in.w += n
	for !c.dead {
		more, err := c.parse()
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	return nil
}

// parse handles one PDU, or the part of one that is there; false: it needs more bytes.
func (c *conn) parse() (bool, error) {
	in := &c.in
	if in.inData {
		return c.parseTail()
	}
	have := in.w - in.r
	if have > 0 {
		if err := c.checkOpcode(pdu.Opcode(in.buf[in.r] & 0x3f)); err != nil {
			return false, err
		}
	}
	if have < pdu.BHSLen {
		return false, nil
	}
	bhs := pdu.BHS(in.buf[in.r : in.r+pdu.BHSLen])
	l := pdu.LayoutOf(bhs, c.digests)
	head := l.HeaderLen + l.HeaderDigestLen
	if have < head {
		return false, nil
	}
	if l.HeaderDigestLen > 0 {
		if got, want := pdu.Digest(in.buf[in.r+l.HeaderLen:]), pdu.CRC32C(in.buf[in.r:in.r+l.HeaderLen]); got != want {
			return false, c.protocolErr("header digest is wrong: %08x instead of %08x", got, want)
		}
	}
	if err := c.checkLength(bhs); err != nil {
		return false, err
	}
	if bhs.Opcode() == pdu.OpDataIn && c.phase == phaseFull {
		return true, c.startData(bhs, l, head)
	}
	if l.Total > len(in.buf) {
		in.grow(l.Total)
		return have >= l.Total, nil
	}
	if have < l.Total {
		return false, nil
	}
	data := in.buf[in.r+l.DataOff : in.r+l.DataOff+l.DataLen]
	if l.DataDigestLen > 0 {
		padded := in.buf[in.r+l.DataOff : in.r+l.DataOff+l.DataLen+l.PadLen]
		if got, want := pdu.Digest(in.buf[in.r+l.Total-4:]), pdu.CRC32C(padded); got != want {
			return false, c.protocolErr("data digest is wrong: %08x instead of %08x", got, want)
		}
	}
	if t := c.s.cfg.Trace; t != nil {
		t(false, bhs)
	}
	in.ahead = false
	in.r += l.Total
	return true, c.dispatch(bhs, data)
}

// grow makes room for one PDU longer than the buffer.
func (in *inbound) grow(total int) {
	b := make([]byte, total+readAhead)
	in.w = copy(b, in.buf[in.r:in.w])
	in.r, in.buf = 0, b
}

// checkOpcode refuses what no target sends as soon as its first byte is there:
// the length of something that is not a PDU means nothing, and waiting for as
// many bytes would only end in a timeout.
func (c *conn) checkOpcode(op pdu.Opcode) error {
	switch {
	case c.phase == phaseLogin && op != pdu.OpLoginResponse:
		e := c.protocolErr("the peer does not answer the login as an iSCSI target would")
		e.Hint = "check that the portal's port belongs to an iSCSI target"
		return e
	case !op.Known() || !op.FromTarget():
		return c.protocolErr("a PDU that no target sends (opcode %02x)", uint8(op))
	}
	return nil
}

// checkLength refuses a data segment that the login did not allow, before any
// memory is touched.
func (c *conn) checkLength(bhs pdu.BHS) error {
	limit := maxLoginData
	if c.phase != phaseLogin {
		limit = int(c.s.params.MaxRecvDataSegmentLength)
		if bhs.Opcode() != pdu.OpDataIn {
			limit = min(limit, maxOtherData)
		}
	}
	if n := bhs.DataLen(); n > limit {
		return c.protocolErr("%v with a data segment of %d bytes, at most %d are allowed", bhs.Opcode(), n, limit)
	}
	return nil
}

// startData begins a Data-In PDU: the destination is known from here on, and
// what already lies in the buffer is copied there.
func (c *conn) startData(bhs pdu.BHS, l pdu.Layout, head int) error {
	in := &c.in
	if t := c.s.cfg.Trace; t != nil {
		t(false, bhs)
	}
	t, dst, err := c.dataInDest(pdu.DataInView(bhs))
	if err != nil {
		return err
	}
	copy(in.bhs[:], bhs)
	in.inData, in.task, in.layout = true, t, l
	in.start, in.dst, in.remain = dst, dst, l.DataLen
	in.ahead = l.DataLen >= largeSegment
	in.r += head
	k := min(in.remain, in.w-in.r)
	if dst != nil {
		copy(dst, in.buf[in.r:in.r+k])
		in.dst = dst[k:]
	}
	in.remain -= k
	in.r += k
	return nil
}

// parseTail finishes a Data-In PDU once its padding and digest are there.
func (c *conn) parseTail() (bool, error) {
	in := &c.in
	tail := in.layout.PadLen + in.layout.DataDigestLen
	if in.remain > 0 || in.w-in.r < tail {
		return false, nil
	}
	if in.layout.DataDigestLen > 0 && in.start != nil {
		crc := pdu.UpdateCRC32C(pdu.CRC32C(in.start), in.buf[in.r:in.r+in.layout.PadLen])
		if got := pdu.Digest(in.buf[in.r+in.layout.PadLen:]); got != crc {
			return false, c.protocolErr("data digest is wrong: %08x instead of %08x", got, crc)
		}
	}
	in.r += tail
	in.inData = false
	t := in.task
	in.task, in.dst, in.start = nil, nil, nil
	return true, c.dataInDone(t, pdu.DataInView(in.bhs[:]))
}

// forget makes sure that nothing is placed in t's buffer any more.
func (in *inbound) forget(t *task) {
	if in.inData && in.task == t {
		in.task, in.dst, in.start = nil, nil, nil
	}
}

func (c *conn) protocolErr(format string, args ...any) *Error {
	e := c.s.err(KindProtocol, format, args...)
	e.Hint = "the connection is dropped; if this repeats, something on the way corrupts data or the target is faulty"
	return e
}
