package mpio

import (
	"github.com/iscsimp/iscsimp/internal/invariants"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Hedged reads. A read that is older than the p99 of what another path would
// deliver, and late even for the path it is on and the queue it met there, is sent
// over that path too, into a buffer of its own; the first answer wins and the other
// copy is taken back from its session. A budget, a share of all reads, keeps hedges
// from feeding an overload. Writes are never hedged: two copies of one under way are
// what the fence is about.
//
// Reads have no timer each. One timer of the device looks at the oldest reads of
// every path, at most once in hedgeFloor/2, and only while reads are in flight.

// Limits of hedging.
const (
	defaultHedgeBudget = 0.02    // of the reads
	maxHedgeBudget     = 0.5     // as much as Config.HedgeBudget takes
	hedgeBurst         = 32      // hedges saved up at most
	hedgeStart         = 8       // ... and at the start
	hedgeFloor         = 2e6     // ns: no read is old before that, whatever the p99
	hedgeSoon          = 5e6     // ns: where no path is fit for a copy, it is seen again after so long
	hedgeFresh         = 100e6   // ns: a path's p99 is computed anew after so long
	hedgeSamples       = 32      // reads that make a p99
	hedgeSlower        = 4       // a path whose p99 is so many times another's is no longer merely slower
	hedgeGuess         = 4       // times the estimate, while there are fewer
	hedgeOverdue       = 1.5     // a read this many times as old as its queue explains is late
	maxHedges          = 32      // in flight
	maxHedgeRead       = 1 << 20 // bytes: a larger read is not hedged
	maxHedgeMemory     = 8 << 20 // bytes of all buffers
)

// hedger is what the device knows of hedging. It implements session.Completer
// for the second copies.
type hedger struct {
	d      *Device
	budget float64 // second copies for each read; 0 = off
	tokens float64
	timer  loop.Timer
	armed  bool
	wait   int64 // until the timer looks, when a first read leaves: the last smallest p99
	bufs   hedgeBuffers

	sent, wins, denied uint64
}

// pathHedge is what hedging knows of a path.
type pathHedge struct {
	p99    int64 // ns, of reads; 0 = not known
	after  int64 // ns: older reads of other paths may be sent here too; 0 = p99 is not known
	fresh  int64 // loop time until when the two hold
	unseen int64 // when the oldest of the reads was sent that were taken back unanswered since the last answer; 0 = none
	away   uint64
}

func (h *hedger) init(d *Device) {
	h.d, h.tokens, h.wait = d, hedgeStart, hedgeFloor
	h.budget = max(d.cfg.HedgeBudget, 0)
	h.timer.Fn = h.look
}

// watch makes sure that look comes while reads are in flight. Called for every command sent.
func (h *hedger) watch(o *io) {
	if !h.armed && o.kind == kindRead && h.budget > 0 && len(h.d.active) > 1 {
		h.arm(h.d.loop.Now() + h.wait)
	}
}

func (h *hedger) arm(at int64) {
	h.armed = true
	h.d.loop.SetTimer(&h.timer, at)
}

// earn adds to the budget; called for every read that was answered.
func (h *hedger) earn() {
	if h.tokens < hedgeBurst {
		h.tokens += h.budget
	}
}

// look hedges what is old, and plans the next look for when the next read may be.
func (h *hedger) look() {
	d := h.d
	h.armed = false
	if d.closeSent || len(d.active) < 2 {
		return
	}
	now := d.loop.Now()
	best, second := h.targets(now)
	h.wait = hedgeSoon
	if best != nil {
		h.wait = best.hedge.after
	}
	next := int64(0)
	for _, p := range d.paths {
		if p.transfer.head == nil {
			continue
		}
		to, due := best, now+hedgeSoon
		if to == p {
			to = second
		}
		if to != nil {
			due = h.scan(p, to, now)
		}
		if next == 0 || due < next {
			next = due
		}
	}
	if next != 0 { // a path that is idle now may have an old read after h.wait
		h.arm(max(min(next, now+h.wait), now+hedgeFloor/2))
	}
}

// scan hedges the old reads of p over to, and says when the next will be old.
func (h *hedger) scan(p, to *path, now int64) (due int64) {
	after := p.hedgeAt(to, now)
	due = now + after
	for o := p.transfer.head; o != nil; o = o.next {
		if now-o.sentAt < after {
			return min(due, o.sentAt+after)
		}
		if o.kind != kindRead || o.hedge || o.hedged || o.bytes > maxHedgeRead || o.avoid&to.bit != 0 {
			continue
		}
		if late := o.lateAfter(p, to); now-o.sentAt < late {
			due = min(due, o.sentAt+late)
			continue
		}
		if h.tokens < 1 {
			if !o.denied {
				o.denied = true
				h.denied++
			}
			break
		}
		if !to.mayHedge() || !h.hedge(o, to) {
			break
		}
	}
	return due
}

// targets gives the two paths that hedges would be answered by first; nil: none is fit.
func (h *hedger) targets(now int64) (best, second *path) {
	var a, b float64
	for _, p := range h.d.active {
		if p.state != StateUp || !p.mayHedge() {
			continue
		}
		p.freshen(now)
		if p.hedge.after == 0 || p.age(now) >= hedgeSlower*p.hedge.after {
			continue // nothing is known of it, or it hangs itself
		}
		c := float64(p.hedge.after) * float64(1+p.inflight)
		switch {
		case best == nil || c < a:
			best, second, a, b = p, best, c, a
		case second == nil || c < b:
			second, b = p, c
		}
	}
	return best, second
}

// mayHedge reports whether p has room for a copy.
func (p *path) mayHedge() bool {
	return p.sess.Room() > 0 && (p.limit == 0 || p.inflight < p.limit) && (p.ramp == 0 || p.inflight < p.ramp)
}

// freshen computes the figures of p anew when they are too old.
func (p *path) freshen(now int64) {
	h := &p.hedge
	if now < h.fresh {
		return
	}
	times := p.stat.times(now, 0)
	p99 := hedgeGuess * p.est[0].lat
	if times.count() >= hedgeSamples {
		p99 = times.quantile(0.99)
	}
	h.fresh, h.p99, h.after = now+hedgeFresh, int64(p99), 0
	if h.p99 > 0 {
		h.after = max(h.p99, hedgeFloor)
	}
}

// hedgeAt is how old a read of p may grow before it is sent to another path too:
// the p99 of that one. A path that is merely slower, whose answers are always
// later than that, is given more: its own p99, but not more than hedgeSlower times
// the other's. Else hedges would cost bandwidth where there is none to spare.
func (p *path) hedgeAt(to *path, now int64) int64 {
	p.freshen(now)
	return max(to.hedge.after, min(p.hedge.p99, hedgeSlower*to.hedge.p99))
}

// lateAfter is from what age on the read o, on p, is late by what stands before it:
// when its turn on p should have come long ago, and a copy over to would be
// answered in less than it has waited already. Until then it is old, not lost, and
// a copy would only take up what the lines have. What p's queue is taken for is
// limited by what to's would be, as in hedgeAt.
func (o *io) lateAfter(p, to *path) int64 {
	there := to.est[0].predict(traffic{to.inflight, to.queued[0], o.bytes})
	here := p.est[0].predict(o.met)
	if here == 0 {
		here = there // no sample: taken for as good
	}
	return int64(max(there, min(hedgeOverdue*here, hedgeSlower*max(there, float64(to.hedge.p99)))))
}

// hedge sends a copy of the read o over p.
func (h *hedger) hedge(o *io, p *path) bool {
	buf := h.bufs.take(o.bytes)
	if buf == nil {
		return false
	}
	d := h.d
	c := d.newIO(kindRead, nil, o.lba, o.blocks, buf)
	c.hedge, c.twin, c.cmd.Owner = true, o, h
	if !d.send(p, c) {
		h.release(c)
		return false
	}
	o.hedged, o.twin = true, c
	h.tokens--
	h.sent++
	o.path.hedge.away++
	return true
}

// release gives the copy c and its buffer back. It is with no session.
func (h *hedger) release(c *io) {
	h.bufs.give(c.data)
	if c.twin != nil {
		c.twin.twin = nil
	}
	c.cmd.Owner = h.d
	h.d.putIO(c)
}

// CommandDone implements session.Completer for the copies.
func (h *hedger) CommandDone(cmd *session.Command) {
	d := h.d
	c := cmd.User.(*io)
	p := c.path
	now := d.loop.Now()
	p.land(c)
	p.hedge.unseen = 0
	if cmd.Err == nil && cmd.Status == scsi.Good && p.trusts(c) && c.complete() {
		p.succeeded(c, now, now-c.sentAt)
		h.won(c, now)
	} else {
		h.failed(c, p)
	}
	if d.queue.head != nil {
		d.kick()
	}
}

// won completes the read of which c is a copy, unless its own answer is about to come.
func (h *hedger) won(c *io, now int64) {
	o := c.twin
	switch {
	case o == nil:
		h.release(c)
		return
	case o.path != nil:
		if !o.path.takeBack(o, now) {
			h.release(c)
			return
		}
	default: // its own path turned it away or was lost: it waits for another try
		o.list.remove(o)
	}
	copy(o.data, c.data)
	h.release(c)
	h.wins++
	h.d.finish(o, nil)
}

// failed draws from a copy's failure what it says about the path. The read
// itself goes on as if there had been no copy.
func (h *hedger) failed(c *io, p *path) {
	cmd := &c.cmd
	var sense scsi.Sense
	if cmd.Status == scsi.CheckCondition {
		sense, _ = scsi.ParseSense(cmd.Sense)
	}
	err, status := cmd.Err, cmd.Status
	h.release(c)
	switch {
	case err != nil:
		if err.Kind != session.KindResponse && !err.Settled {
			p.linkLost(err)
		}
	case status == scsi.TaskSetFull:
		p.throttle()
	default:
		h.d.noteSense(p, sense, scsi.Classify(status, sense))
	}
}

// drop takes back the copy of a read that is done.
func (h *hedger) drop(o *io) {
	c := o.twin
	c.twin, o.twin = nil, nil
	if c.path.takeBack(c, h.d.loop.Now()) {
		h.release(c)
	} // else its session is being given up, and CommandDone comes
}

// takeBack takes o back from the session of p: its buffer is not touched again.
// What it has waited goes on to count (path.late) until anything is answered.
func (p *path) takeBack(o *io, now int64) bool {
	if !p.sess.Detach(&o.cmd) {
		return false
	}
	p.land(o)
	p.missed(o)
	return true
}

// missed notes that o was taken back unanswered.
func (p *path) missed(o *io) {
	if p.hedge.unseen == 0 || o.sentAt < p.hedge.unseen {
		p.hedge.unseen = o.sentAt
	}
}

// CommandLate implements session.Observer.
func (p *path) CommandLate(_ *session.Session, took int64, bytes int) {
	now := p.dev.loop.Now()
	p.hedge.unseen, p.answered = 0, now
	if bytes == 0 {
		return
	}
	p.est[0].add(now, took, traffic{bytes: bytes})
	p.service.late(now, took)
	p.stat.late(now, took)
	if took >= p.dev.stallLimit {
		p.stalled(now, took)
	}
}

// hedgeBuffers is a bounded pool. The buffers it holds are kept for ever.
type hedgeBuffers struct {
	free  [][]byte
	out   int // buffers in use
	bytes int // of all buffers, free ones included
}

// take gives a buffer of n bytes, nil if the bounds are reached.
func (b *hedgeBuffers) take(n int) []byte {
	if b.out >= maxHedges || n <= 0 {
		return nil
	}
	best := -1
	for i, f := range b.free {
		if cap(f) >= n && (best < 0 || cap(f) < cap(b.free[best])) {
			best = i
		}
	}
	if best >= 0 {
		buf := b.free[best]
		b.remove(best)
		b.out++
		return buf[:n]
	}
	size := 4096
	for size < n {
		size *= 2
	}
	// What is free is too small: it makes room.
	for i := len(b.free) - 1; i >= 0 && (b.bytes+size > maxHedgeMemory || b.out+i+1 >= maxHedges); i-- {
		b.bytes -= cap(b.free[i])
		b.remove(i)
	}
	if b.bytes+size > maxHedgeMemory {
		return nil
	}
	if b.free == nil {
		b.free = make([][]byte, 0, maxHedges)
	}
	b.bytes += size
	b.out++
	return make([]byte, size)[:n]
}

func (b *hedgeBuffers) remove(i int) {
	last := len(b.free) - 1
	b.free[i], b.free[last] = b.free[last], nil
	b.free = b.free[:last]
}

// give takes a buffer back.
func (b *hedgeBuffers) give(buf []byte) {
	invariants.Mangle(buf)
	b.out--
	b.free = append(b.free, buf)
}
