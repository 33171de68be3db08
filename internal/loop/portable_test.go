package loop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/leak"
)

// inBubble runs test in virtual time, with a loop and a pipe into it.
func inBubble(t *testing.T, test func(t *testing.T, l Loop, ours, peer net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		l := NewPortable()
		ours, peer := net.Pipe()
		test(t, l, ours, peer)
		peer.Close()
		l.Close()
	})
}

func TestPipeEcho(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		e := echo(t, l, ours)
		checkEcho(t, peer)
		require.NoError(t, peer.Close())
		assert.Equal(t, io.EOF, e.outcome())
	})
}

func TestVirtualTime(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		begin := time.Now()
		e := newEndpoint(t)
		e.attach(l, ours)
		fired := make(chan time.Duration)
		var timer Timer
		turn := 0
		timer.Fn = func() {
			fired <- time.Since(begin)
			if turn++; turn < 3 {
				l.SetTimer(&timer, l.Now()+int64(time.Hour))
			}
		}
		stopped := &Timer{Fn: func() { t.Error("a stopped timer ran") }}
		do(t, l, func() {
			l.SetTimer(&timer, l.Now()+int64(time.Hour))
			l.SetTimer(stopped, int64(90*time.Minute))
		})
		assert.Equal(t, time.Hour, <-fired)
		do(t, l, func() { l.StopTimer(stopped) })
		assert.Equal(t, 2*time.Hour, <-fired)
		assert.Equal(t, 3*time.Hour, <-fired)
		do(t, l, func() { assert.Equal(t, int64(3*time.Hour), l.Now()) })
	})
}

func TestPipeCloseDrains(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		e := newEndpoint(t)
		e.attach(l, ours)
		want := pattern(300_000)
		do(t, l, func() {
			for _, chunk := range chunks(want) {
				e.say(chunk)
			}
			e.stream.Close(errTest)
		})
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		assertSame(t, want, got)
		assert.Equal(t, errTest, e.outcome())
	})
}

func TestPipeCloseGivesUpAfterASecond(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		e := newEndpoint(t)
		e.attach(l, ours)
		begin := time.Now()
		do(t, l, func() { e.say(pattern(10)); e.stream.Close(errTest) })
		assert.Equal(t, errTest, e.outcome())
		assert.Equal(t, drainTime, time.Since(begin))
	})
}

func TestPipeAbortWhileBothGoroutinesAreBusy(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		e := newEndpoint(t)
		e.attach(l, ours)
		do(t, l, func() { e.say(pattern(10)) })
		synctest.Wait() // the writer is stuck in Write, the reader in Read
		do(t, l, func() { e.stream.Abort(errTest) })
		assert.Equal(t, errTest, e.outcome())
		_, err := peer.Read(make([]byte, 1))
		assert.Equal(t, io.EOF, err)
	})
}

// The reader may run ahead by one buffer only while the handler wants nothing.
func TestPipeBackPressure(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		e := newEndpoint(t)
		open := false
		e.buffers = func() (direct, scratch []byte) {
			if !open {
				return nil, nil
			}
			return e.scratch[:7], e.scratch[7:10]
		}
		e.attach(l, ours)
		want := pattern(5 * connBufSize)
		taken := 0
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for b := want; len(b) > 0; b = b[min(len(b), 1024):] {
				n, err := peer.Write(b[:min(len(b), 1024)])
				taken += n
				assert.NoError(t, err)
			}
		}()
		synctest.Wait()
		assert.LessOrEqual(t, taken, connBufSize)
		do(t, l, func() { assert.Equal(t, 1, e.reads, "it is not asked again while stopped") })
		do(t, l, func() { open = true; e.stream.ResumeReading() })
		await(t, sent, "the last byte")
		synctest.Wait()
		do(t, l, func() { assertSame(t, want, e.received) })
	})
}

// brokenWriter fails to write after a while and never says why on reading.
type brokenWriter struct {
	net.Conn
	left int
}

var errBroken = errors.New("broken writer")

