package mpio

import (
	"slices"
	"time"
)

// begin starts an io that nothing holds back: over a path now, or once one has room.
func (d *Device) begin(o *io) {
	if d.turnedAway(o) {
		return
	}
	if (d.queue.head == nil || d.queue.head.avoid != 0) && d.place(o) {
		return
	}
	d.queue.pushBack(o)
	d.armTick()
}

// retryNow is begin for an io that was with a path before: it goes first.
func (d *Device) retryNow(o *io) {
	if d.turnedAway(o) {
		return
	}
	d.queue.pushFront(o)
	d.armTick()
}

// retryAfter starts o again after a pause.
func (d *Device) retryAfter(o *io, pause time.Duration) {
	if d.turnedAway(o) {
		return
	}
	o.due = d.loop.Now() + int64(pause)
	d.delayed.pushBack(o)
	d.armRetryTimer()
}

// turnedAway fails o if waiting is over: no path for too long, or a forced close.
func (d *Device) turnedAway(o *io) bool {
	switch {
	case d.forced:
		d.finish(o, errForced)
	case d.rsv.lost != nil:
		d.finish(o, d.rsv.lost)
	case d.failing:
		d.finish(o, d.noPathError(o))
	default:
		return false
	}
	return true
}

// place hands o to a path, if one has room.
func (d *Device) place(o *io) bool {
	p := d.choose(o)
	return p != nil && d.send(p, o)
}

// send hands o to p.
func (d *Device) send(p *path, o *io) bool {
	o.build(d)
	p.take(o, d.loop.Now())
	if !p.sess.Submit(&o.cmd) {
		p.land(o)
		return false
	}
	if !d.tickOn {
		d.armTick()
	}
	d.hedges.watch(o)
	return true
}

// choose picks a path for o among the active ones; nil: o has to wait. Paths
// without room in their command window are passed over: the window is
// back-pressure, not slowness.
func (d *Device) choose(o *io) *path {
	cands := d.cands[:0]
	held, avoided := 0, 0
	for _, p := range d.active {
		switch {
		case o.avoid&p.bit != 0:
			avoided++
		case p.sess.Room() <= 0 || p.limit > 0 && p.inflight >= p.limit:
		case p.ramp > 0 && p.inflight >= p.ramp:
			held++
		default:
			cands = append(cands, p)
		}
	}
	if len(cands) == 0 && held > 0 {
		// Everything with room is still ramping up: better too early than not at all.
		for _, p := range d.active {
			if o.avoid&p.bit == 0 && p.sess.Room() > 0 && (p.limit == 0 || p.inflight < p.limit) {
				cands = append(cands, p)
			}
		}
	}
	d.cands = cands
	switch {
	case len(cands) > 1:
		return d.sel.pick(d, cands, o)
	case len(cands) == 1:
		return cands[0]
	case avoided > 0 && avoided == len(d.active):
		p, exists := d.outsider(o)
		if !exists {
			o.avoid = 0 // every path said no once: start over
			return d.choose(o)
		}
		return p
	}
	return nil
}

// outsider finds a path for o, which every active path has turned away, among
// the usable ones outside the active group; exists tells that there is one, with
// or without room.
func (d *Device) outsider(o *io) (best *path, exists bool) {
	for _, p := range d.paths {
		if !p.usable() || o.avoid&p.bit != 0 {
			continue
		}
		exists = true
		if p.sess.Room() > 0 && (best == nil || p.rank() > best.rank() ||
			p.rank() == best.rank() && p.cfg.Priority < best.cfg.Priority) {
			best = p
		}
	}
	return best, exists
}

// kick sends what waits for room, in order, as far as there is room. A command
// that waits for a particular path, since others turned it away, is passed over.
func (d *Device) kick() {
	if d.kicking {
		return
	}
	d.kicking = true
	for o := d.queue.head; o != nil; {
		after := o.next
		switch p := d.choose(o); {
		case p != nil:
			d.queue.remove(o)
			if !d.send(p, o) {
				d.queue.pushFront(o)
				after = nil
			}
		case o.avoid == 0:
			after = nil
		}
		o = after
	}
	d.kicking = false
}

// finish completes o for good.
func (d *Device) finish(o *io, err error) {
	q := o.req
	if o.ghosts > 0 {
		d.disown(o)
	}
	if o.twin != nil {
		d.hedges.drop(o)
	}
	if o.ext.slot != 0 {
		d.unhold(&o.ext)
	}
	d.putIO(o)
	q.childDone(d, err)
}

// rank orders states by how gladly they are used; 0 is not at all.
func (s State) rank() int {
	switch s {
	case StateUp:
		return 4
	case StateMarginal:
		return 3
	case StateSuspect:
		return 2
	case StateStandby:
		return 1
	}
	return 0
}

// group is what paths have in common that carry I/O together.
type group struct {
	rank     int // of their state and access state
	priority int
}

