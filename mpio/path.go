package mpio

import (
	"fmt"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// State is the state of a path.
type State uint8

// The states. docs/recovery.md says what leads from one to another.
const (
	StateConnecting  State = iota // the first login is under way
	StateChecking                 // logged in; what is behind it is being looked at
	StateUp                       // carries I/O
	StateSuspect                  // silent with commands in flight: used only if nothing better is there
	StateMarginal                 // slow or erring outlier: used before suspect ones only
	StateStandby                  // told to wait by the target or by hand
	StateDown                     // the session is lost, or the check failed
	StateQuarantined              // leads to another unit: never read nor written
	StateOffline                  // taken out by hand
)

var stateNames = [...]string{
	StateConnecting: "connecting", StateChecking: "checking", StateUp: "up", StateSuspect: "suspect",
	StateMarginal: "marginal", StateStandby: "standby", StateDown: "down",
	StateQuarantined: "quarantined", StateOffline: "offline",
}

// String is the name used in tables and JSON.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state-%d", uint8(s))
}

// MarshalText gives the name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Ramp and queue limits of a path, in commands in flight.
const (
	rampStart = 2   // a path that just came up starts here and earns one more with each success
	rampDone  = 128 // ... until it may have as many as its session takes
	capRaise  = 64  // successes that raise the limit after TASK SET FULL by one
	capDone   = 512 // the limit ends here
)

// path is one way to the unit. It implements session.Observer.
type path struct {
	dev  *Device
	cfg  PathConfig
	bit  uint64
	sess Session

	// What is known; state is derived from it.
	logged      bool // the session takes commands
	verified    bool // the unit behind it is the device's, as far as known now
	looks       int  // times it was looked at, or was to be: what rests on an earlier one is late
	silent      bool
	offline     bool
	quarantined bool
	partial     bool // checked as far as its access state allows: see alua.go
	introduced  bool // the unit was checked since the last login
	met         bool // ... since the device was made
	resized     bool // the target said by 2A/09, after that, that the unit was resized
	expectReset bool // the device had the unit reset, which will be reported
	protected   bool // the unit is write protected here
	failedCheck bool // the last check failed; it will be repeated
	everLogged  bool // a login was tried to its end
	closed      bool

	linkErr *session.Error // why the session was lost last
	lost    string         // the same in words, of a session that was logged in
	lostAt  int64          // loop time of that
	cleared int64          // loop time when a unit attention last told that commands in flight were ended, 0: never

	state  State
	reason string
	since  int64
	gen    uint64 // successful logins
	chain  uint64 // login since when each one proved the end of the one before

	inflight    int
	transfer    ioList // reads and writes in flight, oldest first
	other       ioList // slow commands in flight, oldest first
	queued      [2]int // bytes in flight, by direction
	ramp        int    // most commands in flight while starting, 0 = unlimited
	limit       int    // most commands in flight after TASK SET FULL, 0 = unlimited
	good        int    // successes since limit was last changed
	rr          int    // round-robin credit
	carried     bool   // I/O since it failed last
	lapsed      bool   // it carried I/O, then failed: see failback
	service     service
	cost        cost // scratch of the latency policy
	scout       scout
	answered    int64 // loop time of the last answer to a read or write
	trusted     int64 // loop time since when it is verified: what was sent before is not trusted
	loginAt     int64 // loop time of the last login
	wellAt      int64 // loop time when the last command was sent of those that succeeded
	listed      bool  // to be noted for a restart; see remember.go
	unproven    bool  // a login left open whether the session before it ended
	relic       bool  // stands for a session of an earlier process: in no list of paths
	raised      int   // ghosts of commands lost with the session, not told of yet
	lateAnswers int   // to moved writes, not told of yet

	mutedRetries, mutedFailures muted
	flaps                       flapLog

	size    scsi.Capacity // what the last check that passed showed
	smaller scsi.Capacity // less than the device has, by the target's word; see resize.go

	check  check
	detour detour
	rsv    pathReserve
	hedge  pathHedge
	probe  prober
	health health
	access access
	query  portQuery
	esc    escalation
	est    [2]estimate
	stat   pathStats
}

// usable reports whether commands may be sent over p at all.
func (p *path) usable() bool {
	return p.logged && p.verified && !p.offline && !p.quarantined && !p.closed && p.detour.via == "" && !p.access.held()
}

