package mpio

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// held makes a rig whose sessions answer nothing and whose paths may have any
// number of commands in flight.
func held(t *testing.T, n int, policy string, change func(*Config)) *rig {
	r := newRig(t, n, change).up()
	for i := range r.s {
		r.s[i].hold = true
		r.d.paths[i].ramp = 0
	}
	require.NoError(t, r.d.SetPolicy(policy))
	return r
}

func (r *rig) flights() (n []int) {
	for _, s := range r.s {
		n = append(n, len(s.flights))
	}
	return n
}

func TestRoundRobinReach(t *testing.T) {
	for _, c := range []struct {
		policy string
		want   []int
	}{
		{PolicyRoundRobin, []int{10, 10, 20}},
		{PolicyRoundRobinSubset, []int{20, 20, 0}},
	} {
		r := held(t, 3, c.policy, nil)
		require.NoError(t, r.d.SetPath("c", PathOp{Kind: OpPriority, Value: 2}))
		require.NoError(t, r.d.SetPath("c", PathOp{Kind: OpWeight, Value: 2}))
		for i := range 40 {
			r.read(i, 1)
		}
		assert.Equal(t, c.want, r.flights(), c.policy)
	}
}

func TestLeastBytes(t *testing.T) {
	r := held(t, 3, PolicyLeastBytes, nil)
	r.read(0, 32)
	r.write(100, 32, 1)
	for i := range 32 {
		r.read(i, 1)
	}
	n := r.flights()
	assert.ElementsMatch(t, []int{1, 1, 32}, n, "one large command weighs as much as many small ones, reads and writes alike")

	r = held(t, 2, PolicyLeastBytes, nil)
	require.NoError(t, r.d.SetPath("b", PathOp{Kind: OpWeight, Value: 3}))
	for i := range 40 {
		r.read(i, 1)
	}
	assert.Equal(t, []int{10, 30}, r.flights())
}

func TestWeighted(t *testing.T) {
	r := held(t, 4, PolicyWeighted, nil)
	for id, w := range map[string]int{"a": 10, "b": 5, "c": 5, "d": 7} {
		require.NoError(t, r.d.SetPath(id, PathOp{Kind: OpWeight, Value: w}))
	}
	for i := range 40 {
		r.read(i, 1)
	}
	assert.Equal(t, []int{0, 20, 20, 0}, r.flights(), "the cheapest share")
	r.s[1].room, r.s[2].room = 20, 30
	for i := range 20 {
		r.read(i, 1)
	}
	assert.Equal(t, []int{0, 20, 30, 10}, r.flights(), "what has no room goes to the next one")
}

func TestServiceTime(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.Policy = PolicyServiceTime }).up()
	r.s[0].delay = func() int64 { return 100 * usec }
	r.s[1].delay = func() int64 { return 2 * msec }
	r.s[0].serial, r.s[1].serial = true, true
	newLoad(r, 8, 8, 4)
	r.l.run(sec)
	s := r.shares(sec)
	assert.Greater(t, s[0], 0.9)
	r.s[0].delay = r.s[1].delay
	r.l.run(3 * sec)
	assert.InDelta(t, 0.5, r.shares(3 * sec)[0], 0.1, "no path is forgotten")
}

// The service time of a path with a queue is its pace, not its answers' age.
func TestServiceTimeIsThePace(t *testing.T) {
	var s service
	for i := range int64(200) {
		s.add(i*msec, (i-10)*msec) // ten in flight, one done each millisecond
	}
	assert.InDelta(t, msec, s.time, float64(msec)/10)
	s.add(200*msec+500*msec, 200*msec)
	assert.Greater(t, s.time, float64(100*msec), "a long one counts for more")
}

