package scsi

import (
	"fmt"
	"math"
	"math/bits"
)

// Capacity is the size of a unit and what READ CAPACITY(16) says about its
// layout (SBC-3). It is comparable; the zero Capacity means unknown.
type Capacity struct {
	LastLBA               uint64 // address of the last block
	BlockSize             uint32 // bytes of one logical block
	LowestAligned         uint16 // first LBA at the start of a physical block
	PhysicalPerLogicalExp uint8  // 2^this logical blocks make a physical block, 0 to 15
	Protection            uint8  // protection information type 1 to 3, 0 for none
	LBPME                 bool   // thin provisioned: unmapping is managed
	LBPRZ                 bool   // unmapped blocks read as zeros
}

// Known reports whether c was read at all.
func (c Capacity) Known() bool { return c.BlockSize != 0 }

// Blocks is the number of logical blocks; 0 if unknown, the greatest uint64
// where LastLBA+1 does not fit (no parser of this package lets that pass).
func (c Capacity) Blocks() uint64 {
	switch {
	case !c.Known():
		return 0
	case c.LastLBA == math.MaxUint64:
		return math.MaxUint64
	}
	return c.LastLBA + 1
}

// Bytes is the size in bytes, the greatest uint64 where it does not fit. What
// the parsers of this package return always fits into an int64.
func (c Capacity) Bytes() uint64 {
	hi, lo := bits.Mul64(c.Blocks(), uint64(c.BlockSize))
	if hi != 0 {
		return math.MaxUint64
	}
	return lo
}

// PhysicalBlockSize is the size in bytes of a physical block.
func (c Capacity) PhysicalBlockSize() uint64 {
	return uint64(c.BlockSize) << (c.PhysicalPerLogicalExp & 0x0f)
}

// NeedsReadCapacity16 reports that READ CAPACITY(10) could not express the size.
func (c Capacity) NeedsReadCapacity16() bool { return c.LastLBA == math.MaxUint32 }

// String is "2097152 blocks of 512 bytes".
func (c Capacity) String() string {
	if !c.Known() {
		return "unknown capacity"
	}
	return fmt.Sprintf("%d blocks of %d bytes", c.Blocks(), c.BlockSize)
}

// check refuses sizes no computer can address.
func (c Capacity) check(what string) error {
	if c.BlockSize == 0 {
		return malformed(what, "block size 0")
	}
	if c.LastLBA == math.MaxUint64 || c.Bytes() > math.MaxInt64 {
		return malformed(what, "last block 0x%x of %d bytes is beyond 2^63 bytes", c.LastLBA, c.BlockSize)
	}
	return nil
}

// ParseReadCapacity10 reads the 8 bytes of READ CAPACITY(10) (SBC-3). If
// the result says NeedsReadCapacity16 the size is a lower limit only.
func ParseReadCapacity10(b []byte) (Capacity, error) {
	const what = "READ CAPACITY(10) data"
	if len(b) < 8 {
		return Capacity{}, short(what, len(b), 8)
	}
	c := Capacity{LastLBA: uint64(be.Uint32(b)), BlockSize: be.Uint32(b[4:])}
	if err := c.check(what); err != nil {
		return Capacity{}, err
	}
	return c, nil
}

// ParseReadCapacity16 reads the data of READ CAPACITY(16) (SBC-3): 32
// bytes, of which 12 suffice for the size; the rest counts as zero.
func ParseReadCapacity16(b []byte) (Capacity, error) {
	const what = "READ CAPACITY(16) data"
	if len(b) < 12 {
		return Capacity{}, short(what, len(b), 12)
	}
	var d [16]byte
	copy(d[:], b)
	c := Capacity{
		LastLBA:               be.Uint64(d[0:]),
		BlockSize:             be.Uint32(d[8:]),
		PhysicalPerLogicalExp: d[13] & 0x0f,
		LBPME:                 d[14]&0x80 != 0,
		LBPRZ:                 d[14]&0x40 != 0,
		LowestAligned:         be.Uint16(d[14:]) & 0x3fff,
	}
	if d[12]&0x01 != 0 { // PROT_EN
		c.Protection = d[12]>>1&0x07 + 1
	}
	if err := c.check(what); err != nil {
		return Capacity{}, err
	}
	return c, nil
}

// AppendTo10 appends the data of READ CAPACITY(10).
func (c Capacity) AppendTo10(dst []byte) []byte {
	dst = be.AppendUint32(dst, uint32(min(c.LastLBA, math.MaxUint32)))
	return be.AppendUint32(dst, c.BlockSize)
}

// AppendTo16 appends the 32 bytes of READ CAPACITY(16).
func (c Capacity) AppendTo16(dst []byte) []byte {
	var d [32]byte
	be.PutUint64(d[0:], c.LastLBA)
	be.PutUint32(d[8:], c.BlockSize)
	if c.Protection > 0 {
		d[12] = 1 | (c.Protection-1)&0x07<<1
	}
	d[13] = c.PhysicalPerLogicalExp & 0x0f
	be.PutUint16(d[14:], c.LowestAligned&0x3fff)
	if c.LBPME {
		d[14] |= 0x80
	}
	if c.LBPRZ {
		d[14] |= 0x40
	}
	return append(dst, d[:]...)
}

// clampInt converts a length the peer named to int, on 32-bit machines too.
func clampInt(n uint64) int { return int(min(n, math.MaxInt32)) }
