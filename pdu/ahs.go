package pdu

import (
	"encoding/binary"
	"fmt"
)

// Types of additional header segments (RFC 7143 §11.2.2.1).
const (
	AHSExtendedCDB uint8 = 1 // rest of a CDB longer than 16 bytes
	AHSBidiReadLen uint8 = 2 // Bidirectional Read Expected Data Transfer Length
)

// An AHS starts with a two-byte length and the type; the length counts from the
// byte after the type and leaves out the padding (RFC 7143 §11.2.2).
const (
	ahsPrefixLen   = 3
	ahsMinTotal    = 4
	bidiReadAHSLen = 5
)

// AppendExtendedCDB appends an Extended CDB AHS (RFC 7143 §11.2.2.3) with tail,
// the bytes of the CDB from the 17th on, padded to four bytes. An empty tail
// appends nothing, since a CDB of up to 16 bytes must not use this AHS. It panics
// when the segment would exceed MaxAHSLen; no SCSI CDB is that long (260 bytes).
//
//	 |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	 +---------------+---------------+---------------+---------------+
//	0| AHSLength (CDBLength - 15)    | 0x01          |  Reserved     |
//	 +---------------+---------------+---------------+---------------+
//	4/ ExtendedCDB...+padding                                        /
//	+/                                                               /
//	 +---------------+---------------+---------------+---------------+
func AppendExtendedCDB(dst, tail []byte) []byte {
	if len(tail) == 0 {
		return dst
	}
	if len(tail) > MaxAHSLen-ahsMinTotal {
		panic("pdu: extended CDB does not fit into an AHS")
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(tail)+1))
	dst = append(dst, AHSExtendedCDB, 0)
	dst = append(dst, tail...)
	return appendPad(dst, len(tail))
}

// AppendBidiReadLen appends the AHS with n, the number of bytes a bidirectional
// command is expected to read (RFC 7143 §11.2.2.4).
//
//	 |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	 +---------------+---------------+---------------+---------------+
//	0| AHSLength (0x0005)            | 0x02          | Reserved      |
//	 +---------------+---------------+---------------+---------------+
//	4| Bidirectional Read Expected Data Transfer Length              |
//	 +---------------+---------------+---------------+---------------+
func AppendBidiReadLen(dst []byte, n uint32) []byte {
	dst = append(dst, 0, bidiReadAHSLen, AHSBidiReadLen, 0)
	return binary.BigEndian.AppendUint32(dst, n)
}

// BidiReadLen returns the number of bytes in the body of an AHSBidiReadLen
// segment, as handed out by WalkAHS.
func BidiReadLen(body []byte) uint32 { return u32(body, 0) }

// WalkAHS calls fn for each segment in ahs, the AHS part of a PDU, until fn
// returns an error, which it passes on. For AHSExtendedCDB body is the rest of
// the CDB (at least one byte), for AHSBidiReadLen the four bytes that BidiReadLen
// reads; the reserved byte is left out. For any other type, all of which are
// reserved, body is everything after the type, without padding, and the caller
// decides. body is a part of ahs: it is valid as long as ahs is.
func WalkAHS(ahs []byte, fn func(typ uint8, body []byte) error) error {
	for off := 0; off < len(ahs); {
		rest := ahs[off:]
		if len(rest) < ahsMinTotal {
			return fmt.Errorf("pdu: AHS at byte %d: %d bytes left, need %d", off, len(rest), ahsMinTotal)
		}
		n, typ := int(u16(rest, 0)), rest[2]&0x3f
		total := ahsPrefixLen + n + PadLen(ahsPrefixLen+n)
		if total > len(rest) {
			return fmt.Errorf("pdu: AHS at byte %d: type %d takes %d bytes, only %d left", off, typ, total, len(rest))
		}
		body := rest[ahsPrefixLen : ahsPrefixLen+n : ahsPrefixLen+n]
		switch {
		case typ == AHSExtendedCDB && n < 2:
			return fmt.Errorf("pdu: AHS at byte %d: extended CDB of length %d, need at least 2", off, n)
		case typ == AHSBidiReadLen && n != bidiReadAHSLen:
			return fmt.Errorf("pdu: AHS at byte %d: bidirectional read length of length %d, need %d", off, n, bidiReadAHSLen)
		case typ == AHSExtendedCDB, typ == AHSBidiReadLen:
			body = body[1:]
		}
		if err := fn(typ, body); err != nil {
			return err
		}
		off += total
	}
	return nil
}
