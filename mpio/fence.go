package mpio

import (
	"fmt"
	"math"
	"math/bits"
)

// The write fence. Everything that changes the medium holds an extent from its
// making until it is completed; a copy of a write whose fate is unknown, a ghost,
// holds another one until it is settled. An extent waits while an older one that
// overlaps it is held. So at any time at most one write to a block is open,
// however many copies of it there are, and a copy that lands late can only
// bring back data that nothing newer has replaced.
//
// Ordering by age keeps waiting free of cycles. A re-sent write does not wait
// for its own ghosts: they are exactly as old as it is.

// extent is a range of blocks [lo, hi) held by an io or a ghost.
type extent struct {
	lo, hi  uint64
	seq     uint64 // age: the order in which requests came; a ghost has that of its write
	slot    int    // index in fence.spans + 1, 0 = not held
	io      *io    // holder, or nil
	ghost   *ghost // holder, or nil
	waiters ioList // ios that wait for this extent to go
}

// span is what fence compares, packed so that a scan stays in few cache lines.
type span struct {
	lo, hi, seq uint64
	ext         *extent
}

const (
	fenceCells = 1024
	wideChunks = 512 // an extent over more chunks than this is not entered into the cells
)

// fence is the set of extents held. Nearly always nothing overlaps: a table of
// counters by hashed chunk says so without a look at the extents.
type fence struct {
	spans []span
	wide  int
	shift uint // log2 of blocks per chunk
	cells [fenceCells]uint32
	seq   uint64
}

// init sets the chunk size to 16 KiB.
func (f *fence) init(blockSize uint32) {
	f.shift = uint(bits.Len32(max(16<<10/blockSize, 1)) - 1)
}

func fenceCell(chunk uint64) uint64 { return chunk * 0x9e3779b97f4a7c15 >> 54 }

// chunks gives the first and last chunk of a range, and whether it is wide.
func (f *fence) chunks(lo, hi uint64) (first, last uint64, wide bool) {
	first, last = lo>>f.shift, (hi-1)>>f.shift
	return first, last, last-first >= wideChunks
}

// count adds n to the counters of a range.
func (f *fence) count(lo, hi uint64, n int32) {
	first, last, wide := f.chunks(lo, hi)
	if wide {
		f.wide += int(n)
		return
	}
	for c := first; c <= last; c++ {
		f.cells[fenceCell(c)] += uint32(n)
	}
}

// maybeHeld reports whether an extent that overlaps may be held; false is certain.
func (f *fence) maybeHeld(lo, hi uint64) bool {
	if f.wide > 0 {
		return true
	}
	first, last, wide := f.chunks(lo, hi)
	if wide {
		return true
	}
	for c := first; c <= last; c++ {
		if f.cells[fenceCell(c)] != 0 {
			return true
		}
	}
	return false
}

// blocker gives a held extent that overlaps [lo, hi) and is older than seq, or nil.
func (f *fence) blocker(lo, hi, seq uint64) *extent {
	if len(f.spans) == 0 || !f.maybeHeld(lo, hi) {
		return nil
	}
	for i := range f.spans {
		if s := &f.spans[i]; s.lo < hi && lo < s.hi && s.seq < seq {
			return s.ext
		}
	}
	return nil
}

// hold enters an extent.
func (f *fence) hold(e *extent) {
	f.spans = append(f.spans, span{e.lo, e.hi, e.seq, e})
	e.slot = len(f.spans)
	f.count(e.lo, e.hi, 1)
}

// release takes an extent out. Its waiters are the caller's business.
func (f *fence) release(e *extent) {
	i, last := e.slot-1, len(f.spans)-1
	if i != last {
		f.spans[i] = f.spans[last]
		f.spans[i].ext.slot = i + 1
	}
	f.spans[last] = span{}
	f.spans = f.spans[:last]
	e.slot = 0
	f.count(e.lo, e.hi, -1)
}