func TestFailback(t *testing.T) {
	for _, policy := range []string{PolicyLatency, PolicyFailover, PolicyRoundRobinSubset} {
		for _, c := range []struct {
			after time.Duration
			name  string
			wait  int64 // until I/O is back, negative: never
		}{
			{0, "immediate", 0},
			{5 * time.Second, "after 5s", 5 * sec},
			{FailbackManual, "manual", -1},
		} {
			t.Run(policy+" "+c.name, func(t *testing.T) {
				r := newRig(t, 3, func(cfg *Config) { cfg.Policy, cfg.Failback = policy, c.after })
				require.NoError(t, r.d.SetPath("b", PathOp{Kind: OpPriority, Value: 2}))
				require.NoError(t, r.d.SetPath("c", PathOp{Kind: OpPriority, Value: 2}))
				r.s[0].loginTakes = 50 * msec
				r.up()
				assert.Equal(t, c.name, r.d.Snapshot().Failback)
				a := r.d.paths[0]
				require.True(t, a.isActive(), "the best one is used though it came up last")
				require.Empty(t, r.kinds(FailedBack), "it was not in use before")
				r.s[0].cut(100 * msec)
				require.False(t, a.isActive())
				r.l.run(sec)
				require.Equal(t, StateUp, a.state)
				if c.wait == 0 {
					require.True(t, a.isActive())
					assert.Equal(t, "a", r.event(FailedBack).Path)
					assert.Len(t, r.kinds(FailedBack), 1)
					return
				}
				require.False(t, a.isActive())
				assert.Empty(t, r.kinds(FailedBack))
				require.True(t, r.d.paths[1].isActive())
				s := r.d.Snapshot()
				assert.True(t, s.FailbackPending)
				assert.Equal(t, []bool{true, false, false}, []bool{s.Paths[0].HeldBack, s.Paths[1].HeldBack, s.Paths[2].HeldBack})
				if c.wait < 0 {
					assert.Negative(t, s.FailbackLeft)
					r.l.run(1000 * sec)
					require.False(t, a.isActive())
					require.NoError(t, r.d.SetPath("a", PathOp{Kind: OpUp}))
				} else {
					assert.InDelta(t, 4.1, s.FailbackLeft, 0.1)
					r.l.run(4 * sec)
					require.False(t, a.isActive())
					r.s[0].cut(100 * msec) // it was back, but not for long enough
					r.l.run(4 * sec)
					require.False(t, a.isActive())
					r.l.run(2 * sec)
				}
				require.True(t, a.isActive())
				s = r.d.Snapshot()
				assert.False(t, s.FailbackPending)
				assert.False(t, s.Paths[0].HeldBack)
				assert.Equal(t, "a", r.event(FailedBack).Path)
				assert.Len(t, r.kinds(FailedBack), 1)
			})
		}
	}
}

// Whatever failback says, I/O does not stay on a path that is not well, and a
// look at the unit is no failure.
func TestFailbackDoesNotHoldTroubleBack(t *testing.T) {
	manual := func(c *Config) { c.Policy, c.Failback = PolicyFailover, FailbackManual }
	r := newRig(t, 2, manual).up()
	a, b := r.d.paths[0], r.d.paths[1]
	r.s[0].cut(100 * msec)
	r.l.run(sec)
	require.True(t, b.isActive())
	r.s[1].hold = true
	r.write(0, 1, 1)
	r.s[1].silence()
	assert.True(t, a.isActive(), "the path in use fell silent")
	r.s[1].release()
	assert.True(t, a.isActive(), "and now this one is in use")
	assert.Empty(t, r.kinds(FailedBack), "it was not well where it was")

	r = newRig(t, 2, manual).up()
	r.d.paths[0].doubt("POWER ON OCCURRED")
	require.True(t, r.d.paths[1].isActive())
	r.l.run(sec)
	assert.True(t, r.d.paths[0].isActive(), "it was only looked at")
	assert.Empty(t, r.kinds(FailedBack))

	r = newRig(t, 2, manual).up()
	r.s[0].cut(100 * msec)
	r.l.run(sec)
	require.NoError(t, r.d.SetPath("b", PathOp{Kind: OpPriority, Value: 9}))
	assert.True(t, r.d.paths[0].isActive(), "by hand")

	require.Error(t, r.d.SetFailback(-5))
	r.s[0].cut(100 * msec)
	r.l.run(sec)
	require.False(t, r.d.paths[0].isActive())
	require.NoError(t, r.d.SetFailback(0))
	assert.True(t, r.d.paths[0].isActive(), "a new rule holds at once")

	_, err := New(Config{NewSession: r.d.cfg.NewSession, Failback: -3}, r.l)
	require.ErrorContains(t, err, "Failback")
}

// Slow answers must not keep a path out of use for long: of equal paths that all
// have some now and then, none is left to the others.
func TestServiceTimeSharesJitteryPaths(t *testing.T) {
	for _, c := range []struct {
		oneIn, times int
	}{{50, 20}, {3000, 600}} {
		for seed := range 4 {
			r := newRig(t, 3, func(c *Config) { c.Policy = PolicyServiceTime }).up()
			for i, s := range r.s {
				x := rnd(1000*seed + i + 1)
				s.delay = func() int64 {
					d := 150*usec + int64(x.below(int(300*usec)))
					if x.below(c.oneIn) == 0 {
						d *= int64(c.times)
					}
					return d
				}
			}
			newLoad(r, 2, 8, 0)
			r.l.run(sec)
			for _, share := range r.shares(3 * sec) {
				assert.InDelta(t, 1.0/3, share, 0.1, "one in %d, seed %d", c.oneIn, seed)
			}
		}
	}
}

// service-time asks an idle path again when what it knows is old. A read that was
// hedged away is no answer yet, so the next must not go there as well.
func TestServiceTimeLearnsFromReadsThatWereHedged(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.Policy = PolicyServiceTime }).up()
	r.s[0].delay, r.s[1].delay = jitter(r, 2*msec), jitter(r, 22*msec)
	l := newLoad(r, 4, 8, 0)
	r.l.run(5 * sec)
	require.NotZero(t, r.d.Snapshot().HedgeWins)
	sent, slow := 0, r.s[1].delay
	r.s[1].delay = func() int64 { sent++; return slow() }
	r.l.run(5 * sec)
	assert.LessOrEqual(t, sent, 10, "about one each second")
	assert.Positive(t, sent)
	assert.Zero(t, l.errors)
}
