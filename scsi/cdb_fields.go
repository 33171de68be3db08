package scsi

import (
	"fmt"
	"strings"
)

// Opcode is the operation code.
func (c CDB) Opcode() Opcode { return Opcode(c[0]) }

// ServiceAction is the low five bits of byte 1; meaningful only for families
// such as OpServiceActionIn16, 0 for other commands.
func (c CDB) ServiceAction() uint8 {
	if !c.Opcode().hasServiceAction() {
		return 0
	}
	return c[1] & 0x1f
}

// Len is the number of bytes the command has by its group code (SPC-4):
// 6, 10, 12 or 16. Groups without a fixed length (variable, vendor
// specific) count as 16, the whole CDB.
func (c CDB) Len() int {
	switch c[0] >> 5 {
	case 0:
		return 6
	case 1, 2:
		return 10
	case 5:
		return 12
	}
	return 16
}

// layout says where a CDB keeps its address and its length.
type layout uint8

const (
	layoutNone    layout = iota
	layout6              // 21 bits LBA, 8 bits blocks where 0 means 256
	layout10             // LBA at 2 (32 bits), blocks at 7 (16 bits)
	layout12             // LBA at 2 (32 bits), blocks at 6 (32 bits)
	layout16             // LBA at 2 (64 bits), blocks at 10 (32 bits)
	layoutCAW            // LBA at 2 (64 bits), blocks at 13 (8 bits)
	layoutAtomic         // LBA at 2 (64 bits), blocks at 12 (16 bits)
	layoutLBAOnly        // LBA at 2 (64 bits), no blocks
)

// mediumLayout is the layout of a command that addresses blocks, else layoutNone.
func (c CDB) mediumLayout() layout {
	switch c.Opcode() {
	case OpRead6, OpWrite6:
		return layout6
	case OpRead10, OpWrite10, OpWriteVerify10, OpVerify10, OpPreFetch10, OpSyncCache10, OpWriteSame10:
		return layout10
	case OpRead12, OpWrite12, OpWriteVerify12, OpVerify12:
		return layout12
	case OpRead16, OpWrite16, OpORWrite16, OpWriteVerify16, OpVerify16, OpPreFetch16, OpSyncCache16, OpWriteSame16:
		return layout16
	case OpCompareAndWrite:
		return layoutCAW
	case OpWriteAtomic16:
		return layoutAtomic
	case OpServiceActionIn16:
		if c.ServiceAction() == SAGetLBAStatus {
			return layoutLBAOnly
		}
	}
	return layoutNone
}

// LBA is the first logical block address of a command that names one (read,
// write, verify, pre-fetch, synchronize cache, write same, compare and write,
// get LBA status), 0 for any other.
func (c CDB) LBA() uint64 {
	switch c.mediumLayout() {
	case layout6:
		return uint64(be.Uint32(c[0:]) & 0x1fffff)
	case layout10, layout12:
		return uint64(be.Uint32(c[2:]))
	case layout16, layoutCAW, layoutAtomic, layoutLBAOnly:
		return be.Uint64(c[2:])
	}
	return 0
}

// Blocks is the number of logical blocks of a command that names one, 0 for any
// other. For WRITE SAME and SYNCHRONIZE CACHE a zero means up to the end of the
// unit; READ(6) and WRITE(6) write 256 as 0, Blocks returns 256.
func (c CDB) Blocks() uint32 {
	switch c.mediumLayout() {
	case layout6:
		if c[4] == 0 {
			return 256
		}
		return uint32(c[4])
	case layout10:
		return uint32(be.Uint16(c[7:]))
	case layout12:
		return be.Uint32(c[6:])
	case layout16:
		return be.Uint32(c[10:])
	case layoutCAW:
		return uint32(c[13])
	case layoutAtomic:
		return uint32(be.Uint16(c[12:]))
	}
	return 0
}

// Flags are the FUA and DPO bits of a READ, WRITE or WRITE AND VERIFY of ten
// bytes or more; none for other commands.
func (c CDB) Flags() RWFlags {
	switch c.Opcode() {
	case OpRead10, OpWrite10, OpRead12, OpWrite12, OpRead16, OpWrite16, OpCompareAndWrite, OpORWrite16, OpWriteAtomic16:
		return RWFlags(c[1]) & rwFlagsMask
	case OpWriteVerify10, OpWriteVerify12, OpWriteVerify16, OpVerify10, OpVerify12, OpVerify16:
		return RWFlags(c[1]) & DPO
	}
	return 0
}

