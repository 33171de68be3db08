package pdu

import (
	"encoding/binary"
	"hash/crc32"
)

// DigestLen is the size in bytes of a CRC32C digest.
const DigestLen = 4

// Digests says which digests are on in a connection (RFC 7143 §11.2.3, §13.1).
// The zero value, none, holds until the end of the Login Phase.
type Digests struct {
	Header bool // HeaderDigest=CRC32C: after the BHS and AHS of every PDU
	Data   bool // DataDigest=CRC32C: after every non-empty data segment and its padding
}

// castagnoli is the generator 0x11edc6f41 of §13.1; hash/crc32 uses the CPU's
// instructions for it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the CRC32C of p (RFC 7143 §13.1).
func CRC32C(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// UpdateCRC32C returns the CRC32C of the bytes that gave crc followed by p. Start
// with 0.
func UpdateCRC32C(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

// PutDigest writes crc into the first four bytes of dst the way it goes over the
// wire. §13.1 numbers the bits of a byte from the most significant one while the
// reflected arithmetic of CRC32C starts with the least significant one; the two
// mirror each other, so that the digest ends up least significant byte first, as
// the examples in §A.4 show. It panics when dst is shorter.
func PutDigest(dst []byte, crc uint32) { binary.LittleEndian.PutUint32(dst, crc) }

// Digest returns the CRC32C in the first four bytes of src, a digest as received.
// It panics when src is shorter.
func Digest(src []byte) uint32 { return binary.LittleEndian.Uint32(src) }
