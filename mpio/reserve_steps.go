package mpio

import (
	"fmt"
	"slices"

	"github.com/iscsimp/iscsimp/scsi"
)

// The operations but Register, as chains of steps.

// reserve is Device.Reserve.
func (op *reserveOp) reserve(t scsi.ReservationType) {
	d := op.d
	op.do(reserveStep{
		sa: scsi.SAReserve, typ: t, prefer: d.rsv.holder,
		seen: func(v reserveView) bool { return v.heldByUs(&d.rsv) && v.res.Type == t },
		here: func(v reserveView) bool { return !v.res.Held },
		then: func(p *path) {
			d.rsv.held, d.rsv.holder = t, p
			d.emit(Event{Kind: ReservationChanged, Text: fmt.Sprintf("reserved: %v, by key %s", t, KeyText(d.rsv.reg.Key))})
			op.finish(nil)
		},
		refused: func(v reserveView) {
			switch {
			case !v.ours(&d.rsv):
				op.finish(d.registrationLost(v))
			case !v.heldByUs(&d.rsv):
				op.finish(v.conflict(&d.rsv))
			case v.res.Type != t:
				op.finish(fmt.Errorf("%w: this host holds a reservation of another type, %v: release it first", ErrReserveInvalid, v.res.Type))
			default: // over another path, which is as good
				d.rsv.held, d.rsv.holder = t, nil
				op.finish(nil)
			}
		},
	})
}

// release is Device.Release. The path that reserved has to release; where it is not
// known which that was, all are tried, since the others' RELEASE does nothing.
func (op *reserveOp) release() {
	op.look(func(v reserveView) {
		switch {
		case !v.res.Held:
			op.released()
		case !v.heldByUs(&op.d.rsv):
			op.finish(v.conflict(&op.d.rsv))
		default:
			op.releaseOver(v, op.d.reservePaths(op.d.rsv.holder))
		}
	})
}

// releaseOver tries one path after the other.
func (op *reserveOp) releaseOver(v reserveView, paths []*path) {
	switch {
	case len(paths) > 0:
	case v.res.Type.AllHold():
		// There is no key to take over: PREEMPT with none would remove those of everybody.
		op.finish(fmt.Errorf("%w: the unit stays reserved (%v) for all who are registered: another host may have reserved it anew", ErrReserveInvalid, v.res.Type))
		return
	default:
		op.takeOver(v)
		return
	}
	d := op.d
	next := func() {
		op.look(func(v reserveView) {
			if !v.heldByUs(&d.rsv) {
				op.released()
				return
			}
			op.releaseOver(v, paths[1:])
		})
	}
	op.do(reserveStep{
		sa: scsi.SARelease, typ: v.res.Type, prefer: paths[0],
		seen:    func(v reserveView) bool { return !v.heldByUs(&d.rsv) },
		then:    func(*path) { next() },
		refused: func(reserveView) { next() }, // this path is not registered
	})
}

// takeOver releases a reservation whose path is dead: a living path preempts the
// key, which is this host's, and then holds the reservation. Other paths with the
// same key lose their registration by that and get it back.
func (op *reserveOp) takeOver(v reserveView) {
	d := op.d
	op.ownKeys = true
	op.do(reserveStep{
		sa: scsi.SAPreempt, typ: v.res.Type, action: v.res.Key,
		seen: func(v reserveView) bool { return !v.heldByUs(&d.rsv) },
		then: func(p *path) {
			op.do(reserveStep{
				sa: scsi.SARelease, typ: v.res.Type, prefer: p,
				seen: func(v reserveView) bool { return !v.heldByUs(&d.rsv) },
				then: func(*path) { op.tookOver(p, v.res.Key) },
			})
		},
	})
}

// tookOver makes sure that the reservation is gone: RELEASE by another path than the one that
// holds it is answered GOOD and does nothing.
func (op *reserveOp) tookOver(p *path, key uint64) {
	d := op.d
	op.look(func(v reserveView) {
		if v.heldByUs(&d.rsv) {
			op.finish(fmt.Errorf("%w: the path that took the reservation over does not take commands now: try again", ErrReserveInvalid))
		} else {
			op.released()
		}
		for _, other := range d.paths {
			if other != p && (!d.rsv.reg.PerPath || d.keyOf(other) == key) {
				other.rsv.key = 0
				other.doubt("its registration went with the reservation")
			}
		}
	})
}

func (op *reserveOp) released() {
	d := op.d
	if d.rsv.held != 0 {
		d.emit(Event{Kind: ReservationChanged, Text: fmt.Sprintf("released: %v", d.rsv.held)})
	}
	d.rsv.held, d.rsv.holder = 0, nil
	op.finish(nil)
}

// preempt is Device.Preempt.
func (op *reserveOp) preempt(victim Preemption) {
	d := op.d
	op.look(func(v reserveView) {
		holds := v.res.Held && !v.res.Type.AllHold() && v.res.Key == victim.Key
		if !slices.Contains(v.keys, victim.Key) {
			op.finish(fmt.Errorf("%w: nobody is registered with key %s", ErrReserveInvalid, KeyText(victim.Key)))
			return
		}
		t := victim.Type
		if t == 0 {
			t = scsi.WriteExclusiveRegistrantsOnly
			if v.res.Held {
				t = v.res.Type
			}
			if len(d.paths) > 1 {
				t = t.ForRegistrants()
			}
		}
		step := reserveStep{
			sa: scsi.SAPreempt, typ: t, action: victim.Key, prefer: d.rsv.holder,
			seen: func(v reserveView) bool { return v.ours(&d.rsv) && !slices.Contains(v.keys, victim.Key) },
			here: func(v reserveView) bool { return slices.Contains(v.keys, victim.Key) },
			then: func(p *path) { op.preempted(victim, holds, t, p) },
		}
		if victim.Abort {
			step.sa = scsi.SAPreemptAndAbort
			step.blind = "key " + KeyText(victim.Key) + " is gone, but whether that host's commands were ended is not known"
		}
		op.do(step)
	})
}

