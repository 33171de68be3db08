package mpio

// roundRobin takes paths in turn, each as often as its weight says, evenly
// spread ("smooth weighted round-robin"). It looks at nothing else: a slow path
// sets the pace.
//
// It comes in two kinds, as with Microsoft's MPIO: one that uses every path that
// is as good to the target, whatever priority it was given by hand, and one that
// is kept to a subset, the best group, while the others stand by.
type roundRobin struct{ paths reach }

func (r roundRobin) reach() reach { return r.paths }

func (roundRobin) pick(_ *Device, cands []*path, _ *io) *path {
	var chosen *path
	total := 0
	for _, p := range cands {
		p.rr += p.cfg.Weight
		total += p.cfg.Weight
		if chosen == nil || p.rr > chosen.rr {
			chosen = p
		}
	}
	chosen.rr -= total
	return chosen
}
