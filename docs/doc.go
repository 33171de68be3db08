// Package docs holds the project's documents and the tests that keep them true.
// It has no code of its own: what a document describes belongs to the package
// that does it.
package docs
