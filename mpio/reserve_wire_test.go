package mpio_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

const (
	keyA = uint64(0xa0000000000000a0)
	keyB = uint64(0xb0000000000000b0)
	wero = scsi.WriteExclusiveRegistrantsOnly
	earo = scsi.ExclusiveRegistrantsOnly
)

// operate runs one operation on reservations and waits for its end.
func (w *wire) operate(fn func(done func(error))) error {
	result := make(chan error, 1)
	w.on(func() { fn(func(err error) { result <- err }) })
	return <-result
}

func (w *wire) register(reg mpio.Registration) error {
	return w.operate(func(done func(error)) { w.d.Register(reg, done) })
}

func (w *wire) unregister() error { return w.operate(w.d.Unregister) }
func (w *wire) release() error    { return w.operate(w.d.Release) }

func (w *wire) reserve(t scsi.ReservationType) error {
	return w.operate(func(done func(error)) { w.d.Reserve(t, done) })
}

func (w *wire) preempt(v mpio.Preemption) error {
	return w.operate(func(done func(error)) { w.d.Preempt(v, done) })
}

func (w *wire) clearAll(others bool) error {
	return w.operate(func(done func(error)) { w.d.ClearReservations(others, done) })
}

// write writes one block and waits for the answer.
func (w *wire) write() error { return <-w.submit(block.OpWrite, 1, make([]byte, 512)) }
func (w *wire) read() error  { return <-w.submit(block.OpRead, 1, make([]byte, 512)) }

// times is a list with one key n times.
func times(key uint64, n int) []uint64 {
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = key
	}
	return keys
}

// reserveRig is a target with two portals, or as many as said, and hosts that use it.
type reserveRig struct {
	t    *testing.T
	tgt  *iscsitest.Target
	a, b *wire
	r    *iscsitest.Reservations

	mu     sync.Mutex
	events map[string][]mpio.Event // by host; guarded by mu
}

// inReserveRig runs a test with host a, and with b if two is set.
func inReserveRig(t *testing.T, portals int, quirks iscsitest.Quirks, two bool, test func(t *testing.T, r *reserveRig)) {
	inReserveRigOf(t, iscsitest.Config{Portals: make([]iscsitest.Portal, portals), Quirks: quirks}, two, test)
}

// inReserveRigOf does so with a target of any kind.
func inReserveRigOf(t *testing.T, cfg iscsitest.Config, two bool, test func(t *testing.T, r *reserveRig)) {
	synctest.Test(t, func(t *testing.T) {
		for i := range cfg.Portals {
			cfg.Portals[i].Addr = "-"
		}
		tgt, err := iscsitest.NewTarget(cfg)
		require.NoError(t, err)
		r := &reserveRig{t: t, tgt: tgt, r: tgt.Reservations(0), events: map[string][]mpio.Event{}}
		r.a = r.host("a")
		if two {
			r.b = r.host("b")
		}
		defer func() {
			for _, w := range []*wire{r.a, r.b} {
				if w != nil {
					_ = w.leave() // one that was fenced off cannot flush
				}
			}
			tgt.Close()
			assert.Empty(t, tgt.Violations())
		}()
		test(t, r)
	})
}

func (r *reserveRig) host(name string) *wire {
	return newHost(r.t, r.tgt, name, func(cfg *mpio.Config) {
		cfg.OnEvent = func(e mpio.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events[name] = append(r.events[name], e)
		}
	})
}

