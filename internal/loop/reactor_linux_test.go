package loop

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/internal/shortdir"
)

func openReactor(t *testing.T) *reactor {
	t.Helper()
	leak.Check(t)
	l, err := NewReactor()
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l.(*reactor)
}

func TestNewIsTheReactor(t *testing.T) {
	l := New()
	defer l.Close()
	assert.IsType(t, &reactor{}, l)
}

func TestReactorRefusesWhatHasNoSocket(t *testing.T) {
	l := openReactor(t)
	ours, peer := net.Pipe()
	inner, innerPeer := pair(t)
	datagram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(shortdir.New(t), "s")})
	require.NoError(t, err)
	do(t, l, func() {
		for _, c := range []net.Conn{ours, tls.Client(inner, &tls.Config{InsecureSkipVerify: true}), datagram} {
			_, err := l.Attach(c, newEndpoint(t))
			assert.ErrorIs(t, err, errors.ErrUnsupported)
		}
	})
	_, err = peer.Read(make([]byte, 1))
	assert.Equal(t, io.EOF, err)
	_, err = innerPeer.Read(make([]byte, 1))
	assert.Equal(t, io.EOF, err)
	_, err = datagram.Write([]byte("x"))
	assert.ErrorIs(t, err, net.ErrClosed)
}

// Attach must not inherit a linger time, which would make close(2) block.
func TestReactorClearsLinger(t *testing.T) {
	l := openReactor(t)
	ours, _ := pair(t)
	require.NoError(t, ours.SetLinger(30))
	e := newEndpoint(t)
	e.attach(l, ours)
	do(t, l, func() {
		fd := e.stream.(*sockStream).fd
		linger, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER)
		assert.NoError(t, err)
		assert.Zero(t, linger)
		noDelay, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
		assert.NoError(t, err)
		assert.Equal(t, 1, noDelay)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		assert.NoError(t, err)
		assert.Equal(t, unix.FD_CLOEXEC, flags)
	})
}

