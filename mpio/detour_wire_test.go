package mpio_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
)

// TestDetourOnTheWire: a target hangs with a write and the portal it came through
// stays dead. A newer write waits no longer than it takes to end the old session
// through the other portal, and the old write never lands.
func TestDetourOnTheWire(t *testing.T) {
	for name, c := range map[string]struct {
		shared bool
		least  time.Duration
		most   time.Duration
	}{
		"settled by a detour":     {most: 2500 * time.Millisecond},
		"the answer itself waits": {shared: true, least: 100 * time.Millisecond, most: 2500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t, 2, iscsitest.Quirks{}, func(cfg *mpio.Config) { cfg.Shared = c.shared })
				defer w.close()
				w.onlyA()
				hold := iscsitest.NewHold(iscsitest.HoldHung)
				w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Writes(), iscsitest.First(1)), iscsitest.HoldWrite(hold))
				older := w.submit(block.OpWrite, 7, bytes.Repeat([]byte{1}, 512))
				require.NoError(t, hold.WaitHeld(t.Context(), 1))
				w.tgt.StopPortal(0)
				start := time.Now()
				require.NoError(t, <-older)
				if c.shared {
					assert.Greater(t, time.Since(start), c.least, "not before the old copy is dead")
					assert.Zero(t, w.snapshot().FencedCount)
				} else {
					assert.Less(t, time.Since(start), 100*time.Millisecond)
				}
				require.NoError(t, <-w.submit(block.OpWrite, 7, bytes.Repeat([]byte{2}, 512)))
				assert.GreaterOrEqual(t, time.Since(start), c.least)
				assert.LessOrEqual(t, time.Since(start), c.most)
				hold.Release()
				time.Sleep(10 * time.Second)
				got := make([]byte, 512)
				require.NoError(t, <-w.submit(block.OpRead, 7, got))
				assert.Equal(t, byte(2), got[0])
				require.NoError(t, w.tgt.StartPortal(0))
				w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
			})
		})
	}
}
