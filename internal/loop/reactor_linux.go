package loop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// eventsPerWait is the most sockets one round looks at.
	eventsPerWait = 128
	// readsPerEvent bounds how long one socket may go on filling its buffers
	// before the others get their turn.
	readsPerEvent = 4
	// writesPerSettle bounds the same for output.
	writesPerSettle = 4
	// trashSize is how much unwanted input is thrown away at once.
	trashSize = 64 << 10
	// wakeSlot is the table index that stands for the eventfd.
	wakeSlot = -1
)

// reactor is the epoll driver. All fields but inbox, counters and done belong
// to its goroutine.
type reactor struct {
	counters
	drainer
	epfd, evfd int
	one        [8]byte // what a ring adds to the eventfd; constant
	start      time.Time
	now        int64
	tickFn     func() // r.tick, bound once
	inbox      inbox
	timers     timers
	agenda     agenda
	pacer      pacer
	slots      []slot
	free       []int32 // unused entries of slots
	closing    bool
	events     [eventsPerWait]unix.EpollEvent
	raw        rawIO
	offer      [maxIOV][]byte
	trash      []byte
	done       chan struct{}
}

// slot is what the data of an epoll event leads to. The generation tells an
// event for the present stream from a stale one for a stream that had the
// same slot, and perhaps the same descriptor, earlier in this round.
type slot struct {
	stream *sockStream
	gen    int32
}

// NewReactor returns the epoll driver, running. It takes *net.TCPConn and
// stream *net.UnixConn only. The error is the kernel's (descriptor limit,
// a sandbox without epoll).
func NewReactor() (Loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot start the reactor, raise the limit of open files or use the portable loop: %w",
			os.NewSyscallError("epoll_create1", err))
	}
	evfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("cannot start the reactor, raise the limit of open files or use the portable loop: %w",
			os.NewSyscallError("eventfd2", err))
	}
	r := &reactor{epfd: epfd, evfd: evfd, start: time.Now(), done: make(chan struct{})}
	binary.NativeEndian.PutUint64(r.one[:], 1)
	r.tickFn = r.tick
	r.inbox.ring = r.ring
	// Edge-triggered: each ring is one event, and nobody has to read the counter.
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, evfd, &event); err != nil {
		unix.Close(epfd)
		unix.Close(evfd)
		return nil, fmt.Errorf("cannot start the reactor, use the portable loop: %w", os.NewSyscallError("epoll_ctl", err))
	}
	go r.run()
	return r, nil
}

// Now implements Loop.
func (r *reactor) Now() int64 { return r.now }

// tick reads the clock; it runs before each callback.
func (r *reactor) tick() { r.now = int64(time.Since(r.start)) }

// Post implements Loop.
func (r *reactor) Post(fn func()) bool { return r.inbox.post(&Task{Run: fn}) }

// PostTask implements Loop.
func (r *reactor) PostTask(t *Task) bool { return r.inbox.post(t) }

// SetTimer implements Loop.
func (r *reactor) SetTimer(t *Timer, when int64) {
	if !r.closing {
		r.timers.set(t, when, r.now)
	}
}

// StopTimer implements Loop.
func (r *reactor) StopTimer(t *Timer) { r.timers.stop(t) }

// Done implements Loop.
func (r *reactor) Done() <-chan struct{} { return r.done }

// Close implements Loop.
func (r *reactor) Close() {
	r.inbox.close()
	<-r.done
}

// ring wakes the loop out of epoll_wait.
func (r *reactor) ring() {
	r.wakeups.Add(1)
	// It can only fail when 2^64-2 rings were never seen.
	_, _ = unix.Write(r.evfd, r.one[:])
}

func (r *reactor) run() {
	// One thread for all: sockets stay on the core that last saw them, and no
	// other goroutine is scheduled in between.
	runtime.LockOSThread()
	defer r.release()
	// The default slack of 50 µs is more than a pause. It cannot fail.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for {
		r.pause()
		n := r.wait()
		r.dispatch(r.events[:n])
		tasks, closed := r.inbox.take()
		runTasks(tasks, r.tickFn)
		r.tick()
		r.timers.fire(r.now, r.tickFn)
		r.agenda.run(r.tickFn)
		if closed {
			r.shutDown()
			return
		}
	}
}

