package loop

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sockStream is a socket on the reactor.
type sockStream struct {
	r             *reactor
	h             Handler
	fd            int
	slot, gen     int32
	isTCP         bool
	local, remote net.Addr
	reason        error // what Closed will say; the first one stays
	linger        Timer // the second that Close has

	watching uint32 // the events epoll was asked for
	watched  bool   // epoll knows the descriptor

	queued  bool // on the agenda
	reading bool // the handler wants bytes
	flush   bool // the handler has output, as far as we know
	blocked bool // the socket is full
	hangup  bool // the connection is dead, there may be bytes left to read

	closing bool // Close was called: drain output, discard input
	shut    bool // all output was handed over, and our FIN after it
	peerEOF bool // seen while closing
	dead    bool // the descriptor is closed; only Closed is still to come
}

// LocalAddr implements Stream.
func (s *sockStream) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements Stream.
func (s *sockStream) RemoteAddr() net.Addr { return s.remote }

// Flush implements Stream.
func (s *sockStream) Flush() {
	s.flush = true
	s.touch()
}

// ResumeReading implements Stream.
func (s *sockStream) ResumeReading() {
	if !s.reading {
		s.reading = true
		s.touch()
	}
}

// Close implements Stream.
func (s *sockStream) Close(reason error) {
	if s.dead || s.closing {
		return
	}
	s.closing = true
	s.because(reasonOr(reason, net.ErrClosed))
	s.r.SetTimer(&s.linger, s.r.now+s.r.drainTime())
	s.Flush()
}

// Abort implements Stream.
func (s *sockStream) Abort(reason error) { s.end(reasonOr(reason, net.ErrClosed), true) }

func (s *sockStream) because(reason error) { s.reason = reasonOr(s.reason, reason) }

// touch puts the stream on the agenda for the end of the round.
func (s *sockStream) touch() {
	if !s.queued && !s.dead {
		s.queued = true
		s.r.agenda.touch(s)
	}
}

// end closes the descriptor now, with a reset if asked for, and schedules the
// call of Closed.
func (s *sockStream) end(reason error, reset bool) {
	if s.dead {
		return
	}
	s.because(reason)
	s.dead = true
	if s.watched {
		// Closing alone would not do if a child process has just inherited
		// the socket. There is nothing to be done about an error.
		_ = s.control(unix.EPOLL_CTL_DEL, 0)
	}
	if reset && s.isTCP {
		// It fails only on a socket that has lost its connection.
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	unix.Close(s.fd)
	s.r.freeSlot(s.slot)
	s.r.timers.stop(&s.linger)
	s.r.agenda.end(s.h, s.reason)
}

// outOfTime ends an orderly close that did not come to its end.
func (s *sockStream) outOfTime() { s.end(net.ErrClosed, !s.shut) }

// ready handles one event of epoll.
func (s *sockStream) ready(events uint32) {
	const broken = unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|broken) != 0 {
		switch {
		case s.closing:
			s.discard()
		case s.reading:
			s.read(events)
		}
	}
	if s.blocked && events&(unix.EPOLLOUT|broken) != 0 {
		s.blocked = false
		s.touch()
	}
	if events&broken != 0 {
		// Epoll reports these even unasked, and again each round; see watch.
		s.hangup = true
		s.touch()
	}
}

// read hands input over until the socket is empty, the handler wants no more,
// or the other sockets should have their turn.
func (s *sockStream) read(events uint32) {
	for range readsPerEvent {
		n, room := s.readOnce()
		if n == 0 && room > 0 && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			s.checkBroken(events)
		}
		// A read that came back short has emptied the socket.
		if n < room || s.dead || s.closing || !s.reading {
			return
		}
	}
}

// readOnce makes one system call and tells how many bytes came and how many
// could have come: 0 of some when the socket is empty, 0 of 0 when there was
// no call because the handler wants nothing, or when the stream has ended.
func (s *sockStream) readOnce() (n, room int) {
	direct, scratch := s.h.ReadBuffers()
	if s.dead || s.closing {
		return 0, 0
	}
	room = len(direct) + len(scratch)
	if room == 0 {
		s.reading = false
		s.touch()
		return 0, 0
	}
	s.r.reads.Add(1)
	n, errno := s.r.raw.readv(s.fd, direct, scratch)
	switch {
	case errno == unix.EAGAIN:
		return 0, room
	case errno != 0:
		s.end(os.NewSyscallError("read", errno), false)
		return 0, 0
	case n == 0:
		s.end(io.EOF, false)
		return 0, 0
	}
	s.r.tick()
	if err := s.h.DidRead(n); err != nil {
		s.end(err, true)
	}
	return n, room
}

