package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
)

// nbdClient speaks as much NBD as a test of restarts needs: one request at a
// time may be waited for.
type nbdClient struct {
	t *testing.T
	net.Conn
	handle uint64
}

// dialExport takes the default export of a running device.
func dialExport(t *testing.T, socket string) *nbdClient {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	c := &nbdClient{t: t, Conn: conn}
	t.Cleanup(func() { conn.Close() })
	c.take(18)                                                  // NBDMAGIC, IHAVEOPT, flags
	c.send(uint32(3), []byte("IHAVEOPT"), uint32(1), uint32(0)) // fixed newstyle, no zeroes; EXPORT_NAME ""
	c.take(10)
	return c
}

func (c *nbdClient) send(parts ...any) {
	c.t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		require.NoError(c.t, binary.Write(&b, binary.BigEndian, p))
	}
	_, err := c.Write(b.Bytes())
	require.NoError(c.t, err)
}

func (c *nbdClient) take(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	require.NoError(c.t, err)
	return b
}

// write begins a write of one block filled with value.
func (c *nbdClient) write(block int, value byte) {
	c.t.Helper()
	c.handle++
	c.send(uint32(0x25609513), uint16(0), uint16(1), c.handle, uint64(block)*512, uint32(512), bytes.Repeat([]byte{value}, 512))
}

// answered waits for the answer to the last request.
func (c *nbdClient) answered() {
	c.t.Helper()
	reply := c.take(16)
	require.Zero(c.t, binary.BigEndian.Uint32(reply[4:]), "an error of NBD")
	require.Equal(c.t, c.handle, binary.BigEndian.Uint64(reply[8:]))
}

func (c *nbdClient) read(block int) byte {
	c.t.Helper()
	c.handle++
	c.send(uint32(0x25609513), uint16(0), uint16(0), c.handle, uint64(block)*512, uint32(512))
	c.answered()
	return c.take(512)[0]
}

// startAt runs the program through the given portals.
func startAt(t *testing.T, dir, target string, portals []string, more ...string) *program {
	t.Helper()
	args := []string{
		"login", "--json", "--runtime-dir", dir, "--name", "d", "--initiator-name", "iqn.2026-01.test.iscsimp:host", target,
	}
	for _, p := range portals {
		args = append(args, "-p", p)
	}
	return launch(t, dir, append(args, more...)...)
}

// TestKilledProcessLeavesAFence: a process is killed while a write of it hangs
// on its way to the target. The next one writes to the same block, through
// another portal. Then the old write gets through.
func TestKilledProcessLeavesAFence(t *testing.T) {
	for name, noted := range map[string]bool{"noted": true, "not noted: the older data wins, so the test can fail": false} {
		t.Run(name, func(t *testing.T) {
			var tgt *iscsitest.Target
			proxy, err := iscsitest.NewFaultProxy(iscsitest.ProxyConfig{Dial: func() (net.Conn, error) { return net.Dial("tcp", tgt.Addr(0)) }})
			require.NoError(t, err)
			t.Cleanup(proxy.Close)
			tgt = startTarget(t, iscsitest.Config{Portals: []iscsitest.Portal{{Advertise: proxy.Addr()}, {}}})
			dir := shortdir.New(t)
			state := []string{"--state-dir", "none"}
			if noted {
				state[1] = filepath.Join(dir, "state", "of its own")
			}
			hold := iscsitest.NewHold(iscsitest.HoldStrict)
			t.Cleanup(hold.Release)
			proxy.Inject(iscsitest.And(iscsitest.Writes(), iscsitest.First(1)), iscsitest.FaultHold(hold))

			p := startAt(t, dir, tgt.Name(), []string{proxy.Addr()}, append(state, "--only-given")...)
			dialExport(t, filepath.Join(dir, "d.nbd")).write(7, 1)
			require.NoError(t, hold.WaitHeld(t.Context(), 1))
			p.signal(syscall.SIGKILL)
			p.wait()
			proxy.Inject(iscsitest.Op(pdu.OpLogin), iscsitest.FaultDrop()) // its portal stays dead

			p = startAt(t, dir, tgt.Name(), []string{proxy.Addr(), tgt.Addr(1)}, state...)
			c := dialExport(t, filepath.Join(dir, "d.nbd"))
			assert.Zero(t, c.read(7), "reads do not wait")
			start := time.Now()
			c.write(7, 2)
			c.answered()
			waited := time.Since(start)
			hold.Release()
			if !noted {
				require.Eventually(t, func() bool { return c.read(7) == 1 }, patience, 5*time.Millisecond,
					"the test of the test: without the note the stale write must be seen")
				return
			}
			assert.Less(t, waited, patience/2, "the old session was ended through the other portal")
			require.Eventually(t, func() bool { return proxy.Conns() <= 1 }, patience, 5*time.Millisecond, "the held bytes are gone")
			assert.Equal(t, byte(2), c.read(7))
			t.Logf("the first write after the restart waited %v", waited)

			left, err := filepath.Glob(filepath.Join(state[1], "unclean-*.json"))
			require.NoError(t, err)
			require.Len(t, left, 1)
			p.signal(syscall.SIGTERM)
			require.Zero(t, p.wait())
			all, err := os.ReadDir(state[1])
			require.NoError(t, err)
			assert.Empty(t, all, "an orderly end leaves nothing")
		})
	}
}

func TestLoginNeedsItsStateFolder(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	r := runCLI(t, append(loginArgs(tgt, shortdir.New(t)), "--state-dir", file)...)
	assert.Equal(t, exitError, r.code)
	assert.Contains(t, r.stderr, "state folder")
	assert.Contains(t, r.stderr, "make it writable")
}

func TestKilledProcessNotes(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	p := login(t, tgt)
	files, err := filepath.Glob(filepath.Join(p.dir, "unclean-*.json"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	b, err := os.ReadFile(files[0])
	require.NoError(t, err)
	var u struct {
		Target   string
		Sessions []struct {
			Portal   string
			TPGT     int
			Provable bool
		}
	}
	require.NoError(t, json.Unmarshal(b, &u))
	assert.Equal(t, tgt.Name(), u.Target)
	require.Len(t, u.Sessions, 1)
	assert.Equal(t, tgt.Addr(0), u.Sessions[0].Portal)
	assert.Equal(t, 1, u.Sessions[0].TPGT)
	assert.True(t, u.Sessions[0].Provable)
}
