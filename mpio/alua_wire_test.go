package mpio_test

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
)

// asymmetric is a target with one portal in each of the groups 1, 2, …, which
// begin in the states given.
func asymmetric(tpgs uint8, states ...scsi.AccessState) iscsitest.Config {
	a := &iscsitest.ALUA{TPGS: tpgs}
	for i, s := range states {
		a.Groups = append(a.Groups, iscsitest.PortGroup{ID: uint16(i + 1), Portals: []int{i}, State: s})
	}
	return iscsitest.Config{LUNs: []iscsitest.LUN{{ALUA: a}}}
}

const (
	optimized    = scsi.AccessOptimized
	nonOptimized = scsi.AccessNonOptimized
	standby      = scsi.AccessStandby
	unavailable  = scsi.AccessUnavailable
	transition   = scsi.AccessTransitioning
)

// newALUAWire makes a device over an asymmetric target and waits until it
// carries I/O and knows the access state of every path.
func newALUAWire(t *testing.T, target iscsitest.Config, change func(*mpio.Config)) *wire {
	n := len(target.LUNs[0].ALUA.Groups)
	w := newWireTo(t, n, target, change)
	w.until(func(s mpio.Snapshot) bool {
		known := 0
		for _, p := range s.Paths {
			if p.ALUAState != "" && (p.State == mpio.StateUp || p.State == mpio.StateStandby) {
				known++
			}
		}
		return s.PathsUp > 0 && known == n
	})
	return w
}

func (w *wire) access(group uint16, state scsi.AccessState, during time.Duration) {
	w.t.Helper()
	require.NoError(w.t, w.tgt.SetAccess(0, group, state, during))
}

// load writes and reads until stop is called, each of some clients blocks of its
// own, and checks what it reads. No request may fail.
func (w *wire) load(clients int) (stop func() (requests int, longest time.Duration)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	requests, longest := 0, time.Duration(0)
	end := make(chan struct{})
	one := func(op block.Op, lba int, data []byte) {
		began := time.Now()
		assert.NoError(w.t, <-w.submit(op, lba, data))
		mu.Lock()
		defer mu.Unlock()
		requests++
		longest = max(longest, time.Since(began))
	}
	for c := range clients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(c), 1))
			for n := byte(1); ; n++ {
				select {
				case <-end:
					return
				case <-time.After(time.Duration(rnd.Int64N(int64(40 * time.Millisecond)))):
				}
				lba := 100*c + rnd.IntN(8)
				data := bytes.Repeat([]byte{n}, 512)
				one(block.OpWrite, lba, data)
				got := make([]byte, 512)
				one(block.OpRead, lba, got)
				assert.Equal(w.t, data, got)
			}
		})
	}
	return func() (int, time.Duration) {
		close(end)
		wg.Wait()
		return requests, longest
	}
}

// carriers names the paths that carry I/O.
func (w *wire) carriers() string {
	s := ""
	for _, p := range w.snapshot().Paths {
		if p.Active {
			s += p.ID
		}
	}
	return s
}

// TestFollowsTheOptimizedGroup changes access states under load: the I/O goes
// where the target wants it, and nothing fails.
func TestFollowsTheOptimizedGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(0, optimized, nonOptimized, standby), nil)
		defer w.close()
		stop := w.load(8)
		assert.Equal(t, "a", w.carriers())
		for _, step := range []struct {
			group uint16
			state scsi.AccessState
			want  string
		}{
			{1, nonOptimized, "ab"},
			{2, optimized, "b"},
			{1, standby, "b"},
			{3, optimized, "bc"},
			{2, unavailable, "c"},
			{3, nonOptimized, "c"},
			{1, optimized, "a"},
			{2, optimized, "ab"},
			{1, unavailable, "b"},
			{2, scsi.AccessLBADependent, "b"},
			{2, nonOptimized, "bc"},
			{3, standby, "b"},
			{1, optimized, "a"},
		} {
			w.access(step.group, step.state, 0)
			time.Sleep(time.Second)
			assert.Equal(t, step.want, w.carriers(), "%+v", step)
		}
		n, longest := stop()
		assert.Greater(t, n, 5000)
		assert.Less(t, longest, 200*time.Millisecond)
	})
}

// TestTransitionIsWaitedFor: no group carries I/O for three seconds; requests
// wait, even where they do not wait for a path.
func TestTransitionIsWaitedFor(t *testing.T) {
	for name, change := range map[string]func(*mpio.Config){
		"default":       nil,
		"fail fast":     func(c *mpio.Config) { c.FailFast = true },
		"short timeout": func(c *mpio.Config) { c.NoPathTimeout = time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newALUAWire(t, asymmetric(0, optimized, standby), change)
				defer w.close()
				stop := w.load(4)
				time.Sleep(time.Second)
				w.access(2, transition, 0)
				w.access(1, transition, 0)
				time.Sleep(time.Second)
				s := w.snapshot()
				assert.Equal(t, mpio.StateStandby, s.Paths[0].State)
				assert.Contains(t, s.Paths[0].Reason, "changing its access state")
				assert.Equal(t, "transitioning", s.Paths[0].ALUAState)
				time.Sleep(2 * time.Second)
				w.access(2, optimized, 0)
				time.Sleep(time.Second)
				_, longest := stop()
				assert.InDelta(t, 3, longest.Seconds(), 0.6, "they wait, and not for much longer than they must")
				assert.Equal(t, "b", w.carriers())
			})
		})
	}
}

