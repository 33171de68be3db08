package mpio

import (
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// enroll registers a path whose unit was just identified, if this host is
// registered with it. It reports whether that is under way: the path is admitted
// when it is done, and not before.
func (d *Device) enroll(p *path, why string) bool {
	r := &d.rsv
	p.rsv.attempt++
	switch {
	case d.closing:
		return false
	case r.op != nil && r.op.ownKeys:
		p.rsv.pending = why // what its keys have to be will be known then
		d.pokeReserve()
	case p.access.mute() && (r.on && r.lost == nil || !r.on && p.rsv.key != 0):
		p.putOff()
	case r.on && r.lost == nil:
		if wait := p.rsv.notBefore - d.loop.Now(); wait > 0 && !(p.chain <= p.rsv.settledGen && p.gen > p.rsv.settledGen) {
			p.refresh("waiting with the registration: a command of its old session may still be under way, and nothing proves that it is not", nil)
			p.check.after(time.Duration(wait), func() { p.admit(why) })
			return true
		}
		(&enrolment{p: p, n: p.rsv.attempt, looks: p.looks, why: why}).confirm()
	case !r.on && p.rsv.key != 0: // it was unregistered while this path was away
		e := &enrolment{p: p, n: p.rsv.attempt, looks: p.looks, why: why}
		p.reserveOut(scsi.SARegister, 0, scsi.ReserveParameters{Key: p.rsv.key}, e.then(func(reserveReply) {
			p.rsv.key = 0
			p.join(why)
		}))
	default:
		return false
	}
	return true
}

// putOff leaves the registration of p to the check that comes when its port group carries
// I/O: now it takes no such command.
func (p *path) putOff() {
	p.partial = true
	p.refresh("", nil)
}

// enrolment is the registration of a path that came up.
type enrolment struct {
	p     *path
	n     int // pathReserve.attempt
	looks int // path.looks
	why   string
}

// then filters what goes on: nothing does if the path was lost or is checked anew.
func (e *enrolment) then(next func(reserveReply)) func(reserveReply) {
	return func(r reserveReply) {
		p := e.p
		switch {
		case e.n != p.rsv.attempt || e.looks != p.looks || !p.logged || p.gen != r.gen || r.unsent && r.err != nil && !p.logged:
		case r.unknown: // its session is given up
		case r.refused:
			p.putOff()
		default:
			next(r)
		}
	}
}

// confirm registers the key in the place of itself. That succeeds only if it is
// registered over this very path, so that nothing can come in between.
func (e *enrolment) confirm() {
	p := e.p
	key := p.dev.keyOf(p)
	params := scsi.ReserveParameters{Key: key, ActionKey: key, APTPL: p.dev.rsv.aptpl}
	p.reserveOut(scsi.SARegister, 0, params, e.then(func(r reserveReply) {
		switch {
		case r.err == nil:
			e.done(e.why)
		case r.conflict:
			e.look(func(keys []uint64) { e.add(keys) })
		default:
			p.check.fail(r.err)
		}
	}))
}

// look reads the keys over the path.
func (e *enrolment) look(next func(keys []uint64)) {
	e.p.reserveIn(scsi.SAReadKeys, e.then(func(r reserveReply) {
		_, keys, err := scsi.ParseReserveKeys(r.data)
		if r.err != nil {
			err = r.err
		}
		if err != nil {
			e.p.check.fail(err)
			return
		}
		next(keys)
	}))
}

// add registers the path if the host is registered over another one.
func (e *enrolment) add(keys []uint64) {
	p, d := e.p, e.p.dev
	own := d.keyOf(p)
	switch {
	case !slices.ContainsFunc(keys, d.rsv.owns):
		e.lost()
		return
	case d.rsv.reg.PerPath && p.rsv.key == own && !slices.Contains(keys, own):
		p.check.fail(fmt.Errorf("%w: another host removed key %s of this path; register anew to use it again", ErrPreempted, KeyText(own)))
		return
	}
	params := scsi.ReserveParameters{ActionKey: own, APTPL: d.rsv.aptpl}
	p.reserveOut(scsi.SARegisterAndIgnore, 0, params, e.then(func(r reserveReply) {
		if r.err != nil {
			p.check.fail(r.err)
			return
		}
		e.look(e.verify)
	}))
}

// verify makes sure that the path was not registered just after this host had been
// fenced off: then its key would be the only one.
func (e *enrolment) verify(keys []uint64) {
	p, d := e.p, e.p.dev
	n, others := 0, 0
	for _, k := range keys {
		switch {
		case k == d.keyOf(p):
			n++
		case d.rsv.owns(k):
			others++
		}
	}
	switch {
	case n > 0 && n+others > 1:
		e.done(e.why + ", registered")
	case n == 0 && others == 0:
		e.lost()
	case n == 0:
		p.check.fail(fmt.Errorf("%w: another host removed key %s of this path at once", ErrPreempted, KeyText(d.keyOf(p))))
	default:
		params := scsi.ReserveParameters{Key: d.keyOf(p)}
		p.reserveOut(scsi.SARegister, 0, params, e.then(func(reserveReply) { e.lost() }))
	}
}

// done admits the path.
func (e *enrolment) done(why string) {
	e.p.rsv.key = e.p.dev.keyOf(e.p)
	e.p.join(why)
}

// lost admits the path though this host was fenced off: it is as good as any, and
// all requests are refused before they get to it.
func (e *enrolment) lost() {
	e.p.dev.registrationLost(reserveView{})
	e.p.join(e.why)
}

// registrationLost notes that no key of this host is registered any more. All
// requests fail from now on: that they could still do something would mean that
// nobody holds a reservation, and nothing keeps the other hosts away either.
func (d *Device) registrationLost(v reserveView) error {
	r := &d.rsv
	if r.lost != nil || !r.on {
		return r.lost
	}
	by := "by another host, or the target forgot it"
	switch {
	case v.res.Held && v.res.Type.AllHold():
		by = fmt.Sprintf("by another host; the unit is reserved (%v) for those who are registered", v.res.Type)
	case v.res.Held:
		by = fmt.Sprintf("by another host; the unit is reserved (%v) by key %s", v.res.Type, KeyText(v.res.Key))
	}
	r.lost = fmt.Errorf("%w: %w: key %s was removed %s: register again once this host may use the unit", block.ErrIO, ErrPreempted, KeyText(r.reg.Key), by)
	r.held, r.holder = 0, nil
	for _, p := range d.paths {
		p.rsv.key = 0
	}
	d.emit(Event{Kind: ReservationLost, Count: d.waiting(), Text: "every request fails", Err: r.lost})
	d.failWaiting(func(*io) error { return r.lost })
	return r.lost
}

// isReservationNews reports whether sense tells of a change of reservations.
func isReservationNews(s scsi.Sense) bool {
	if s.Key != scsi.KeyUnitAttention {
		return false
	}
	switch s.Code {
	case scsi.ASCReservationsPreempted, scsi.ASCReservationsReleased, scsi.ASCRegistrationsPreempted:
		return true
	}
	return false
}

// conflicted keeps a command that met a RESERVATION CONFLICT until it is known why.
func (d *Device) conflicted(o *io, p *path) {
	if d.turnedAway(o) {
		return
	}
	p.rsv.conflicts.pushBack(o)
	d.audit(p)
}

// audit looks at keys and reservation over p: a conflict or a unit attention
// said that they changed.
func (d *Device) audit(p *path) {
	s := &p.rsv
	switch {
	case s.auditing:
		s.again = true
		return
	case d.rsv.op != nil && d.rsv.op.ownKeys:
		return // it looks when it is done
	case !p.reservable():
		d.retryConflicts(&s.conflicts)
		return
	case !d.rsv.on && s.conflicts.n == 0:
		return
	}
	s.auditing, s.again = true, false
	for o := s.conflicts.popFront(); o != nil; o = s.conflicts.popFront() {
		s.judging.pushBack(o)
	}
	d.readReservations(p, func(v reserveView, lost bool, err error) {
		s.auditing = false
		switch {
		case lost:
			d.retryConflicts(&s.judging)
		case err != nil: // not even that can be asked
			d.failConflicts(p, &ConflictError{})
		case d.rsv.op != nil && d.rsv.op.ownKeys:
			for o := s.judging.popFront(); o != nil; o = s.judging.popFront() {
				s.conflicts.pushBack(o)
			}
		default:
			d.audited(p, v)
		}
		if s.again || s.conflicts.n > 0 {
			d.audit(p)
		}
		d.kick()
	})
}

// audited draws the conclusions.
func (d *Device) audited(p *path, v reserveView) {
	r := &d.rsv
	switch {
	case !r.on || r.lost != nil:
		d.judgeConflicts(p, v, false)
		return
	case !v.ours(r):
		d.registrationLost(v)
		return
	}
	if r.held != 0 && !v.heldByUs(r) {
		text := fmt.Sprintf("this host's reservation (%v) is gone", r.held)
		if v.res.Held {
			text = "this host's reservation is another's now: " + v.conflict(r).Error()
		}
		r.held, r.holder = 0, nil
		d.emit(Event{Kind: ReservationChanged, Path: p.cfg.ID, State: p.state, Text: text})
	}
	missing := r.reg.PerPath && !slices.Contains(v.keys, d.keyOf(p))
	unregistered := missing || p.rsv.judging.n > 0 && v.res.Held && v.res.Type.Registrants()
	d.judgeConflicts(p, v, unregistered)
	if unregistered {
		p.doubt("its registration is gone")
	}
}

// judgeConflicts decides about the commands that met a conflict on p. Where that is
// since this path alone is not registered, they are sent again: it will be.
func (d *Device) judgeConflicts(p *path, v reserveView, unregistered bool) {
	why := v.conflict(&d.rsv)
	for o := p.rsv.judging.popFront(); o != nil; o = p.rsv.judging.popFront() {
		switch {
		case d.turnedAway(o):
		case why.Ours && !unregistered: // the path that reserved can do it
			d.elsewhere(o, p, why)
		case !unregistered && v.res.Held:
			d.giveUp(o, p, why)
		default:
			if o.tries++; int(o.tries) > d.mostTries() {
				d.giveUp(o, p, why)
				continue
			}
			p.stat.retries++
			d.retryNow(o)
		}
	}
}

// retryConflicts sends commands again whose path was lost before it was clear why
// they met a conflict.
func (d *Device) retryConflicts(l *ioList) {
	for o := l.popFront(); o != nil; o = l.popFront() {
		d.retryNow(o)
	}
}

// failConflicts gives up commands that met a conflict.
func (d *Device) failConflicts(p *path, why error) {
	for o := p.rsv.judging.popFront(); o != nil; o = p.rsv.judging.popFront() {
		d.giveUp(o, p, why)
	}
}
