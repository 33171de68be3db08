package mpio

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// newCareful makes a rig that is up and takes marginal paths out.
func newCareful(t testing.TB, n int, change func(*Config)) *rig {
	r := newRig(t, n, func(c *Config) {
		c.Marginal.Off = false
		if change != nil {
			change(c)
		}
	}).up()
	for _, s := range r.s {
		s.delay = jitter(r, 2*msec)
	}
	return r
}

// until lets time pass until ok, and gives how long it took.
func (r *rig) until(limit int64, ok func() bool) int64 {
	r.t.Helper()
	start := r.l.now
	for !ok() {
		require.Less(r.t, r.l.now-start, limit, "it never comes to that")
		r.l.run(10 * msec)
	}
	return r.l.now - start
}

func (r *rig) is(i int, s State) func() bool { return func() bool { return r.state(i) == s } }

func TestFlappingPathIsMarginalAndComesBack(t *testing.T) {
	r := newCareful(t, 2, nil)
	newLoad(r, 4, 8, 4)
	r.s[0].cut(100 * msec)
	r.l.run(10 * sec)
	require.Equal(t, StateUp, r.state(0), "once is nothing")
	r.s[0].cut(100 * msec)
	r.l.run(200 * msec)
	require.Equal(t, StateMarginal, r.state(0))
	assert.Equal(t, "it was lost 2 times in 60 s, the others never", r.d.paths[0].reason)
	assert.Equal(t, PathMarginal, r.event(PathMarginal).Kind)
	assert.Zero(t, r.shares(sec)[0], "it carries nothing")
	assert.Equal(t, []*path{r.d.paths[1]}, r.d.active)

	took := r.until(30*sec, r.is(0, StateUp))
	assert.InDelta(t, 10, float64(took)/1e9, 2, "5 s of rest, 5 s of probation")
	assert.Contains(t, r.d.paths[0].reason, "passed its probation: 0 of")
	assert.Less(t, r.d.paths[0].ramp, 10, "it returns gradually")
	r.l.run(sec)
	assert.Greater(t, r.shares(sec)[0], 0.15)

	// Each relapse doubles the rest.
	last := took
	for range 3 {
		r.s[0].cut(100 * msec)
		r.l.run(sec)
		r.s[0].cut(100 * msec)
		r.l.run(sec)
		require.Equal(t, StateMarginal, r.state(0))
		took = r.until(400*sec, r.is(0, StateUp))
		assert.Greater(t, took, last+2*sec)
		last = took
	}
	r.s[0].cut(100 * msec)
	r.l.run(sec)
	r.s[0].cut(100 * msec)
	r.l.run(sec)
	require.Equal(t, StateMarginal, r.state(0))
	require.NoError(t, r.d.SetPath("a", PathOp{Kind: OpUp}))
	assert.Equal(t, StateUp, r.state(0), "by hand it is back at once")
}

// What befalls all paths, as when a target restarts, is the fault of none.
func TestWhatBefallsAllIsNoFault(t *testing.T) {
	for name, befall := range map[string]func(r *rig){
		"restarts": func(r *rig) {
			for _, s := range r.s {
				s.cut(100 * msec)
			}
			r.l.run(10 * sec)
		},
		"stalls": func(r *rig) {
			for _, s := range r.s {
				s.hold = true
			}
			r.l.run(120 * msec)
			for _, s := range r.s {
				s.release()
			}
			r.l.run(sec)
		},
		"errors": func(r *rig) {
			for _, s := range r.s {
				s.intercept = func(cdb scsi.CDB) (answer, bool) {
					bad := cdb.Opcode() == scsi.OpRead10 && r.d.rnd.below(20) == 0
					return sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure), bad
				}
			}
			r.l.run(sec)
		},
		"a slow disk": func(r *rig) {
			for _, s := range r.s {
				s.delay = jitter(r, 100*msec)
			}
			r.l.run(sec)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newCareful(t, 3, nil)
			newLoad(r, 4, 8, 4)
			r.l.run(sec)
			for range 8 {
				befall(r)
			}
			assert.Empty(t, r.kinds(PathMarginal), r.d.paths[0].reason)
		})
	}
}