// TestTransitionOnOnePathOnly: the other one takes the I/O at once.
func TestTransitionOnOnePathOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(0, optimized, nonOptimized), nil)
		defer w.close()
		stop := w.load(4)
		time.Sleep(time.Second)
		w.access(1, standby, 3*time.Second)
		time.Sleep(10 * time.Second)
		_, longest := stop()
		assert.Less(t, longest, 100*time.Millisecond)
		assert.Equal(t, "b", w.carriers())
	})
}

// TestTransitionPastItsDeadline: the target said that a transition takes up to
// five seconds, and does not end it. From then on there simply is no path.
func TestTransitionPastItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := asymmetric(0, optimized, optimized)
		target.LUNs[0].ALUA.TransitionSeconds = 5
		w := newALUAWire(t, target, func(c *mpio.Config) { c.FailFast = true })
		defer w.close()
		w.access(1, transition, 0)
		w.access(2, transition, 0)
		start := time.Now()
		err := <-w.submit(block.OpRead, 1, make([]byte, 512))
		require.ErrorIs(t, err, block.ErrIO)
		assert.ErrorContains(t, err, "for longer than 5s")
		assert.InDelta(t, 5, time.Since(start).Seconds(), 0.5)
		w.access(2, optimized, 0)
		w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 1 })
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		assert.Less(t, time.Since(start), 10*time.Second)
	})
}

// TestQuietTarget never reports a change by itself: refused commands and
// questions now and then have to do.
func TestQuietTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := asymmetric(0, optimized, standby)
		target.LUNs[0].ALUA.NoAttention = true
		target.LUNs[0].ALUA.NoExtendedHeader = true
		w := newALUAWire(t, target, nil)
		defer w.close()
		stop := w.load(2)
		w.access(2, optimized, 0)
		w.access(1, standby, 0)
		time.Sleep(3 * time.Second)
		assert.Equal(t, "b", w.carriers())
		_, longest := stop()
		assert.Less(t, longest, 200*time.Millisecond)
		w.access(1, optimized, 0)
		time.Sleep(61 * time.Second)
		assert.Equal(t, "ab", w.carriers(), "with nothing going on it is asked once a minute")
	})
}

// TestPriorityCountsWithinAnAccessState: what the target says comes before what
// was set by hand.
func TestPriorityCountsWithinAnAccessState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(0, optimized, optimized, nonOptimized), nil)
		defer w.close()
		w.on(func() {
			require.NoError(t, w.d.SetPath("b", mpio.PathOp{Kind: mpio.OpPriority, Value: 2}))
			require.NoError(t, w.d.SetPath("a", mpio.PathOp{Kind: mpio.OpPriority, Value: 3}))
		})
		assert.Equal(t, "b", w.carriers())
		w.access(2, nonOptimized, 0)
		w.access(1, nonOptimized, 0)
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		time.Sleep(time.Second)
		assert.Equal(t, "c", w.carriers())
		require.NoError(t, w.tgt.SetPreferred(0, 1, true))
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		time.Sleep(time.Second)
		assert.Equal(t, "a", w.carriers(), "of groups that are not optimized the preferred one comes first")
		assert.True(t, w.snapshot().Paths[0].ALUAPreferred)
	})
}

// TestUnavailableAtTheStart: what such a path leads to cannot be read; it is
// checked when its group carries I/O, and not used before.
func TestUnavailableAtTheStart(t *testing.T) {
	for _, state := range []scsi.AccessState{unavailable, transition, standby} {
		t.Run(state.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				target := asymmetric(0, optimized, state)
				target.LUNs[0].ALUA.NoCapacity = true
				w := newALUAWire(t, target, nil)
				defer w.close()
				s := w.snapshot()
				assert.Equal(t, []mpio.State{mpio.StateUp, mpio.StateStandby}, []mpio.State{s.Paths[0].State, s.Paths[1].State})
				assert.Equal(t, state.String(), s.Paths[1].ALUAState)
				assert.Equal(t, 2, s.Paths[1].ALUAGroup)
				stop := w.load(2)
				w.access(2, optimized, 0)
				w.access(1, unavailable, 0)
				time.Sleep(3 * time.Second)
				assert.Equal(t, "b", w.carriers())
				_, longest := stop()
				assert.Less(t, longest, 200*time.Millisecond)
			})
		})
	}
}

