package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
)

// load keeps depth requests of n blocks in flight; write one in every so many.
type load struct {
	r           *rig
	n, every, i int
	errors      int
}

// worker is one of the requests of a load, again and again.
type worker struct {
	block.Request
	l     *load
	again func()
}

func newLoad(r *rig, depth, n, every int) *load {
	l := &load{r: r, n: n, every: every}
	for range depth {
		w := &worker{l: l}
		w.Data, w.Length, w.Owner = make([]byte, n*testBlock), uint64(n*testBlock), w
		w.again = w.submit
		w.submit()
	}
	return l
}

func (w *worker) submit() {
	l := w.l
	l.i++
	w.Op, w.Offset = block.OpRead, uint64(l.i*8%4000*testBlock)
	if l.every > 0 && l.i%l.every == 0 {
		w.Op = block.OpWrite
	}
	l.r.d.Submit(&w.Request)
}

func (w *worker) RequestDone(r *block.Request) {
	if r.Err != nil {
		w.l.errors++
	}
	w.l.r.l.after(0, w.again)
}

// shares lets ns pass and gives what part of the commands each path got.
func (r *rig) shares(ns int64) []float64 {
	before := make([]uint64, len(r.d.paths))
	for i, p := range r.d.paths {
		before[i] = p.stat.ios
	}
	r.l.run(ns)
	total, out := 0.0, make([]float64, len(before))
	for i, p := range r.d.paths {
		out[i] = float64(p.stat.ios - before[i])
		total += out[i]
	}
	for i := range out {
		out[i] /= total
	}
	return out
}

// jitter gives service times around a mean, with a tail.
func jitter(r *rig, mean int64) func() int64 {
	x := rnd(12345)
	return func() int64 {
		d := mean/2 + int64(x.below(int(mean)))
		if x.below(500) == 0 {
			d *= 5
		}
		return d
	}
}

func TestEqualPathsShareEqually(t *testing.T) {
	for _, serial := range []bool{false, true} {
		for _, depth := range []int{1, 32} {
			r := newRig(t, 4, nil).up()
			for _, s := range r.s {
				s.delay, s.serial = jitter(r, msec), serial
			}
			newLoad(r, depth, 8, 4)
			r.l.run(sec)
			for _, s := range r.shares(3 * sec) {
				assert.InDelta(t, 0.25, s, 0.15, "serial %t depth %d", serial, depth)
			}
		}
	}
}

func TestSlowPathIsShedAndRecovers(t *testing.T) {
	for _, c := range []struct {
		name   string
		serial bool
		paths  int
		every  int
	}{
		{"delay, two paths", false, 2, 4},
		{"delay, three paths, reads", false, 3, 0},
		{"slow server, three paths", true, 3, 4},
		{"delay, writes only", false, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.paths, nil).up()
			for _, s := range r.s {
				s.delay, s.serial = jitter(r, msec), c.serial
			}
			l := newLoad(r, 32, 8, c.every)
			r.l.run(sec)
			r.s[0].delay = jitter(r, 20*msec)
			shed := int64(0)
			for r.shares(50 * msec)[0] >= 0.05 {
				shed += 50 * msec
				require.Less(t, shed, sec, "the share must fall below 5 %% soon")
			}
			t.Logf("share below 5 %% after %d ms", shed/msec)
			assert.Less(t, r.shares(3 * sec)[0], 0.05)

			r.s[0].delay = jitter(r, msec)
			back, fair := int64(0), 1/float64(c.paths)
			for r.shares(500 * msec)[0] < fair/2 {
				back += 500 * msec
				require.Less(t, back, 20*sec, "a path that healed must get its share again")
			}
			t.Logf("back after %d ms", back/msec)
			assert.Zero(t, l.errors)
		})
	}
}

// A path that answers nothing any more is avoided before anything says so.
func TestSilentPathIsShedByAge(t *testing.T) {
	r := newRig(t, 2, nil).up()
	for _, s := range r.s {
		s.delay = jitter(r, msec)
	}
	newLoad(r, 32, 8, 4)
	r.l.run(sec)
	r.s[0].hold = true
	r.l.run(20 * msec)
	stuck := len(r.s[0].flights)
	before := r.d.paths[1].stat.ios
	r.l.run(130 * msec)
	assert.LessOrEqual(t, len(r.s[0].flights), stuck, "not one more command within 20 ms of silence")
	assert.Greater(t, r.d.paths[1].stat.ios, before, "the rest flows")
	r.s[0].silence()
	r.l.run(msec)
	for _, f := range r.s[0].flights {
		if f.c != nil && f.c.Owner == r.d { // not a scout
			assert.NotNil(t, f.data, "only writes are left there")
		}
	}
}

