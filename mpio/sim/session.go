package main

import (
	"time"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Figures of the sessions, the defaults of package initiator.
const (
	commandsMax  = 128
	suspectAfter = 200 * time.Millisecond
	deadAfter    = 2 * time.Second
	dialAgain    = 100 * time.Millisecond
	loginTakes   = 2 * time.Millisecond
)

// simSession is an mpio.Session over a wire.
type simSession struct {
	c    *clock
	w    *wire
	obs  session.Observer
	unit *unit

	logged, closed, silent bool
	logins                 int
	flights                []*flight
	pool                   []*flight
	heard                  int64 // when something was received last, or began to be waited for
	loginEvent, watch      event
}

// flight is a command under way.
type flight struct {
	event
	s     *simSession
	c     *session.Command // nil: taken back
	stage int
	index int
	over  func() // told when a command that was taken back is answered
	sent  int64
	bytes int
}

func newSession(c *clock, w *wire, u *unit, obs session.Observer) *simSession {
	s := &simSession{c: c, w: w, unit: u, obs: obs}
	s.loginEvent.run = s.login
	s.watch.run = s.look
	return s
}

// Start implements mpio.Session.
func (s *simSession) Start() { s.c.at(s.c.now+int64(loginTakes), &s.loginEvent) }

func (s *simSession) login() {
	if s.closed || s.logged {
		return
	}
	if s.w.trouble(s.c.now, s.w.Lost) > 0 || s.w.trouble(s.c.now, s.w.Stalls) > 0 {
		again := s.c.now + int64(dialAgain)
		s.c.at(again, &s.loginEvent)
		s.obs.SessionDown(nil, &session.Error{Kind: session.KindTransport, Msg: "cannot connect"}, again)
		return
	}
	s.logins++
	s.logged = true
	if s.w.Lost > 0 {
		s.c.at(s.nextLoss(), &s.watch)
	}
	s.obs.SessionUp(nil, session.Up{First: s.logins == 1, TSIH: 1, Reinstated: s.logins > 1})
}

// nextLoss is when the connection will be reset.
func (s *simSession) nextLoss() int64 {
	from := s.c.now - int64(s.w.Offset)
	if from < 0 {
		return int64(s.w.Offset)
	}
	p := int64(s.w.Period)
	return (from/p+1)*p + int64(s.w.Offset)
}

// Room implements mpio.Session.
func (s *simSession) Room() int {
	if !s.logged {
		return 0
	}
	return commandsMax - len(s.flights)
}

// Submit implements mpio.Session.
func (s *simSession) Submit(c *session.Command) bool {
	if s.Room() <= 0 {
		return false
	}
	var f *flight
	if n := len(s.pool); n > 0 {
		f, s.pool = s.pool[n-1], s.pool[:n-1]
	} else {
		f = &flight{s: s}
		f.run = f.step
	}
	f.over = nil
	f.c, f.stage, f.index, f.sent, f.bytes = c, 0, len(s.flights), s.c.now, len(c.Data)
	s.flights = append(s.flights, f)
	if len(s.flights) == 1 {
		s.heard = s.c.now
	}
	if s.w.Stalls > 0 && s.watch.gen == 0 {
		s.c.at(s.c.now+int64(suspectAfter), &s.watch)
	}
	s.c.at(s.c.now+int64(s.w.Latency/2), &f.event)
	return true
}

// step moves a command on: network, controller, line, network.
func (f *flight) step() {
	s := f.s
	f.stage++
	switch f.stage {
	case 1:
		s.c.at(s.w.serve(), &f.event)
	case 2:
		s.c.at(s.w.resume(s.w.carry(f.bytes)+int64(s.w.Latency/2)), &f.event)
	default:
		s.arrived(f)
	}
}

func (s *simSession) arrived(f *flight) {
	c, took, bytes, over := f.c, s.c.now-f.sent, f.bytes, f.over
	s.drop(f)
	s.heard = s.c.now
	if s.silent {
		s.silent = false
		s.obs.SessionAlive(nil)
	}
	if c != nil {
		c.Err, c.Status, c.Sense, c.Received = nil, scsi.Good, nil, 0
		c.Underflow, c.Overflow, c.Residual = false, false, 0
		s.unit.answer(c)
		c.Owner.CommandDone(c)
		return
	}
	if over != nil {
		bytes = 0 // a write
	}
	s.obs.CommandLate(nil, took, bytes)
	if over != nil {
		over()
	}
}

// drop takes f off the list.
func (s *simSession) drop(f *flight) {
	last := len(s.flights) - 1
	s.flights[f.index] = s.flights[last]
	s.flights[f.index].index = f.index
	s.flights = s.flights[:last]
	f.cancel()
	f.c = nil
	s.pool = append(s.pool, f)
}

// look is what the session does from time to time: see whether the path is
// silent or dead, or lose the connection.
func (s *simSession) look() {
	switch {
	case !s.logged:
		return
	case s.w.Lost > 0:
		s.lose("connection reset")
		return
	}
	now := s.c.now
	quiet := now - s.heard
	if len(s.flights) == 0 {
		return
	}
	if s.w.trouble(now, s.w.Stalls) > 0 {
		switch {
		case quiet >= int64(deadAfter):
			s.lose("nothing received")
			return
		case quiet >= int64(suspectAfter) && !s.silent:
			s.silent = true
			s.obs.SessionSilent(nil)
		}
	}
	next := s.heard + int64(suspectAfter)
	if next <= now {
		next = now + int64(suspectAfter)
	}
	s.c.at(next, &s.watch)
}

func (s *simSession) lose(why string) {
	if !s.logged {
		return
	}
	s.logged, s.silent = false, false
	err := &session.Error{Kind: session.KindTransport, Msg: why, Sent: true}
	s.watch.cancel()
	for n := len(s.flights); n > 0; n = len(s.flights) {
		f := s.flights[n-1]
		c := f.c
		s.drop(f)
		if c != nil {
			c.Err = err
			c.Owner.CommandDone(c)
		}
	}
	again := s.c.now + int64(dialAgain)
	s.c.at(again, &s.loginEvent)
	s.obs.SessionDown(nil, err, again)
}

// Detach implements mpio.Session: reads can be taken back.
func (s *simSession) Detach(c *session.Command) bool {
	for _, f := range s.flights {
		if f.c == c && c.Dir != session.DirWrite {
			f.c = nil
			return true
		}
	}
	return false
}

// DetachWatched implements mpio.Session: writes can be taken back, too.
func (s *simSession) DetachWatched(c *session.Command, over func()) bool {
	for _, f := range s.flights {
		if f.c == c {
			f.c, f.over = nil, over
			return true
		}
	}
	return false
}

// AbortTask implements mpio.Session: the target of the model does not know it.
func (s *simSession) AbortTask(*session.Command, func(session.TMFResult)) bool { return false }

// ResetLUN implements mpio.Session: the target of the model does not know it.
func (s *simSession) ResetLUN(scsi.LUN, func(session.TMFResult)) bool { return false }

// Drop implements mpio.Session.
func (s *simSession) Drop(err *session.Error) { s.c.Post(func() { s.lose(err.Msg) }) }

// RetryNow implements mpio.Session.
func (s *simSession) RetryNow() {}

// Close implements mpio.Session.
func (s *simSession) Close() {
	s.closed = true
	s.c.Post(func() {
		s.lose("closed")
		s.obs.SessionClosed(nil)
	})
}

// Stats implements mpio.Session.
func (s *simSession) Stats() session.Stats { return session.Stats{InFlight: len(s.flights)} }
