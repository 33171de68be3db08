package pdu

// DataIn is the SCSI Data-In PDU (RFC 7143 §11.7): read data, and with HasStatus
// also the good status of the command.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x25      |F|A|0 0 0|O|U|S| Reserved      |Status or Rsvd |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| LUN or Reserved                                               |
//	  +                                                               +
//	12|                                                               |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20| Target Transfer Tag or 0xffffffff                             |
//	  +---------------+---------------+---------------+---------------+
//	24| StatSN or Reserved                                            |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	32| MaxCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	36| DataSN                                                        |
//	  +---------------+---------------+---------------+---------------+
//	40| Buffer Offset                                                 |
//	  +---------------+---------------+---------------+---------------+
//	44| Residual Count                                                |
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// StatSN, Status, the residual flags and ResidualCount mean something only with
// HasStatus, which requires Final. LUN and TTT mean something only with Ack.
type DataIn struct {
	// Final: F bit: last PDU of a sequence.
	Final bool
	// Ack: A bit: the target wants a DataACK SNACK; ignored at ErrorRecoveryLevel
	// 0 (§11.7.2).
	Ack bool
	// Overflow: O bit: ResidualCount bytes were not moved because ExpectedDataLen
	// was too small.
	Overflow bool
	// Underflow: U bit: ResidualCount bytes of ExpectedDataLen were not moved.
	Underflow bool
	// HasStatus: S bit: Status and StatSN are valid and the command is done
	// (§11.7.3).
	HasStatus bool
	// Status: SCSI status byte, valid with HasStatus.
	Status uint8
	// LUN: logical unit, valid with Ack (§11.7.4).
	LUN uint64
	// ITT: Initiator Task Tag of the command.
	ITT uint32
	// TTT: to be copied into the DataACK SNACK, valid with Ack (§11.7.4).
	TTT uint32
	// StatSN: status sequence number, valid with HasStatus.
	StatSN uint32
	// ExpCmdSN: next CmdSN the target expects in this session (§4.2.2.1).
	ExpCmdSN uint32
	// MaxCmdSN: highest CmdSN the target accepts now (§4.2.2.1).
	MaxCmdSN uint32
	// DataSN: number of this PDU within the command, from 0, shared with R2TSN
	// (§11.7.5).
	DataSN uint32
	// BufferOffset: bytes from the start of the whole transfer (§11.7.6).
	BufferOffset uint32
	// ResidualCount: bytes, valid with HasStatus and Overflow or Underflow.
	ResidualCount uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *DataIn) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpDataIn, p.AHSLen, p.DataLen)
	b[1] = bit(p.Final, 0x80) | bit(p.Ack, 0x40) | bit(p.Overflow, 0x04) | bit(p.Underflow, 0x02) | bit(p.HasStatus, 0x01)
	b[3] = p.Status
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.TTT)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	put32(b, 36, p.DataSN)
	put32(b, 40, p.BufferOffset)
	put32(b, 44, p.ResidualCount)
	return dst
}

// DataInView reads a DataIn header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpDataIn.
type DataInView []byte

// Final returns the field Final; see DataIn.
func (v DataInView) Final() bool { return v[1]&0x80 != 0 }

// Ack returns the field Ack; see DataIn.
func (v DataInView) Ack() bool { return v[1]&0x40 != 0 }

// Overflow returns the field Overflow; see DataIn.
func (v DataInView) Overflow() bool { return v[1]&0x04 != 0 }

// Underflow returns the field Underflow; see DataIn.
func (v DataInView) Underflow() bool { return v[1]&0x02 != 0 }

// HasStatus returns the field HasStatus; see DataIn.
func (v DataInView) HasStatus() bool { return v[1]&0x01 != 0 }

// Status returns the field Status; see DataIn.
func (v DataInView) Status() uint8 { return v[3] }

// LUN returns the field LUN; see DataIn.
func (v DataInView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see DataIn.
func (v DataInView) ITT() uint32 { return u32(v, 16) }

// TTT returns the field TTT; see DataIn.
func (v DataInView) TTT() uint32 { return u32(v, 20) }

// StatSN returns the field StatSN; see DataIn.
func (v DataInView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see DataIn.
func (v DataInView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see DataIn.
func (v DataInView) MaxCmdSN() uint32 { return u32(v, 32) }

// DataSN returns the field DataSN; see DataIn.
func (v DataInView) DataSN() uint32 { return u32(v, 36) }

// BufferOffset returns the field BufferOffset; see DataIn.
func (v DataInView) BufferOffset() uint32 { return u32(v, 40) }

// ResidualCount returns the field ResidualCount; see DataIn.
func (v DataInView) ResidualCount() uint32 { return u32(v, 44) }

// AHSLen returns the field AHSLen; see DataIn.
func (v DataInView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see DataIn.
func (v DataInView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v DataInView) Decode() DataIn {
	_ = v[BHSLen-1] // one bounds check for all
	return DataIn{
		Final:         v.Final(),
		Ack:           v.Ack(),
		Overflow:      v.Overflow(),
		Underflow:     v.Underflow(),
		HasStatus:     v.HasStatus(),
		Status:        v.Status(),
		LUN:           v.LUN(),
		ITT:           v.ITT(),
		TTT:           v.TTT(),
		StatSN:        v.StatSN(),
		ExpCmdSN:      v.ExpCmdSN(),
		MaxCmdSN:      v.MaxCmdSN(),
		DataSN:        v.DataSN(),
		BufferOffset:  v.BufferOffset(),
		ResidualCount: v.ResidualCount(),
		AHSLen:        v.AHSLen(),
		DataLen:       v.DataLen(),
	}
}
