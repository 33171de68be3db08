//go:build invariants

package invariants

// Enabled tells whether the checks are compiled in. It is a constant, so that
// `if invariants.Enabled { … }` disappears from release builds.
const Enabled = true

// Mangle scribbles over b, which the caller has just released to a pool: who
// still holds a reference to it reads garbage instead of stale but plausible
// data. A no-op without the build tag.
func Mangle(b []byte) {
	if len(b) == 0 {
		return
	}
	b[0] = poison
	for n := 1; n < len(b); n *= 2 { // copying is faster than a loop over bytes
		copy(b[n:], b[:n])
	}
}
