package mpio

import (
	"encoding/binary"
	"fmt"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// features is what the unit can do, as far as it proved it. What a target
// refuses with "invalid operation code" is switched off for good.
type features struct {
	fua        bool // READ and WRITE take the FUA bit (MODE SENSE DPOFUA)
	noSync     bool // no SYNCHRONIZE CACHE: nothing is cached
	synced     bool // SYNCHRONIZE CACHE has worked: noSync is not believed any more
	sync16     bool // the unit wants SYNCHRONIZE CACHE(16)
	unmap      bool // UNMAP works (VPD B2 LBPU and limits in B0)
	same       bool // WRITE SAME(16) works (VPD B0, B2) and the target is not known to lie
	sameUnmaps bool // ... and may deallocate (LBPWS, LBPRZ)

	unmapMax    uint64 // blocks of one UNMAP
	granularity uint64 // blocks of an UNMAP granule, at least 1
	alignment   uint64 // LBA of the first granule
	sameMax     uint64 // blocks of one WRITE SAME
}

// Limits for units that support a command but state no limit.
const (
	unmapChunkBytes = 1 << 30   // and never more: one command must not take for ever
	sameChunkBlocks = 65535     // what Linux assumes where nothing is said
	sameChunkBytes  = 256 << 20 // and never more, for the same reason
	zeroChunkBytes  = 1 << 20
)

// learnFeatures derives the features from what the first path told.
func (d *Device) learnFeatures(id *inspection) {
	c := &d.caps
	bs := uint64(d.geo.blockSize)
	c.fua = id.dpofua
	l, p := &id.limits, &id.provisioning
	if p.LBPU && l.MaxUnmapBlocks > 0 && l.MaxUnmapDescriptors > 0 && id.quirks&QuirkUnmap == 0 {
		c.unmap = true
		c.granularity = max(uint64(l.UnmapGranularity), 1)
		if l.UnmapAlignmentValid {
			c.alignment = uint64(l.UnmapAlignment) % c.granularity
		}
		c.unmapMax = min(uint64(l.MaxUnmapBlocks), unmapChunkBytes/bs)
		if c.unmapMax > c.granularity {
			c.unmapMax -= c.unmapMax % c.granularity
		}
	}
	if (p.LBPWS || l.MaxWriteSame > 0) && id.quirks&QuirkWriteSame == 0 {
		c.same = true
		c.sameUnmaps = p.LBPWS && (p.UnmapsToZero() || id.identity.Capacity.LBPRZ)
		c.sameMax = min(sameChunkBytes/bs, 1<<31)
		switch {
		case l.MaxWriteSame > 0:
			c.sameMax = min(c.sameMax, l.MaxWriteSame)
		default:
			c.sameMax = min(c.sameMax, sameChunkBlocks)
		}
	}
}

// zeroBlocks is the number of blocks one write of zeros covers.
func (d *Device) zeroBlocks() uint64 {
	return min(uint64(len(d.zeros))>>d.geo.shift, d.geo.maxBlocks) // a path may take less than the first did
}

// planTrim sets q up to unmap the whole granules of its range. A trim is a
// hint: what is left over at the ends, and everything on a unit without UNMAP,
// simply succeeds.
func (d *Device) planTrim(q *request) {
	q.kind = kindUnmap
	c := &d.caps
	if !c.unmap {
		q.pos = q.end
		return
	}
	g := c.granularity
	if r := (q.pos + g - c.alignment) % g; r != 0 {
		q.pos = min(q.pos+g-r, q.end)
	}
	if r := (q.end + g - c.alignment) % g; r != 0 {
		q.end = max(q.end-min(r, q.end), q.pos)
	}
	q.step = c.unmapMax
}

// planZeroes sets q up to use WRITE SAME where it can be trusted, else writes.
func (d *Device) planZeroes(q *request) {
	if d.caps.same {
		q.kind, q.step = kindSame, d.caps.sameMax
		return
	}
	q.kind, q.step = kindZero, d.zeroBlocks()
}

// buildUnmap fills in an UNMAP of one extent.
func (o *io) buildUnmap() {
	c := &o.cmd
	b := o.param[:]
	binary.BigEndian.PutUint16(b[0:], 22) // UNMAP DATA LENGTH (SBC-3 §5.28.2)
	binary.BigEndian.PutUint16(b[2:], 16) // BLOCK DESCRIPTOR DATA LENGTH
	binary.BigEndian.PutUint64(b[8:], o.lba)
	binary.BigEndian.PutUint32(b[16:], uint32(o.blocks))
	c.CDB, c.Dir, c.Data = scsi.Unmap(24), session.DirWrite, b
}

// syncCDB is a flush of the whole unit.
func (d *Device) syncCDB() scsi.CDB {
	if d.caps.sync16 {
		return scsi.SyncCache16(0, 0)
	}
	return scsi.SyncCache10(0, 0)
}

// fallBack reacts to a target that does not know the command of o. It reports
// whether o was dealt with: done already, or to be sent again in another form.
func (d *Device) fallBack(o *io) (handled bool) {
	c := &d.caps
	switch o.kind {
	case kindSync:
		switch {
		case !c.sync16 && !c.noSync:
			c.sync16 = true
			d.emit(Event{Kind: FeatureLost, Text: "the target refuses SYNCHRONIZE CACHE(10); trying the 16-byte form"})
			d.retryNow(o)
		case o.cmd.CDB[0] == byte(scsi.OpSyncCache10) && !c.noSync:
			d.retryNow(o) // it was on its way when the other form was chosen
		default:
			if !c.noSync {
				c.noSync = true
				d.emit(Event{Kind: FeatureLost, Text: "the target has no SYNCHRONIZE CACHE: completed writes are taken to be durable"})
			}
			d.finish(o, nil)
		}
	case kindUnmap:
		if c.unmap {
			c.unmap = false
			d.publish()
			d.emit(Event{Kind: FeatureLost, Text: "the target announces UNMAP but refuses it: trims do nothing from now on"})
		}
		d.finish(o, nil)
	case kindSame:
		if c.same {
			c.same = false
			d.publish()
			d.emit(Event{Kind: FeatureLost, Text: "the target announces WRITE SAME but refuses it: zeros are written from now on"})
		}
		o.kind = kindZero
		d.retryNow(o)
	case kindRead, kindWrite, kindZero:
		if !o.fua {
			return false
		}
		d.dropFUA(o)
	}
	return true
}

// dropFUA replaces the FUA bit, which the target refuses, by a flush.
func (d *Device) dropFUA(o *io) {
	if d.caps.fua {
		d.caps.fua = false
		d.emit(Event{Kind: FeatureLost, Text: "the target refuses the FUA bit: the cache is flushed instead"})
	}
	o.fua = false
	o.req.fuaBit = false
	o.req.syncAfter = !d.caps.noSync
	d.retryNow(o)
}

// String lists the features that are on, for logs.
func (c features) String() string {
	return fmt.Sprintf("fua=%t flush=%t unmap=%t write-same=%t", c.fua, !c.noSync, c.unmap, c.same)
}
