package mpio_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
)

// TestDeadPathIsFencedOffByItsKey: a path dies with a write inside, and no login ever
// proves anything. With a key of its own and a reservation the write is settled by
// PREEMPT AND ABORT within seconds, whether the target had begun with it or had not
// even read it; without either only time settles it.
func TestDeadPathIsFencedOffByItsKey(t *testing.T) {
	for name, c := range map[string]struct {
		perPath, reserved, unread bool
		fast                      bool
	}{
		"begun":          {perPath: true, reserved: true, fast: true},
		"not read":       {perPath: true, reserved: true, unread: true, fast: true},
		"not reserved":   {perPath: true, unread: true},
		"one key of all": {reserved: true, unread: true},
	} {
		t.Run(name, func(t *testing.T) {
			quirks := iscsitest.Quirks{TSIHZero: true, NoReinstatement: true}
			inReserveRig(t, 2, quirks, false, func(t *testing.T, r *reserveRig) {
				w := r.a
				require.NoError(t, w.register(mpio.Registration{Key: keyA, PerPath: c.perPath}))
				w.onlyA()
				if c.reserved {
					require.NoError(t, w.reserve(wero)) // over the path that dies
				}
				hold := iscsitest.NewHold(iscsitest.HoldHung)
				action := iscsitest.HoldWrite(hold)
				if c.unread {
					hold = iscsitest.NewHold(iscsitest.HoldZombie) // no abort reaches it
					action = iscsitest.Hang(hold)
				}
				r.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Writes(), iscsitest.First(1)), action)
				older := w.submit(block.OpWrite, 7, bytes.Repeat([]byte{1}, 512))
				require.NoError(t, hold.WaitHeld(t.Context(), 1))
				r.tgt.StopPortal(0)
				require.NoError(t, <-older, "answered over the other path")

				start := time.Now()
				require.NoError(t, <-w.submit(block.OpWrite, 7, bytes.Repeat([]byte{2}, 512)))
				took := time.Since(start)
				if !c.fast {
					assert.Greater(t, took, 50*time.Second, "only time settles it")
					return
				}
				assert.Less(t, took, 5*time.Second)
				require.NoError(t, r.tgt.StartPortal(0))
				time.Sleep(20 * time.Second)
				s := w.snapshot()
				assert.Equal(t, 1, s.PathsUp, "it must not register again before the old session is over: %s", s.Paths[0].Reason)
				assert.NotContains(t, r.keys(), keyA)
				hold.Release()
				time.Sleep(time.Second)
				got := make([]byte, 512)
				require.NoError(t, <-w.submit(block.OpRead, 7, got))
				assert.Equal(t, byte(2), got[0], "nothing older may land")
				w.allUp()
				assert.ElementsMatch(t, []uint64{keyA, keyA + 1}, r.keys())
				assert.True(t, r.r.State().Held)
				require.NoError(t, w.write())
				assert.Zero(t, w.snapshot().FencesTimedOut)
			})
		})
	}
}

// TestPathFencedOffByItsKeyReturnsAtOnce: where a login proves that the old session is
// over the path need not wait. The portals are groups of their own, so that no
// other one can be asked.
func TestPathFencedOffByItsKeyReturnsAtOnce(t *testing.T) {
	cfg := iscsitest.Config{Portals: []iscsitest.Portal{{TPGT: 1}, {TPGT: 2}, {TPGT: 3}}}
	inReserveRigOf(t, cfg, false, func(t *testing.T, r *reserveRig) {
		w := r.a
		require.NoError(t, w.register(mpio.Registration{Key: keyA, PerPath: true}))
		require.NoError(t, w.reserve(earo))
		hold := iscsitest.NewHold(iscsitest.HoldHung)
		r.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Writes(), iscsitest.First(1)), iscsitest.HoldWrite(hold))
		for i := range 3 {
			prio := 2 - asInt(i == 0)
			w.on(func() {
				require.NoError(t, w.d.SetPath(string(rune('a'+i)), mpio.PathOp{Kind: mpio.OpPriority, Value: prio}))
			})
		}
		older := w.submit(block.OpWrite, 7, make([]byte, 512))
		require.NoError(t, hold.WaitHeld(t.Context(), 1))
		r.tgt.StopPortal(0)
		require.NoError(t, <-older)
		w.until(func(s mpio.Snapshot) bool { return s.FencedCount == 0 })
		assert.NotContains(t, r.keys(), keyA)
		require.NoError(t, r.tgt.StartPortal(0))
		took := w.until(func(s mpio.Snapshot) bool {
			return s.Paths[0].State == mpio.StateUp || s.Paths[0].State == mpio.StateMarginal
		})
		assert.Less(t, took, 10*time.Second)
		assert.ElementsMatch(t, []uint64{keyA, keyA + 1, keyA + 2}, r.keys())
		require.NoError(t, w.release())
	})
}

