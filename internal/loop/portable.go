package loop

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// portable is the driver for any net.Conn. Each stream has a goroutine that
// reads and one that writes; they meet the loop through its inbox only. All
// fields but inbox, counters, wake and done belong to the loop's goroutine.
type portable struct {
	counters
	drainer
	start   time.Time
	inbox   inbox
	timers  timers
	agenda  agenda
	streams map[*connStream]struct{}
	closing bool
	alarm   *time.Timer
	wake    chan struct{} // holds one token: rung
	done    chan struct{}
}

// NewPortable returns the driver that takes any net.Conn, running. It follows
// package time's clock, also the virtual one of a testing/synctest bubble it
// is made in.
func NewPortable() Loop {
	p := &portable{
		start:   time.Now(),
		streams: make(map[*connStream]struct{}),
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	p.inbox.ring = p.ring
	go p.run()
	return p
}

// Now implements Loop.
func (p *portable) Now() int64 { return int64(time.Since(p.start)) }

// Post implements Loop.
func (p *portable) Post(fn func()) bool { return p.inbox.post(&Task{Run: fn}) }

// PostTask implements Loop.
func (p *portable) PostTask(t *Task) bool { return p.inbox.post(t) }

// SetTimer implements Loop.
func (p *portable) SetTimer(t *Timer, when int64) {
	if !p.closing {
		p.timers.set(t, when, p.Now())
	}
}

// StopTimer implements Loop.
func (p *portable) StopTimer(t *Timer) { p.timers.stop(t) }

// Done implements Loop.
func (p *portable) Done() <-chan struct{} { return p.done }

// Close implements Loop.
func (p *portable) Close() {
	p.inbox.close()
	<-p.done
}

// ring wakes the loop; a token that is already there does as well.
func (p *portable) ring() {
	p.wakeups.Add(1)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *portable) run() {
	defer p.release()
	for {
		tasks, closed := p.inbox.take()
		runTasks(tasks, noTick)
		if closed && !p.closing {
			p.shutDown()
		}
		p.timers.fire(p.Now(), noTick)
		p.agenda.run(noTick)
		if p.closing && len(p.streams) == 0 && p.agenda.empty() {
			return
		}
		p.sleep()
	}
}

// noTick stands where the reactor reads its clock.
func noTick() {}

// shutDown ends all streams; run goes on until their goroutines have ended.
func (p *portable) shutDown() {
	p.closing = true
	for s := range p.streams {
		s.end(ErrClosed, true)
	}
	p.timers.clear()
}

// release also runs when a callback panics or leaves by runtime.Goexit.
func (p *portable) release() {
	p.inbox.close()
	p.timers.clear()
	if p.alarm != nil {
		p.alarm.Stop()
	}
	close(p.done)
}

// sleep waits for the next timer or a ring, if nothing is left to do.
func (p *portable) sleep() {
	if !p.agenda.empty() {
		return
	}
	var alarm <-chan time.Time
	if when, ok := p.timers.next(); ok {
		left := when - p.Now()
		if left <= 0 {
			return
		}
		alarm = p.setAlarm(time.Duration(left))
	}
	if !p.inbox.sleep(p.closing) {
		return
	}
	p.waits.Add(1)
	select {
	case <-p.wake:
	case <-alarm:
	}
	p.inbox.awake()
}

func (p *portable) setAlarm(left time.Duration) <-chan time.Time {
	if p.alarm == nil {
		p.alarm = time.NewTimer(left)
	} else {
		p.alarm.Reset(left)
	}
	return p.alarm.C
}

// Attach implements Loop.
func (p *portable) Attach(c net.Conn, h Handler) (Stream, error) {
	if c == nil {
		return nil, errors.New("attach: no connection given")
	}
	if p.closing {
		innermost(c).Close() // closing TLS could block
		return nil, ErrClosed
	}
	// Deadlines of whoever used c before (a login, say) would cut us off.
	if err := c.SetDeadline(time.Time{}); err != nil {
		innermost(c).Close()
		return nil, fmt.Errorf("attach %v: %w", c.RemoteAddr(), err)
	}
	s := newConnStream(p, c, h)
	p.streams[s] = struct{}{}
	return s, nil
}
