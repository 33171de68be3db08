package mpio

// weighted takes the path with the lowest weight, as Microsoft's "weighted
// paths" does: the weight is what using the path costs. Commands the cheapest
// path has no room for go to the next one; of several that cost the same the one
// with the fewest commands in flight is taken.
type weighted struct{}

func (weighted) reach() reach { return reachGroup }

func (weighted) pick(d *Device, cands []*path, _ *io) *path {
	chosen, n := cands[0], 1
	for _, p := range cands[1:] {
		switch w := p.cfg.Weight; {
		case w < chosen.cfg.Weight:
			chosen, n = p, 1
		case w == chosen.cfg.Weight && d.fewer(p, chosen, &n):
			chosen = p
		}
	}
	return chosen
}