// count is how many events of a kind a host had.
func (r *reserveRig) count(host string, kind mpio.EventKind) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events[host] {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// keys are those registered now.
func (r *reserveRig) keys() []uint64 { return r.r.State().Keys }

// owners are the portals that the registrations came through, in their order.
func (r *reserveRig) owners() []int {
	var portals []int
	for _, p := range r.r.State().Ports {
		portals = append(portals, int(p)-1)
	}
	return portals
}

// ioConflicts counts reads and writes that were answered RESERVATION CONFLICT.
func (r *reserveRig) ioConflicts() func() int {
	conflict := func(e *iscsitest.Event) bool {
		return e.Dir == iscsitest.FromTarget && e.BHS.Opcode() == pdu.OpSCSIResponse &&
			scsi.Status(pdu.SCSIResponseView(e.BHS).Status()) == scsi.ReservationConflict
	}
	transfers := iscsitest.OfCommand(scsi.OpRead10, scsi.OpRead16, scsi.OpWrite10, scsi.OpWrite16)
	rule := r.tgt.Inject(iscsitest.And(transfers, iscsitest.Func("conflict", conflict)))
	return rule.Hits
}

// allUp waits until every path of w is up.
func (w *wire) allUp() {
	w.t.Helper()
	w.until(func(s mpio.Snapshot) bool { return s.PathsUp == len(s.Paths) })
}

func TestRegisterOverEveryPath(t *testing.T) {
	for perPath, want := range map[bool][]uint64{false: times(keyA, 3), true: {keyA, keyA + 1, keyA + 2}} {
		t.Run(fmt.Sprintf("per path=%t", perPath), func(t *testing.T) {
			inReserveRig(t, 3, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
				require.NoError(t, r.a.register(mpio.Registration{Key: keyA, PerPath: perPath}))
				assert.ElementsMatch(t, want, r.keys())
				assert.True(t, r.r.State().APTPL, "kept over a loss of power, since the target can")
				require.NoError(t, r.a.reserve(wero))
				require.NoError(t, r.a.reserve(wero), "once more")
				assert.Equal(t, wero, r.r.State().Type)
				for range 9 {
					require.NoError(t, r.a.write())
				}
				require.NoError(t, r.a.release())
				assert.False(t, r.r.State().Held)
				require.NoError(t, r.a.release(), "nothing to release")
				require.NoError(t, r.a.register(mpio.Registration{Key: keyB, Volatile: true}), "another key")
				assert.Equal(t, times(keyB, 3), r.keys())
				assert.False(t, r.r.State().APTPL)
				require.NoError(t, r.a.unregister())
				assert.Empty(t, r.keys())
				require.ErrorIs(t, r.a.unregister(), mpio.ErrNotRegistered)
				require.ErrorIs(t, r.a.reserve(wero), mpio.ErrNotRegistered)
			})
		})
	}
}

func TestReserveTypes(t *testing.T) {
	for _, typ := range scsi.ReservationTypes() {
		for _, n := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s over %d", typ.Short(), n), func(t *testing.T) {
				inReserveRig(t, n, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
					require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
					err := r.a.reserve(typ)
					if n > 1 && !typ.Registrants() {
						require.ErrorIs(t, err, mpio.ErrReserveInvalid)
						assert.ErrorContains(t, err, typ.ForRegistrants().String(), "what to use instead")
						return
					}
					require.NoError(t, err)
					for range 4 {
						require.NoError(t, r.a.write())
						require.NoError(t, r.a.read())
					}
					conflict := new(mpio.ConflictError)
					require.ErrorAs(t, r.b.write(), &conflict)
					if !typ.AllHold() {
						assert.Equal(t, keyA, conflict.Holder, "the error names the holder")
						assert.ErrorContains(t, r.b.write(), mpio.KeyText(keyA))
					}
					if typ.ExcludesReads() {
						require.ErrorAs(t, r.b.read(), &conflict)
					} else {
						require.NoError(t, r.b.read())
					}
					require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
					if typ.Registrants() {
						require.NoError(t, r.b.write(), "registrants may")
					}
					if typ.AllHold() {
						return
					}
					require.ErrorAs(t, r.b.reserve(typ), &conflict)
					assert.Equal(t, keyA, conflict.Holder)
					require.ErrorAs(t, r.b.release(), &conflict)
					assert.True(t, r.r.State().Held, "another host's reservation is never released")
					require.NoError(t, r.a.release())
					require.NoError(t, r.b.write())
				})
			})
		}
	}
}

// TestNewPathRegistersBeforeItCarriesIO: with a reservation in force a path that
// came too early would meet conflicts.
func TestNewPathRegistersBeforeItCarriesIO(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		conflicts := r.ioConflicts()
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.a.reserve(earo))
		r.a.on(func() {
			require.NoError(t, r.a.d.AddPath(mpio.PathConfig{ID: "new", Portal: "0", TPGT: -1, ISID: session.DeriveISID("a", "new")}))
		})
		for r.a.snapshot().PathsUp < 3 {
			require.NoError(t, r.a.write())
		}
		for range 30 {
			require.NoError(t, r.a.write())
		}
		assert.Equal(t, times(keyA, 3), r.keys())
		assert.NotZero(t, r.a.snapshot().Paths[2].IOs)
		assert.Zero(t, conflicts())
	})
}

