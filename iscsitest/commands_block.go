package iscsitest

import (
	"bytes"

	"github.com/iscsimp/iscsimp/scsi"
)

// maxCompareAndWrite is how many blocks COMPARE AND WRITE takes.
const maxCompareAndWrite = 128

// CDB usage of the common layouts, opcode left out.
var (
	usage6      = scsi.CDB{0, 0x1f, 0xff, 0xff, 0xff, 0x04}
	usage10     = scsi.CDB{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04}
	usage12     = scsi.CDB{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
	usage16     = scsi.CDB{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
	usageUnmap  = scsi.CDB{7: 0xff, 8: 0xff, 9: 0x04}
	usageCAW    = scsi.CDB{0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, 0x04}
	usageStatus = scsi.CDB{0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04}
)

// usageOf is a usage map with the opcode, and byte 1 if that is not the usual.
func usageOf(op scsi.Opcode, layout scsi.CDB, byte1 ...byte) scsi.CDB {
	layout[0] = byte(op)
	if len(byte1) > 0 {
		layout[1] = byte1[0]
	}
	return layout
}

// blockCommands are the commands that address blocks.
func blockCommands() []*command {
	const (
		read   = cmdBlocks | cmdTransfer | cmdProtect
		write  = read | cmdWrites
		verify = read
	)
	var list []*command
	add := func(flags commandFlags, run func(*execution) result, out func(*lun, scsi.CDB) uint64, usage scsi.CDB) {
		list = append(list, &command{op: usage.Opcode(), sa: -1, flags: flags, run: run, out: out, usage: usage})
	}
	add(cmdBlocks|cmdTransfer, readBlocks, nil, usageOf(scsi.OpRead6, usage6))
	add(cmdBlocks|cmdTransfer|cmdWrites, writeBlocks, wholeBlocks, usageOf(scsi.OpWrite6, usage6))
	for _, op := range []scsi.Opcode{scsi.OpRead10, scsi.OpRead12, scsi.OpRead16} {
		add(read, readBlocks, nil, usageOf(op, usageFor(op)))
	}
	for _, op := range []scsi.Opcode{scsi.OpWrite10, scsi.OpWrite12, scsi.OpWrite16} {
		add(write, writeBlocks, wholeBlocks, usageOf(op, usageFor(op)))
	}
	for _, op := range []scsi.Opcode{scsi.OpWriteVerify10, scsi.OpWriteVerify12, scsi.OpWriteVerify16} {
		add(write, writeVerify, wholeBlocks, usageOf(op, usageFor(op), 0xf6))
	}
	for _, op := range []scsi.Opcode{scsi.OpVerify10, scsi.OpVerify12, scsi.OpVerify16} {
		add(verify, verifyBlocks, verifyOut, usageOf(op, usageFor(op), 0xf6))
	}
	for _, op := range []scsi.Opcode{scsi.OpPreFetch10, scsi.OpPreFetch16} {
		add(cmdBlocks, preFetch, nil, usageOf(op, usageFor(op), 0x02))
	}
	for _, op := range []scsi.Opcode{scsi.OpSyncCache10, scsi.OpSyncCache16} {
		add(cmdBlocks, syncCache, nil, usageOf(op, usageFor(op), 0x06))
	}
	for _, op := range []scsi.Opcode{scsi.OpWriteSame10, scsi.OpWriteSame16} {
		bits := byte(0xf8)
		if op == scsi.OpWriteSame16 {
			bits |= 1 // NDOB
		}
		add(cmdBlocks|cmdWrites|cmdProtect|cmdExact, writeSame, oneBlock, usageOf(op, usageFor(op), bits))
	}
	add(write, orWrite, wholeBlocks, usageOf(scsi.OpORWrite16, usage16))
	add(write|cmdExact, compareAndWrite, twiceBlocks, usageOf(scsi.OpCompareAndWrite, usageCAW))
	add(cmdWrites, unmap, paramLen, usageOf(scsi.OpUnmap, usageUnmap))
	list = append(list, &command{
		op: scsi.OpServiceActionIn16, sa: int(scsi.SAGetLBAStatus), run: getLBAStatus,
		usage: usageOf(scsi.OpServiceActionIn16, usageStatus),
	})
	return list
}

// usageFor is the layout that goes with the opcode's group.
func usageFor(op scsi.Opcode) scsi.CDB {
	switch (scsi.CDB{byte(op)}).Len() {
	case 10:
		return usage10
	case 12:
		return usage12
	}
	return usage16
}

func wholeBlocks(u *lun, c scsi.CDB) uint64 { return uint64(c.Blocks()) * uint64(u.cfg.BlockSize) }

func twiceBlocks(u *lun, c scsi.CDB) uint64 { return 2 * wholeBlocks(u, c) }

func oneBlock(u *lun, c scsi.CDB) uint64 {
	if _, ndob := c.WriteSameBits(); ndob {
		return 0
	}
	return uint64(u.cfg.BlockSize)
}

// bytchk is the field that says what VERIFY compares with (SBC-3 §5.29).
func bytchk(c scsi.CDB) byte { return c[1] >> 1 & 3 }

func verifyOut(u *lun, c scsi.CDB) uint64 {
	switch bytchk(c) {
	case 1:
		return wholeBlocks(u, c)
	case 3:
		if c.Blocks() > 0 {
			return uint64(u.cfg.BlockSize)
		}
	}
	return 0
}

// at is the offset of the command's first block on the medium.
func (x *execution) at() int64 { return x.u.bytes(x.cdb.LBA()) }

// length is how many bytes the command's blocks are.
func (x *execution) length() int64 { return x.u.bytes(uint64(x.cdb.Blocks())) }

func mediumError(asc scsi.ASC) result { return checkCondition(scsi.KeyMediumError, asc) }

func readBlocks(x *execution) result {
	buf := make([]byte, x.length())
	if len(buf) == 0 {
		return result{}
	}
	if _, err := x.u.medium.ReadAt(buf, x.at()); err != nil {
		x.s.t.cfg.Logf("LUN %d: %v", x.u.number, err)
		return mediumError(scsi.ASCUnrecoveredReadError)
	}
	return result{data: buf}
}

// store writes to the medium, and makes durable what has to be.
func (x *execution) store(p []byte, off int64, durable bool) result {
	if len(p) > 0 {
		x.u.atomic.RLock()
		_, err := x.u.medium.WriteAt(p, off)
		x.u.atomic.RUnlock()
		if err != nil {
			x.s.t.cfg.Logf("LUN %d: %v", x.u.number, err)
			return mediumError(scsi.ASCWriteError)
		}
	}
	if durable || x.u.cfg.NoWriteCache {
		return x.sync()
	}
	return result{}
}

func (x *execution) sync() result {
	if err := x.u.medium.Sync(); err != nil {
		x.s.t.cfg.Logf("LUN %d: %v", x.u.number, err)
		return mediumError(scsi.ASCWriteError)
	}
	return result{}
}

// writeBlocks stores what was sent. If the initiator announced less than the
// CDB wants, only whole blocks of that are written.
func writeBlocks(x *execution) result {
	whole := len(x.data) / int(x.u.cfg.BlockSize) * int(x.u.cfg.BlockSize)
	return x.store(x.data[:whole], x.at(), x.cdb.Flags()&scsi.FUA != 0)
}

func writeVerify(x *execution) result {
	if bytchk(x.cdb) > 1 {
		return x.invalidField(1)
	}
	return writeBlocks(x)
}

// verifyBlocks compares the medium with the data sent, if any (SBC-3 §5.29).
func verifyBlocks(x *execution) result {
	mode := bytchk(x.cdb)
	if mode == 2 {
		return x.invalidField(1)
	}
	if mode == 0 || x.cdb.Blocks() == 0 {
		return result{}
	}
	res := readBlocks(x)
	if res.status != scsi.Good {
		return res
	}
	want, have := x.data, res.data
	if mode == 3 {
		want = bytes.Repeat(x.data, int(x.cdb.Blocks()))
	}
	n := min(len(want), len(have))
	if !bytes.Equal(want[:n], have[:n]) {
		return checkCondition(scsi.KeyMiscompare, scsi.ASCMiscompare)
	}
	return result{}
}

// preFetch has nothing to fetch; the blocks always fit into the cache.
func preFetch(*execution) result { return result{status: scsi.ConditionMet} }

func syncCache(x *execution) result { return x.sync() }

// writeSame writes one block many times, or deallocates (SBC-3 §5.44).
func writeSame(x *execution) result {
	unmap, ndob := x.cdb.WriteSameBits()
	if x.cdb[1]&0x06 != 0 || (x.cdb[1]&0x10 != 0) { // PBDATA, LBDATA, ANCHOR
		return x.invalidField(1)
	}
	if unmap && x.u.cfg.NoUnmap {
		return x.invalidField(1)
	}
	n := uint64(x.cdb.Blocks())
	if n == 0 {
		n = x.u.blocks() - x.cdb.LBA()
	}
	if n > uint64(x.u.cfg.MaxWriteSame) {
		return x.invalidField(10)
	}
	block := x.data
	if ndob {
		block = make([]byte, x.u.cfg.BlockSize)
	}
	if len(block) < int(x.u.cfg.BlockSize) {
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB)
	}
	off, length := x.at(), x.u.bytes(n)
	if unmap && isZero(block) {
		return x.unmap(off, length)
	}
	piece := bytes.Repeat(block, int(max(1, min(n, (1<<20)/uint64(len(block))))))
	for length > 0 {
		p := piece[:min(length, int64(len(piece)))]
		if res := x.store(p, off, false); res.status != scsi.Good {
			return res
		}
		off += int64(len(p))
		length -= int64(len(p))
	}
	return result{}
}

func isZero(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }

func (x *execution) unmap(off, length int64) result {
	x.u.atomic.RLock()
	defer x.u.atomic.RUnlock()
	if err := x.u.medium.Unmap(off, length); err != nil {
		x.s.t.cfg.Logf("LUN %d: %v", x.u.number, err)
		return mediumError(scsi.ASCWriteError)
	}
	return result{}
}

func unmap(x *execution) result {
	if x.u.cfg.NoUnmap {
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode)
	}
	if x.cdb[1]&1 != 0 { // ANCHOR
		return x.invalidField(1)
	}
	if len(x.data) == 0 {
		return result{}
	}
	extents, err := scsi.ParseUnmapDescriptors(x.data)
	if err != nil {
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCParameterListLength)
	}
	total, sum := x.u.blocks(), uint64(0)
	for _, e := range extents {
		if e.LBA > total || uint64(e.Blocks) > total-e.LBA {
			return checkCondition(scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange)
		}
		sum += uint64(e.Blocks)
	}
	if len(extents) > maxUnmapDescriptors || sum > uint64(x.u.cfg.MaxUnmapBlocks) {
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInParameters)
	}
	for _, e := range extents {
		if res := x.unmap(x.u.bytes(e.LBA), x.u.bytes(uint64(e.Blocks))); res.status != scsi.Good {
			return res
		}
	}
	return result{}
}