func TestErringPathIsMarginal(t *testing.T) {
	r := newCareful(t, 3, nil)
	l := newLoad(r, 4, 8, 4)
	r.l.run(2 * sec)
	broken := true
	r.s[1].intercept = func(cdb scsi.CDB) (answer, bool) {
		bad := broken && (cdb.Opcode() == scsi.OpRead10 || cdb.Opcode() == scsi.OpWrite10) && r.d.rnd.below(8) == 0
		return sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure), bad
	}
	r.until(5*sec, r.is(1, StateMarginal))
	assert.Regexp(t, `^\d+\.\d % of its commands failed in the last seconds, against 0\.0 % on the others$`, r.d.paths[1].reason)
	r.l.run(60 * sec)
	require.Equal(t, StateMarginal, r.state(1), "it does not pass while it fails")
	assert.Contains(t, r.d.paths[1].reason, "did not pass its probation")
	broken = false
	r.until(300*sec, r.is(1, StateUp))
	assert.Zero(t, l.errors)
}

// TestHangingPathIsMarginal: one that lets commands hang is; where the unit hangs, and
// with it the commands of all paths, none is.
func TestHangingPathIsMarginal(t *testing.T) {
	for name, hanging := range map[string][]int{"one path": {1}, "the unit": {0, 1, 2}} {
		t.Run(name, func(t *testing.T) {
			r := newCareful(t, 3, func(c *Config) { c.CommandTimeout = 2 * time.Second })
			l := newLoad(r, 12, 8, 4) // so many that some hang, whatever chance picks
			r.l.run(2 * sec)
			for _, i := range hanging {
				r.s[i].hold, r.s[i].aborts = true, "ok"
				r.l.run(900 * msec) // they do not find out together
			}
			r.l.run(7 * sec)
			assert.NotZero(t, aborts(r))
			for _, i := range hanging {
				r.s[i].hold = false
				r.s[i].release()
			}
			r.l.run(5 * sec)
			if len(hanging) == 1 {
				assert.Equal(t, []EventKind{PathMarginal}, r.kinds(PathMarginal))
			} else {
				assert.Empty(t, r.kinds(PathMarginal))
			}
			assert.Zero(t, l.errors)
		})
	}
}

// Large frames vanish on the way, as with a wrong MTU: TEST UNIT READY passes.
func TestProbationTriesLargeReads(t *testing.T) {
	r := newCareful(t, 2, nil)
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		return sense(scsi.KeyAbortedCommand, scsi.ASCDataPhaseError), cdb.Opcode() == scsi.OpRead10 && cdb.Blocks() > 8
	}
	r.d.paths[0].demote(r.l.now, "for the test", false)
	r.l.run(20 * sec)
	assert.Equal(t, StateMarginal, r.state(0))
	assert.Contains(t, r.d.paths[0].reason, "probes failed")
}

// slowRig has one path that takes 40 ms where the others take 2 ms.
func slowRig(t *testing.T, n int, policy string) (*rig, *load) {
	r := newCareful(t, n, func(c *Config) { c.Policy = policy })
	l := newLoad(r, 4, 8, 4)
	r.l.run(2 * sec)
	r.s[0].delay = jitter(r, 40*msec)
	return r, l
}

