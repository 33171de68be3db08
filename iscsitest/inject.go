package iscsitest

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Injection is one rule of a Target or FaultProxy: what to do with the PDUs a
// predicate picks.
type Injection struct {
	when   Predicate
	hits   atomic.Int64
	remove func()
}

// Hits is how many PDUs the rule was applied to.
func (i *Injection) Hits() int { return int(i.hits.Load()) }

// Remove ends the rule. What it already holds or delays is not affected.
func (i *Injection) Remove() { i.remove() }

// String is the rule's predicate.
func (i *Injection) String() string { return i.when.String() }

// rules is a list of injections with actions of type A.
type rules[A any] struct {
	mu   sync.RWMutex // guards list
	list []*rule[A]
	n    atomic.Int32 // len(list), so that no rule costs no lock
}

type rule[A any] struct {
	Injection
	actions []A
}

func (rs *rules[A]) add(when Predicate, actions []A) *Injection {
	r := &rule[A]{Injection: Injection{when: when}, actions: actions}
	r.remove = func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		rs.list = slices.DeleteFunc(rs.list, func(x *rule[A]) bool { return x == r })
		rs.n.Store(int32(len(rs.list)))
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.list = append(rs.list, r)
	rs.n.Store(int32(len(rs.list)))
	return &r.Injection
}

// match returns the actions of all rules that pick e, oldest rule first.
func (rs *rules[A]) match(e *Event) []A {
	if rs.n.Load() == 0 {
		return nil
	}
	rs.mu.RLock()
	list := slices.Clone(rs.list) // a predicate may add or remove rules
	rs.mu.RUnlock()
	var actions []A
	for _, r := range list {
		if r.when.Match(e) {
			r.hits.Add(1)
			actions = append(actions, r.actions...)
		}
	}
	return actions
}

func (rs *rules[A]) any() bool { return rs.n.Load() > 0 }
