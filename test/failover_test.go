package test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/peer"
)

// What a path that dies may cost; measured on the way, see docs/benchmarks.md.
const (
	resetLimit  = 50 * time.Millisecond  // a read whose path was reset is answered over another
	shedLimit   = 300 * time.Millisecond // a read sent down a path that fell silent is answered over another
	downLimit   = 3 * time.Second        // a silent path is declared down
	resetRounds = 5
	stallRounds = 3
)

// readers keep 4 KiB reads in flight and note the longest.
type readers struct {
	longest atomic.Int64
	count   atomic.Int64
	stop    chan struct{}
	wg      sync.WaitGroup
}

// startReaders runs n readers; writers are left out, since their writes rightly wait behind the fence.
func startReaders(t *testing.T, device *peer.Device, n int) *readers {
	client := dialNBD(t, device)
	r := &readers{stop: make(chan struct{})}
	for i := range n {
		r.wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			buf := make([]byte, 4096)
			for {
				select {
				case <-r.stop:
					return
				default:
				}
				began := time.Now()
				if !assert.NoError(t, client.Read(buf, rng.Uint64N(client.Size/4096)*4096)) {
					return
				}
				took := int64(time.Since(began))
				for old := r.longest.Load(); took > old && !r.longest.CompareAndSwap(old, took); old = r.longest.Load() {
				}
				r.count.Add(1)
			}
		})
	}
	t.Cleanup(func() { close(r.stop); r.wg.Wait() })
	return r
}

// worst gives the longest read since the last call.
func (r *readers) worst() time.Duration { return time.Duration(r.longest.Swap(0)) }

// TestFailoverTimes measures what reads feel when one of two paths is reset, and when one falls silent.
func TestFailoverTimes(t *testing.T) {
	target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16)}}})
	proxies, portals := behindProxies(t, target.Portals)
	device := peer.NeedLogin(t, peer.Login{Portals: portals, IQN: target.IQN, LUN: 1})
	waitPaths(t, device, "all paths up", allUp(2))
	r := startReaders(t, device, 8)

	var reset, shed, suspect, down []time.Duration
	for range resetRounds {
		runFor(t, 300*time.Millisecond)
		quiet := r.worst()
		proxies[0].Reset()
		runFor(t, 500*time.Millisecond)
		reset = append(reset, r.worst())
		t.Logf("reset: longest read %v (before: %v)", reset[len(reset)-1], quiet)
		waitPaths(t, device, "all paths up", allUp(2))
	}
	for range stallRounds {
		runFor(t, 300*time.Millisecond)
		r.worst()
		began := time.Now()
		require.NoError(t, proxies[0].Stall())
		status := waitPaths(t, device, "silent path suspect", pathIsNot(portals[0], "up"))
		suspect = append(suspect, since(t, status.Path(portals[0])).Sub(began))
		runFor(t, 500*time.Millisecond)
		shed = append(shed, r.worst())
		status = waitPaths(t, device, "silent path down", pathIs(portals[0], "down"))
		down = append(down, since(t, status.Path(portals[0])).Sub(began))
		t.Logf("silence: longest read %v, suspect after %v, down after %v", shed[len(shed)-1], suspect[len(suspect)-1], down[len(down)-1])
		require.NoError(t, proxies[0].Go())
		waitPaths(t, device, "all paths up", allUp(2))
	}
	t.Logf("medians: reset %v; silence: longest read %v, suspect %v, down %v; %d reads, no error",
		median(reset), median(shed), median(suspect), median(down), r.count.Load())
	assert.Less(t, median(reset), resetLimit, "longest read when a path is reset")
	assert.Less(t, median(shed), shedLimit, "longest read when a path falls silent")
	assert.LessOrEqual(t, median(down), downLimit, "silent path declared down")
}

func since(t *testing.T, p peer.PathStatus) time.Time {
	at, err := time.Parse(time.RFC3339Nano, p.Since)
	require.NoError(t, err)
	return at
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}
