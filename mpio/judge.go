package mpio

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Bounds on trying again. Whatever happens, every command ends.
const (
	maxTries     = 8                // answers that call for another try at once ...
	triesPerPath = 4                // ... or as many for each path, if that is more; see mostTries
	maxLosses    = 10               // sessions lost under one command ...
	lossPatience = 30 * time.Second // ... over at least this time: then the command itself may be what kills them
	firstPause   = 10 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

// CommandDone implements session.Completer.
func (d *Device) CommandDone(c *session.Command) {
	o := c.User.(*io)
	p := o.path
	now := d.loop.Now()
	p.land(o)
	p.hedge.unseen = 0
	if c.Err == nil && c.Status == scsi.Good && p.trusts(o) && o.complete() {
		p.succeeded(o, now, now-o.sentAt)
		if o.kind == kindRead {
			d.hedges.earn()
		}
		if d.moveTokens < moveBurst {
			d.moveTokens += moveShare
		}
		d.succeed(o)
	} else {
		d.judge(o, p, now)
	}
	if d.queue.head != nil {
		d.kick()
	}
}

// succeed completes o, or goes on with what is left of it.
func (d *Device) succeed(o *io) {
	if o.kind == kindZero {
		o.done += uint64(len(o.cmd.Data)) >> d.geo.shift
		if o.done < o.blocks {
			d.stored(o)
			d.begin(o)
			return
		}
	}
	d.finish(o, d.settleCache(o))
}

// judge decides what becomes of a command that did not plainly succeed.
func (d *Device) judge(o *io, p *path, now int64) {
	c := &o.cmd
	if o.failed == 0 {
		o.failed = max(now, 1)
	}
	if c.Err != nil {
		d.lost(o, p, c.Err, now)
		return
	}
	var sense scsi.Sense
	if c.Status == scsi.CheckCondition {
		sense, _ = scsi.ParseSense(c.Sense)
	}
	remedy := scsi.Classify(c.Status, sense)
	if remedy == scsi.RemedyNone {
		d.judgeSuccess(o, p, now)
		return
	}
	answer := &scsi.CommandError{Op: c.CDB.Opcode(), Status: c.Status, Sense: sense}
	p.stat.lastError = answer
	if c.Status == scsi.ReservationConflict {
		d.conflicted(o, p)
		return
	}
	doubted := !p.trusts(o) // before this answer
	refused := d.noteSense(p, sense, remedy)
	switch {
	case doubted:
		d.disbelieve(o, p) // it may be another unit that cannot do it
	case refused:
		d.reroute(o, p, now, answer)
	case sense.Key == scsi.KeyIllegalRequest && sense.Code == scsi.ASCLBAOutOfRange && !d.pastEnd(o):
		d.elsewhere(o, p, answer) // this path may not know yet that the unit grew
	case o.kind == kindSync && d.caps.synced && d.refusesForm(o, sense):
		d.elsewhere(o, p, answer) // the unit can do it: it must not be given up for good
	case d.refusesForm(o, sense) && d.fallBack(o):
	default:
		d.remedy(o, p, now, remedy, answer)
	}
}

// remedy does about an answer what its status and sense data call for.
func (d *Device) remedy(o *io, p *path, now int64, remedy scsi.Remedy, answer *scsi.CommandError) {
	sense := answer.Sense
	if sense.FailedToStore() && (o.kind == kindSync || o.fua) {
		d.loseCache(p, fmt.Sprintf("%v failed (%v), and what it was to store may have been dropped", o.kind, sense))
		if remedy == scsi.GiveUp {
			d.cache.toldBy(o)
		}
	}
	switch remedy {
	case scsi.RetryHere:
		d.again(o, p, now, answer)
	case scsi.Wait:
		o.avoid |= p.bit // if another path is active, that one need not wait
		d.later(o, p, now, d.cfg.WaitTimeout, answer)
	case scsi.OtherPath:
		if sense.Key != scsi.KeyNotReady { // the check, or ALUA, says more about that
			p.health.errors++
		}
		d.elsewhere(o, p, answer)
	default:
		d.giveUp(o, p, answer)
	}
}

// raisesDoubt reports whether sense calls in question what is behind the path:
// a reset, other LUNs or another size, a unit that is gone or shorter than
// known, a controller that does not serve it. The check says whether it lasts.
func raisesDoubt(s scsi.Sense, r scsi.Remedy) bool {
	switch s.Key {
	case scsi.KeyIllegalRequest:
		return r == scsi.OtherPath || s.Code == scsi.ASCLBAOutOfRange
	case scsi.KeyNotReady:
		return r == scsi.OtherPath
	}
	return s.IdentityMayHaveChanged() || s.CapacityMayHaveChanged()
}

// judgeSuccess handles an answer that means success but cannot be taken as such.
func (d *Device) judgeSuccess(o *io, p *path, now int64) {
	switch {
	case !p.trusts(o):
		d.disbelieve(o, p)
	case !o.complete():
		c := &o.cmd
		moved := len(c.Data) - int(c.Residual)
		if o.kind == kindRead {
			moved = c.Received
		}
		p.health.errors++
		d.elsewhere(o, p, fmt.Errorf("%v of %d bytes was answered GOOD but moved %d", o.kind, len(c.Data), moved))
	default: // recovered error, condition met
		p.succeeded(o, now, now-o.sentAt)
		d.succeed(o)
	}
}

// disbelieve sends o again that was answered over a path which has to prove anew where it
// leads, or had to since o was sent. What it delivered may be another unit's, and so may the error.
func (d *Device) disbelieve(o *io, p *path) {
	p.stat.retries++
	d.retryNow(o)
}

// refusesForm reports whether the target rejected the command as such, so that
// another form of it may do: an unknown operation code, or a field of an
// optional command that it does not know.
func (d *Device) refusesForm(o *io, s scsi.Sense) bool {
	if s.Key != scsi.KeyIllegalRequest {
		return false
	}
	switch s.Code {
	case scsi.ASCInvalidOpcode:
		return true
	case scsi.ASCInvalidFieldInCDB, scsi.ASCInvalidFieldInParameters:
		return o.kind == kindUnmap || o.kind == kindSame || o.fua
	}
	return false
}

// lost handles a command whose session was lost under it. Where bytes of a
// write left this host its fate is unknown.
func (d *Device) lost(o *io, p *path, err *session.Error, now int64) {
	p.stat.lastError = err
	response := err.Kind == session.KindResponse
	if !response && !err.Settled {
		p.linkLost(err)
	}
	// A settled one is over at the target, though its outcome is not known.
	if err.Sent && !err.Settled && o.kind.changes() {
		if d.raise(o, p, now, false) != nil {
			p.raised++
		}
	}
	if err.Kind == session.KindAborted {
		o.avoid |= p.bit // it hung there: elsewhere first
	}
	o.losses++
	p.stat.retries++
	switch {
	case o.losses > maxLosses && now-o.failed >= int64(lossPatience):
		d.giveUp(o, p, fmt.Errorf("%d sessions were lost under it, the last with: %w", o.losses, err))
	case d.cfg.Shared && o.ghosts > 0 && !d.forced && !d.failing:
		d.settling.pushBack(o)
	default:
		d.retryNow(o)
	}
	if response {
		// The target gave an answer that does not say whether the command was
		// executed. A new session settles that.
		p.sess.Drop(err)
	}
}

// again sends o once more: at once after a CHECK CONDITION, which is news about
// something else, and after a pause if the target is busy.
func (d *Device) again(o *io, p *path, now int64, err *scsi.CommandError) {
	if err.Status != scsi.CheckCondition {
		if err.Status == scsi.TaskSetFull {
			p.throttle()
		}
		d.later(o, p, now, d.cfg.RetryTimeout, err)
		return
	}
	if o.tries++; int(o.tries) > d.mostTries() {
		d.giveUp(o, p, fmt.Errorf("after %d tries: %w", o.tries, err))
		return
	}
	p.stat.retries++
	d.retryNow(o)
}

// mostTries is how many answers that are about something else one command may
// meet: each path has its own unit attentions of a change, some of which take it out
// of use, so that the command meets those of the next path.
func (d *Device) mostTries() int {
	return min(max(maxTries, triesPerPath*len(d.paths)), math.MaxUint8-1)
}

// later sends o again after a pause that grows, until patience is over.
func (d *Device) later(o *io, p *path, now int64, patience time.Duration, err error) {
	if o.trouble == 0 {
		o.trouble = max(now, 1)
	}
	if now-o.trouble >= int64(patience) {
		d.giveUp(o, p, fmt.Errorf("for %v: %w", patience, err))
		return
	}
	p.stat.retries++
	pause := min(firstPause<<min(o.backoff, 10), longestPause)
	o.backoff = min(o.backoff+1, 10)
	d.retryAfter(o, pause)
}

// elsewhere sends o over another path; with one path only, over that once more. A
// path that is out of use for its answer does not count among those that were tried
// in vain: its check decides about it, and o waits if no other is left.
func (d *Device) elsewhere(o *io, p *path, err error) {
	p.stat.errors++
	o.avoid |= p.bit
	most := d.mostTries()
	if p.usable() {
		most = min(2*d.usable, most)
	}
	if o.tries++; int(o.tries) > most {
		d.giveUp(o, p, fmt.Errorf("after %d tries: %w", o.tries, err))
		return
	}
	p.stat.retries++
	p.tell(&p.mutedRetries, Event{Kind: Retried, Text: "tried again elsewhere", Err: err})
	d.retryNow(o)
}

// giveUp fails o with the error of a block device that fits best.
func (d *Device) giveUp(o *io, p *path, cause error) {
	p.stat.errors++
	as := block.ErrIO
	if d.pastEnd(o) {
		as = block.ErrRange // the unit shrank under it
	}
	if e, ok := errors.AsType[*scsi.CommandError](cause); ok && e.Sense.Key == scsi.KeyDataProtect {
		switch {
		case e.Sense.Code == scsi.ASCSpaceAllocationFailed:
			as = block.ErrNoSpace
		case e.Sense.Code>>8 == scsi.ASCWriteProtected>>8:
			as = block.ErrReadOnly
		}
	}
	err := fmt.Errorf("%w: %v of %d blocks at %d over %s: %w", as, o.kind, o.blocks, o.lba, p.cfg.Portal, cause)
	p.tell(&p.mutedFailures, Event{Kind: RequestFailed, Text: "a command was given up", Err: err})
	d.finish(o, err)
}

// doubt stops using p for new commands until the unit behind it was looked at again.
func (p *path) doubt(why string) { p.lookAgain("the target reported: " + why) }

// lookAgain is doubt for a reason of our own.
func (p *path) lookAgain(why string) {
	if !p.logged || p.quarantined {
		return
	}
	p.verified, p.failedCheck, p.partial = false, false, false
	p.refresh(why, nil)
	p.startCheck(why)
}
