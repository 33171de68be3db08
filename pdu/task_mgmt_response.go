package pdu

// TaskMgmtResponse is the Task Management Function Response PDU (RFC 7143 §11.6).
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x22      |1| Reserved    | Response      | Reserved      |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------------------------------------------------------+
//	 8/ Reserved                                                      /
//	  /                                                               /
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
//	36/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// DataLen and AHSLen must be 0.
type TaskMgmtResponse struct {
	// Response: outcome (§11.6.1).
	Response TMResponse
	// ITT: Initiator Task Tag of the request.
	ITT uint32
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
func (p *TaskMgmtResponse) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpTaskMgmtResponse, p.AHSLen, p.DataLen)
	b[1] = 0x80
	b[2] = byte(p.Response)
	put32(b, 16, p.ITT)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	return dst
}

// TaskMgmtResponseView reads a TaskMgmtResponse header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpTaskMgmtResponse.
type TaskMgmtResponseView []byte

// Response returns the field Response; see TaskMgmtResponse.
func (v TaskMgmtResponseView) Response() TMResponse { return TMResponse(v[2]) }

// ITT returns the field ITT; see TaskMgmtResponse.
func (v TaskMgmtResponseView) ITT() uint32 { return u32(v, 16) }

// StatSN returns the field StatSN; see TaskMgmtResponse.
func (v TaskMgmtResponseView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see TaskMgmtResponse.
func (v TaskMgmtResponseView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see TaskMgmtResponse.
func (v TaskMgmtResponseView) MaxCmdSN() uint32 { return u32(v, 32) }

// AHSLen returns the field AHSLen; see TaskMgmtResponse.
func (v TaskMgmtResponseView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see TaskMgmtResponse.
func (v TaskMgmtResponseView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v TaskMgmtResponseView) Decode() TaskMgmtResponse {
	_ = v[BHSLen-1] // one bounds check for all
	return TaskMgmtResponse{
		Response: v.Response(),
		ITT:      v.ITT(),
		StatSN:   v.StatSN(),
		ExpCmdSN: v.ExpCmdSN(),
		MaxCmdSN: v.MaxCmdSN(),
		AHSLen:   v.AHSLen(),
		DataLen:  v.DataLen(),
	}
}
