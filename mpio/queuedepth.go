package mpio

// queueDepth takes the path with the fewest commands in flight, at random among
// equals. A slow path sheds load as its queue fills, but with little to do it
// gets as much as a fast one, and size does not count.
type queueDepth struct{}

func (queueDepth) single() bool { return false }

func (queueDepth) pick(d *Device, cands []*path, _ *io) *path {
	var chosen *path
	n := 0
	for _, p := range cands {
		switch {
		case chosen == nil || p.inflight < chosen.inflight:
			chosen, n = p, 1
		case p.inflight == chosen.inflight:
			if n++; d.rnd.below(n) == 0 {
				chosen = p
			}
		}
	}
	return chosen
}
