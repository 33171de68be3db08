package mpio

import (
	"fmt"
	"time"

	"github.com/iscsimp/iscsimp/scsi"
)

// Asymmetric logical unit access (SPC-4 §5.16.2). A target with several
// controllers says for each group of its ports how well the unit can be reached
// through it. What a path knows of its own group it has from its own session
// only: from REPORT TARGET PORT GROUPS asked through it, or from the sense data
// of a command that was refused. What another path hears of the group makes this
// one ask, no more: controllers may differ in what they say of each other.

// Times of asymmetric access.
const (
	transitionDefault = 60 * time.Second // how long a transition may take where the target does not say
	accessInterval    = time.Minute      // between two questions while all is well
	accessAnxious     = time.Second      // ... while no path carries I/O
	accessPaceFirst   = 50 * time.Millisecond
	accessPaceLast    = 500 * time.Millisecond // between two questions during a transition
	accessSettled     = 10 * time.Second       // a state that lasts for so long is not questioned any more
	accessDoubtFirst  = 10 * time.Millisecond  // before the target is believed again after it refused, doubled each time
	accessDoubtLast   = 10 * time.Second
)

// access is what is known of the access state of a path's target port.
type access struct {
	tpgs      uint8 // of INQUIRY: scsi.TPGSImplicit and its like; 0: access is symmetric
	known     bool  // the state was told
	state     scsi.AccessState
	preferred bool
	grouped   bool   // group is known
	group     uint16 // target port group
	port      uint16 // relative target port, 0: not known
	ready     bool   // the group can become optimized by SET TARGET PORT GROUPS
	since     int64  // loop time of the last change of state
	limit     time.Duration
	refusals  int   // times a command was refused soon after the target had said the state was fine
	refusedAt int64 // loop time of the last refusal
	otherwise bool  // the last list named a group that carries or will carry I/O
}

// held reports that the target keeps the path from carrying I/O.
func (a *access) held() bool { return a.tpgs != 0 && a.known && !a.state.Usable() }

// mute reports that the target takes no commands about reservations over the path,
// either: in standby it does (SPC-4 §5.16.2.4).
func (a *access) mute() bool { return a.held() && a.state != scsi.AccessStandby }

// inTransition reports a transition that may still be under way. Past its
// deadline it counts as a state like "unavailable".
func (a *access) inTransition(now int64) bool {
	return a.tpgs != 0 && a.known && a.state == scsi.AccessTransitioning && now-a.since < int64(a.limit)
}

// rank orders access states by how gladly they are used. Optimized groups are
// equals, whichever the target prefers: several may share the load.
func (a *access) rank() int {
	switch {
	case a.tpgs == 0 || !a.known || a.state == scsi.AccessOptimized:
		return 4
	case a.state == scsi.AccessLBADependent:
		return 3
	case a.state == scsi.AccessNonOptimized && a.preferred:
		return 2
	case a.state == scsi.AccessNonOptimized:
		return 1
	}
	return 0
}

// rank orders paths by how gladly they are used: by state, then by access state.
// 0 is not at all.
func (p *path) rank() int {
	r := p.state.rank()
	if r == 0 {
		return 0
	}
	return r<<3 | p.access.rank()
}

// describe says in words what keeps a path from carrying I/O.
func (a *access) describe(now int64) string {
	where := "its target port group"
	if a.grouped {
		where = fmt.Sprintf("its target port group %d", a.group)
	}
	switch {
	case a.state != scsi.AccessTransitioning:
		return fmt.Sprintf("the target says that %s is %v", where, a.state)
	case a.inTransition(now):
		return fmt.Sprintf("%s is changing its access state, which may take %v", where, a.limit)
	}
	return fmt.Sprintf("%s has been changing its access state for longer than %v", where, a.limit)
}

// forget drops what an earlier login told. What the unit is and where the path
// leads stays known, for the reader.
func (a *access) forget() {
	a.known, a.ready, a.otherwise = false, false, false
	a.refusals, a.limit = 0, transitionDefault
}

// accessRefusal gives the access state that sense data tells of.
func accessRefusal(s scsi.Sense) (scsi.AccessState, bool) {
	switch s.Key {
	case scsi.KeyNotReady, scsi.KeyUnitAttention, scsi.KeyIllegalRequest, scsi.KeyAbortedCommand:
	default:
		return 0, false
	}
	switch s.Code {
	case scsi.ASCALUATransition:
		return scsi.AccessTransitioning, true
	case scsi.ASCALUAStandby:
		return scsi.AccessStandby, true
	case scsi.ASCALUAUnavailable:
		return scsi.AccessUnavailable, true
	}
	return 0, false
}

