package pdu

// Reject is the Reject PDU (RFC 7143 §11.17). Its ITT is always ReservedTag. The
// data segment holds the complete header of the rejected PDU.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x3f      |1| Reserved    | Reason        | Reserved      |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	16| 0xffffffff                                                    |
//	  +---------------+---------------+---------------+---------------+
//	20| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	24| StatSN                                                        |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	32| MaxCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	36| DataSN/R2TSN or Reserved                                      |
//	  +---------------+---------------+---------------+---------------+
//	40| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	44| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	  48
type Reject struct {
	// Reason: why the PDU was refused (§11.17.1).
	Reason RejectReason
	// StatSN: status sequence number of this connection (§4.2.2.2).
	StatSN uint32
	// ExpCmdSN: next CmdSN the target expects in this session (§4.2.2.1).
	ExpCmdSN uint32
	// MaxCmdSN: highest CmdSN the target accepts now (§4.2.2.1).
	MaxCmdSN uint32
	// DataSN: next DataSN or R2TSN of the task, valid for a Data/R2T SNACK refused
	// with RejectProtocolError (§11.17.2).
	DataSN uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *Reject) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpReject, p.AHSLen, p.DataLen)
	b[1] = 0x80
	put32(b, 16, ReservedTag)
	b[2] = byte(p.Reason)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	put32(b, 36, p.DataSN)
	return dst
}

// RejectView reads a Reject header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpReject.
type RejectView []byte

// Reason returns the field Reason; see Reject.
func (v RejectView) Reason() RejectReason { return RejectReason(v[2]) }

// StatSN returns the field StatSN; see Reject.
func (v RejectView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see Reject.
func (v RejectView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see Reject.
func (v RejectView) MaxCmdSN() uint32 { return u32(v, 32) }

// DataSN returns the field DataSN; see Reject.
func (v RejectView) DataSN() uint32 { return u32(v, 36) }

// AHSLen returns the field AHSLen; see Reject.
func (v RejectView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see Reject.
func (v RejectView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v RejectView) Decode() Reject {
	_ = v[BHSLen-1] // one bounds check for all
	return Reject{
		Reason:   v.Reason(),
		StatSN:   v.StatSN(),
		ExpCmdSN: v.ExpCmdSN(),
		MaxCmdSN: v.MaxCmdSN(),
		DataSN:   v.DataSN(),
		AHSLen:   v.AHSLen(),
		DataLen:  v.DataLen(),
	}
}
