package mpio

// queueDepth takes the path with the fewest commands in flight, at random among
// equals. A slow path sheds load as its queue fills, but with little to do it
// gets as much as a fast one, and size does not count.
type queueDepth struct{}

func (queueDepth) reach() reach { return reachGroup }

func (queueDepth) pick(d *Device, cands []*path, _ *io) *path {
	chosen, n := cands[0], 1
	for _, p := range cands[1:] {
		if d.fewer(p, chosen, &n) {
			chosen = p
		}
	}
	return chosen
}
