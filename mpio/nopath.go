package mpio

import (
	"fmt"
	"strings"
	"time"

	"github.com/iscsimp/iscsimp/internal/block"
)

// errForced completes what was still open when the device was closed by force.
var errForced = fmt.Errorf("%w: by force, before this request was answered", block.ErrClosed)

// pathsChanged starts or ends the countdown of a device without a usable path.
func (d *Device) pathsChanged() {
	if len(d.active) > 0 {
		d.activation.rescued()
		if d.noPathSince == 0 {
			return
		}
		waited := time.Duration(d.loop.Now() - d.noPathSince)
		d.noPathSince, d.failing, d.backSince = 0, false, d.loop.Now()
		d.loop.StopTimer(&d.noPathTimer)
		if d.noPathTold {
			d.noPathTold = false
			d.emit(Event{
				Kind: PathsBack, Path: d.active[0].cfg.ID, Count: d.waiting(),
				Text: fmt.Sprintf("a path is usable again after %v", waited.Round(time.Millisecond)),
			})
		}
		return
	}
	d.activation.look()
	if !d.ready || d.closeSent {
		return
	}
	if d.noPathSince == 0 {
		d.noPathSince = max(d.loop.Now(), 1)
		d.accessUrgent()
		switch {
		case d.cfg.FailFast:
			d.loop.SetTimer(&d.noPathTimer, d.loop.Now())
		case d.cfg.NoPathTimeout > 0:
			d.loop.SetTimer(&d.noPathTimer, d.loop.Now()+int64(d.cfg.NoPathTimeout))
		}
	}
	if !d.noPathTold && !d.anyChecking() {
		d.noPathTold = true
		d.emit(Event{Kind: NoPath, Count: d.waiting(), Text: d.noPathText()})
	}
}

// anyChecking reports whether a path is about to be usable: a short check
// should not raise an alarm.
func (d *Device) anyChecking() bool {
	for _, p := range d.paths {
		if p.state == StateChecking {
			return true
		}
	}
	return false
}

func (d *Device) noPathText() string {
	switch {
	case d.cfg.FailFast:
		return "no usable path: requests fail at once"
	case d.cfg.NoPathTimeout < 0:
		return "no usable path: requests wait for ever"
	}
	return fmt.Sprintf("no usable path: requests wait for up to %v", d.cfg.NoPathTimeout)
}

// onNoPathTimer fails everything that waits; new requests fail at once until a
// path is back.
func (d *Device) onNoPathTimer() {
	if d.noPathSince == 0 {
		return
	}
	if d.cfg.FailFast && !d.failing && d.anyChecking() {
		// A check takes milliseconds, or ends by its own timeout.
		d.loop.SetTimer(&d.noPathTimer, d.loop.Now()+int64(tickQueued))
		return
	}
	if until := d.transitionEnds(); !d.failing && until > d.loop.Now() && until <= d.noPathSince+d.longestWait() {
		d.loop.SetTimer(&d.noPathTimer, until) // the target asked for that time
		return
	}
	d.failing = true
	for _, p := range d.paths {
		if p.state == StateStandby {
			p.refresh("", nil) // a transition may be past its deadline by now
		}
	}
	n := d.waiting()
	d.emit(Event{
		Kind: NoPathExpired, Count: n, Err: block.ErrIO,
		Text: fmt.Sprintf("no usable path for %v: requests fail until one is back", time.Duration(d.loop.Now()-d.noPathSince).Round(time.Millisecond)),
	})
	d.failWaiting(d.noPathError)
}

// waiting is the number of commands that are with no path.
func (d *Device) waiting() int {
	n := d.live
	for _, p := range d.paths {
		n -= p.inflight
	}
	return n
}

// failWaiting completes every command that is with no path. Completing one may
// let others go or bring new ones in, hence one at a time.
func (d *Device) failWaiting(why func(*io) error) {
	for o := d.anyWaiting(); o != nil; o = d.anyWaiting() {
		o.list.remove(o)
		d.finish(o, why(o))
	}
	d.armRetryTimer()
}

// anyWaiting gives some command that is with no path, or nil.
func (d *Device) anyWaiting() *io {
	for _, l := range []*ioList{&d.queue, &d.delayed, &d.settling} {
		if l.head != nil {
			return l.head
		}
	}
	for _, p := range d.paths {
		for _, l := range []*ioList{&p.rsv.conflicts, &p.rsv.judging} {
			if l.head != nil {
				return l.head
			}
		}
	}
	for i := range d.fence.spans {
		if o := d.fence.spans[i].ext.io; o != nil && o.path == nil && o.list != nil {
			return o
		}
	}
	return nil
}

// noPathError says why o failed without a path, with the reason of each path.
func (d *Device) noPathError(o *io) error {
	var b strings.Builder
	for i, p := range d.paths {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s is %v (%s)", p.cfg.ID, p.state, p.reason)
	}
	return fmt.Errorf("%w: %v: no usable path: %s", block.ErrIO, o.kind, b.String())
}