func TestSlowOutlierIsMarginal(t *testing.T) {
	for _, policy := range []string{PolicyLatency, PolicyRoundRobin, PolicyQueueDepth} {
		t.Run(policy, func(t *testing.T) {
			r, l := slowRig(t, 3, policy)
			r.until(20*sec, r.is(0, StateMarginal))
			assert.Regexp(t, `^half of its (reads|writes) took more than \d+ ms, against \d\.\d ms on the others, for \d s; it carried \d+\.\d % of the commands`, r.d.paths[0].reason)
			r.l.run(4 * sec)
			require.Equal(t, StateMarginal, r.state(0), "the others cope")
			assert.Zero(t, r.shares(sec)[0])
			r.l.run(20 * sec)
			require.Equal(t, StateMarginal, r.state(0))
			r.s[0].delay = jitter(r, 2*msec)
			r.until(200*sec, r.is(0, StateUp))
			r.l.run(5 * sec)
			assert.Greater(t, r.shares(3 * sec)[0], 0.15)
			assert.Zero(t, l.errors)
		})
	}
}

// A path that was of use until it got slow is compared with what it is now: two
// controllers at their limit, of which one gets forty times slower.
func TestTrialForgetsBetterDays(t *testing.T) {
	r := newCareful(t, 2, func(c *Config) { c.Policy = PolicyRoundRobin })
	for _, s := range r.s {
		s.serial, s.delay = true, jitter(r, msec)
	}
	newLoad(r, 8, 8, 4)
	r.l.run(20 * sec)
	both := r.throughput(sec)
	r.s[0].delay = jitter(r, 40*msec)
	r.until(15*sec, r.is(0, StateMarginal))
	r.l.run(4500 * msec)
	require.Equal(t, StateMarginal, r.state(0), r.d.paths[0].reason)
	assert.InDelta(t, both/2, r.throughput(sec), both/10)
}

// throughput is the number of commands done in ns.
func (r *rig) throughput(ns int64) float64 {
	before := r.d.stat.requests
	r.l.run(ns)
	return float64(r.d.stat.requests - before)
}

// A path that is merely slower but carries its part is never given up: for
// every policy and every relation of bandwidths throughput stays what it was.
func TestSlowerPathsThatCarryTheirPartStay(t *testing.T) {
	for _, policy := range Policies() {
		for _, ratio := range []int64{4, 10} {
			for _, depth := range []int{4, 32} {
				if policy == PolicyFailover || policy == PolicyWeighted || depth == 4 && policy != PolicyLatency {
					continue // one path carries all of it, or another case says as much
				}
				t.Run(fmt.Sprintf("%s/1:%d/depth %d", policy, ratio, depth), func(t *testing.T) {
					done := map[bool]float64{}
					for _, off := range []bool{true, false} {
						r := newCareful(t, 2, func(c *Config) { c.Policy, c.Marginal.Off = policy, off })
						for i, s := range r.s {
							s.serial, s.delay = true, jitter(r, msec)
							if i == 0 {
								s.delay = jitter(r, msec*ratio)
							}
						}
						newLoad(r, depth, 8, 4)
						r.l.run(sec)
						done[off] = r.throughput(12 * sec)
					}
					assert.GreaterOrEqual(t, done[false], 0.97*done[true])
				})
			}
		}
	}
}

// stallRig has one path of n that stops for 200 ms every second.
func stallRig(t *testing.T, n int, serial bool, depth int) *rig {
	r := newCareful(t, n, nil)
	for _, s := range r.s {
		s.serial, s.delay = serial, jitter(r, 2*msec)
	}
	newLoad(r, depth, 8, 4)
	var stall func()
	stall = func() {
		s := r.s[0]
		s.hold = true
		r.l.after(160*msec, func() {
			if s.hold && len(s.flights) > 0 {
				s.silence()
			}
		})
		r.l.after(200*msec, s.release)
		r.l.after(sec, stall)
	}
	r.l.after(sec, stall)
	return r
}