// trusts reports whether the answer to o comes from the device's unit: p is verified, and was all
// the time since o was sent.
func (p *path) trusts(o *io) bool { return p.verified && o.sentAt >= p.trusted }

// derive computes the state.
func (p *path) derive() State {
	switch {
	case p.closed:
		return StateDown
	case p.quarantined:
		return StateQuarantined
	case p.offline:
		return StateOffline
	case !p.logged && p.everLogged:
		return StateDown
	case !p.logged:
		return StateConnecting
	case !p.verified && p.failedCheck:
		return StateDown
	case p.detour.via != "":
		return StateChecking
	case p.access.held() && (p.verified || p.partial):
		return StateStandby
	case !p.verified:
		return StateChecking
	case p.silent:
		return StateSuspect
	case p.health.marginal:
		return StateMarginal
	}
	return StateUp
}

// refresh recomputes the state after something changed; why says what, err is
// the cause if it is an error.
func (p *path) refresh(why string, err error) {
	s := p.derive()
	changed := s != p.state
	switch s {
	case StateMarginal:
		why, err = p.health.why, nil
	case StateStandby:
		why, err = p.access.describe(p.dev.loop.Now()), nil
	}
	if !changed && (s == StateQuarantined || s == StateOffline) {
		return // what the link does meanwhile is not why it is out of use
	}
	if changed || why != p.reason {
		if changed {
			p.since = p.dev.loop.Now()
		}
		tell := (changed || s == StateDown || s == StateQuarantined) && !p.relic
		p.state, p.reason = s, why
		if tell {
			kind := s.event()
			if p.health.silences(s) {
				kind = PathChanged
			}
			if p.closed {
				kind = PathClosed
			}
			p.dev.emit(Event{Kind: kind, Path: p.cfg.ID, State: s, Text: why, Err: err})
		}
	}
	if changed {
		p.dev.regroup()
	}
}

// event is the kind of event that tells of entering s.
func (s State) event() EventKind {
	switch s {
	case StateUp:
		return PathUp
	case StateSuspect:
		return PathSuspected
	case StateMarginal:
		return PathMarginal
	case StateDown:
		return PathDown
	case StateQuarantined:
		return PathQuarantined
	}
	return PathChanged
}

// SessionUp implements session.Observer.
func (p *path) SessionUp(_ *session.Session, up session.Up) {
	d := p.dev
	p.gen++
	p.loginAt = d.loop.Now()
	p.logged, p.everLogged, p.silent, p.verified, p.failedCheck, p.partial = true, true, false, false, false, false
	p.introduced, p.resized, p.expectReset, p.smaller = false, false, false, scsi.Capacity{}
	p.access.forget()
	p.ramp, p.limit, p.esc, p.hedge = rampStart, 0, escalation{}, pathHedge{away: p.hedge.away}
	p.stat.logins++
	if !up.Reinstated && (!up.First || !up.Conclusive || up.TPGT != p.detour.group) {
		// A login that proves nothing may have left its predecessor alive, that of
		// an earlier process too, and no later proof reaches back behind it.
		p.chain = p.gen
		p.unprove(up)
	}
	p.detour.loggedIn(up)
	why := "logged in"
	if !up.First {
		why = "logged in again"
		if !up.Reinstated {
			why += "; the target gave no proof that the old session ended"
		}
	}
	if up.Via != "" {
		why += " through " + up.Via + ", to end the old session"
	}
	p.refresh(why+": checking the unit behind it", nil)
	p.startCheck("logged in")
	d.kick()
}

// settleReinstated settles what was lost with earlier sessions of p that later
// logins have ended. It waits for the check of the unit: a login that another
// device answers, where an address has moved, ends nothing on the first one.
func (p *path) settleReinstated() {
	if p.dev.watch != nil {
		p.dev.watch.checked(p)
	}
	why := "the session was reinstated, which ended every command of the old one"
	if p.detour.via != "" {
		why = "the session was reinstated through " + p.detour.via + ", which ended every command of the old one"
	}
	p.dev.settle(p, byLogin, why,
		func(g *ghost) bool { return g.path == p && g.provable(p.chain) && g.gen < p.gen })
}

// linkLost notes that the session takes no commands any more. It comes with the
// first command that failed with the session, before SessionDown.
func (p *path) linkLost(err *session.Error) {
	if !p.logged {
		return
	}
	p.logged, p.verified, p.silent = false, false, false
	p.dev.noteCut()
	p.stopCheck()
	p.fault()
	p.stat.losses++
	p.detour.lost(p.dev.loop.Now())
	p.dev.startClocks(p)
	p.linkErr = err
	p.lost, p.lostAt = err.Error(), p.dev.loop.Now()
	p.refresh(p.lost, err)
}