// What counts is the age of what is in flight, not only how much it is: a fast
// path that stopped is worse than a slow one that works.
func TestAgeCounts(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[0].delay = func() int64 { return 100 * usec }
	r.s[1].delay = func() int64 { return 2 * msec }
	for i := range 400 {
		r.read(i, 1)
		r.l.run(100 * usec)
	}
	r.l.run(10 * msec)
	r.d.paths[1].ramp = 0
	r.s[0].hold = true
	r.read(0, 1)
	require.Len(t, r.s[0].flights, 1)
	r.l.run(50 * msec)
	for i := range 10 {
		r.read(i, 1)
	}
	n := 0
	for _, f := range r.s[0].flights {
		if f.c == nil || f.c.Owner == r.d { // one that was hedged, or not a scout
			n++
		}
	}
	assert.Equal(t, 1, n)
	assert.GreaterOrEqual(t, r.d.paths[1].inflight, 10)
}

func TestProbesAreFew(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[0].delay = jitter(r, 100*usec)
	r.s[1].delay = jitter(r, 50*msec)
	newLoad(r, 4, 8, 0)
	r.l.run(2 * sec)
	before, ios := r.d.paths[1].stat.probes, r.d.paths[0].stat.ios
	s := r.shares(10 * sec)
	n := r.d.paths[1].stat.probes - before
	assert.NotZero(t, n, "it is looked at")
	assert.Less(t, float64(n), 0.01*float64(r.d.paths[0].stat.ios-ios), "but with 1 %% of the commands at most")
	assert.Less(t, s[1], 0.01)
}

// Large transfers tell a path's bandwidth; small ones then go by latency alone.
func TestBandwidthIsLearned(t *testing.T) {
	var e estimate
	x := rnd(5)
	now := int64(0)
	for range 5000 {
		size := 4096 << x.below(8)
		took := 100*usec + int64(size)*10 // 100 MB/s
		now += took
		e.add(now, took+int64(x.below(int(20*usec))), traffic{bytes: size})
	}
	assert.InDelta(t, 10, e.fit.perByte, 0.5)
	assert.InDelta(t, 110*usec, e.lat, float64(70*usec))

	e = estimate{}
	for range 5000 {
		now += msec
		e.add(now, 500*usec, traffic{bytes: 4096})
	}
	assert.Zero(t, e.fit.perByte, "one size tells nothing about bandwidth")
	assert.InDelta(t, 500*usec, e.lat, 1)
}

// A path that works off its queue one by one is told from one that is merely far.
func TestQueueIsLearned(t *testing.T) {
	x := rnd(7)
	for _, c := range []struct{ empty, each int64 }{{300 * usec, 50 * usec}, {20 * msec, 0}, {100 * usec, 2 * msec}} {
		var e estimate
		now := int64(0)
		for range 5000 {
			n := x.below(32)
			took := c.empty + int64(n)*c.each + int64(x.below(int(c.empty/10)))
			now += 50 * usec
			e.add(now, took, traffic{commands: n, before: n * 4096, bytes: 4096})
		}
		assert.InDelta(t, c.each, e.fit.perCommand, float64(c.each)/10+float64(c.empty)/200)
		assert.InDelta(t, c.empty, e.lat, float64(c.empty)/4+float64(2*c.each))
	}
}

// The queue is taken to matter as long as nothing is known of it.
func TestQueueIsGuessed(t *testing.T) {
	var e estimate
	for i := range int64(100) {
		e.add(i*msec, 800*usec, traffic{commands: 7, before: 7 * 4096, bytes: 4096})
	}
	assert.InDelta(t, 100*usec, e.fit.perCommand, float64(10*usec))
	assert.InDelta(t, 100*usec, e.lat, float64(20*usec))
}

func TestOneSlowAnswerIsNoVerdict(t *testing.T) {
	steady := func() (e estimate) {
		for i := range int64(100) {
			e.add(i*msec, msec, traffic{bytes: 4096})
		}
		return e
	}
	e := steady()
	e.add(200*msec, 50*msec, traffic{bytes: 4096})
	assert.LessOrEqual(t, e.lat, 2e6, "one")
	f := e
	for i := range int64(30) {
		f.add(201*msec, (50-i)*msec, traffic{bytes: 4096})
	}
	assert.Equal(t, e.lat, f.lat, "all that waited with it are the same event")
	for i := range int64(5) {
		e.add((260+60*i)*msec, 50*msec, traffic{bytes: 4096})
	}
	assert.Greater(t, e.lat, 20e6, "it goes on")
	for i := range int64(8) {
		e.add((600+i)*msec, msec, traffic{bytes: 4096})
	}
	assert.InDelta(t, msec, e.lat, float64(msec), "and it is over")
}

