package pdu

// Text is the Text Request PDU (RFC 7143 §11.10). The data segment holds
// key=value text.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|I| 0x04      |F|C| Reserved                                  |
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
//	24| CmdSN                                                         |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpStatSN                                                     |
//	  +---------------+---------------+---------------+---------------+
//	32/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	  48
type Text struct {
	// Immediate: I bit: deliver without waiting for earlier CmdSNs (§11.2.1.1).
	Immediate bool
	// Final: F bit: last or only Text Request of the exchange.
	Final bool
	// Continue: C bit: the key=value text goes on in the next PDU; excludes Final.
	Continue bool
	// LUN: logical unit copied from the Text Response with its TTT, else 0.
	LUN uint64
	// ITT: Initiator Task Tag, the same for the whole exchange.
	ITT uint32
	// TTT: ReservedTag to start a new exchange, else the TTT of the last Text
	// Response (§11.10.4).
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
func (p *Text) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpText, p.AHSLen, p.DataLen)
	b[0] |= bit(p.Immediate, 0x40)
	b[1] = bit(p.Final, 0x80) | bit(p.Continue, 0x40)
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.TTT)
	put32(b, 24, p.CmdSN)
	put32(b, 28, p.ExpStatSN)
	return dst
}

// TextView reads a Text header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpText.
type TextView []byte

// Immediate returns the field Immediate; see Text.
func (v TextView) Immediate() bool { return v[0]&0x40 != 0 }

// Final returns the field Final; see Text.
func (v TextView) Final() bool { return v[1]&0x80 != 0 }

// Continue returns the field Continue; see Text.
func (v TextView) Continue() bool { return v[1]&0x40 != 0 }

// LUN returns the field LUN; see Text.
func (v TextView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see Text.
func (v TextView) ITT() uint32 { return u32(v, 16) }

// TTT returns the field TTT; see Text.
func (v TextView) TTT() uint32 { return u32(v, 20) }

// CmdSN returns the field CmdSN; see Text.
func (v TextView) CmdSN() uint32 { return u32(v, 24) }

// ExpStatSN returns the field ExpStatSN; see Text.
func (v TextView) ExpStatSN() uint32 { return u32(v, 28) }

// AHSLen returns the field AHSLen; see Text.
func (v TextView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see Text.
func (v TextView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v TextView) Decode() Text {
	_ = v[BHSLen-1] // one bounds check for all
	return Text{
		Immediate: v.Immediate(),
		Final:     v.Final(),
		Continue:  v.Continue(),
		LUN:       v.LUN(),
		ITT:       v.ITT(),
		TTT:       v.TTT(),
		CmdSN:     v.CmdSN(),
		ExpStatSN: v.ExpStatSN(),
		AHSLen:    v.AHSLen(),
		DataLen:   v.DataLen(),
	}
}
