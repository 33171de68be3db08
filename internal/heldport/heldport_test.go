package heldport_test

import (
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/heldport"
)

func hold(t *testing.T, address string) *heldport.Port {
	t.Helper()
	p, err := heldport.Hold(address)
	require.NoError(t, err)
	t.Cleanup(p.Release)
	return p
}

func TestPortIsListenedOnAgain(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "localhost:0", "127.0.0.9:0", ":0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			if l, err := net.Listen("tcp", address); err != nil {
				t.Skipf("this machine has no such address: %v", err)
			} else {
				require.NoError(t, l.Close())
			}
			p := hold(t, address)
			_, port, err := net.SplitHostPort(p.Addr())
			require.NoError(t, err)
			require.NotEqual(t, "0", port)
			for range 3 {
				if address != ":0" { // which is not held
					_, err := net.Dial("tcp", p.Addr())
					require.ErrorIs(t, err, syscall.ECONNREFUSED)
				}
				l, err := p.Listen()
				require.NoError(t, err)
				assert.Equal(t, port, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
				client, err := net.Dial("tcp", p.Addr())
				require.NoError(t, err)
				server, err := l.Accept()
				require.NoError(t, err)
				require.NoError(t, l.Close())
				defer client.Close() // connections live on beside the next listener
				defer server.Close()
			}
		})
	}
}

// TestNobodyElseGetsIt: neither another who lets the system choose, nor an outgoing
// connection, be it one to that very port.
func TestNobodyElseGetsIt(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ports are held on Linux only")
	}
	p := hold(t, "127.0.0.1:0")
	held := map[string]bool{p.Addr(): true}
	for range 300 {
		other := hold(t, "127.0.0.1:0")
		require.False(t, held[other.Addr()], other.Addr())
		held[other.Addr()] = true
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	require.False(t, held[listener.Addr().String()])
	bound := net.Dialer{LocalAddr: address(t, p.Addr())}
	_, err = bound.Dial("tcp", p.Addr())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

func TestReleasedPort(t *testing.T) {
	p := hold(t, "127.0.0.1:0")
	p.Release()
	p.Release()
	again := hold(t, p.Addr())
	assert.Equal(t, p.Addr(), again.Addr())
	var none *heldport.Port
	none.Release()
}

func TestAddressThatIsNone(t *testing.T) {
	for _, bad := range []string{"no port", "127.0.0.1:x", "127.0.0.1:70000"} {
		_, err := heldport.Hold(bad)
		assert.Error(t, err, bad)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	p := hold(t, taken.Addr().String())
	_, err = p.Listen()
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

func address(t *testing.T, text string) *net.TCPAddr {
	a, err := net.ResolveTCPAddr("tcp", text)
	require.NoError(t, err)
	return a
}
