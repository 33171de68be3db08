package loop

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPostFromManyGoroutines(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		const posters, each = 16, 500
		var last [posters]int // only on the loop
		var ran int
		var wg sync.WaitGroup
		for p := range posters {
			wg.Go(func() {
				for i := range each {
					assert.True(t, l.Post(func() {
						assert.Equal(t, i, last[p], "order of one poster")
						last[p]++
						ran++
					}))
				}
			})
		}
		wg.Wait()
		do(t, l, func() { assert.Equal(t, posters*each, ran) })
	})
}

func TestPostTask(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		const rounds = 1000
		var task, other Task
		ran := 0
		done := make(chan struct{})
		task.Run = func() {
			if ran++; ran == rounds {
				close(done)
				return
			}
			assert.True(t, l.PostTask(&task), "a task may post itself")
		}
		require.True(t, l.PostTask(&task))
		await(t, done, "the last round")

		// A task that waits cannot be posted again.
		hold, held := make(chan struct{}), make(chan struct{})
		other.Run = func() { ran++ }
		require.True(t, l.Post(func() { close(held); <-hold }))
		await(t, held, "hold")
		require.True(t, l.PostTask(&other))
		assert.Panics(t, func() { l.PostTask(&other) })
		close(hold)
		do(t, l, func() { assert.Equal(t, rounds+1, ran) })

		l.Close()
		assert.False(t, l.PostTask(&other))
		assert.False(t, l.PostTask(&other), "refused, so it is not pending")
		assert.False(t, l.Post(func() { t.Error("ran after Close") }))
	})
}

func TestCloseWhileBusy(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		const streams, posters = 8, 8
		endpoints := make([]*endpoint, streams)
		var peers sync.WaitGroup
		for i := range endpoints {
			ours, peer := pair(t)
			endpoints[i] = echo(t, l, ours)
			peers.Go(func() { // keeps the loop busy until it resets the connection
				for {
					if _, err := peer.Write(make([]byte, 3000)); err != nil {
						return
					}
				}
			})
			peers.Go(func() { _, _ = io.Copy(io.Discard, peer) })
		}
		var accepted, ran atomic.Int64
		var wg sync.WaitGroup
		for range posters {
			wg.Go(func() {
				for l.Post(func() { ran.Add(1) }) {
					accepted.Add(1)
				}
			})
		}
		timer := &Timer{Fn: func() { t.Error("an armed timer outlived the loop") }}
		do(t, l, func() { l.SetTimer(timer, l.Now()+int64(time.Hour)) })

		var closers sync.WaitGroup
		for range 3 {
			closers.Go(l.Close)
		}
		closers.Wait()
		await(t, l.Done(), "Done")
		wg.Wait()
		assert.Equal(t, accepted.Load(), ran.Load(), "every accepted post runs")
		for _, e := range endpoints {
			assert.Equal(t, ErrClosed, e.outcome())
			assert.Empty(t, e.closed, "Closed comes once")
		}
		peers.Wait()
		assert.Zero(t, timer.index, "the timer can be used on another loop")
	})
}

func TestAttachAfterClose(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, _ := pair(t)
		again, peer := pair(t)
		e := newEndpoint(t)
		e.onClosed = func(error) {
			_, err := l.Attach(again, newEndpoint(t))
			assert.Equal(t, ErrClosed, err)
			assert.False(t, l.Post(func() {}))
			l.SetTimer(&Timer{Fn: func() { t.Error("ran after Close") }}, 0)
		}
		e.attach(l, ours)
		l.Close()
		require.Equal(t, ErrClosed, e.outcome())
		_, err := peer.Read(make([]byte, 1))
		assert.Equal(t, io.EOF, err, "the refused connection is closed")
	})
}