// A queue that stays long spreads to a path that is far, which does in addition
// what it gets; a burst does not: it is over sooner without.
func TestOnlyLastingQueuesSpread(t *testing.T) {
	near := func(*testing.T) *rig {
		r := newRig(t, 2, func(c *Config) { c.HedgeBudget = -1 }).up()
		r.s[0].delay, r.s[0].serial = jitter(r, 50*usec), true
		r.s[1].delay = jitter(r, 15*msec)
		return r
	}
	r := near(t)
	newLoad(r, 60, 8, 4)
	r.l.run(sec)
	far := r.shares(sec)[1]
	assert.Greater(t, far, 0.02, "it stays long")

	r = near(t)
	newLoad(r, 8, 8, 4)
	r.l.run(sec)
	before := r.d.paths[1].stat.ios
	for range 20 {
		for i := range 52 {
			r.read(i, 1)
		}
		r.l.run(50 * msec)
	}
	assert.LessOrEqual(t, r.d.paths[1].stat.ios-before, uint64(2), "bursts")
}

// Equal paths share evenly by number, whatever small differences were learned; of
// unlike ones none gets a command more for having few.
func TestEqualCosts(t *testing.T) {
	for _, c := range []struct {
		name        string
		other, best cost
		want        bool
	}{
		{"the same", cost{10, 10, 0, 1}, cost{10, 10, 0, 1}, true},
		{"alike, long queues", cost{108, 8, 100, 1.2}, cost{100, 10, 90, 1}, true},
		{"alike, but dearer", cost{120, 10, 110, 1}, cost{100, 10, 90, 1}, false},
		{"alike, made dearer for their length", cost{300, 10, 95, 1}, cost{280, 10, 90, 1}, true},
		{"a long queue beside a path that is far", cost{420, 1, 60, 1}, cost{300, 290, 10, 1}, false},
		{"slower commands", cost{108, 20, 88, 4}, cost{100, 10, 90, 1}, false},
		{"slower commands, hardly dearer", cost{100.5, 20, 80.5, 4}, cost{100, 10, 90, 1}, true},
		{"no queue", cost{10.5, 10.5, 0, 3}, cost{10, 10, 0, 1}, true},
	} {
		assert.Equal(t, c.want, c.other.equals(&c.best), c.name)
	}
}

// A path that is slower but has next to nothing in flight is not busy: while the
// near one stays saturated, what it does comes on top.
func TestFewCommandsAreNoLongQueue(t *testing.T) {
	near, far := &path{inflight: 28}, &path{}
	cands := []*path{near, far}
	for n := range 8 {
		near.cost = cost{alone: 200, queue: 28 * 100, one: 50}
		far.inflight = n
		far.cost = cost{alone: 2000, queue: float64(n) * 1000, one: 500}
		for _, p := range cands {
			p.cost.total = p.cost.alone + p.cost.queue
		}
		best := spread(cands, near)
		plain := far.cost.alone + far.cost.queue
		if n <= shortQueue {
			assert.InDelta(t, plain, far.cost.total, 0, "%d in flight", n)
			assert.Same(t, far, best, "%d in flight", n)
		} else {
			assert.Greater(t, far.cost.total, plain, "%d in flight: a long queue, whoever takes as long", n)
		}
	}
	assert.Same(t, near, spread(cands, near), "and it gets no more than it does")
}

// Where all else is equal a path that stalled of late is left alone, as long as it goes on stalling.
func TestEqualPathsThatStallAreSpared(t *testing.T) {
	r := newRig(t, 3, func(c *Config) { c.HedgeBudget = -1 }).up()
	stalling := true
	for i, s := range r.s {
		s.delay = func() int64 {
			if i == 0 && stalling && r.l.now%sec < 200*msec {
				return 200*msec - r.l.now%sec
			}
			return 300 * usec
		}
	}
	l := newLoad(r, 1, 8, 2)
	r.l.run(2 * sec)
	for range 3 {
		s := r.shares(15 * sec)
		assert.Less(t, s[0], 0.001, "scouts see that it goes on")
		assert.InDelta(t, s[1], s[2], 0.1, "the others share")
	}
	stalling = false
	r.l.run(12 * sec)
	assert.InDelta(t, 1./3, r.shares(3 * sec)[0], 0.1, "and when it has been well for some time")
	for _, s := range r.s {
		s.delay = func() int64 {
			if r.l.now%sec < 200*msec {
				return 200*msec - r.l.now%sec
			}
			return 300 * usec
		}
	}
	r.l.run(2 * sec)
	for _, s := range r.shares(3 * sec) {
		assert.InDelta(t, 1./3, s, 0.1, "what befalls all says nothing of one")
	}
	assert.Zero(t, l.errors)
}