// TestTargetWithoutPreemptAndAbort: it is asked once, and time settles.
func TestTargetWithoutPreemptAndAbort(t *testing.T) {
	quirks := iscsitest.Quirks{TSIHZero: true, NoReinstatement: true}
	inReserveRig(t, 2, quirks, false, func(t *testing.T, r *reserveRig) {
		w := r.a
		require.NoError(t, w.register(mpio.Registration{Key: keyA, PerPath: true}))
		require.NoError(t, w.reserve(wero))
		asked := r.tgt.Inject(reserveOuts(iscsitest.FromInitiator, scsi.SAPreemptAndAbort),
			iscsitest.FailSense(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB))
		w.onlyA()
		for i := range 2 {
			hold := iscsitest.NewHold(iscsitest.HoldHung)
			r.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Writes(), iscsitest.First(1)), iscsitest.HoldWrite(hold))
			older := w.submit(block.OpWrite, 7, make([]byte, 512))
			require.NoError(t, hold.WaitHeld(t.Context(), 1), fmt.Sprint(i))
			r.tgt.CutConnections(iscsitest.ByPortal(0))
			require.NoError(t, <-older)
			r.tgt.StopPortal(0)
			time.Sleep(70 * time.Second)
			require.NoError(t, r.tgt.StartPortal(0))
			w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 && s.FencedCount == 0 })
			hold.Release()
		}
		assert.Equal(t, 1, asked.Hits())
		assert.ElementsMatch(t, []uint64{keyA, keyA + 1}, r.keys())
	})
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestReservationStaysWhileItKeepsAWriteOut: what the target has not read yet of a dead
// path is kept out by the reservation alone, so that it may not be given up before no
// more of it can come.
func TestReservationStaysWhileItKeepsAWriteOut(t *testing.T) {
	for name, giveUp := range map[string]func(w *wire) error{
		"release":    func(w *wire) error { return w.release() },
		"unregister": func(w *wire) error { return w.unregister() },
		"clear":      func(w *wire) error { return w.clearAll(false) },
	} {
		t.Run(name, func(t *testing.T) {
			quirks := iscsitest.Quirks{TSIHZero: true, NoReinstatement: true}
			inReserveRig(t, 2, quirks, false, func(t *testing.T, r *reserveRig) {
				w := r.a
				require.NoError(t, w.register(mpio.Registration{Key: keyA, PerPath: true}))
				w.onlyA()
				require.NoError(t, w.reserve(wero))
				hold := iscsitest.NewHold(iscsitest.HoldZombie)
				r.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Writes(), iscsitest.First(1)), iscsitest.Hang(hold))
				older := w.submit(block.OpWrite, 7, bytes.Repeat([]byte{1}, 512))
				require.NoError(t, hold.WaitHeld(t.Context(), 1))
				r.tgt.StopPortal(0)
				require.NoError(t, <-older)
				require.NoError(t, <-w.submit(block.OpWrite, 7, bytes.Repeat([]byte{2}, 512)))

				given := make(chan error, 1)
				go func() { given <- giveUp(w) }()
				time.Sleep(30 * time.Second)
				assert.True(t, r.r.State().Held, "the target may still read the first copy")
				assert.Empty(t, given)
				require.NoError(t, w.write(), "that holds up nothing else")
				require.NoError(t, <-given)
				assert.False(t, r.r.State().Held)
			})
		})
	}
}
