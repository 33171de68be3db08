package tcpproxy

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sinkhole accepts connections and answers each byte stream with its length's end: it reads all, then closes.
func sinkhole(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

func TestLimitCapsEachConnection(t *testing.T) {
	p, err := Open("127.0.0.1:0", sinkhole(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	const rate = 4 << 20
	require.Error(t, p.Limit(-1))
	require.NoError(t, p.Limit(rate))
	assert.EqualValues(t, rate, p.Stats().Rate)
	took := make(chan time.Duration, 2)
	for range 2 { // side by side, each has the whole rate
		go func() {
			start := time.Now()
			conn, err := net.Dial("tcp", p.Addr())
			if assert.NoError(t, err) {
				_, err = conn.Write(make([]byte, 2<<20))
				assert.NoError(t, err)
				assert.NoError(t, conn.(*net.TCPConn).CloseWrite())
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
			took <- time.Since(start)
		}()
	}
	for range 2 {
		d := <-took
		assert.Greater(t, d, 400*time.Millisecond, "faster than the line is wide")
		assert.Less(t, d, 20*time.Second, "slower than the line is wide")
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Now()
	assert.Zero(t, b.take(now, 1000, 1000), "a second's worth may start at once")
	assert.InDelta(t, time.Second-burstTime, b.take(now, 1000, 1000), float64(time.Millisecond))
	assert.Zero(t, b.take(now.Add(10*time.Second), 1000, 1000), "an idle line saves up no more than a burst")
	assert.InDelta(t, time.Second-burstTime, b.take(now.Add(10*time.Second), 1, 1000), float64(time.Millisecond))
}

func TestResetOne(t *testing.T) {
	p, err := Open("127.0.0.1:0", sinkhole(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	var conns [2]net.Conn
	for i := range conns {
		conns[i], err = net.Dial("tcp", p.Addr())
		require.NoError(t, err)
		defer conns[i].Close()
		require.Eventually(t, func() bool { return p.Stats().Open == i+1 }, time.Minute, time.Millisecond)
	}
	assert.False(t, p.ResetOne(2))
	assert.False(t, p.ResetOne(-1))
	require.True(t, p.ResetOne(0))
	_, err = conns[0].Read(make([]byte, 1))
	require.Error(t, err)
	require.Eventually(t, func() bool { return p.Stats().Open == 1 }, time.Minute, time.Millisecond)
	_, err = conns[1].Write([]byte{1})
	require.NoError(t, err)
}
