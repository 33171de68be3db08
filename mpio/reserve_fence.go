package mpio

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/scsi"
)

// A path that is lost with writes inside can be fenced off by its key, if it has
// one of its own (Registration.PerPath): PREEMPT AND ABORT over a living path ends
// the commands that the target has, and what it has not read yet from the hung
// connection meets a conflict, as long as the unit is reserved: so nothing of it can
// land any more (settlePreempted). With a key that all paths share that would hit
// the living ones.

// preemptAfter is how long after the loss of a path its key is preempted, if its
// writes are not settled by then: a login is gentler, and often quick.
const preemptAfter = time.Second

// wantsPreempt reports whether preempting the key of p would settle anything.
func (p *path) wantsPreempt() bool {
	d := p.dev
	r := &d.rsv
	return !p.logged && !p.closed && !d.closing && r.on && r.lost == nil && r.reg.PerPath && !r.noAbort && p.rsv.key != 0 &&
		slices.ContainsFunc(d.ghosts, func(g *ghost) bool { return g.path == p && g.earlier == nil })
}

// planPreempt plans it for when the path is lost so long. It is called at the loss
// and at each login that fails.
func (p *path) planPreempt() { p.planPreemptAt(p.detour.since + int64(preemptAfter)) }

func (p *path) planPreemptAt(at int64) {
	if !p.wantsPreempt() || at <= p.rsv.tried {
		return
	}
	p.rsv.timer.Fn = p.tryPreempt
	p.dev.loop.SetTimer(&p.rsv.timer, max(at, p.dev.loop.Now()))
}

func (p *path) tryPreempt() {
	d := p.dev
	if !p.wantsPreempt() {
		return
	}
	if d.rsv.op != nil || len(d.reservePaths(nil)) == 0 {
		p.planPreemptAt(d.loop.Now() + int64(preemptAfter))
		return
	}
	p.rsv.tried = d.loop.Now()
	d.reserveOp("fencing path "+p.cfg.ID+" off", true, func(err error) {
		switch {
		case err == nil:
		case refusesAction(err):
			d.rsv.noAbort = true
			d.cfg.Logger.Info("the target has no PREEMPT AND ABORT: writes lost with a path are settled in other ways", "err", err)
		default:
			d.cfg.Logger.Info("a lost path was not fenced off by its key", "path", p.cfg.ID, "err", err)
		}
	}, func(op *reserveOp) { op.fenceOff(p) })
}

// refusesAction reports whether the target does not know a service action.
func refusesAction(err error) bool {
	e, ok := errors.AsType[*scsi.CommandError](err)
	return ok && e.Sense.Key == scsi.KeyIllegalRequest
}

// fenceOff preempts the key of p. Until it is done p, if it comes back, waits with
// its registration.
func (op *reserveOp) fenceOff(p *path) {
	gen, key := p.gen, p.rsv.key
	op.ownKeys = true
	op.look(func(v reserveView) {
		switch {
		case p.logged: // its login settles more
			op.finish(nil)
			return
		case !slices.Contains(v.keys, key) || !v.res.Held:
			op.finish(fmt.Errorf("%w: its key is not registered, or the unit is not reserved", ErrReserveInvalid))
			return
		}
		p.rsv.key = 0
		op.do(reserveStep{
			sa: scsi.SAPreemptAndAbort, typ: v.res.Type, action: key,
			seen:  func(v reserveView) bool { return !slices.Contains(v.keys, key) },
			blind: "the key is gone, but whether its commands were ended is not known",
			then:  func(q *path) { op.fencedOff(p, q, gen, key) },
		})
	})
}

// fencedOff settles what p was lost with, if what has to hold for that does.
func (op *reserveOp) fencedOff(p, q *path, gen, key uint64) {
	d := op.d
	op.look(func(v reserveView) {
		if p == q || p.gen != gen || slices.Contains(v.keys, key) || !v.res.Held || !v.ours(&d.rsv) {
			op.finish(fmt.Errorf("%w: things changed meanwhile", ErrReserveInvalid))
			return
		}
		if d.rsv.holder == p {
			d.rsv.holder = q
		}
		for _, g := range d.ghosts {
			if g.path == p {
				p.rsv.notBefore, p.rsv.settledGen = max(p.rsv.notBefore, g.deadline), gen
			}
		}
		d.settlePreempted(p, gen)
		op.finish(nil)
	})
}

// keptOut is the loop time until when p, whose writes were settled by its key, is kept out
// by the reservation alone; 0: it is not. A login that proves the end of its old session,
// and was checked, ends that.
func (p *path) keptOut() (until int64) {
	if r := &p.rsv; r.ended > r.settledGen || r.endedBy <= r.settledGen {
		return r.notBefore
	}
	return 0
}

// keptOut is the same for whichever path it lasts longest.
func (d *Device) keptOut() (until int64) {
	for _, p := range d.paths {
		until = max(until, p.keptOut())
	}
	return until
}

// whenNothingIsKeptOut goes on with then when the reservation may be given up: not while
// it keeps out what the target has not read yet of a path that is fenced off.
func (op *reserveOp) whenNothingIsKeptOut(then func()) {
	d := op.d
	until := d.keptOut()
	free := func() bool { return d.keptOut() <= d.loop.Now() }
	if free() {
		then()
		return
	}
	d.cfg.Logger.Info("the reservation is kept for now: it keeps out what a lost path may have left behind", "operation", op.name,
		"for_at_most", time.Duration(until-d.loop.Now()).Round(time.Second).String())
	op.until(free, func(bool) { then() })
	d.loop.SetTimer(&op.timer, until)
}