// WriteSameBits are the UNMAP and NDOB bits of WRITE SAME; false for other commands.
func (c CDB) WriteSameBits() (unmap, ndob bool) {
	switch c.Opcode() {
	case OpWriteSame10:
		return c[1]&writeSameUnmap != 0, false
	case OpWriteSame16:
		return c[1]&writeSameUnmap != 0, c[1]&writeSameNDOB != 0
	}
	return false, false
}

// VPDPage is the page an INQUIRY asks for; false if it asks for standard data
// or is no INQUIRY.
func (c CDB) VPDPage() (page uint8, ok bool) {
	if c.Opcode() != OpInquiry || c[1]&1 == 0 {
		return 0, false
	}
	return c[2], true
}

// AllocationLength is how many bytes of data-in a command without a block count
// asks for at most; false if the command has no such field.
func (c CDB) AllocationLength() (n uint32, ok bool) {
	switch c.Opcode() {
	case OpRequestSense, OpModeSense6:
		return uint32(c[4]), true
	case OpInquiry:
		return uint32(be.Uint16(c[3:])), true
	case OpReadCapacity10: // has no field: always 8 bytes
		return 8, true
	case OpModeSense10, OpPersistentReserveIn, OpLogSense:
		return uint32(be.Uint16(c[7:])), true
	case OpReportLuns, OpMaintenanceIn:
		return be.Uint32(c[6:]), true
	case OpServiceActionIn16:
		return be.Uint32(c[10:]), true
	}
	return 0, false
}

// ParameterLength is how many bytes of data-out a command without a block count
// brings along; false if the command has no such field.
func (c CDB) ParameterLength() (n uint32, ok bool) {
	switch c.Opcode() {
	case OpModeSelect6:
		return uint32(c[4]), true
	case OpUnmap, OpModeSelect10:
		return uint32(be.Uint16(c[7:])), true
	case OpPersistentReserveOut:
		return be.Uint32(c[5:]), true
	case OpMaintenanceOut:
		return be.Uint32(c[6:]), true
	}
	return 0, false
}

// Name is the standard's name of the command, service action included.
func (c CDB) Name() string {
	op := c.Opcode()
	if !op.hasServiceAction() {
		return op.String()
	}
	if name := serviceActionName(op, c.ServiceAction()); name != "" {
		return name
	}
	return fmt.Sprintf("%s action 0x%02x", op, c.ServiceAction())
}

// String names the command and what it addresses, for traces:
// "READ(10) lba=64 blocks=8 FUA", "INQUIRY page=0x83 alloc=252".
func (c CDB) String() string {
	var b strings.Builder
	b.WriteString(c.Name())
	if l := c.mediumLayout(); l != layoutNone {
		fmt.Fprintf(&b, " lba=%d", c.LBA())
		if l != layoutLBAOnly {
			fmt.Fprintf(&b, " blocks=%d", c.Blocks())
		}
	}
	if page, ok := c.VPDPage(); ok {
		fmt.Fprintf(&b, " page=0x%02x", page)
	}
	if c.Opcode() == OpModeSense6 || c.Opcode() == OpModeSense10 {
		fmt.Fprintf(&b, " page=0x%02x", c[2]&0x3f)
	}
	if n, ok := c.AllocationLength(); ok && c.Opcode() != OpReadCapacity10 {
		fmt.Fprintf(&b, " alloc=%d", n)
	}
	if n, ok := c.ParameterLength(); ok {
		fmt.Fprintf(&b, " param=%d", n)
	}
	unmap, ndob := c.WriteSameBits()
	for _, bit := range []struct {
		set  bool
		name string
	}{{c.Flags()&FUA != 0, " FUA"}, {c.Flags()&DPO != 0, " DPO"}, {unmap, " UNMAP"}, {ndob, " NDOB"}} {
		if bit.set {
			b.WriteString(bit.name)
		}
	}
	return b.String()
}
