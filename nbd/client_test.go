package nbd

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/internal/shortdir"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// client is a small NBD client over a real connection.
type client struct {
	t testing.TB
	net.Conn
}

func dial(t testing.TB, addr net.Addr) *client {
	t.Helper()
	c, err := net.DialTimeout(addr.Network(), addr.String(), patience)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return &client{t, c}
}

// connect dials and chooses an export with GO.
func connect(t testing.TB, addr net.Addr, export string) *client {
	t.Helper()
	c := dial(t, addr)
	require.Equal(t, repAck, c.choose(export))
	return c
}

// choose goes through the handshake and returns the final reply type of GO.
func (c *client) choose(export string) uint32 {
	c.t.Helper()
	c.read(18)
	c.write(cat(clientFlags(3), opt(optGo, infoData(export)...)))
	for {
		h := c.read(20)
		reply := binary.BigEndian.Uint32(h[12:])
		c.read(int(binary.BigEndian.Uint32(h[16:])))
		if reply != repInfo {
			return reply
		}
	}
}

func (c *client) write(b []byte) {
	c.t.Helper()
	_, err := c.Write(b)
	require.NoError(c.t, err)
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	require.NoError(c.t, err)
	return b
}

// reply reads one reply; n is its payload if it succeeds.
func (c *client) reply(n int) answer {
	c.t.Helper()
	h := c.read(simpleReplyLen)
	require.Equal(c.t, magicSimpleReply, binary.BigEndian.Uint32(h))
	a := answer{cookie: binary.BigEndian.Uint64(h[8:]), errno: binary.BigEndian.Uint32(h[4:])}
	if a.errno == 0 && n > 0 {
		a.data = string(c.read(n))
	}
	return a
}

// gone requires that the server ends the connection; unread replies are skipped.
func (c *client) gone() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		require.NoError(c.t, err, "the server should have closed the connection")
	}
	_ = c.Close()
}

// drivers runs a test over both loop drivers.
func drivers(t *testing.T, test func(t *testing.T, lp loop.Loop)) {
	for name, mk := range map[string]func() (loop.Loop, error){
		"reactor":  func() (loop.Loop, error) { return loop.NewReactor() },
		"portable": func() (loop.Loop, error) { return loop.NewPortable(), nil },
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			lp, err := mk()
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(lp.Close)
			test(t, lp)
		})
	}
}

// serving is a server with listeners, for a test's time.
type serving struct {
	*Server
	t    testing.TB
	lp   loop.Loop
	dev  *memDevice
	tcp  net.Addr
	unix net.Addr
}

func serve(t testing.TB, lp loop.Loop, size uint64, change func(*Config, *memDevice)) *serving {
	t.Helper()
	s := &serving{t: t, lp: lp, dev: newMemDevice(lp, size)}
	cfg := Config{Exports: []Export{{Name: "disk", Device: s.dev}}}
	if change != nil {
		change(&cfg, s.dev)
	}
	srv, err := New(cfg)
	require.NoError(t, err)
	s.Server = srv
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	unix, err := ListenUnix(shortdir.New(t) + "/nbd")
	require.NoError(t, err)
	s.tcp, s.unix = tcp.Addr(), unix.Addr()
	ended := make(chan error, 2)
	for _, ln := range []net.Listener{tcp, unix} {
		go func() { ended <- srv.Serve(ln) }()
	}
	s.eventually(func() bool { // a Serve that begins after Close has another outcome
		srv.mu.Lock()
		defer srv.mu.Unlock()
		return len(srv.listeners) == 2
	}, "both listeners are served")
	t.Cleanup(func() {
		ctx, cancel := contextWithTimeout(t)
		defer cancel()
		assert.NoError(t, srv.Close(ctx))
		assert.NoError(t, <-ended)
		assert.NoError(t, <-ended)
		s.on(func() {
			for _, sh := range srv.shards {
				assert.Zero(t, sh.pool.out, "buffers handed out and not given back")
			}
		})
	})
	return s
}

// on runs fn on the loop and waits for it.
func (s *serving) on(fn func()) {
	s.t.Helper()
	done := make(chan struct{})
	require.True(s.t, s.lp.Post(func() { fn(); close(done) }))
	<-done
}

// eventually waits until cond holds, asking on the loop.
func (s *serving) eventually(cond func() bool, what string) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		ok := false
		s.on(func() { ok = cond() })
		if ok {
			return
		}
		require.True(s.t, time.Now().Before(deadline), what)
		time.Sleep(time.Millisecond)
	}
}

func (s *serving) addrs() map[string]net.Addr {
	return map[string]net.Addr{"tcp": s.tcp, "unix": s.unix}
}
