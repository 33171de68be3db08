package mpio_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// reserveOuts picks PERSISTENT RESERVE OUT with a service action, on its way to
// the target or its answers.
func reserveOuts(dir iscsitest.Direction, actions ...uint8) iscsitest.Predicate {
	return iscsitest.Func("reserve out", func(e *iscsitest.Event) bool {
		if e.Dir != dir || e.Command == nil || e.Command.CDB.Opcode() != scsi.OpPersistentReserveOut {
			return false
		}
		if op := e.BHS.Opcode(); op != pdu.OpSCSICommand && op != pdu.OpSCSIResponse {
			return false
		}
		for _, a := range actions {
			if e.Command.CDB.ServiceAction() == a {
				return true
			}
		}
		return false
	})
}

// reserveOperation is one operation, what has to be before and what is after it.
type reserveOperation struct {
	sa     []uint8
	before func(*testing.T, *reserveRig)
	run    func(*reserveRig) error
	after  func(iscsitest.ReservationState) bool
}

var reserveOperations = map[string]reserveOperation{
	"register": {
		sa: []uint8{scsi.SARegisterAndIgnore}, before: func(*testing.T, *reserveRig) {},
		run:   func(r *reserveRig) error { return r.a.register(mpio.Registration{Key: keyA}) },
		after: func(s iscsitest.ReservationState) bool { return len(s.Keys) > 0 && s.Keys[0] == keyA },
	},
	"reserve": {
		sa: []uint8{scsi.SAReserve},
		before: func(t *testing.T, r *reserveRig) {
			require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		},
		run:   func(r *reserveRig) error { return r.a.reserve(earo) },
		after: func(s iscsitest.ReservationState) bool { return s.Key == keyA && s.Type == earo },
	},
	"release": {
		sa: []uint8{scsi.SARelease},
		before: func(t *testing.T, r *reserveRig) {
			require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
			require.NoError(t, r.a.reserve(earo))
		},
		run:   func(r *reserveRig) error { return r.a.release() },
		after: func(s iscsitest.ReservationState) bool { return !s.Held && len(s.Keys) > 0 },
	},
	"preempt": {
		sa: []uint8{scsi.SAPreempt},
		before: func(t *testing.T, r *reserveRig) {
			require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
			require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
			require.NoError(t, r.b.reserve(wero))
		},
		run: func(r *reserveRig) error { return r.a.preempt(mpio.Preemption{Key: keyB}) },
		after: func(s iscsitest.ReservationState) bool {
			return s.Key == keyA && s.Type == wero && s.Keys[len(s.Keys)-1] == keyA
		},
	},
	"clear": {
		sa: []uint8{scsi.SAClear},
		before: func(t *testing.T, r *reserveRig) {
			require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
			require.NoError(t, r.a.reserve(earo))
		},
		run:   func(r *reserveRig) error { return r.a.clearAll(false) },
		after: func(s iscsitest.ReservationState) bool { return !s.Held && len(s.Keys) == 0 },
	},
	"unregister": {
		sa: []uint8{scsi.SARegisterAndIgnore},
		before: func(t *testing.T, r *reserveRig) {
			require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
			require.NoError(t, r.a.reserve(earo))
		},
		run:   func(r *reserveRig) error { return r.a.unregister() },
		after: func(s iscsitest.ReservationState) bool { return !s.Held && len(s.Keys) == 0 },
	},
}