// TestPathThatWaitsToBeNotedRegisters: it was checked before this host registered, and
// is up only afterwards.
func TestPathThatWaitsToBeNotedRegisters(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		var slow loop.Loop // nil: noting takes no time
		b := newHost(t, r.tgt, "b", func(cfg *mpio.Config) {
			cfg.Remember = func(_ []mpio.SessionRecord, done func(error)) {
				if slow == nil {
					done(nil)
					return
				}
				time.AfterFunc(time.Second, func() { slow.Post(func() { done(nil) }) })
			}
		})
		defer func() { _ = b.leave() }()
		b.on(func() {
			slow = b.l
			require.NoError(t, b.d.AddPath(mpio.PathConfig{ID: "late", Portal: "0", TPGT: -1, ISID: session.DeriveISID("b", "late")}))
		})
		time.Sleep(500 * time.Millisecond)
		require.NotEqual(t, mpio.StateUp, b.snapshot().Paths[2].State, "it waits")
		require.NoError(t, b.register(mpio.Registration{Key: keyB}))
		require.NoError(t, b.reserve(earo))
		b.allUp()
		assert.Equal(t, times(keyB, 3), r.keys())
	})
}

// TestPathBesideAnExclusiveHolder: a path that is found after a reservation for one path
// was made may not write; what it is given goes over the other one.
func TestPathBesideAnExclusiveHolder(t *testing.T) {
	inReserveRig(t, 1, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.a.reserve(scsi.WriteExclusive))
		r.a.on(func() {
			require.NoError(t, r.a.d.AddPath(mpio.PathConfig{ID: "late", Portal: "0", TPGT: -1, ISID: session.DeriveISID("a", "late")}))
		})
		r.a.allUp()
		conflicts := r.ioConflicts()
		for range 20 {
			require.NoError(t, r.a.write())
		}
		assert.NotZero(t, conflicts(), "else the test tests nothing")
		require.NoError(t, r.a.release())
	})
}

func TestReturningPathRegistersAgain(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		conflicts := r.ioConflicts()
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.a.reserve(scsi.ExclusiveAllRegistrants)) // does not go with a path
		for i := range 4 {
			before := r.a.snapshot().Paths[1].Logins
			if i%2 == 1 { // the target forgets the path, too
				r.r.Forget(slices.Index(r.owners(), 1))
			}
			r.tgt.CutConnections(iscsitest.ByPortal(1))
			require.NoError(t, r.a.write())
			r.a.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 && s.Paths[1].Logins > before })
			assert.Equal(t, times(keyA, 2), r.keys())
		}
		for range 30 {
			require.NoError(t, r.a.write())
		}
		assert.Zero(t, conflicts())
	})
}

// TestForgottenPathIsRegisteredAgain: the target loses one registration while the path
// is up; that shows by a conflict only.
func TestForgottenPathIsRegisteredAgain(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		conflicts := r.ioConflicts()
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.a.reserve(scsi.WriteExclusiveAllRegistrants))
		r.r.Forget(1)
		for range 40 {
			require.NoError(t, r.a.write())
		}
		r.a.allUp()
		assert.Equal(t, times(keyA, 2), r.keys())
		assert.NotZero(t, conflicts(), "else the test tests nothing")
	})
}

// TestOperationOverAForgottenPath: the path that an operation goes over turns out not to
// be registered any more.
func TestOperationOverAForgottenPath(t *testing.T) {
	for name, c := range map[string]func(r *reserveRig) error{
		"reserve": func(r *reserveRig) error { return r.a.reserve(wero) },
		"preempt": func(r *reserveRig) error { return r.a.preempt(mpio.Preemption{Key: keyB}) },
		"clear":   func(r *reserveRig) error { return r.a.clearAll(true) },
		"release": func(r *reserveRig) error {
			return errors.Join(r.a.reserve(scsi.WriteExclusiveAllRegistrants), r.a.release())
		},
	} {
		for forgotten := range 2 {
			t.Run(fmt.Sprintf("%s,path %d", name, forgotten), func(t *testing.T) {
				inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
					require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
					require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
					r.r.Forget(slices.Index(r.owners(), forgotten)) // a's come first
					require.NoError(t, c(r))
				})
			})
		}
	}
}

