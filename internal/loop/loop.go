// Package loop runs protocol endpoints that do no I/O themselves.
//
// A Loop owns a set of streams (NBD sockets, iSCSI connections) and everything
// above them: sessions, paths, the multipath device. All of that runs on the
// loop, one event at a time, and needs no lock. Two drivers implement Loop:
//
//   - Reactor (Linux): one goroutine locked to its OS thread, epoll over raw
//     non-blocking sockets, run to completion, one gathering write per socket
//     and round.
//   - Portable (any system, any net.Conn): one loop goroutine, a reader and a
//     writer goroutine per stream. For TLS, other systems, and tests in virtual
//     time (net.Pipe and testing/synctest).
//
// Nothing that runs on a loop may block. No protocol belongs here, and nothing
// that dials, listens or logs.
package loop

import (
	"cmp"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// ErrClosed is what a stream's Handler gets in Closed when the loop ends, and
// what Attach returns from then on.
var ErrClosed = errors.New("loop closed")

// drainTime is how long Stream.Close may take to end a stream in good order.
const drainTime = time.Second

// drainer is embedded by the drivers: drainTime, or what a test sets that must not
// depend on how fast the machine is. Loop only.
type drainer struct{ instead time.Duration }

func (d *drainer) setDrainTime(t time.Duration) { d.instead = t }

func (d *drainer) drainTime() int64 { return int64(cmp.Or(d.instead, drainTime)) }

// maxIOV is the number of slices a handler is asked for at once. Linux takes
// no more than 1024 (IOV_MAX) in one system call.
const maxIOV = 1024

// Handler is one protocol endpoint: bytes in, bytes out, no I/O. All methods
// are called by the loop only, one at a time, the first of them after Attach
// has returned. Each may call any method of its Stream and of the Loop except
// Loop.Close; what that brings about comes later, never on the same stack.
// A panic in a Handler ends the process: no driver recovers from it.
type Handler interface {
	// ReadBuffers says where the next bytes go: direct is filled first, then
	// scratch. Either may be empty; with both empty the loop stops reading
	// this stream until Stream.ResumeReading (back-pressure), and until then
	// sees the end of the connection only if a write fails. The slices must
	// stay valid until DidRead, which follows at once on the same stack or
	// not at all (there was nothing to read): a driver never holds them while
	// other code of the loop runs.
	ReadBuffers() (direct, scratch []byte)
	// DidRead tells that n > 0 bytes were placed. An error closes the stream
	// abortively with that error as the reason.
	DidRead(n int) error
	// WriteBuffers appends the bytes to be sent, in order, to iov and returns
	// it; it adds at most cap(iov)-len(iov) slices. An offer without a single
	// byte means that nothing is left to send; it is asked again after the
	// next Flush. The slices stay unchanged until DidWrite, or Closed.
	WriteBuffers(iov [][]byte) [][]byte
	// DidWrite tells that the first n > 0 bytes of what WriteBuffers returned
	// have left (were taken by the kernel or by the net.Conn). The next
	// WriteBuffers begins with the byte after them. It may come after Abort, for
	// a write that was under way, but never after Closed: then every byte that
	// may have reached the peer has been told of.
	DidWrite(n int)
	// Closed is the last call, and comes exactly once. When it comes, no
	// driver goroutine touches any buffer of this handler any more. err is
	// never nil: io.EOF when the peer closed (or half-closed) in an orderly
	// way, the reason given to Close or Abort, what DidRead returned, ErrClosed
	// when the loop ended, or the socket's error, which errors.Is finds
	// (syscall.ECONNRESET and so on). Of several reasons the first one counts.
	// All bytes that came before the end were handed over first, unless the
	// end was asked for on this side or reading was stopped.
	Closed(err error)
}

// Stream is a Handler's hold on its socket. All methods only on the loop; all
// but the addresses are no-ops after the stream was closed.
type Stream interface {
	// Flush asks for WriteBuffers to be called before the loop sleeps again.
	// It never writes at once, so that neighbors leave in one system call.
	// While the socket is full, that call waits until it takes bytes again.
	Flush()
	// ResumeReading undoes the stop that empty ReadBuffers caused.
	ResumeReading()
	// Close closes in an orderly way once everything WriteBuffers has to offer
	// has left, but not later than a second from now. Reading stops at once:
	// what the peer still sends is thrown away. After our last byte the peer
	// has the rest of that second to close its side too, because closing over
	// its unread bytes would reset the connection and could destroy ours. With
	// output left when the second is over the connection is reset. Closed gets
	// reason (net.ErrClosed for nil) whatever happens in between.
	Close(reason error)
	// Abort drops what is unsent and resets the connection (TCP: RST, so that
	// bytes already handed to the kernel cannot leave later either). It is
	// certain to have happened when Closed comes, with reason (net.ErrClosed
	// for nil), later in the same or a following round, never from inside
	// Abort. The reactor resets before Abort returns.
	Abort(reason error)
	// LocalAddr is this end's address, also after the stream was closed.
	LocalAddr() net.Addr
	// RemoteAddr is the peer's address, also after the stream was closed.
	RemoteAddr() net.Addr
}

// Loop is one shard's executor.
type Loop interface {
	// Now is the monotonic time in nanoseconds since the loop was made. Cheap;
	// read afresh before each callback. Only on the loop.
	Now() int64
	// Post runs fn on the loop, soon, in the order of posting. Any goroutine.
	// After Close it returns false and fn will never run; a true return
	// guarantees that fn runs.
	Post(fn func()) bool
	// PostTask is Post without an allocation: t.Run runs on the loop. A Task
	// must not be posted again before it ran (that panics); Run itself may
	// post it again. Any goroutine.
	PostTask(t *Task) bool
	// Attach takes over c, which must carry no unread data of ours, and
	// serves h over it. c must not be used by anyone else afterwards. On error
	// c is closed. The reactor takes *net.TCPConn and stream *net.UnixConn
	// only; its error for others wraps errors.ErrUnsupported.
	// Only on the loop.
	Attach(c net.Conn, h Handler) (Stream, error)
	// SetTimer (re-)arms t for the given Now time; t.Fn runs on the loop, once,
	// never early, and never inside SetTimer: a time that has passed means the
	// next round. Timers due together run by time, then in the order in which
	// they were armed. A timer belongs to one loop at a time.
	// Only on the loop. No allocation once t has been armed before.
	SetTimer(t *Timer, when int64)
	// StopTimer disarms t; a no-op if it is not armed. Once it returned, t.Fn
	// does not run. Only on the loop.
	StopTimer(t *Timer)
	// Close ends the loop: posted work that was accepted still runs, every
	// stream is aborted and gets Closed(ErrClosed), timers are dropped and no
	// longer armed, then goroutines end. It waits for that. Idempotent. Any goroutine, but
	// never on the loop: it would wait for itself.
	Close()
	// Done is closed when the loop has ended.
	Done() <-chan struct{}
}

// Task is a reusable unit of posted work. It must not be copied.
type Task struct {
	Run    func() // what runs on the loop; set before the first posting
	next   *Task
	posted atomic.Bool // between PostTask and Run
}

// Timer is a reusable timer.
type Timer struct {
	Fn    func() // what runs on the loop; set before the first SetTimer
	when  int64  // Now time, nanoseconds
	seq   uint64 // order of arming, decides between equal times
	index int    // heap position + 1; 0 = not armed
}

// New returns the best driver for plain sockets: the reactor on Linux, the
// portable one elsewhere or where the kernel refuses what the reactor needs.
// TLS and other net.Conn types need NewPortable.
func New() Loop {
	if r, err := NewReactor(); err == nil {
		return r
	}
	return NewPortable()
}

// reasonOr makes sure that Closed never gets a nil error.
func reasonOr(reason, instead error) error {
	if reason == nil {
		return instead
	}
	return reason
}
