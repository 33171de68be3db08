package tcpproxy_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/iscsimp/iscsimp/internal/heldport"
	"github.com/iscsimp/iscsimp/test/tcpproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startEcho returns the address of a server that sends back what it gets and closes after the client's end.
func startEcho(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

func openProxy(t *testing.T, target string) *tcpproxy.Proxy {
	t.Helper()
	proxy, err := tcpproxy.Open("127.0.0.1:0", target)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	return proxy
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, time.Minute)
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// roundTrip sends one byte and returns how long its echo took.
func roundTrip(t *testing.T, conn net.Conn, value byte) time.Duration {
	t.Helper()
	start := time.Now()
	_, err := conn.Write([]byte{value})
	require.NoError(t, err)
	got := []byte{^value}
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, value, got[0])
	return time.Since(start)
}

// transfer sends size random bytes and an end, and compares what comes back up to the end.
func transfer(t *testing.T, conn *net.TCPConn, size int) time.Duration {
	t.Helper()
	sent := make([]byte, size)
	_, err := rand.Read(sent)
	require.NoError(t, err)
	start := time.Now()
	writing := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		if err == nil {
			err = conn.CloseWrite()
		}
		writing <- err
	}()
	got, err := io.ReadAll(conn)
	elapsed := time.Since(start)
	require.NoError(t, err)
	require.NoError(t, <-writing)
	require.True(t, bytes.Equal(sent, got), "%d bytes sent, %d came back", len(sent), len(got))
	return elapsed
}

func TestForwardPassesEveryByteAndTheEnd(t *testing.T) {
	proxy := openProxy(t, startEcho(t))
	const size = 8 << 20
	transfer(t, dial(t, proxy.Addr()), size)
	assert.Eventually(t, func() bool {
		s := proxy.Stats()
		return s.ToTarget == size && s.ToClient == size && s.Accepted == 1 && s.Open == 0
	}, time.Minute, time.Millisecond, "%+v", proxy.Stats())
}

func TestDelayAddsLatencyAndKeepsThroughput(t *testing.T) {
	const each = 200 * time.Millisecond
	proxy := openProxy(t, startEcho(t))
	conn := dial(t, proxy.Addr())
	roundTrip(t, conn, 1)
	require.NoError(t, proxy.Delay(each))
	assert.GreaterOrEqual(t, roundTrip(t, conn, 2), 2*each)
	assert.Equal(t, each, proxy.Stats().Delay)
	// A proxy that slept for each piece it reads would need 200 ms for each of at least 128 pieces: 25.6 s and more.
	elapsed := transfer(t, dial(t, proxy.Addr()), 32<<20)
	assert.GreaterOrEqual(t, elapsed, 2*each)
	assert.Less(t, elapsed, 20*time.Second)
	require.NoError(t, proxy.Go())
	took := roundTrip(t, conn, 3)
	for attempt := 0; attempt < 20 && took >= 2*each; attempt++ { // other programs take the processor at times
		took = roundTrip(t, conn, 3)
	}
	assert.Less(t, took, 2*each)
	require.Error(t, proxy.Delay(-1))
}

func TestStallIsSilentAndLosesNothing(t *testing.T) {
	proxy := openProxy(t, startEcho(t))
	conn := dial(t, proxy.Addr())
	roundTrip(t, conn, 1)
	require.NoError(t, proxy.Stall())
	assert.Equal(t, tcpproxy.Stalled, proxy.Stats().Mode)
	before := proxy.Stats()
	_, err := conn.Write([]byte("held back"))
	require.NoError(t, err)
	late := dial(t, proxy.Addr()) // accepted, and hears nothing
	_, err = late.Write([]byte("too"))
	require.NoError(t, err)
	for _, c := range []net.Conn{conn, late} {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	}
	assert.Equal(t, before.ToTarget, proxy.Stats().ToTarget)
	require.NoError(t, proxy.Go())
	for c, want := range map[net.Conn]string{conn: "held back", late: "too"} {
		got := make([]byte, len(want))
		_, err = io.ReadFull(c, got)
		require.NoError(t, err)
		assert.Equal(t, want, string(got))
	}
}

func TestStallHidesTheEndOfAConnection(t *testing.T) {
	proxy := openProxy(t, startEcho(t))
	conn := dial(t, proxy.Addr())
	roundTrip(t, conn, 1)
	require.NoError(t, proxy.Stall())
	require.NoError(t, conn.CloseWrite())
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, proxy.Go())
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestCutResetsAndRefusesUntilHealed(t *testing.T) {
	for name, before := range map[string]func(*tcpproxy.Proxy) error{
		"forwarding": (*tcpproxy.Proxy).Go,
		"stalled":    (*tcpproxy.Proxy).Stall,
		"delayed":    func(p *tcpproxy.Proxy) error { return p.Delay(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			proxy := openProxy(t, startEcho(t))
			conn := dial(t, proxy.Addr())
			roundTrip(t, conn, 1)
			require.NoError(t, before(proxy))
			_, err := conn.Write([]byte("on its way"))
			require.NoError(t, err)
			require.NoError(t, proxy.Cut())
			_, err = io.ReadFull(conn, make([]byte, 100))
			require.ErrorIs(t, err, syscall.ECONNRESET)
			_, err = net.Dial("tcp", proxy.Addr())
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			require.NoError(t, proxy.Go())
			roundTrip(t, dial(t, proxy.Addr()), 2)
		})
	}
}

func TestResetHitsOpenConnectionsOnly(t *testing.T) {
	proxy := openProxy(t, startEcho(t))
	conn := dial(t, proxy.Addr())
	roundTrip(t, conn, 1)
	proxy.Reset()
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	roundTrip(t, dial(t, proxy.Addr()), 2)
}

func TestTargetThatRefusesIsAReset(t *testing.T) {
	closed, err := heldport.Hold("127.0.0.1:0")
	require.NoError(t, err)
	defer closed.Release()
	proxy := openProxy(t, closed.Addr())
	conn, err := net.Dial("tcp", proxy.Addr())
	if err == nil { // the reset may be as quick as the dial
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, conn.Close())
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
	assert.Equal(t, closed.Addr(), proxy.Target())
}

func TestClosedProxyStaysClosed(t *testing.T) {
	proxy, err := tcpproxy.Open("127.0.0.1:0", "127.0.0.1:1")
	require.NoError(t, err)
	require.NoError(t, proxy.Close())
	require.ErrorIs(t, proxy.Go(), net.ErrClosed)
	_, err = tcpproxy.Open("not an address", "127.0.0.1:1")
	require.Error(t, err)
}
