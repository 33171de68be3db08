package nbd

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
)

// How much a connection reads at once behind a payload's end. The full window
// takes in many small requests with one system call. After a large WRITE it
// shrinks, so that the next request arrives together with the end of this
// payload while nearly all of the next payload goes to its buffer uncopied;
// it grows back when the stream turns out to carry small requests.
const (
	windowFull   = 128<<10 - requestLen
	windowSmall  = 512
	windowGrowth = 4
	largeWrite   = 16 << 10
)

// conn is a connection in the transmission phase: a loop.Handler that turns
// request bytes into block requests and their outcomes into reply bytes. All
// of it runs on the loop of the export's device, except where noted.
//
// A request passes through these hands: parse → accept → (WRITE: payload) →
// submit → the device → done → the reply ring (reply.go) → DidWrite.
type conn struct {
	// Set before the loop sees the connection, constant afterwards; any goroutine.
	id          uint64
	srv         *Server
	export      *Export
	dev         block.Device
	limits      limits
	remote      string
	since       time.Time
	maxRequests int
	maxBytes    int
	gone        chan struct{} // closed when the stream is closed
	stats       connStats     // atomics: written on the loop, read anywhere

	// Everything below belongs to the loop.
	shard  *shard
	stream loop.Stream // nil until Attach returned

	// Reading. At most one of write and drain is under way.
	partial    [requestLen]byte // the beginning of a request that has not arrived in full
	partialLen int
	write      *request // a WRITE whose payload is arriving
	filled     int      // how much of it has
	drain      int      // payload bytes of a refused WRITE still to be thrown away
	refused    struct { // the answer to it, sent when they have passed
		cookie uint64
		errno  uint32
	}
	window   int    // how much to read at once, see windowFull
	sawLarge bool   // a large WRITE began in the present window
	blocked  bool   // a limit was reached: not reading until a reply has left
	held     buffer // what had been read but not parsed when that happened:
	heldFrom int    // held.data[heldFrom:heldTo]
	heldTo   int

	// Accounting.
	inflight int // requests at the device
	pending  int // requests not yet answered, in whatever stage
	memory   int // bytes of the buffers they hold

	replies replyRing

	last    bool // no further request is taken: DISC came, or the server's shutdown is complete
	shut    bool // the server shuts down: further requests get ESHUTDOWN
	closing bool // stream.Close or Abort was called
	closed  bool // Closed was called
}

// request is a block request on its way through the device and back. Requests
// are pooled per loop; a pooled one has no conn.
type request struct {
	block.Request
	conn   *conn
	cookie uint64
	buf    buffer
	cost   int // bytes accounted for buf
}

// RequestDone implements block.Completer.
func (q *request) RequestDone(*block.Request) {
	if q.conn == nil {
		// A device that completes twice must not answer another request.
		panicIfInvariants("nbd: a request was completed twice")
		return
	}
	q.conn.done(q)
}

// attach hands the socket to the loop. Runs on the loop.
func (c *conn) attach(nc net.Conn) {
	c.shard.conns++
	if c.shut {
		_ = nc.Close()
		c.Closed(ErrClosed)
		return
	}
	stream, err := c.dev.Loop().Attach(nc, c)
	if err != nil {
		c.Closed(fmt.Errorf("nbd: cannot serve the connection: %w", err))
		return
	}
	c.stream = stream
}

// ReadBuffers implements loop.Handler. The scratch buffer is shared by all
// connections of the loop: nothing is left in it when DidRead returns. Room
// for a partial request is kept in front of what is offered.
func (c *conn) ReadBuffers() (direct, scratch []byte) {
	if c.blocked || c.stopped() {
		return nil, nil
	}
	window := c.window
	if c.write != nil {
		direct = c.write.Data[c.filled:]
	} else if c.drain > 0 {
		window = windowFull
	}
	return direct, c.shard.scratch[requestLen : requestLen+window]
}

// DidRead implements loop.Handler.
func (c *conn) DidRead(n int) error {
	if c.write != nil {
		k := min(n, len(c.write.Data)-c.filled)
		n -= k
		c.didFill(k)
	}
	var err error
	if n > 0 {
		from := requestLen - c.partialLen
		copy(c.shard.scratch[from:], c.partial[:c.partialLen])
		c.partialLen = 0
		c.sawLarge = false
		err = c.parse(c.shard.scratch[from : requestLen+n])
		c.adaptWindow(n)
	}
	c.publish()
	return err
}

// adaptWindow chooses how much to read at once from what the last n bytes held.
func (c *conn) adaptWindow(n int) {
	switch {
	case c.sawLarge:
		c.window = windowSmall
	case n == c.window:
		c.window = min(c.window*windowGrowth, windowFull)
	}
}

