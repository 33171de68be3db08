package scsi

import (
	"fmt"
	"math"
	"strings"
)

// Sense is what sense data says (SPC-4), taken from the fixed or the
// descriptor format. It is comparable; the zero Sense means that there is none.
type Sense struct {
	Information uint64   // command specific, for medium errors the LBA; only with HasInfo
	Code        ASC      // additional sense code and qualifier
	Key         SenseKey // coarse class
	HasInfo     bool     // Information is valid
	Deferred    bool     // it is about an earlier command; this one was not executed
	ILI         bool     // incorrect length indicator
	FRU         uint8    // field replaceable unit, 0 if unknown
	Specific    [3]byte  // sense key specific bytes; valid if bit 7 of the first is set
}

// Response codes of sense data (SPC-4), without the VALID bit.
const (
	senseFixed              = 0x70
	senseFixedDeferred      = 0x71
	senseDescriptor         = 0x72
	senseDescriptorDeferred = 0x73
)

// fixedSenseLen is the length of the fixed format as everybody sends it.
const fixedSenseLen = 18

// ParseSense reads sense data in fixed (70h, 71h) or descriptor (72h, 73h)
// format. It takes what is there: a short buffer lacks the code or the
// information, not the key. False means that b is empty, too short for a key,
// or of an unknown format. It allocates nothing.
func ParseSense(b []byte) (Sense, bool) {
	if len(b) == 0 {
		return Sense{}, false
	}
	code := b[0] & 0x7f
	switch code {
	case senseFixed, senseFixedDeferred:
		return parseFixedSense(b, code == senseFixedDeferred)
	case senseDescriptor, senseDescriptorDeferred:
		return parseDescriptorSense(b, code == senseDescriptorDeferred)
	}
	return Sense{}, false
}

// senseBody cuts b at the additional sense length in byte 7, where it has one.
func senseBody(b []byte) []byte {
	if len(b) < 8 {
		return b
	}
	return b[:min(len(b), 8+int(b[7]))]
}

// parseFixedSense reads the fixed format (SPC-4).
//
//	 0  VALID | response code     7     additional length (n-7)
//	 1  obsolete                  8-11  command specific information
//	 2  FILEMARK EOM ILI - KEY   12     ASC        13  ASCQ
//	3-6 INFORMATION              14     FRU     15-17  sense key specific
func parseFixedSense(b []byte, deferred bool) (Sense, bool) {
	b = senseBody(b)
	if len(b) < 3 {
		return Sense{}, false
	}
	s := Sense{Key: SenseKey(b[2] & 0x0f), ILI: b[2]&0x20 != 0, Deferred: deferred}
	if b[0]&0x80 != 0 && len(b) >= 7 {
		s.Information, s.HasInfo = uint64(be.Uint32(b[3:])), true
	}
	if len(b) >= 13 {
		s.Code = ASC(b[12]) << 8
	}
	if len(b) >= 14 {
		s.Code |= ASC(b[13])
	}
	if len(b) >= 15 {
		s.FRU = b[14]
	}
	if len(b) >= 18 {
		s.Specific = [3]byte(b[15:18])
	}
	return s, true
}

// Sense data descriptor types (SPC-4).
const (
	senseDescInformation = 0x00
	senseDescSpecific    = 0x02
	senseDescFRU         = 0x03
	senseDescBlock       = 0x05
)

// parseDescriptorSense reads the descriptor format (SPC-4).
//
//	0  response code   1  KEY   2  ASC   3  ASCQ   7  additional length   8…  descriptors
func parseDescriptorSense(b []byte, deferred bool) (Sense, bool) {
	b = senseBody(b)
	if len(b) < 2 {
		return Sense{}, false
	}
	s := Sense{Key: SenseKey(b[1] & 0x0f), Deferred: deferred}
	if len(b) >= 3 {
		s.Code = ASC(b[2]) << 8
	}
	if len(b) >= 4 {
		s.Code |= ASC(b[3])
	}
	for d := b[min(len(b), 8):]; len(d) >= 2; {
		n := 2 + int(d[1])
		if n > len(d) {
			break
		}
		s.addDescriptor(d[:n])
		d = d[n:]
	}
	return s, true
}

// addDescriptor takes over one whole sense data descriptor.
func (s *Sense) addDescriptor(d []byte) {
	switch {
	case d[0] == senseDescInformation && len(d) >= 12:
		if d[2]&0x80 != 0 {
			s.Information, s.HasInfo = be.Uint64(d[4:]), true
		}
	case d[0] == senseDescSpecific && len(d) >= 7:
		s.Specific = [3]byte(d[4:7])
	case d[0] == senseDescFRU && len(d) >= 4:
		s.FRU = d[3]
	case d[0] == senseDescBlock && len(d) >= 4:
		s.ILI = d[3]&0x20 != 0
	}
}

// IsZero reports whether there is no sense data at all.
func (s Sense) IsZero() bool { return s == Sense{} }

// String is "UNIT ATTENTION: power on, reset, or bus device reset occurred (29/00)".
func (s Sense) String() string {
	if s.Deferred {
		return "deferred " + s.Key.String() + ": " + s.Code.String()
	}
	return s.Key.String() + ": " + s.Code.String()
}

// FieldPointer is the place of the fault in an illegal request (SPC-4).
type FieldPointer struct {
	InCDB bool   // in the CDB, else in the parameter list
	Byte  uint16 // offset
	Bit   int8   // most significant bit of the faulty field, -1 if not said
}

// String is "byte 2 bit 7 of the CDB".
func (p FieldPointer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "byte %d", p.Byte)
	if p.Bit >= 0 {
		fmt.Fprintf(&b, " bit %d", p.Bit)
	}
	if p.InCDB {
		return b.String() + " of the CDB"
	}
	return b.String() + " of the parameter list"
}

