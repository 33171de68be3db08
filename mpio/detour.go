package mpio

import (
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/session"
)

// When the portal of a lost path stays dead, its unsettled writes would hold
// back newer ones until FenceTimeout. But what ends a session is a login with
// its ISID to its portal group, through whatever portal (RFC 7143 §6.3.5). So the
// path's own session logs in once through the portal of another path that is up
// (session.Detour), the unit there is checked as after any login, the ghosts
// are settled, and the session goes back to its own portal. No other session is
// touched: the ISID is the lost path's own. A path never carries I/O on a detour.

// When a detour is taken.
const (
	detourAfter = 2 * time.Second // after the loss, or ...
	detourDials = 2               // ... so many failed logins through the own portal
	detourPause = 5 * time.Second // from one detour that settled nothing to the next
	detourRetry = time.Second     // while no other path of the group is up
)

// detourer is a Session that can log in through another portal;
// *session.Session implements it.
type detourer interface {
	Detour(portal string, tpgt int) bool
	Leave()
}

var _ detourer = (*session.Session)(nil)

// detour is what a path knows for it.
type detour struct {
	timer loop.Timer
	// group is the portal group tag of the last session, as the target told it in
	// a login that a later one can provably end; negative: there is none.
	group int
	since int64  // loop time of the loss
	dials int    // logins that failed since
	next  int64  // loop time before which none is taken
	via   string // the portal of the session if it is a detour, else empty
}

func (x *detour) init(p *path) {
	x.group = -1
	x.timer.Fn = p.tryDetour
}

// loggedIn takes note of a login.
func (x *detour) loggedIn(up session.Up) {
	x.via, x.dials = up.Via, 0
	if x.group = -1; up.Conclusive {
		x.group = up.TPGT
	}
}

// lost takes note of a lost session. The first SessionDown after it is no failed login.
func (x *detour) lost(now int64) { x.since, x.dials = now, -1 }

// wantsDetour reports whether a reinstatement would settle anything.
func (p *path) wantsDetour() bool {
	d := p.dev
	if p.logged || p.closed || p.sess == nil || p.detour.group < 0 || d.closeSent {
		return false
	}
	for _, g := range d.ghosts {
		if g.path == p && g.provable(p.chain) {
			return true
		}
	}
	return false
}

// planDetour sets the time for the next look.
func (p *path) planDetour() {
	x := &p.detour
	if !p.wantsDetour() {
		p.dev.loop.StopTimer(&x.timer)
		return
	}
	at := x.since + int64(detourAfter)
	if x.dials >= detourDials {
		at = x.since
	}
	p.dev.loop.SetTimer(&x.timer, max(at, x.next, p.dev.loop.Now()))
}

func (p *path) tryDetour() {
	x := &p.detour
	if !p.wantsDetour() {
		return
	}
	now := p.dev.loop.Now()
	x.next = now + int64(detourRetry)
	if s, ok := p.sess.(detourer); ok {
		if q := p.neighbor(); q != nil && s.Detour(q.cfg.Portal, x.group) {
			x.next = now + int64(detourPause)
		}
	}
	p.planDetour()
}

// relations are portals that the target named together. Equal tags alone prove
// nothing: two hosts that serve one disk under one name, each with a tag 1 of its
// own, know nothing of each other's sessions.
type relations map[[2]string]struct{}

// Relate tells that one answer of the target (SendTargets, RFC 7143 Appendix C)
// named these portals together, as portals of one group. Only through such a
// portal is the session of another one ended; without discovery none is. On the
// loop; it may be called again whenever more is known.
func (d *Device) Relate(portals ...string) {
	if d.related == nil {
		d.related = relations{}
	}
	for _, a := range portals {
		for _, b := range portals {
			if a != b {
				d.related[[2]string{a, b}] = struct{}{}
			}
		}
	}
	for _, p := range d.paths {
		p.planDetour()
	}
}

// neighbor gives a path that is up and whose portal is in the group that p's
// lost session was in, nil if there is none.
func (p *path) neighbor() *path {
	for _, q := range p.dev.paths {
		_, related := p.dev.related[[2]string{p.cfg.Portal, q.cfg.Portal}]
		if q != p && related && q.usable() && q.state == StateUp && q.detour.group == p.detour.group && q.cfg.Target == p.cfg.Target {
			return q
		}
	}
	return nil
}

// leaveDetour goes back to the own portal. why is what the detour came to.
func (p *path) leaveDetour(why string) {
	p.stopCheck()
	p.logged, p.verified, p.silent = false, false, false
	p.refresh(why+" through "+p.detour.via+"; its own portal is dialed", nil)
	if p.dev.watch != nil {
		p.dev.watch.left(p)
	}
	p.sess.(detourer).Leave()
}

// detourOver is SessionDown at the end of a detour.
func (p *path) detourOver() {
	p.stopCheck()
	if p.logged { // it was lost, rather than left
		p.logged, p.verified, p.silent = false, false, false
		p.refresh("the login through another portal was lost; its own is dialed", nil)
	}
	p.detour.via = ""
	p.planDetour()
	p.dev.kick()
}
