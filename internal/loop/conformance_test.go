package loop

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
)

// echo attaches an endpoint that sends back what it gets.
func echo(t *testing.T, l Loop, c net.Conn) *endpoint {
	e := newEndpoint(t)
	e.onRead = func(n int) error {
		e.say(slices.Clone(e.received))
		e.received = e.received[:0]
		return nil
	}
	e.attach(l, c)
	return e
}

// checkEcho sends 1 MiB in odd pieces and expects it back.
func checkEcho(t *testing.T, peer net.Conn) {
	want := pattern(1 << 20)
	sent := make(chan error, 1)
	go func() {
		for _, chunk := range chunks(want) {
			if _, err := peer.Write(chunk); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	got := make([]byte, len(want))
	_, err := io.ReadFull(peer, got)
	require.NoError(t, err)
	require.NoError(t, await(t, sent, "end of sending"))
	assertSame(t, want, got)
}

func TestEcho(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			if network == "unix" && runtime.GOOS == "windows" {
				t.Skip("no unix sockets to speak of")
			}
			onDrivers(t, func(t *testing.T, l Loop) {
				address := "127.0.0.1:0"
				if network == "unix" {
					address = filepath.Join(shortdir.New(t), "s")
				}
				c := connect(t, network, address)
				e := echo(t, l, c.ours)
				assert.Equal(t, c.peer.LocalAddr().String(), e.stream.RemoteAddr().String())
				assert.Equal(t, c.peer.RemoteAddr().String(), e.stream.LocalAddr().String())
				checkEcho(t, c.peer)
				require.NoError(t, c.peer.Close())
				assert.Equal(t, io.EOF, e.outcome())
			})
		})
	}
}

func TestDirectIsFilledBeforeScratch(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		sizes := [][2]int{{10, 7}, {0, 5}, {64, 0}, {1, 1}, {3000, 4000}}
		want := pattern(100_000)
		enough := make(chan struct{})
		e := newEndpoint(t)
		e.buffers = func() (direct, scratch []byte) {
			size := sizes[e.reads%len(sizes)]
			return make([]byte, size[0]), make([]byte, size[1])
		}
		e.onRead = func(int) error {
			if len(e.received) == len(want) {
				close(enough)
			}
			return nil
		}
		e.attach(l, ours)
		_, err := peer.Write(want)
		require.NoError(t, err)
		await(t, enough, "the last byte")
		do(t, l, func() { assertSame(t, want, e.received) })
	})
}

func TestBackPressure(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := narrowPair(t)
		const limit = 100_000
		allowed := limit
		want := pattern(tooMuch)
		full, enough := make(chan struct{}), make(chan struct{})
		e := newEndpoint(t)
		e.buffers = func() (direct, scratch []byte) {
			return nil, e.scratch[:min(len(e.scratch), allowed-len(e.received))]
		}
		e.onRead = func(int) error {
			switch len(e.received) {
			case limit:
				close(full)
			case len(want):
				close(enough)
			}
			return nil
		}
		e.attach(l, ours)
		sent := make(chan error, 1)
		var written atomic.Int64
		go func() {
			for _, chunk := range chunks(want) {
				n, err := peer.Write(chunk)
				written.Add(int64(n))
				if err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		await(t, full, "the limit")

		// The sender gets stuck: nobody reads.
		for before := int64(-1); before != written.Load(); time.Sleep(50 * time.Millisecond) {
			before = written.Load()
		}
		assert.Less(t, written.Load(), int64(len(want)))
		do(t, l, func() {
			assert.Len(t, e.received, limit)
			allowed = len(want)
			e.stream.ResumeReading()
			e.stream.ResumeReading() // twice is as good as once
		})
		await(t, enough, "the last byte")
		require.NoError(t, await(t, sent, "end of sending"))
		do(t, l, func() { assertSame(t, want, e.received) })
	})
}

func TestPeerCloseIsEOFAfterAllBytes(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		want := pattern(300_000)
		e := newEndpoint(t)
		stopped := make(chan struct{})
		open := false
		e.buffers = func() (direct, scratch []byte) {
			if !open {
				select {
				case <-stopped:
				default:
					close(stopped)
				}
				return nil, nil
			}
			return nil, e.scratch
		}
		e.attach(l, ours)
		_, err := peer.Write(want)
		require.NoError(t, err)
		require.NoError(t, peer.Close())
		await(t, stopped, "the first ReadBuffers")
		assert.Empty(t, e.closed, "the end must not overtake the bytes")
		do(t, l, func() { open = true; e.stream.ResumeReading() })
		assert.Equal(t, io.EOF, e.outcome())
		assertSame(t, want, e.received)
	})
}

