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
	stop        bool
	errors      int
	longest     int64
}

func newLoad(r *rig, depth, n, every int) *load {
	l := &load{r: r, n: n, every: every}
	for range depth {
		l.next()
	}
	return l
}

func (l *load) next() {
	l.i++
	lba := l.i * 8 % 4000
	began := l.r.l.now
	q := &result{t: l.r.t, l: l.r.l}
	q.Request = block.Request{Op: block.OpRead, Offset: uint64(lba * testBlock), Length: uint64(l.n * testBlock), Data: make([]byte, l.n*testBlock), Owner: q}
	if l.every > 0 && l.i%l.every == 0 {
		q.Op = block.OpWrite
	}
	q.then = func() {
		if q.Err != nil {
			l.errors++
		}
		l.longest = max(l.longest, q.at-began)
		if !l.stop {
			l.r.l.after(0, l.next)
		}
	}
	l.r.d.Submit(&q.Request)
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
				s.delay, s.serial = jitter(r, 200*usec), serial
			}
			newLoad(r, depth, 8, 4)
			r.l.run(sec)
			for _, s := range r.shares(4 * sec) {
				assert.InDelta(t, 0.25, s, 0.1, "serial %t depth %d", serial, depth)
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
		{"delay, two paths", false, 2, 4}, {"delay, three paths, reads", false, 3, 0},
		{"slow server, three paths", true, 3, 4}, {"delay, writes only", false, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.paths, nil).up()
			for _, s := range r.s {
				s.delay, s.serial = jitter(r, 200*usec), c.serial
			}
			l := newLoad(r, 32, 8, c.every)
			r.l.run(2 * sec)
			r.s[0].delay = jitter(r, 4*msec)
			shed := int64(0)
			for r.shares(50 * msec)[0] >= 0.05 {
				shed += 50 * msec
				require.Less(t, shed, sec, "the share must fall below 5 %% soon")
			}
			t.Logf("share below 5 %% after %d ms", shed/msec)
			s := r.shares(5 * sec)
			assert.Less(t, s[0], 0.05)
			assert.NotZero(t, r.d.paths[0].stat.ios)

			r.s[0].delay = jitter(r, 200*usec)
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
		s.delay = jitter(r, 200*usec)
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
		if f.c != nil {
			assert.NotNil(t, f.data, "only writes are left there")
		}
	}
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
		e.add(now, took+int64(x.below(int(20*usec))), size)
	}
	assert.InDelta(t, 10, e.slope.perByte, 0.5)
	assert.InDelta(t, 120*usec, e.lat, float64(15*usec))

	e = estimate{}
	for range 5000 {
		now += msec
		e.add(now, 500*usec, 4096)
	}
	assert.Zero(t, e.slope.perByte, "one size tells nothing about bandwidth")
	assert.InDelta(t, 500*usec, e.lat, 1)
}

func TestEstimateRisesAtOnceAndFallsSlowly(t *testing.T) {
	var e estimate
	e.add(0, msec, 4096)
	e.add(msec, 50*msec, 4096)
	assert.InDelta(t, 50*msec, e.lat, 1)
	for i := range int64(1000) {
		e.add(2*msec+i*msec, msec, 4096)
	}
	assert.InDelta(t, 1+49/2.718, e.lat/1e6, 1, "after one time constant")
	many := e
	e.add(4*sec, msec, 4096)
	for i := range int64(100) {
		many.add(sec+i*30*msec, msec, 4096)
	}
	assert.InDelta(t, e.lat, many.lat, float64(msec), "time counts, not the number of samples")
}
