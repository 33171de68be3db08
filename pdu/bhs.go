package pdu

import (
	"encoding/binary"
	"fmt"
)

// BHSLen is the size in bytes of the Basic Header Segment (RFC 7143 §11.2.1).
const BHSLen = 48

// ReservedTag is the Initiator Task Tag or Target Transfer Tag that means "no
// tag" (RFC 7143 §11.2.1.8, §11.7.4).
const ReservedTag = 0xffffffff

// MaxAHSLen is the largest total length in bytes of the additional header
// segments: 255 words of four bytes (RFC 7143 §11.2.1.5).
const MaxAHSLen = 255 * 4

// MaxDataLen is the largest length in bytes of a data segment: the field has 24
// bits (RFC 7143 §11.2.1.6).
const MaxDataLen = 1<<24 - 1

// Opcode is the type of a PDU, 0x00..0x3f (RFC 7143 §11.2.1.2).
type Opcode uint8

// The opcodes. Those below 0x20 are sent by initiators, the others by targets.
const (
	OpNOPOut           Opcode = 0x00 // NOP-Out
	OpSCSICommand      Opcode = 0x01 // SCSI Command
	OpTaskMgmt         Opcode = 0x02 // SCSI Task Management Function Request
	OpLogin            Opcode = 0x03 // Login Request
	OpText             Opcode = 0x04 // Text Request
	OpDataOut          Opcode = 0x05 // SCSI Data-Out
	OpLogout           Opcode = 0x06 // Logout Request
	OpSNACK            Opcode = 0x10 // SNACK Request
	OpNOPIn            Opcode = 0x20 // NOP-In
	OpSCSIResponse     Opcode = 0x21 // SCSI Response
	OpTaskMgmtResponse Opcode = 0x22 // SCSI Task Management Function Response
	OpLoginResponse    Opcode = 0x23 // Login Response
	OpTextResponse     Opcode = 0x24 // Text Response
	OpDataIn           Opcode = 0x25 // SCSI Data-In
	OpLogoutResponse   Opcode = 0x26 // Logout Response
	OpR2T              Opcode = 0x31 // Ready To Transfer
	OpAsync            Opcode = 0x32 // Asynchronous Message
	OpReject           Opcode = 0x3f // Reject
)

var opcodeNames = [64]string{
	OpNOPOut:           "NOP-Out",
	OpSCSICommand:      "SCSI-Command",
	OpTaskMgmt:         "Task-Mgmt",
	OpLogin:            "Login",
	OpText:             "Text",
	OpDataOut:          "Data-Out",
	OpLogout:           "Logout",
	OpSNACK:            "SNACK",
	OpNOPIn:            "NOP-In",
	OpSCSIResponse:     "SCSI-Response",
	OpTaskMgmtResponse: "Task-Mgmt-Response",
	OpLoginResponse:    "Login-Response",
	OpTextResponse:     "Text-Response",
	OpDataIn:           "Data-In",
	OpLogoutResponse:   "Logout-Response",
	OpR2T:              "R2T",
	OpAsync:            "Async",
	OpReject:           "Reject",
}

// String returns the name of the PDU type without spaces, as used in traces.
func (o Opcode) String() string {
	if o.Known() {
		return opcodeNames[o]
	}
	return fmt.Sprintf("Opcode-0x%02x", uint8(o))
}

// Known reports whether RFC 7143 defines the opcode; vendor-specific ones are
// not known.
func (o Opcode) Known() bool {
	return int(o) < len(opcodeNames) && opcodeNames[o] != ""
}

// FromTarget reports whether the opcode is in the half used by targets.
func (o Opcode) FromTarget() bool { return o&0x20 != 0 }

// BHS is a Basic Header Segment, viewed in place (RFC 7143 §11.2.1).
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|I| Opcode    |F| Opcode-specific fields                      |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| LUN or Opcode-specific fields                                 |
//	  +                                                               +
//	12|                                                               |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20/ Opcode-specific fields                                        /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	48
//
// The slice must hold at least BHSLen bytes; the methods may panic otherwise.
// Fields that a PDU type does not have read as whatever the bytes hold.
type BHS []byte

// Opcode returns the type of the PDU.
func (b BHS) Opcode() Opcode { return Opcode(b[0] & 0x3f) }

// Immediate returns the I bit, meaningful in requests (§11.2.1.1).
func (b BHS) Immediate() bool { return b[0]&0x40 != 0 }

// Final returns the F bit, called T (Transit) in Login PDUs (§11.2.1.3).
func (b BHS) Final() bool { return b[1]&0x80 != 0 }

// AHSLen returns the length in bytes of all additional header segments with
// their padding, 0..MaxAHSLen (§11.2.1.5).
func (b BHS) AHSLen() int { return int(b[4]) * 4 }

