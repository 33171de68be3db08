package mpio

import (
	"fmt"

	"github.com/iscsimp/iscsimp/internal/block"
)

// request is a block.Request while the device works on it: it is cut into ios,
// at most maxChildren of them at a time, and completed once when the last is done.
type request struct {
	req       *block.Request
	next      *request // in the pool
	kind      kind     // of its ios
	pos, end  uint64   // blocks still to be cut: [pos, end)
	step      uint64   // blocks of an io at most
	open      int      // ios made and not yet done
	filling   bool
	fuaBit    bool // ios carry the FUA bit
	syncAfter bool // SYNCHRONIZE CACHE once the data is written
	noUnmap   bool
	losses    uint32 // cacheWatch.losses when it came
	stored    bool   // a part of it was stored, though not by FUA
	era       uint32 // cacheWatch.era when such a part was sent, the first or one that is in doubt
	answered  uint64 // cacheWatch.answered when it came
	err       error  // the first
}

// Submit starts r. See block.Device. Only on the loop.
func (d *Device) Submit(r *block.Request) {
	r.Err = nil
	if err := d.refuse(r); err != nil {
		r.Err = err
		r.Owner.RequestDone(r)
		return
	}
	q := d.newRequest(r)
	d.stat.requests++
	switch r.Op {
	case block.OpRead:
		q.kind, q.step = kindRead, d.geo.maxBlocks
	case block.OpWrite:
		q.kind, q.step = kindWrite, d.geo.maxBlocks
	case block.OpFlush:
		q.kind, q.pos, q.end, q.step = kindSync, 0, 1, 1
		if d.caps.noSync {
			q.end = 0
		}
	case block.OpTrim:
		d.planTrim(q)
	case block.OpWriteZeroes:
		d.planZeroes(q)
	}
	if r.FUA && q.kind.changes() {
		q.fuaBit = d.caps.fua && q.kind != kindUnmap && q.kind != kindSame
		q.syncAfter = !q.fuaBit && !d.caps.noSync
	}
	q.advance(d)
}

// refuse checks r against state and geometry.
func (d *Device) refuse(r *block.Request) error {
	switch {
	case d.closing:
		return block.ErrClosed
	case !d.ready:
		return fmt.Errorf("%w: no path to the device has been identified yet", block.ErrIO)
	case d.rsv.lost != nil:
		return d.rsv.lost
	case r.Op == block.OpFlush:
		return nil
	case r.Op < block.OpRead || r.Op > block.OpWriteZeroes:
		return block.ErrNotSup
	case r.Op != block.OpRead && d.geo.readOnly:
		return block.ErrReadOnly
	case r.Op <= block.OpWrite && r.Length != uint64(len(r.Data)):
		return fmt.Errorf("%w: length %d with a buffer of %d bytes", block.ErrRange, r.Length, len(r.Data))
	case r.Offset > d.geo.size || r.Length > d.geo.size-r.Offset:
		return block.ErrRange
	case (r.Offset|r.Length)&uint64(d.geo.blockSize-1) != 0:
		return block.ErrAlign
	}
	return nil
}

// newRequest takes a request from the pool.
func (d *Device) newRequest(r *block.Request) *request {
	q := d.freeReq
	if q == nil {
		q = &request{}
	} else {
		d.freeReq = q.next
	}
	*q = request{req: r, noUnmap: r.NoUnmap, losses: d.cache.losses, answered: d.cache.answered}
	if r.Op != block.OpFlush {
		q.pos = r.Offset >> d.geo.shift
		q.end = q.pos + r.Length>>d.geo.shift
	}
	d.open++
	return q
}

// advance makes further ios, and completes the request when none is left.
func (q *request) advance(d *Device) {
	if q.filling {
		return
	}
	q.filling = true
	for q.pos < q.end && q.open < maxChildren && q.err == nil {
		n := min(q.step, q.end-q.pos)
		lba := q.pos
		q.pos += n
		q.open++
		d.launch(q, lba, n)
	}
	q.filling = false
	if q.open > 0 || (q.pos < q.end && q.err == nil) {
		return
	}
	if q.syncAfter && q.err == nil {
		q.syncAfter = false
		q.open++
		d.begin(d.newIO(kindSync, q, 0, 0, nil))
		return
	}
	d.answer(q)
}

// launch makes one io of q and starts it, unless an older write to its blocks
// is still open.
func (d *Device) launch(q *request, lba, n uint64) {
	var data []byte
	if q.kind == kindRead || q.kind == kindWrite {
		at := lba<<d.geo.shift - q.req.Offset
		data = q.req.Data[at : at+n<<d.geo.shift]
	}
	o := d.newIO(q.kind, q, lba, n, data)
	if q.kind.changes() && !d.admit(o) {
		return
	}
	d.begin(o)
}

// childDone takes the outcome of one io.
func (q *request) childDone(d *Device, err error) {
	q.open--
	if err != nil && q.err == nil {
		q.err = err
	}
	q.advance(d)
}

// answer completes the caller's request.
func (d *Device) answer(q *request) {
	r := q.req
	r.Err = q.err
	d.settleStored(q)
	if q.err != nil {
		d.stat.failed++
		d.lastErr = q.err
	}
	q.req, q.err = nil, nil
	q.next = d.freeReq
	d.freeReq = q
	d.open--
	r.Owner.RequestDone(r)
	if d.closing {
		d.closeStep()
	}
}