// TestPreemptedHostStaysOut: host b fences a off, while a path of a is away, or not.
func TestPreemptedHostStaysOut(t *testing.T) {
	for _, perPath := range []bool{false, true} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("per path=%t,path away=%t", perPath, away), func(t *testing.T) {
				inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
					require.NoError(t, r.a.register(mpio.Registration{Key: keyA, PerPath: perPath}))
					require.NoError(t, r.a.reserve(wero))
					require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
					if away {
						r.tgt.StopPortal(1)
						r.a.until(func(s mpio.Snapshot) bool { return s.PathsUp == 1 })
						r.tgt.StartPortal(1)
					}
					keys := []uint64{keyA}
					if perPath {
						keys = append(keys, keyA+1)
					}
					for _, k := range keys {
						require.NoError(t, r.b.preempt(mpio.Preemption{Key: k, Abort: true}))
					}
					r.b.allUp()
					require.ErrorIs(t, r.a.write(), mpio.ErrPreempted)
					require.ErrorIs(t, r.a.read(), mpio.ErrPreempted)
					assert.ErrorIs(t, r.a.write(), block.ErrIO)
					r.a.allUp()
					assert.Equal(t, times(keyB, 2), r.keys(), "it does not register by itself")
					assert.Equal(t, 1, r.count("a", mpio.ReservationLost), "told once")
					require.ErrorIs(t, r.a.reserve(wero), mpio.ErrPreempted)
					for range 4 {
						require.NoError(t, r.b.write())
					}
					require.NoError(t, r.a.register(mpio.Registration{Key: keyA, PerPath: perPath}))
					require.NoError(t, r.a.write(), "until told to")
					require.NoError(t, r.a.unregister())
					assert.Equal(t, times(keyB, 2), r.keys())
					conflict := new(mpio.ConflictError)
					require.ErrorAs(t, r.a.write(), &conflict)
					assert.Equal(t, keyB, conflict.Holder)
				})
			})
		}
	}
}

// TestClearByAnotherHostIsNoticed: no reservation is left, so that no conflict tells of
// it, but a unit attention does.
func TestClearByAnotherHostIsNoticed(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
		err := r.b.clearAll(false)
		require.ErrorIs(t, err, mpio.ErrReserveInvalid)
		assert.ErrorContains(t, err, mpio.KeyText(keyA))
		assert.Len(t, r.keys(), 4, "other hosts' keys are safe")
		require.NoError(t, r.b.clearAll(true))
		assert.Empty(t, r.keys())
		require.NoError(t, r.b.write())
		_ = r.a.write() // gets the news
		r.a.until(func(mpio.Snapshot) bool { return r.count("a", mpio.ReservationLost) == 1 })
		require.ErrorIs(t, r.a.write(), mpio.ErrPreempted, "nothing keeps b away any more")
	})
}

func TestPreemptNamesItsVictim(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
		require.ErrorIs(t, r.a.preempt(mpio.Preemption{Key: keyB}), mpio.ErrNotRegistered)
		require.NoError(t, r.a.register(mpio.Registration{Key: keyA}))
		require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
		require.NoError(t, r.b.reserve(earo))
		for _, v := range []mpio.Preemption{{}, {Key: keyA}, {Key: 77}, {Key: keyB, Type: 2}, {Key: keyB, Type: scsi.WriteExclusive}} {
			require.ErrorIs(t, r.a.preempt(v), mpio.ErrReserveInvalid, "%+v", v)
		}
		require.NoError(t, r.a.preempt(mpio.Preemption{Key: keyB}))
		s := r.r.State()
		assert.Equal(t, times(keyA, 2), s.Keys)
		assert.Equal(t, earo, s.Type, "taken over as it was")
		assert.Equal(t, keyA, s.Key)
		require.NoError(t, r.a.release())
	})
}

