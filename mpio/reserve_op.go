package mpio

import (
	"errors"
	"fmt"
	"slices"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
)

// maxReserveTries bounds how often a step of an operation is begun anew, each time
// after it was proven that the one before came to nothing.
const maxReserveTries = 4

// reserveOp is one operation on reservations: a chain of commands over whichever
// path is there. There is one at a time on a device.
type reserveOp struct {
	d     *Device
	name  string
	done  func(error)
	ended bool
	// ownKeys says that the operation takes keys of this host away or changes them,
	// so that their absence means nothing meanwhile.
	ownKeys bool

	timer loop.Timer
	cond  func() bool // what is waited for
	then  func(met bool)
}

// finish ends the operation.
func (op *reserveOp) finish(err error) {
	if op.ended {
		return
	}
	d := op.d
	op.ended, op.cond, op.then = true, nil, nil
	d.loop.StopTimer(&op.timer)
	d.rsv.op = nil
	if err != nil {
		err = fmt.Errorf("%s: %w", op.name, err)
	}
	op.done(err)
	for _, p := range d.paths { // what was put off, and what happened meanwhile
		switch why := p.rsv.pending; {
		case !op.ownKeys:
		case why != "":
			p.rsv.pending = ""
			if p.logged {
				p.admit(why)
			}
		case d.rsv.on || p.rsv.conflicts.n > 0:
			d.audit(p)
		}
	}
	d.kick()
}

// until goes on with then once cond holds, or without it after FenceTimeout: by
// then everything that may still be settled is.
func (op *reserveOp) until(cond func() bool, then func(met bool)) {
	switch {
	case op.ended:
	case cond():
		then(true)
	default:
		op.cond, op.then = cond, then
		op.d.loop.SetTimer(&op.timer, op.d.loop.Now()+int64(op.d.cfg.FenceTimeout))
	}
}

// resume ends the waiting of until.
func (op *reserveOp) resume(met bool) {
	then := op.then
	op.cond, op.then = nil, nil
	op.d.loop.StopTimer(&op.timer)
	then(met)
}

func (op *reserveOp) timeOut() {
	if op.then != nil {
		op.resume(false)
	}
}

// pokeReserve looks whether what an operation waits for has happened: a path came up.
func (d *Device) pokeReserve() {
	if op := d.rsv.op; op != nil && op.cond != nil && op.cond() {
		op.resume(true)
	}
}

// closeReserve ends an operation with the device.
func (d *Device) closeReserve() {
	if d.rsv.op != nil {
		d.rsv.op.finish(block.ErrClosed)
	}
}

// reservePaths are the paths that take commands about reservations: those that
// carry I/O now first, and prefer before all.
func (d *Device) reservePaths(prefer *path) []*path {
	list := make([]*path, 0, len(d.paths))
	for _, p := range d.paths {
		if p.reservable() {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b *path) int {
		worth := func(p *path) int {
			n := p.state.rank()
			if slices.Contains(d.active, p) {
				n += 10
			}
			if p == prefer {
				n += 100
			}
			return n
		}
		return worth(b) - worth(a)
	})
	return list
}

// anyPath waits for a path that takes commands, prefer if it is there.
func (op *reserveOp) anyPath(prefer *path, then func(*path)) {
	op.until(func() bool { return len(op.d.reservePaths(nil)) > 0 }, func(met bool) {
		if !met {
			op.finish(fmt.Errorf("%w: no usable path for %v", block.ErrIO, op.d.cfg.FenceTimeout))
			return
		}
		then(op.d.reservePaths(prefer)[0])
	})
}

// look reads keys and reservation, over whichever path answers.
func (op *reserveOp) look(then func(reserveView)) { op.lookAgain(0, then) }

func (op *reserveOp) lookAgain(tries int, then func(reserveView)) {
	op.anyPath(nil, func(p *path) {
		op.d.readReservations(p, func(v reserveView, lost bool, err error) {
			switch {
			case op.ended:
			case err == nil:
				then(v)
			case lost && tries < 2*len(op.d.paths):
				op.lookAgain(tries+1, then)
			default:
				op.finish(err)
			}
		})
	})
}

// maxReserveReads bounds how often keys and reservation are read anew since they changed
// in between.
const maxReserveReads = 4

// readReservations reads keys and reservation over p; lost says that p was lost.
func (d *Device) readReservations(p *path, then func(v reserveView, lost bool, err error)) {
	d.readReservationsAgain(p, 1, then)
}

