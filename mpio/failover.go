package mpio

// failover uses one path: of the best group the one that was added first. A
// better one that comes back takes over at once. When its command window is
// full, commands wait rather than spill over to another path.
type failover struct{}

func (failover) single() bool { return true }

func (failover) pick(_ *Device, cands []*path, _ *io) *path { return cands[0] }