func (c *brokenWriter) Write(b []byte) (int, error) {
	n := min(c.left, len(b))
	c.left -= n
	if n < len(b) {
		return n, errBroken
	}
	return n, nil
}

func TestWriteErrorEndsTheStream(t *testing.T) {
	cases := map[string]bool{"reading": false, "stopped": true}
	for name, stopped := range cases {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
				e := newEndpoint(t)
				if stopped {
					e.buffers = func() (direct, scratch []byte) { return nil, nil }
				}
				e.attach(l, &brokenWriter{Conn: ours, left: 150_000})
				_, err := peer.Write([]byte("last words"))
				require.NoError(t, err)
				synctest.Wait()
				do(t, l, func() {
					e.say(pattern(100_000))
					e.say(pattern(100_000))
				})
				assert.Equal(t, errBroken, e.outcome())
				assert.Equal(t, 50_000, e.unsent, "what has left before the error is told")
				if !stopped {
					assert.Equal(t, "last words", string(e.received))
				}
			})
		})
	}
}

// lateWriter still looks at the bytes for a while after it was closed.
type lateWriter struct {
	net.Conn
	closed chan struct{}
	left   bool
}

func (c *lateWriter) Write([]byte) (int, error) {
	<-c.closed
	time.Sleep(time.Minute)
	c.left = true
	return 0, net.ErrClosed
}

func (c *lateWriter) Close() error {
	close(c.closed)
	return c.Conn.Close()
}

// After Closed nobody touches the handler's buffers any more.
func TestClosedWaitsForTheGoroutines(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, _ net.Conn) {
		c := &lateWriter{Conn: ours, closed: make(chan struct{})}
		e := newEndpoint(t)
		e.onClosed = func(error) { assert.True(t, c.left, "the writer still holds a buffer") }
		e.attach(l, c)
		do(t, l, func() { e.say(pattern(10)) })
		synctest.Wait()
		begin := time.Now()
		do(t, l, func() {
			e.stream.Abort(errTest)
			l.SetTimer(&Timer{Fn: func() { e.stream.Flush() }}, l.Now()) // the loop is not held up
		})
		l.Close()
		assert.Equal(t, errTest, <-e.closed)
		assert.Equal(t, time.Minute, time.Since(begin))
	})
}

// Timers armed while the loop ends never run, however long the end takes.
func TestNoTimersWhileClosing(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		late := newEndpoint(t)
		late.attach(l, &lateWriter{Conn: ours, closed: make(chan struct{})})
		e := newEndpoint(t)
		e.onClosed = func(error) {
			l.SetTimer(&Timer{Fn: func() { t.Error("ran after Close") }}, 0)
		}
		e.attach(l, peer)
		do(t, l, func() { late.say(pattern(10)) })
		synctest.Wait()
		l.Close()
		assert.Equal(t, ErrClosed, <-e.closed)
		assert.Equal(t, ErrClosed, <-late.closed)
	})
}

// endedConn reaches the end of its input after half a second; writing is stuck
// until the deadline, or fails a moment later.
type endedConn struct {
	net.Conn
	writeErr error
}

func (c endedConn) Read([]byte) (int, error) {
	time.Sleep(drainTime / 2)
	return 0, io.EOF
}

func (c endedConn) Write(b []byte) (int, error) {
	if c.writeErr == nil {
		return c.Conn.Write(b)
	}
	time.Sleep(drainTime/2 + time.Millisecond)
	return 0, c.writeErr
}

// The writer's news of a reset counts even if the reader's end comes first.
func TestEndOfInputWhileWriting(t *testing.T) {
	cases := map[string]struct {
		writeErr, want error
		took           time.Duration
	}{
		"stuck":  {nil, io.EOF, drainTime/2 + salvageTime},
		"reset":  {syscall.ECONNRESET, syscall.ECONNRESET, drainTime/2 + time.Millisecond},
		"closed": {syscall.EPIPE, io.EOF, drainTime/2 + time.Millisecond},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, l Loop, ours, _ net.Conn) {
				e := newEndpoint(t)
				begin := time.Now()
				e.attach(l, endedConn{ours, c.writeErr})
				do(t, l, func() { e.say(pattern(10)) })
				assert.Equal(t, c.want, e.outcome())
				assert.Equal(t, c.took, time.Since(begin))
			})
		})
	}
}