// Every callback may abort its own stream; Closed follows once, never inside.
func TestAbortInsideCallbacks(t *testing.T) {
	abort := func(e *endpoint) {
		e.stream.Abort(errTest)
		assert.Zero(t, e.ended)
	}
	cases := map[string]func(e *endpoint){
		"ReadBuffers": func(e *endpoint) {
			e.buffers = func() (direct, scratch []byte) { abort(e); return nil, e.scratch }
		},
		"ReadBuffers, nothing": func(e *endpoint) {
			e.buffers = func() (direct, scratch []byte) { abort(e); return nil, nil }
		},
		"DidRead": func(e *endpoint) {
			e.onRead = func(int) error { abort(e); return nil }
		},
		"DidRead and its error": func(e *endpoint) {
			e.onRead = func(int) error { abort(e); return io.ErrNoProgress }
		},
		"DidRead's error": func(e *endpoint) {
			e.onRead = func(int) error { return errTest }
		},
		"WriteBuffers": func(e *endpoint) {
			e.onRead = func(int) error { e.say([]byte("answer")); return nil }
			e.onOffer = func() { abort(e) }
		},
		"DidWrite": func(e *endpoint) {
			e.onRead = func(int) error { e.say([]byte("answer")); return nil }
			e.onWrite = func(int) { abort(e) }
		},
		"timer": func(e *endpoint) {
			e.onRead = func(int) error {
				e.l.SetTimer(&Timer{Fn: func() { abort(e) }}, 0)
				return nil
			}
		},
		"task": func(e *endpoint) {
			e.onRead = func(int) error {
				e.l.Post(func() { abort(e) })
				return nil
			}
		},
	}
	for name, arrange := range cases {
		t.Run(name, func(t *testing.T) {
			onDrivers(t, func(t *testing.T, l Loop) {
				ours, peer := pair(t)
				e := newEndpoint(t)
				arrange(e)
				e.attach(l, ours)
				_, err := peer.Write([]byte("question"))
				require.NoError(t, err)
				require.Equal(t, errTest, e.outcome())
				_, err = io.Copy(io.Discard, peer)
				require.ErrorIs(t, err, syscall.ECONNRESET)
				l.Close()
				assert.Empty(t, e.closed, "Closed comes once")
			})
		})
	}
}

// Close inside callbacks stops reading at once but lets output leave.
func TestCloseInsideCallbacks(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		e := newEndpoint(t)
		e.onRead = func(int) error {
			e.say([]byte("good"))
			e.stream.Close(errTest)
			e.say([]byte("bye"))
			return nil
		}
		e.attach(l, ours)
		_, err := peer.Write([]byte("question"))
		require.NoError(t, err)
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		assert.Equal(t, "goodbye", string(got))
		_, err = peer.Write([]byte("more"))
		require.NoError(t, err)
		require.NoError(t, peer.Close())
		require.Equal(t, errTest, e.outcome())
		assert.Equal(t, "question", string(e.received))
	})
}

// Closed may start over at once.
func TestClosedMayAttach(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		first, firstPeer := pair(t)
		second, secondPeer := pair(t)
		next := newEndpoint(t)
		next.onRead = func(int) error { next.say([]byte("pong")); return nil }
		posted, fired := make(chan struct{}), make(chan struct{})
		e := newEndpoint(t)
		e.onClosed = func(error) {
			next.attachHere(l, second)
			l.Post(func() { close(posted) })
			l.SetTimer(&Timer{Fn: func() { close(fired) }}, l.Now())
			e.stream.Flush()
			e.stream.Abort(nil)
			e.stream.Close(nil)
			next.say([]byte("hello "))
		}
		e.attach(l, first)
		require.NoError(t, firstPeer.Close())
		require.Equal(t, io.EOF, e.outcome())
		await(t, posted, "the post")
		await(t, fired, "the timer")
		_, err := secondPeer.Write([]byte("ping"))
		require.NoError(t, err)
		got := make([]byte, len("hello pong"))
		_, err = io.ReadFull(secondPeer, got)
		require.NoError(t, err)
		assert.Equal(t, "hello pong", string(got))
	})
}

