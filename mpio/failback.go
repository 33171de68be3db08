package mpio

import (
	"fmt"
	"math/bits"
	"time"
)

// FailbackManual is the value of Config.Failback that leaves I/O where it is
// until it is moved by hand.
const FailbackManual time.Duration = -1

// failback decides whether I/O that had to leave a path returns to it once it is
// back. It concerns only paths that were left (path.lapsed): one that comes up for
// the first time, or gets a better priority by hand, takes over at once. And it
// concerns only I/O that is well off where it is: from a path that is merely
// suspect it goes to the better one at once.
type failback struct {
	since int64 // loop time since when a better path has been back without a break, 0 = there is none
	until int64 // loop time when I/O will return to it, 0 = by hand
}

// SetFailback changes Config.Failback of the live device.
func (d *Device) SetFailback(after time.Duration) error {
	if after < 0 && after != FailbackManual {
		return fmt.Errorf("mpio: failback after %v: must not be negative", after)
	}
	d.cfg.Failback = after
	d.regroup()
	d.kick()
	return nil
}

// FailbackName is a value of Config.Failback in the words of multipath.conf.
func FailbackName(after time.Duration) string {
	switch {
	case after < 0:
		return "manual"
	case after == 0:
		return "immediate"
	}
	return "after " + after.String()
}

// failBack makes I/O return at once, by hand, to those of the paths that are better.
func (d *Device) failBack(paths ...*path) {
	for _, p := range paths {
		p.lapsed = false
	}
	d.regroup()
}

// noteLapse keeps book of whether p carried I/O and then failed. A path whose
// unit is merely looked at again, as after a unit attention, has not; nor has one
// that the target put in standby, since the target calls it back, too.
func (p *path) noteLapse(carries bool) {
	switch {
	case carries:
		p.carried, p.lapsed = true, false
	case p.carried && p.state != StateUp && p.state != StateChecking && p.state != StateStandby:
		p.carried, p.lapsed = false, true
	}
}

// holdBack gives the path whose group carries I/O: best, the first path of the
// best group, or the one in use while I/O is held back from better ones. It arms
// the timer for the moment when that ends.
func (d *Device) holdBack(best *path) *path {
	cur := d.inUse()
	if cur == nil || !d.outranks(best, cur) {
		return d.endHold(best)
	}
	if !d.onlyLapsed(cur) {
		return d.failedBack(best)
	}
	now := d.loop.Now()
	if d.failback.since == 0 {
		d.failback.since = now
	}
	if d.cfg.Failback < 0 {
		d.failback.until = 0
		d.loop.StopTimer(&d.failbackTimer)
		return cur
	}
	until := d.failback.since + int64(d.cfg.Failback)
	if now >= until {
		return d.failedBack(best)
	}
	d.failback.until = until
	d.loop.SetTimer(&d.failbackTimer, until)
	return cur
}

// failedBack ends a hold by what it was for. Where there is none, best is better,
// but was not left before.
func (d *Device) failedBack(best *path) *path {
	if d.failback.since != 0 {
		d.emit(Event{Kind: FailedBack, Path: best.cfg.ID, State: best.state, Text: "I/O returned to the better path"})
	}
	return d.endHold(best)
}

func (d *Device) endHold(best *path) *path {
	if d.failback.since != 0 {
		d.failback = failback{}
		d.loop.StopTimer(&d.failbackTimer)
	}
	return best
}

// inUse is a path that carries I/O and is well; nil if there is none.
func (d *Device) inUse() *path {
	for _, p := range d.active {
		if p.usable() && p.state == StateUp {
			return p
		}
	}
	return nil
}

// outranks reports whether p would carry I/O rather than cur.
func (d *Device) outranks(p, cur *path) bool {
	switch d.sel.reach() {
	case reachAll:
		return false
	case reachOne:
		if p.group() == cur.group() {
			return p.index() < cur.index()
		}
	}
	return p.group().better(cur.group())
}

// index is the place of p in the order in which paths were added.
func (p *path) index() int { return bits.TrailingZeros64(p.bit) }

// onlyLapsed reports whether every path better than cur was in use before.
func (d *Device) onlyLapsed(cur *path) bool {
	for _, p := range d.paths {
		if p.usable() && !p.lapsed && d.outranks(p, cur) {
			return false
		}
	}
	return true
}

func (d *Device) onFailbackTimer() {
	d.regroup()
	d.kick()
}

// failbackPending reports whether I/O is held back, and for how many seconds more.
func (d *Device) failbackPending(now int64) (pending bool, left float64) {
	f := &d.failback
	switch {
	case f.since == 0:
		return false, 0
	case f.until == 0:
		return true, -1
	}
	return true, max(0, seconds(f.until-now))
}