// Two sockets are ready in one batch of events. The first one that is served
// aborts the other and attaches a third connection, which gets the other's
// descriptor and slot: the event still in the batch must not reach it.
func TestReactorStaleEventAfterReuse(t *testing.T) {
	l := openReactor(t)
	var streams [2]*endpoint
	var peers [2]*net.TCPConn
	third, thirdPeer := pair(t)
	next := newEndpoint(t)
	reused := false
	for i := range streams {
		var ours *net.TCPConn
		ours, peers[i] = pair(t)
		e := newEndpoint(t)
		e.onRead = func(int) error {
			victim := streams[1-i].stream.(*sockStream)
			if victim.dead {
				return nil
			}
			fd, slot := victim.fd, victim.slot
			victim.Abort(errTest)
			assert.Zero(t, streams[1-i].ended)
			next.attachHere(l, third)
			reused = next.stream.(*sockStream).fd == fd && next.stream.(*sockStream).slot == slot
			assert.True(t, l.Post(func() { assert.Zero(t, next.reads, "a stale event reached the new stream") }))
			return nil
		}
		streams[i] = e
		e.attach(l, ours)
	}
	do(t, l, func() {
		for _, peer := range peers {
			_, err := peer.Write([]byte("x"))
			assert.NoError(t, err)
		}
	})
	var survivor *endpoint
	select {
	case err := <-streams[0].closed:
		assert.Equal(t, errTest, err)
		survivor = streams[1]
	case err := <-streams[1].closed:
		assert.Equal(t, errTest, err)
		survivor = streams[0]
	case <-time.After(patience):
		t.Fatal("nobody was aborted")
	}
	do(t, l, func() {
		assert.True(t, reused, "the test needs the descriptor to be used again")
		assert.Equal(t, "x", string(survivor.received))
	})
	_, err := thirdPeer.Write([]byte("real"))
	require.NoError(t, err)
	require.NoError(t, thirdPeer.Close())
	assert.Equal(t, io.EOF, next.outcome())
	assert.Equal(t, "real", string(next.received))
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

func TestNoDescriptorLeaks(t *testing.T) {
	onDrivers(t, func(t *testing.T, _ Loop) {}) // warm up what opens files once
	for name, open := range drivers() {
		t.Run(name, func(t *testing.T) {
			before := openFiles(t)
			l := open(t)
			for range 10 {
				var all []*endpoint
				for how := range 5 {
					ours, peer := pair(t)
					e := echo(t, l, ours)
					all = append(all, e)
					switch how {
					case 0:
						require.NoError(t, peer.Close())
					case 1:
						require.NoError(t, peer.SetLinger(0))
						require.NoError(t, peer.Close())
					case 2:
						do(t, l, func() { e.stream.Abort(nil) })
					case 3:
						do(t, l, func() { e.stream.Close(nil) })
					case 4:
						do(t, l, func() { _, _ = l.Attach(nil, e) })
						do(t, l, func() { e.stream.Abort(nil) })
					}
					peer.Close()
				}
				for _, e := range all {
					assert.Error(t, e.outcome())
				}
			}
			l.Close()
			assert.Equal(t, before, openFiles(t))
		})
	}
}

// A burst of posts costs one wake-up.
func TestReactorWakeups(t *testing.T) {
	l := openReactor(t)
	hold, held := make(chan struct{}), make(chan struct{})
	require.True(t, l.Post(func() { close(held); <-hold }))
	await(t, held, "hold")
	before := l.Syscalls()
	var wg sync.WaitGroup
	ran := 0
	for range 50 {
		wg.Go(func() { assert.True(t, l.Post(func() { ran++; l.Post(func() { ran++ }) })) })
	}
	wg.Wait()
	assert.Zero(t, l.Syscalls().Sub(before).Wakeups, "the loop is awake")
	close(hold)
	do(t, l, func() {})
	do(t, l, func() { assert.Equal(t, 100, ran) })
	assert.LessOrEqual(t, l.Syscalls().Sub(before).Wakeups, uint64(2))
}

// An idle loop sleeps, whatever state its streams are in.
func TestReactorDoesNotSpin(t *testing.T) {
	l := openReactor(t)
	stopped := func() (direct, scratch []byte) { return nil, nil }
	arrange := map[string]func(e *endpoint, peer *net.TCPConn){
		"idle":       func(*endpoint, *net.TCPConn) {},
		"unread":     func(e *endpoint, peer *net.TCPConn) { e.buffers = stopped },
		"unread EOF": func(e *endpoint, peer *net.TCPConn) { e.buffers = stopped; peer.CloseWrite() },
		"unread reset": func(e *endpoint, peer *net.TCPConn) {
			e.buffers = stopped
			peer.SetLinger(0)
			peer.Close()
		},
		"full": func(e *endpoint, peer *net.TCPConn) { e.say(make([]byte, tooMuch)) },
		"full, unread EOF": func(e *endpoint, peer *net.TCPConn) {
			e.buffers = stopped
			e.say(make([]byte, tooMuch))
			peer.CloseWrite()
		},
		"closing, peer has half-closed, full": func(e *endpoint, peer *net.TCPConn) {
			e.say(make([]byte, tooMuch))
			e.stream.Close(nil)
			peer.CloseWrite()
		},
	}
	for name, arrange := range arrange {
		t.Run(name, func(t *testing.T) {
			ours, peer := narrowPair(t)
			e := newEndpoint(t)
			e.attach(l, ours)
			_, err := peer.Write([]byte("x"))
			require.NoError(t, err)
			do(t, l, func() { arrange(e, peer) })
			var before Counts
			span := 100 * time.Millisecond
			done := make(chan Counts, 1)
			begin := &Timer{Fn: func() {
				before = l.Syscalls()
				l.SetTimer(&Timer{Fn: func() { done <- l.Syscalls().Sub(before) }}, l.Now()+int64(span))
			}}
			do(t, l, func() { l.SetTimer(begin, l.Now()+int64(span/2)) })
			spent := await(t, done, "the timer")
			assert.Less(t, spent.Total(), uint64(20), "%+v", spent)
			do(t, l, func() { e.stream.Abort(nil) })
			e.outcome()
		})
	}
}

// What stopped reading sees of a dead connection: nothing, until it resumes.
func TestReactorResumeOnDeadConnection(t *testing.T) {
	l := openReactor(t)
	ours, peer := pair(t)
	open := false
	e := newEndpoint(t)
	e.buffers = func() (direct, scratch []byte) {
		if !open {
			return nil, nil
		}
		return nil, e.scratch
	}
	e.attach(l, ours)
	_, err := peer.Write([]byte("last words"))
	require.NoError(t, err)
	require.NoError(t, peer.SetLinger(0))
	require.NoError(t, peer.Close())
	removed := make(chan struct{})
	var poll Timer
	poll.Fn = func() {
		if s := e.stream.(*sockStream); !s.watched {
			close(removed)
			return
		}
		l.SetTimer(&poll, l.Now()+int64(time.Millisecond))
	}
	do(t, l, func() { poll.Fn() })
	await(t, removed, "the news of the reset")
	assert.Empty(t, e.closed)
	do(t, l, func() { open = true; e.stream.ResumeReading() })
	require.ErrorIs(t, e.outcome(), syscall.ECONNRESET)
	assert.Equal(t, "last words", string(e.received))
}

// A connection that epoll calls broken although there is nothing to read must
// come to an end, not be reported again and again.
func TestReactorBrokenWithNothingToRead(t *testing.T) {
	cases := map[string]struct {
		reset  bool
		events uint32
		want   error
	}{
		"error in the socket": {true, unix.EPOLLERR, syscall.ECONNRESET},
		"hang-up without one": {false, unix.EPOLLHUP, io.EOF},
		"false alarm":         {false, unix.EPOLLERR, errTest},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := openReactor(t)
			ours, peer := pair(t)
			e := newEndpoint(t)
			e.attach(l, ours)
			do(t, l, func() {
				if c.reset {
					assert.NoError(t, peer.SetLinger(0))
					assert.NoError(t, peer.Close())
				}
				e.stream.(*sockStream).checkBroken(c.events)
				e.stream.Abort(errTest)
			})
			assert.ErrorIs(t, e.outcome(), c.want)
		})
	}
	t.Run("found while reading", func(t *testing.T) {
		l := openReactor(t)
		ours, _ := pair(t)
		e := newEndpoint(t)
		e.attach(l, ours)
		do(t, l, func() { e.stream.(*sockStream).ready(unix.EPOLLHUP) })
		assert.Equal(t, io.EOF, e.outcome())
	})
}

