package initiator_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
)

// TestTwoHostsAndReservations: what one host does the other one sees, over sockets
// and either loop, while a portal comes and goes.
func TestTwoHostsAndReservations(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{Portals: portals(2)})
		host := func(name string) *initiator.Device {
			cfg := config(tgt, 0, 1)
			cfg.InitiatorName, cfg.Portable, cfg.Wait = me+name, portable, initiator.WaitAll
			return open(t, cfg)
		}
		a, b := host("a"), host("b")
		ctx := t.Context()
		block := make([]byte, 512)
		write := func(dev *initiator.Device) error { _, err := dev.WriteAt(block, 0); return err }

		require.NoError(t, a.Register(ctx, initiator.Registration{Key: 0xa}))
		require.NoError(t, a.Reserve(ctx, initiator.WriteExclusiveRegistrantsOnly))
		conflict := new(initiator.ConflictError)
		require.ErrorAs(t, write(b), &conflict)
		assert.Equal(t, uint64(0xa), conflict.Holder)
		err := b.Reserve(ctx, initiator.ExclusiveRegistrantsOnly)
		require.ErrorIs(t, err, initiator.ErrNotRegistered)
		require.NoError(t, b.Register(ctx, initiator.Registration{Key: 0xb}))
		require.ErrorAs(t, b.Reserve(ctx, initiator.ExclusiveRegistrantsOnly), &conflict)
		err = a.Reserve(ctx, initiator.WriteExclusive)
		assert.Equal(t, initiator.KindInvalid, initiator.KindOf(err))

		for range 2 {
			tgt.StopPortal(1)
			require.NoError(t, write(a))
			require.NoError(t, tgt.StartPortal(1))
			// It may be on probation by now.
			snapshotUntil(t, a, "both paths", func(s initiator.Snapshot) bool {
				return s.Paths[1].State == mpio.StateUp || s.Paths[1].State == mpio.StateMarginal
			})
			require.NoError(t, write(a))
		}
		got, err := b.Reservations(ctx)
		require.NoError(t, err)
		assert.ElementsMatch(t, []uint64{0xa, 0xa, 0xb, 0xb}, got.Keys)
		assert.Equal(t, uint64(0xa), got.Holder)
		assert.True(t, got.Registered && got.Held && !got.Ours)
		assert.Len(t, got.Nexuses, 4)
		assert.Equal(t, scsi.ReservationTypes(), got.Capabilities.Types)
		for _, p := range got.Paths {
			assert.Equal(t, uint64(0xb), p.Key)
		}

		require.NoError(t, b.Preempt(ctx, initiator.Preemption{Key: 0xa, Abort: true}))
		require.ErrorIs(t, write(a), initiator.ErrPreempted)
		require.ErrorIs(t, write(a), initiator.ErrIO)
		s, err := a.Snapshot(ctx)
		require.NoError(t, err)
		assert.NotEmpty(t, s.Preempted)
		require.NoError(t, write(b))
		got, err = a.Reservations(ctx)
		require.NoError(t, err)
		assert.ErrorIs(t, got.Lost, initiator.ErrPreempted)
		assert.Equal(t, uint64(0xb), got.Holder)
		require.NoError(t, a.Unregister(ctx))
		require.NoError(t, b.ClearReservations(ctx, false))
		require.NoError(t, write(a))
	})
}

// TestReservationsOfAClosedDevice: nobody is left waiting.
func TestReservationsOfAClosedDevice(t *testing.T) {
	tgt := target(t, iscsitest.Config{Portals: portals(1)})
	dev := open(t, config(tgt))
	tgt.StopPortal(0)
	snapshotUntil(t, dev, "no path", func(s initiator.Snapshot) bool { return s.PathsUp == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, dev.Register(ctx, initiator.Registration{Key: 1}), context.DeadlineExceeded)
	require.ErrorIs(t, dev.Reserve(t.Context(), initiator.WriteExclusiveRegistrantsOnly), initiator.ErrReserveBusy)
	waiting := make(chan error, 1)
	go func() { _, err := dev.Reservations(t.Context()); waiting <- err }()
	require.Error(t, <-waiting)
	dev.Abort()
	require.ErrorIs(t, dev.Register(t.Context(), initiator.Registration{Key: 1}), initiator.ErrClosed)
}
