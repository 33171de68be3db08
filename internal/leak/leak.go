// Package leak finds goroutines that a test started and did not end.
//
// It compares stacks before and after; it knows nothing of what the goroutines
// do. It does not find goroutines that were already running before Check.
package leak

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long goroutines may take to wind down after a test ended.
// Tests may shorten it.
var patience = 5 * time.Second

// Check notes which goroutines run now and, when t ends, waits up to five
// seconds until every goroutine started since has ended. If some have not, t
// fails and their stacks are printed.
//
// Call it first in the test, so that its cleanup runs last. It sees the
// goroutines of the whole process: do not use it in a test that runs in
// parallel with others.
func Check(t testing.TB) {
	t.Helper()
	before := make(map[string]bool)
	for _, g := range goroutines() {
		before[g.id] = true
	}
	t.Cleanup(func() {
		t.Helper()
		left := settle(before)
		if len(left) == 0 {
			return
		}
		var b strings.Builder
		for _, g := range left {
			b.WriteString(g.stack)
			b.WriteString("\n\n")
		}
		t.Errorf("leak: %d goroutine(s) started by this test still run:\n\n%s", len(left), b.String())
	})
}

// settle waits for the goroutines that are not in before and returns those
// that outlast its patience.
func settle(before map[string]bool) []goroutine {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var left []goroutine
		for _, g := range goroutines() {
			if !before[g.id] && !g.belongsToRuntime() {
				left = append(left, g)
			}
		}
		if len(left) == 0 || !time.Now().Before(deadline) {
			return left
		}
		time.Sleep(pause)
	}
}

type goroutine struct {
	id    string // "goroutine 17": the runtime never uses a number twice
	stack string
}

// belongsToRuntime reports whether the goroutine is one the test framework or
// the runtime starts on its own account.
func (g goroutine) belongsToRuntime() bool {
	for _, mark := range []string{
		"created by testing.", // the framework's own: other tests, timeouts
		"created by os/signal.Notify",
		"created by runtime",
		"testing.RunTests", // the main goroutine
		"runtime.goexit0",  // already past its end
		"runtime/trace.Start",
	} {
		if strings.Contains(g.stack, mark) {
			return true
		}
	}
	return false
}

// goroutines returns all goroutines but the calling one.
func goroutines() []goroutine {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var all []goroutine
	for i, stack := range bytes.Split(buf, []byte("\n\n")) {
		id, _, ok := strings.Cut(string(stack), " [")
		if i == 0 || !ok { // the first one is the caller
			continue
		}
		all = append(all, goroutine{id: id, stack: string(stack)})
	}
	return all
}
