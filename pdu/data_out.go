package pdu

// DataOut is the SCSI Data-Out PDU (RFC 7143 §11.7): write data, unsolicited or
// answering an R2T.
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|.| 0x05      |F| Reserved                                    |
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
//	24| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpStatSN                                                     |
//	  +---------------+---------------+---------------+---------------+
//	32| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	36| DataSN                                                        |
//	  +---------------+---------------+---------------+---------------+
//	40| Buffer Offset                                                 |
//	  +---------------+---------------+---------------+---------------+
//	44| Reserved                                                      |
//	  +---------------+---------------+---------------+---------------+
//	  48
type DataOut struct {
	// Final: F bit: last PDU of the unsolicited data or of the answer to one R2T.
	Final bool
	// LUN: logical unit of the R2T when TTT is set, else 0 (§11.7.4).
	LUN uint64
	// ITT: Initiator Task Tag of the command.
	ITT uint32
	// TTT: Target Transfer Tag of the R2T, or ReservedTag for unsolicited data.
	TTT uint32
	// ExpStatSN: next StatSN the initiator expects; acknowledges all before it
	// (§4.2.2.2).
	ExpStatSN uint32
	// DataSN: number of this PDU in its sequence, from 0 (§11.7.5).
	DataSN uint32
	// BufferOffset: bytes from the start of the whole transfer (§11.7.6).
	BufferOffset uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *DataOut) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpDataOut, p.AHSLen, p.DataLen)
	b[1] = bit(p.Final, 0x80)
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.TTT)
	put32(b, 28, p.ExpStatSN)
	put32(b, 36, p.DataSN)
	put32(b, 40, p.BufferOffset)
	return dst
}

// DataOutView reads a DataOut header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpDataOut.
type DataOutView []byte

// Final returns the field Final; see DataOut.
func (v DataOutView) Final() bool { return v[1]&0x80 != 0 }

// LUN returns the field LUN; see DataOut.
func (v DataOutView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see DataOut.
func (v DataOutView) ITT() uint32 { return u32(v, 16) }

// TTT returns the field TTT; see DataOut.
func (v DataOutView) TTT() uint32 { return u32(v, 20) }

// ExpStatSN returns the field ExpStatSN; see DataOut.
func (v DataOutView) ExpStatSN() uint32 { return u32(v, 28) }

// DataSN returns the field DataSN; see DataOut.
func (v DataOutView) DataSN() uint32 { return u32(v, 36) }

// BufferOffset returns the field BufferOffset; see DataOut.
func (v DataOutView) BufferOffset() uint32 { return u32(v, 40) }

// AHSLen returns the field AHSLen; see DataOut.
func (v DataOutView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see DataOut.
func (v DataOutView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v DataOutView) Decode() DataOut {
	_ = v[BHSLen-1] // one bounds check for all
	return DataOut{
		Final:        v.Final(),
		LUN:          v.LUN(),
		ITT:          v.ITT(),
		TTT:          v.TTT(),
		ExpStatSN:    v.ExpStatSN(),
		DataSN:       v.DataSN(),
		BufferOffset: v.BufferOffset(),
		AHSLen:       v.AHSLen(),
		DataLen:      v.DataLen(),
	}
}
