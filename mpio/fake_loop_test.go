package mpio

import (
	"container/heap"
	"net"

	"github.com/iscsimp/iscsimp/internal/loop"
)

// fakeLoop is a loop.Loop with a clock that moves only when told: run takes
// events in the order of their time. It has no goroutine.
type fakeLoop struct {
	now    int64
	seq    int
	events eventHeap
	timers map[*loop.Timer]*fakeEvent
}

type fakeEvent struct {
	at   int64
	seq  int
	fn   func()
	dead bool
}

type eventHeap []*fakeEvent

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(*fakeEvent)) }
func (h *eventHeap) Pop() any {
	e := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return e
}

func newFakeLoop() *fakeLoop {
	return &fakeLoop{now: 1e9, timers: map[*loop.Timer]*fakeEvent{}}
}

// after runs fn in so many nanoseconds.
func (l *fakeLoop) after(ns int64, fn func()) *fakeEvent {
	l.seq++
	e := &fakeEvent{at: l.now + max(ns, 0), seq: l.seq, fn: fn}
	heap.Push(&l.events, e)
	return e
}

// step runs the next event not later than until; false: there is none.
func (l *fakeLoop) step(until int64) bool {
	for len(l.events) > 0 && l.events[0].at <= until {
		e := heap.Pop(&l.events).(*fakeEvent)
		if e.dead {
			continue
		}
		l.now = max(l.now, e.at)
		e.fn()
		return true
	}
	return false
}

// run lets ns pass.
func (l *fakeLoop) run(ns int64) {
	until := l.now + ns
	for l.step(until) {
	}
	l.now = until
}

func (l *fakeLoop) Now() int64 { return l.now }

func (l *fakeLoop) SetTimer(t *loop.Timer, when int64) {
	l.StopTimer(t)
	l.timers[t] = l.after(when-l.now, func() {
		delete(l.timers, t)
		t.Fn()
	})
}

func (l *fakeLoop) StopTimer(t *loop.Timer) {
	if e := l.timers[t]; e != nil {
		e.dead = true
		delete(l.timers, t)
	}
}

func (l *fakeLoop) Post(fn func()) bool        { l.after(0, fn); return true }
func (l *fakeLoop) PostTask(t *loop.Task) bool { l.after(0, t.Run); return true }
func (l *fakeLoop) Close()                     {}
func (l *fakeLoop) Done() <-chan struct{}      { return nil }
func (l *fakeLoop) Attach(net.Conn, loop.Handler) (loop.Stream, error) {
	panic("the device attaches no streams")
}
