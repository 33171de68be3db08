// Package invariants carries the checks that are too dear for a release: they
// are compiled in only under the build tag "invariants" and cost nothing
// otherwise. No policy lives here; callers decide what a broken invariant means.
package invariants

// poison is what a released byte turns into. It is neither zero, nor text, nor
// a plausible length, so that a late reader shows up at once.
const poison = 0xdb
