package mpio

import "math"

// latency is the default policy: the command goes where it costs least. For a
// command of b bytes on path p:
//
//	cost = lat + b·perByte + queueWeight·(inflight·perCommand + queued bytes·perByte)
//
// lat, perCommand and perByte are learned from the answers, for reads and writes
// apart (estimate). lat is never less than what the oldest read or write in
// flight is late by, so that a path that stops answering is shed before anything
// completes on it. The queue counts twice: the command waits for those before it,
// and those that come after it wait for the command; and more where it lasts
// (spread). docs/policies.md has what else was tried, and the figures.
type latency struct{}

func (latency) reach() reach { return reachGroup }

// Constants of the policy.
const (
	queueWeight   = 2.0
	equalWithin   = 0.1   // costs this share apart are equal: fewer in flight, then chance decides
	alikeWithin   = 3.0   // ... but all of a cost counts for that only where a command takes about as long
	longQueue     = 16    // commands
	crowdedFor    = 100e6 // ns: a queue that was longer for so long will stay so
	crowdedWeight = 1.0 / 12
	shortQueue    = 3   // commands: so many are no long queue, however long each takes
	unknownLat    = 1e6 // ns: assumed while no path has a sample
)

// cost is what a command costs on a path, in ns.
type cost struct {
	total float64
	alone float64 // what it takes there on an empty path
	queue float64 // what those before it add, and it to those behind it
	one   float64 // what one command more in the queue would add
}

func (latency) pick(d *Device, cands []*path, o *io) *path {
	now := d.loop.Now()
	dir := o.dir()
	d.sendScout(cands, o, now)
	base := baseline(cands, dir)
	best, near := cands[0], cands[0]
	for _, p := range cands {
		p.cost = p.price(now, dir, len(o.data), base)
		if p.cost.total < best.cost.total {
			best = p
		}
		if p.cost.alone < near.cost.alone {
			near = p
		}
	}
	if d.crowded(near, now) {
		best = spread(cands, near)
	}
	var chosen *path
	n := 0
	for _, p := range cands {
		if p.cost.equals(&best.cost) && (chosen == nil || d.calmer(p, chosen, &n, now)) {
			if chosen == nil {
				n = 1
			}
			chosen = p
		}
	}
	return chosen
}

// calmer is fewer, but of paths with as many commands in flight it takes one that did
// not stall of late: what befell a path will do so again sooner than one that it
// spared. Scouts see whether it goes on.
func (d *Device) calmer(p, chosen *path, n *int, now int64) bool {
	is, was := p.stalledSince(now-stallSpan), chosen.stalledSince(now-stallSpan)
	if p.inflight != chosen.inflight || is == was {
		return d.fewer(p, chosen, n)
	}
	if was {
		*n = 1
	}
	return was
}

// equals reports whether c is equal to the least cost. Where queues are long a share
// of all of it is more than a command takes, and the path with fewer but slower
// commands would get one more; so there only like paths share by number: a command
// adds about as much to the queue, and neither is far beside the other. What spread
// adds does not count among these, since it makes a difference several times larger.
func (c *cost) equals(least *cost) bool {
	plain := least.alone + least.queue
	if c.one <= alikeWithin*least.one && least.one <= alikeWithin*c.one && math.Abs(c.alone-least.alone) <= plain/2 {
		return c.alone+c.queue <= (1+equalWithin)*plain
	}
	return c.total <= least.total+equalWithin*least.alone
}

// crowded reports whether the nearest path, the one that would be fastest if it were
// empty, has had a long queue for so long that this is no burst. Then what counts
// is how much the paths do together; a burst is over sooner without those that are
// far.
func (d *Device) crowded(near *path, now int64) bool {
	switch {
	case near.inflight <= longQueue:
		d.crowdedSince = 0
	case d.crowdedSince == 0:
		d.crowdedSince = now
	default:
		return now-d.crowdedSince >= crowdedFor
	}
	return false
}

// spread makes long queues dearer, and gives the path that is cheapest then. With
// one command more in a long queue nothing is done sooner, while on a path that is
// farther it is done in addition. A queue is measured in the nearest path's
// commands, so that those that take as long stay equal; but a few commands keep
// no path busy, even if they take as long as many of the nearest's.
func spread(cands []*path, near *path) (best *path) {
	best = cands[0]
	one := near.cost.queue / float64(near.inflight)
	for _, p := range cands {
		c := &p.cost
		if n := c.queue / one; n > longQueue && p.inflight > shortQueue {
			c.total += c.queue * (n - longQueue) * crowdedWeight
		}
		if c.total < best.cost.total {
			best = p
		}
	}
	return best
}

// baseline is what a path without a sample is taken for: as good as the best.
func baseline(cands []*path, dir int) float64 {
	base := 0.0
	for _, p := range cands {
		if l := p.est[dir].lat; l > 0 && (base == 0 || l < base) {
			base = l
		}
	}
	if base == 0 {
		return unknownLat
	}
	return base
}

// late is for how much longer than explained by those before it and its length
// the oldest read or write in flight has been waiting, since anything was answered:
// a path that answers others is not held up.
func (p *path) late(now int64) float64 {
	since, explained := p.hedge.unseen, 0.0
	if o := p.transfer.head; o != nil {
		if since == 0 || o.sentAt < since {
			since = o.sentAt
		}
		explained = p.est[o.dir()].fit.of(o.met)
	}
	if since == 0 {
		return 0
	}
	return float64(now-max(since, p.answered)) - explained
}

// price is what a command of so many bytes costs on p.
func (p *path) price(now int64, dir, bytes int, base float64) cost {
	e := &p.est[dir]
	l := e.lat
	if l == 0 {
		l = base
	}
	f := &e.fit
	c := cost{
		alone: max(l, p.late(now)) + float64(bytes)*f.perByte,
		queue: queueWeight * (float64(p.inflight)*f.perCommand + float64(p.queued[dir])*f.perByte),
		one:   f.perCommand + float64(bytes)*f.perByte,
	}
	c.total = c.alone + c.queue
	return c
}
