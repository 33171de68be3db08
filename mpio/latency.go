package mpio

// latency is the default policy: the command goes where it costs least. For a
// command of b bytes on path p:
//
//	cost = lat + b·perByte + queueWeight·(inflight·perCommand + queued bytes·perByte)
//
// lat, perCommand and perByte are learned from the answers, for reads and writes
// apart (estimate). lat is never less than what the oldest read or write in
// flight is late by, so that a path that stops answering is shed before anything
// completes on it. The queue counts twice: the command waits for those before it,
// and those that come after it wait for the command. docs/policies.md has what
// else was tried, and the figures.
type latency struct{}

func (latency) reach() reach { return reachGroup }

// Constants of the policy.
const (
	queueWeight = 2.0
	equalWithin = 1.1 // costs this close are equal: fewer in flight, then chance decides
	unknownLat  = 1e6 // ns: assumed while no path has a sample
)

func (latency) pick(d *Device, cands []*path, o *io) *path {
	now := d.loop.Now()
	dir := o.dir()
	d.sendScout(cands, o, now)
	best := 0.0
	base := baseline(cands, dir)
	for i, p := range cands {
		c := p.cost(now, dir, len(o.data), base)
		p.lastCost = c
		if i == 0 || c < best {
			best = c
		}
	}
	best *= equalWithin
	var chosen *path
	n := 0
	for _, p := range cands {
		if p.lastCost <= best && (chosen == nil || d.fewer(p, chosen, &n)) {
			if chosen == nil {
				n = 1
			}
			chosen = p
		}
	}
	return chosen
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

// cost is what a command of so many bytes costs on p, in ns.
func (p *path) cost(now int64, dir, bytes int, base float64) float64 {
	e := &p.est[dir]
	l := e.lat
	if l == 0 {
		l = base
	}
	f := &e.fit
	return max(l, p.late(now)) + float64(bytes)*f.perByte +
		queueWeight*(float64(p.inflight)*f.perCommand+float64(p.queued[dir])*f.perByte)
}
