package mpio

import (
	"fmt"
	"time"

	"github.com/iscsimp/iscsimp/session"
)

// What is done about a command that grows too old although the peer is alive
// (RFC 7143 §7.11): ABORT TASK; where Config.LUNReset allows it LOGICAL UNIT
// RESET; and at last the session is dropped. Each step is bounded by the session
// and told by an event. A command that was ended by one of the first two is
// settled: a write is sent again without a ghost.

// escalation is the step under way on a path; one at a time.
type escalation struct {
	busy    bool
	cleared bool // the command is asked about because the target ended commands
	o       *io
	sentAt  int64 // with o it names the attempt: ios are used again
}

// there reports whether the command is still with the path's session.
func (e *escalation) there(p *path) bool { return e.o.path == p && e.o.sentAt == e.sentAt }

// clearedPatience is how long a command that a function of another session may have
// ended, without an answer to this one, goes on waiting for one.
const clearedPatience = time.Second

// clearedAt is when commands in flight on the path were ended last without an answer,
// as far as known: by this device's reset of the unit over another path, or by another
// host, which a unit attention told.
func (p *path) clearedAt() int64 { return max(p.dev.resetAt, p.cleared) }

// tooOld gives a command that is older than it may get, or that was ended, and which
// of the two; or nil.
func (p *path) tooOld(now int64) (o *io, cleared bool) {
	limit, ended := int64(p.dev.cfg.CommandTimeout), p.clearedAt()
	for _, l := range []struct {
		list  *ioList
		limit int64
	}{{&p.transfer, limit}, {&p.other, 4 * limit}} {
		o := l.list.head
		switch {
		case o == nil:
		case now-o.sentAt >= l.limit:
			return o, false
		case o.sentAt < ended && now-ended >= int64(clearedPatience):
			return o, true
		}
	}
	return nil, false
}

// overdue begins to end a command in flight that is older than it may get, or makes
// sure that one is over which the target seems to have ended.
func (p *path) overdue(now int64) {
	if p.esc.busy || !p.logged {
		return
	}
	o, cleared := p.tooOld(now)
	if o == nil {
		return
	}
	err := &session.Error{
		Kind: session.KindTimeout, Portal: p.cfg.Portal,
		Msg:  fmt.Sprintf("%v was not answered for %v although the peer is alive", o.kind, time.Duration(now-o.sentAt).Round(time.Millisecond)),
		Hint: "the target's storage may hang: see its log",
	}
	if cleared {
		err.Hint = "commands to the unit were ended by a reset, or by another host"
	} else {
		p.stat.timeouts++
		p.health.timedOut = max(now, 1)
		p.dev.emit(Event{Kind: CommandTimedOut, Path: p.cfg.ID, State: p.state, Text: err.Msg, Err: err})
	}
	p.esc = escalation{busy: true, cleared: cleared, o: o, sentAt: o.sentAt}
	p.stat.aborts++
	gen := p.gen
	if !p.sess.AbortTask(&o.cmd, func(r session.TMFResult) {
		if p.gen == gen {
			p.abortDone(r, err)
		}
	}) {
		p.stat.aborts--
		p.resetUnit(err)
	}
}

// abortDone goes on after ABORT TASK.
func (p *path) abortDone(r session.TMFResult, why *session.Error) {
	switch {
	case r.Ended():
		what := "was too old"
		if p.esc.cleared {
			what = "a reset or another host had cleared, without an answer"
		}
		p.dev.emit(Event{Kind: CommandAborted, Path: p.cfg.ID, State: p.state, Text: "the target ended a command that " + what + ": " + r.String()})
		p.escalated()
	case !p.logged || !p.esc.there(p): // lost with the session, or answered after all
		p.escalated()
	default:
		p.dev.emit(Event{Kind: AbortFailed, Path: p.cfg.ID, State: p.state, Text: r.String(), Err: failure(r)})
		p.resetUnit(why)
	}
}

// resetUnit resets the unit, if that is allowed: it ends what other hosts have in
// flight as well. What another host's reset cleared is no reason for one: the two
// would go on resetting it for each other.
func (p *path) resetUnit(why *session.Error) {
	d, gen := p.dev, p.gen
	done := func(r session.TMFResult) {
		if p.gen == gen {
			p.resetDone(r, why)
		}
	}
	if d.cfg.LUNReset && !d.cfg.Shared && !p.esc.cleared && p.sess.ResetLUN(d.cfg.LUN, done) {
		p.stat.resets++
		d.emit(Event{Kind: UnitReset, Path: p.cfg.ID, State: p.state, Text: "resetting the unit: " + why.Msg})
		return
	}
	p.dropFor(why)
}

// resetDone goes on after the LUN reset. What this session had in flight is over;
// what others had is too, but they learn by ABORT TASK only.
func (p *path) resetDone(r session.TMFResult, why *session.Error) {
	switch {
	case r.Ended():
		p.dev.resetAt = p.dev.loop.Now()
		for _, q := range p.dev.paths {
			q.expectReset = q.logged
		}
		p.dev.emit(Event{Kind: CommandAborted, Path: p.cfg.ID, State: p.state, Text: "the unit was reset, which ended every command to it"})
		p.escalated()
	case !p.logged || !p.esc.there(p):
		p.escalated()
	default:
		p.dev.emit(Event{Kind: AbortFailed, Path: p.cfg.ID, State: p.state, Text: r.String(), Err: failure(r)})
		p.dropFor(why)
	}
}

// dropFor is the last step.
func (p *path) dropFor(why *session.Error) {
	p.esc = escalation{busy: true} // until the next login: dropping once is enough
	p.sess.Drop(why)
}

// escalated ends an escalation, and looks for the next command that is too old.
func (p *path) escalated() {
	p.esc = escalation{}
	p.overdue(p.dev.loop.Now())
}

// failure is the error of a function that failed, nil if the target refused it.
func failure(r session.TMFResult) error {
	if r.Err == nil {
		return nil
	}
	return r.Err
}

// abortOr has a command of our own aborted that is not answered. If that cannot be asked
// for, or does not end it, while it is still waited for in the same session, otherwise is called.
func (p *path) abortOr(c *session.Command, waits func() bool, otherwise func()) {
	gen := p.gen
	if !p.sess.AbortTask(c, func(r session.TMFResult) {
		if p.gen == gen && waits() && !r.Ended() {
			otherwise()
		}
	}) {
		otherwise()
	}
}
