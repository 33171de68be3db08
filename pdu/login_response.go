package pdu

// LoginResponse is the Login Response PDU (RFC 7143 §11.13). The data segment holds
// key=value text.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x23      |T|C|.|.|CSG|NSG| Version-max   |Version-active |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| ISID                                                          |
//	  +                               +---------------+---------------+
//	12|                               | TSIH                          |
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
//	36| Status-Class  | Status-Detail | Reserved                      |
//	  +---------------+---------------+---------------+---------------+
//	40/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// The sequence numbers mean something only when StatusClass is 0.
type LoginResponse struct {
	// Transit: T bit: ready to move from CSG to NSG.
	Transit bool
	// Continue: C bit: the key=value text goes on in the next PDU; excludes
	// Transit.
	Continue bool
	// CSG: current stage (§11.12.3).
	CSG Stage
	// NSG: next stage, valid only with Transit (§11.12.3).
	NSG Stage
	// VersionMax: highest protocol version the target supports.
	VersionMax uint8
	// VersionActive: protocol version in use.
	VersionActive uint8
	// ISID: ISID of the request.
	ISID [6]byte
	// TSIH: session handle given by the target, set in the final response of a new
	// session (§11.13.3).
	TSIH uint16
	// ITT: Initiator Task Tag of the request.
	ITT uint32
	// StatSN: status sequence number of this connection (§4.2.2.2).
	StatSN uint32
	// ExpCmdSN: next CmdSN the target expects in this session (§4.2.2.1).
	ExpCmdSN uint32
	// MaxCmdSN: highest CmdSN the target accepts now (§4.2.2.1).
	MaxCmdSN uint32
	// StatusClass: 0 success, 1 redirection, 2 initiator error, 3 target error
	// (§11.13.5).
	StatusClass uint8
	// StatusDetail: refines StatusClass (§11.13.5).
	StatusDetail uint8
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *LoginResponse) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpLoginResponse, p.AHSLen, p.DataLen)
	b[1] = bit(p.Transit, 0x80) | bit(p.Continue, 0x40) | (byte(p.CSG)&0x03)<<2 | byte(p.NSG)&0x03
	b[2] = p.VersionMax
	b[3] = p.VersionActive
	copy(b[8:], p.ISID[:])
	put16(b, 14, p.TSIH)
	put32(b, 16, p.ITT)
	put32(b, 24, p.StatSN)
	put32(b, 28, p.ExpCmdSN)
	put32(b, 32, p.MaxCmdSN)
	b[36] = p.StatusClass
	b[37] = p.StatusDetail
	return dst
}

// LoginResponseView reads a LoginResponse header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpLoginResponse.
type LoginResponseView []byte

// Transit returns the field Transit; see LoginResponse.
func (v LoginResponseView) Transit() bool { return v[1]&0x80 != 0 }

// Continue returns the field Continue; see LoginResponse.
func (v LoginResponseView) Continue() bool { return v[1]&0x40 != 0 }

// CSG returns the field CSG; see LoginResponse.
func (v LoginResponseView) CSG() Stage { return Stage(v[1] >> 2 & 0x03) }

// NSG returns the field NSG; see LoginResponse.
func (v LoginResponseView) NSG() Stage { return Stage(v[1] & 0x03) }

// VersionMax returns the field VersionMax; see LoginResponse.
func (v LoginResponseView) VersionMax() uint8 { return v[2] }

// VersionActive returns the field VersionActive; see LoginResponse.
func (v LoginResponseView) VersionActive() uint8 { return v[3] }

// ISID returns the field ISID; see LoginResponse.
func (v LoginResponseView) ISID() [6]byte { return [6]byte(v[8:14]) }

// TSIH returns the field TSIH; see LoginResponse.
func (v LoginResponseView) TSIH() uint16 { return u16(v, 14) }

// ITT returns the field ITT; see LoginResponse.
func (v LoginResponseView) ITT() uint32 { return u32(v, 16) }

// StatSN returns the field StatSN; see LoginResponse.
func (v LoginResponseView) StatSN() uint32 { return u32(v, 24) }

// ExpCmdSN returns the field ExpCmdSN; see LoginResponse.
func (v LoginResponseView) ExpCmdSN() uint32 { return u32(v, 28) }

// MaxCmdSN returns the field MaxCmdSN; see LoginResponse.
func (v LoginResponseView) MaxCmdSN() uint32 { return u32(v, 32) }

// StatusClass returns the field StatusClass; see LoginResponse.
func (v LoginResponseView) StatusClass() uint8 { return v[36] }

// StatusDetail returns the field StatusDetail; see LoginResponse.
func (v LoginResponseView) StatusDetail() uint8 { return v[37] }

// AHSLen returns the field AHSLen; see LoginResponse.
func (v LoginResponseView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see LoginResponse.
func (v LoginResponseView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v LoginResponseView) Decode() LoginResponse {
	_ = v[BHSLen-1] // one bounds check for all
	return LoginResponse{
		Transit:       v.Transit(),
		Continue:      v.Continue(),
		CSG:           v.CSG(),
		NSG:           v.NSG(),
		VersionMax:    v.VersionMax(),
		VersionActive: v.VersionActive(),
		ISID:          v.ISID(),
		TSIH:          v.TSIH(),
		ITT:           v.ITT(),
		StatSN:        v.StatSN(),
		ExpCmdSN:      v.ExpCmdSN(),
		MaxCmdSN:      v.MaxCmdSN(),
		StatusClass:   v.StatusClass(),
		StatusDetail:  v.StatusDetail(),
		AHSLen:        v.AHSLen(),
		DataLen:       v.DataLen(),
	}
}

// LoginStatus returns StatusClass and StatusDetail as one code.
func (p *LoginResponse) LoginStatus() LoginStatus {
	return LoginStatus(p.StatusClass)<<8 | LoginStatus(p.StatusDetail)
}

// LoginStatus returns StatusClass and StatusDetail as one code.
func (v LoginResponseView) LoginStatus() LoginStatus { return LoginStatus(u16(v, 36)) }