// checkBroken is asked when epoll reports a broken connection but there is
// nothing to read. It makes sure that this is reported once, not for ever.
func (s *sockStream) checkBroken(events uint32) {
	code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		s.end(os.NewSyscallError("getsockopt", err), false)
	case code != 0:
		s.end(os.NewSyscallError("socket", unix.Errno(code)), false)
	case events&unix.EPOLLHUP != 0:
		s.end(io.EOF, false)
	}
}

// discard throws input away while closing.
func (s *sockStream) discard() {
	if s.r.trash == nil {
		s.r.trash = make([]byte, trashSize)
	}
	for range readsPerEvent {
		s.r.reads.Add(1)
		n, errno := s.r.raw.readv(s.fd, s.r.trash, nil)
		switch {
		case errno == unix.EAGAIN:
			return
		case errno != 0 || n == 0 && s.shut:
			s.end(net.ErrClosed, false)
			return
		case n == 0:
			s.peerEOF = true // it may still read what we have
			s.touch()
			return
		case n < trashSize:
			return
		}
	}
}

// settle is the end of a round for this stream.
func (s *sockStream) settle() {
	s.queued = false
	if s.flush && !s.blocked && !s.dead {
		s.write()
	}
	if !s.dead {
		s.watch()
	}
}

// write sends what the handler has, until the socket is full or, for this
// pass, the others should have their turn.
func (s *sockStream) write() {
	for range writesPerSettle {
		s.flush = false // a Flush from inside the callbacks counts afresh
		bufs := s.h.WriteBuffers(s.r.offer[:0])
		if s.dead {
			return
		}
		total := s.r.raw.gather(bufs)
		clear(bufs)
		if total == 0 {
			s.drained()
			return
		}
		s.flush = true
		s.r.writes.Add(1)
		n, errno := s.r.raw.send(s.fd)
		if errno != 0 && errno != unix.EAGAIN {
			s.writeFailed(os.NewSyscallError("write", errno))
			return
		}
		if n > 0 {
			s.r.tick()
			s.h.DidWrite(n)
		}
		if n < total { // full, no need to be told by another call
			s.blocked = true
		}
		if s.dead || s.blocked {
			return
		}
	}
	s.touch()
}

// drained is called when everything the handler had has left.
func (s *sockStream) drained() {
	if !s.closing || s.shut || s.flush {
		return
	}
	s.shut = true
	if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil || s.peerEOF {
		s.end(net.ErrClosed, false)
	}
}

// writeFailed ends a stream that cannot be written to any more, after the
// bytes that reached us before it broke: they may say what was done.
func (s *sockStream) writeFailed(err error) {
	s.because(err)
	arrived, _ := unix.IoctlGetInt(s.fd, unix.SIOCINQ)
	for arrived > 0 && s.reading && !s.closing && !s.dead {
		n, room := s.readOnce()
		if n == 0 && room > 0 {
			break
		}
		arrived -= n
	}
	s.end(err, false)
}

// watch brings what epoll watches in line with what is wanted.
func (s *sockStream) watch() {
	var want uint32
	if s.closing && !s.peerEOF || !s.closing && s.reading {
		want |= unix.EPOLLIN
	}
	if s.blocked {
		want |= unix.EPOLLOUT
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case s.hangup && want == 0:
		// Nobody wants to know now: without this, epoll would report the dead
		// connection without end.
		op = unix.EPOLL_CTL_DEL
		if !s.watched {
			return
		}
	case !s.watched:
		op = unix.EPOLL_CTL_ADD
	case want == s.watching:
		return
	}
	if err := s.control(op, want); err != nil {
		s.end(err, true)
	}
}

func (s *sockStream) control(op int, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: s.slot, Pad: s.gen}
	s.r.controls.Add(1)
	if err := unix.EpollCtl(s.r.epfd, op, s.fd, &event); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	s.watched, s.watching = op != unix.EPOLL_CTL_DEL, events
	return nil
}
