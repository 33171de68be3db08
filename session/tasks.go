package session

import (
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// taskKind says what an Initiator Task Tag stands for.
type taskKind uint8

const (
	taskFree taskKind = iota
	taskSCSI
	taskNOP
	taskText
	taskLogout
	taskTMF
)

// task is one slot of the task table: everything the session knows of a
// request that the target has not answered yet.
type task struct {
	kind  taskKind
	cmd   *Command // nil: detached; late data and the answer are dropped
	conn  *conn    // the connection it is allegiant to (RFC 7143 §4.2.2)
	itt   uint32
	cmdSN uint32 // kinds taskSCSI and taskText
	at    int64  // loop time of its start
	pos   uint64 // position in conn's stream where its first byte lies
	end   uint64 // position behind the last byte queued for it

	length uint32 // Expected Data Transfer Length
	inLen  uint32 // bytes expected to be read: as length, or Bidirectional Read Expected Data Transfer Length
	read   bool
	write  bool
	next   uint32 // write: bytes queued so far
	inNext uint32 // read: bytes received so far
	dataSN uint32 // read: DataSN expected next; bidirectional: R2TSN, too (RFC 7143 §11.8.2)
	r2tSN  uint32 // write: R2TSN expected next
	// What was asked for, and what came, where that may be in any order; else nil.
	asked, got *ranges
	waiting    bool // answered, but bytes of its data are still in the send queue

	lun      scsi.LUN // taskSCSI
	tmf      *tmf     // taskTMF
	over     func()   // detached taskSCSI: told when the target has provably ended it; may be nil
	due      int64    // taskTMF, taskText: give up; detached taskSCSI: abort it; 0 = never
	aborting bool     // ABORT TASK is under way: no more data is sent
	aborted  bool     // ended by a task management function
	halted   *tmf     // FastAbort: no more data is sent, because of this function
	denied   bool     // halted: the target asked for data all the same

	newer, older int32 // the list by age: index + 1, 0 = none
}

// The ITT of a task is its index in the low bits and a generation above, so
// that a late answer to an earlier task is not taken for this one's.
const (
	ittIndexBits = 13
	ittIndexMask = 1<<ittIndexBits - 1
	maxTasks     = 4096 // CmdsMax
	extraTasks   = 8    // pings, texts, logouts besides
)

// taskTable is an array of tasks with a free list, and a list by age.
type taskTable struct {
	slots          []task
	free           []int32
	gen            uint32
	oldest, newest int32 // index + 1
	scsi           int   // tasks of kind taskSCSI, detached ones included
}

func newTaskTable(n int) taskTable {
	t := taskTable{slots: make([]task, n), free: make([]int32, n)}
	for i := range n {
		t.free[i] = int32(n - 1 - i)
	}
	return t
}

// add takes a slot for a request over c; nil if there is none left.
func (tt *taskTable) add(kind taskKind, c *conn, now int64) *task {
	n := len(tt.free)
	if n == 0 {
		return nil
	}
	i := tt.free[n-1]
	tt.free = tt.free[:n-1]
	t := &tt.slots[i]
	tt.gen++
	itt := tt.gen<<ittIndexBits | uint32(i)
	if itt == pdu.ReservedTag {
		tt.gen++
		itt = tt.gen<<ittIndexBits | uint32(i)
	}
	*t = task{kind: kind, conn: c, itt: itt, at: now, older: tt.newest}
	if tt.newest != 0 {
		tt.slots[tt.newest-1].newer = i + 1
	} else {
		tt.oldest = i + 1
	}
	tt.newest = i + 1
	if kind == taskSCSI {
		tt.scsi++
	}
	return t
}

// find gives the task with this tag, or nil.
func (tt *taskTable) find(itt uint32) *task {
	i := int(itt & ittIndexMask)
	if i >= len(tt.slots) {
		return nil
	}
	if t := &tt.slots[i]; t.kind != taskFree && t.itt == itt {
		return t
	}
	return nil
}

// remove gives the slot back.
func (tt *taskTable) remove(t *task) {
	i := int32(t.itt & ittIndexMask)
	if t.older != 0 {
		tt.slots[t.older-1].newer = t.newer
	} else {
		tt.oldest = t.newer
	}
	if t.newer != 0 {
		tt.slots[t.newer-1].older = t.older
	} else {
		tt.newest = t.older
	}
	if t.kind == taskSCSI {
		tt.scsi--
	}
	*t = task{}
	tt.free = append(tt.free, i)
}

// after gives the task that is next younger than t, or nil.
func (tt *taskTable) after(t *task) *task {
	if t.newer == 0 {
		return nil
	}
	return &tt.slots[t.newer-1]
}

// first gives the oldest task, or nil.
func (tt *taskTable) first() *task {
	if tt.oldest == 0 {
		return nil
	}
	return &tt.slots[tt.oldest-1]
}
