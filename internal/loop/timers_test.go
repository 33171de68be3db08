package loop

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/quick"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTimersAgainstModel does the same to the heap and to a sorted slice.
func TestTimersAgainstModel(t *testing.T) {
	type entry struct{ when, seq, id int }
	property := func(seed uint64) bool {
		rng := rand.New(rand.NewPCG(seed, 1))
		var q timers
		var model []entry
		var fired, expected []int
		all := make([]Timer, 40)
		for i := range all {
			all[i].Fn = func() { fired = append(fired, i) }
		}
		now := 0
		for step := range 400 {
			i := rng.IntN(len(all))
			switch rng.IntN(4) {
			case 0, 1:
				when := now + rng.IntN(50) - 10
				q.set(&all[i], int64(when), int64(now))
				model = slices.DeleteFunc(model, func(e entry) bool { return e.id == i })
				model = append(model, entry{max(when, now), step, i})
			case 2:
				q.stop(&all[i])
				model = slices.DeleteFunc(model, func(e entry) bool { return e.id == i })
			case 3:
				now += rng.IntN(20)
				slices.SortFunc(model, func(a, b entry) int {
					if a.when != b.when {
						return a.when - b.when
					}
					return a.seq - b.seq
				})
				for len(model) > 0 && model[0].when <= now {
					expected = append(expected, model[0].id)
					model = model[1:]
				}
				q.fire(int64(now), func() {})
			}
			if len(q.heap) != len(model) || !slices.Equal(fired, expected) {
				t.Logf("seed %d, step %d: fired %v, expected %v", seed, step, fired, expected)
				return false
			}
		}
		return true
	}
	require.NoError(t, quick.Check(property, &quick.Config{MaxCount: 200}))
}

func TestTimersFromInsideCallbacks(t *testing.T) {
	var q timers
	var order []string
	a, b, c := &Timer{}, &Timer{}, &Timer{}
	a.Fn = func() {
		order = append(order, "a")
		q.set(a, -5, 10) // in the past: next time, after all that is due now
		q.stop(c)
	}
	b.Fn = func() { order = append(order, "b") }
	c.Fn = func() { order = append(order, "c") }
	q.set(a, 1, 0)
	q.set(b, 10, 0)
	q.set(c, 2, 0)
	q.fire(10, func() {})
	assert.Equal(t, []string{"a", "b"}, order)
	when, ok := q.next()
	assert.True(t, ok)
	assert.Equal(t, int64(10), when)
}

func TestTimerOfAnotherLoop(t *testing.T) {
	var one, other timers
	a, b := &Timer{}, &Timer{}
	one.set(a, 1, 0)
	assert.Panics(t, func() { other.set(a, 1, 0) })
	other.set(b, 1, 0)
	assert.Panics(t, func() { other.stop(a) })
	one.clear()
	other.set(a, 1, 0)
	other.stop(a)
	other.stop(b)
	_, ok := other.next()
	assert.False(t, ok)
}
