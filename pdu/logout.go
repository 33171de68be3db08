package pdu

// Logout is the Logout Request PDU (RFC 7143 §11.14).
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|I| 0x06      |1| Reason Code | Reserved                      |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------------------------------------------------------+
//	 8/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20| CID or Reserved               | Reserved                      |
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
// DataLen and AHSLen must be 0.
type Logout struct {
	// Immediate: I bit: deliver without waiting for earlier CmdSNs (§11.2.1.1).
	Immediate bool
	// Reason: what to close (§11.14.1).
	Reason LogoutReason
	// ITT: Initiator Task Tag (§11.2.1.8).
	ITT uint32
	// CID: connection to close, ignored for LogoutCloseSession (§11.14.3).
	CID uint16
	// CmdSN: command sequence number (§4.2.2.1).
	CmdSN uint32
	// ExpStatSN: last ExpStatSN of the connection to be closed (§11.14.4).
	ExpStatSN uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *Logout) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpLogout, p.AHSLen, p.DataLen)
	b[0] |= bit(p.Immediate, 0x40)
	b[1] = 0x80 | byte(p.Reason)&0x7f
	put32(b, 16, p.ITT)
	put16(b, 20, p.CID)
	put32(b, 24, p.CmdSN)
	put32(b, 28, p.ExpStatSN)
	return dst
}

// LogoutView reads a Logout header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpLogout.
type LogoutView []byte

// Immediate returns the field Immediate; see Logout.
func (v LogoutView) Immediate() bool { return v[0]&0x40 != 0 }

// Reason returns the field Reason; see Logout.
func (v LogoutView) Reason() LogoutReason { return LogoutReason(v[1] & 0x7f) }

// ITT returns the field ITT; see Logout.
func (v LogoutView) ITT() uint32 { return u32(v, 16) }

// CID returns the field CID; see Logout.
func (v LogoutView) CID() uint16 { return u16(v, 20) }

// CmdSN returns the field CmdSN; see Logout.
func (v LogoutView) CmdSN() uint32 { return u32(v, 24) }

// ExpStatSN returns the field ExpStatSN; see Logout.
func (v LogoutView) ExpStatSN() uint32 { return u32(v, 28) }

// AHSLen returns the field AHSLen; see Logout.
func (v LogoutView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see Logout.
func (v LogoutView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v LogoutView) Decode() Logout {
	_ = v[BHSLen-1] // one bounds check for all
	return Logout{
		Immediate: v.Immediate(),
		Reason:    v.Reason(),
		ITT:       v.ITT(),
		CID:       v.CID(),
		CmdSN:     v.CmdSN(),
		ExpStatSN: v.ExpStatSN(),
		AHSLen:    v.AHSLen(),
		DataLen:   v.DataLen(),
	}
}
