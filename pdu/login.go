package pdu

// Login is the Login Request PDU (RFC 7143 §11.12). The I bit is always 1. The
// data segment holds key=value text.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|1| 0x03      |T|C|.|.|CSG|NSG| Version-max   | Version-min   |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| ISID                                                          |
//	  +                               +---------------+---------------+
//	12|                               | TSIH                          |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20| CID                           | Reserved                      |
//	  +---------------+---------------+---------------+---------------+
//	24| CmdSN                                                         |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpStatSN or Reserved                                         |
//	  +---------------+---------------+---------------+---------------+
//	32| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	36| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	40/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	  48
type Login struct {
	// Transit: T bit: ready to move from CSG to NSG.
	Transit bool
	// Continue: C bit: the key=value text goes on in the next PDU; excludes
	// Transit.
	Continue bool
	// CSG: current stage (§11.12.3).
	CSG Stage
	// NSG: next stage, valid only with Transit (§11.12.3).
	NSG Stage
	// VersionMax: highest protocol version supported, 0 for RFC 7143.
	VersionMax uint8
	// VersionMin: lowest protocol version supported, 0 for RFC 7143.
	VersionMin uint8
	// ISID: initiator part of the session id (§11.12.5).
	ISID [6]byte
	// TSIH: 0 for a new session, else the handle the target gave it (§11.12.6).
	TSIH uint16
	// ITT: Initiator Task Tag, the same for the whole Login Phase.
	ITT uint32
	// CID: connection id, unique in the session (§11.12.7).
	CID uint16
	// CmdSN: initial CmdSN of the session, or the current one on a further
	// connection (§11.12.8).
	CmdSN uint32
	// ExpStatSN: next StatSN expected; in the first request only valid when it
	// restarts a connection (§11.12.9).
	ExpStatSN uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *Login) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpLogin, p.AHSLen, p.DataLen)
	b[0] |= 0x40 // Login Requests are always immediate
	b[1] = bit(p.Transit, 0x80) | bit(p.Continue, 0x40) | (byte(p.CSG)&0x03)<<2 | byte(p.NSG)&0x03
	b[2] = p.VersionMax
	b[3] = p.VersionMin
	copy(b[8:], p.ISID[:])
	put16(b, 14, p.TSIH)
	put32(b, 16, p.ITT)
	put16(b, 20, p.CID)
	put32(b, 24, p.CmdSN)
	put32(b, 28, p.ExpStatSN)
	return dst
}

// LoginView reads a Login header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpLogin.
type LoginView []byte

// Transit returns the field Transit; see Login.
func (v LoginView) Transit() bool { return v[1]&0x80 != 0 }

// Continue returns the field Continue; see Login.
func (v LoginView) Continue() bool { return v[1]&0x40 != 0 }

// CSG returns the field CSG; see Login.
func (v LoginView) CSG() Stage { return Stage(v[1] >> 2 & 0x03) }

// NSG returns the field NSG; see Login.
func (v LoginView) NSG() Stage { return Stage(v[1] & 0x03) }

// VersionMax returns the field VersionMax; see Login.
func (v LoginView) VersionMax() uint8 { return v[2] }

// VersionMin returns the field VersionMin; see Login.
func (v LoginView) VersionMin() uint8 { return v[3] }

// ISID returns the field ISID; see Login.
func (v LoginView) ISID() [6]byte { return [6]byte(v[8:14]) }

// TSIH returns the field TSIH; see Login.
func (v LoginView) TSIH() uint16 { return u16(v, 14) }

// ITT returns the field ITT; see Login.
func (v LoginView) ITT() uint32 { return u32(v, 16) }

// CID returns the field CID; see Login.
func (v LoginView) CID() uint16 { return u16(v, 20) }

// CmdSN returns the field CmdSN; see Login.
func (v LoginView) CmdSN() uint32 { return u32(v, 24) }

// ExpStatSN returns the field ExpStatSN; see Login.
func (v LoginView) ExpStatSN() uint32 { return u32(v, 28) }

// AHSLen returns the field AHSLen; see Login.
func (v LoginView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see Login.
func (v LoginView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v LoginView) Decode() Login {
	_ = v[BHSLen-1] // one bounds check for all
	return Login{
		Transit:    v.Transit(),
		Continue:   v.Continue(),
		CSG:        v.CSG(),
		NSG:        v.NSG(),
		VersionMax: v.VersionMax(),
		VersionMin: v.VersionMin(),
		ISID:       v.ISID(),
		TSIH:       v.TSIH(),
		ITT:        v.ITT(),
		CID:        v.CID(),
		CmdSN:      v.CmdSN(),
		ExpStatSN:  v.ExpStatSN(),
		AHSLen:     v.AHSLen(),
		DataLen:    v.DataLen(),
	}
}
