package scsi

import (
	"encoding/binary"
	"math"
)

// be is the byte order of everything SCSI.
var be = binary.BigEndian

// CDB is a command descriptor block of up to 16 bytes, padded with zeros. The
// builders of this package return it by value and allocate nothing. The zero
// CDB is TEST UNIT READY.
type CDB [16]byte

// RWFlags are the cache bits of READ and WRITE (SBC-3), in the
// places they have in CDB byte 1.
type RWFlags uint8

// The cache bits.
const (
	FUA RWFlags = 1 << 3 // force unit access: to or from the medium, not just a volatile cache
	DPO RWFlags = 1 << 4 // disable page out: not worth keeping in the cache

	rwFlagsMask = FUA | DPO
)

// Bits of CDB byte 1 of WRITE SAME (SBC-3).
const (
	writeSameUnmap = 1 << 3
	writeSameNDOB  = 1 << 0
)

// TestUnitReady asks whether the unit can serve medium access (SPC-4). No data.
func TestUnitReady() CDB { return CDB{} }

// Inquiry asks for the standard INQUIRY data (SPC-4); alloc bytes at most,
// 36 suffice for ParseInquiry, 96 hold everything usual.
func Inquiry(alloc uint16) CDB {
	c := CDB{0: byte(OpInquiry)}
	be.PutUint16(c[3:], alloc)
	return c
}

// InquiryVPD asks for a page of vital product data (SPC-4).
func InquiryVPD(page uint8, alloc uint16) CDB {
	c := Inquiry(alloc)
	c[1] = 1 // EVPD
	c[2] = page
	return c
}

// ReportLuns asks for the LUNs the target offers on this path, well-known ones
// left out (SPC-4). The standard asks for alloc ≥ 16.
func ReportLuns(alloc uint32) CDB {
	c := CDB{0: byte(OpReportLuns)}
	be.PutUint32(c[6:], alloc)
	return c
}

// ReadCapacity10 asks for the last 32-bit LBA and the block size (SBC-3): 8 bytes.
func ReadCapacity10() CDB { return CDB{0: byte(OpReadCapacity10)} }

// ReadCapacity16 asks for the capacity and provisioning bits (SBC-3); alloc is usually 32.
func ReadCapacity16(alloc uint32) CDB {
	c := CDB{0: byte(OpServiceActionIn16), 1: SAReadCapacity16}
	be.PutUint32(c[10:], alloc)
	return c
}

// GetLBAStatus asks for the provisioning of extents from lba on (SBC-3).
func GetLBAStatus(lba uint64, alloc uint32) CDB {
	c := CDB{0: byte(OpServiceActionIn16), 1: SAGetLBAStatus}
	be.PutUint64(c[2:], lba)
	be.PutUint32(c[10:], alloc)
	return c
}

// fits10 reports whether a 10-byte CDB can name the blocks: every LBA below
// 2^32 and a count of at most 65535.
func fits10(lba uint64, blocks uint32) bool {
	return blocks <= math.MaxUint16 && lba <= math.MaxUint32 && lba+uint64(blocks) <= 1<<32
}

// cdb10 builds the common 10-byte layout; the caller checked fits10.
func cdb10(op Opcode, byte1 uint8, lba uint64, blocks uint32) CDB {
	c := CDB{0: byte(op), 1: byte1}
	be.PutUint32(c[2:], uint32(lba))
	be.PutUint16(c[7:], uint16(blocks))
	return c
}

// cdb16 builds the common 16-byte layout.
func cdb16(op Opcode, byte1 uint8, lba uint64, blocks uint32) CDB {
	c := CDB{0: byte(op), 1: byte1}
	be.PutUint64(c[2:], lba)
	be.PutUint32(c[10:], blocks)
	return c
}

// Read builds the shorter READ that can name the blocks: READ(10) if every LBA
// is below 2^32 and blocks ≤ 65535, else READ(16). Zero blocks transfer nothing.
func Read(lba uint64, blocks uint32, flags RWFlags) CDB {
	if fits10(lba, blocks) {
		return cdb10(OpRead10, uint8(flags&rwFlagsMask), lba, blocks)
	}
	return cdb16(OpRead16, uint8(flags&rwFlagsMask), lba, blocks)
}

// Write builds the shorter WRITE that can name the blocks, as Read does.
func Write(lba uint64, blocks uint32, flags RWFlags) CDB {
	if fits10(lba, blocks) {
		return cdb10(OpWrite10, uint8(flags&rwFlagsMask), lba, blocks)
	}
	return cdb16(OpWrite16, uint8(flags&rwFlagsMask), lba, blocks)
}

// Read10 builds READ(10) (SBC-3). Blocks it cannot name get a READ(16)
// instead: a truncated address would silently read elsewhere.
func Read10(lba uint64, blocks uint32, flags RWFlags) CDB { return Read(lba, blocks, flags) }