// parse consumes data in full, unless the connection stops reading for good or
// reaches a limit, in which case the rest is held back.
func (c *conn) parse(data []byte) error {
	for len(data) > 0 && !c.stopped() {
		switch {
		case c.drain > 0:
			k := min(c.drain, len(data))
			data = data[k:]
			c.didDrain(k)
		case c.write != nil:
			k := copy(c.write.Data[c.filled:], data)
			data = data[k:]
			c.didFill(k)
		case len(data) < requestLen:
			c.partialLen = copy(c.partial[:], data)
			return nil
		default:
			h, ok := parseRequest(data)
			if !ok {
				return fmt.Errorf("nbd: a request begins with %#x instead of %#x: the client does not keep to the protocol", data[:4], magicRequest)
			}
			taken, err := c.accept(&h)
			if err != nil {
				return err
			}
			if !taken {
				c.block(data)
				return nil
			}
			data = data[requestLen:]
		}
	}
	return nil
}

// accept takes one request, or returns false if that must wait until a
// previous one has been answered.
func (c *conn) accept(h *requestHeader) (taken bool, err error) {
	if h.cmd == cmdDisc {
		c.last = true
		c.closeIfDone()
		return true, nil
	}
	if c.pending >= c.maxRequests {
		return false, nil
	}
	op, errno := c.check(h)
	if errno != 0 {
		return true, c.refuse(h, errno)
	}
	return c.start(op, h), nil
}

// check decides whether a request may go to the device. The device checks
// again for itself; here the client's mistakes are told apart.
func (c *conn) check(h *requestHeader) (op block.Op, errno uint32) {
	if c.shut {
		return 0, errnoShutdown
	}
	var allowed uint16
	if c.limits.offers(flagSendFUA) {
		allowed = cmdFlagFUA // valid with every command once offered
	}
	switch h.cmd {
	case cmdRead:
		op = block.OpRead
	case cmdWrite:
		op = block.OpWrite
	case cmdFlush:
		if h.flags&^allowed != 0 || h.offset != 0 || h.length != 0 {
			return 0, errnoInval
		}
		return block.OpFlush, 0
	case cmdTrim:
		op = block.OpTrim
	case cmdWriteZeroes:
		op = block.OpWriteZeroes
		allowed |= cmdFlagNoHole
	default: // cmdCache is not advertised
		return 0, errnoInval
	}
	switch {
	case op != block.OpRead && c.limits.readOnly():
		return 0, errnoPerm
	case h.flags&^allowed != 0,
		h.length == 0,
		op == block.OpTrim && !c.limits.offers(flagSendTrim),
		h.length > maxPayload && (op == block.OpRead || op == block.OpWrite):
		return 0, errnoInval
	case h.offset > c.limits.size || uint64(h.length) > c.limits.size-h.offset:
		return 0, errnoRange(op)
	case (h.offset|uint64(h.length))&uint64(c.limits.minBlock-1) != 0:
		return 0, errnoInval
	}
	return op, 0
}

// refuse answers a request that does not reach the device. A WRITE's payload
// is on its way all the same and is read past first.
func (c *conn) refuse(h *requestHeader, errno uint32) error {
	if h.cmd == cmdWrite && h.length > maxDrain {
		return fmt.Errorf("nbd: the client announced a WRITE of %d bytes; it was told that %d is the most", h.length, maxPayload)
	}
	c.pending++
	if h.cmd == cmdWrite && h.length > 0 {
		c.drain = int(h.length)
		c.refused.cookie, c.refused.errno = h.cookie, errno
		return nil
	}
	c.replyHeader(errno, h.cookie)
	return nil
}

// start turns an approved request into a block request. It returns false, and
// has done nothing, if the connection's buffer memory is used up.
func (c *conn) start(op block.Op, h *requestHeader) bool {
	data := op == block.OpRead || op == block.OpWrite
	cost := 0
	if data {
		_, cost = classOf(int(h.length))
		if c.memory > 0 && c.memory+cost > c.maxBytes {
			return false
		}
	}
	c.pending++
	c.memory += cost
	q := c.shard.newRequest(c)
	q.cookie, q.cost = h.cookie, cost
	q.Op, q.Offset, q.Length = op, h.offset, uint64(h.length)
	q.FUA = h.flags&cmdFlagFUA != 0 && op != block.OpRead && op != block.OpFlush
	q.NoUnmap = h.flags&cmdFlagNoHole != 0
	if data {
		q.buf = c.shard.pool.get(int(h.length))
		q.Data = q.buf.data(int(h.length))
	}
	if op == block.OpWrite {
		c.write, c.filled = q, 0
		c.sawLarge = c.sawLarge || h.length >= largeWrite
		return true
	}
	c.submit(q)
	return true
}

