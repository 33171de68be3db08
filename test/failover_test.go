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
	leaveLimit  = 500 * time.Millisecond // ... and so is a write, unless it overlaps one whose first copy may still land
	downLimit   = 3 * time.Second        // a silent path is declared down
	resetRounds = 5
	stallRounds = 3
	slack       = 4 // the limits grow by so many times the longest request while both paths are well: the machine may have more to do
)

// stopwatch keeps 4 KiB requests in flight and notes the longest.
type stopwatch struct {
	longest atomic.Int64
	count   atomic.Int64
}

// watch makes workers send requests, one after another, until the test ends. request gets the number of the worker and of its request.
func watch(t *testing.T, workers int, request func(worker, number int) error) *stopwatch {
	w := &stopwatch{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				if !assert.NoError(t, request(i, n)) {
					return
				}
				took := int64(time.Since(began))
				for old := w.longest.Load(); took > old && !w.longest.CompareAndSwap(old, took); old = w.longest.Load() {
				}
				w.count.Add(1)
			}
		})
	}
	t.Cleanup(func() { close(stop); wg.Wait() })
	return w
}

// watchReads reads blocks anywhere.
func watchReads(t *testing.T, device *peer.Device, workers int) *stopwatch {
	client := dialNBD(t, device)
	bufs := make([][4096]byte, workers)
	return watch(t, workers, func(worker, _ int) error {
		return client.Read(bufs[worker][:], rand.Uint64N(client.Size/4096)*4096)
	})
}

// watchWrites writes blocks one after another, each worker in a part of its own, so that none overlaps a recent one: that would rightly wait for the fence.
func watchWrites(t *testing.T, device *peer.Device, workers int) *stopwatch {
	client := dialNBD(t, device)
	part := int(client.Size) / 4096 / workers
	buf := make([]byte, 4096)
	return watch(t, workers, func(worker, n int) error {
		return client.Write(buf, uint64(worker*part+n%part)*4096, false)
	})
}

// worst gives the longest request since the last call.
func (w *stopwatch) worst() time.Duration { return time.Duration(w.longest.Swap(0)) }

// TestFailoverTimes measures what reads and writes feel when one of two paths is reset, and when one falls silent.
func TestFailoverTimes(t *testing.T) {
	target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 512)}}})
	proxies, portals := behindProxies(t, target.Portals)
	device := peer.NeedLogin(t, peer.Login{Portals: portals, IQN: target.IQN, LUN: 1, Args: steady})
	waitPaths(t, device, "all paths up", allUp(2))
	r, w := watchReads(t, device, 8), watchWrites(t, device, 4)

	var quiet, reset, resetWrite, shed, leave, suspect, down []time.Duration
	for range resetRounds {
		runFor(t, 300*time.Millisecond)
		quiet = append(quiet, max(r.worst(), w.worst()))
		proxies[0].Reset()
		runFor(t, 500*time.Millisecond)
		reset, resetWrite = append(reset, r.worst()), append(resetWrite, w.worst())
		t.Logf("reset: longest read %v (before: %v), write %v", reset[len(reset)-1], quiet[len(quiet)-1], resetWrite[len(resetWrite)-1])
		waitPaths(t, device, "all paths up", allUp(2))
	}
	for range stallRounds {
		runFor(t, 300*time.Millisecond)
		quiet = append(quiet, max(r.worst(), w.worst()))
		began := time.Now()
		require.NoError(t, proxies[0].Stall())
		status := waitPaths(t, device, "silent path suspect", pathIsNot(portals[0], "up"))
		suspect = append(suspect, since(t, status.Path(portals[0])).Sub(began))
		runFor(t, 500*time.Millisecond)
		shed, leave = append(shed, r.worst()), append(leave, w.worst())
		status = waitPaths(t, device, "silent path down", pathIs(portals[0], "down"))
		down = append(down, since(t, status.Path(portals[0])).Sub(began))
		t.Logf("silence: longest read %v, write %v, suspect after %v, down after %v", shed[len(shed)-1], leave[len(leave)-1], suspect[len(suspect)-1], down[len(down)-1])
		require.NoError(t, proxies[0].Go())
		waitPaths(t, device, "all paths up", allUp(2))
	}
	t.Logf("medians: reset: longest read %v, write %v; silence: longest read %v, write %v, suspect %v, down %v; %d reads, %d writes, no error",
		median(reset), median(resetWrite), median(shed), median(leave), median(suspect), median(down), r.count.Load(), w.count.Load())
	busy := slack * median(quiet)
	assert.Less(t, median(reset), resetLimit+busy, "longest read when a path is reset")
	assert.Less(t, median(shed), shedLimit+busy, "longest read when a path falls silent")
	assert.Less(t, median(leave), leaveLimit+busy, "longest write when a path falls silent")
	assert.LessOrEqual(t, median(down), downLimit+busy, "silent path declared down")
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
