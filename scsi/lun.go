package scsi

import (
	"fmt"
	"strconv"
	"strings"
)

// LUN is the 8-byte logical unit number of SAM-5, as the big-endian number
// that goes on the wire. Two different LUN values that denote the same number
// (LUN 3 in peripheral and in flat form) are different addresses: always use
// the one REPORT LUNS returned.
type LUN uint64

// First bytes of the addressing methods (SAM-5).
const (
	lunPeripheral   = 0x00 // two bits 00b: bus 0, LUN in byte 1
	lunFlat         = 0x40 // two bits 01b: 14 bits
	lunWellKnown    = 0xc1 // W-LUN in byte 1
	lunExtendedFlat = 0xd2 // 24 bits in bytes 1 to 3
)

// MakeLUN returns the single-level LUN n: peripheral device addressing up to
// 255, flat space addressing up to 16383, extended flat space addressing above.
func MakeLUN(n uint16) LUN {
	switch {
	case n <= 0xff:
		return LUN(n) << 48
	case n <= 0x3fff:
		return LUN(lunFlat)<<56 | LUN(n)<<48
	}
	return LUN(lunExtendedFlat)<<56 | LUN(n)<<32
}

// Number returns the number of a single-level LUN in peripheral, flat or
// extended flat form; false for any other, and for numbers above 65535.
func (l LUN) Number() (uint16, bool) {
	first := uint8(l >> 56)
	switch {
	case first == lunExtendedFlat && l<<32 == 0:
		n := uint32(l>>32) & 0xffffff
		return uint16(n), n <= 0xffff
	case l<<16 != 0:
		return 0, false
	case first == lunPeripheral:
		return uint16(l >> 48), true
	case first&0xc0 == lunFlat:
		return uint16(l>>48) & 0x3fff, true
	}
	return 0, false
}

// IsWellKnown reports whether l is a well-known logical unit, no disk.
func (l LUN) IsWellKnown() bool { return uint8(l>>56) == lunWellKnown }

// String is the decimal number where MakeLUN of it gives l back, else "0x" and
// 16 digits. ParseLUN is its inverse.
func (l LUN) String() string {
	if n, ok := l.Number(); ok && MakeLUN(n) == l {
		return strconv.Itoa(int(n))
	}
	return fmt.Sprintf("0x%016x", uint64(l))
}

// ParseLUN reads what String writes: a number from 0 to 65535, or "0x" and 16
// hexadecimal digits.
func ParseLUN(s string) (LUN, error) {
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || len(hex) != 16 {
			return 0, fmt.Errorf("scsi: LUN %q: want 16 hexadecimal digits after 0x", s)
		}
		return LUN(n), nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("scsi: LUN %q: want a number from 0 to 65535, or 0x and 16 hexadecimal digits", s)
	}
	return MakeLUN(uint16(n)), nil
}

// reportLunsHeader is the length of the header of REPORT LUNS data.
const reportLunsHeader = 8

// ParseReportLuns reads the data of REPORT LUNS (SPC-4), in the target's
// order. If the list is longer than b the error wraps ErrShort and its Need is
// the allocation length that holds all of it.
func ParseReportLuns(b []byte) ([]LUN, error) {
	const what = "REPORT LUNS data"
	if len(b) < reportLunsHeader {
		return nil, short(what, len(b), reportLunsHeader)
	}
	n := uint64(be.Uint32(b))
	if n > uint64(len(b)-reportLunsHeader) {
		return nil, short(what, len(b), clampInt(n+reportLunsHeader))
	}
	list := b[reportLunsHeader : reportLunsHeader+int(n)]
	luns := make([]LUN, 0, len(list)/8)
	for ; len(list) >= 8; list = list[8:] {
		luns = append(luns, LUN(be.Uint64(list)))
	}
	return luns, nil
}

// AppendReportLuns appends the data of REPORT LUNS.
func AppendReportLuns(dst []byte, luns []LUN) []byte {
	dst = be.AppendUint32(dst, uint32(8*len(luns)))
	dst = be.AppendUint32(dst, 0)
	for _, l := range luns {
		dst = be.AppendUint64(dst, uint64(l))
	}
	return dst
}