// admit gives a new io its place in the order of writes and reports whether it
// may go now; else it waits in the list of the extent before it.
func (d *Device) admit(o *io) bool {
	f := &d.fence
	f.seq++
	e := &o.ext
	e.lo, e.hi, e.seq = o.lba, o.lba+o.blocks, f.seq
	b := f.blocker(e.lo, e.hi, e.seq)
	f.hold(e)
	if b == nil {
		return true
	}
	if b.ghost != nil {
		d.stat.fencedWaits++
	}
	b.waiters.pushBack(o)
	return false
}

// unhold releases an extent and lets go those that waited for it, unless
// something else is in their way.
func (d *Device) unhold(e *extent) {
	d.fence.release(e)
	for o := e.waiters.popFront(); o != nil; o = e.waiters.popFront() {
		if b := d.fence.blocker(o.ext.lo, o.ext.hi, o.ext.seq); b != nil {
			b.waiters.pushBack(o)
			continue
		}
		d.begin(o)
	}
}

// ghost is a copy of a write whose fate is unknown: it was sent over a path and
// the session was lost before an answer came. The target may still execute it.
type ghost struct {
	ext      extent
	kind     kind
	path     *path
	gen      uint64 // the login of the path it was sent with
	at       int64
	deadline int64          // when time settles it; never as long as a moved one's session lives
	io       *io            // the write, while it is not completed
	moved    bool           // its write was taken from a silent path
	earlier  *SessionRecord // instead of a write: all that a session of an earlier process may have left
}

// provable reports whether a login can prove the end of g, if each one since the
// login chain proved the end of the one before it.
func (g *ghost) provable(chain uint64) bool {
	return g.gen >= chain && (g.earlier == nil || g.earlier.Provable)
}

// never is the deadline of a ghost whose time has not begun.
const never = math.MaxInt64

// raise notes a ghost of o on p; nil without the fence. moved: p's session lives, and
// the target has the command in it. Time settles nothing before that session is lost.
func (d *Device) raise(o *io, p *path, now int64, moved bool) *ghost {
	if d.cfg.UnsafeNoFence {
		return nil
	}
	g := &ghost{kind: o.kind, path: p, gen: p.gen, at: now, deadline: never, io: o, moved: moved}
	g.ext = extent{lo: o.ext.lo, hi: o.ext.hi, seq: o.ext.seq, ghost: g}
	d.fence.hold(&g.ext)
	d.ghosts = append(d.ghosts, g)
	o.ghosts++
	d.stat.fencesRaised++
	if !moved {
		g.deadline = now + int64(d.cfg.FenceTimeout)
		d.fenceBy(g.deadline)
	}
	if d.watch != nil {
		d.watch.raised(g)
	}
	return g
}

// settledBy is what a ghost was settled by.
type settledBy string

const (
	byLogin   settledBy = "login"   // later logins ended its session
	byAnswer  settledBy = "answer"  // the target answered it after all, or ended it
	byPreempt settledBy = "preempt" // PREEMPT AND ABORT
	byTime    settledBy = "time"    // assumed
)

// fenceWatch is told what the fence does. Tests hold it against the model.
type fenceWatch interface {
	raised(g *ghost)
	checked(p *path) // the unit behind a login is the right one
	left(p *path)    // a detour is over
	settled(list []*ghost, by settledBy)
}

// settle ends the ghosts that match: no copy of them can land any more, or so
// it has to be assumed. why says it in words.
func (d *Device) settle(p *path, by settledBy, why string, match func(*ghost) bool) int {
	gone := d.take(by, match)
	if len(gone) == 0 {
		return 0
	}
	e := Event{Kind: FenceSettled, Count: len(gone), Text: settledText(gone) + why, unproven: by == byTime}
	if p != nil {
		e.Path = p.cfg.ID
	}
	d.emit(e)
	d.lay(gone)
	return len(gone)
}

