package loop

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// connBufSize is the size of a stream's read buffer, and of the buffer
	// that gathers small writes where the net.Conn cannot.
	connBufSize = 64 << 10
	// connIOV is the most slices one write takes.
	connIOV = 256
	// salvageTime is how long a stream that cannot be written to any more may
	// take to hand over what had come before.
	salvageTime = 100 * time.Millisecond
)

// order is what the loop tells a stream's writer goroutine to do.
type order uint8

const (
	orderWrite order = iota // send connStream.out
	orderShut               // tell the peer that no more comes
)

// connStream is a net.Conn on the portable loop. Its reader goroutine hands
// over one buffer and waits until it was used up; its writer goroutine carries
// out one order at a time.
type connStream struct {
	p       *portable
	h       Handler
	conn    net.Conn
	reason  error         // what Closed will say; the first one stays
	linger  Timer         // the second that Close has
	quit    chan struct{} // closed at the end: both goroutines leave
	helpers sync.WaitGroup
	ended   Task // posted when both have left

	in       []byte // the reader's; the loop's between arrived and resume
	inN      int    // how much of in was filled, and
	inErr    error  // what the reader met, handed over together with in
	arrived  Task
	resume   chan struct{} // holds one token: in was used up
	pending  []byte        // the part of in that the handler has not had yet
	stopped  bool          // the handler wants nothing for now; pending waits
	resumed  bool          // it wants more again
	readDone bool          // the reader has left
	eofHeld  bool          // it met io.EOF, which the writer may know better

	offer    [connIOV][]byte
	out      net.Buffers // the writer's, from an order until written
	outN     int
	outErr   error
	written  Task
	orders   chan order // holds one
	stage    []byte     // the writer's: gathers small writes
	writing  bool       // an order is under way
	writeErr error      // nothing can be written any more

	queued  bool // on the agenda
	flush   bool // the handler has output, as far as we know
	closing bool // Close was called: drain output, discard input
	shut    bool // the peer was told that no more comes
	dead    bool // only Closed is still to come
}

func newConnStream(p *portable, c net.Conn, h Handler) *connStream {
	s := &connStream{
		p: p, h: h, conn: c,
		quit:   make(chan struct{}),
		in:     make([]byte, connBufSize),
		resume: make(chan struct{}, 1),
		orders: make(chan order, 1),
	}
	s.arrived.Run = s.onArrived
	s.written.Run = s.onWritten
	s.ended.Run = s.onEnded
	s.linger.Fn = s.outOfTime
	s.helpers.Go(s.readLoop)
	s.helpers.Go(s.writeLoop)
	return s
}

// LocalAddr implements Stream.
func (s *connStream) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// RemoteAddr implements Stream.
func (s *connStream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// Flush implements Stream.
func (s *connStream) Flush() {
	s.flush = true
	s.touch()
}

// ResumeReading implements Stream.
func (s *connStream) ResumeReading() {
	if s.stopped {
		s.stopped, s.resumed = false, true
		s.touch()
	}
}

// Close implements Stream.
func (s *connStream) Close(reason error) {
	if s.dead || s.closing {
		return
	}
	s.closing = true
	s.because(reasonOr(reason, net.ErrClosed))
	s.p.SetTimer(&s.linger, s.p.Now()+s.p.drainTime())
	s.ResumeReading() // to discard
	s.Flush()
}

// Abort implements Stream.
func (s *connStream) Abort(reason error) { s.end(reasonOr(reason, net.ErrClosed), true) }

func (s *connStream) because(reason error) { s.reason = reasonOr(s.reason, reason) }

// touch puts the stream on the agenda for the end of the round.
func (s *connStream) touch() {
	if !s.queued && !s.dead {
		s.queued = true
		s.p.agenda.touch(s)
	}
}

// end closes the connection, with a reset if asked for, and sees to it that
// Closed is called when nothing else touches the handler's buffers any more.
func (s *connStream) end(reason error, reset bool) {
	if s.dead {
		return
	}
	s.because(reason)
	s.dead = true
	close(s.quit)
	s.p.timers.stop(&s.linger)
	go s.tearDown(reset)
}

// tearDown may block, which is why it has a goroutine of its own.
func (s *connStream) tearDown(reset bool) {
	inner := innermost(s.conn)
	if reset {
		if l, ok := inner.(interface{ SetLinger(sec int) error }); ok {
			_ = l.SetLinger(0)
		}
	}
	// The socket first: closing what is around it may want to write.
	_ = inner.Close()
	if inner != s.conn {
		_ = s.conn.Close()
	}
	s.helpers.Wait()
	s.p.inbox.postOwn(&s.ended)
}

// innermost finds the socket below TLS and the like.
func innermost(c net.Conn) net.Conn {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		below := w.NetConn()
		if below == nil {
			return c
		}
		c = below
	}
}

func (s *connStream) onEnded() {
	delete(s.p.streams, s)
	s.p.agenda.end(s.h, s.reason)
}

// outOfTime ends an orderly close that did not come to its end.
func (s *connStream) outOfTime() { s.end(net.ErrClosed, !s.shut) }

// settle is the end of a round for this stream.
func (s *connStream) settle() {
	s.queued = false
	if s.resumed && !s.dead {
		s.resumed = false
		s.pump()
	}
	if s.flush && !s.writing && s.writeErr == nil && !s.dead {
		s.order()
	}
}