// readReservationsAgain does so once more: it takes two commands, and what they bring belongs
// together only if the generation is the same.
func (d *Device) readReservationsAgain(p *path, reads int, then func(v reserveView, lost bool, err error)) {
	p.reserveIn(scsi.SAReadKeys, func(r reserveReply) {
		v, generation := reserveView{}, uint32(0)
		if r.err == nil {
			generation, v.keys, r.err = scsi.ParseReserveKeys(r.data)
		}
		if r.err != nil {
			then(v, !p.logged || p.gen != r.gen, r.err)
			return
		}
		p.reserveIn(scsi.SAReadReservation, func(r reserveReply) {
			if r.err == nil {
				v.res, r.err = scsi.ParseReservation(r.data)
			}
			if r.err == nil && v.res.Generation != generation && reads < maxReserveReads {
				d.readReservationsAgain(p, reads+1, then)
				return
			}
			then(v, !p.logged || p.gen != r.gen, r.err)
		})
	})
}

// reserveStep is one PERSISTENT RESERVE OUT of an operation.
type reserveStep struct {
	sa     uint8
	typ    scsi.ReservationType
	action uint64 // the service action reservation key
	prefer *path  // the path to send it over, if it is there
	// seen reports whether the unit looks as it does after the command.
	seen func(reserveView) bool
	// then goes on after success, over the path that did it, nil if the unit looks
	// as if it had succeeded.
	then func(*path)
	// refused goes on after RESERVATION CONFLICT. nil: the operation ends with the
	// conflict, unless the unit looks as after the command.
	refused func(reserveView)
	// here reports whether a conflict can only mean, as things are, that the path it
	// was met on is not registered. nil: it cannot.
	here func(reserveView) bool
	// blind: even if the unit looks as after the command that does not prove all
	// that it had to do.
	blind string
}

// do sends a step. Whatever is lost on the way, it is sent again only if it never
// left this host, or if it is settled and came to nothing.
func (op *reserveOp) do(s reserveStep) { op.try(s, 0) }

func (op *reserveOp) try(s reserveStep, tries int) {
	op.anyPath(s.prefer, func(p *path) {
		params := scsi.ReserveParameters{Key: op.d.keyOf(p), ActionKey: s.action}
		p.reserveOut(s.sa, s.typ, params, func(r reserveReply) {
			switch {
			case op.ended:
			case r.err == nil:
				s.then(p)
			case (r.unsent || r.refused) && tries < 2*len(op.d.paths):
				if r.refused {
					s.prefer = nil
				}
				op.try(s, tries+1)
			case r.unknown:
				op.findOut(s, r, tries)
			case r.conflict:
				op.explain(s, p, tries)
			default:
				op.finish(r.err)
			}
		})
	})
}

// explain goes on after RESERVATION CONFLICT on p.
func (op *reserveOp) explain(s reserveStep, p *path, tries int) {
	op.look(func(v reserveView) {
		switch {
		case s.here != nil && s.here(v) && v.ours(&op.d.rsv) && tries < 2*len(op.d.paths):
			p.doubt("its registration is gone")
			op.try(s, tries+1)
		case s.refused != nil:
			s.refused(v)
		case s.seen(v):
			s.then(nil)
		case !v.ours(&op.d.rsv):
			err := op.d.registrationLost(v)
			op.finish(err)
		default:
			op.finish(v.conflict(&op.d.rsv))
		}
	})
}

// settledBy reports whether a command sent with login gen of p can have no effect
// any more: a later login of p has ended the session it was sent with, and led to
// the same unit.
func (p *path) settledBy(gen uint64) bool { return p.rsv.ended <= gen && gen < p.rsv.endedBy }

// findOut decides about a command whose answer was lost. First it has to be over.
func (op *reserveOp) findOut(s reserveStep, r reserveReply, tries int) {
	op.until(func() bool { return r.p.settledBy(r.gen) }, func(settled bool) {
		op.look(func(v reserveView) {
			switch {
			case s.seen(v) && s.blind != "":
				op.finish(fmt.Errorf("%w: %w; %s", ErrOutcomeUnknown, r.err, s.blind))
			case s.seen(v):
				s.then(nil)
			case settled && tries < maxReserveTries:
				op.try(s, tries+1)
			default:
				op.finish(fmt.Errorf("%w: %w; so far it has had no effect, but the target may still carry it out: path %s did not come back within %v",
					ErrOutcomeUnknown, r.err, r.p.cfg.ID, op.d.cfg.FenceTimeout))
			}
		})
	})
}