// TestLiarIsBounded: the target says that all is well and refuses every command
// for its access state. That ends in an error, and not in a storm of commands.
func TestLiarIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(0, optimized, optimized), func(c *mpio.Config) { c.WaitTimeout = 10 * time.Second })
		defer w.close()
		lie := w.tgt.Inject(iscsitest.Reads(), iscsitest.FailSense(scsi.KeyNotReady, scsi.ASCALUAStandby))
		start := time.Now()
		require.ErrorIs(t, <-w.submit(block.OpRead, 1, make([]byte, 512)), block.ErrIO)
		assert.Less(t, time.Since(start), 3*time.Minute)
		assert.Less(t, lie.Hits(), 200)
		lie.Remove()
		w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
	})
}

// TestFlipsUnderLoad changes access states at random, cuts connections in
// between, and checks that no request fails and nothing is read but what was
// written last.
func TestFlipsUnderLoad(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			target := asymmetric(scsi.TPGSImplicit, optimized, nonOptimized, standby, unavailable)
			target.LUNs[0].ALUA.NoAttention = seed%3 == 1
			target.LUNs[0].ALUA.NoCapacity = seed%3 == 2
			w := newALUAWire(t, target, func(c *mpio.Config) { c.Policy = mpio.Policies()[rnd.IntN(len(mpio.Policies()))] })
			defer w.close()
			stop := w.load(6)
			states := []scsi.AccessState{optimized, nonOptimized, standby, unavailable, transition, scsi.AccessLBADependent, scsi.AccessOffline}
			for range 50 {
				group := uint16(1 + rnd.IntN(4))
				w.access(group, states[rnd.IntN(len(states))], time.Duration(rnd.IntN(2))*time.Duration(rnd.Int64N(int64(time.Second))))
				if rnd.IntN(8) == 0 {
					w.tgt.CutConnections(iscsitest.ByPortal(rnd.IntN(4)))
				}
				time.Sleep(time.Duration(rnd.Int64N(int64(500 * time.Millisecond))))
			}
			for g := range uint16(4) {
				w.access(g+1, optimized, 0)
			}
			n, _ := stop()
			assert.Zero(t, w.snapshot().Failed, seed)
			assert.Greater(t, n, 1000)
		})
	}
}

// TestRefusedDuringTheCheck: the state changes between the list and the next
// command of the check, and back. It is asked for again soon, though another path
// carries the I/O and nothing is reported.
func TestRefusedDuringTheCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := asymmetric(0, optimized, optimized)
		target.LUNs[0].ALUA.NoAttention, target.LUNs[0].ALUA.NoCapacity = true, true
		w := newALUAWire(t, target, nil)
		defer w.close()
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(1), iscsitest.SCSI(scsi.OpTestUnitReady, scsi.OpServiceActionIn16, scsi.OpReadCapacity10), iscsitest.First(3)),
			iscsitest.FailSense(scsi.KeyNotReady, scsi.ASCALUAStandby))
		w.tgt.CutConnections(iscsitest.ByPortal(1))
		w.until(func(s mpio.Snapshot) bool { return s.Paths[1].Logins == 2 && s.Paths[1].State != mpio.StateChecking })
		took := w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
		assert.Less(t, took, 2*time.Second)
	})
}

// TestLongListOfGroups does not fit the buffer of a check, nor the first one of a
// question.
func TestLongListOfGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := asymmetric(0, nonOptimized, optimized)
		a := target.LUNs[0].ALUA
		for i := range 600 {
			a.Groups = append(a.Groups, iscsitest.PortGroup{ID: uint16(1000 + i), State: standby})
		}
		w := newWireTo(t, 2, target, nil)
		defer w.close()
		w.until(func(s mpio.Snapshot) bool {
			return s.Paths[0].ALUAGroup == 1 && s.Paths[0].ALUAState == "active/non-optimized"
		})
		w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
		assert.Equal(t, "b", w.carriers())
		w.access(2, unavailable, 0)
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		assert.Equal(t, "a", w.carriers())
	})
}

// TestExtendedHeaderIsWrong: the list with the extended header lacks its end, or
// cannot be read at all.
func TestExtendedHeaderIsWrong(t *testing.T) {
	for name, change := range map[string]func(*iscsitest.ALUA){
		"four bytes short": func(a *iscsitest.ALUA) { a.ShortExtended = true },
		"garbled":          func(a *iscsitest.ALUA) { a.GarbledExtended = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				target := asymmetric(0, optimized, nonOptimized)
				change(target.LUNs[0].ALUA)
				w := newALUAWire(t, target, nil)
				defer w.close()
				stop := w.load(2)
				assert.Equal(t, "a", w.carriers())
				w.access(2, optimized, 0)
				w.access(1, nonOptimized, 0)
				time.Sleep(time.Second)
				assert.Equal(t, "b", w.carriers())
				w.access(2, unavailable, 0)
				time.Sleep(time.Second)
				assert.Equal(t, "a", w.carriers())
				stop()
			})
		})
	}
}