func TestStallingPathIsMarginal(t *testing.T) {
	r := stallRig(t, 3, false, 8)
	r.until(8*sec, r.is(0, StateMarginal))
	assert.Regexp(t, `^it stalled \d times in 10 s, for up to \d+ ms; p99 of the others \d\.\d ms`, r.d.paths[0].reason)
	r.l.run(5 * sec)
	before := len(r.events)
	r.l.run(40 * sec)
	assert.Contains(t, []State{StateMarginal, StateSuspect}, r.state(0), "stalls show in its probation")
	for _, e := range r.events[before:] {
		assert.Equal(t, PathChanged, e.Kind, "and are not told again and again: %s", e.Text)
	}
}

// A path whose neighbors do nothing, because their access state is worse, cannot
// be told from the unit behind it being slow.
func TestStallingPathIsNotJudgedByIdleOnes(t *testing.T) {
	r := stallRig(t, 3, false, 8)
	for _, p := range r.d.paths[1:] {
		p.access = access{tpgs: scsi.TPGSImplicit, known: true, state: scsi.AccessNonOptimized}
	}
	r.d.regroup()
	r.l.run(30 * sec)
	assert.Empty(t, r.kinds(PathMarginal))
	assert.Zero(t, r.d.paths[0].health.relapses)
}

func TestSlowestOfAHistogram(t *testing.T) {
	var h histogram
	for range 10 {
		h[bucket(2*msec)]++
	}
	h[bucket(60*msec)]++
	assert.InDelta(t, 60*msec, h.quantile(1), 15*float64(msec))
}

// Where its bandwidth is needed, it comes back soon, and stays.
func TestStallingPathThatIsNeededStays(t *testing.T) {
	r := stallRig(t, 2, true, 8)
	r.l.run(150 * sec)
	n := len(r.kinds(PathMarginal))
	assert.NotZero(t, n)
	assert.LessOrEqual(t, n, 5, "trials become rare")
	found := false
	for _, e := range r.events {
		found = found || e.Kind == PathUp && len(e.Text) > 20 && e.Text[:20] == "it carries its part:"
	}
	assert.True(t, found)
	assert.Less(t, r.d.paths[0].health.neededUntil, r.l.now+3600*sec)
}

// The last path is never given up, and a device with a path always has one.
func TestLastPathIsNeverMarginal(t *testing.T) {
	r := newCareful(t, 1, nil)
	r.s[0].delay = jitter(r, 300*msec)
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		return sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure), cdb.Opcode() == scsi.OpRead10 && r.d.rnd.below(3) == 0
	}
	newLoad(r, 4, 8, 4)
	for range 5 {
		r.l.run(5 * sec)
		r.s[0].cut(100 * msec)
	}
	r.l.run(5 * sec)
	assert.Equal(t, StateUp, r.state(0))
	assert.Empty(t, r.kinds(PathMarginal))

	// A marginal path takes over when the others are gone.
	r = newCareful(t, 2, nil)
	newLoad(r, 4, 8, 0)
	r.d.paths[0].demote(r.l.now, "for the test", false)
	require.Equal(t, StateMarginal, r.state(0))
	r.s[1].cut(100 * sec)
	r.l.run(sec)
	assert.Equal(t, []*path{r.d.paths[0]}, r.d.active)
	assert.Greater(t, r.throughput(sec), 100.0)
}

