package pdu

// TextResponse is the Text Response PDU (RFC 7143 §11.11). The data segment holds
// key=value text.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x24      |F|C| Reserved                                  |
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
type TextResponse struct {
	// Final: F bit: the target has finished the exchange.
	Final bool
	// Continue: C bit: the key=value text goes on in the next PDU; excludes Final.
	Continue bool
	// LUN: logical unit to send back with TTT, else 0.
	LUN uint64
	// ITT: Initiator Task Tag of the request.
	ITT uint32
	// TTT: ReservedTag when finished, else to be copied into the next Text Request
	// (§11.11.4).
	TTT uint32
	// StatSN: status sequence number of this connection (§4.2.2.2).
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
func (p *TextResponse) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpTextResponse, p.AHSLen, p.DataLen)
	b[1] = bit(p.Final, 0x80) | bit(p.Continue, 0x40)
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.TTT)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	return dst
}

// TextResponseView reads a TextResponse header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpTextResponse.
type TextResponseView []byte

// Final returns the field Final; see TextResponse.
func (v TextResponseView) Final() bool { return v[1]&0x80 != 0 }

// Continue returns the field Continue; see TextResponse.
func (v TextResponseView) Continue() bool { return v[1]&0x40 != 0 }

// LUN returns the field LUN; see TextResponse.
func (v TextResponseView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see TextResponse.
func (v TextResponseView) ITT() uint32 { return u32(v, 16) }

// TTT returns the field TTT; see TextResponse.
func (v TextResponseView) TTT() uint32 { return u32(v, 20) }

// StatSN returns the field StatSN; see TextResponse.
func (v TextResponseView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see TextResponse.
func (v TextResponseView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see TextResponse.
func (v TextResponseView) MaxCmdSN() uint32 { return u32(v, 32) }

// AHSLen returns the field AHSLen; see TextResponse.
func (v TextResponseView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see TextResponse.
func (v TextResponseView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v TextResponseView) Decode() TextResponse {
	_ = v[BHSLen-1] // one bounds check for all
	return TextResponse{
		Final:    v.Final(),
		Continue: v.Continue(),
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
