package pdu

// R2T is the Ready To Transfer PDU (RFC 7143 §11.8): the target asks for a part
// of the write data.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x31      |1| Reserved                                    |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| LUN                                                           |
//	  +                                                               +
//	12|                                                               |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20| Target Transfer Tag                                           |
//	  +---------------+---------------+---------------+---------------+
//	24| StatSN                                                        |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	32| MaxCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	36| R2TSN                                                         |
//	  +---------------+---------------+---------------+---------------+
//	40| Buffer Offset                                                 |
//	  +---------------+---------------+---------------+---------------+
//	44| Desired Data Transfer Length                                  |
//	  +---------------------------------------------------------------+
//	  48
//
// DataLen and AHSLen must be 0; TTT must not be ReservedTag.
type R2T struct {
	// LUN: logical unit, to be copied into the Data-Out PDUs.
	LUN uint64
	// ITT: Initiator Task Tag of the command.
	ITT uint32
	// TTT: Target Transfer Tag, to be copied into the Data-Out PDUs (§11.8.5).
	TTT uint32
	// StatSN: next StatSN of this connection; not advanced by this PDU (§11.8.3).
	StatSN uint32
	// ExpCmdSN: next CmdSN the target expects in this session (§4.2.2.1).
	ExpCmdSN uint32
	// MaxCmdSN: highest CmdSN the target accepts now (§4.2.2.1).
	MaxCmdSN uint32
	// R2TSN: number of this PDU within the command, from 0, shared with DataSN
	// (§11.8.2).
	R2TSN uint32
	// BufferOffset: bytes from the start of the whole transfer (§11.8.4).
	BufferOffset uint32
	// DesiredDataLen: Desired Data Transfer Length in bytes, 1..MaxBurstLength
	// (§11.8.4).
	DesiredDataLen uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *R2T) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpR2T, p.AHSLen, p.DataLen)
	b[1] = 0x80
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.TTT)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	put32(b, 36, p.R2TSN)
	put32(b, 40, p.BufferOffset)
	put32(b, 44, p.DesiredDataLen)
	return dst
}

// R2TView reads a R2T header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpR2T.
type R2TView []byte

// LUN returns the field LUN; see R2T.
func (v R2TView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see R2T.
func (v R2TView) ITT() uint32 { return u32(v, 16) }

// TTT returns the field TTT; see R2T.
func (v R2TView) TTT() uint32 { return u32(v, 20) }

// StatSN returns the field StatSN; see R2T.
func (v R2TView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see R2T.
func (v R2TView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see R2T.
func (v R2TView) MaxCmdSN() uint32 { return u32(v, 32) }

// R2TSN returns the field R2TSN; see R2T.
func (v R2TView) R2TSN() uint32 { return u32(v, 36) }

// BufferOffset returns the field BufferOffset; see R2T.
func (v R2TView) BufferOffset() uint32 { return u32(v, 40) }

// DesiredDataLen returns the field DesiredDataLen; see R2T.
func (v R2TView) DesiredDataLen() uint32 { return u32(v, 44) }

// AHSLen returns the field AHSLen; see R2T.
func (v R2TView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see R2T.
func (v R2TView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v R2TView) Decode() R2T {
	_ = v[BHSLen-1] // one bounds check for all
	return R2T{
		LUN:            v.LUN(),
		ITT:            v.ITT(),
		TTT:            v.TTT(),
		StatSN:         v.StatSN(),
		ExpCmdSN:       v.ExpCmdSN(),
		MaxCmdSN:       v.MaxCmdSN(),
		R2TSN:          v.R2TSN(),
		BufferOffset:   v.BufferOffset(),
		DesiredDataLen: v.DesiredDataLen(),
		AHSLen:         v.AHSLen(),
		DataLen:        v.DataLen(),
	}
}