// TestReleaseAfterTheHolderDied: the path that reserved is gone for good.
func TestReleaseAfterTheHolderDied(t *testing.T) {
	for _, perPath := range []bool{false, true} {
		t.Run(fmt.Sprintf("per path=%t", perPath), func(t *testing.T) {
			inReserveRig(t, 3, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
				require.NoError(t, r.a.register(mpio.Registration{Key: keyA, PerPath: perPath}))
				require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
				for i := 1; i < 3; i++ { // path a reserves
					r.a.on(func() {
						require.NoError(t, r.a.d.SetPath(string(rune('a'+i)), mpio.PathOp{Kind: mpio.OpPriority, Value: 2}))
					})
				}
				require.NoError(t, r.a.reserve(wero))
				r.tgt.StopPortal(0)
				r.a.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
				require.NoError(t, r.a.write(), "the reservation does not depend on the path")
				require.NoError(t, r.a.release())
				assert.False(t, r.r.State().Held)
				for range 9 {
					require.NoError(t, r.a.write())
				}
				r.a.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
				require.NoError(t, r.tgt.StartPortal(0))
				r.a.allUp()
				want := append(times(keyB, 3), keyA, keyA, keyA)
				if perPath {
					want = append(times(keyB, 3), keyA, keyA+1, keyA+2)
				}
				assert.ElementsMatch(t, want, r.keys())
			})
		})
	}
}

// TestUnregisterLeavesNothingBehind: registrations of dead paths go, too.
func TestUnregisterLeavesNothingBehind(t *testing.T) {
	for _, perPath := range []bool{false, true} {
		for _, reserved := range []bool{false, true} {
			t.Run(fmt.Sprintf("per path=%t,reserved=%t", perPath, reserved), func(t *testing.T) {
				inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
					require.NoError(t, r.b.register(mpio.Registration{Key: keyB}))
					require.NoError(t, r.a.register(mpio.Registration{Key: keyA, PerPath: perPath}))
					if reserved {
						require.NoError(t, r.a.reserve(wero))
					}
					r.tgt.StopPortal(0)
					r.a.until(func(s mpio.Snapshot) bool { return s.PathsUp == 1 })
					require.NoError(t, r.a.unregister())
					assert.Equal(t, times(keyB, 2), r.keys())
					assert.False(t, r.r.State().Held)
					require.NoError(t, r.tgt.StartPortal(0))
					r.a.allUp()
					require.NoError(t, r.a.write())
					assert.Equal(t, times(keyB, 2), r.keys())
				})
			})
		}
	}
}

func TestOneOperationAtATime(t *testing.T) {
	inReserveRig(t, 2, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
		first, second := make(chan error, 1), make(chan error, 1)
		r.a.on(func() {
			r.a.d.Register(mpio.Registration{Key: keyA}, func(err error) { first <- err })
			r.a.d.Register(mpio.Registration{Key: keyB}, func(err error) { second <- err })
		})
		require.ErrorIs(t, <-second, mpio.ErrReserveBusy)
		require.NoError(t, <-first)
		require.ErrorIs(t, r.a.register(mpio.Registration{}), mpio.ErrReserveInvalid)
		require.ErrorIs(t, r.a.register(mpio.Registration{Key: ^uint64(0), PerPath: true}), mpio.ErrReserveInvalid)
		require.NoError(t, r.a.register(mpio.Registration{Key: ^uint64(0)}))
	})
}

// TestReservationsOverATargetRestart: with APTPL everything goes on; without it the
// host has to say what it wants.
func TestReservationsOverATargetRestart(t *testing.T) {
	for _, volatile := range []bool{false, true} {
		t.Run(fmt.Sprintf("volatile=%t", volatile), func(t *testing.T) {
			inReserveRig(t, 2, iscsitest.Quirks{}, false, func(t *testing.T, r *reserveRig) {
				require.NoError(t, r.a.register(mpio.Registration{Key: keyA, Volatile: volatile}))
				require.NoError(t, r.a.reserve(wero))
				r.tgt.StopPortal(0)
				r.tgt.StopPortal(1)
				r.r.PowerLoss()
				time.Sleep(time.Second)
				require.NoError(t, r.tgt.StartPortal(0))
				require.NoError(t, r.tgt.StartPortal(1))
				r.a.allUp()
				err := r.a.write()
				if !volatile {
					require.NoError(t, err)
					assert.Equal(t, times(keyA, 2), r.keys())
					return
				}
				require.ErrorIs(t, err, mpio.ErrPreempted)
				assert.Empty(t, r.keys())
			})
		})
	}
}