// didFill accounts for n more payload bytes of the WRITE that is arriving, and
// submits it with the last.
func (c *conn) didFill(n int) {
	c.filled += n
	q := c.write
	if c.filled < len(q.Data) {
		return
	}
	c.write = nil
	if c.shut {
		c.forget(q)
		c.replyHeader(errnoShutdown, q.cookie)
		c.shard.freeRequest(q)
		return
	}
	c.submit(q)
}

// didDrain accounts for n more bytes thrown away of a refused WRITE.
func (c *conn) didDrain(n int) {
	c.drain -= n
	if c.drain == 0 {
		c.replyHeader(c.refused.errno, c.refused.cookie)
	}
}

func (c *conn) submit(q *request) {
	c.inflight++
	c.stats.ops[q.Op].Add(1)
	c.dev.Submit(&q.Request)
}

// done takes a request back from the device.
func (c *conn) done(q *request) {
	c.inflight--
	if c.closed {
		c.forget(q)
		c.shard.freeRequest(q)
		c.publish()
		if c.inflight == 0 {
			c.srv.finished(c)
		}
		return
	}
	errno := errnoOf(q.Op, q.Err)
	if errno == 0 && q.Op == block.OpRead {
		c.stats.bytesRead.Add(q.Length)
		c.replyData(q)
	} else {
		if errno == 0 && q.Op == block.OpWrite {
			c.stats.bytesWritten.Add(q.Length)
		}
		c.forget(q)
		c.replyHeader(errno, q.cookie)
	}
	c.shard.freeRequest(q)
}

// forget gives a request's buffer back.
func (c *conn) forget(q *request) {
	c.shard.pool.put(q.buf)
	c.memory -= q.cost
	q.buf, q.Data = buffer{}, nil
}

// block keeps data, which a limit forbids to parse now, and stops the reading.
// data is either in scratch or the end of what is held already.
func (c *conn) block(data []byte) {
	c.blocked = true
	if c.held.b != nil {
		c.heldFrom = c.heldTo - len(data)
		return
	}
	c.held = c.shard.pool.get(len(data))
	c.heldFrom, c.heldTo = 0, copy(c.held.data(len(data)), data)
}

// unblock goes on with what was held back, now that replies have left. Every
// pending request ends in a reply that leaves, so this is always reached.
func (c *conn) unblock() {
	c.blocked = false
	if err := c.parse(c.held.data(c.heldTo)[c.heldFrom:]); err != nil {
		c.abort(err)
		return
	}
	if c.blocked {
		return
	}
	c.shard.pool.put(c.held)
	c.held = buffer{}
	c.stream.ResumeReading()
}

// shutDown begins the end on the server's wish: what is at the device is
// finished and answered, anything else gets ESHUTDOWN. Runs on the loop.
func (c *conn) shutDown() {
	c.shut = true
	c.closeIfDone()
}

// abort drops the connection. Runs on the loop.
func (c *conn) abort(reason error) {
	if c.stream != nil && !c.closed {
		c.closing = true
		c.stream.Abort(reason)
	}
}

// stopped tells that no further byte is wanted.
func (c *conn) stopped() bool { return c.last || c.closing || c.closed }

// closeIfDone closes the stream once the last request has been answered and
// its reply has left. DISC and the server's shutdown end that way.
func (c *conn) closeIfDone() {
	if c.inflight > 0 || c.closing || c.closed || c.stream == nil {
		return
	}
	if c.shut {
		c.last = true
	}
	if !c.last || c.replies.len() > 0 {
		return
	}
	c.closing = true
	reason := io.EOF // DISC: the client ends it in good order
	if c.shut {
		reason = ErrClosed
	}
	c.stream.Close(reason)
}

// Closed implements loop.Handler. Requests still at the device keep their
// buffers until they come back.
func (c *conn) Closed(err error) {
	if c.closed {
		return
	}
	c.closed = true
	c.replies.dropAll(c)
	if c.write != nil {
		c.forget(c.write)
		c.shard.freeRequest(c.write)
		c.write = nil
	}
	c.shard.pool.put(c.held)
	c.held = buffer{}
	c.publish()
	c.shard.leave()
	c.srv.connClosed(c, err)
	if c.inflight == 0 {
		c.srv.finished(c)
	}
}

// publish makes the accounting visible to Snapshot.
func (c *conn) publish() {
	c.stats.inflight.Store(int64(c.inflight))
	c.stats.buffered.Store(int64(c.memory))
}