// A handler that offers more slices than asked for loses nothing.
func TestReactorTooManySlices(t *testing.T) {
	l := openReactor(t)
	ours, peer := pair(t)
	greedy := &greedyHandler{endpoint: newEndpoint(t)}
	want := pattern(3 * maxIOV * 5)
	do(t, l, func() {
		var err error
		greedy.stream, err = l.Attach(ours, greedy)
		assert.NoError(t, err)
		for i := 0; i < len(want); i += 5 {
			greedy.say(want[i : i+5])
		}
	})
	got := make([]byte, len(want))
	_, err := io.ReadFull(peer, got)
	require.NoError(t, err)
	assertSame(t, want, got)
}

type greedyHandler struct{ *endpoint }

func (h *greedyHandler) WriteBuffers(iov [][]byte) [][]byte { return append(iov, h.out...) }

// Streams flagged in one round leave with one system call each.
func TestReactorGathersOutput(t *testing.T) {
	l := openReactor(t)
	ours, peer := pair(t)
	e := newEndpoint(t)
	e.attach(l, ours)
	before := l.Syscalls()
	do(t, l, func() {
		for range 500 {
			e.say([]byte("0123456789"))
		}
	})
	_, err := io.ReadFull(peer, make([]byte, 5000))
	require.NoError(t, err)
	do(t, l, func() {})
	assert.Equal(t, uint64(1), l.Syscalls().Sub(before).Writes)
}