// orWrite combines the medium with the data by OR.
func orWrite(x *execution) result {
	x.u.atomic.Lock()
	defer x.u.atomic.Unlock()
	res := readBlocks(x)
	if res.status != scsi.Good || len(res.data) == 0 {
		return res
	}
	for i := range min(len(res.data), len(x.data)) {
		res.data[i] |= x.data[i]
	}
	return x.storeLocked(res.data)
}

// storeLocked writes the command's blocks while u.atomic is held.
func (x *execution) storeLocked(p []byte) result {
	if _, err := x.u.medium.WriteAt(p, x.at()); err != nil {
		x.s.t.cfg.Logf("LUN %d: %v", x.u.number, err)
		return mediumError(scsi.ASCWriteError)
	}
	if x.cdb.Flags()&scsi.FUA != 0 || x.u.cfg.NoWriteCache {
		return x.sync()
	}
	return result{}
}

// compareAndWrite writes the second half of its data if the blocks equal the
// first half, and nothing comes in between (SBC-3 §5.2).
func compareAndWrite(x *execution) result {
	if x.cdb.Blocks() > maxCompareAndWrite {
		return x.invalidField(13)
	}
	if x.cdb.Blocks() == 0 {
		return result{}
	}
	n := int(x.length())
	if len(x.data) < 2*n {
		return x.invalidField(13)
	}
	x.u.atomic.Lock()
	defer x.u.atomic.Unlock()
	res := readBlocks(x)
	if res.status != scsi.Good {
		return res
	}
	for i := range n {
		if res.data[i] != x.data[i] {
			s := scsi.Sense{Key: scsi.KeyMiscompare, Code: scsi.ASCMiscompare, Information: uint64(i), HasInfo: true}
			return result{status: scsi.CheckCondition, sense: s.AppendFixed(nil)}
		}
	}
	return x.storeLocked(x.data[n : 2*n])
}

