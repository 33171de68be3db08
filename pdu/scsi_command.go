package pdu

// SCSICommand is the SCSI Command PDU (RFC 7143 §11.3). The data segment, if any,
// carries immediate data; a CDB longer than 16 bytes continues in an Extended
// CDB AHS and a bidirectional read length goes into its own AHS.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|I| 0x01      |F|R|W|. .|ATTR | Reserved                      |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| Logical Unit Number (LUN)                                     |
//	  +                                                               +
//	12|                                                               |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20| Expected Data Transfer Length                                 |
//	  +---------------+---------------+---------------+---------------+
//	24| CmdSN                                                         |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpStatSN                                                     |
//	  +---------------+---------------+---------------+---------------+
//	32/ SCSI Command Descriptor Block (CDB)                           /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// At least one of Write and Final must be set.
type SCSICommand struct {
	// Immediate: I bit: deliver without waiting for earlier CmdSNs (§11.2.1.1).
	Immediate bool
	// Final: F bit: no unsolicited Data-Out PDUs follow (§11.3.1).
	Final bool
	// Read: R bit: the command is expected to return data.
	Read bool
	// Write: W bit: the command is expected to send data.
	Write bool
	// Attr: task attribute (§11.3.1).
	Attr TaskAttr
	// LUN: logical unit, the eight SAM-2 bytes in wire order (§11.2.1.7).
	LUN uint64
	// ITT: Initiator Task Tag (§11.2.1.8).
	ITT uint32
	// ExpectedDataLen: Expected Data Transfer Length in bytes; the write part when
	// Read and Write are both set (§11.3.4).
	ExpectedDataLen uint32
	// CmdSN: command sequence number (§4.2.2.1).
	CmdSN uint32
	// ExpStatSN: next StatSN the initiator expects; acknowledges all before it
	// (§4.2.2.2).
	ExpStatSN uint32
	// CDB: first 16 bytes of the SCSI command descriptor block (§11.3.5).
	CDB [16]byte
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *SCSICommand) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpSCSICommand, p.AHSLen, p.DataLen)
	b[0] |= bit(p.Immediate, 0x40)
	b[1] = bit(p.Final, 0x80) | bit(p.Read, 0x40) | bit(p.Write, 0x20) | byte(p.Attr)&0x07
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.ExpectedDataLen)
	put32(b, 24, p.CmdSN)
	put32(b, 28, p.ExpStatSN)
	copy(b[32:], p.CDB[:])
	return dst
}

// SCSICommandView reads a SCSICommand header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpSCSICommand.
type SCSICommandView []byte

// Immediate returns the field Immediate; see SCSICommand.
func (v SCSICommandView) Immediate() bool { return v[0]&0x40 != 0 }

// Final returns the field Final; see SCSICommand.
func (v SCSICommandView) Final() bool { return v[1]&0x80 != 0 }

// Read returns the field Read; see SCSICommand.
func (v SCSICommandView) Read() bool { return v[1]&0x40 != 0 }

// Write returns the field Write; see SCSICommand.
func (v SCSICommandView) Write() bool { return v[1]&0x20 != 0 }

// Attr returns the field Attr; see SCSICommand.
func (v SCSICommandView) Attr() TaskAttr { return TaskAttr(v[1] & 0x07) }

// LUN returns the field LUN; see SCSICommand.
func (v SCSICommandView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see SCSICommand.
func (v SCSICommandView) ITT() uint32 { return u32(v, 16) }

// ExpectedDataLen returns the field ExpectedDataLen; see SCSICommand.
func (v SCSICommandView) ExpectedDataLen() uint32 { return u32(v, 20) }

// CmdSN returns the field CmdSN; see SCSICommand.
func (v SCSICommandView) CmdSN() uint32 { return u32(v, 24) }

// ExpStatSN returns the field ExpStatSN; see SCSICommand.
func (v SCSICommandView) ExpStatSN() uint32 { return u32(v, 28) }

// CDB returns the field CDB; see SCSICommand.
func (v SCSICommandView) CDB() [16]byte { return [16]byte(v[32:48]) }

// AHSLen returns the field AHSLen; see SCSICommand.
func (v SCSICommandView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see SCSICommand.
func (v SCSICommandView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v SCSICommandView) Decode() SCSICommand {
	_ = v[BHSLen-1] // one bounds check for all
	return SCSICommand{
		Immediate:       v.Immediate(),
		Final:           v.Final(),
		Read:            v.Read(),
		Write:           v.Write(),
		Attr:            v.Attr(),
		LUN:             v.LUN(),
		ITT:             v.ITT(),
		ExpectedDataLen: v.ExpectedDataLen(),
		CmdSN:           v.CmdSN(),
		ExpStatSN:       v.ExpStatSN(),
		CDB:             v.CDB(),
		AHSLen:          v.AHSLen(),
		DataLen:         v.DataLen(),
	}
}
