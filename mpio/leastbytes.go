package mpio

// leastBytes takes the path with the fewest bytes in flight, the command's own
// included, for its weight: a path of weight 2 may have twice as many. This is
// "least blocks" with Microsoft, and "service-time" with Linux, whose relative
// throughput the weight is. It knows what large commands cost, but a path's
// latency does not count.
type leastBytes struct{}

func (leastBytes) reach() reach { return reachGroup }

func (leastBytes) pick(d *Device, cands []*path, o *io) *path {
	chosen, n := cands[0], 1
	load := chosen.bytesWith(o)
	for _, p := range cands[1:] {
		l := p.bytesWith(o)
		// l/weight < load/weight, without a division
		a, b := l*int64(chosen.cfg.Weight), load*int64(p.cfg.Weight)
		switch {
		case a < b:
			chosen, load, n = p, l, 1
		case a == b && d.fewer(p, chosen, &n):
			chosen, load = p, l
		}
	}
	return chosen
}

// bytesWith is what would be in flight with o.
func (p *path) bytesWith(o *io) int64 {
	return int64(p.queued[0] + p.queued[1] + len(o.data))
}
