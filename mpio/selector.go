package mpio

import (
	"fmt"
	"strings"
)

// The policies. Whatever the policy, only usable paths in the best state carry
// I/O, and a path whose command window is full is passed over. All but
// round-robin keep to the group with the best priority. docs/policies.md
// compares them.
const (
	PolicyLatency          = "latency"            // the path that will finish the command first
	PolicyRoundRobin       = "round-robin"        // every path in turn, by weight, whatever its priority
	PolicyRoundRobinSubset = "round-robin-subset" // the paths of the best group in turn, by weight
	PolicyQueueDepth       = "queue-depth"        // the path with the fewest commands in flight
	PolicyLeastBytes       = "least-bytes"        // the path with the fewest bytes in flight, by weight
	PolicyServiceTime      = "service-time"       // the path with the least service time outstanding
	PolicyWeighted         = "weighted"           // the path with the lowest weight that has room
	PolicyFailover         = "failover"           // the first path by priority and order; the others only when it is down
)

// policies has every policy, the default first.
var policies = []struct {
	name string
	sel  selector
}{
	{PolicyLatency, latency{}},
	{PolicyRoundRobin, roundRobin{reachAll}},
	{PolicyRoundRobinSubset, roundRobin{reachGroup}},
	{PolicyQueueDepth, queueDepth{}},
	{PolicyLeastBytes, leastBytes{}},
	{PolicyServiceTime, serviceTime{}},
	{PolicyWeighted, weighted{}},
	{PolicyFailover, failover{}},
}

// Policies lists the names of all policies, the default first.
func Policies() []string {
	names := make([]string, len(policies))
	for i := range policies {
		names[i] = policies[i].name
	}
	return names
}

// selector is a policy: it picks one of at least two paths that are equally
// usable. It keeps no state of paths; that is in path.
type selector interface {
	pick(d *Device, cands []*path, o *io) *path
	reach() reach
}

// reach says which of the usable paths a policy chooses among.
type reach uint8

const (
	reachGroup reach = iota // those of the best group
	reachAll                // all in the best state
	reachOne                // the first of the best group only
)

func newSelector(policy string) (selector, error) {
	for i := range policies {
		if policies[i].name == policy {
			return policies[i].sel, nil
		}
	}
	return nil, fmt.Errorf("mpio: unknown policy %q: choose from %s", policy, strings.Join(Policies(), ", "))
}

// fewer reports whether the policy should take p rather than chosen, where all
// else is equal: the one with fewer commands in flight, and of those with as many
// any, at random. n counts the equals so far.
func (d *Device) fewer(p, chosen *path, n *int) bool {
	switch {
	case p.inflight != chosen.inflight:
		if p.inflight < chosen.inflight {
			*n = 1
			return true
		}
		return false
	default:
		*n++
		return d.rnd.below(*n) == 0
	}
}