// preempted notes what a preemption brought.
func (op *reserveOp) preempted(victim Preemption, held bool, t scsi.ReservationType, p *path) {
	d := op.d
	text := "another host was fenced off: its key " + KeyText(victim.Key) + " is gone"
	if victim.Abort {
		text += ", and its commands are ended"
	}
	if held {
		d.rsv.held, d.rsv.holder = t, p
		text += fmt.Sprintf("; its reservation is this host's now: %v", t)
	}
	d.emit(Event{Kind: ReservationChanged, Text: text})
	op.finish(nil)
}

// clear is Device.ClearReservations.
func (op *reserveOp) clear(otherHosts bool) {
	d := op.d
	op.ownKeys = true
	op.look(func(v reserveView) {
		foreign := slices.DeleteFunc(slices.Clone(v.keys), d.rsv.owns)
		if len(foreign) > 0 && !otherHosts {
			op.finish(fmt.Errorf("%w: %s registered, too, and would lose everything; say so if that is meant", ErrReserveInvalid, keysText(foreign)))
			return
		}
		op.do(reserveStep{
			sa:   scsi.SAClear,
			seen: func(v reserveView) bool { return len(v.keys) == 0 },
			here: func(v reserveView) bool { return len(v.keys) > 0 },
			then: func(*path) {
				d.forgetRegistration()
				d.emit(Event{Kind: ReservationChanged, Text: "every registration was cleared, and with them the reservation"})
				op.finish(nil)
			},
		})
	})
}

// keysText says who is registered besides.
func keysText(keys []uint64) string {
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if len(keys) == 1 {
		return "a host with key " + KeyText(keys[0]) + " is"
	}
	return fmt.Sprintf("hosts with %d keys, among them %s, are", len(keys), KeyText(keys[0]))
}

// forgetRegistration notes that this host has no key registered.
func (d *Device) forgetRegistration() {
	d.rsv.on, d.rsv.lost, d.rsv.held, d.rsv.holder = false, nil, 0, nil
	for _, p := range d.paths {
		p.rsv.key = 0
	}
}

// unregister is Device.Unregister: first the registrations of dead paths, by
// preempting their keys, then those of the living ones.
func (op *reserveOp) unregister() {
	d := op.d
	op.ownKeys = true
	if !d.rsv.on && d.rsv.lost == nil {
		op.finish(ErrNotRegistered)
		return
	}
	op.look(func(v reserveView) {
		own := slices.DeleteFunc(slices.Clone(v.keys), func(k uint64) bool { return !d.rsv.owns(k) })
		if len(own) == 0 {
			op.unregistered()
			return
		}
		op.unregisterOver(d.reservePaths(d.rsv.holder), maxReserveTries)
	})
}

// unregisterOver takes the registration of one path after the other back. What is
// left then belongs to dead paths.
func (op *reserveOp) unregisterOver(paths []*path, rounds int) {
	d := op.d
	if len(paths) == 0 {
		op.look(func(v reserveView) {
			left := slices.DeleteFunc(slices.Clone(v.keys), func(k uint64) bool { return !d.rsv.owns(k) })
			switch {
			case len(left) == 0:
				op.unregistered()
			case rounds == 0:
				op.finish(fmt.Errorf("%w: key %s stays registered, over a path that is down", ErrOutcomeUnknown, KeyText(left[0])))
			default:
				op.unregisterDead(left[0], rounds)
			}
		})
		return
	}
	p := paths[0]
	next := func(*path) {
		p.rsv.key = 0
		op.unregisterOver(paths[1:], rounds)
	}
	if !p.reservable() {
		op.unregisterOver(paths[1:], rounds)
		return
	}
	p.reserveOut(scsi.SARegisterAndIgnore, 0, scsi.ReserveParameters{}, func(r reserveReply) {
		switch {
		case op.ended:
		case r.err == nil:
			next(p)
		case r.unsent, r.unknown, r.refused: // the path is down, or in standby: its key, if it is still there, comes next
			op.unregisterOver(paths[1:], rounds)
		default:
			op.finish(r.err)
		}
	})
}

// unregisterDead removes the key of paths that are down: a living path registers
// once more, preempts it, and unregisters.
func (op *reserveOp) unregisterDead(key uint64, rounds int) {
	d := op.d
	op.anyPath(nil, func(p *path) {
		p.reserveOut(scsi.SARegisterAndIgnore, 0, scsi.ReserveParameters{ActionKey: d.keyOf(p)}, func(r reserveReply) {
			switch {
			case op.ended:
				return
			case r.err != nil:
				op.unregisterOver(nil, rounds-1)
				return
			}
			t := d.rsv.held
			if t == 0 {
				t = scsi.WriteExclusiveRegistrantsOnly
			}
			again := func() { op.unregisterOver(d.reservePaths(p), rounds-1) }
			op.do(reserveStep{
				sa: scsi.SAPreempt, typ: t, action: key, prefer: p,
				seen:    func(v reserveView) bool { return !slices.Contains(v.keys, key) },
				then:    func(*path) { again() },
				refused: func(reserveView) { again() },
			})
		})
	})
}

func (op *reserveOp) unregistered() {
	d := op.d
	key := d.rsv.reg.Key
	d.forgetRegistration()
	d.emit(Event{Kind: ReservationChanged, Text: "unregistered key " + KeyText(key)})
	op.finish(nil)
}