// Write10 builds WRITE(10) (SBC-3), or WRITE(16) as for Read10.
func Write10(lba uint64, blocks uint32, flags RWFlags) CDB { return Write(lba, blocks, flags) }

// Read16 builds READ(16) (SBC-3).
func Read16(lba uint64, blocks uint32, flags RWFlags) CDB {
	return cdb16(OpRead16, uint8(flags&rwFlagsMask), lba, blocks)
}

// Write16 builds WRITE(16) (SBC-3).
func Write16(lba uint64, blocks uint32, flags RWFlags) CDB {
	return cdb16(OpWrite16, uint8(flags&rwFlagsMask), lba, blocks)
}

// SyncCache10 builds SYNCHRONIZE CACHE(10) (SBC-3): the blocks become
// durable; zero blocks means up to the end of the unit, so SyncCache10(0, 0) is
// a full flush. A range it cannot name gets the 16-byte form.
func SyncCache10(lba uint64, blocks uint32) CDB {
	if fits10(lba, blocks) {
		return cdb10(OpSyncCache10, 0, lba, blocks)
	}
	return cdb16(OpSyncCache16, 0, lba, blocks)
}

// SyncCache16 builds SYNCHRONIZE CACHE(16) (SBC-3); see SyncCache10.
func SyncCache16(lba uint64, blocks uint32) CDB { return cdb16(OpSyncCache16, 0, lba, blocks) }

// Unmap builds UNMAP (SBC-3) for a parameter list of paramLen bytes, see
// AppendUnmapDescriptors.
func Unmap(paramLen uint16) CDB {
	c := CDB{0: byte(OpUnmap)}
	be.PutUint16(c[7:], paramLen)
	return c
}

// writeSameBits is CDB byte 1 of WRITE SAME.
func writeSameBits(unmap, ndob bool) (bits uint8) {
	if unmap {
		bits |= writeSameUnmap
	}
	if ndob {
		bits |= writeSameNDOB
	}
	return bits
}

// WriteSame10 builds WRITE SAME(10) (SBC-3): one block of data goes to all
// blocks, or with unmap they may be deallocated if they then read the same. Zero
// blocks means up to the end of the unit, if BlockLimits.WSNZ is false. ndob (no
// data-out buffer: zeros) exists in the 16-byte form only, which is built for it
// and for ranges that do not fit.
func WriteSame10(lba uint64, blocks uint32, unmap, ndob bool) CDB {
	if ndob || !fits10(lba, blocks) {
		return WriteSame16(lba, blocks, unmap, ndob)
	}
	return cdb10(OpWriteSame10, writeSameBits(unmap, false), lba, blocks)
}

// WriteSame16 builds WRITE SAME(16) (SBC-3); see WriteSame10.
func WriteSame16(lba uint64, blocks uint32, unmap, ndob bool) CDB {
	return cdb16(OpWriteSame16, writeSameBits(unmap, ndob), lba, blocks)
}

// RequestSense asks for sense data in fixed format (SPC-4).
func RequestSense(alloc uint8) CDB { return CDB{0: byte(OpRequestSense), 4: alloc} }

// modeDBD is the "disable block descriptors" bit of MODE SENSE.
const modeDBD = 1 << 3

// ModeSense6 asks for the current values of a mode page (SPC-4); page 0x3f
// is all of them; dbd leaves the block descriptors out.
func ModeSense6(page, sub uint8, dbd bool, alloc uint8) CDB {
	c := CDB{0: byte(OpModeSense6), 2: page & 0x3f, 3: sub, 4: alloc}
	if dbd {
		c[1] = modeDBD
	}
	return c
}

// ModeSense10 is ModeSense6 with room for more data (SPC-4).
func ModeSense10(page, sub uint8, dbd bool, alloc uint16) CDB {
	c := CDB{0: byte(OpModeSense10), 2: page & 0x3f, 3: sub}
	if dbd {
		c[1] = modeDBD
	}
	be.PutUint16(c[7:], alloc)
	return c
}

// What ReportSupportedOpcodes reports (SPC-4 REPORTING OPTIONS).
const (
	ReportAllOpcodes       uint8 = 0 // the list of all commands; op and sa are ignored
	ReportOpcode           uint8 = 1 // one command without service actions
	ReportOpcodeAction     uint8 = 2 // one command and service action
	ReportOpcodeActionAuto uint8 = 3 // SPC-5: as 1 or 2, as fits
)

// ReportSupportedOpcodes asks whether the unit knows a command (SPC-4);
// parse the answer of options 1 to 3 with ParseSupportedOpcode.
func ReportSupportedOpcodes(options uint8, op Opcode, sa uint16, alloc uint32) CDB {
	c := CDB{0: byte(OpMaintenanceIn), 1: SAReportSupportedOpcodes, 2: options & 0x07, 3: byte(op)}
	be.PutUint16(c[4:], sa)
	be.PutUint32(c[6:], alloc)
	return c
}
