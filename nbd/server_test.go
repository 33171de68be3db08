package nbd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/internal/loop"
)

func contextWithTimeout(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(t.Context()), patience)
}

func TestServeReadsAndWrites(t *testing.T) {
	drivers(t, func(t *testing.T, lp loop.Loop) {
		s := serve(t, lp, 8*mib, nil)
		for name, addr := range s.addrs() {
			t.Run(name, func(t *testing.T) {
				c := connect(t, addr, "disk")
				for i, n := range []int{512, 4096, 100 * 512, mib, 4 * mib} {
					data := pattern(n, byte(i))
					c.write(write(cmdFlagFUA, 1, 512, data))
					require.Equal(t, answer{cookie: 1}, c.reply(0))
					c.write(req(cmdRead, 0, 2, 512, uint32(n)))
					got := c.reply(n)
					require.True(t, got.data == string(data), "%d bytes", n)
				}
				c.write(req(cmdFlush, 0, 3, 0, 0))
				require.Equal(t, answer{cookie: 3}, c.reply(0))
				c.write(req(cmdDisc, 0, 4, 0, 0))
				c.gone()
			})
		}
	})
}

// Several clients, each with random requests in flight on a part of its own.
func TestServeConcurrentClients(t *testing.T) {
	drivers(t, func(t *testing.T, lp loop.Loop) {
		const clients, share = 4, mib
		s := serve(t, lp, clients*share, func(cfg *Config, d *memDevice) {
			d.later = true
			cfg.MaxInflightRequests, cfg.MaxInflightBytes = 20, 256<<10
		})
		var wg sync.WaitGroup
		for i := range uint64(clients) {
			c := connect(t, s.unix, "disk")
			wg.Go(func() { hammer(t, c, i*share, share, rand.New(rand.NewPCG(i, 7))) })
		}
		wg.Wait()
		assert.Positive(t, s.Snapshot().Total.Ops())
	})
}

// hammer writes everything in random pieces without waiting for answers, then
// reads it back the same way.
func hammer(t testing.TB, c *client, base, size uint64, rng *rand.Rand) {
	model := make([]byte, size)
	for i := range model {
		model[i] = byte(rng.Uint32())
	}
	for _, cmd := range []uint16{cmdWrite, cmdRead} {
		var at []uint64 // by cookie
		var length []int
		for off := uint64(0); off < size; {
			n := min(512*uint64(1+rng.IntN(200)), size-off)
			at, length = append(at, off), append(length, int(n))
			off += n
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i, off := range at {
				b := req(cmd, 0, uint64(i), base+off, uint32(length[i]))
				if cmd == cmdWrite {
					b = append(b, model[off:off+uint64(length[i])]...)
				}
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
		for range at {
			a := c.replyTo(cmd, length)
			off := at[a.cookie]
			if a.errno != 0 || cmd == cmdRead && a.data != string(model[off:off+uint64(length[a.cookie])]) {
				t.Errorf("request %d: errno %d, or wrong data", a.cookie, a.errno)
			}
		}
		<-sent
	}
}

// replyTo reads one reply when the lengths of READs are known by cookie.
func (c *client) replyTo(cmd uint16, length []int) answer {
	a := c.reply(0)
	if cmd == cmdRead && a.errno == 0 {
		a.data = string(c.read(length[a.cookie]))
	}
	return a
}

func TestMostClientsNeverFinishTheHandshake(t *testing.T) {
	drivers(t, func(t *testing.T, lp loop.Loop) {
		const silent = 1000
		s := serve(t, lp, mib, func(cfg *Config, _ *memDevice) { cfg.MaxHandshakes = 32 })
		for i := range silent {
			c := dial(t, s.unix)
			if i%3 == 0 {
				c.write([]byte{0, 0, 0}) // three quarters of the flags
			}
			if i%100 == 0 {
				good := connect(t, s.unix, "disk")
				good.write(req(cmdRead, 0, 1, 0, 512))
				require.Len(t, good.reply(512).data, 512)
			}
		}
		s.eventually(func() bool {
			snap := s.Snapshot()
			return snap.Handshakes <= 32 && snap.Refused >= silent-32
		}, "the oldest handshakes are dropped")
		assert.Len(t, s.Snapshot().Connections, silent/100)
	})
}

// pipeListener hands out the server's ends of pipes, for tests in virtual time.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial connects a client to the listener's server.
func (l *pipeListener) dial(t testing.TB) *client {
	c, s := net.Pipe()
	l.conns <- s
	return &client{t, c}
}

func TestHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lp := loop.NewPortable()
		defer lp.Close()
		srv, err := New(Config{Exports: []Export{{Name: "disk", Device: newMemDevice(lp, mib)}}})
		require.NoError(t, err)
		ln := &pipeListener{make(chan net.Conn), make(chan struct{})}
		go func() { assert.NoError(t, srv.Serve(ln)) }()

		start := time.Now()
		deaf, slow := ln.dial(t), ln.dial(t) // the first does not even read the greeting
		slow.read(18)
		slow.gone()
		assert.Equal(t, DefaultHandshakeTimeout, time.Since(start))
		synctest.Wait()
		assert.Zero(t, srv.Snapshot().Handshakes)
		require.NoError(t, deaf.Close())

		good := ln.dial(t)
		require.Equal(t, repAck, good.choose("disk"))
		time.Sleep(time.Hour) // the handshake's deadline must not outlive it
		good.write(req(cmdRead, 0, 1, 0, 512))
		require.Len(t, good.reply(512).data, 512)
		require.NoError(t, good.Close())
		require.NoError(t, srv.Close(t.Context()))
	})
}

