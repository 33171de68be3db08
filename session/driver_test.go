package session

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/heldport"
	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
)

// bare is a session on a driver whose connections come from dial.
func bare(t *testing.T, at place, dial DialFunc, cfg Config) *live {
	tgt := newTarget(t, place{pipe: true}, iscsitest.Config{})
	l := newLive(t, at, tgt, cfg)
	l.driver.dialFn = dial
	return l
}

// closeNote is a connection that tells when it is closed.
type closeNote struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *closeNote) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func noted(c net.Conn) *closeNote { return &closeNote{Conn: c, closed: make(chan struct{})} }

// TestDialWithdrawn: a connection that comes about after Close is closed.
func TestDialWithdrawn(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		dialing, goOn := make(chan context.Context), make(chan struct{})
		a, b := net.Pipe()
		defer b.Close()
		conn := noted(a)
		l := bare(t, at, func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialing <- ctx
			<-goOn
			return conn, nil
		}, Config{})
		l.do(l.s.Start)
		ctx := <-dialing
		require.NoError(t, ctx.Err())
		l.close()
		require.Error(t, ctx.Err(), "the dial is told")
		close(goOn)
		<-conn.closed
	})
}

// TestDialOutlivesLoop: a connection that comes about when the loop has ended is closed.
func TestDialOutlivesLoop(t *testing.T) {
	leak.Check(t)
	dialing, goOn := make(chan struct{}), make(chan struct{})
	a, b := net.Pipe()
	defer b.Close()
	conn := noted(a)
	l := loop.NewPortable()
	d := NewDriver(l, func(context.Context, string, string) (net.Conn, error) {
		close(dialing)
		<-goOn
		return conn, nil
	})
	s, err := New(Config{InitiatorName: "i", TargetName: "t", Portal: "p:1"}, d, &live{t: t})
	require.NoError(t, err)
	d.Bind(s)
	require.True(t, l.Post(s.Start))
	<-dialing
	l.Close()
	close(goOn)
	<-conn.closed
}

// TestDialFails: by itself, by its time, and because the loop cannot use the connection.
func TestDialFails(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		no := errors.New("no route")
		l := bare(t, at, func(context.Context, string, string) (net.Conn, error) { return nil, no }, Config{})
		l.do(l.s.Start)
		down := l.next("down")
		require.ErrorIs(t, down.err, no)
		require.Equal(t, KindTransport, down.err.Kind)
		require.True(t, SafeToRetry(down.err))
		require.Contains(t, down.err.Error(), "check the address and port")
	})
	inBubble(t, func(t *testing.T, at place) {
		l := bare(t, at, func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, Config{LoginTimeout: 3 * time.Second})
		start := time.Now()
		l.do(l.s.Start)
		require.Equal(t, 3*time.Second, l.next("down").at.Sub(start))
	})
	onDrivers(t, func(t *testing.T, at place) {
		a, b := net.Pipe()
		defer b.Close()
		conn := noted(a)
		l := bare(t, at, func(context.Context, string, string) (net.Conn, error) {
			if !at.raw {
				conn.Close() // else the portable driver takes it
			}
			return conn, nil
		}, Config{})
		l.do(l.s.Start)
		down := l.next("down")
		require.Equal(t, KindTransport, down.err.Kind)
		<-conn.closed
		if at.raw {
			require.ErrorIs(t, down.err, errors.ErrUnsupported)
		}
	})
}

// TestNobodyListens: with the dialer that a nil DialFunc stands for.
func TestNobodyListens(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		port, err := heldport.Hold("127.0.0.1:0")
		require.NoError(t, err)
		defer port.Release()
		addr := port.Addr()
		tgt := newTarget(t, place{pipe: true}, iscsitest.Config{})
		l := newLive(t, at, tgt, Config{Portal: addr})
		l.do(l.s.Start)
		down := l.next("down")
		require.Contains(t, down.err.Error(), "refused")
		require.Contains(t, down.err.Error(), addr)
	})
}

// TestPortOfItsOwn: a dial to a port of this host can be given that very port for
// its own end, and is then answered by itself: it must not hold the port, nor be
// taken for a target.
func TestPortOfItsOwn(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		var own net.Conn
		l := bare(t, at, func(ctx context.Context, network, _ string) (net.Conn, error) {
			var err error
			for range 10 { // another may take the port between the two steps
				if own, err = dialItself(ctx, network); err == nil {
					break
				}
			}
			return own, err
		}, Config{Portal: "127.0.0.1:3260"})
		l.do(l.s.Start)
		down := l.next("down")
		require.ErrorIs(t, down.err, syscall.ECONNREFUSED)
		require.True(t, down.err.NotConnected)
		require.Contains(t, down.err.Error(), "nothing listens there")
		require.ErrorIs(t, own.Close(), net.ErrClosed, "it was closed")
	})
}

// dialItself is a connection from a port to the same port.
func dialItself(ctx context.Context, network string) (net.Conn, error) {
	port, err := heldport.Hold("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port.Release()
	address, err := net.ResolveTCPAddr(network, port.Addr())
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{LocalAddr: address}).DialContext(ctx, network, port.Addr())
}