// register registers over every path.
func (op *reserveOp) register(reg Registration) {
	op.ownKeys = true
	op.anyPath(nil, func(p *path) {
		if reg.Volatile {
			op.registerAll(reg, false, 0)
			return
		}
		p.reserveIn(scsi.SAReportCapabilities, func(r reserveReply) {
			c, err := scsi.ParseReserveCapabilities(r.data)
			op.registerAll(reg, r.err == nil && err == nil && c.PersistCapable, 0)
		})
	})
}

// registerAll sends the registrations to all paths at once and waits for every answer.
func (op *reserveOp) registerAll(reg Registration, aptpl bool, tries int) {
	if op.ended {
		return
	}
	d := op.d
	paths := d.reservePaths(nil)
	before := d.rsv
	d.rsv.reg, d.rsv.aptpl = reg, aptpl
	replies := make([]reserveReply, 0, len(paths))
	got := func(r reserveReply) {
		replies = append(replies, r)
		if len(replies) == len(paths) && !op.ended {
			op.registered(before, replies, tries)
		}
	}
	for _, p := range paths {
		p.reserveOut(scsi.SARegisterAndIgnore, 0, scsi.ReserveParameters{ActionKey: d.keyOf(p), APTPL: aptpl}, got)
	}
	if len(paths) == 0 {
		op.anyPath(nil, func(*path) { op.registerAll(reg, aptpl, tries) })
	}
}

// registered goes on when every path has answered.
func (op *reserveOp) registered(before reserveState, replies []reserveReply, tries int) {
	d := op.d
	reg, aptpl := d.rsv.reg, d.rsv.aptpl
	var failed error
	var unknown *reserveReply
	n := 0
	for i := range replies {
		switch r := &replies[i]; {
		case r.err == nil:
			r.p.rsv.key = d.keyOf(r.p)
			n++
		case r.unknown:
			unknown = r
		case !r.unsent:
			failed = r.err
		}
	}
	switch {
	case n > 0:
		op.registrationDone(replies, n)
	case unknown != nil:
		op.until(func() bool { return unknown.p.settledBy(unknown.gen) }, func(settled bool) {
			if settled && tries < maxReserveTries {
				op.registerAll(reg, aptpl, tries+1)
				return
			}
			op.restore(before)
			op.finish(fmt.Errorf("%w: %w", ErrOutcomeUnknown, unknown.err))
		})
	case failed == nil && tries < maxReserveTries:
		op.registerAll(reg, aptpl, tries+1) // every path was lost before anything was sent
	case aptpl && refusesAPTPL(failed):
		op.registerAll(reg, false, tries+1)
	default:
		op.restore(before)
		if failed == nil {
			failed = fmt.Errorf("%w: every path was lost", block.ErrIO)
		}
		op.finish(failed)
	}
}

// refusesAPTPL reports whether a target that announces APTPL will not have it.
func refusesAPTPL(err error) bool {
	e, ok := errors.AsType[*scsi.CommandError](err)
	return ok && e.Sense.Key == scsi.KeyIllegalRequest && e.Sense.Code == scsi.ASCInvalidFieldInParameters
}

// restore puts back what was known before a registration that failed.
func (op *reserveOp) restore(before reserveState) {
	op.d.rsv.reg, op.d.rsv.aptpl = before.reg, before.aptpl
}

// registrationDone makes the registration the device's. Paths that have none yet
// get it before they carry I/O again.
func (op *reserveOp) registrationDone(replies []reserveReply, n int) {
	d := op.d
	d.rsv.on, d.rsv.lost = true, nil
	d.emit(Event{
		Kind: ReservationChanged, Count: n,
		Text: fmt.Sprintf("registered key %s over %d of %d paths", KeyText(d.rsv.reg.Key), n, len(d.paths)),
	})
	op.finish(nil)
	for _, r := range replies {
		if r.err != nil {
			r.p.doubt("not registered yet: " + r.err.Error())
		}
	}
	for _, p := range d.paths { // those that took no such command at all
		if p.verified && p.rsv.key != d.keyOf(p) {
			p.doubt("not registered yet")
		}
	}
}
