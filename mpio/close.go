package mpio

import (
	"fmt"
	"time"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
)

// closeFlushTimeout bounds the last flush, so that an unwilling target cannot
// keep the process.
const closeFlushTimeout = 30 * time.Second

// Close ends the device: new requests are refused with block.ErrClosed, those
// in flight and waiting are completed, the unit's cache is flushed (if no path is
// left, only where something was written since the last flush), every session logs out, and then done is called on the loop, with the error of the
// flush if there was one. With force requests are not waited for: they fail
// with block.ErrClosed, and nothing is flushed. Calling it again with force
// hurries a close under way; every done is called.
func (d *Device) Close(force bool, done func(error)) {
	if done != nil {
		d.onClosed = append(d.onClosed, done)
	}
	switch {
	case d.closeDone:
		if !d.memory.final {
			d.tellClosed()
		}
		return
	case !d.closing:
		d.closing = true
	case !force || d.forced:
		return
	}
	if force {
		d.forced = true
		d.failWaiting(func(*io) error { return errForced })
		d.closeSessions()
	}
	d.closeStep()
}

// closeStep goes on with a close as far as it can.
func (d *Device) closeStep() {
	if !d.closing || d.closeDone {
		return
	}
	if d.open > 0 && !d.forced {
		return
	}
	if !d.closeSync && !d.closeSent && d.needsLastFlush() {
		d.closeSync = true
		d.loop.SetTimer(&d.closeTimer, d.loop.Now()+int64(closeFlushTimeout))
		d.lastFlush()
		return
	}
	d.closeSessions()
	for _, l := range [][]*path{d.paths, d.memory.relics} {
		for _, p := range l {
			if !p.closed {
				return
			}
		}
	}
	if d.open > 0 {
		return
	}
	d.closed()
}

// needsLastFlush reports whether the unit's cache is to be flushed. Where no path
// is left it is not, if nothing was written that a flush would be about: nobody
// then has to wait for a path.
func (d *Device) needsLastFlush() bool {
	if !d.ready || d.caps.noSync || d.geo.readOnly && d.dirty() == 0 {
		return false
	}
	return d.usable > 0 || d.dirty() > 0 || d.cache.lost != nil || len(d.ghosts) > 0
}

// lastFlush flushes past the refusal of new requests.
func (d *Device) lastFlush() {
	q := d.newRequest(&block.Request{Op: block.OpFlush, Owner: flushOwner{d}})
	q.kind, q.end, q.step = kindSync, 1, 1
	q.advance(d)
}

// flushOwner takes the outcome of the last flush.
type flushOwner struct{ d *Device }

func (f flushOwner) RequestDone(r *block.Request) {
	if r.Err != nil && !f.d.forced {
		f.d.closeErr = fmt.Errorf("flush before logging out: %w", r.Err)
	}
}

// onCloseTimer gives up the last flush.
func (d *Device) onCloseTimer() {
	if d.open > 0 && !d.closeSent {
		d.closeErr = fmt.Errorf("%w: the flush before logging out was not answered for %v", block.ErrIO, closeFlushTimeout)
		d.forced = true
		d.failWaiting(func(*io) error { return errForced })
		d.closeSessions()
	}
	d.closeStep()
}

// closeSessions logs out everywhere; SessionClosed leads back to closeStep.
func (d *Device) closeSessions() {
	if d.closeSent {
		return
	}
	d.closeSent = true
	for _, p := range d.paths {
		p.stopCheck()
		p.sess.Close()
	}
	for _, r := range d.memory.relics {
		d.retire(r)
	}
}

// closed is the end.
func (d *Device) closed() {
	if d.closeDone {
		return
	}
	d.closeDone = true
	d.closeReserve()
	d.failing, d.noPathSince = false, 0
	for _, t := range []*loop.Timer{&d.tick, &d.retryTimer, &d.noPathTimer, &d.fenceTimer, &d.closeTimer, &d.failbackTimer, &d.hedges.timer, &d.careTimer, &d.activation.timer} {
		d.loop.StopTimer(t)
	}
	text := "closed"
	if n := len(d.ghosts); n > 0 {
		text = fmt.Sprintf("closed with %s of unknown outcome: the target may still execute what it has", counted(n, "write"))
	}
	d.emit(Event{Kind: DeviceClosed, Count: len(d.ghosts), Text: text, Err: d.closeErr})
	d.forget()
}

func (d *Device) tellClosed() {
	list := d.onClosed
	d.onClosed = nil
	for _, done := range list {
		done(d.closeErr)
	}
}
