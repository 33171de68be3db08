package test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/peer"
	"github.com/iscsimp/iscsimp/test/tcpproxy"
	"github.com/iscsimp/iscsimp/test/wire"
)

// TestConnectionsAddUp: with each connection capped, a session of N connections moves at least 0.9 N times what one does, in both directions.
func TestConnectionsAddUp(t *testing.T) {
	const rate = 6 << 20 // bytes per second and connection: far below what the machine can do
	for _, c := range contestants() {
		if c.name != "iscsitest" && c.name != "tgtd" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			p := c.start(t, demand{connections: 4})
			proxy, err := tcpproxy.Open("127.0.0.1:0", p.portal)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, proxy.Close()) })
			require.NoError(t, proxy.Limit(rate))
			p.portal = proxy.Addr()
			for _, direction := range []string{"reads", "writes"} {
				one := throughput(t, p, 1, direction == "writes")
				for attempt := 0; attempt < 3 && one <= 0.9*rate; attempt++ { // other programs take the processor at times
					one = max(one, throughput(t, p, 1, direction == "writes"))
				}
				assert.InDelta(t, rate, one, 0.25*rate, "one connection does not go at the rate of its line")
				for _, n := range []int{2, 4} {
					got := 0.0
					for attempt := 0; attempt < 5 && got <= 0.9*float64(n)*one; attempt++ {
						got = max(got, throughput(t, p, n, direction == "writes"))
					}
					t.Logf("%s over %d connections: %.1f MB/s, %.2f of %d times one (%.1f MB/s)", direction, n, got/1e6, got/(float64(n)*one), n, one/1e6)
					assert.Greater(t, got, 0.9*float64(n)*one, "%s over %d connections", direction, n)
				}
			}
		})
	}
}

// throughput keeps a session of n connections busy for two seconds and returns what it moved, in bytes per second.
func throughput(t *testing.T, p party, n int, write bool) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), peer.Patience)
	defer cancel()
	cfg := p.config()
	cfg.Connections = n
	var rate float64
	require.NoError(t, with(ctx, cfg, func(w *wire.Session) error {
		if err := w.WaitConnections(ctx, n); err != nil {
			return err
		}
		const submitters, size = 100, 64 << 10
		var moved atomic.Int64
		stop := make(chan struct{})
		failed := make(chan error, submitters)
		for i := range submitters {
			go func() {
				failed <- func() error {
					buf := make([]byte, size)
					for {
						select {
						case <-stop:
							return nil
						default:
						}
						move := w.Read
						if write {
							move = w.Write
						}
						if err := move(ctx, p.lun, buf, uint64(i*size/wire.BlockSize)); err != nil {
							return err
						}
						moved.Add(size)
					}
				}()
			}()
		}
		runFor(t, time.Second) // until lines and windows are full
		start, before := time.Now(), moved.Load()
		runFor(t, 2*time.Second)
		rate = float64(moved.Load()-before) / time.Since(start).Seconds()
		close(stop)
		for range submitters {
			if err := <-failed; err != nil {
				return err
			}
		}
		if w.Downs() > 0 {
			return fmt.Errorf("the session was lost: %s", w.Stats().LastError)
		}
		return nil
	}))
	return rate
}

// TestOneOfSeveralConnectionsCut: whoever uses the device sees no error, and no write is lost or carried out twice, while connections of its only session are cut
// one at a time under load.
func TestOneOfSeveralConnectionsCut(t *testing.T) {
	for _, c := range contestants() {
		if c.name != "iscsitest" && c.name != "tgtd" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			p := c.start(t, demand{connections: 4})
			proxy, err := tcpproxy.Open("127.0.0.1:0", p.portal)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, proxy.Close()) })
			device := peer.NeedLogin(t, peer.Login{Portals: []string{proxy.Addr()}, IQN: p.iqn, LUN: p.lun, Args: []string{"--connections", "4", "--error-recovery-level", "2"}})
			waitPaths(t, device, "path up", allUp(1))
			whole := func(made int) func() error {
				return func() error {
					if s := proxy.Stats(); s.Open != 4 || s.Accepted < made {
						return fmt.Errorf("%d connections are open, %d were made", s.Open, s.Accepted)
					}
					return nil
				}
			}
			require.NoError(t, peer.WaitFor(t.Context(), peer.Patience, whole(4)))
			load := startLoad(t, device)
			for i := range 6 {
				runFor(t, 200*time.Millisecond)
				made := proxy.Stats().Accepted
				require.True(t, proxy.ResetOne(i%4))
				require.NoError(t, peer.WaitFor(t.Context(), peer.Patience, whole(made+1)), "after cut %d", i)
			}
			runFor(t, 300*time.Millisecond)
			stats := load.finish()
			if c.name == "iscsitest" { // tgtd grants level 0, and so the whole session is made anew
				assert.Less(t, stats.LongestStall, 2*time.Second, "the loss of one connection stops the others")
			}
		})
	}
}
