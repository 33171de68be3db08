package pdu

// LogoutResponse is the Logout Response PDU (RFC 7143 §11.15).
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x26      |1| Reserved    | Response      | Reserved      |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------------------------------------------------------+
//	 8/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	24| StatSN                                                        |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	32| MaxCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	36| Reserved                                                      |
//	  +---------------------------------------------------------------+
//	40| Time2Wait                     | Time2Retain                   |
//	  +---------------+---------------+---------------+---------------+
//	44| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// DataLen and AHSLen must be 0.
type LogoutResponse struct {
	// Response: outcome (§11.15.1).
	Response LogoutResult
	// ITT: Initiator Task Tag of the request.
	ITT uint32
	// StatSN: status sequence number of this connection (§4.2.2.2).
	StatSN uint32
	// ExpCmdSN: next CmdSN the target expects in this session (§4.2.2.1).
	ExpCmdSN uint32
	// MaxCmdSN: highest CmdSN the target accepts now (§4.2.2.1).
	MaxCmdSN uint32
	// Time2Wait: seconds to wait before reassigning tasks or logging out again
	// (§11.15.3).
	Time2Wait uint16
	// Time2Retain: seconds after Time2Wait that the target keeps task state
	// (§11.15.4).
	Time2Retain uint16
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *LogoutResponse) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpLogoutResponse, p.AHSLen, p.DataLen)
	b[1] = 0x80
	b[2] = byte(p.Response)
	put32(b, 16, p.ITT)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	put16(b, 40, p.Time2Wait)
	put16(b, 42, p.Time2Retain)
	return dst
}

// LogoutResponseView reads a LogoutResponse header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpLogoutResponse.
type LogoutResponseView []byte

// Response returns the field Response; see LogoutResponse.
func (v LogoutResponseView) Response() LogoutResult { return LogoutResult(v[2]) }

// ITT returns the field ITT; see LogoutResponse.
func (v LogoutResponseView) ITT() uint32 { return u32(v, 16) }

// StatSN returns the field StatSN; see LogoutResponse.
func (v LogoutResponseView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see LogoutResponse.
func (v LogoutResponseView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see LogoutResponse.
func (v LogoutResponseView) MaxCmdSN() uint32 { return u32(v, 32) }

// Time2Wait returns the field Time2Wait; see LogoutResponse.
func (v LogoutResponseView) Time2Wait() uint16 { return u16(v, 40) }

// Time2Retain returns the field Time2Retain; see LogoutResponse.
func (v LogoutResponseView) Time2Retain() uint16 { return u16(v, 42) }

// AHSLen returns the field AHSLen; see LogoutResponse.
func (v LogoutResponseView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see LogoutResponse.
func (v LogoutResponseView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v LogoutResponseView) Decode() LogoutResponse {
	_ = v[BHSLen-1] // one bounds check for all
	return LogoutResponse{
		Response:    v.Response(),
		ITT:         v.ITT(),
		StatSN:      v.StatSN(),
		ExpCmdSN:    v.ExpCmdSN(),
		MaxCmdSN:    v.MaxCmdSN(),
		Time2Wait:   v.Time2Wait(),
		Time2Retain: v.Time2Retain(),
		AHSLen:      v.AHSLen(),
		DataLen:     v.DataLen(),
	}
}
