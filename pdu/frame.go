package pdu

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Layout says where the parts of one PDU are, all in bytes from its start
// (RFC 7143 §11.2):
//
//	0               BHS and AHS
//	HeaderLen       header digest, HeaderDigestLen bytes
//	DataOff         data segment, DataLen bytes
//	DataOff+DataLen padding, PadLen bytes
//	  then          data digest, DataDigestLen bytes
//	Total           next PDU
type Layout struct {
	HeaderLen       int // BHSLen plus the length of the AHS
	HeaderDigestLen int // 0 or DigestLen
	DataOff         int // HeaderLen + HeaderDigestLen
	DataLen         int // without padding, 0..MaxDataLen
	PadLen          int // 0..3
	DataDigestLen   int // 0 or DigestLen; always 0 when DataLen is 0
	Total           int // size of the whole PDU
}

// LayoutOf computes the layout of the PDU with this header. It panics when bhs is
// shorter than BHSLen.
func LayoutOf(bhs BHS, d Digests) Layout {
	l := Layout{HeaderLen: BHSLen + bhs.AHSLen(), DataLen: bhs.DataLen()}
	if d.Header {
		l.HeaderDigestLen = DigestLen
	}
	l.DataOff = l.HeaderLen + l.HeaderDigestLen
	l.PadLen = PadLen(l.DataLen)
	// A zero-length data segment has no digest either (§11.2.3).
	if d.Data && l.DataLen > 0 {
		l.DataDigestLen = DigestLen
	}
	l.Total = l.DataOff + l.DataLen + l.PadLen + l.DataDigestLen
	return l
}

// PadLen returns the number of bytes, 0..3, that pad n bytes to a multiple of
// four (RFC 7143 §11.1).
func PadLen(n int) int { return -n & 3 }

func appendPad(dst []byte, n int) []byte {
	var zeros [3]byte
	return append(dst, zeros[:PadLen(n)]...)
}

// Limits bounds the PDUs that ReadPDU accepts. There is no default: the zero
// value accepts neither AHS nor data.
type Limits struct {
	MaxAHS  int // largest total AHS length in bytes, up to MaxAHSLen; targets send none
	MaxData int // largest data segment in bytes: the MaxRecvDataSegmentLength we declared
}

// BufLen returns the size of a buffer in which every PDU within the limits fits,
// whatever its digests.
func (l Limits) BufLen() int {
	return BHSLen + l.MaxAHS + DigestLen + l.MaxData + PadLen(l.MaxData) + DigestLen
}

// FrameErrorKind says what is wrong with a PDU as a whole.
type FrameErrorKind uint8

// Kinds of frame errors.
const (
	// FrameHeaderDigest: nothing in the header can be trusted, so that the start of
	// the next PDU is unknown. The connection must be dropped (§7.8).
	FrameHeaderDigest FrameErrorKind = iota + 1
	// FrameDataDigest: the header is good and the stream is at the next PDU (§7.8).
	FrameDataDigest
	// FrameAHSTooLong: the AHS exceeds Limits.MaxAHS. Nothing after the BHS was read.
	FrameAHSTooLong
	// FrameDataTooLong: the data exceeds Limits.MaxData. Nothing of it was read.
	FrameDataTooLong
)

// FrameError is a PDU that was received broken or is too long. ReadPDU returns
// it as *FrameError.
type FrameError struct {
	Kind   FrameErrorKind
	Opcode Opcode // as received; not to be trusted with FrameHeaderDigest
	ITT    uint32 // as received; not to be trusted with FrameHeaderDigest
	Got    uint32 // digest received, or length in bytes
	Want   uint32 // digest computed, or limit in bytes
}

// Error says what was wrong and what it means for the connection.
func (e *FrameError) Error() string {
	switch e.Kind {
	case FrameHeaderDigest:
		return fmt.Sprintf("pdu: header digest error: received %08x, computed %08x; drop the connection", e.Got, e.Want)
	case FrameDataDigest:
		return fmt.Sprintf("pdu: data digest error in %v itt=%08x: received %08x, computed %08x", e.Opcode, e.ITT, e.Got, e.Want)
	case FrameAHSTooLong:
		return fmt.Sprintf("pdu: %v itt=%08x has %d bytes of AHS, at most %d allowed; drop the connection", e.Opcode, e.ITT, e.Got, e.Want)
	case FrameDataTooLong:
		return fmt.Sprintf("pdu: %v itt=%08x has %d bytes of data, at most %d allowed; the peer ignores our MaxRecvDataSegmentLength, drop the connection", e.Opcode, e.ITT, e.Got, e.Want)
	default:
		return fmt.Sprintf("pdu: frame error of unknown kind %d", e.Kind)
	}
}

// InSync reports whether the stream is still at a PDU boundary, so that the
// connection can go on with the next PDU.
func (e *FrameError) InSync() bool { return e.Kind == FrameDataDigest }

