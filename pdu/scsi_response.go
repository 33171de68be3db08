package pdu

// SCSIResponse is the SCSI Response PDU (RFC 7143 §11.4). Its data segment holds a
// two-byte SenseLength, sense data and response data (§11.4.7).
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x21      |1|. .|o|u|O|U|.| Response      | Status        |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| Reserved                                                      |
//	  +                                                               +
//	12|                                                               |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20| SNACK Tag or Reserved                                         |
//	  +---------------+---------------+---------------+---------------+
//	24| StatSN                                                        |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	32| MaxCmdSN                                                      |
//	  +---------------+---------------+---------------+---------------+
//	36| ExpDataSN or Reserved                                         |
//	  +---------------+---------------+---------------+---------------+
//	40| Bidirectional Read Residual Count or Reserved                 |
//	  +---------------+---------------+---------------+---------------+
//	44| Residual Count or Reserved                                    |
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// Status and the residual flags mean something only when Response is
// ServiceCompleted. Overflow excludes Underflow, and likewise for the Bidi pair.
type SCSIResponse struct {
	// BidiOverflow: o bit: the bidirectional read had more to give than was asked
	// for.
	BidiOverflow bool
	// BidiUnderflow: u bit: the bidirectional read gave less than was asked for.
	BidiUnderflow bool
	// Overflow: O bit: ResidualCount bytes were not moved because ExpectedDataLen
	// was too small.
	Overflow bool
	// Underflow: U bit: ResidualCount bytes of ExpectedDataLen were not moved.
	Underflow bool
	// Response: iSCSI service response (§11.4.3).
	Response ServiceResponse
	// Status: SCSI status byte as in SAM-2; valid only when Response is
	// ServiceCompleted (§11.4.2).
	Status uint8
	// ITT: Initiator Task Tag (§11.2.1.8).
	ITT uint32
	// SNACKTag: copy of the last accepted R-Data SNACK Tag, else 0 (§11.4.4).
	SNACKTag uint32
	// StatSN: status sequence number of this connection (§4.2.2.2).
	StatSN uint32
	// ExpCmdSN: next CmdSN the target expects in this session (§4.2.2.1).
	ExpCmdSN uint32
	// MaxCmdSN: highest CmdSN the target accepts now (§4.2.2.1).
	MaxCmdSN uint32
	// ExpDataSN: number of Data-In PDUs the target has sent for the command
	// (§11.4.8).
	ExpDataSN uint32
	// BidiResidualCount: bytes, valid with BidiOverflow or BidiUnderflow
	// (§11.4.6).
	BidiResidualCount uint32
	// ResidualCount: bytes, valid with Overflow or Underflow (§11.4.5).
	ResidualCount uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *SCSIResponse) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpSCSIResponse, p.AHSLen, p.DataLen)
	b[1] = 0x80 | bit(p.BidiOverflow, 0x10) | bit(p.BidiUnderflow, 0x08) | bit(p.Overflow, 0x04) | bit(p.Underflow, 0x02)
	b[2] = byte(p.Response)
	b[3] = p.Status
	put32(b, 16, p.ITT)
	put32(b, 20, p.SNACKTag)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	put32(b, 36, p.ExpDataSN)
	put32(b, 40, p.BidiResidualCount)
	put32(b, 44, p.ResidualCount)
	return dst
}

// SCSIResponseView reads a SCSIResponse header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpSCSIResponse.
type SCSIResponseView []byte

// BidiOverflow returns the field BidiOverflow; see SCSIResponse.
func (v SCSIResponseView) BidiOverflow() bool { return v[1]&0x10 != 0 }

// BidiUnderflow returns the field BidiUnderflow; see SCSIResponse.
func (v SCSIResponseView) BidiUnderflow() bool { return v[1]&0x08 != 0 }

// Overflow returns the field Overflow; see SCSIResponse.
func (v SCSIResponseView) Overflow() bool { return v[1]&0x04 != 0 }

// Underflow returns the field Underflow; see SCSIResponse.
func (v SCSIResponseView) Underflow() bool { return v[1]&0x02 != 0 }

// Response returns the field Response; see SCSIResponse.
func (v SCSIResponseView) Response() ServiceResponse { return ServiceResponse(v[2]) }

// Status returns the field Status; see SCSIResponse.
func (v SCSIResponseView) Status() uint8 { return v[3] }

// ITT returns the field ITT; see SCSIResponse.
func (v SCSIResponseView) ITT() uint32 { return u32(v, 16) }

// SNACKTag returns the field SNACKTag; see SCSIResponse.
func (v SCSIResponseView) SNACKTag() uint32 { return u32(v, 20) }

// StatSN returns the field StatSN; see SCSIResponse.
func (v SCSIResponseView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see SCSIResponse.
func (v SCSIResponseView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see SCSIResponse.
func (v SCSIResponseView) MaxCmdSN() uint32 { return u32(v, 32) }

// ExpDataSN returns the field ExpDataSN; see SCSIResponse.
func (v SCSIResponseView) ExpDataSN() uint32 { return u32(v, 36) }

// BidiResidualCount returns the field BidiResidualCount; see SCSIResponse.
func (v SCSIResponseView) BidiResidualCount() uint32 { return u32(v, 40) }

// ResidualCount returns the field ResidualCount; see SCSIResponse.
func (v SCSIResponseView) ResidualCount() uint32 { return u32(v, 44) }

// AHSLen returns the field AHSLen; see SCSIResponse.
func (v SCSIResponseView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see SCSIResponse.
func (v SCSIResponseView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v SCSIResponseView) Decode() SCSIResponse {
	_ = v[BHSLen-1] // one bounds check for all
	return SCSIResponse{
		BidiOverflow:      v.BidiOverflow(),
		BidiUnderflow:     v.BidiUnderflow(),
		Overflow:          v.Overflow(),
		Underflow:         v.Underflow(),
		Response:          v.Response(),
		Status:            v.Status(),
		ITT:               v.ITT(),
		SNACKTag:          v.SNACKTag(),
		StatSN:            v.StatSN(),
		ExpCmdSN:          v.ExpCmdSN(),
		MaxCmdSN:          v.MaxCmdSN(),
		ExpDataSN:         v.ExpDataSN(),
		BidiResidualCount: v.BidiResidualCount(),
		ResidualCount:     v.ResidualCount(),
		AHSLen:            v.AHSLen(),
		DataLen:           v.DataLen(),
	}
}