// maxStatusExtents is how many descriptors one GET LBA STATUS reports.
const maxStatusExtents = 64

func getLBAStatus(x *execution) result {
	total, lba := x.u.blocks(), x.cdb.LBA()
	if lba >= total {
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange)
	}
	m, ok := x.u.medium.(Mapper)
	var list []scsi.LBAExtent
	for lba < total && len(list) < maxStatusExtents {
		mapped, run := true, total-lba
		if ok && !x.u.cfg.NoUnmap {
			mapped, run = x.u.provisioning(m, lba, min(total-lba, 0xffffffff))
		}
		run = min(run, 0xffffffff)
		e := scsi.LBAExtent{LBA: lba, Blocks: uint32(run), Provisioning: scsi.LBAMapped}
		if !mapped {
			e.Provisioning = scsi.LBADeallocated
		}
		list = append(list, e)
		lba += run
	}
	return x.cut(scsi.AppendLBAStatus(nil, list))
}

// provisioning tells whether a block is mapped and how many from there on are
// alike. A block counts as mapped if any byte of it is.
func (u *lun) provisioning(m Mapper, lba, limit uint64) (mapped bool, run uint64) {
	bs := int64(u.cfg.BlockSize)
	state := func(lba uint64) (bool, uint64) {
		mapped, n := m.Mapped(u.bytes(lba), u.bytes(limit))
		if mapped || n < bs {
			return true, uint64(max(n/bs, 1))
		}
		return false, uint64(n / bs)
	}
	mapped, run = state(lba)
	for run < limit {
		next, n := state(lba + run)
		if next != mapped {
			break
		}
		run += n
	}
	return mapped, min(run, limit)
}
