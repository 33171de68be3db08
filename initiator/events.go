package initiator

import "sync"

// eventBacklog is how many events may wait for a slow OnEvent.
const eventBacklog = 4096

// eventQueue carries events from the loop to the user's function, which may block.
type eventQueue struct {
	events chan Event
	ended  chan struct{}
	once   sync.Once
}

func newEventQueue(fn func(Event)) *eventQueue {
	if fn == nil {
		return nil
	}
	q := &eventQueue{events: make(chan Event, eventBacklog), ended: make(chan struct{})}
	go func() {
		defer close(q.ended)
		for e := range q.events {
			fn(e)
		}
	}()
	return q
}

// push runs on the loop. With the backlog full the event is left out.
func (q *eventQueue) push(e Event) {
	if q == nil {
		return
	}
	select {
	case q.events <- e:
	default:
	}
}

// stop delivers what is waiting and ends the goroutine. The loop must have ended.
func (q *eventQueue) stop() {
	if q == nil {
		return
	}
	q.once.Do(func() { close(q.events) })
	<-q.ended
}
