package mpio

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// identified takes the result of a check: the first makes the device, every
// other has to prove that it is about the same unit.
func (d *Device) identified(p *path, ins *inspection) {
	p.learnAccess(ins)
	switch {
	case ins.absent && !p.access.held():
		p.check.repeat(fmt.Errorf("%w now: it is known, but not connected", ErrNoSuchLUN))
		return
	case ins.absent, !ins.identity.Capacity.Known():
		d.half(p, ins)
		return
	}
	p.partial = false
	if !d.ready {
		if err := d.adopt(p, ins); err != nil {
			p.check.fail(err)
			return
		}
		d.learnSize(p, ins)
		p.admit("identified as " + d.identity.String())
		d.emit(Event{Kind: DeviceReady, Path: p.cfg.ID, State: p.state, Text: d.identity.String() + ": " + d.caps.String()})
		return
	}
	if err := d.samePath(p, ins); err != nil {
		if p.detour.via != "" {
			p.leaveDetour("nothing was learned")
			return
		}
		if !d.shrank(p, ins) {
			p.quarantine(err)
		}
		return
	}
	if ins.identity.Strength() < d.identity.Strength() {
		p.check.fail(fmt.Errorf("%w than is known: it does not name %s", ErrLessIdentity, d.identity.Name()))
		return
	}
	d.learnIdentity(p, ins.identity)
	d.learnSize(p, ins)
	if n := transferBlocks(&d.cfg, &ins.limits, d.geo.blockSize); n < d.geo.maxBlocks {
		d.geo.maxBlocks = n
		d.publish()
	}
	p.admit("identified as the same unit")
}

// learnIdentity takes over what p tells of the unit that was not known before, so that
// a path that contradicts that is found out. Paths that were let in while less was known
// have to show it, too: a unit names itself in the same way on every path (SPC-4 §7.8.6).
func (d *Device) learnIdentity(p *path, id scsi.Identity) {
	if id.Strength() <= d.identity.Strength() {
		return
	}
	d.identity.Designators = id.Designators
	if d.identity.Serial == "" {
		d.identity.Serial = id.Serial
	}
	for _, q := range d.paths {
		if q != p && q.logged && q.verified {
			q.lookAgain("more is known of the unit's identity, by path " + p.cfg.ID)
		}
	}
}

// half takes a check that the access state of the path cut short: nothing may
// be read or written over it before the rest is known, which is checked when its
// port group carries I/O.
func (d *Device) half(p *path, ins *inspection) {
	if p.detour.via != "" {
		p.leaveDetour("nothing was learned")
		return
	}
	if p.relic {
		p.check.fail(errors.New("the target port group does not tell what the unit is now"))
		return
	}
	if d.ready {
		if match, why := scsi.SameUnit(d.identity, ins.identity); match == scsi.Different {
			p.quarantine(fmt.Errorf("%w: %s instead of %s: %s", ErrOtherUnit, ins.identity, d.identity, why))
			return
		}
	}
	p.partial, p.verified, p.failedCheck, p.quarantined = true, false, false, false
	p.refresh("", nil)
	d.kick()
}

// quarantine takes p out of use for good, or until it is told to try again. What is
// in flight on it is not trusted.
func (p *path) quarantine(err error) {
	p.quarantined, p.verified, p.partial = true, false, false
	p.refresh(err.Error()+"; it is not used: check how the target's portals are mapped", err)
}

// admit lets p carry I/O, once it is registered where this host is.
func (p *path) admit(why string) {
	if p.detour.via == "" {
		p.listed = !p.relic // before what an earlier process left is taken off the list
	}
	p.settleReinstated()
	p.rsv.ended = p.chain
	p.rsv.endedBy = p.gen
	switch {
	case p.relic:
		p.dev.retire(p)
	case p.detour.via != "":
		p.leaveDetour("the old session was ended")
		p.dev.pokeReserve()
	case !p.dev.enroll(p, why):
		p.join(why)
	}
}

// join lets p carry I/O, once its session is noted for a restart.
func (p *path) join(why string) {
	if !p.dev.noted(p, why) {
		return
	}
	if !p.verified {
		p.trusted = p.dev.loop.Now()
	}
	p.verified, p.failedCheck, p.quarantined = true, false, false
	p.introduced, p.met = true, true
	p.judgeReturn()
	p.refresh(why, nil)
	p.dev.considerGrowth(p)
	p.dev.considerProtection()
	p.dev.pokeReserve()
	p.dev.kick()
}

// samePath compares what is behind p with the device's unit.
func (d *Device) samePath(p *path, ins *inspection) error {
	id := ins.identity
	match, why := scsi.SameUnit(d.identity, id)
	if match == scsi.Different && id.Capacity.LastLBA > d.identity.Capacity.LastLBA && d.otherwiseSame(p, id) {
		return nil // safe within the size the device has; see considerGrowth
	}
	switch {
	case match == scsi.Same:
		return nil
	case match == scsi.Unproven && p.cfg.Target == d.target:
		return nil // same target name and LUN is the second proof
	case match == scsi.Unproven:
		return fmt.Errorf("%w, or at least it is not proven to be %s: %s, and the target names differ", ErrOtherUnit, d.identity.Name(), why)
	}
	return fmt.Errorf("%w: %s instead of %s: %s", ErrOtherUnit, id, d.identity, why)
}

// transferBlocks is the most blocks of one READ or WRITE.
func transferBlocks(cfg *Config, l *scsi.BlockLimits, blockSize uint32) uint64 {
	n := uint64(cfg.MaxTransfer / blockSize)
	if l.MaxTransfer > 0 {
		n = min(n, uint64(l.MaxTransfer))
	}
	return max(n, 1)
}

// adopt takes the device's identity and geometry from its first path.
func (d *Device) adopt(p *path, ins *inspection) error {
	capacity := ins.identity.Capacity
	bs := capacity.BlockSize
	if bs < 512 || bs > 64<<10 || bits.OnesCount32(bs) != 1 {
		return fmt.Errorf("%w: %d bytes; it must be a power of two from 512 to 65536: reformat or re-export the unit", ErrBlockSize, bs)
	}
	d.identity, d.target, d.quirks = ins.identity, p.cfg.Target, ins.quirks
	d.geo = geometry{
		size: capacity.Bytes(), blockSize: bs, shift: uint(bits.TrailingZeros32(bs)),
		maxBlocks: transferBlocks(&d.cfg, &ins.limits, bs),
		readOnly:  d.cfg.ReadOnly || ins.writeProtected,
	}
	d.zeros = make([]byte, min(zeroChunkBytes, d.geo.maxBlocks*uint64(bs)))
	d.fence.init(bs)
	d.learnFeatures(ins)
	d.ready = true
	d.pub.Store(&block.Geometry{
		Size: d.geo.size, BlockSize: bs,
		PhysicalBlock: uint32(min(capacity.PhysicalBlockSize(), 1<<30)),
		OptimalIO:     uint32(min(uint64(ins.limits.OptimalTransfer)*uint64(bs), maxTransferCap)),
		ReadOnly:      d.geo.readOnly,
		Rotational:    ins.characteristics.RotationRate > scsi.RotationNonRotating,
	})
	d.publish()
	return nil
}
