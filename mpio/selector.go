package mpio

import (
	"fmt"
	"strings"
)

// The policies. Whatever the policy, only the best group of usable paths
// carries I/O (state first, then priority), and a path whose command window is
// full is passed over.
const (
	PolicyLatency    = "latency"     // the path that will finish the command first
	PolicyRoundRobin = "round-robin" // in turn, by weight
	PolicyQueueDepth = "queue-depth" // the path with the fewest commands in flight
	PolicyFailover   = "failover"    // the first path by priority and order; the others only when it is down
)

// Policies lists the names of all policies, the default first.
func Policies() []string {
	return []string{PolicyLatency, PolicyRoundRobin, PolicyQueueDepth, PolicyFailover}
}

// selector is a policy: it picks one of at least two paths that are equally
// usable. It keeps no state of paths; that is in path.
type selector interface {
	pick(d *Device, cands []*path, o *io) *path
	// single: only the first path of the group carries I/O.
	single() bool
}

func newSelector(policy string) (selector, error) {
	switch policy {
	case PolicyLatency:
		return latency{}, nil
	case PolicyRoundRobin:
		return roundRobin{}, nil
	case PolicyQueueDepth:
		return queueDepth{}, nil
	case PolicyFailover:
		return failover{}, nil
	}
	return nil, fmt.Errorf("mpio: unknown policy %q: choose from %s", policy, strings.Join(Policies(), ", "))
}