// refused notes that the access state of p made the target refuse a command; it
// reports whether that is what s says. The target is asked what the state is.
func (p *path) refused(s scsi.Sense) bool {
	state, ok := accessRefusal(s)
	a := &p.access
	if !ok || a.tpgs == 0 {
		return false
	}
	now := p.dev.loop.Now()
	if a.held() && a.state == state {
		return true // one of many commands that were on their way
	}
	if now-a.refusedAt > int64(accessSettled) {
		a.refusals = 0
	}
	a.refusals++
	a.refusedAt = now
	p.setAccess(state, a.preferred)
	p.query.soon(a.doubt())
	return true
}

// doubt is how long after a refusal the target is not believed that all is well:
// with a second one it says one thing and does another.
func (a *access) doubt() time.Duration {
	if a.refusals <= 1 {
		return 0
	}
	return min(accessDoubtFirst<<min(a.refusals-2, 10), accessDoubtLast)
}

// untold notes that the target does not tell the access state of p: it does not
// know the question, or its list has no group for p. Where p is kept from carrying I/O
// for what it was told once, it would be for ever; so that is tried again, after
// pauses that grow with each refusal.
func (p *path) untold() {
	a, d := &p.access, p.dev
	if !a.held() {
		return
	}
	if left := a.refusedAt + int64(a.doubt()) - d.loop.Now(); left > 0 {
		p.query.soon(time.Duration(left))
		return
	}
	a.known = false
	p.serve("the target does not tell the access state of its port: it is tried again")
	d.regroup()
	d.kick()
}

// serve has a path carry I/O that its access state kept from it.
func (p *path) serve(why string) {
	switch {
	case p.partial: // the check can see now what it could not before
		p.partial = false
		p.refresh(why+": checking the unit behind it", nil)
		p.startCheck("the access state changed")
	case p.verified:
		p.refresh(why, nil)
	}
}

// told takes the target's list of groups as p heard it.
func (p *path) told(list *scsi.PortGroups, spread bool) {
	a := &p.access
	g, ok := scsi.PortGroupState{}, false
	if a.port != 0 {
		g, ok = list.FindPort(a.port)
	}
	if !ok && a.grouped {
		g, ok = list.Find(a.group)
	}
	a.limit = transitionDefault
	if list.TransitionSeconds > 0 {
		a.limit = time.Duration(list.TransitionSeconds) * time.Second
	}
	a.otherwise = false
	for _, other := range list.Groups {
		a.otherwise = a.otherwise || other.State.Usable() || other.State == scsi.AccessTransitioning
	}
	if ok {
		a.group, a.grouped = g.Group, true
		a.ready = g.CanBecome(scsi.AccessOptimized)
		p.setAccess(g.State, g.Preferred)
	} else {
		p.untold()
	}
	if spread {
		p.spread(list)
	}
}

// spread has the other paths ask whose groups are not what they were told.
func (p *path) spread(list *scsi.PortGroups) {
	for _, q := range p.dev.paths {
		a := &q.access
		if q == p || a.tpgs == 0 || !a.known || !a.grouped || q.cfg.Target != p.cfg.Target {
			continue
		}
		g, ok := list.Find(a.group)
		if ok && (g.State != a.state || g.Preferred != a.preferred) {
			q.query.confirm()
		}
	}
}

// accessNews has p ask, and the paths through other target names, for which the answer
// p gets says nothing.
func (p *path) accessNews() {
	for _, q := range p.dev.paths {
		if q.access.tpgs != 0 && (q == p || q.cfg.Target != p.cfg.Target) {
			q.query.soon(0)
		}
	}
}

// setAccess notes the access state of p, and has I/O follow it.
func (p *path) setAccess(state scsi.AccessState, preferred bool) {
	a, d := &p.access, p.dev
	was, served := *a, !a.held()
	now := d.loop.Now()
	a.state, a.preferred, a.known = state, preferred, true
	if !was.known || was.state != state {
		a.since = now
	} else if was.preferred == preferred && (state != scsi.AccessTransitioning || a.inTransition(now)) {
		return
	}
	if was.known && was.state != state {
		d.emit(Event{Kind: AccessChanged, Path: p.cfg.ID, State: p.state, Text: p.accessText(was.state)})
	}
	switch {
	case a.held():
		if p.verified || p.partial {
			p.refresh(a.describe(now), nil)
		}
	case !served:
		p.serve("its target port group is " + state.String())
	}
	d.regroup() // paths in the same state may rank differently now
	d.pokeReserve()
	d.kick()
}