func TestTimers(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		const ms = int64(time.Millisecond)
		var order []string
		done := make(chan struct{})
		var base int64
		named := func(name string, due int64) *Timer {
			timer := &Timer{}
			timer.Fn = func() {
				order = append(order, name)
				assert.GreaterOrEqual(t, l.Now(), base+due, "%s is early", name)
				assert.Zero(t, timer.index)
			}
			return timer
		}
		do(t, l, func() {
			base = l.Now()
			late, soon, never := named("late", 30*ms), named("soon", 5*ms), named("never", 0)
			twice, same := named("twice", 10*ms), named("same", 10*ms)
			l.StopTimer(never) // not armed
			l.SetTimer(late, base+30*ms)
			l.SetTimer(never, base+7*ms)
			l.SetTimer(twice, base+1*ms)
			l.SetTimer(twice, base+10*ms) // moved
			l.SetTimer(same, base+10*ms)  // after the other one at that time
			l.SetTimer(soon, base+100*ms)
			l.SetTimer(soon, base+5*ms)
			l.SetTimer(named("past", 0), base-ms)
			assert.Empty(t, order, "a timer ran inside SetTimer")
			l.SetTimer(&Timer{Fn: func() { l.StopTimer(never) }}, base+2*ms)
			l.SetTimer(&Timer{Fn: func() { close(done) }}, base+40*ms)
		})
		await(t, done, "the last timer")
		do(t, l, func() { assert.Equal(t, []string{"past", "soon", "twice", "same", "late"}, order) })
	})
}

// A timer that always arms itself for now must not starve the rest.
func TestTimersLeaveRoomForOthers(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		e := echo(t, l, ours)
		spinner := &Timer{}
		turns := 0
		spinner.Fn = func() { turns++; l.SetTimer(spinner, 0) }
		do(t, l, func() { l.SetTimer(spinner, 0) })
		checkEcho(t, peer)
		other := make(chan struct{})
		do(t, l, func() { l.SetTimer(&Timer{Fn: func() { close(other) }}, l.Now()+1) })
		await(t, other, "the other timer")
		do(t, l, func() { assert.Positive(t, turns); l.StopTimer(spinner) })
		assert.Empty(t, e.closed)
	})
}

// A stream that always has more to send must not starve the rest.
func TestEndlessWriterLeavesRoomForOthers(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		ours, peer := pair(t)
		chunk := make([]byte, 100)
		e := newEndpoint(t)
		e.onWrite = func(int) {
			e.out, e.unsent = [][]byte{chunk}, len(chunk)
			e.stream.Flush()
		}
		e.attach(l, ours)
		drained := make(chan struct{})
		go func() { defer close(drained); _, _ = io.Copy(io.Discard, peer) }()
		do(t, l, func() { e.say(chunk) })
		for range 100 {
			do(t, l, func() {})
		}
		fired := make(chan struct{})
		do(t, l, func() { l.SetTimer(&Timer{Fn: func() { close(fired) }}, l.Now()) })
		await(t, fired, "the timer")
		do(t, l, func() { e.stream.Abort(nil) })
		e.outcome()
		await(t, drained, "the reset")
	})
}

func TestNow(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		var before, after int64
		do(t, l, func() { before = l.Now() })
		begin := time.Now()
		for time.Since(begin) < time.Millisecond {
			runtime.Gosched()
		}
		do(t, l, func() { after = l.Now() })
		assert.GreaterOrEqual(t, before, int64(0))
		assert.GreaterOrEqual(t, after-before, int64(time.Millisecond), "read afresh before a callback")
	})
}

// TestPanicIsNotSwallowed runs itself in a process of its own, which has to die.
func TestPanicIsNotSwallowed(t *testing.T) {
	const variable = "LOOP_TEST_PANIC"
	if driver := os.Getenv(variable); driver != "" {
		l := drivers()[driver](t)
		ours, peer := pair(t)
		e := newEndpoint(t)
		e.onRead = func(int) error { panic("handler's own panic") }
		e.attach(l, ours)
		_, _ = peer.Write([]byte("x"))
		<-l.Done()
		select {}
	}
	for driver := range drivers() {
		t.Run(driver, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanicIsNotSwallowed$", "-test.timeout=20s")
			cmd.Env = append(os.Environ(), variable+"="+driver)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.True(t, errors.As(err, &exit), "%v", err)
			assert.True(t, bytes.Contains(out, []byte("panic: handler's own panic")), "%s", out)
		})
	}
}
