package mpio

// failover uses one path: of the best group the one that was added first. When
// a better one comes back, Config.Failback says when it takes over. When the
// path's command window is full, commands wait rather than spill over to another.
type failover struct{}

func (failover) reach() reach { return reachOne }

func (failover) pick(_ *Device, cands []*path, _ *io) *path { return cands[0] }