// readLoop is the reader goroutine.
func (s *connStream) readLoop() {
	for {
		s.p.reads.Add(1)
		n, err := s.conn.Read(s.in)
		s.inN, s.inErr = n, err
		s.p.inbox.postOwn(&s.arrived)
		if err != nil {
			return
		}
		select {
		case <-s.resume:
		case <-s.quit:
			return
		}
	}
}

func (s *connStream) onArrived() {
	s.readDone = s.inErr != nil
	if s.dead {
		return
	}
	s.pending = s.in[:s.inN]
	s.pump()
}

// pump copies what has come to where the handler wants it, and lets the reader
// go on when all was used up.
func (s *connStream) pump() {
	for len(s.pending) > 0 && !s.closing {
		direct, scratch := s.h.ReadBuffers()
		if s.dead {
			return
		}
		if s.closing {
			break
		}
		if len(direct)+len(scratch) == 0 {
			s.stopped = true
			if s.writeErr != nil {
				s.end(s.writeErr, false)
			}
			return
		}
		n := copy(direct, s.pending)
		n += copy(scratch, s.pending[n:])
		s.pending = s.pending[n:]
		if err := s.h.DidRead(n); err != nil {
			s.end(err, true)
		}
		if s.dead {
			return
		}
	}
	s.pending = nil
	if s.readDone {
		s.readEnded()
		return
	}
	s.resume <- struct{}{} // never blocks: the reader has taken the one before
}

// readEnded is called when everything that came was handed over and the reader
// has met the end, or an error.
func (s *connStream) readEnded() {
	orderly := errors.Is(s.inErr, io.EOF)
	switch {
	case s.closing && orderly && !s.shut:
		// It may still read what we have.
	case orderly && s.writing && s.conn.SetWriteDeadline(time.Now().Add(salvageTime)) == nil:
		// A socket tells of a reset only once, and where the writer has got the
		// news the reader sees an end that looks orderly: ask the writer first.
		s.eofHeld = true
	case orderly:
		s.end(io.EOF, false)
	default:
		s.end(s.inErr, false)
	}
}

// order gives the writer what the handler has.
func (s *connStream) order() {
	s.flush = false
	bufs := s.h.WriteBuffers(s.offer[:0])
	if s.dead {
		return
	}
	for _, b := range bufs {
		if len(b) > 0 {
			s.out = bufs
			s.command(orderWrite)
			return
		}
	}
	if s.closing && !s.shut && !s.flush {
		s.shut = true
		s.command(orderShut)
	}
}

func (s *connStream) command(o order) {
	s.writing = true
	s.orders <- o // never blocks: the one before was carried out
}

// writeLoop is the writer goroutine.
func (s *connStream) writeLoop() {
	for {
		select {
		case <-s.quit:
			return
		case o := <-s.orders:
			switch o {
			case orderWrite:
				s.outN, s.outErr = s.writeOut()
			case orderShut:
				s.outN, s.outErr = 0, closeWrite(s.conn)
			}
			s.p.inbox.postOwn(&s.written)
		}
	}
}

func (s *connStream) onWritten() {
	s.writing = false
	clear(s.offer[:])
	s.out = nil
	if s.dead {
		// Closed is still to come, and what had left by then must be known: a
		// command that may have reached the peer is not safe to send again.
		if s.outN > 0 {
			s.h.DidWrite(s.outN)
		}
		return
	}
	if s.shut {
		if s.outErr != nil || s.readDone {
			s.end(net.ErrClosed, false)
		}
		return
	}
	if s.outN > 0 {
		s.h.DidWrite(s.outN)
	}
	switch {
	case s.dead:
	case s.eofHeld && !s.closing && !errors.Is(s.outErr, syscall.ECONNRESET):
		s.end(io.EOF, false)
	case s.outErr != nil:
		s.writeFailed(s.outErr)
	default:
		s.Flush() // there may be more
	}
}

// writeFailed ends a stream that cannot be written to any more, after the
// bytes that reached us before it broke: they may say what was done.
func (s *connStream) writeFailed(err error) {
	s.because(err)
	s.writeErr = err
	allRead := s.readDone && len(s.pending) == 0
	if s.closing || s.stopped || allRead || s.conn.SetReadDeadline(time.Now().Add(salvageTime)) != nil {
		s.end(err, false)
	}
}

// errNoHalfClose makes the caller close the connection as a whole.
var errNoHalfClose = errors.New("the connection cannot be half-closed")

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errNoHalfClose
}

// writeOut sends out. Sockets take all slices in one system call; for others
// (TLS makes a record of each Write) small slices are gathered first.
func (s *connStream) writeOut() (int, error) {
	switch s.conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		s.p.writes.Add(1)
		n, err := s.out.WriteTo(s.conn)
		return int(n), err
	}
	if s.stage == nil {
		s.stage = make([]byte, 0, connBufSize)
	}
	stage, sent, err := s.stage, 0, error(nil)
	for _, b := range s.out {
		for len(b) > 0 && err == nil {
			chunk := b
			if len(stage) == 0 && len(b) >= cap(stage) { // no use in copying it
				b = nil
			} else {
				n := min(len(b), cap(stage)-len(stage))
				stage = append(stage, b[:n]...)
				b = b[n:]
				if len(stage) < cap(stage) {
					continue
				}
				chunk, stage = stage, stage[:0]
			}
			var n int
			n, err = s.writeAll(chunk)
			sent += n
		}
	}
	if err != nil {
		return sent, err
	}
	n, err := s.writeAll(stage)
	return sent + n, err
}

func (s *connStream) writeAll(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.p.writes.Add(1)
	n, err := s.conn.Write(b)
	if n < len(b) && err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}