// take removes the ghosts that match. The caller goes on with lay.
func (d *Device) take(by settledBy, match func(*ghost) bool) (gone []*ghost) {
	kept := d.ghosts[:0]
	for _, g := range d.ghosts {
		if match(g) {
			gone = append(gone, g)
		} else {
			kept = append(kept, g)
		}
	}
	clear(d.ghosts[len(kept):])
	d.ghosts = kept
	if len(gone) == 0 {
		return nil
	}
	d.armFenceTimer()
	d.stat.fencesSettled += uint64(len(gone))
	if d.watch != nil {
		d.watch.settled(gone, by)
	}
	return gone
}

// lay lets go what waited for the ghosts taken.
func (d *Device) lay(gone []*ghost) {
	for _, g := range gone {
		d.laid(g)
	}
	if len(gone) > 0 && gone[0].earlier != nil { // the oldest there are
		d.earlierSettled()
	}
}

// settledText begins a sentence about ghosts that are gone.
func settledText(gone []*ghost) string {
	earlier := 0
	for _, g := range gone {
		if g.earlier != nil {
			earlier++
		}
	}
	switch n := len(gone) - earlier; {
	case earlier == 0:
		return counted(n, "write") + " of unknown outcome settled: "
	case n == 0:
		return "what " + counted(earlier, "session") + " of an earlier process may have left is settled: "
	default:
		return fmt.Sprintf("what %s of an earlier process may have left, and %s of unknown outcome, are settled: ", counted(earlier, "session"), counted(n, "write"))
	}
}

// settlePreempted settles what was lost with logins up to gen of p, after PREEMPT
// AND ABORT of the key that p alone was registered with (SPC-4 §5.13.11.5), and
// gives the number of writes. That ends the commands the target has; those it has
// not read yet from a hung connection meet a reservation conflict. So the caller
// has to make sure that a reservation is held, and that p is not registered
// again before its old session is proven to be over, or FenceTimeout has passed.
func (d *Device) settlePreempted(p *path, gen uint64) int {
	return d.settle(p, byPreempt, "the key of the path was preempted, and its commands were aborted",
		func(g *ghost) bool { return g.path == p && g.gen <= gen && g.earlier == nil })
}

// laid lets go what waited for g.
func (d *Device) laid(g *ghost) {
	if o := g.io; o != nil {
		g.io = nil
		o.ghosts--
		if o.ghosts == 0 && o.list == &d.settling {
			d.settling.remove(o)
			d.begin(o)
		}
	}
	d.unhold(&g.ext)
}

// disown cuts the ties between a write that is completed and its ghosts. They
// stay: an answer to the caller does not make a lost copy harmless.
func (d *Device) disown(o *io) {
	for _, g := range d.ghosts {
		if g.io == o {
			g.io = nil
		}
	}
	o.ghosts = 0
}

// startClocks begins the time of what was moved away from p, whose session is lost.
func (d *Device) startClocks(p *path) {
	for _, g := range d.ghosts {
		if g.path == p && g.deadline == never {
			g.deadline = d.loop.Now() + int64(d.cfg.FenceTimeout)
			d.fenceBy(g.deadline)
		}
	}
}

// fenceBy sees to it that onFenceTimer comes at the given time at the latest.
func (d *Device) fenceBy(at int64) {
	if d.fenceAt == 0 || at < d.fenceAt {
		d.fenceAt = at
		d.loop.SetTimer(&d.fenceTimer, at)
	}
}

// armFenceTimer sets the timer for the next ghost that time settles.
func (d *Device) armFenceTimer() {
	next := int64(never)
	for _, g := range d.ghosts {
		next = min(next, g.deadline)
	}
	d.fenceAt = 0
	if next == never {
		d.loop.StopTimer(&d.fenceTimer)
		return
	}
	d.fenceBy(next)
}

// onFenceTimer settles by time: the last and weakest proof, since a controller
// that hangs may still wake up later.
func (d *Device) onFenceTimer() {
	now := d.loop.Now()
	n := d.settle(nil, byTime, fmt.Sprintf("nothing proved it within %v; a target that hangs longer may still execute them", d.cfg.FenceTimeout),
		func(g *ghost) bool { return g.deadline <= now })
	d.stat.fencesTimedOut += uint64(n)
	d.armFenceTimer()
	d.kick()
}
