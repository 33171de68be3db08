package pdu

// SNACK is the SNACK Request PDU (RFC 7143 §11.16): asks for retransmission of
// numbered PDUs, or acknowledges Data-In. Only for ErrorRecoveryLevel 1 and up.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x10      |1|.|.|.| Type  | Reserved                      |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| LUN or Reserved                                               |
//	  +                                                               +
//	12|                                                               |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag or 0xffffffff                              |
//	  +---------------+---------------+---------------+---------------+
//	20| Target Transfer Tag or SNACK Tag or 0xffffffff                |
//	  +---------------+---------------+---------------+---------------+
//	24| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpStatSN                                                     |
//	  +---------------+---------------+---------------+---------------+
//	32/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	40| BegRun                                                        |
//	  +---------------------------------------------------------------+
//	44| RunLength                                                     |
//	  +---------------------------------------------------------------+
//	  48
type SNACK struct {
	// Type: what is asked for (§11.16.1).
	Type SNACKType
	// LUN: logical unit of the Data-In with the A bit for SNACKDataACK, else 0.
	LUN uint64
	// ITT: Initiator Task Tag of the command, or ReservedTag for SNACKStatus and
	// SNACKDataACK (§11.16.4).
	ITT uint32
	// TTT: TTT of the Data-In for SNACKDataACK, a fresh SNACK Tag for SNACKRData,
	// else ReservedTag (§11.16.5).
	TTT uint32
	// ExpStatSN: next StatSN the initiator expects; acknowledges all before it
	// (§4.2.2.2).
	ExpStatSN uint32
	// BegRun: first DataSN, R2TSN or StatSN wanted, or next DataSN expected
	// (§11.16.6).
	BegRun uint32
	// RunLength: number of PDUs wanted, 0 for all from BegRun on (§11.16.7).
	RunLength uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *SNACK) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpSNACK, p.AHSLen, p.DataLen)
	b[1] = 0x80 | byte(p.Type)&0x0f
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.TTT)
	put32(b, 28, p.ExpStatSN)
	put32(b, 40, p.BegRun)
	put32(b, 44, p.RunLength)
	return dst
}

// SNACKView reads a SNACK header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpSNACK.
type SNACKView []byte

// Type returns the field Type; see SNACK.
func (v SNACKView) Type() SNACKType { return SNACKType(v[1] & 0x0f) }

// LUN returns the field LUN; see SNACK.
func (v SNACKView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see SNACK.
func (v SNACKView) ITT() uint32 { return u32(v, 16) }

// TTT returns the field TTT; see SNACK.
func (v SNACKView) TTT() uint32 { return u32(v, 20) }

// ExpStatSN returns the field ExpStatSN; see SNACK.
func (v SNACKView) ExpStatSN() uint32 { return u32(v, 28) }

// BegRun returns the field BegRun; see SNACK.
func (v SNACKView) BegRun() uint32 { return u32(v, 40) }

// RunLength returns the field RunLength; see SNACK.
func (v SNACKView) RunLength() uint32 { return u32(v, 44) }

// AHSLen returns the field AHSLen; see SNACK.
func (v SNACKView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see SNACK.
func (v SNACKView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v SNACKView) Decode() SNACK {
	_ = v[BHSLen-1] // one bounds check for all
	return SNACK{
		Type:      v.Type(),
		LUN:       v.LUN(),
		ITT:       v.ITT(),
		TTT:       v.TTT(),
		ExpStatSN: v.ExpStatSN(),
		BegRun:    v.BegRun(),
		RunLength: v.RunLength(),
		AHSLen:    v.AHSLen(),
		DataLen:   v.DataLen(),
	}
}
