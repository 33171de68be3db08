//go:build linux

package hotpath

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/nbd"
)

// The peers, target and NBD client, run in a child process, so that everything
// counted in this one is the product's.
func TestMain(m *testing.M) {
	if os.Getenv("HOTPATH_PEER") != "" {
		if err := peer(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	depth    = 32
	warmUp   = 20_000
	measured = 100_000
)

// cost is what the process has used so far.
type cost struct {
	mallocs, schedules uint64
	goroutines         int
	calls              loop.Counts
}

func measure(l loop.Loop) cost {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	// The histogram of scheduling latencies has one entry for each time a
	// goroutine was made runnable and then ran: what a hand-off over a channel,
	// a new goroutine or the network poller would add to.
	s := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(s)
	c := cost{mallocs: m.Mallocs, goroutines: runtime.NumGoroutine(), calls: l.(loop.Counter).Syscalls()}
	for _, n := range s[0].Value.Float64Histogram().Counts {
		c.schedules += n
	}
	return c
}

// child is the process with the peers.
type child struct {
	t   *testing.T
	in  *os.File
	out *bufio.Reader
}

func startPeer(t *testing.T) *child {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "HOTPATH_PEER=1")
	cmd.Stderr = os.Stderr
	in, w, err := os.Pipe()
	require.NoError(t, err)
	r, out, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdin, cmd.Stdout = in, out
	require.NoError(t, cmd.Start())
	in.Close()
	out.Close()
	t.Cleanup(func() {
		w.Close() // the child ends at the end of its input
		require.NoError(t, cmd.Wait())
		r.Close()
	})
	return &child{t, w, bufio.NewReader(r)}
}

func (c *child) say(format string, a ...any) {
	_, err := fmt.Fprintf(c.in, format+"\n", a...)
	require.NoError(c.t, err)
}

func (c *child) hear() string {
	line, err := c.out.ReadString('\n')
	require.NoError(c.t, err)
	return strings.TrimSpace(line)
}

func TestHotPath(t *testing.T) {
	p := startPeer(t)
	portals := strings.Fields(p.hear())
	dev, err := initiator.Open(t.Context(), initiator.Config{
		InitiatorName: "iqn.2026-01.test:hotpath", Target: portals[0], Portals: portals[1:], OnlyGiven: true,
		Wait: initiator.WaitAll,
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, dev.Close(t.Context())) }()
	srv, err := nbd.New(nbd.Config{Exports: []nbd.Export{{Name: "d", Device: dev.Block()}}})
	require.NoError(t, err)
	sock := filepath.Join(t.TempDir(), "nbd")
	ln, err := nbd.ListenUnix(sock)
	require.NoError(t, err)
	go srv.Serve(ln) //nolint:errcheck // ends with Close below
	defer func() { require.NoError(t, srv.Close(t.Context())) }()

	p.say("connect %s", sock)
	require.Equal(t, "connected", p.hear())
	for _, op := range []string{"read", "write"} {
		t.Run(op, func(t *testing.T) {
			p.say("%s %d", op, warmUp)
			require.Equal(t, "done", p.hear())
			// A collection in the middle would run goroutines of its own.
			runtime.GC()
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			before := measure(dev.Block().Loop())
			started := time.Now()
			p.say("%s %d", op, measured)
			require.Equal(t, "done", p.hear())
			took := time.Since(started)
			after := measure(dev.Block().Loop())

			calls := after.calls.Sub(before.calls)
			per := func(n uint64) float64 { return float64(n) / measured }
			t.Logf("per 4 KiB %s at depth %d: %.4f allocations, %.4f goroutine switches, %.3f system calls (%+v), %.1f µs",
				op, depth, per(after.mallocs-before.mallocs), per(after.schedules-before.schedules), per(calls.Total()), calls,
				float64(took.Microseconds())/measured)
			// Timers and this test's own pipe traffic take a few; one per command would be 1.0.
			require.Less(t, per(after.mallocs-before.mallocs), 0.01, "allocations per command")
			require.Less(t, per(after.schedules-before.schedules), 0.05, "goroutine switches per command")
			require.LessOrEqual(t, after.goroutines, before.goroutines+1, "goroutines")
			require.Less(t, per(calls.Total()), 1.0, "system calls per command")
		})
	}
}