func TestResetIsECONNRESETAfterAllBytes(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		want := pattern(50_000)
		e := newEndpoint(t)
		all := make(chan struct{})
		e.onRead = func(int) error {
			if len(e.received) == len(want) {
				close(all)
			}
			return nil
		}
		e.attach(l, ours)
		_, err := peer.Write(want)
		require.NoError(t, err)
		await(t, all, "the last byte")
		require.NoError(t, peer.SetLinger(0))
		require.NoError(t, peer.Close())
		require.ErrorIs(t, e.outcome(), syscall.ECONNRESET)
		assertSame(t, want, e.received)
	})
}

// A connection that breaks while we write may have brought answers before.
func TestLastWordsBeforeWriteError(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		e := newEndpoint(t)
		e.attach(l, ours)
		do(t, l, func() { // the loop sees nothing of this before it writes
			_, err := peer.Write([]byte("last words"))
			assert.NoError(t, err)
			assert.NoError(t, peer.SetLinger(0))
			assert.NoError(t, peer.Close())
			e.say(pattern(100))
		})
		err := e.outcome()
		assert.True(t, isReset(err), "%v", err)
		assert.Equal(t, "last words", string(e.received))
	})
}

// isReset accepts both names a dead peer has for a writer.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func TestAbortResetsAndDropsOutput(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := narrowPair(t)
		total := 4 * tooMuch
		e := newEndpoint(t)
		started := make(chan struct{}, 1)
		e.onWrite = func(int) {
			select {
			case started <- struct{}{}:
			default:
			}
		}
		e.attach(l, ours)
		do(t, l, func() {
			for range total >> 20 {
				e.say(make([]byte, 1<<20))
			}
		})
		if _, isPortable := l.(*portable); !isPortable {
			await(t, started, "the first write") // the portable writer is still at its first order
		}
		do(t, l, func() {
			e.stream.Abort(errTest)
			assert.Zero(t, e.ended, "Closed from inside Abort")
			e.stream.Abort(io.ErrUnexpectedEOF)
			e.stream.Flush()
			e.stream.ResumeReading()
			e.stream.Close(nil)
		})
		assert.Equal(t, errTest, e.outcome())
		n, err := io.Copy(io.Discard, peer)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		assert.Less(t, n, int64(total))
		assert.NotNil(t, e.stream.RemoteAddr())
	})
}

func TestCloseDrains(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		drainsAtLeisure(t, l)
		ours, peer := narrowPair(t)
		want := pattern(tooMuch)
		e := newEndpoint(t)
		e.attach(l, ours)
		// The peer talks all the time, and what it says is never read: that
		// must not reset the connection before our bytes are out.
		noise := make(chan struct{})
		go func() {
			defer close(noise)
			for {
				if _, err := peer.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}()
		do(t, l, func() {
			for _, chunk := range chunks(want) {
				e.say(chunk)
			}
			e.stream.Close(errTest)
			e.stream.Close(io.EOF) // the first reason counts
		})
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		assertSame(t, want, got)
		require.NoError(t, peer.Close())
		assert.Equal(t, errTest, e.outcome())
		await(t, noise, "end of noise")
	})
}

// A peer that wants to get rid of its own bytes before it reads ours can do so:
// closing throws them away, also where reading was stopped before.
func TestCloseDiscardsInput(t *testing.T) {
	for name, stopped := range map[string]bool{"reading": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			onDrivers(t, func(t *testing.T, l Loop) {
				drainsAtLeisure(t, l)
				ours, peer := narrowPair(t)
				want := pattern(tooMuch)
				asked := make(chan struct{}, 1)
				e := newEndpoint(t)
				e.buffers = func() (direct, scratch []byte) {
					select {
					case asked <- struct{}{}:
					default:
					}
					if stopped {
						return nil, nil
					}
					return nil, e.scratch
				}
				e.attach(l, ours)
				_, err := peer.Write([]byte("x"))
				require.NoError(t, err)
				await(t, asked, "the first byte")
				do(t, l, func() { e.say(want); e.stream.Close(errTest) })
				_, err = peer.Write(make([]byte, tooMuch))
				require.NoError(t, err)
				got, err := io.ReadAll(peer)
				require.NoError(t, err)
				assertSame(t, want, got)
				require.NoError(t, peer.Close())
				assert.Equal(t, errTest, e.outcome())
				assert.LessOrEqual(t, len(e.received), 1, "reading stops at once")
			})
		})
	}
}

// A peer that has half-closed while we are closing may still read our output.
func TestCloseDrainsToHalfClosedPeer(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		drainsAtLeisure(t, l)
		ours, peer := narrowPair(t)
		want := pattern(tooMuch)
		e := newEndpoint(t)
		e.attach(l, ours)
		do(t, l, func() { e.say(want); e.stream.Close(errTest) })
		first := make([]byte, 1000)
		_, err := io.ReadFull(peer, first)
		require.NoError(t, err)
		require.NoError(t, peer.CloseWrite())
		rest, err := io.ReadAll(peer)
		require.NoError(t, err)
		assertSame(t, want, append(first, rest...))
		assert.Equal(t, errTest, e.outcome())
	})
}

