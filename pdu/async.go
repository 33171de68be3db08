package pdu

// Async is the Asynchronous Message PDU (RFC 7143 §11.9). Its ITT is always
// ReservedTag. The data segment holds a two-byte SenseLength, sense data and
// event data (§11.9.4).
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x32      |1| Reserved                                    |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| LUN or Reserved                                               |
//	  +                                                               +
//	12|                                                               |
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
//	36| AsyncEvent    | AsyncVCode    | Parameter1 or Reserved        |
//	  +---------------+---------------+---------------+---------------+
//	40| Parameter2 or Reserved        | Parameter3 or Reserved        |
//	  +---------------+---------------+---------------+---------------+
//	44| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	  48
type Async struct {
	// LUN: logical unit, valid for AsyncSCSIEvent and AsyncTaskTermination
	// (§11.9.3).
	LUN uint64
	// StatSN: status sequence number of this connection (§4.2.2.2).
	StatSN uint32
	// ExpCmdSN: next CmdSN the target expects in this session (§4.2.2.1).
	ExpCmdSN uint32
	// MaxCmdSN: highest CmdSN the target accepts now (§4.2.2.1).
	MaxCmdSN uint32
	// AsyncEvent: what happened (§11.9.1).
	AsyncEvent AsyncEvent
	// AsyncVCode: vendor detail, valid for vendor events (§11.9.2).
	AsyncVCode uint8
	// Param1: CID for AsyncConnectionDrop.
	Param1 uint16
	// Param2: Time2Wait in seconds for the drop events.
	Param2 uint16
	// Param3: Time2Retain in seconds for the drop events, the time limit in
	// seconds for AsyncLogoutRequest and AsyncNegotiationRequest.
	Param3 uint16
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *Async) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpAsync, p.AHSLen, p.DataLen)
	b[1] = 0x80
	put32(b, 16, ReservedTag)
	put64(b, 8, p.LUN)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	b[36] = byte(p.AsyncEvent)
	b[37] = p.AsyncVCode
	put16(b, 38, p.Param1)
	put16(b, 40, p.Param2)
	put16(b, 42, p.Param3)
	return dst
}

// AsyncView reads a Async header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpAsync.
type AsyncView []byte

// LUN returns the field LUN; see Async.
func (v AsyncView) LUN() uint64 { return u64(v, 8) }

// StatSN returns the field StatSN; see Async.
func (v AsyncView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see Async.
func (v AsyncView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see Async.
func (v AsyncView) MaxCmdSN() uint32 { return u32(v, 32) }

// AsyncEvent returns the field AsyncEvent; see Async.
func (v AsyncView) AsyncEvent() AsyncEvent { return AsyncEvent(v[36]) }

// AsyncVCode returns the field AsyncVCode; see Async.
func (v AsyncView) AsyncVCode() uint8 { return v[37] }

// Param1 returns the field Param1; see Async.
func (v AsyncView) Param1() uint16 { return u16(v, 38) }

// Param2 returns the field Param2; see Async.
func (v AsyncView) Param2() uint16 { return u16(v, 40) }

// Param3 returns the field Param3; see Async.
func (v AsyncView) Param3() uint16 { return u16(v, 42) }

// AHSLen returns the field AHSLen; see Async.
func (v AsyncView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see Async.
func (v AsyncView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v AsyncView) Decode() Async {
	_ = v[BHSLen-1] // one bounds check for all
	return Async{
		LUN:        v.LUN(),
		StatSN:     v.StatSN(),
		ExpCmdSN:   v.ExpCmdSN(),
		MaxCmdSN:   v.MaxCmdSN(),
		AsyncEvent: v.AsyncEvent(),
		AsyncVCode: v.AsyncVCode(),
		Param1:     v.Param1(),
		Param2:     v.Param2(),
		Param3:     v.Param3(),
		AHSLen:     v.AHSLen(),
		DataLen:    v.DataLen(),
	}
}