// Clients that vanish at any point leave nothing behind and harm nobody.
func TestClientsThatVanish(t *testing.T) {
	whole := cat(clientFlags(3), opt(optGo, infoData("disk")...),
		req(cmdRead, 0, 1, 0, 64<<10), write(0, 2, 0, pattern(64<<10, 1)), req(cmdRead, 0, 3, 0, 512))
	drivers(t, func(t *testing.T, lp loop.Loop) {
		s := serve(t, lp, mib, func(_ *Config, d *memDevice) { d.later = true })
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 100 {
			c := dial(t, s.tcp)
			cut := rng.IntN(len(whole))
			if i%2 == 0 {
				cut = min(cut, 200)
			}
			c.write(whole[:cut])
			if i%4 == 0 {
				require.NoError(t, c.Conn.(*net.TCPConn).SetLinger(0)) // RST
			}
			require.NoError(t, c.Close())
		}
		s.eventually(func() bool {
			snap := s.Snapshot()
			return snap.Accepted == 100 && snap.Handshakes == 0 && len(snap.Connections) == 0
		}, "all are gone")
		c := connect(t, s.tcp, "disk")
		c.write(req(cmdRead, 0, 1, 0, 512))
		require.Len(t, c.reply(512).data, 512)
	})
}

// While the device answers nothing, clients that leave and come again must not pile up
// requests, and the buffers of these, without end.
func TestClientsThatComeAgainWhileTheDeviceHangs(t *testing.T) {
	drivers(t, func(t *testing.T, lp loop.Loop) {
		s := serve(t, lp, mib, func(cfg *Config, d *memDevice) { cfg.MaxConnections, d.hold = 3, true })
		for i := range 3 {
			c := connect(t, s.tcp, "disk")
			c.write(write(0, 1, 0, make([]byte, 4096)))
			s.eventually(func() bool { return len(s.dev.queue) == i+1 }, "the write is at the device")
			require.NoError(t, c.Close())
			s.eventually(func() bool { return len(s.Snapshot().Connections) == 0 }, "the client is seen to be gone")
		}
		require.Equal(t, repErrPolicy, dial(t, s.tcp).choose("disk"))
		s.on(s.dev.completeAll)
		c := connect(t, s.tcp, "disk")
		c.write(req(cmdDisc, 0, 1, 0, 0))
		c.gone()
	})
}