// shutDown ends all streams. Nothing is posted any more at this point.
func (r *reactor) shutDown() {
	r.closing = true
	for _, slot := range r.slots {
		if slot.stream != nil {
			slot.stream.end(ErrClosed, true)
		}
	}
	r.timers.clear()
	for !r.agenda.empty() {
		r.agenda.run(r.tickFn)
	}
}

// release gives back what the reactor holds. It also runs when a callback
// panics or leaves by runtime.Goexit.
func (r *reactor) release() {
	r.inbox.close()
	r.inbox.ringing.Wait() // a late ring must not hit a descriptor that is someone else's by then
	unix.Close(r.evfd)
	unix.Close(r.epfd)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the thread's next user gets the default back
	runtime.UnlockOSThread()
	close(r.done)
}

// load implements loader.
func (r *reactor) load() *Load { return &r.pacer.Load }

// pause lets events gather, under load; see pacer.
func (r *reactor) pause() {
	if !r.agenda.empty() {
		return
	}
	d := r.pacer.pause(r.now)
	if d == 0 {
		return
	}
	r.pauses.Add(1)
	r.tick()
	from := r.now
	r.raw.sleep(d)
	r.tick()
	r.pacer.paused(r.now, time.Duration(r.now-from))
}

// wait returns how many events are ready. It sleeps only when nothing is left
// to do, and asks without sleeping first: under load the answer is there, and
// the scheduler need not be told of a blocking call.
func (r *reactor) wait() int {
	n := r.poll()
	if n > 0 || !r.agenda.empty() {
		return n
	}
	timeout := r.timeout()
	if timeout == 0 || !r.inbox.sleep(false) {
		return 0
	}
	r.waits.Add(1)
	n, err := unix.EpollWait(r.epfd, r.events[:], timeout)
	r.inbox.awake()
	return r.waited(n, err)
}

func (r *reactor) poll() int {
	r.waits.Add(1)
	n, errno := r.raw.pollEvents(r.epfd, r.events[:])
	if errno != 0 {
		return r.waited(0, errno)
	}
	return n
}

func (r *reactor) waited(n int, err error) int {
	switch {
	case err == nil:
		return n
	case errors.Is(err, unix.EINTR):
		return 0
	}
	// Someone closed a descriptor that is ours; nothing works from here on.
	panic(fmt.Sprintf("loop: epoll_wait: %v", err))
}

// timeout is how long epoll may sleep, in milliseconds, rounded up so that a
// timer is due when it returns; -1 without a timer.
func (r *reactor) timeout() int {
	when, ok := r.timers.next()
	if !ok {
		return -1
	}
	r.tick()
	left := when - r.now
	if left <= 0 {
		return 0
	}
	const ms = int64(time.Millisecond)
	return int(min((left-1)/ms+1, math.MaxInt32))
}

func (r *reactor) dispatch(events []unix.EpollEvent) {
	for i := range events {
		event := &events[i]
		if event.Fd == wakeSlot {
			continue
		}
		if slot := &r.slots[event.Fd]; slot.stream != nil && slot.gen == event.Pad {
			r.tick()
			slot.stream.ready(event.Events)
		}
	}
}

// Attach implements Loop.
func (r *reactor) Attach(c net.Conn, h Handler) (Stream, error) {
	if c == nil {
		return nil, errors.New("attach: no connection given")
	}
	if r.closing {
		c.Close()
		return nil, ErrClosed
	}
	local, remote := c.LocalAddr(), c.RemoteAddr()
	fd, isTCP, err := takeSocket(c)
	if err != nil {
		return nil, fmt.Errorf("attach %v to the reactor: %w", remote, err)
	}
	s := &sockStream{r: r, h: h, fd: fd, isTCP: isTCP, reading: true, local: local, remote: remote}
	s.linger.Fn = s.outOfTime
	s.slot, s.gen = r.takeSlot(s)
	if err := s.control(unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
		r.freeSlot(s.slot)
		unix.Close(fd)
		return nil, fmt.Errorf("attach %v to the reactor: %w", remote, err)
	}
	return s, nil
}

func (r *reactor) takeSlot(s *sockStream) (index, gen int32) {
	if len(r.free) == 0 {
		r.slots = append(r.slots, slot{})
		r.free = append(r.free, int32(len(r.slots)-1))
	}
	last := len(r.free) - 1
	index = r.free[last]
	r.free = r.free[:last]
	r.slots[index].stream = s
	r.slots[index].gen++
	return index, r.slots[index].gen
}

func (r *reactor) freeSlot(index int32) {
	r.slots[index].stream = nil
	r.free = append(r.free, index)
}