func TestCloseWithNothingToSend(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		e := newEndpoint(t)
		e.attach(l, ours)
		do(t, l, func() { e.stream.Close(nil) })
		_, err := peer.Read(make([]byte, 1))
		assert.Equal(t, io.EOF, err)
		require.NoError(t, peer.Close())
		assert.Equal(t, net.ErrClosed, e.outcome())
	})
}

func TestCloseTakesASecondAtMost(t *testing.T) {
	t.Run("peer does not read", func(t *testing.T) {
		onDrivers(t, func(t *testing.T, l Loop) {
			ours, peer := narrowPair(t)
			e := newEndpoint(t)
			e.attach(l, ours)
			var begin time.Time
			do(t, l, func() {
				begin = time.Now()
				e.say(make([]byte, tooMuch))
				e.stream.Close(errTest)
			})
			assert.Equal(t, errTest, e.outcome())
			assert.Less(t, time.Since(begin), patience)
			_, err := io.Copy(io.Discard, peer)
			assert.ErrorIs(t, err, syscall.ECONNRESET, "a truncated stream must not look complete")
		})
	})
	t.Run("peer does not close", func(t *testing.T) {
		onDrivers(t, func(t *testing.T, l Loop) {
			ours, peer := narrowPair(t)
			e := newEndpoint(t)
			e.attach(l, ours)
			begin := time.Now()
			do(t, l, func() { e.say([]byte("bye")); e.stream.Close(errTest) })
			got, err := io.ReadAll(peer)
			require.NoError(t, err)
			assert.Equal(t, "bye", string(got))
			assert.Equal(t, errTest, e.outcome())
			assert.GreaterOrEqual(t, time.Since(begin), drainTime)
			assert.Less(t, time.Since(begin), patience)
		})
	})
	t.Run("abort cuts it short", func(t *testing.T) {
		onDrivers(t, func(t *testing.T, l Loop) {
			ours, peer := narrowPair(t)
			e := newEndpoint(t)
			e.attach(l, ours)
			do(t, l, func() {
				e.say(make([]byte, tooMuch))
				e.stream.Close(errTest)
				e.stream.Abort(io.ErrUnexpectedEOF)
			})
			assert.Equal(t, errTest, e.outcome(), "the first reason counts")
			_, err := io.Copy(io.Discard, peer)
			assert.ErrorIs(t, err, syscall.ECONNRESET)
		})
	})
}

func TestFullSocketGoesOnWhenPeerReads(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := narrowPair(t)
		want := pattern(tooMuch)
		e := newEndpoint(t)
		gone := make(chan struct{})
		e.onWrite = func(int) {
			if e.unsent == 0 {
				close(gone)
			}
		}
		e.attach(l, ours)
		do(t, l, func() {
			for _, chunk := range chunks(want) {
				e.say(chunk)
				e.say(nil) // empty slices do no harm
			}
		})
		// Wait until nothing moves any more.
		for before := -1; ; time.Sleep(50 * time.Millisecond) {
			var now int
			do(t, l, func() { now = e.unsent; e.stream.Flush() })
			if now == before {
				break
			}
			before = now
		}
		do(t, l, func() { assert.Positive(t, e.unsent) })
		got := make([]byte, len(want))
		_, err := io.ReadFull(peer, got)
		require.NoError(t, err)
		assertSame(t, want, got)
		await(t, gone, "the last DidWrite") // the portable writer reports a moment later
	})
}

// A write that the peer's death makes fail is noticed though reading is stopped.
func TestWriteErrorWhileStopped(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := narrowPair(t)
		stopped := make(chan struct{}, 1)
		e := newEndpoint(t)
		e.buffers = func() (direct, scratch []byte) {
			select {
			case stopped <- struct{}{}:
			default:
			}
			return nil, nil
		}
		e.attach(l, ours)
		_, err := peer.Write([]byte("x"))
		require.NoError(t, err)
		await(t, stopped, "the stop")
		do(t, l, func() { e.say(make([]byte, tooMuch)) }) // more than sockets hold
		require.NoError(t, peer.SetLinger(0))
		require.NoError(t, peer.Close())
		err = e.outcome()
		assert.True(t, isReset(err), "%v", err)
	})
}

func TestAttachRefuses(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, _ := pair(t)
		require.NoError(t, ours.Close())
		do(t, l, func() {
			_, err := l.Attach(nil, newEndpoint(t))
			assert.Error(t, err)
			_, err = l.Attach(ours, newEndpoint(t))
			assert.ErrorIs(t, err, net.ErrClosed)
		})
	})
}

// Deadlines left over from a login must not end the stream.
func TestAttachForgetsDeadlines(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		require.NoError(t, ours.SetDeadline(time.Now().Add(-time.Second)))
		e := echo(t, l, ours)
		checkEcho(t, peer)
		assert.Empty(t, e.closed)
	})
}
