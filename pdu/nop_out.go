package pdu

// NOPOut is the NOP-Out PDU (RFC 7143 §11.18): a ping from the initiator, the
// answer to a NOP-In ping, or a bare acknowledgement of ExpStatSN.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|I| 0x00      |1| Reserved                                    |
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
//	24| CmdSN                                                         |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpStatSN                                                     |
//	  +---------------+---------------+---------------+---------------+
//	32/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// With ITT == ReservedTag no answer is wanted and Immediate must be set. TTT is
// ReservedTag unless this answers a NOP-In, whose TTT and LUN are then copied.
type NOPOut struct {
	// Immediate: I bit: deliver without waiting for earlier CmdSNs (§11.2.1.1).
	Immediate bool
	// LUN: logical unit copied from the NOP-In being answered, else 0.
	LUN uint64
	// ITT: Initiator Task Tag, or ReservedTag when no answer is wanted.
	ITT uint32
	// TTT: Target Transfer Tag of the NOP-In being answered, else ReservedTag.
	TTT uint32
	// CmdSN: command sequence number (§4.2.2.1).
	CmdSN uint32
	// ExpStatSN: next StatSN the initiator expects; acknowledges all before it
	// (§4.2.2.2).
	ExpStatSN uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *NOPOut) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpNOPOut, p.AHSLen, p.DataLen)
	b[0] |= bit(p.Immediate, 0x40)
	b[1] = 0x80
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.TTT)
	put32(b, 24, p.CmdSN)
	put32(b, 28, p.ExpStatSN)
	return dst
}

// NOPOutView reads a NOPOut header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpNOPOut.
type NOPOutView []byte

// Immediate returns the field Immediate; see NOPOut.
func (v NOPOutView) Immediate() bool { return v[0]&0x40 != 0 }

// LUN returns the field LUN; see NOPOut.
func (v NOPOutView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see NOPOut.
func (v NOPOutView) ITT() uint32 { return u32(v, 16) }

// TTT returns the field TTT; see NOPOut.
func (v NOPOutView) TTT() uint32 { return u32(v, 20) }

// CmdSN returns the field CmdSN; see NOPOut.
func (v NOPOutView) CmdSN() uint32 { return u32(v, 24) }

// ExpStatSN returns the field ExpStatSN; see NOPOut.
func (v NOPOutView) ExpStatSN() uint32 { return u32(v, 28) }

// AHSLen returns the field AHSLen; see NOPOut.
func (v NOPOutView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see NOPOut.
func (v NOPOutView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v NOPOutView) Decode() NOPOut {
	_ = v[BHSLen-1] // one bounds check for all
	return NOPOut{
		Immediate: v.Immediate(),
		LUN:       v.LUN(),
		ITT:       v.ITT(),
		TTT:       v.TTT(),
		CmdSN:     v.CmdSN(),
		ExpStatSN: v.ExpStatSN(),
		AHSLen:    v.AHSLen(),
		DataLen:   v.DataLen(),
	}
}
