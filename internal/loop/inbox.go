package loop

import "sync"

// inbox is where other goroutines leave work for a loop. It costs a wake-up
// only when the loop sleeps, so that a burst of posts costs one.
type inbox struct {
	// ring wakes the sleeping loop. It must not block.
	ring func()
	// ringing counts the calls of ring under way: whoever tears down what
	// ring uses has to wait for them after close.
	ringing sync.WaitGroup

	mu         sync.Mutex // guards what follows
	head, tail *Task
	asleep     bool // the loop sleeps, or is about to, and must be rung
	closed     bool
}

// post accepts t from any goroutine, unless the inbox was closed.
func (q *inbox) post(t *Task) bool {
	if !t.posted.CompareAndSwap(false, true) {
		panic("loop: the task was posted again before it ran")
	}
	if q.push(t, false) {
		return true
	}
	t.posted.Store(false)
	return false
}

// postOwn accepts t even after close: how a driver's goroutines report back.
func (q *inbox) postOwn(t *Task) {
	t.posted.Store(true)
	q.push(t, true)
}

func (q *inbox) push(t *Task, evenClosed bool) bool {
	q.mu.Lock()
	if q.closed && !evenClosed {
		q.mu.Unlock()
		return false
	}
	if q.tail == nil {
		q.head = t
	} else {
		q.tail.next = t
	}
	q.tail = t
	q.unlockAndRing()
	return true
}

// close makes post refuse from now on and wakes the loop to notice.
func (q *inbox) close() {
	q.mu.Lock()
	q.closed = true
	q.unlockAndRing()
}

// unlockAndRing rings outside of the lock, which the woken loop wants at once.
func (q *inbox) unlockAndRing() {
	wake := q.asleep
	q.asleep = false
	if wake {
		q.ringing.Add(1)
	}
	q.mu.Unlock()
	if wake {
		q.ring()
		q.ringing.Done()
	}
}

// take removes all that was posted. With closed set, nothing but postOwn can
// add to it any more.
func (q *inbox) take() (list *Task, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list, q.head, q.tail = q.head, nil, nil
	return list, q.closed
}

// sleep announces that the loop is going to wait. It returns false if there
// is work, or the news of close that the loop has not acted on yet.
func (q *inbox) sleep(closing bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asleep = q.head == nil && q.closed == closing
	return q.asleep
}

// awake takes back the announcement.
func (q *inbox) awake() {
	q.mu.Lock()
	q.asleep = false
	q.mu.Unlock()
}

// runTasks runs a list that take returned; before runs ahead of each task.
func runTasks(list *Task, before func()) {
	for t := list; t != nil; {
		next := t.next
		t.next = nil
		t.posted.Store(false) // from here on Run, or anyone after it, may post t again
		before()
		t.Run()
		t = next
	}
}
