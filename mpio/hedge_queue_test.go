package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lines is a rig whose paths carry one read after the other, each in about its time.
func lines(t *testing.T, takes ...int64) *rig {
	r := newRig(t, len(takes), nil).up()
	for i, s := range r.s {
		x := rnd(i + 1)
		s.serial, s.delay = true, func() int64 { return takes[i]*9/10 + int64(x.below(int(takes[i]/5))) }
	}
	return r
}

// burst sends n reads at once.
func (r *rig) burst(n int) {
	for i := range n {
		r.read(i*16%4000, 16)
	}
}

// A read that waits its turn on a busy line is old, not lost: a second copy of it
// would only take up what the lines have.
func TestReadsInAQueueAreNotHedged(t *testing.T) {
	for name, takes := range map[string][]int64{
		"1:4":     {10500 * usec, 2600 * usec},
		"equal":   {5200 * usec, 5200 * usec},
		"1:1:4:4": {4000 * usec, 4000 * usec, 1000 * usec, 1000 * usec},
	} {
		for _, depth := range []int{2, 16, 64} {
			r := lines(t, takes...)
			newLoad(r, depth, 16, 0)
			r.l.run(10 * sec)
			s := r.d.Snapshot()
			assert.LessOrEqual(t, float64(s.Hedges), float64(s.Requests)/1000, "%s, depth %d: %d reads", name, depth, s.Requests)
		}
		// Bursts: each has a queue that the ordinary read has not. A copy that wins did no harm.
		r := lines(t, takes...)
		newLoad(r, 1, 16, 0)
		r.l.run(sec)
		before := r.d.hedges.sent - r.d.hedges.wins
		for range 20 {
			r.burst(32)
			r.l.run(sec)
		}
		assert.LessOrEqual(t, r.d.hedges.sent-r.d.hedges.wins-before, uint64(4), "%s, bursts", name)
	}
}

// A read that is lost on a busy line is rescued all the same, soon after its turn.
func TestReadLostInAQueueIsHedged(t *testing.T) {
	r := lines(t, 5*msec, 5*msec)
	newLoad(r, 16, 16, 0) // 40 ms each
	r.l.run(3 * sec)
	before := r.d.hedges.wins
	for range 10 {
		q := r.lostRead(0, 7, 16)
		sent := r.l.now
		r.l.run(sec)
		require.True(t, q.done)
		require.NoError(t, q.Err)
		assert.Less(t, q.at-sent, 150*msec)
	}
	assert.EqualValues(t, 10, r.d.hedges.wins-before)
}

// lostRead sends a read over path i, which never answers it.
func (r *rig) lostRead(i, lba, n int) *result {
	s := r.s[i]
	for _, p := range r.d.paths {
		p.limit = 0
		if p != r.d.paths[i] {
			p.limit = 1 // full for a moment
		}
	}
	was := s.delay
	s.serial, s.delay = false, func() int64 { return 3600 * sec }
	q := r.read(lba, n)
	s.serial, s.delay = true, was
	for _, p := range r.d.paths {
		p.limit = 0
	}
	return q
}