// DataLen returns the length in bytes of the data segment without padding,
// 0..MaxDataLen (§11.2.1.6).
func (b BHS) DataLen() int { return int(u32(b, 4) & MaxDataLen) }

// LUN returns the eight LUN bytes in wire order; LUN 1 with the usual peripheral
// addressing is 0x0001000000000000 (§11.2.1.7).
func (b BHS) LUN() uint64 { return u64(b, 8) }

// ITT returns the Initiator Task Tag (§11.2.1.8).
func (b BHS) ITT() uint32 { return u32(b, 16) }

// TTT returns the Target Transfer Tag of the PDU types that have one.
func (b BHS) TTT() uint32 { return u32(b, 20) }

// CmdSN returns the CmdSN of an initiator PDU; Data-Out and SNACK have none.
func (b BHS) CmdSN() uint32 { return u32(b, 24) }

// ExpStatSN returns the ExpStatSN of an initiator PDU.
func (b BHS) ExpStatSN() uint32 { return u32(b, 28) }

// StatSN returns the StatSN of a target PDU; a Data-In has one only with its S
// bit set.
func (b BHS) StatSN() uint32 { return u32(b, 24) }

// ExpCmdSN returns the ExpCmdSN of a target PDU.
func (b BHS) ExpCmdSN() uint32 { return u32(b, 28) }

// MaxCmdSN returns the MaxCmdSN of a target PDU.
func (b BHS) MaxCmdSN() uint32 { return u32(b, 32) }

// SetAHSLen writes TotalAHSLength. It panics unless n is a multiple of four in
// 0..MaxAHSLen.
func (b BHS) SetAHSLen(n int) {
	if n < 0 || n > MaxAHSLen || n%4 != 0 {
		panic("pdu: AHS length must be a multiple of 4 in 0..1020")
	}
	b[4] = byte(n / 4)
}

// SetDataLen writes DataSegmentLength. It panics unless n is in 0..MaxDataLen.
func (b BHS) SetDataLen(n int) {
	if n < 0 || n > MaxDataLen {
		panic("pdu: data segment length must be in 0..16777215")
	}
	b[5], b[6], b[7] = byte(n>>16), byte(n>>8), byte(n)
}

// SetITT writes the Initiator Task Tag.
func (b BHS) SetITT(v uint32) { binary.BigEndian.PutUint32(b[16:20], v) }

// SetCmdSN writes the CmdSN of an initiator PDU.
func (b BHS) SetCmdSN(v uint32) { binary.BigEndian.PutUint32(b[24:28], v) }

// SetExpStatSN writes the ExpStatSN of an initiator PDU.
func (b BHS) SetExpStatSN(v uint32) { binary.BigEndian.PutUint32(b[28:32], v) }

// SetStatSN writes the StatSN of a target PDU.
func (b BHS) SetStatSN(v uint32) { binary.BigEndian.PutUint32(b[24:28], v) }

// SetExpCmdSN writes the ExpCmdSN of a target PDU.
func (b BHS) SetExpCmdSN(v uint32) { binary.BigEndian.PutUint32(b[28:32], v) }

// SetMaxCmdSN writes the MaxCmdSN of a target PDU.
func (b BHS) SetMaxCmdSN(v uint32) { binary.BigEndian.PutUint32(b[32:36], v) }

// header is a BHS under construction; the fixed size spares bounds checks.
type header = [BHSLen]byte

var zeroBHS header

// appendBHS appends a header that is zero but for the opcode and the lengths,
// and returns it for the caller to fill in.
func appendBHS(dst []byte, op Opcode, ahsLen, dataLen int) ([]byte, *header) {
	dst = append(dst, zeroBHS[:]...)
	b := (*header)(dst[len(dst)-BHSLen:])
	b[0] = byte(op)
	BHS(b[:]).SetAHSLen(ahsLen)
	BHS(b[:]).SetDataLen(dataLen)
	return dst, b
}

func bit(on bool, mask byte) byte {
	if on {
		return mask
	}
	return 0
}

func u16(b []byte, off int) uint16 { return binary.BigEndian.Uint16(b[off : off+2]) }
func u32(b []byte, off int) uint32 { return binary.BigEndian.Uint32(b[off : off+4]) }
func u64(b []byte, off int) uint64 { return binary.BigEndian.Uint64(b[off : off+8]) }

func put16(b *header, off int, v uint16) { binary.BigEndian.PutUint16(b[off:off+2], v) }
func put32(b *header, off int, v uint32) { binary.BigEndian.PutUint32(b[off:off+4], v) }
func put64(b *header, off int, v uint64) { binary.BigEndian.PutUint64(b[off:off+8], v) }