// TestPortSpeaksElse: what answers is no iSCSI target, closes, or says nothing.
func TestPortSpeaksElse(t *testing.T) {
	for name, tt := range map[string]struct {
		serve func(c net.Conn)
		kind  Kind
		hint  string
	}{
		"http":   {func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, KindProtocol, "belongs to an iSCSI target"},
		"closes": {func(c net.Conn) { _, _ = c.Read(make([]byte, 1000)); c.Close() }, KindTransport, "is an iSCSI target"},
		"silent": {func(net.Conn) {}, KindTimeout, "answers at this portal"},
		"byte":   {func(c net.Conn) { _, _ = c.Write([]byte{byte(pdu.OpLoginResponse)}) }, KindTimeout, "answers at this portal"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, at place) {
				var wg sync.WaitGroup
				defer wg.Wait()
				l := bare(t, at, func(context.Context, string, string) (net.Conn, error) {
					a, b := net.Pipe()
					wg.Go(func() {
						defer b.Close()
						tt.serve(b)
						_, _ = io.Copy(io.Discard, b)
					})
					return a, nil
				}, Config{})
				l.do(l.s.Start)
				down := l.next("down")
				assert.Equal(t, tt.kind, down.err.Kind)
				assert.Contains(t, down.err.Error(), tt.hint)
				l.close()
			})
		})
	}
}

// TestSentCountsWhatIsBeingWritten: bytes that a writer was putting on the wire
// when the connection was given up have left, even if nobody was told in time.
func TestSentCountsWhatIsBeingWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(4<<20))
		l := newLive(t, at, tgt, Config{NoopTimeout: time.Minute})
		slow := &slowWriter{taken: make(chan struct{}), goOn: make(chan struct{})}
		l.driver.dialFn = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := tgt.DialContext(ctx, network, addr)
			if slow.Conn == nil {
				slow.Conn = c
				return slow, err
			}
			return c, err
		}
		l.do(l.s.Start)
		l.next("up")
		inject(t, tgt, iscsitest.And(iscsitest.Dir(iscsitest.FromTarget), iscsitest.Any()), iscsitest.Drop())
		synctest.Wait() // the write of the login has returned
		slow.armed.Store(true)
		o := newOp(DirWrite, 0, []byte{0: 7, 511: 7})
		l.submit(o)
		<-slow.taken    // the target has it all
		synctest.Wait() // and has carried it out
		l.do(func() { l.s.Drop(nil) })
		close(slow.goOn)
		o.wait(t)
		require.Equal(t, byte(7), content(t, tgt)[0], "the target has carried it out")
		require.True(t, o.Sent())
	})
}

// slowWriter writes, and takes its time to say so.
type slowWriter struct {
	net.Conn
	armed       atomic.Bool
	taken, goOn chan struct{}
}

func (s *slowWriter) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if s.armed.CompareAndSwap(true, false) {
		close(s.taken)
		<-s.goOn
	}
	return n, err
}

// TestCmdSNOrder: many submitters at once, some of whose reads are taken back
// and some sessions lost; on each connection numbers rise by one.
func TestCmdSNOrder(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		rec := &iscsitest.Recorder{}
		cfg := diskOf(1 << 20)
		cfg.Recorder = rec
		cfg.Params.CmdWindow = 24
		tgt := newTarget(t, at, cfg)
		var traced atomic.Uint32
		conf := eager()
		conf.Trace = func(from bool, bhs pdu.BHS) {
			if from && bhs.Opcode() == pdu.OpSCSICommand {
				traced.Add(1)
			}
		}
		l := logIn(t, at, tgt, conf)
		var wg sync.WaitGroup
		var accepted, lost atomic.Uint32
		for i := range 64 {
			wg.Go(func() {
				for j := range 20 {
					o := newOp(DirRead, uint64(i), make([]byte, 512))
					detached, ok := l.submitWhenRoom(o, j%7 == 3)
					if !ok {
						return
					}
					accepted.Add(1)
					if !detached {
						<-o.done
						if o.Err != nil {
							lost.Add(1)
						}
					}
					if i == 0 && j%10 == 9 {
						tgt.CutConnections(nil)
					}
				}
			})
		}
		wg.Wait()
		require.NoError(t, rec.CheckCmdSNOrder())
		require.Equal(t, accepted.Load(), traced.Load())
		require.EqualValues(t, 64*20, accepted.Load())
		got := rec.Count(iscsitest.And(iscsitest.Dir(iscsitest.FromInitiator), iscsitest.Op(pdu.OpSCSICommand)))
		require.LessOrEqual(t, got, int(accepted.Load()))
		t.Logf("%d received, %d lost", got, lost.Load())
	})
}

// submitWhenRoom submits from any goroutine, again and again until there is
// room, and takes the command back at once if detach is set.
func (l *live) submitWhenRoom(o *op, detach bool) (detached, ok bool) {
	done := make(chan bool)
	for tries := range 20000 {
		if !l.loop.Post(func() {
			ok = l.s.Submit(&o.Command)
			detached = ok && detach && l.s.Detach(&o.Command)
			done <- true
		}) {
			return false, false
		}
		if <-done; ok {
			return detached, true
		}
		time.Sleep(time.Duration(tries+1) * 10 * time.Microsecond)
	}
	l.t.Error("there was never room for a command")
	return false, false
}
