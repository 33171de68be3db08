package main

import (
	"net"

	"github.com/iscsimp/iscsimp/internal/loop"
)

// clock is a loop.Loop whose time jumps from one event to the next.
type clock struct {
	now    int64
	seq    uint64
	heap   []entry
	timers map[*loop.Timer]*event
}

// event is something that happens at a time. It can be scheduled again once it ran.
type event struct {
	run func()
	gen uint64 // of the entry in the heap that counts, 0 = not scheduled
}

type entry struct {
	at  int64
	seq uint64
	e   *event
}

func newClock() *clock { return &clock{now: 1e9, timers: map[*loop.Timer]*event{}} }

// at schedules e, instead of what it was scheduled for before.
func (c *clock) at(when int64, e *event) {
	c.seq++
	e.gen = c.seq
	c.heap = append(c.heap, entry{max(when, c.now), c.seq, e})
	for i := len(c.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !c.less(i, up) {
			break
		}
		c.heap[i], c.heap[up] = c.heap[up], c.heap[i]
		i = up
	}
}

// cancel takes e off the schedule.
func (e *event) cancel() { e.gen = 0 }

func (c *clock) less(i, j int) bool {
	a, b := &c.heap[i], &c.heap[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (c *clock) pop() entry {
	top := c.heap[0]
	n := len(c.heap) - 1
	c.heap[0] = c.heap[n]
	c.heap[n] = entry{}
	c.heap = c.heap[:n]
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && c.less(down+1, down) {
			down++
		}
		if !c.less(down, i) {
			break
		}
		c.heap[i], c.heap[down] = c.heap[down], c.heap[i]
		i = down
	}
	return top
}

// run lets the time pass until then.
func (c *clock) run(until int64) {
	for len(c.heap) > 0 && c.heap[0].at <= until {
		x := c.pop()
		if x.e.gen != x.seq {
			continue // canceled, or scheduled anew
		}
		x.e.gen = 0
		c.now = x.at
		x.e.run()
	}
	c.now = until
}

// Now implements loop.Loop.
func (c *clock) Now() int64 { return c.now }

// SetTimer implements loop.Loop.
func (c *clock) SetTimer(t *loop.Timer, when int64) {
	e := c.timers[t]
	if e == nil {
		e = &event{run: t.Fn}
		c.timers[t] = e
	}
	c.at(when, e)
}

// StopTimer implements loop.Loop.
func (c *clock) StopTimer(t *loop.Timer) {
	if e := c.timers[t]; e != nil {
		e.cancel()
	}
}

// Post implements loop.Loop.
func (c *clock) Post(fn func()) bool {
	c.at(c.now, &event{run: fn})
	return true
}

// PostTask implements loop.Loop.
func (c *clock) PostTask(t *loop.Task) bool { return c.Post(t.Run) }

// Attach implements loop.Loop; a device attaches no streams.
func (c *clock) Attach(net.Conn, loop.Handler) (loop.Stream, error) {
	panic("sim: the device attaches no streams")
}

// Close implements loop.Loop.
func (c *clock) Close() {}

// Done implements loop.Loop.
func (c *clock) Done() <-chan struct{} { return nil }
