package mpio

import (
	"slices"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// fakeSession is a Session to a fakeUnit, with a line and a target that can be
// made slow, silent, lossy and dishonest. What it stands in for is checked
// where it matters: buffers are not touched after a command came back.
type fakeSession struct {
	l    *fakeLoop
	unit *fakeUnit
	obs  session.Observer
	cfg  PathConfig

	rec   *recorder // nil: none
	index int       // of the path

	room       int          // commands taken at once
	delay      func() int64 // service time of a command
	serial     bool         // one command at a time
	hold       bool         // the target answers nothing
	honest     bool         // a login ends the session before it
	loginTakes int64
	loginFails bool
	intercept  func(cdb scsi.CDB) (answer, bool) // answers instead of the unit
	poison     func(cdb scsi.CDB) bool           // commands that kill the session
	rises      func(*flight)                     // told of each new zombie
	aborts     string                            // see AbortTask
	resets     string
	functions  []pdu.TMFunction
	group      int    // portal group
	via        string // logging in, or logged in, through another portal
	viaFails   bool
	detours    []string
	dataWaits  bool // data of writes is still to be sent
	unsent     bool // a cut catches commands before they leave

	logged, started, closed, isSilent bool
	flights                           []*flight
	zombies                           []*flight  // sent with a session since lost; the target may still execute them
	planned                           *fakeEvent // the next login
	logins, drops, detached, retries  int
	busyUntil                         int64
}

// flight is a command on its way.
type flight struct {
	c    *session.Command // nil: taken back
	cdb  scsi.CDB
	data []byte // of writes, as it left this host
	gen  int
	done *fakeEvent

	at    int64
	bytes int    // of a read
	over  func() // of a command that was taken back
}

func (s *fakeSession) Start() {
	s.started = true
	s.planLogin(s.loginTakes)
}

// login tries to log in.
func (s *fakeSession) login() {
	switch {
	case s.closed || s.logged:
	case s.loginFails && s.via == "", s.viaFails && s.via != "":
		s.via = ""
		retry := s.l.now + 1e8
		s.planLogin(1e8)
		s.obs.SessionDown(nil, &session.Error{Kind: session.KindTransport, Msg: "cannot connect"}, retry)
	default:
		s.logins++
		s.logged = true
		s.rec.loggedIn(s.index, s.honest)
		up := session.Up{First: s.logins == 1, TSIH: 1, TPGT: s.group, Via: s.via}
		if s.honest { // ends the session before it, and no other
			up.Reinstated, up.Conclusive = !up.First, true
			s.zombies = slices.DeleteFunc(s.zombies, func(f *flight) bool { return f.gen == s.logins-1 })
		}
		s.obs.SessionUp(nil, up)
	}
}

func (s *fakeSession) Room() int {
	if !s.logged {
		return 0
	}
	return max(0, s.room-len(s.flights))
}

func (s *fakeSession) Submit(c *session.Command) bool {
	if s.Room() == 0 {
		return false
	}
	f := &flight{c: c, cdb: c.CDB, gen: s.logins}
	f.at = s.l.now
	switch c.Dir {
	case session.DirWrite:
		f.data = slices.Clone(c.Data)
	case session.DirRead:
		f.bytes = len(c.Data)
	}
	s.rec.flew(s.index, f, "send")
	s.flights = append(s.flights, f)
	took := s.delay()
	if s.serial {
		s.busyUntil = max(s.busyUntil, s.l.now) + took
		took = s.busyUntil - s.l.now
	}
	f.done = s.l.after(took, func() { s.arrive(f) })
	return true
}

// arrive executes a command whose time has come, unless the target holds it.
func (s *fakeSession) arrive(f *flight) {
	if s.poison != nil && s.poison(f.cdb) {
		s.cut(3 * sec)
		return
	}
	if s.hold {
		f.done = nil
		return
	}
	s.complete(f)
}

func (s *fakeSession) complete(f *flight) {
	i := slices.Index(s.flights, f)
	if i < 0 {
		return
	}
	if s.isSilent {
		s.isSilent = false
		s.obs.SessionAlive(nil)
	}
	s.flights = slices.Delete(s.flights, i, i+1)
	if f.c == nil {
		s.obs.CommandLate(nil, s.l.now-f.at, f.bytes)
	}
	buf := f.data
	if f.c != nil && f.c.Dir != session.DirWrite {
		buf = f.c.Data
	}
	a, ok := answer{}, false
	if s.intercept != nil {
		a, ok = s.intercept(f.cdb)
	}
	if !ok {
		a = s.unit.do(f.cdb, buf)
	}
	s.recordAnswer(f, !ok)
	if f.over != nil {
		f.over()
	}
	if c := f.c; c != nil {
		c.Status, c.Sense, c.Received = a.status, a.sense, a.received
		c.Underflow, c.Overflow, c.Residual = a.under, a.over, a.residual
		c.Owner.CommandDone(c)
	}
}

// recordAnswer notes what became of a command.
func (s *fakeSession) recordAnswer(f *flight, executed bool) {
	step := "again"
	switch {
	case executed && f.c != nil:
		step = "execute"
	case executed:
		step = "executeLate"
	case f.c == nil:
		step = "drop"
	}
	s.rec.flew(s.index, f, step)
}

// release lets the target go on after hold.
func (s *fakeSession) release() {
	s.hold = false
	for _, f := range slices.Clone(s.flights) {
		if f.done == nil {
			s.complete(f)
		}
	}
}

// silence tells the observer what SuspectAfter tells a real session.
func (s *fakeSession) silence() {
	s.isSilent = true
	s.obs.SessionSilent(nil)
}

// cut loses the session; it logs in again after a while.
func (s *fakeSession) cut(again int64) {
	s.lose(&session.Error{Kind: session.KindTransport, Portal: s.cfg.Portal, Msg: "connection reset"}, again)
}

func (s *fakeSession) lose(why *session.Error, again int64) {
	if !s.logged {
		return
	}
	s.logged, s.isSilent = false, false
	e := *why
	e.Sent = !s.unsent
	s.rec.lost(s.index, e.Sent)
	flights := s.flights
	s.flights = nil
	for _, f := range flights {
		if f.done != nil {
			f.done.dead = true
		}
		if e.Sent && f.data != nil {
			s.zombies = append(s.zombies, f)
			if s.rises != nil {
				s.rises(f)
			}
		}
	}
	for _, f := range flights {
		if f.c != nil {
			f.c.Err = &e
			f.c.Owner.CommandDone(f.c)
		}
	}
	if s.closed {
		return
	}
	s.via = ""
	s.planLogin(again)
	s.obs.SessionDown(nil, &e, s.l.now+again)
}

// planLogin logs in after a while, instead of whatever was planned.
func (s *fakeSession) planLogin(after int64) {
	if s.planned != nil {
		s.planned.dead = true
	}
	s.planned = s.l.after(after, s.login)
}

// Detour logs in through another portal, which is as honest as the own one.
func (s *fakeSession) Detour(portal string, _ int) bool {
	if s.logged || s.closed {
		return false
	}
	s.via = portal
	s.detours = append(s.detours, portal)
	s.planLogin(s.loginTakes)
	return true
}

func (s *fakeSession) Leave() {
	s.l.after(1e6, func() { s.lose(&session.Error{Kind: session.KindClosed, Msg: "the detour is over"}, 1e8) })
}

// wakeIf executes f if no login has ended it.
func (s *fakeSession) wakeIf(f *flight) {
	if i := slices.Index(s.zombies, f); i >= 0 {
		s.wake(i)
	}
}

// wake executes a command of a session that is long lost, as a target that hung does.
func (s *fakeSession) wake(i int) {
	f := s.zombies[i]
	s.zombies = slices.Delete(s.zombies, i, i+1)
	s.rec.flew(s.index, f, "executeLate")
	s.unit.do(f.cdb, f.data)
}

func (s *fakeSession) Detach(c *session.Command) bool { return s.DetachWatched(c, nil) }

func (s *fakeSession) DetachWatched(c *session.Command, over func()) bool {
	for _, f := range s.flights {
		if f.c == c && (f.data == nil || !s.dataWaits) {
			f.c, f.over = nil, over
			s.detached++
			return true
		}
	}
	return false
}

// AbortTask does what the field aborts says: "" refuses to be asked, "ok" ends the
// command, "no" refuses, "never" does not answer for 15 s.
func (s *fakeSession) AbortTask(c *session.Command, done func(session.TMFResult)) bool {
	return s.function(s.aborts, pdu.TMAbortTask, done, func(f *flight) bool { return f.c == c })
}

// ResetLUN does what the field resets says.
func (s *fakeSession) ResetLUN(_ scsi.LUN, done func(session.TMFResult)) bool {
	return s.function(s.resets, pdu.TMLUNReset, done, func(*flight) bool { return true })
}

func (s *fakeSession) function(how string, fn pdu.TMFunction, done func(session.TMFResult), ends func(*flight) bool) bool {
	if how == "" || !s.logged {
		return false
	}
	s.functions = append(s.functions, fn)
	gen, took := s.logins, int64(1e6)
	if how == "never" {
		took = 15e9
	}
	s.l.after(took, func() {
		r := session.TMFResult{Function: fn}
		switch {
		case !s.logged || s.logins != gen:
			r.Err = &session.Error{Kind: session.KindTransport, Sent: true}
		case how == "never":
			r.Err = &session.Error{Kind: session.KindTimeout, Sent: true}
		case how == "no":
			r.Response = pdu.TMUnsupported
		default:
			s.abort(ends)
		}
		done(r)
	})
	return true
}

// abort ends flights as settled.
func (s *fakeSession) abort(ends func(*flight) bool) {
	for _, f := range slices.Clone(s.flights) {
		if !ends(f) {
			continue
		}
		s.flights = slices.DeleteFunc(s.flights, func(x *flight) bool { return x == f })
		if f.done != nil {
			f.done.dead = true
		}
		s.recordAnswer(f, false)
		if f.c != nil {
			f.c.Err = &session.Error{Kind: session.KindAborted, Sent: true, Settled: true}
			f.c.Owner.CommandDone(f.c)
		} else if f.over != nil {
			f.over()
		}
	}
}

func (s *fakeSession) Drop(err *session.Error) {
	if !s.logged {
		return
	}
	s.drops++
	s.l.after(0, func() { s.lose(err, 1e8) })
}

func (s *fakeSession) RetryNow() {
	s.retries++
	if s.started && !s.logged && !s.closed {
		s.l.after(0, s.login)
	}
}

func (s *fakeSession) Close() {
	if s.closed {
		return
	}
	s.closed = true
	s.l.after(1e6, func() {
		s.lose(&session.Error{Kind: session.KindClosed, Msg: "the session was closed"}, 0)
		s.obs.SessionClosed(nil)
	})
}

func (s *fakeSession) Stats() session.Stats { return session.Stats{InFlight: len(s.flights)} }
