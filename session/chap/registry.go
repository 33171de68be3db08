package chap

import (
	"crypto/sha256"
	"sync"
	"time"
)

// Bounds of a Registry. A challenge dropped from it is not accepted by its own
// login any more, so neither bound opens a way around the check.
const (
	// RegistryTTL is how long a challenge is remembered, and how long the target
	// may take to answer it.
	RegistryTTL = 5 * time.Minute
	// RegistrySize is how many challenges are remembered; the oldest goes first.
	RegistrySize = 16384
)

// Registry remembers the challenges this process issued, so that none of its
// logins answers one of them (RFC 7143 §9.2.1). Share one among all initiators of
// a process; targets in the same process need one of their own. Safe for
// concurrent use.
type Registry struct {
	mu     sync.Mutex // guards all below
	issued map[fingerprint]time.Time
	queue  []fingerprint // the keys of issued, oldest first
}

// fingerprint keeps entries of one size whatever the challenge's.
type fingerprint [sha256.Size]byte

// NewRegistry makes an empty Registry.
func NewRegistry() *Registry {
	return &Registry{issued: make(map[fingerprint]time.Time)}
}

// add notes a challenge before it is sent. It reports false when the challenge
// was issued before, which random ones never are.
func (r *Registry) add(challenge []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.lockedExpire(now)
	key := fingerprint(sha256.Sum256(challenge))
	if _, again := r.issued[key]; again {
		return false
	}
	if len(r.queue) >= RegistrySize {
		r.lockedDropOldest()
	}
	r.issued[key] = now
	r.queue = append(r.queue, key)
	return true
}

// holds reports whether the challenge is remembered as one of ours.
func (r *Registry) holds(challenge []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lockedExpire(time.Now())
	_, found := r.issued[sha256.Sum256(challenge)]
	return found
}

// Len is the number of challenges remembered.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lockedExpire(time.Now())
	return len(r.queue)
}

func (r *Registry) lockedExpire(now time.Time) {
	for len(r.queue) > 0 && now.Sub(r.issued[r.queue[0]]) >= RegistryTTL {
		r.lockedDropOldest()
	}
}

func (r *Registry) lockedDropOldest() {
	delete(r.issued, r.queue[0])
	r.queue = r.queue[1:]
	if len(r.queue) == 0 {
		r.queue = nil // lets go of the array
	}
}
