package mpio_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// TestReleaseOfAllRegistrantsInVain: the reservation of all registrants stays, or another host
// makes it anew at once. However it is tried, nobody else loses a registration by it.
func TestReleaseOfAllRegistrantsInVain(t *testing.T) {
	for _, typ := range []scsi.ReservationType{scsi.WriteExclusiveAllRegistrants, scsi.ExclusiveAllRegistrants} {
		t.Run(typ.String(), func(t *testing.T) {
			inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
				require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
				require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
				require.NoError(t, r.a.reserve(typ))
				before := r.keys()
				r.tgt.Inject(reserveOuts(iscsitest.FromInitiator, scsi.SARelease), iscsitest.FailSense(scsi.KeyRecoveredError, 0))
				require.ErrorContains(t, r.a.release(), "all who are registered")
				assert.Equal(t, before, r.keys())
				assert.True(t, r.r.State().Held)
				require.NoError(t, r.a.write())
				require.NoError(t, r.b.write())
			})
		})
	}
}

// TestUnavailableGroup: a port group that takes no commands about reservations keeps no
// operation from being done over the other one, and what it missed is made up for.
func TestUnavailableGroup(t *testing.T) {
	operations := []struct {
		name string
		run  func(*reserveRig) error
		keys []uint64 // afterwards
		back []uint64 // ... and with the group back
	}{
		{"register", func(r *reserveRig) error { return r.a.register(mpio.Registration{Key: keyB}) }, nil, times(keyB, 2)},
		{"reserve", func(r *reserveRig) error { return r.a.reserve(earo) }, times(keyA, 2), times(keyA, 2)},
		{"release", func(r *reserveRig) error { return r.a.release() }, times(keyA, 2), times(keyA, 2)},
		{"unregister", func(r *reserveRig) error { return r.a.unregister() }, []uint64{}, []uint64{}},
	}
	for first, state := range []scsi.AccessState{unavailable, unavailable, scsi.AccessOffline, standby, standby} {
		for _, o := range operations {
			t.Run(fmt.Sprintf("%s,%v,%d", o.name, state, first), func(t *testing.T) {
				inReserveRigOf(t, twoGroups(), false, func(t *testing.T, r *reserveRig) {
					conflicts := r.ioConflicts()
					out := uint16(first%2 + 1)
					require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
					if o.name == "release" {
						require.NoError(t, r.a.reserve(scsi.ExclusiveAllRegistrants))
					}
					back := r.takeOut(out, state)
					start := time.Now()
					require.NoError(t, o.run(r))
					assert.Less(t, time.Since(start), 5*time.Second)
					if o.keys != nil {
						assert.Equal(t, o.keys, r.keys())
					}
					require.NoError(t, r.a.write())
					back()
					require.NoError(t, r.tgt.SetAccess(0, 3-out, standby, 0))
					start = time.Now()
					require.NoError(t, r.a.write())
					assert.Less(t, time.Since(start), 2*time.Second)
					require.NoError(t, r.tgt.SetAccess(0, 3-out, optimized, 0))
					r.a.allUp()
					assert.Equal(t, o.back, r.keys())
					assert.Zero(t, conflicts())
				})
			})
		}
	}
}

// takeOut has a port group take no commands about reservations, in standby neither, where the
// standard allows them but not every array does. back brings it back.
func (r *reserveRig) takeOut(group uint16, state scsi.AccessState) (back func()) {
	r.t.Helper()
	portal := int(group) - 1
	require.NoError(r.t, r.tgt.SetAccess(0, group, state, 0))
	r.a.until(func(s mpio.Snapshot) bool { return s.Paths[portal].State == mpio.StateStandby })
	refusal := r.tgt.Inject(iscsitest.And(iscsitest.OnPortal(portal), iscsitest.Op(pdu.OpSCSICommand), iscsitest.SCSI(scsi.OpPersistentReserveOut)),
		iscsitest.FailSense(scsi.KeyNotReady, scsi.ASCALUAStandby))
	if state == standby {
		r.tgt.CutConnections(iscsitest.ByPortal(portal))
		r.a.until(func(s mpio.Snapshot) bool {
			return s.Paths[portal].Logins == 2 && s.Paths[portal].State == mpio.StateStandby
		})
	} else {
		refusal.Remove() // the state does it
	}
	return func() {
		refusal.Remove()
		require.NoError(r.t, r.tgt.SetAccess(0, group, optimized, 0))
	}
}

