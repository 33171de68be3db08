package pdu

// NOPIn is the NOP-In PDU (RFC 7143 §11.19): the echo of a NOP-Out, a ping from
// the target, or a carrier of a new MaxCmdSN.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x20      |1| Reserved                                    |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| LUN or Reserved                                               |
//	  +                                                               +
//	12|                                                               |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag or 0xffffffff                              |
//	  +---------------+---------------+---------------+---------------+
//	20| Target Transfer Tag or 0xffffffff                             |
//	  +---------------+---------------+---------------+---------------+
//	24| StatSN                                                        |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	32| MaxCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	36/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// With TTT != ReservedTag the initiator must answer with a NOP-Out. StatSN is not
// advanced by a NOP-In whose ITT is ReservedTag.
type NOPIn struct {
	// LUN: logical unit, to be copied into the NOP-Out, valid with TTT.
	LUN uint64
	// ITT: Initiator Task Tag of the NOP-Out being answered, else ReservedTag.
	ITT uint32
	// TTT: to be copied into the NOP-Out, ReservedTag when none is wanted
	// (§11.19.1).
	TTT uint32
	// StatSN: next StatSN of this connection (§11.19.2).
	StatSN uint32
	// ExpCmdSN: next CmdSN the target expects in this session (§4.2.2.1).
	ExpCmdSN uint32
	// MaxCmdSN: highest CmdSN the target accepts now (§4.2.2.1).
	MaxCmdSN uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *NOPIn) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpNOPIn, p.AHSLen, p.DataLen)
	b[1] = 0x80
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.TTT)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	return dst
}

// NOPInView reads a NOPIn header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpNOPIn.
type NOPInView []byte

// LUN returns the field LUN; see NOPIn.
func (v NOPInView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see NOPIn.
func (v NOPInView) ITT() uint32 { return u32(v, 16) }

// TTT returns the field TTT; see NOPIn.
func (v NOPInView) TTT() uint32 { return u32(v, 20) }

// StatSN returns the field StatSN; see NOPIn.
func (v NOPInView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see NOPIn.
func (v NOPInView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see NOPIn.
func (v NOPInView) MaxCmdSN() uint32 { return u32(v, 32) }

// AHSLen returns the field AHSLen; see NOPIn.
func (v NOPInView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see NOPIn.
func (v NOPInView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v NOPInView) Decode() NOPIn {
	_ = v[BHSLen-1] // one bounds check for all
	return NOPIn{
		LUN:      v.LUN(),
		ITT:      v.ITT(),
		TTT:      v.TTT(),
		StatSN:   v.StatSN(),
		ExpCmdSN: v.ExpCmdSN(),
		MaxCmdSN: v.MaxCmdSN(),
		AHSLen:   v.AHSLen(),
		DataLen:  v.DataLen(),
	}
}
