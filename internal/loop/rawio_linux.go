package loop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawIO makes the system calls that never block, or not for long. They go past the Go
// scheduler, which would otherwise be told of a possibly blocking call twice
// each time. What the kernel is given pointers to lives in here, on the heap:
// it cannot move, and the pointers in the vectors keep the buffers alive.
type rawIO struct {
	in  [2]unix.Iovec
	out [maxIOV]unix.Iovec
	msg unix.Msghdr
	nap unix.Timespec
}

// readv fills direct, then scratch. Not both may be empty.
func (w *rawIO) readv(fd int, direct, scratch []byte) (int, unix.Errno) {
	vectors := 0
	for _, b := range [2][]byte{direct, scratch} {
		if len(b) > 0 {
			setVector(&w.in[vectors], b)
			vectors++
		}
	}
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&w.in[0])), uintptr(vectors))
		if errno == unix.EINTR {
			continue
		}
		w.in = [2]unix.Iovec{}
		if errno != 0 {
			return 0, errno
		}
		raceKernelWrites(direct[:min(int(n), len(direct))])
		raceKernelWrites(scratch[:max(int(n)-len(direct), 0)])
		return int(n), 0
	}
}

// gather loads the vectors that send is going to write, and returns how many
// bytes they hold. Empty slices are skipped.
func (w *rawIO) gather(bufs [][]byte) (total int) {
	vectors := 0
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		if vectors == maxIOV {
			break // a handler that offered more than asked for; the rest comes next time
		}
		setVector(&w.out[vectors], b)
		raceKernelReads(b)
		vectors++
		total += len(b)
	}
	w.msg.Iov = &w.out[0]
	w.msg.SetIovlen(vectors)
	return total
}

// send writes what gather loaded. It is sendmsg and not writev for the sake of
// MSG_NOSIGNAL: a peer that is gone must not mean SIGPIPE to the process.
func (w *rawIO) send(fd int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&w.msg)),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if errno == unix.EINTR {
			continue
		}
		clear(w.out[:w.msg.Iovlen])
		w.msg.SetIovlen(0)
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// pollEvents is epoll_wait that does not wait.
func (w *rawIO) pollEvents(epfd int, events []unix.EpollEvent) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sleep keeps the thread, and its place in the Go scheduler: it is for times too
// short to be worth handing them over. A signal ends it early.
func (w *rawIO) sleep(d time.Duration) {
	w.nap = unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&w.nap)), 0, 0)
}

func setVector(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}

// takeSocket returns a descriptor of its own for c's socket and closes c, in
// any case: Go's poller must not watch the same socket.
func takeSocket(c net.Conn) (fd int, isTCP bool, err error) {
	defer c.Close()
	var control syscall.Conn
	switch c := c.(type) {
	case *net.TCPConn:
		control, isTCP = c, true
	case *net.UnixConn:
		control = c
	default:
		return -1, false, fmt.Errorf("%T has no socket of its own, use the portable loop: %w", c, errors.ErrUnsupported)
	}
	raw, err := control.SyscallConn()
	if err != nil {
		return -1, false, err
	}
	if cerr := raw.Control(func(p uintptr) { fd, err = dupSocket(int(p), isTCP) }); cerr != nil {
		return -1, false, cerr
	}
	return fd, isTCP, err
}

func dupSocket(of int, isTCP bool) (fd int, err error) {
	if kind, err := unix.GetsockoptInt(of, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return -1, os.NewSyscallError("getsockopt", err)
	} else if kind != unix.SOCK_STREAM {
		return -1, fmt.Errorf("only stream sockets can be attached: %w", errors.ErrUnsupported)
	}
	fd, err = unix.FcntlInt(uintptr(of), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("dup", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("fcntl", err)
	}
	if isTCP {
		// A linger time set earlier would make close(2) block the loop.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}); err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	return fd, nil
}
