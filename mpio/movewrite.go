package mpio

import (
	"fmt"
	"slices"
)

// A write in flight on a path that fell silent need not wait until the path is
// given up. Once all its data has left, the session gives the buffer back, and
// the write goes over another path, while the first copy is a ghost like that of
// a lost session: newer writes to its blocks wait until it is settled, by its
// late answer as a rule. A write of which data is still to be sent stays.

// takeWrite takes a write from the silent path p and leaves a ghost behind. With
// Shared nothing is gained: its answer would wait for the ghost.
func (d *Device) takeWrite(p *path, o *io, now int64) bool {
	if d.cfg.Shared {
		return false
	}
	var g *ghost
	if !p.sess.DetachWatched(&o.cmd, func() { d.answeredLate(g) }) {
		return false
	}
	p.land(o)
	p.missed(o)
	if o.failed == 0 {
		o.failed = max(now, 1)
	}
	g = d.raise(o, p, now, true)
	return true
}

// answeredLate settles the ghost of a write that was taken from a silent path. It
// is told of with the last of them: they come one by one.
func (d *Device) answeredLate(g *ghost) {
	if g == nil {
		return // UnsafeNoFence
	}
	p := g.path
	gone := d.take(byAnswer, func(x *ghost) bool { return x == g })
	p.lateAnswers += len(gone)
	if n := p.lateAnswers; n > 0 && !slices.ContainsFunc(d.ghosts, func(x *ghost) bool { return x.path == p && x.moved }) {
		p.lateAnswers = 0
		d.emit(Event{
			Kind: FenceSettled, Path: p.cfg.ID, State: p.state, Count: n,
			Text: fmt.Sprintf("%s of unknown outcome settled: the target answered late, or ended what it had", counted(n, "write")),
		})
	}
	d.lay(gone)
	d.kick()
}

// tellMoved tells of n writes taken from p.
func (d *Device) tellMoved(p *path, n int) {
	if n == 0 || d.cfg.UnsafeNoFence {
		return
	}
	d.emit(Event{
		Kind: FenceRaised, Path: p.cfg.ID, State: p.state, Count: n,
		Text: fmt.Sprintf("%s sent again over another path: newer writes to the same blocks wait until the first copies are settled", counted(n, "write")),
	})
}
