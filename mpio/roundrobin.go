package mpio

// roundRobin takes paths in turn, each as often as its weight says, evenly
// spread ("smooth weighted round-robin"). It looks at nothing else: a slow path
// sets the pace.
type roundRobin struct{}

func (roundRobin) single() bool { return false }

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
