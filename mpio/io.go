package mpio

import (
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// kind is what an io does.
type kind uint8

const (
	kindRead  kind = iota + 1
	kindWrite      // the caller's data
	kindSync       // SYNCHRONIZE CACHE
	kindUnmap      // UNMAP
	kindSame       // WRITE SAME(16) of zeros
	kindZero       // WRITE of zeros from the shared buffer
)

var kindNames = [...]string{
	kindRead: "READ", kindWrite: "WRITE", kindSync: "SYNCHRONIZE CACHE",
	kindUnmap: "UNMAP", kindSame: "WRITE SAME", kindZero: "WRITE of zeros",
}

func (k kind) String() string { return kindNames[k] }

// changes reports whether the command changes the medium, so that the fence
// concerns it. All of these are idempotent: sending one twice does no harm as
// long as nothing newer came in between. COMPARE AND WRITE and PERSISTENT
// RESERVE OUT are not; they would have to wait for the settlement of their own
// first copy, as Config.Shared makes all writes do.
func (k kind) changes() bool { return k == kindWrite || k >= kindUnmap }

// slow reports whether the command may rightly take much longer than a
// transfer: it says nothing about a path's latency.
func (k kind) slow() bool { return k >= kindSync && k <= kindSame }

// io is one SCSI command of a request, from its making to its completion,
// however often it is sent. It is in exactly one place at a time: a list of the
// path it was sent over, or one of the device's lists of those that wait.
type io struct {
	cmd   session.Command
	param [24]byte // UNMAP parameter list

	ext        extent // its blocks, if kind changes the medium
	req        *request
	path       *path // the path it was sent over; nil: it waits
	list       *ioList
	prev, next *io

	kind   kind
	fua    bool
	lba    uint64
	blocks uint64
	done   uint64 // kindZero: blocks already written
	data   []byte

	sentAt  int64  // loop time of the last Submit
	due     int64  // in Device.delayed: when to try again
	trouble int64  // loop time of the first answer that asked to come back later, 0 = none
	failed  int64  // loop time of the first failure, 0 = none
	avoid   uint64 // bits of paths that said "not through me"
	tries   uint8  // answers that called for another try
	losses  uint16 // attempts lost with their session
	moves   uint8  // times taken from a silent path
	ghosts  int    // own copies whose fate is unknown
	backoff uint8
	bytes   int // in flight
	met     traffic

	twin   *io  // the other copy of a hedged read, while it is in flight
	hedge  bool // this is the second copy: it has no request
	hedged bool // a second copy was made
	denied bool // ... or would have been, had the budget allowed it

	mark     uint64 // kindSync: the changes answered before it was sent
	era      uint32 // cacheWatch.era when it was sent
	refusals uint8  // answers that refused it for the access state of its path
}

// ioList is an intrusive doubly linked list.
type ioList struct {
	head, tail *io
	n          int
}

func (l *ioList) pushBack(o *io) {
	o.list, o.prev, o.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = o
	} else {
		l.head = o
	}
	l.tail = o
	l.n++
}

func (l *ioList) pushFront(o *io) {
	o.list, o.prev, o.next = l, nil, l.head
	if l.head != nil {
		l.head.prev = o
	} else {
		l.tail = o
	}
	l.head = o
	l.n++
}

func (l *ioList) remove(o *io) {
	if o.list != l {
		panic("mpio: command is not in that list") // only our own mistake leads here
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		l.head = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		l.tail = o.prev
	}
	o.list, o.prev, o.next = nil, nil, nil
	l.n--
}

// popFront takes the first, nil if there is none.
func (l *ioList) popFront() *io {
	o := l.head
	if o != nil {
		l.remove(o)
	}
	return o
}

// newIO takes an io from the pool. Only the pool allocates, when it is empty.
func (d *Device) newIO(k kind, q *request, lba, blocks uint64, data []byte) *io {
	o := d.freeIO
	if o == nil {
		o = &io{}
		o.ext.io = o
		o.cmd.User = o
		o.cmd.Owner = d
		o.cmd.LUN = d.cfg.LUN
	} else {
		d.freeIO = o.next
		o.next = nil
	}
	o.kind, o.req, o.lba, o.blocks, o.data = k, q, lba, blocks, data
	o.fua = k.changes() && q.fuaBit
	d.live++
	return o
}

// putIO gives an io back. It must be in no list, no path and no fence.
func (d *Device) putIO(o *io) {
	o.req, o.path, o.data, o.cmd.Data, o.cmd.Err, o.cmd.Sense = nil, nil, nil, nil, nil, nil
	o.done, o.due, o.trouble, o.failed, o.avoid = 0, 0, 0, 0, 0
	o.tries, o.losses, o.moves, o.ghosts, o.backoff = 0, 0, 0, 0, 0
	o.twin, o.hedge, o.hedged, o.denied = nil, false, false, false
	o.refusals = 0
	o.next = d.freeIO
	d.freeIO = o
	d.live--
}

// build fills in the command for the next attempt.
func (o *io) build(d *Device) {
	c := &o.cmd
	c.Err, c.Sense, c.Status = nil, nil, scsi.Good
	c.Received, c.Underflow, c.Overflow, c.Residual = 0, false, false, 0
	o.era = d.cache.era
	var flags scsi.RWFlags
	if o.fua {
		flags = scsi.FUA
	}
	switch o.kind {
	case kindRead:
		c.CDB, c.Dir, c.Data = scsi.Read(o.lba, uint32(o.blocks), 0), session.DirRead, o.data
	case kindWrite:
		c.CDB, c.Dir, c.Data = scsi.Write(o.lba, uint32(o.blocks), flags), session.DirWrite, o.data
	case kindZero:
		n := min(o.blocks-o.done, d.zeroBlocks())
		c.CDB, c.Dir = scsi.Write(o.lba+o.done, uint32(n), flags), session.DirWrite
		c.Data = d.zeros[:n*uint64(d.geo.blockSize)]
	case kindSync:
		c.CDB, c.Dir, c.Data = d.syncCDB(), session.DirNone, nil
		o.mark = d.cache.answered
	case kindUnmap:
		o.buildUnmap()
	case kindSame:
		c.CDB, c.Dir = scsi.WriteSame16(o.lba, uint32(o.blocks), d.caps.sameUnmaps && !o.req.noUnmap, false), session.DirWrite
		c.Data = d.zeros[:d.geo.blockSize]
	}
	o.bytes = len(c.Data)
}

// complete reports whether a GOOD answer moved all the data. Commands that
// move parameters only are not judged by residuals: tgtd sets them wrongly on UNMAP.
func (o *io) complete() bool {
	c := &o.cmd
	switch o.kind {
	case kindRead:
		return c.Received == len(c.Data) && !c.Underflow && !c.Overflow
	case kindWrite, kindZero:
		return !c.Underflow && !c.Overflow
	}
	return true
}