// One bad path, whatever is wrong with it, never makes the set flap: the others
// stay up, no request fails, and it changes its state a few times only.
func TestOneBadPathDoesNotMakeTheSetFlap(t *testing.T) {
	first, n := seeds(t)
	for seed := first; seed < first+min(n/50+1, 12); seed++ {
		g := rand.New(rand.NewPCG(seed, 3))
		policy := Policies()[g.IntN(len(Policies()))]
		r := newCareful(t, 2+g.IntN(3), func(c *Config) { c.Policy, c.Seed = policy, seed+1 })
		for _, s := range r.s {
			s.delay = func() int64 { return 2*msec + g.Int64N(4*msec) }
		}
		l := newLoad(r, 1+g.IntN(4), 8, 4)
		r.l.run(2 * sec)
		kind := g.IntN(4)
		bad := r.s[0]
		var trouble func()
		trouble = func() {
			switch kind {
			case 0:
				bad.cut(g.Int64N(3 * sec))
			case 1:
				bad.hold = true
				r.l.after(g.Int64N(400*msec), bad.release)
			case 2:
				x := 1 + g.IntN(60)
				bad.intercept = func(cdb scsi.CDB) (answer, bool) {
					return sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure), cdb.Opcode() == scsi.OpRead10 && g.IntN(x) == 0
				}
			case 3:
				slow := g.Int64N(80 * msec)
				bad.delay = func() int64 { return 2*msec + slow + g.Int64N(4*msec) }
			}
			r.l.after(g.Int64N(20*sec), trouble)
		}
		trouble()
		start := len(r.events)
		for range 300 {
			r.l.run(sec)
			require.NotEmpty(t, r.d.active, "MPIO_SEED=%d", seed)
		}
		changes := 0
		for _, e := range r.events[start:] {
			if e.Kind == PathMarginal {
				changes++
			}
			if e.Path != "a" && e.Path != "" {
				require.NotContains(t, []EventKind{PathMarginal, PathDown, PathSuspected}, e.Kind, "MPIO_SEED=%d: %s", seed, e.Text)
			}
		}
		assert.LessOrEqual(t, changes, 10, "MPIO_SEED=%d kind %d %s", seed, kind, policy)
		assert.Zero(t, l.errors, "MPIO_SEED=%d", seed)
	}
}

func TestMarginalConfig(t *testing.T) {
	c, err := MarginalConfig{}.withDefaults()
	require.NoError(t, err)
	assert.Equal(t, MarginalConfig{
		DoubleFailedTime: time.Minute, ErrRateThreshold: 10, ErrSampleTime: 5 * time.Second, ErrRecheckGapTime: 5 * time.Minute,
	}, c)
	for _, bad := range []MarginalConfig{
		{DoubleFailedTime: -1}, {ErrSampleTime: time.Millisecond}, {ErrRecheckGapTime: time.Millisecond}, {ErrRateThreshold: 1001}, {ErrRateThreshold: -1},
	} {
		_, err := bad.withDefaults()
		assert.Error(t, err, "%+v", bad)
	}
}

func TestMoments(t *testing.T) {
	var m moments
	n, _, _ := m.since(0, 0)
	assert.Zero(t, n)
	m.last(5, 5) // there is none
	for i := range int64(20) {
		m.add(i*sec, i)
		n, worst, span := m.since((i-2)*sec, 0)
		assert.Equal(t, min(int(i)+1, 3), n)
		assert.Equal(t, i, worst)
		assert.InDelta(t, min(i, 2)*sec, span, 1)
	}
	n, _, _ = m.since(0, 0)
	assert.Equal(t, len(m.list), n, "older ones are forgotten")
	n, _, _ = m.since(0, 18)
	assert.Equal(t, 2, n)
	m.last(25*sec, 30)
	n, worst, _ := m.since(25*sec, 0)
	assert.Equal(t, 1, n)
	assert.Equal(t, int64(30), worst)
}

func TestWords(t *testing.T) {
	for ns, want := range map[float64]string{
		900: "1 µs", 99e3: "99 µs", 350e3: "0.3 ms", 1.24e6: "1.2 ms", 84e6: "84 ms", 2.04e9: "2.0 s", 84e9: "84 s",
	} {
		assert.Equal(t, want, words(ns))
	}
}

// What a command that hung says of the unit outlives what it said of its path.
func TestHangIsRememberedWhenItsPathIsTakenBack(t *testing.T) {
	r := newCareful(t, 2, nil)
	a, b := r.d.paths[0], r.d.paths[1]
	a.health.timedOut = r.l.now
	a.health.mark(a, r.l.now, "a test", false)
	a.cure("a test")
	assert.True(t, r.d.hangsElsewhere(b, r.l.now))
}