// TestReserveAnswerLost: the session is lost under PERSISTENT RESERVE OUT, before or
// after the target carried it out. In the end it was carried out once.
func TestReserveAnswerLost(t *testing.T) {
	for name, c := range reserveOperations {
		for executed, dir := range map[bool]iscsitest.Direction{false: iscsitest.FromInitiator, true: iscsitest.FromTarget} {
			for _, portals := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s,executed=%t,paths=%d", name, executed, portals), func(t *testing.T) {
					inReserveRig(t, portals, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
						c.before(t, r)
						done := r.tgt.Inject(reserveOuts(iscsitest.FromTarget, c.sa...))
						loss := r.tgt.Inject(iscsitest.And(reserveOuts(dir, c.sa...), iscsitest.First(1)), iscsitest.Reset())
						require.NoError(t, c.run(r))
						assert.Equal(t, 1, loss.Hits())
						assert.True(t, c.after(r.r.State()), "%+v", r.r.State())
						if name != "register" && name != "unregister" { // these take one for each path
							assert.Equal(t, 1, done.Hits(), "carried out more than once")
						}
						r.a.allUp()
						require.NoError(t, r.a.write())
					})
				})
			}
		}
	}
}

// TestReserveAnswerLostForGood: nothing proves that the command is over. It is not
// sent again, and the caller learns it.
func TestReserveAnswerLostForGood(t *testing.T) {
	for _, name := range []string{"reserve", "preempt", "release", "clear"} {
		t.Run(name, func(t *testing.T) {
			quirks := iscsitest.Quirks{TSIHZero: true, NoReinstatement: true}
			inReserveRig(t, 2, quirks, true, func(t *testing.T, r *reserveRig) {
				c := reserveOperations[name]
				c.before(t, r)
				arrived := r.tgt.Inject(reserveOuts(iscsitest.FromInitiator, c.sa...))
				hold := iscsitest.NewHold(iscsitest.HoldHung)
				r.tgt.Inject(iscsitest.And(reserveOuts(iscsitest.FromInitiator, c.sa...), iscsitest.First(1)), iscsitest.HoldWrite(hold))
				start := time.Now()
				result := make(chan error, 1)
				go func() { result <- c.run(r) }()
				require.NoError(t, hold.WaitHeld(t.Context(), 1))
				r.tgt.CutConnections(nil)
				require.ErrorIs(t, <-result, mpio.ErrOutcomeUnknown)
				assert.Equal(t, 1, arrived.Hits(), "never sent again before it is settled")
				assert.GreaterOrEqual(t, time.Since(start), 60*time.Second)
				assert.False(t, c.after(r.r.State()))
				hold.Release()
				time.Sleep(time.Second)
				assert.True(t, c.after(r.r.State()), "and it does land late: %+v", r.r.State())
			})
		})
	}
}

// TestPreemptAndAbortAnswerLost: that the key is gone does not prove that the commands are.
func TestPreemptAndAbortAnswerLost(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
		r.tgt.Inject(iscsitest.And(reserveOuts(iscsitest.FromTarget, scsi.SAPreemptAndAbort), iscsitest.First(1)), iscsitest.Reset())
		err := r.a.preempt(mpio.Preemption{Key: keyB, Abort: true})
		require.ErrorIs(t, err, mpio.ErrOutcomeUnknown)
		assert.ErrorContains(t, err, mpio.KeyText(keyB)+" is gone")
		assert.Equal(t, times(keyA, 2), r.keys())
	})
}

// TestFencedOffInTheMiddleOfARegistration: a path comes back, sees its host's key and is
// about to register when another host preempts it. It must take that back.
func TestFencedOffInTheMiddleOfARegistration(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
		hold := iscsitest.NewHold(iscsitest.HoldStrict)
		r.tgt.Inject(reserveOuts(iscsitest.FromInitiator, scsi.SARegisterAndIgnore), iscsitest.Hang(hold))
		r.r.Forget(slices.Index(r.owners(), 1)) // a's come first
		r.tgt.CutConnections(iscsitest.ByPortal(1))
		require.NoError(t, hold.WaitHeld(t.Context(), 1))
		require.NoError(t, r.b.preempt(mpio.Preemption{Key: keyA}))
		hold.Release()
		r.a.until(func(mpio.Snapshot) bool { return r.count("a", mpio.ReservationLost) == 1 })
		r.a.allUp()
		assert.Equal(t, times(keyB, 2), r.keys())
		require.ErrorIs(t, r.a.write(), mpio.ErrPreempted)
	})
}

