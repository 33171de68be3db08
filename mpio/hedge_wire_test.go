package mpio_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
)

// warmUp teaches the device what its paths take.
func (w *wire) warmUp() {
	for range 100 {
		require.NoError(w.t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		time.Sleep(time.Millisecond)
	}
}

// TestLateReadIsHedgedOnTheWire: a portal takes 120 ms for its answers, which is
// not yet silence. The reads are answered over the other one, and what comes late
// touches nobody's buffer.
func TestLateReadIsHedgedOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 2, iscsitest.Quirks{}, nil)
		defer w.close()
		require.NoError(t, <-w.submit(block.OpWrite, 8, bytes.Repeat([]byte{1}, 64<<10)))
		w.warmUp()
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Reads()), iscsitest.Delay(120*time.Millisecond))
		worst := time.Duration(0)
		bufs := make([][]byte, 60)
		for i := range bufs {
			bufs[i] = make([]byte, 64<<10)
			start := time.Now()
			require.NoError(t, <-w.submit(block.OpRead, 8, bufs[i]))
			worst = max(worst, time.Since(start))
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, <-w.submit(block.OpWrite, 8, bytes.Repeat([]byte{2}, 64<<10)))
		time.Sleep(200 * time.Millisecond)
		assert.Greater(t, w.snapshot().Paths[0].P99, 0.1, "late answers tell how slow it is")
		time.Sleep(5 * time.Second) // every late answer has come
		assert.Less(t, worst, 20*time.Millisecond)
		for i := range bufs {
			require.Equal(t, 64<<10, bytes.Count(bufs[i], []byte{1}), "read %d", i)
		}
		s := w.snapshot()
		assert.NotZero(t, s.HedgeWins)
		assert.Equal(t, s.Hedges, s.Paths[0].Hedged+s.Paths[1].Hedged)
	})
}

// TestSlowPortalIsMarginalOnTheWire: it is found out, left alone, probed, and back.
func TestSlowPortalIsMarginalOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 2, iscsitest.Quirks{}, nil)
		defer w.close()
		stop := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case err := <-w.submit(block.OpRead, i%64, make([]byte, 512)):
					assert.NoError(t, err)
				}
				time.Sleep(2 * time.Millisecond)
			}
		}()
		state := func(i int, want mpio.State) func(mpio.Snapshot) bool {
			return func(s mpio.Snapshot) bool { return s.Paths[i].State == want }
		}
		time.Sleep(2 * time.Second)
		slow := w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(1), iscsitest.Reads()), iscsitest.Delay(30*time.Millisecond))
		took := w.until(state(1, mpio.StateMarginal))
		t.Logf("marginal after %v: %s", took, w.snapshot().Paths[1].Reason)
		assert.Less(t, took, 15*time.Second)
		time.Sleep(15 * time.Second)
		s := w.snapshot()
		require.Equal(t, mpio.StateMarginal, s.Paths[1].State)
		assert.True(t, strings.HasPrefix(s.Paths[1].Reason, "half of its reads took more than "), s.Paths[1].Reason)
		assert.False(t, s.Paths[1].Active)
		assert.NotZero(t, s.Paths[1].Polls)
		assert.Equal(t, 2, s.Paths[1].Health.Relapses, "it did not pass its probation")
		slow.Remove()
		w.until(state(1, mpio.StateUp))
		close(stop)
		<-ended
	})
}