func (p *path) group() group { return group{p.rank(), p.cfg.Priority} }

// better reports whether a's paths are used rather than b's.
func (a group) better(b group) bool {
	if a.rank != b.rank {
		return a.rank > b.rank
	}
	return a.priority < b.priority
}

// regroup finds the paths that carry I/O from now on: of the usable ones those
// in the best state and access state, of these the ones with the best priority, as
// far as the policy reaches and failback allows. A path that is merely suspect is
// thus used when nothing better is left.
func (d *Device) regroup() {
	var lead *path // the first of the best group
	d.usable = 0
	for _, p := range d.paths {
		if !p.usable() {
			continue
		}
		d.usable++
		if p.rank() > 0 && (lead == nil || p.group().better(lead.group())) {
			lead = p
		}
	}
	lead = d.holdBack(lead)
	reach := d.sel.reach()
	d.active = d.active[:0]
	for _, p := range d.paths {
		carries := lead != nil && p.usable() && p.carries(lead, reach)
		if carries {
			d.active = append(d.active, p)
		}
		p.noteLapse(carries)
	}
	d.cands = slices.Grow(d.cands[:0], len(d.paths))
	d.pathsChanged()
	for _, p := range d.paths {
		if p.silent || p.offline {
			d.takeCommands(p, p.offline)
		}
	}
}

// carries reports whether p carries I/O beside lead.
func (p *path) carries(lead *path, r reach) bool {
	switch r {
	case reachOne:
		return p == lead
	case reachAll:
		return p.rank() == lead.rank()
	}
	return p.group() == lead.group()
}

// Limits on moving commands away from silent paths, so that a slow target is not
// sent the same work again and again.
const (
	maxMoves  = 2   // times one command is moved
	moveBurst = 256 // commands moved in a burst
	moveShare = 0.1 // and for each command completed since
)

// takeCommands moves commands from a silent or offline path to another one that
// is up, if there is one. Writes are moved from a silent path only: an offline one
// answers them.
func (d *Device) takeCommands(p *path, all bool) {
	if len(d.active) == 0 || slices.Contains(d.active, p) || d.active[0].state != StateUp || !p.logged {
		return
	}
	n, writes, now := 0, 0, d.loop.Now()
	for _, l := range []*ioList{&p.transfer, &p.other} {
		for o := l.tail; o != nil; {
			before := o.prev
			may := all || o.moves < maxMoves && d.moveTokens >= 1
			switch {
			case may && !o.kind.changes() && p.sess.Detach(&o.cmd):
				p.land(o)
				if o.hedge {
					d.hedges.release(o)
					o = before
					continue
				}
			case may && !all && o.kind.changes() && d.takeWrite(p, o, now):
				writes++
			default:
				o = before
				continue
			}
			if !all {
				o.moves++
				d.moveTokens--
			}
			d.queue.pushFront(o)
			n++
			o = before
		}
	}
	if n == 0 {
		return
	}
	p.stat.moved += uint64(n)
	d.emit(Event{Kind: Retried, Path: p.cfg.ID, State: p.state, Count: n, Text: "commands moved to another path: " + p.reason})
	d.tellMoved(p, writes)
	d.armTick()
}

// Housekeeping intervals.
const (
	tickBusy   = 250 * time.Millisecond // with commands in flight: look for overdue ones
	tickQueued = 20 * time.Millisecond  // with commands waiting for room, which may come without a completion
)

// armTick makes sure that onTick comes in time; it never puts it off.
func (d *Device) armTick() {
	every := tickBusy
	if d.queue.head != nil && len(d.active) > 0 {
		every = tickQueued
	}
	at := d.loop.Now() + int64(every)
	if d.tickOn && d.tickAt <= at {
		return
	}
	d.tickOn, d.tickAt = true, at
	d.loop.SetTimer(&d.tick, at)
}

func (d *Device) onTick() {
	d.tickOn = false
	now := d.loop.Now()
	busy := false
	for _, p := range d.paths {
		if p.inflight > 0 {
			busy = true
			p.overdue(now)
		}
	}
	d.kick()
	if busy || d.queue.head != nil {
		d.armTick()
	}
}

func (d *Device) armRetryTimer() {
	next := int64(0)
	for o := d.delayed.head; o != nil; o = o.next {
		if next == 0 || o.due < next {
			next = o.due
		}
	}
	if next == 0 {
		d.loop.StopTimer(&d.retryTimer)
		return
	}
	d.loop.SetTimer(&d.retryTimer, next)
}

func (d *Device) onRetryTimer() {
	now := d.loop.Now()
	for o := d.delayed.head; o != nil; {
		after := o.next
		if o.due <= now {
			d.delayed.remove(o)
			d.queue.pushBack(o)
		}
		o = after
	}
	d.armRetryTimer()
	d.kick()
	if d.queue.head != nil {
		d.armTick()
	}
}
