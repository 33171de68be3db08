// Package loop runs protocol endpoints that do no I/O themselves.
//
// A Loop owns a set of streams (NBD sockets, iSCSI connections) and everything
// above them: sessions, paths, the multipath device. All of that runs on the
// loop, one event at a time, and needs no lock. Two drivers implement Loop:
//
//   - Reactor (Linux): one goroutine locked to its OS thread, epoll over raw
//     non-blocking sockets, run to completion, one writev per socket and round.
//   - Portable (any system, any net.Conn): one loop goroutine, a reader and a
//     writer goroutine per stream. For TLS, other systems, and tests in virtual
//     time (net.Pipe and testing/synctest).
//
// Nothing that runs on a loop may block.
package loop

import (
	"errors"
	"net"
)

// ErrClosed is what a stream's Handler gets in Closed when the loop ends.
var ErrClosed = errors.New("loop closed")

// Handler is one protocol endpoint: bytes in, bytes out, no I/O. All methods
// are called by the loop only.
type Handler interface {
	// ReadBuffers says where the next bytes go: direct is filled first, then
	// scratch. Either may be empty; with both empty the loop stops reading
	// this stream until Stream.ResumeReading (back-pressure). The slices must
	// stay valid until DidRead, which follows at once on the same stack: a
	// driver never holds them while other code of the loop runs.
	ReadBuffers() (direct, scratch []byte)
	// DidRead tells that n > 0 bytes were placed. An error closes the stream
	// abortively with that error as the reason.
	DidRead(n int) error
	// WriteBuffers appends the bytes to be sent, in order, to iov and returns
	// it; it adds at most cap(iov)-len(iov) slices. The slices stay unchanged
	// until DidWrite, or Closed.
	WriteBuffers(iov [][]byte) [][]byte
	// DidWrite tells that the first n bytes of what WriteBuffers returned
	// have left (were taken by the kernel or by the net.Conn).
	DidWrite(n int)
	// Closed is the last call. When it comes, no driver goroutine touches any
	// buffer of this handler any more. err is io.EOF when the peer closed in
	// an orderly way, the reason given to Close or Abort, or the socket's error.
	Closed(err error)
}

// Stream is a Handler's hold on its socket. All methods only on the loop; all
// are no-ops after the stream was closed.
type Stream interface {
	// Flush asks for WriteBuffers to be called before the loop sleeps again.
	// It never writes at once, so that neighbours leave in one system call.
	Flush()
	// ResumeReading undoes the stop that empty ReadBuffers caused.
	ResumeReading()
	// Close closes in an orderly way once everything WriteBuffers has to offer
	// has left, but not later than a second from now. Reading stops at once.
	Close(reason error)
	// Abort drops what is unsent and resets the connection (TCP: RST, so that
	// bytes already handed to the kernel cannot leave later either).
	// Handler.Closed comes later in the same or a following round, never from
	// inside Abort.
	Abort(reason error)
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// Loop is one shard's executor.
type Loop interface {
	// Now is the monotonic time in nanoseconds since the loop was made. Cheap;
	// read afresh before each callback. Only on the loop.
	Now() int64
	// Post runs fn on the loop, soon. Any goroutine. After Close it returns
	// false and fn will never run; a true return guarantees that fn runs.
	Post(fn func()) bool
	// PostTask is Post without an allocation: t.Run runs on the loop. A Task
	// must not be posted again before it ran. Any goroutine.
	PostTask(t *Task) bool
	// Attach takes over c, which must carry no unread data of ours, and
	// serves h over it. c must not be used by anyone else afterwards. On error c is closed.
	// Only on the loop.
	Attach(c net.Conn, h Handler) (Stream, error)
	// SetTimer (re-)arms t for the given Now time; t.Fn runs on the loop, once.
	// Only on the loop. No allocation once t has been armed before.
	SetTimer(t *Timer, when int64)
	// StopTimer disarms t; a no-op if it is not armed. Only on the loop.
	StopTimer(t *Timer)
	// Close ends the loop: posted work that was accepted still runs, every
	// stream is aborted and gets Closed(ErrClosed), then goroutines end. It
	// waits for that. Idempotent. Never call it on the loop.
	Close()
	// Done is closed when the loop has ended.
	Done() <-chan struct{}
}

// Task is a reusable unit of posted work.
type Task struct {
	Run  func()
	next *Task
}

// Timer is a reusable timer.
type Timer struct {
	Fn    func()
	when  int64
	index int // heap position + 1; 0 = not armed
}
