package mpio

import (
	"fmt"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// cacheWatch guards the promise of a flush: that every write answered before it
// is durable. A unit with a volatile write cache answers writes it only has in
// memory. If it loses that memory (power, an internal reset), the next flush would
// succeed, for nothing is left to write, and nobody would learn of the loss. So
// once the unit reports such an event while answered writes were not flushed, the
// flushes under way fail and, unless these cover all of it, the next one, once: what
// uses the device then knows that its state on the medium is not what it believes, as
// after any other failed flush.
//
// What was under way then, sent before and answered after, may have been lost with it; so
// may the part of a larger request that was answered before. For these the next flush
// after the answer to the request fails as well.
//
// What counts as such a report, and what does not, is in docs/recovery.md.
type cacheWatch struct {
	off      bool   // the unit says that its write cache is off
	answered uint64 // changes of the medium answered to the caller that no FUA made durable
	durable  uint64 // how many of them a flush has covered
	lost     error  // what the next flush fails with, nil: nothing was lost
	lostAt   uint64 // answered, when that was reported
	losses   uint32 // reports of a loss so far
	era      uint32 // the same, and those when nothing that was answered was in the cache
	seen     sighting
	cut      bool // every session was lost while changes were not flushed
}

// dirty is how many answered changes may be in a volatile cache only.
func (d *Device) dirty() uint64 {
	w := &d.cache
	if w.off || d.caps.noSync {
		return 0
	}
	return w.answered - w.durable
}

// settleCache keeps book of o, which succeeded at the target. The error is what
// o fails with all the same.
func (d *Device) settleCache(o *io) error {
	w := &d.cache
	if o.kind.changes() {
		d.stored(o)
		return nil
	}
	if o.kind != kindSync {
		return nil
	}
	d.caps.synced = true
	w.durable = max(w.durable, o.mark)
	if w.durable == w.answered {
		w.cut = false
	}
	// The flush after a write that wanted FUA: its own data is in question only if the
	// loss came after that was written.
	var err error
	switch {
	case o.req.stored && o.req.era != w.era, !o.req.stored && o.req.losses != w.losses:
		err = w.lossError()
	case o.req.req.Op == block.OpFlush:
		err, w.lost = w.lost, nil
	}
	w.toldBy(o)
	return err
}

// toldBy takes the failure of o for the one flush that has to fail, if it was asked for
// after all that was lost had been answered.
func (w *cacheWatch) toldBy(o *io) {
	if o.kind == kindSync && o.req.req.Op == block.OpFlush && o.req.answered >= w.lostAt {
		w.lost = nil
	}
}

// stored notes that the target answered o, or a step of it.
func (d *Device) stored(o *io) {
	if o.fua {
		return
	}
	w := &d.cache
	w.answered++
	if q := o.req; !q.stored || o.era != w.era {
		q.stored, q.era = true, o.era
	}
}

// settleStored is told of the answer to a changing request, of which the cache may have
// lost a part before: no flush that was asked for earlier covers it.
func (d *Device) settleStored(q *request) {
	w := &d.cache
	if !q.stored || q.err != nil || q.era == w.era {
		return
	}
	told := w.lost != nil
	w.lost, w.lostAt = w.lossError(), w.answered
	if !told {
		d.emit(Event{Kind: CacheLost, Count: 1, Err: w.lost, Text: "a write that was under way then may be lost: the next flush fails"})
	}
}

func (w *cacheWatch) lossError() error {
	if w.lost != nil {
		return w.lost
	}
	return fmt.Errorf("%w: the unit's write cache was lost with the data in it", block.ErrIO)
}

// loseCache notes that what the cache held is gone.
func (d *Device) loseCache(p *path, why string) {
	w := &d.cache
	if w.off || d.caps.noSync {
		return
	}
	w.era++
	n := d.dirty()
	if n == 0 {
		return
	}
	w.lost = fmt.Errorf("%w: %s, with %s answered since the last flush that may be lost; check the file system", block.ErrIO, why, counted(n, "write"))
	w.losses++
	w.lostAt = w.answered
	w.durable = w.answered // those are given up; what comes now counts anew
	w.cut = false
	d.emit(Event{Kind: CacheLost, Path: p.cfg.ID, State: p.state, Count: int(min(n, 1<<30)), Err: w.lost, Text: "answered writes may be lost: flushes under way fail, or else the next one"})
}

// resetSeen judges a UNIT ATTENTION 29/xx on p.
func (d *Device) resetSeen(p *path, code scsi.ASC) {
	w := &d.cache
	expected := p.expectReset
	p.expectReset = false
	switch code {
	case scsi.ASCPowerOn, scsi.ASCDeviceInternalReset:
		// Of a nexus that was never used before it may be about the distant past.
		if !p.met {
			return
		}
	case scsi.ASCPowerOnOrReset:
		switch {
		case expected: // this device asked for it
			return
		case !p.introduced:
			// Most targets greet every new session with it.
			d.mayHaveRestarted(p)
			return
		}
	default:
		return // a reset of unit, port or nexus does not switch the power off
	}
	at := w.seen.at
	if !w.seen.fresh(p, d.loop.Now()) {
		if !d.another(p, at) {
			return
		}
		w.seen = sighting{paths: p.bit, at: d.loop.Now()}
	}
	d.loseCache(p, fmt.Sprintf("the target reported %v", code))
}

// another reports whether what p tells of may have happened after what was told of at the
// given time: if a command over p went well since, which would have brought the news of
// that, or if no session has lasted since then, so that power may have been lost again.
func (d *Device) another(p *path, at int64) bool {
	if p.wellAt > at {
		return true
	}
	for _, q := range d.paths {
		if q.logged && !q.silent && q.loginAt <= at {
			return false
		}
	}
	return true
}

// mayHaveRestarted says so where nothing speaks against it.
func (d *Device) mayHaveRestarted(p *path) {
	if n := d.dirty(); n > 0 && d.cache.cut {
		d.cache.cut = false
		d.emit(Event{
			Kind: CacheDoubted, Path: p.cfg.ID, State: p.state, Count: int(min(n, 1<<30)),
			Text: fmt.Sprintf("every session was lost with %s answered since the last flush, and the target does not say whether it lost power meanwhile; if it did, check the file system", counted(n, "write")),
		})
	}
}

// noteCut notes that a session was lost.
func (d *Device) noteCut() {
	for _, p := range d.paths {
		if p.logged {
			return
		}
	}
	d.cache.cut = d.dirty() > 0
}
