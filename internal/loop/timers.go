package loop

// timers is a binary heap of the armed timers, the earliest first. Each Timer
// knows its place, so that stopping and re-arming need no search.
type timers struct {
	heap []*Timer
	seq  uint64
}

// set arms t for when, or for now if that is later.
//
// The lower bound is what makes fire end: whatever a callback arms sorts
// behind everything that was due before it.
func (q *timers) set(t *Timer, when, now int64) {
	q.mustOwn(t)
	q.seq++
	t.when, t.seq = max(when, now), q.seq
	if t.index == 0 {
		q.heap = append(q.heap, t)
		t.index = len(q.heap)
	}
	q.fix(t.index - 1)
}

// stop disarms t; no-op if it is not armed.
func (q *timers) stop(t *Timer) {
	q.mustOwn(t)
	if t.index != 0 {
		q.remove(t.index - 1)
	}
}

// next returns when the earliest timer is due; ok is false without one.
func (q *timers) next() (when int64, ok bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].when, true
}

// fire runs what is due at now, but not what these callbacks arm in their
// turn: that has to wait for the next round, so that it cannot starve I/O.
// before runs ahead of each callback.
func (q *timers) fire(now int64, before func()) {
	newest := q.seq
	for len(q.heap) > 0 {
		t := q.heap[0]
		if t.when > now || t.seq > newest {
			return
		}
		q.remove(0)
		before()
		t.Fn()
	}
}

// clear disarms everything, so that the timers can be used on another loop.
func (q *timers) clear() {
	for _, t := range q.heap {
		t.index = 0
	}
	q.heap = nil
}

// mustOwn catches a timer that is armed on another loop before it corrupts
// this heap.
func (q *timers) mustOwn(t *Timer) {
	if t.index != 0 && (t.index > len(q.heap) || q.heap[t.index-1] != t) {
		panic("loop: the timer is armed on another loop; stop it there first")
	}
}

func (q *timers) remove(i int) {
	t := q.heap[i]
	last := len(q.heap) - 1
	q.swap(i, last)
	q.heap[last] = nil
	q.heap = q.heap[:last]
	t.index = 0
	if i < last {
		q.fix(i)
	}
}

// fix moves the timer at i to where it belongs.
func (q *timers) fix(i int) {
	for i > 0 && q.less(i, (i-1)/2) {
		q.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child >= len(q.heap) {
			return
		}
		if right := child + 1; right < len(q.heap) && q.less(right, child) {
			child = right
		}
		if !q.less(child, i) {
			return
		}
		q.swap(i, child)
		i = child
	}
}

func (q *timers) less(i, j int) bool {
	a, b := q.heap[i], q.heap[j]
	if a.when != b.when {
		return a.when < b.when
	}
	return a.seq < b.seq
}

func (q *timers) swap(i, j int) {
	q.heap[i], q.heap[j] = q.heap[j], q.heap[i]
	q.heap[i].index, q.heap[j].index = i+1, j+1
}