func newFrameError(kind FrameErrorKind, bhs BHS, got, want uint32) *FrameError {
	return &FrameError{Kind: kind, Opcode: bhs.Opcode(), ITT: bhs.ITT(), Got: got, Want: want}
}

// AppendPDU appends one whole PDU to dst: the first BHSLen bytes of bhs with both
// lengths set, ahs, data, padding and digests. bhs itself is not changed. For
// tests and tools; the data path sends its parts without copying them. It panics
// when a part is too long for its length field; an ahs whose length is not a
// multiple of four is padded.
func AppendPDU(dst, bhs, ahs, data []byte, d Digests) []byte {
	start := len(dst)
	dst = append(dst, bhs[:BHSLen]...)
	BHS(dst[start:]).SetAHSLen(len(ahs) + PadLen(len(ahs)))
	BHS(dst[start:]).SetDataLen(len(data))
	dst = append(dst, ahs...)
	dst = appendPad(dst, len(ahs))
	if d.Header {
		dst = appendDigest(dst, dst[start:])
	}
	start = len(dst)
	dst = append(dst, data...)
	dst = appendPad(dst, len(data))
	if d.Data && len(data) > 0 {
		dst = appendDigest(dst, dst[start:])
	}
	return dst
}

func appendDigest(dst, covered []byte) []byte {
	var digest [DigestLen]byte
	PutDigest(digest[:], CRC32C(covered))
	return append(dst, digest[:]...)
}

// PDU is one received PDU. The parts are cut from one buffer.
type PDU struct {
	BHS  BHS    // BHSLen bytes
	AHS  []byte // all additional header segments, see WalkAHS
	Data []byte // data segment without padding
}

// ReadPDU reads exactly one PDU from r. The result lies in buf when its capacity
// is large enough (Limits.BufLen always is), else in new memory; lengths are checked against lim, and the
// header against its digest, before memory for them is asked for.
//
// The error is io.EOF when r ended before the first byte, io.ErrUnexpectedEOF
// when it ended later, a *FrameError for a digest mismatch or an excessive
// length, or the error of r. With a FrameDataDigest error the PDU is returned as
// well: its header is good, its data is not.
func ReadPDU(r io.Reader, buf []byte, d Digests, lim Limits) (PDU, error) {
	buf = slices.Grow(buf[:0], BHSLen)[:BHSLen]
	if _, err := io.ReadFull(r, buf); err != nil {
		return PDU{}, err
	}
	bhs := BHS(buf)
	if n := bhs.AHSLen(); n > lim.MaxAHS {
		return PDU{}, newFrameError(FrameAHSTooLong, bhs, uint32(n), uint32(max(lim.MaxAHS, 0)))
	}
	l := LayoutOf(bhs, d)
	buf, err := readUpTo(r, buf, l.DataOff)
	if err != nil {
		return PDU{}, err
	}
	bhs = BHS(buf[:BHSLen:BHSLen])
	if d.Header {
		got, want := Digest(buf[l.HeaderLen:]), CRC32C(buf[:l.HeaderLen])
		if got != want {
			return PDU{}, newFrameError(FrameHeaderDigest, bhs, got, want)
		}
	}
	if l.DataLen > lim.MaxData {
		return PDU{}, newFrameError(FrameDataTooLong, bhs, uint32(l.DataLen), uint32(max(lim.MaxData, 0)))
	}
	if buf, err = readUpTo(r, buf, l.Total); err != nil {
		return PDU{}, err
	}
	return cutPDU(buf, l)
}

// readUpTo extends buf, which is full up to its length, to n bytes read from r.
func readUpTo(r io.Reader, buf []byte, n int) ([]byte, error) {
	have := len(buf)
	if n > cap(buf) {
		bigger := make([]byte, have, n)
		copy(bigger, buf)
		buf = bigger
	}
	buf = buf[:n]
	_, err := io.ReadFull(r, buf[have:])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // in the middle of a PDU no end is clean
	}
	return buf, err
}

// cutPDU divides a whole PDU into its parts and checks the data digest.
func cutPDU(buf []byte, l Layout) (PDU, error) {
	dataEnd := l.DataOff + l.DataLen
	p := PDU{
		BHS:  BHS(buf[:BHSLen:BHSLen]),
		AHS:  buf[BHSLen:l.HeaderLen:l.HeaderLen],
		Data: buf[l.DataOff:dataEnd:dataEnd],
	}
	if l.DataDigestLen == 0 {
		return p, nil
	}
	covered := buf[l.DataOff : dataEnd+l.PadLen]
	got, want := Digest(buf[dataEnd+l.PadLen:]), CRC32C(covered)
	if got != want {
		return p, newFrameError(FrameDataDigest, p.BHS, got, want)
	}
	return p, nil
}
