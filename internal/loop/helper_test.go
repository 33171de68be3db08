package loop

import (
	"bytes"
	"errors"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/leak"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

var errTest = errors.New("reason of the test")

// drivers are the loops every conformance test runs on.
func drivers() map[string]func(testing.TB) Loop {
	all := map[string]func(testing.TB) Loop{
		"portable": func(testing.TB) Loop { return NewPortable() },
	}
	if runtime.GOOS == "linux" {
		all["reactor"] = func(tb testing.TB) Loop {
			l, err := NewReactor()
			require.NoError(tb, err)
			return l
		}
	}
	return all
}

// onDrivers runs test once for each driver and checks that nothing is left.
func onDrivers(t *testing.T, test func(t *testing.T, l Loop)) {
	for name, open := range drivers() {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			l := open(t)
			t.Cleanup(l.Close)
			test(t, l)
		})
	}
}

// do runs fn on the loop and waits for it.
func do(tb testing.TB, l Loop, fn func()) {
	tb.Helper()
	done := make(chan struct{})
	require.True(tb, l.Post(func() { fn(); close(done) }))
	await(tb, done, "posted function")
}

// await waits for c to deliver or be closed.
func await[T any](tb testing.TB, c <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		tb.Fatalf("%s did not come\n%s", what, buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

// drainsAtLeisure has Close wait for a peer that this machine may keep from running.
func drainsAtLeisure(tb testing.TB, l Loop) {
	tb.Helper()
	do(tb, l, func() { l.(interface{ setDrainTime(t time.Duration) }).setDrainTime(patience) })
}

// pair returns two ends of a connection over loopback TCP.
func pair(tb testing.TB) (ours, peer *net.TCPConn) {
	tb.Helper()
	return connect(tb, "tcp", "127.0.0.1:0").tcp()
}

// tooMuch is more than the sockets of a narrow pair hold.
const tooMuch = 4 << 20

// narrowPair is pair with small socket buffers.
func narrowPair(tb testing.TB) (ours, peer *net.TCPConn) {
	tb.Helper()
	ours, peer = pair(tb)
	for _, c := range []*net.TCPConn{ours, peer} {
		require.NoError(tb, c.SetReadBuffer(64<<10))
		require.NoError(tb, c.SetWriteBuffer(64<<10))
	}
	return ours, peer
}

type ends struct{ ours, peer net.Conn }

func (e ends) tcp() (ours, peer *net.TCPConn) { return e.ours.(*net.TCPConn), e.peer.(*net.TCPConn) }

func connect(tb testing.TB, network, address string) ends {
	tb.Helper()
	l, err := net.Listen(network, address)
	require.NoError(tb, err)
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- c
	}()
	ours, err := net.Dial(network, l.Addr().String())
	require.NoError(tb, err)
	peer := await(tb, accepted, "accepted connection")
	require.NotNil(tb, peer)
	tb.Cleanup(func() { peer.Close() })
	require.NoError(tb, peer.SetDeadline(time.Now().Add(2*patience)))
	return ends{ours, peer}
}

// endpoint is a Handler whose behavior tests compose. Without any hook it
// reads everything and sends what is queued with say.
type endpoint struct {
	tb     testing.TB
	l      Loop
	stream Stream

	buffers  func() (direct, scratch []byte) // instead of a scratch buffer
	onRead   func(n int) error               // after the bytes were recorded
	onOffer  func()
	onWrite  func(n int)
	onClosed func(err error)

	scratch  []byte
	direct   []byte // what buffers returned last
	scratchN []byte
	received []byte
	out      [][]byte
	unsent   int // bytes in out

	reads  int // calls of ReadBuffers
	busy   bool
	ended  int
	closed chan error
}

func newEndpoint(tb testing.TB) *endpoint {
	return &endpoint{tb: tb, scratch: make([]byte, 16<<10), closed: make(chan error, 2)}
}

// attach puts the endpoint on the loop.
func (e *endpoint) attach(l Loop, c net.Conn) {
	e.tb.Helper()
	do(e.tb, l, func() { e.attachHere(l, c) })
	require.NotNil(e.tb, e.stream)
}

// attachHere is attach for callers that are on the loop.
func (e *endpoint) attachHere(l Loop, c net.Conn) {
	var err error
	e.l = l
	e.stream, err = l.Attach(c, e)
	assert.NoError(e.tb, err)
}

// say queues bytes; only on the loop.
func (e *endpoint) say(b []byte) {
	e.out = append(e.out, b)
	e.unsent += len(b)
	e.stream.Flush()
}

// enter checks that callbacks do not nest and that Closed is the last one.
func (e *endpoint) enter(name string) func() {
	assert.False(e.tb, e.busy, "%s is called from inside another callback", name)
	assert.Zero(e.tb, e.ended, "%s is called after Closed", name)
	e.busy = true
	return func() { e.busy = false }
}

func (e *endpoint) ReadBuffers() (direct, scratch []byte) {
	defer e.enter("ReadBuffers")()
	e.reads++
	if e.buffers != nil {
		e.direct, e.scratchN = e.buffers()
	} else {
		e.direct, e.scratchN = nil, e.scratch
	}
	return e.direct, e.scratchN
}

func (e *endpoint) DidRead(n int) error {
	defer e.enter("DidRead")()
	assert.Positive(e.tb, n)
	assert.LessOrEqual(e.tb, n, len(e.direct)+len(e.scratchN))
	first := min(n, len(e.direct))
	e.received = append(e.received, e.direct[:first]...)
	e.received = append(e.received, e.scratchN[:n-first]...)
	if e.onRead != nil {
		return e.onRead(n)
	}
	return nil
}

func (e *endpoint) WriteBuffers(iov [][]byte) [][]byte {
	defer e.enter("WriteBuffers")()
	if e.onOffer != nil {
		e.onOffer()
	}
	n := min(cap(iov)-len(iov), len(e.out))
	return append(iov, e.out[:n]...)
}

func (e *endpoint) DidWrite(n int) {
	defer e.enter("DidWrite")()
	assert.Positive(e.tb, n)
	assert.LessOrEqual(e.tb, n, e.unsent)
	e.unsent -= n
	for left := n; left > 0 || len(e.out) > 0 && len(e.out[0]) == 0; {
		part := min(left, len(e.out[0]))
		left -= part
		e.out[0] = e.out[0][part:]
		if len(e.out[0]) == 0 {
			e.out = e.out[1:]
		}
	}
	if e.onWrite != nil {
		e.onWrite(n)
	}
}

func (e *endpoint) Closed(err error) {
	defer e.enter("Closed")()
	e.ended++
	if e.onClosed != nil {
		e.onClosed(err)
	}
	e.closed <- err
}

// outcome waits for Closed.
func (e *endpoint) outcome() error {
	e.tb.Helper()
	return await(e.tb, e.closed, "Closed")
}

// pattern returns n bytes that tell their position.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8*31 ^ i>>16*17)
	}
	return b
}

// assertSame compares without printing megabytes.
func assertSame(tb testing.TB, want, got []byte) {
	tb.Helper()
	if bytes.Equal(want, got) {
		return
	}
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	tb.Errorf("%d bytes instead of %d, the first difference is at %d", len(got), len(want), at)
}

// chunks cuts b into pieces of odd sizes.
func chunks(b []byte) [][]byte {
	sizes := []int{1, 48, 7, 4096 + 48, 333, 65537, 2, 511, 131072 + 13}
	var all [][]byte
	for i := 0; len(b) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(b))
		all = append(all, slices.Clone(b[:n]))
		b = b[n:]
	}
	return all
}