// SessionDown implements session.Observer.
func (p *path) SessionDown(_ *session.Session, err *session.Error, _ int64) {
	if p.detour.via != "" {
		p.detourOver()
		return
	}
	p.everLogged = true
	if p.logged {
		p.linkLost(err)
	} else {
		p.stopCheck()
		p.linkErr = err
		p.refresh(err.Error(), err)
	}
	if n := p.raised; n > 0 {
		p.raised = 0
		p.dev.emit(Event{
			Kind: FenceRaised, Path: p.cfg.ID, Count: n,
			Text: fmt.Sprintf("%s of unknown outcome: newer writes to the same blocks wait until that is settled", counted(n, "write")),
		})
	}
	p.detour.dials++
	p.planDetour()
	p.planPreempt()
	p.dev.kick()
}

// SessionSilent implements session.Observer.
func (p *path) SessionSilent(*session.Session) {
	if !p.logged || p.silent {
		return
	}
	p.silent = true
	if !p.verified || p.offline || p.quarantined {
		return
	}
	now := p.dev.loop.Now()
	p.stalled(now, p.age(now))
	p.refresh("nothing received although commands are in flight", nil)
	p.dev.kick()
}

// SessionAlive implements session.Observer.
func (p *path) SessionAlive(*session.Session) {
	if !p.silent {
		return
	}
	p.silent = false
	if p.logged && p.verified && !p.offline && !p.quarantined {
		p.refresh("answers again", nil)
	}
	p.dev.kick()
}

// SessionChanged implements session.Observer: there may be room again.
func (p *path) SessionChanged(*session.Session) { p.dev.kick() }

// SessionClosed implements session.Observer.
func (p *path) SessionClosed(*session.Session) {
	if p.closed {
		return
	}
	p.closed, p.logged, p.verified, p.silent = true, false, false, false
	p.dev.startClocks(p)
	p.stopCheck()
	p.planDetour()
	p.refresh("closed", nil)
	p.dev.closeStep()
}

// take notes that o was handed to the session.
func (p *path) take(o *io, now int64) {
	o.path, o.sentAt = p, now
	o.met = traffic{p.inflight, p.queued[o.dir()], o.bytes}
	p.inflight++
	p.dev.load.Sent()
	p.queued[o.dir()] += o.bytes
	if o.kind.slow() {
		p.other.pushBack(o)
	} else {
		p.transfer.pushBack(o)
	}
}

// land notes that o is no longer with the session.
func (p *path) land(o *io) {
	p.inflight--
	p.dev.load.Answered()
	p.queued[o.dir()] -= o.bytes
	o.list.remove(o)
	o.path = nil
}

// dir is the index of estimates and byte counts: 0 for reads, 1 for the rest.
func (o *io) dir() int {
	if o.kind == kindRead {
		return 0
	}
	return 1
}

// succeeded updates limits and estimates after o was answered well.
func (p *path) succeeded(o *io, now, took int64) {
	p.wellAt = max(p.wellAt, o.sentAt)
	if !o.kind.slow() {
		p.est[o.dir()].add(now, took, o.met)
		if took >= p.dev.stallLimit {
			p.stalled(now, took)
		}
		p.answered = now
		p.service.add(now, o.sentAt)
	}
	p.stat.done(o, now, took)
	if p.ramp > 0 {
		if p.ramp++; p.ramp >= rampDone {
			p.ramp = 0
		}
	}
	if p.limit > 0 {
		if p.good++; p.good >= capRaise {
			p.good = 0
			if p.limit++; p.limit >= capDone {
				p.limit = 0
			}
		}
	}
}

// throttle lowers the limit after TASK SET FULL.
func (p *path) throttle() {
	p.limit, p.good = max(1, p.inflight*3/4), 0
}

// age is how long the oldest read or write has waited that the target has not
// answered, as far as is known; 0 if there is none. A read that was hedged and
// taken back counts, so that a path does not look well for having lost it.
func (p *path) age(now int64) int64 {
	since := p.hedge.unseen
	if o := p.transfer.head; o != nil && (since == 0 || o.sentAt < since) {
		since = o.sentAt
	}
	if since == 0 {
		return 0
	}
	return now - since
}