// FieldPointer returns where an ILLEGAL REQUEST is illegal, if the target said so.
func (s Sense) FieldPointer() (FieldPointer, bool) {
	if s.Key != KeyIllegalRequest || s.Specific[0]&0x80 == 0 {
		return FieldPointer{}, false
	}
	p := FieldPointer{InCDB: s.Specific[0]&0x40 != 0, Byte: be.Uint16(s.Specific[1:]), Bit: -1}
	if s.Specific[0]&0x08 != 0 {
		p.Bit = int8(s.Specific[0] & 0x07)
	}
	return p, true
}

// Progress is how much of a running operation (format, becoming ready) is done,
// from 0 to 1, if the target said so (SPC-4).
func (s Sense) Progress() (float64, bool) {
	if (s.Key != KeyNotReady && s.Key != KeyNoSense) || s.Specific[0]&0x80 == 0 {
		return 0, false
	}
	return float64(be.Uint16(s.Specific[1:])) / 65536, true
}

// LostEarlierWrite reports a deferred error about more than a recovered fault: a
// write that was already answered with GOOD did not reach the medium. The command
// that brings the news was not executed. Sending it again would succeed and hide
// the loss, above all if it is a SYNCHRONIZE CACHE: fail it, or at least the
// next flush.
func (s Sense) LostEarlierWrite() bool {
	return s.Deferred && s.Key != KeyNoSense && s.Key != KeyRecoveredError && s.Key != KeyCompleted &&
		s.Key != KeyUnitAttention
}

// FailedToStore reports, of a command that makes data durable (SYNCHRONIZE CACHE, or
// WRITE with FUA), that it was carried out and failed. To send it again proves nothing if
// it succeeds then: what could not be stored may have been dropped. Linux does that, of
// files and of its targets' disks, and LIO reports it as 08/00. A command that was turned
// away (unit attention, not ready 04/xx, illegal request, busy) is none of these.
func (s Sense) FailedToStore() bool {
	switch s.Key {
	case KeyMediumError, KeyHardwareError:
		return true
	case KeyNotReady, KeyAbortedCommand:
		return s.Code>>8 == ASCCommunicationFailure>>8
	}
	return false
}

// IdentityMayHaveChanged reports whether the unit behind the LUN may be another
// one than before (28/00 medium may have changed, 29/xx reset, 3F/03 INQUIRY data
// changed, 3F/0E reported LUNs changed): check it with SameUnit before anything is
// read or written.
func (s Sense) IdentityMayHaveChanged() bool {
	return s.Key == KeyUnitAttention && (s.Code>>8 == 0x29 || s.Code == ASCMediumMayHaveChanged ||
		s.Code == ASCInquiryDataChanged || s.Code == ASCReportedLUNsChanged)
}

// CapacityMayHaveChanged reports 2A/09: read the capacity again.
func (s Sense) CapacityMayHaveChanged() bool {
	return s.Key == KeyUnitAttention && s.Code == ASCCapacityChanged
}

// PortGroupsMayHaveChanged reports 2A/06 and 2A/07, or a port group that says
// it is in another state (04/0A, 04/0B, 04/0C): ask for the target port groups again.
func (s Sense) PortGroupsMayHaveChanged() bool {
	switch s.Code {
	case ASCALUAStateChanged, ASCALUATransitionFailed:
		return s.Key == KeyUnitAttention
	case ASCALUATransition, ASCALUAStandby, ASCALUAUnavailable:
		return s.Key == KeyNotReady || s.Key == KeyUnitAttention
	}
	return false
}

// AppendFixedSense appends 18 bytes of sense data in fixed format.
func AppendFixedSense(dst []byte, key SenseKey, code ASC) []byte {
	return Sense{Key: key, Code: code}.AppendFixed(dst)
}

// AppendFixed appends s in fixed format, 18 bytes. Information of more than 32
// bits does not fit and is left out, as the standard wants.
func (s Sense) AppendFixed(dst []byte) []byte {
	var b [fixedSenseLen]byte
	b[0] = senseFixed
	if s.Deferred {
		b[0] = senseFixedDeferred
	}
	b[2] = byte(s.Key & 0x0f)
	if s.ILI {
		b[2] |= 0x20
	}
	if s.HasInfo && s.Information <= math.MaxUint32 {
		b[0] |= 0x80
		be.PutUint32(b[3:], uint32(s.Information))
	}
	b[7] = fixedSenseLen - 8
	be.PutUint16(b[12:], uint16(s.Code))
	b[14] = s.FRU
	copy(b[15:], s.Specific[:])
	return append(dst, b[:]...)
}

// AppendDescriptor appends s in descriptor format, with the descriptors it needs.
func (s Sense) AppendDescriptor(dst []byte) []byte {
	start := len(dst)
	code := byte(senseDescriptor)
	if s.Deferred {
		code = senseDescriptorDeferred
	}
	dst = append(dst, code, byte(s.Key&0x0f), byte(s.Code>>8), byte(s.Code), 0, 0, 0, 0)
	if s.HasInfo {
		dst = append(dst, senseDescInformation, 0x0a, 0x80, 0)
		dst = be.AppendUint64(dst, s.Information)
	}
	if s.Specific != [3]byte{} {
		dst = append(dst, senseDescSpecific, 6, 0, 0, s.Specific[0], s.Specific[1], s.Specific[2], 0)
	}
	if s.FRU != 0 {
		dst = append(dst, senseDescFRU, 2, 0, s.FRU)
	}
	if s.ILI {
		dst = append(dst, senseDescBlock, 2, 0, 0x20)
	}
	dst[start+7] = byte(len(dst) - start - 8)
	return dst
}
