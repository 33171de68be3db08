package mpio

import (
	"fmt"

	"github.com/iscsimp/iscsimp/scsi"
)

// A unit may change its size while it is in use. Which one the device has is
// decided so that no command is ever sent past the end of what a path that
// carries I/O has shown:
//
// It grows when every verified path shows more than the device has, to the least
// of what they show. That the unit is still the same has to be beyond doubt, or the
// target has to have said by UNIT ATTENTION 2A/09 that it was resized.
//
// It shrinks only where the target said so by 2A/09, and when no path is left
// that shows more. A path that shows less without a word may lead to another unit
// with the same name, such as a copy, and is quarantined.

// learnSize takes what a check that passed says of the unit's size, and of what
// else may change while it is in use.
func (d *Device) learnSize(p *path, ins *inspection) {
	p.size, p.smaller = ins.identity.Capacity, scsi.Capacity{}
	if p.size.LastLBA == d.identity.Capacity.LastLBA {
		p.resized = false // what was reported is known
	}
	p.protected = ins.writeProtected
	if p.detour.via == "" && !p.relic {
		d.cache.off = ins.cacheOff
	}
}

// considerProtection makes the device read-only as long as every path that
// carries I/O leads to a unit that is write protected.
func (d *Device) considerProtection() {
	protected := true
	for _, q := range d.paths {
		if q.logged && q.verified && !q.quarantined {
			protected = protected && q.protected
		}
	}
	if ro := d.cfg.ReadOnly || protected; ro != d.geo.readOnly {
		d.geo.readOnly = ro
		g := *d.pub.Load()
		g.ReadOnly = ro
		d.pub.Store(&g)
		d.emit(Event{Kind: ProtectionChanged, Text: map[bool]string{
			true: "the unit is write protected now: writes are refused", false: "the unit is not write protected any more",
		}[ro]})
	}
}

// considerGrowth gives the device the size that every verified path shows.
func (d *Device) considerGrowth(p *path) {
	old := d.identity.Capacity
	least := p.size
	for _, q := range d.paths {
		if q.logged && q.verified && !q.quarantined && q.size.LastLBA < least.LastLBA {
			least = q.size
		}
	}
	switch {
	case !d.ready || !p.verified || p.size.LastLBA <= old.LastLBA:
	case least.LastLBA > old.LastLBA:
		d.setSize(least)
		d.emit(Event{
			Kind: CapacityChanged, Path: p.cfg.ID, State: p.state,
			Text: fmt.Sprintf("the unit grew from %v to %v: who connects from now on sees that", old, least),
		})
	default:
		d.emit(Event{
			Kind: CapacityChanged, Path: p.cfg.ID, State: p.state,
			Text: fmt.Sprintf("the unit has %v here; the device keeps %v until every path shows more", p.size, old),
		})
	}
}

// setSize changes the size for everybody. A path that was found to show another one than the
// device had, without a word, may be right now.
func (d *Device) setSize(c scsi.Capacity) {
	d.identity.Capacity = c
	d.geo.size = c.Bytes()
	g := *d.pub.Load()
	g.Size = d.geo.size
	d.pub.Store(&g)
	for _, q := range d.paths {
		if q.quarantined {
			q.startCheck("the device has another size now")
		}
	}
}

// otherwiseSame reports whether the unit behind p is the device's but for its
// size. Where that rests on the target's word that it was resized, the word has to
// have come over p itself, whose session has been at the unit all the time.
func (d *Device) otherwiseSame(p *path, id scsi.Identity) bool {
	if id.Capacity.BlockSize != d.identity.Capacity.BlockSize {
		return false
	}
	id.Capacity = d.identity.Capacity
	switch match, _ := scsi.SameUnit(d.identity, id); match {
	case scsi.Same:
		return true
	case scsi.Unproven:
		return p.resized && p.cfg.Target == d.target
	}
	return false
}

// shrank takes a check that showed less than the device has, and reports whether
// it was the target's word that the unit was resized. p is not used until the
// device has that size, too.
func (d *Device) shrank(p *path, ins *inspection) bool {
	id, old := ins.identity, d.identity.Capacity
	if !p.resized || p.relic || p.detour.via != "" || id.Capacity.LastLBA >= old.LastLBA || !d.otherwiseSame(p, id) {
		return false
	}
	p.smaller = id.Capacity
	p.verified, p.failedCheck = false, true
	p.refresh(fmt.Sprintf("the target says that the unit was resized and has %v; the device has %v, and another path may still show that", p.smaller, old), nil)
	p.check.after(recheckAfter, func() { p.startCheck("again") })
	d.compareSizes(p)
	d.considerShrink()
	return true
}

// compareSizes looks at the unit behind the other paths, which go on carrying I/O.
func (d *Device) compareSizes(p *path) {
	for _, q := range d.paths {
		if q != p && q.logged && q.verified && !q.quarantined {
			q.startCheck("its size is in question")
		}
	}
}

// considerShrink gives the device the largest size that is left, once no path shows more.
func (d *Device) considerShrink() {
	var most scsi.Capacity
	for _, q := range d.paths {
		switch {
		case !q.logged || q.offline || q.quarantined:
		case q.verified, q.state == StateChecking:
			return
		case q.smaller.Known() && (!most.Known() || q.smaller.LastLBA > most.LastLBA):
			most = q.smaller
		}
	}
	old := d.identity.Capacity
	if !most.Known() || most.LastLBA >= old.LastLBA {
		return
	}
	d.setSize(most)
	d.emit(Event{
		Kind: CapacityChanged,
		Text: fmt.Sprintf("the unit shrank from %v to %v: what was past that is gone, and requests for it fail", old, most),
	})
	for _, q := range d.paths {
		if q.smaller == most && q.logged && !q.verified {
			q.startCheck("the device has its size now")
		}
	}
}

// pastEnd reports whether o reaches past the end of the unit as it is now.
func (d *Device) pastEnd(o *io) bool {
	return o.kind != kindSync && o.lba+o.blocks > d.geo.size>>d.geo.shift
}