// TestOperationWaitsForAPath: all paths are away when it is asked for.
func TestOperationWaitsForAPath(t *testing.T) {
	inReserveRig(t, 1, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		r.tgt.StopPortal(0)
		r.a.until(func(s mpio.Snapshot) bool { return s.PathsUp == 0 })
		result := make(chan error, 1)
		go func() { result <- r.a.reserve(wero) }()
		time.Sleep(10 * time.Second)
		require.NoError(t, r.tgt.StartPortal(0))
		require.NoError(t, <-result)

		r.tgt.StopPortal(0)
		r.a.until(func(s mpio.Snapshot) bool { return s.PathsUp == 0 })
		require.ErrorContains(t, r.a.release(), "no usable path for 1m0s")
		require.NoError(t, r.tgt.StartPortal(0))
		r.a.allUp()
		require.NoError(t, r.a.release())
	})
}

// TestCloseEndsAnOperation: done is called whatever happens.
func TestCloseEndsAnOperation(t *testing.T) {
	inReserveRig(t, 1, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		r.tgt.Inject(iscsitest.SCSI(scsi.OpPersistentReserveOut, scsi.OpPersistentReserveIn), iscsitest.Drop())
		result := make(chan error, 1)
		go func() { result <- r.a.register(mpio.Registration{Key: keyA}) }()
		time.Sleep(time.Second)
		require.NoError(t, r.a.leave())
		require.Error(t, <-result)
		r.a = nil
	})
}

// TestReservationsOverPortGroups: a path in standby is registered, too, so that nothing
// has to be made up for when its group takes over.
func TestReservationsOverPortGroups(t *testing.T) {
	groups := []iscsitest.PortGroup{{ID: 1, Portals: []int{0}}, {ID: 2, Portals: []int{1}}}
	cfg := iscsitest.Config{
		Portals: []iscsitest.Portal{{TPGT: 1}, {TPGT: 2}},
		LUNs:    []iscsitest.LUN{{ALUA: &iscsitest.ALUA{Groups: groups}}},
	}
	inReserveRigOf(t, cfg, false, func(t *testing.T, r *reserveRig) {
		conflicts := r.ioConflicts()
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.a.reserve(scsi.ExclusiveAllRegistrants))
		for i := range 4 {
			standby, active := uint16(i%2+1), uint16(2-i%2)
			require.NoError(t, r.tgt.SetAccess(0, standby, scsi.AccessStandby, 0))
			require.NoError(t, r.a.write())
			r.r.Forget(slices.Index(r.owners(), int(standby)-1))
			logins := r.a.snapshot().Paths[standby-1].Logins
			r.tgt.CutConnections(iscsitest.ByPortal(int(standby) - 1))
			r.a.until(func(s mpio.Snapshot) bool {
				p := s.Paths[standby-1]
				return p.Logins > logins && p.State == mpio.StateStandby
			})
			assert.Equal(t, times(keyA, 2), r.keys(), "registered in standby")
			require.NoError(t, r.tgt.SetAccess(0, standby, scsi.AccessOptimized, 0))
			require.NoError(t, r.tgt.SetAccess(0, active, scsi.AccessStandby, 0))
			require.NoError(t, r.a.write())
			require.NoError(t, r.tgt.SetAccess(0, active, scsi.AccessOptimized, 0))
		}
		assert.Zero(t, conflicts())
	})
}

// TestNewsThatComesWithReservations: a unit attention that a command about reservations
// gets is about the unit as well.
func TestNewsThatComesWithReservations(t *testing.T) {
	inReserveRig(t, 1, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		inquiries := r.tgt.Inject(iscsitest.SCSI(scsi.OpInquiry))
		require.NoError(t, r.tgt.UnitAttention(0, scsi.ASCInquiryDataChanged))
		require.NoError(t, r.a.reserve(wero))
		r.a.until(func(mpio.Snapshot) bool { return inquiries.Hits() > 0 })
		r.a.allUp()
		require.NoError(t, r.a.write())
	})
}