// accessText tells of a change, for the log.
func (p *path) accessText(was scsi.AccessState) string {
	a := &p.access
	if !a.grouped {
		return fmt.Sprintf("the access state changed from %v to %v", was, a.state)
	}
	return fmt.Sprintf("target port group %d changed from %v to %v", a.group, was, a.state)
}

// learnAccess takes over what a check found out about access.
func (p *path) learnAccess(ins *inspection) {
	a := &p.access
	if p.detour.via != "" || p.relic {
		return // it would be what is true of another portal, or of no path
	}
	if a.tpgs = ins.tpgs; a.tpgs == 0 {
		return
	}
	a.group, a.port, a.grouped = scsi.PortGroup(ins.identity.Designators)
	if ins.groups != nil {
		p.told(ins.groups, true)
	} else {
		p.query.soon(0) // busy, or a list too long for a check
	}
	if ins.refusal != 0 && !a.held() {
		p.refused(scsi.Sense{Key: scsi.KeyNotReady, Code: ins.refusal}) // it said otherwise a moment ago
	}
	p.query.plan()
}

// transitionEnds is the loop time until when a path may be in transition that
// could carry I/O after it; 0 if there is none.
func (d *Device) transitionEnds() int64 {
	now, ends := d.loop.Now(), int64(0)
	for _, p := range d.paths {
		if p.logged && !p.offline && !p.quarantined && p.access.inTransition(now) {
			ends = max(ends, p.access.since+int64(p.access.limit))
		}
	}
	return ends
}

// reroute sends o again after the access state of p made the target refuse it:
// over another path, or over this one when it carries I/O again. Only a target
// that goes on refusing what it says it takes makes it fail.
func (d *Device) reroute(o *io, p *path, now int64, err error) {
	if o.trouble == 0 {
		o.trouble = max(now, 1)
	}
	if o.refusals < 255 {
		o.refusals++
	}
	p.stat.retries++
	patience := max(d.cfg.WaitTimeout, p.access.limit)
	switch {
	case o.refusals > maxRefusals && now-o.trouble >= int64(patience):
		d.giveUp(o, p, fmt.Errorf("refused %d times in %v: %w", o.refusals, time.Duration(now-o.trouble).Round(time.Millisecond), err))
	case o.refusals == 1:
		d.retryNow(o)
	default:
		d.retryAfter(o, min(firstPause<<min(o.refusals-2, 10), longestPause))
	}
}

// maxRefusals is how often a command may be refused for the access state of its
// paths before time counts: each time the target said before that it would do.
const maxRefusals = 16

// isAccessRefusal reports whether sense data tells of an access state.
func isAccessRefusal(s scsi.Sense) bool {
	_, ok := accessRefusal(s)
	return ok
}

// accessUrgent has the paths that wait for their target ask soon: nothing carries
// I/O, so no unit attention would come.
func (d *Device) accessUrgent() {
	for _, p := range d.paths {
		if p.access.tpgs != 0 && p.access.known {
			p.query.soon(accessAnxious)
		}
	}
}

// longestWait is how long requests wait for a path at most: transitions that a
// target asks for in between are added once.
func (d *Device) longestWait() int64 {
	const longestTransition = 255 * time.Second // what the field can say
	return int64(max(d.cfg.NoPathTimeout, 0) + longestTransition)
}

// snapshotAccess adds what is known of asymmetric access.
func (p *path) snapshotAccess(ps *PathSnapshot, now int64) {
	a := &p.access
	if a.tpgs == 0 {
		return
	}
	ps.ALUAState, ps.ALUAGroup, ps.ALUAPreferred = "unknown", int(a.group), a.preferred
	if a.known {
		ps.ALUAState, ps.ALUASince = a.state.String(), seconds(now-a.since)
	}
}

// inStandby reports that the target keeps the path in reserve, as it may for good.
func (p *path) inStandby() bool {
	return p.state == StateStandby && p.access.state == scsi.AccessStandby
}
