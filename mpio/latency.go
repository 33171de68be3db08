package mpio

// latency is the default policy: the command goes where it will be finished
// first. For a command of b bytes on path p:
//
//	cost = lat·(1 + inflight) + (queued bytes + b)·time per byte
//
// lat is the estimate for the direction, but never less than the age of the
// oldest read or write in flight, so that a path that stops answering is shed
// before anything completes on it.
type latency struct{}

func (latency) reach() reach { return reachGroup }

// Constants of the policy.
const (
	equalWithin = 1.1      // costs this close are equal: the choice is random
	unknownLat  = 1e6      // ns: assumed while no path has a sample
	probeShare  = 0.01     // of the commands may be sent to learn about a path
	probeBurst  = 2        // probes saved up at most
	probeBytes  = 64 << 10 // commands up to this size serve as probes
	staleReads  = 100e6    // ns: a path without a sample for so long is probed with a read ...
	staleWrites = 1e9      // ... or a write
)

// probeBudget bounds the commands sent to a path to learn about it.
type probeBudget float64

func (latency) pick(d *Device, cands []*path, o *io) *path {
	now := d.loop.Now()
	dir := o.dir()
	if p := probe(d, cands, o, now, dir); p != nil {
		return p
	}
	best, n := 0.0, 0
	base := baseline(cands, dir)
	bytes := float64(len(o.data))
	for i, p := range cands {
		c := p.cost(now, dir, bytes, base)
		p.lastCost = c
		if i == 0 || c < best {
			best = c
		}
	}
	var chosen *path
	for _, p := range cands {
		if p.lastCost <= best*equalWithin {
			if n++; n == 1 || d.rnd.below(n) == 0 {
				chosen = p
			}
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

// latNow is the estimate with what commands in flight tell already.
func (p *path) latNow(now int64, dir int, base float64) float64 {
	l := p.est[dir].lat
	if l == 0 {
		l = base
	}
	return max(l, float64(p.age(now)))
}

// cost is the time, in ns, a command of so many bytes is expected to take.
func (p *path) cost(now int64, dir int, bytes, base float64) float64 {
	return p.latNow(now, dir, base)*float64(1+p.inflight) +
		(float64(p.queued[dir])+bytes)*p.est[dir].slope.perByte
}

// probe gives an idle path that nothing is known of lately, so that one which
// has healed is found: its estimate can only fall when it carries a command.
func probe(d *Device, cands []*path, o *io, now int64, dir int) *path {
	if d.probing < probeBurst {
		d.probing += probeShare
	}
	if d.probing < 1 || len(o.data) > probeBytes || o.kind.slow() {
		return nil
	}
	stale := int64(staleReads)
	if dir == 1 {
		stale = staleWrites
	}
	for _, p := range cands {
		e := &p.est[dir]
		if p.inflight == 0 && e.lat > 0 && now-e.last >= stale {
			d.probing--
			p.stat.probes++
			return p
		}
	}
	return nil
}
