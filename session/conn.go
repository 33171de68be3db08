package session

import (
	"errors"
	"io"
	"syscall"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
	"github.com/iscsimp/iscsimp/session/login"
)

// phase is where a connection stands.
type phase uint8

const (
	phaseLogin phase = iota
	phaseFull
)

// conn is one connection of a session: it implements loop.Handler, so that a
// driver can feed it bytes and fetch bytes from it. A new one is made for every dial.
// What is per connection in RFC 7143 (StatSN, digests, the segment size the target takes, CID, the task's
// allegiance) is kept here, what is per session in Session.
type conn struct {
	s      *Session
	stream loop.Stream
	phase  phase
	// dead is set once the connection is given up: nothing received on it counts any more.
	dead    bool
	closed  bool   // Closed came: no driver touches a buffer any more
	reason  *Error // why, if this side gave it up
	heard   bool   // a Login Response came
	hungUp  bool   // the peer closed or reset it
	digests pdu.Digests
	cid     uint16

	expStatSN uint32
	machine   *login.Machine
	chap      *chap.Initiator // nil: no authentication is configured
	loginITT  uint32

	in  inbound
	out outbound

	// maxSend is the target's MaxRecvDataSegmentLength on this connection.
	maxSend uint32
	// Keep-alive.
	lastRecv, lastTaken int64
	ping                *task
	silent              bool
	// How loaded and how fast it is, for choosing among several; see balance.go.
	load      int     // bytes outstanding, with overhead
	latency   float64 // ns, recent
	sampledAt int64
	// backlog is set while the socket takes less than we have; bytes it takes
	// then prove that the peer reads.
	backlog bool
	// How many answers that the target can ask for without end were queued since the
	// send queue ended at replyMark, which has not left yet; see reply.
	replies   int
	replyMark uint64
	waiting   int // tasks answered whose data is still in the send queue
}

func newConn(s *Session, cid uint16) *conn {
	c := &conn{s: s, cid: cid}
	c.in.buf = make([]byte, scratchSize)
	return c
}

// WriteBuffers implements loop.Handler.
func (c *conn) WriteBuffers(iov [][]byte) [][]byte { return c.out.buffers(iov) }

// DidWrite implements loop.Handler.
func (c *conn) DidWrite(n int) {
	s := c.s
	c.out.advance(n)
	s.bytesSent += uint64(n)
	if c.backlog {
		c.lastTaken = s.env.Now()
	}
	c.backlog = c.out.pending() > 0
	if c.waiting > 0 {
		c.completeWaiting()
	}
}

// Closed implements loop.Handler.
func (c *conn) Closed(err error) {
	c.dead, c.closed = true, true
	c.s.connClosed(c, c.closeReason(err))
}

// hintNotThere is what to look at when a login is not answered at all.
const hintNotThere = "check that the portal is an iSCSI target, that the target name exists there and lets this initiator in"

// closeReason words the end of the connection.
func (c *conn) closeReason(err error) *Error {
	if c.reason != nil {
		return c.reason
	}
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	e := c.s.err(KindTransport, "")
	e.Err = err
	c.hungUp = errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	switch {
	case c.phase == phaseLogin && !c.heard:
		e.Hint = hintNotThere
	case c.phase == phaseLogin:
		e.Hint = "if this repeats the target may not bear a key that was offered; a smaller set is tried in turn"
	}
	switch {
	case errors.Is(err, io.EOF) && c.phase == phaseLogin && !c.heard:
		e.Err, e.Msg = nil, "the peer closed the connection in answer to the login"
	case errors.Is(err, io.EOF) && c.phase == phaseLogin:
		e.Err, e.Msg = nil, "the target closed the connection in the middle of the login"
	case errors.Is(err, io.EOF):
		e.Err, e.Msg = nil, "closed by the target"
	case errors.Is(err, loop.ErrClosed):
		e.Kind = KindClosed
	}
	return e
}

// task gives the task with this tag if it is allegiant to c, or nil.
func (c *conn) task(itt uint32) *task {
	if t := c.s.tasks.find(itt); t != nil && t.conn == c {
		return t
	}
	return nil
}

// header reserves room for one PDU header, with pdu's AppendTo to follow on
// c.out.chunk.buf; seal queues it, with its digest.
func (c *conn) header() (start int) { return c.out.room(headerRoom) }

// seal ends the header begun at start.
func (c *conn) seal(start int) {
	b := c.out.chunk
	hdr := b.buf[start:]
	if t := c.s.cfg.Trace; t != nil {
		t(true, pdu.BHS(hdr))
	}
	if c.digests.Header {
		var d [4]byte
		pdu.PutDigest(d[:], pdu.CRC32C(hdr))
		b.buf = append(b.buf, d[:]...)
	}
	c.out.commit(start)
}

// payload queues a data segment with padding and digest. The bytes are sent
// from where they lie.
func (c *conn) payload(p []byte) {
	if len(p) == 0 {
		return
	}
	c.out.data(p)
	pad := pdu.PadLen(len(p))
	if pad == 0 && !c.digests.Data {
		return
	}
	start := c.out.room(8)
	b := c.out.chunk
	var zero [4]byte
	b.buf = append(b.buf, zero[:pad]...)
	if c.digests.Data {
		var d [4]byte
		pdu.PutDigest(d[:], pdu.UpdateCRC32C(pdu.CRC32C(p), zero[:pad]))
		b.buf = append(b.buf, d[:]...)
	}
	c.out.commit(start)
}

// text queues a small data segment by copying it.
func (c *conn) text(p []byte) { c.payload(append([]byte(nil), p...)) }

// flush asks the driver to send.
func (c *conn) flush() {
	if c.stream != nil {
		c.stream.Flush()
	}
}

// abort gives the connection up.
func (c *conn) abort(reason *Error) {
	if c.dead {
		return
	}
	c.dead, c.reason = true, reason
	if c.stream != nil {
		c.stream.Abort(reason)
	}
}