// A peer that has half-closed has the whole second to take our last bytes.
func TestSlowHalfClosedPeerGetsAll(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		e := newEndpoint(t)
		e.attach(l, endedConn{ours, nil})
		want := pattern(10)
		do(t, l, func() { e.say(want); e.stream.Close(errTest) })
		time.Sleep(drainTime - time.Millisecond)
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		assertSame(t, want, got)
		assert.Equal(t, errTest, e.outcome())
	})
}

// shortWriter breaks the rule that a short write has an error.
type shortWriter struct{ net.Conn }

func (c shortWriter) Write(b []byte) (int, error) { return len(b) / 2, nil }

func TestShortWriteIsAnError(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, _ net.Conn) {
		e := newEndpoint(t)
		e.attach(l, shortWriter{ours})
		do(t, l, func() { e.say(pattern(100)) })
		assert.Equal(t, io.ErrShortWrite, e.outcome())
	})
}

// noDeadline refuses what Attach needs.
type noDeadline struct{ net.Conn }

func (noDeadline) SetDeadline(time.Time) error { return os.ErrNoDeadline }

func TestAttachNeedsDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T, l Loop, ours, peer net.Conn) {
		do(t, l, func() {
			_, err := l.Attach(noDeadline{ours}, newEndpoint(t))
			assert.ErrorIs(t, err, os.ErrNoDeadline)
		})
		_, err := peer.Read(make([]byte, 1))
		assert.Equal(t, io.EOF, err)
	})
}

// tlsPair returns both ends of a TLS connection over loopback TCP.
func tlsPair(t *testing.T) (ours, peer *tls.Conn) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	config := &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify: true,
	}
	inner, innerPeer := pair(t)
	return tls.Client(&lastWords{TCPConn: inner}, config), tls.Server(innerPeer, config)
}

// lastWords is a socket below TLS that tells whether it was given time for a
// close_notify alert, which takes 5 s where the peer does not read.
type lastWords struct {
	*net.TCPConn
	closed, allowed atomic.Bool
}

func (c *lastWords) SetWriteDeadline(t time.Time) error {
	if !c.closed.Load() {
		c.allowed.Store(true)
	}
	return c.TCPConn.SetWriteDeadline(t)
}

func (c *lastWords) Close() error {
	c.closed.Store(true)
	return c.TCPConn.Close()
}

func TestTLS(t *testing.T) {
	leak.Check(t)
	l := NewPortable()
	t.Cleanup(l.Close)
	t.Run("echo, close by the peer", func(t *testing.T) {
		ours, peer := tlsPair(t)
		e := echo(t, l, ours)
		checkEcho(t, peer)
		require.NoError(t, peer.Close())
		assert.Equal(t, io.EOF, e.outcome())
	})
	t.Run("close drains", func(t *testing.T) {
		drainsAtLeisure(t, l)
		ours, peer := tlsPair(t)
		e := newEndpoint(t)
		e.attach(l, ours)
		want := pattern(3 << 20)
		do(t, l, func() {
			for _, chunk := range chunks(want) {
				e.say(chunk)
			}
			e.stream.Close(errTest)
		})
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		assertSame(t, want, got)
		require.NoError(t, peer.Close())
		assert.Equal(t, errTest, e.outcome())
	})
	t.Run("abort does not wait", func(t *testing.T) {
		ours, peer := tlsPair(t)
		e := newEndpoint(t)
		e.attach(l, ours)
		require.NoError(t, peer.Handshake())
		do(t, l, func() { e.say(make([]byte, 64<<20)) }) // the writer gets stuck
		do(t, l, func() { e.stream.Abort(errTest) })
		assert.Equal(t, errTest, e.outcome())
		assert.False(t, ours.NetConn().(*lastWords).allowed.Load(), "time for a close_notify alert")
		_, err := io.Copy(io.Discard, peer)
		assert.Error(t, err)
	})
}
