package pdu

// TaskMgmt is the Task Management Function Request PDU (RFC 7143 §11.5).
//
//	Byte/     0       |       1       |       2       |       3       |
//	   /              |               |               |               |
//	  |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	  +---------------+---------------+---------------+---------------+
//	 0|.|I| 0x02      |1| Function    | Reserved                      |
//	  +---------------+---------------+---------------+---------------+
//	 4|TotalAHSLength | DataSegmentLength                             |
//	  +---------------+---------------+---------------+---------------+
//	 8| Logical Unit Number (LUN) or Reserved                         |
//	  +                                                               +
//	12|                                                               |
//	  +---------------+---------------+---------------+---------------+
//	16| Initiator Task Tag                                            |
//	  +---------------+---------------+---------------+---------------+
//	20| Referenced Task Tag or 0xffffffff                             |
//	  +---------------+---------------+---------------+---------------+
//	24| CmdSN                                                         |
//	  +---------------+---------------+---------------+---------------+
//	28| ExpStatSN                                                     |
//	  +---------------+---------------+---------------+---------------+
//	32| RefCmdSN or Reserved                                          |
//	  +---------------+---------------+---------------+---------------+
//	36| ExpDataSN or Reserved                                         |
//	  +---------------+---------------+---------------+---------------+
//	40/ Reserved                                                      /
//	 +/                                                               /
//	  +---------------+---------------+---------------+---------------+
//	  48
//
// DataLen and AHSLen must be 0.
type TaskMgmt struct {
	// Immediate: I bit: deliver without waiting for earlier CmdSNs (§11.2.1.1).
	Immediate bool
	// Function: what to do (§11.5.1).
	Function TMFunction
	// LUN: logical unit the function applies to, else 0 (§11.5.3).
	LUN uint64
	// ITT: Initiator Task Tag of this request.
	ITT uint32
	// RefTaskTag: ITT of the task to abort or reassign, else ReservedTag
	// (§11.5.4).
	RefTaskTag uint32
	// CmdSN: command sequence number (§4.2.2.1).
	CmdSN uint32
	// ExpStatSN: next StatSN the initiator expects; acknowledges all before it
	// (§4.2.2.2).
	ExpStatSN uint32
	// RefCmdSN: for TMAbortTask the CmdSN of the task, or of this request when the
	// task was immediate (§11.5.5).
	RefCmdSN uint32
	// ExpDataSN: for TMTaskReassign the first Data-In DataSN not yet acknowledged,
	// 0 for unchanged (§11.5.6).
	ExpDataSN uint32
	// AHSLen: bytes of additional header segments with padding, 0..1020, multiple
	// of 4.
	AHSLen int
	// DataLen: bytes of the data segment without padding, 0..2^24-1.
	DataLen int
}

// AppendTo appends the 48-byte header to dst and returns the longer slice.
// It panics when AHSLen or DataLen is out of range.
func (p *TaskMgmt) AppendTo(dst []byte) []byte {
	dst, b := appendBHS(dst, OpTaskMgmt, p.AHSLen, p.DataLen)
	b[0] |= bit(p.Immediate, 0x40)
	b[1] = 0x80 | byte(p.Function)&0x7f
	put64(b, 8, p.LUN)
	put32(b, 16, p.ITT)
	put32(b, 20, p.RefTaskTag)
	put32(b, 24, p.CmdSN)
	put32(b, 28, p.ExpStatSN)
	put32(b, 32, p.RefCmdSN)
	put32(b, 36, p.ExpDataSN)
	return dst
}

// TaskMgmtView reads a TaskMgmt header in place, without copying. Like BHS it
// must hold at least BHSLen bytes; the caller has checked for OpTaskMgmt.
type TaskMgmtView []byte

// Immediate returns the field Immediate; see TaskMgmt.
func (v TaskMgmtView) Immediate() bool { return v[0]&0x40 != 0 }

// Function returns the field Function; see TaskMgmt.
func (v TaskMgmtView) Function() TMFunction { return TMFunction(v[1] & 0x7f) }

// LUN returns the field LUN; see TaskMgmt.
func (v TaskMgmtView) LUN() uint64 { return u64(v, 8) }

// ITT returns the field ITT; see TaskMgmt.
func (v TaskMgmtView) ITT() uint32 { return u32(v, 16) }

// RefTaskTag returns the field RefTaskTag; see TaskMgmt.
func (v TaskMgmtView) RefTaskTag() uint32 { return u32(v, 20) }

// CmdSN returns the field CmdSN; see TaskMgmt.
func (v TaskMgmtView) CmdSN() uint32 { return u32(v, 24) }

// ExpStatSN returns the field ExpStatSN; see TaskMgmt.
func (v TaskMgmtView) ExpStatSN() uint32 { return u32(v, 28) }

// RefCmdSN returns the field RefCmdSN; see TaskMgmt.
func (v TaskMgmtView) RefCmdSN() uint32 { return u32(v, 32) }

// ExpDataSN returns the field ExpDataSN; see TaskMgmt.
func (v TaskMgmtView) ExpDataSN() uint32 { return u32(v, 36) }

// AHSLen returns the field AHSLen; see TaskMgmt.
func (v TaskMgmtView) AHSLen() int { return BHS(v).AHSLen() }

// DataLen returns the field DataLen; see TaskMgmt.
func (v TaskMgmtView) DataLen() int { return BHS(v).DataLen() }

// Decode returns all fields as a struct. It panics when v is too short.
func (v TaskMgmtView) Decode() TaskMgmt {
	_ = v[BHSLen-1] // one bounds check for all
	return TaskMgmt{
		Immediate:  v.Immediate(),
		Function:   v.Function(),
		LUN:        v.LUN(),
		ITT:        v.ITT(),
		RefTaskTag: v.RefTaskTag(),
		CmdSN:      v.CmdSN(),
		ExpStatSN:  v.ExpStatSN(),
		RefCmdSN:   v.RefCmdSN(),
		ExpDataSN:  v.ExpDataSN(),
		AHSLen:     v.AHSLen(),
		DataLen:    v.DataLen(),
	}
}