// twoGroups is a target with two portals, each a port group of its own.
func twoGroups() iscsitest.Config {
	groups := []iscsitest.PortGroup{{ID: 1, Portals: []int{0}}, {ID: 2, Portals: []int{1}}}
	return iscsitest.Config{
		Portals: []iscsitest.Portal{{TPGT: 1}, {TPGT: 2}},
		LUNs:    []iscsitest.LUN{{ALUA: &iscsitest.ALUA{Groups: groups}}},
	}
}

// TestKeysChangeWhileTheyAreRead: between READ KEYS and READ RESERVATION another host preempts
// this one and takes its reservation for all registrants over. The two answers do not belong
// together.
func TestKeysChangeWhileTheyAreRead(t *testing.T) {
	inReserveRig(t, 1, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
		time.Sleep(time.Second) // what was registered is read by itself, too
		hold := iscsitest.NewHold(iscsitest.HoldStrict)
		r.tgt.Inject(iscsitest.And(iscsitest.Func("read reservation", func(e *iscsitest.Event) bool {
			return e.Opcode() == pdu.OpSCSICommand && e.Command.CDB.Opcode() == scsi.OpPersistentReserveIn &&
				e.Command.CDB.ServiceAction() == scsi.SAReadReservation
		}), iscsitest.First(1)), iscsitest.Hang(hold))
		info := make(chan mpio.ReservationInfo, 1)
		r.a.on(func() {
			r.a.d.ReadReservations(func(i mpio.ReservationInfo, err error) {
				assert.NoError(t, err)
				info <- i
			})
		})
		require.NoError(t, hold.WaitHeld(t.Context(), 1))
		require.NoError(t, r.b.reserve(scsi.WriteExclusiveAllRegistrants))
		require.NoError(t, r.b.preempt(mpio.Preemption{Key: keyA}))
		hold.Release()
		i := <-info
		assert.Equal(t, []uint64{keyB}, i.Keys)
		assert.True(t, i.Held)
		assert.False(t, i.Ours)
	})
}

// TestDoubtWhileAPathRegisters: the registration of a path that came back is met by the news that
// its unit may be another one. It carries no I/O before that was looked at.
func TestDoubtWhileAPathRegisters(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		var doubted atomic.Bool
		hold := iscsitest.NewHold(iscsitest.HoldStrict)
		r.tgt.Inject(iscsitest.And(iscsitest.OnPortal(1), reserveOuts(iscsitest.FromInitiator, scsi.SARegister), iscsitest.First(1),
			iscsitest.Func("doubt", func(*iscsitest.Event) bool { doubted.Store(true); return true })),
			iscsitest.FailSense(scsi.KeyUnitAttention, scsi.ASCReportedLUNsChanged))
		r.tgt.Inject(iscsitest.And(iscsitest.OnPortal(1), iscsitest.SCSI(scsi.OpInquiry),
			iscsitest.Func("doubted", func(*iscsitest.Event) bool { return doubted.Load() })), iscsitest.Hang(hold))
		r.tgt.CutConnections(iscsitest.ByPortal(1))
		require.NoError(t, hold.WaitHeld(t.Context(), 1))
		time.Sleep(time.Second)
		assert.Equal(t, mpio.StateChecking, r.a.snapshot().Paths[1].State)
		hold.Release()
		r.a.allUp()
		assert.Equal(t, times(keyA, 2), r.keys())
	})
}