func TestBadMagicDropsOnlyItsConnection(t *testing.T) {
	drivers(t, func(t *testing.T, lp loop.Loop) {
		s := serve(t, lp, mib, nil)
		good, bad := connect(t, s.unix, "disk"), connect(t, s.unix, "disk")
		bad.write([]byte("this is not a request at all, not even nearly"))
		bad.gone()
		good.write(req(cmdFlush, 0, 1, 0, 0))
		require.Equal(t, answer{cookie: 1}, good.reply(0))
	})
}

func TestCloseWaitsForTheDevice(t *testing.T) {
	drivers(t, func(t *testing.T, lp loop.Loop) {
		s := serve(t, lp, mib, func(_ *Config, d *memDevice) { d.hold = true })
		busy, idle, silent := connect(t, s.unix, "disk"), connect(t, s.unix, "disk"), dial(t, s.unix)
		silent.read(18)
		busy.write(write(0, 1, 0, pattern(4096, 3)))
		s.eventually(func() bool { return len(s.dev.queue) == 1 }, "the write is at the device")

		closed := make(chan error, 1)
		go func() {
			ctx, cancel := contextWithTimeout(t)
			defer cancel()
			closed <- s.Close(ctx)
		}()
		idle.gone()
		silent.gone()
		busy.write(req(cmdRead, 0, 2, 0, 512))
		require.Equal(t, answer{cookie: 2, errno: errnoShutdown}, busy.reply(0))
		require.Empty(t, closed)
		s.on(func() { s.dev.completeAt(0) })
		require.Equal(t, answer{cookie: 1}, busy.reply(0))
		busy.gone()
		require.NoError(t, <-closed)
		assert.Equal(t, pattern(4096, 3), s.dev.data[:4096])
		_, err := net.Dial(s.unix.Network(), s.unix.String())
		require.Error(t, err, "nobody listens any more")
	})
}

func TestCloseGivesUpWhenToldTo(t *testing.T) {
	drivers(t, func(t *testing.T, lp loop.Loop) {
		s := serve(t, lp, mib, func(_ *Config, d *memDevice) { d.hold = true })
		c := connect(t, s.tcp, "disk")
		c.write(req(cmdRead, 0, 1, 0, 4096))
		s.eventually(func() bool { return len(s.dev.queue) == 1 }, "the read is at the device")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := s.Close(ctx)
		require.ErrorIs(t, err, context.Canceled)
		assert.ErrorContains(t, err, "1 requests unanswered")
		c.gone()
		s.on(func() {
			assert.Len(t, s.dev.queue[0].Data, 4096, "the device keeps its buffer")
			s.dev.completeAt(0)
		})
	})
}

func TestServeOnAClosedServer(t *testing.T) {
	srv := handshakeServer(t, nil)
	require.NoError(t, srv.Close(t.Context()))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorIs(t, srv.Serve(ln), ErrClosed)
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, srv.Close(t.Context()), "closing twice does no harm")
}

func TestLoopThatEndedFirst(t *testing.T) {
	leak.Check(t)
	lp := loop.NewPortable()
	s := serve(t, lp, mib, nil)
	c := connect(t, s.unix, "disk")
	s.eventually(func() bool { return len(s.Snapshot().Connections) == 1 }, "connected")
	s.lp = &manualLoopThatRuns{}
	lp.Close()
	c.gone()
	late := dial(t, s.unix)
	require.Equal(t, repAck, late.choose("disk"))
	late.gone()
}

// manualLoopThatRuns stands in for a loop that has ended, in checks.
type manualLoopThatRuns struct{ manualLoop }

func (*manualLoopThatRuns) Post(fn func()) bool { fn(); return true }

// stubbornListener fails in given ways before it accepts nothing more.
type stubbornListener struct {
	net.Listener
	errs chan error
}

func (l *stubbornListener) Accept() (net.Conn, error) { return nil, <-l.errs }

func TestAcceptErrors(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ln := &stubbornListener{inner, make(chan error, 3)}
	srv := handshakeServer(t, nil)
	ln.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
	ln.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
	ln.errs <- fmt.Errorf("broken: %w", block.ErrIO)
	err = srv.Serve(ln)
	require.ErrorIs(t, err, block.ErrIO, "a shortage passes, a broken listener does not")
	require.NoError(t, srv.Close(t.Context()))
}
