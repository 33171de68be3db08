package leak

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeTB records what Check does to a test without failing the real one.
type fakeTB struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (f *fakeTB) Helper()          {}
func (f *fakeTB) Cleanup(c func()) { f.cleanups = append(f.cleanups, c) }
func (f *fakeTB) Errorf(format string, args ...any) {
	for _, a := range args {
		if s, ok := a.(string); ok {
			f.errors = append(f.errors, s)
		}
	}
}

func setPatience(t *testing.T, d time.Duration) {
	old := patience
	patience = d
	t.Cleanup(func() { patience = old })
}

func blockedUntilClosed(stop chan struct{}) { <-stop }

func TestCheckReportsALeak(t *testing.T) {
	setPatience(t, 20*time.Millisecond)
	stop := make(chan struct{})
	defer close(stop)
	f := &fakeTB{TB: t}
	Check(f)
	go blockedUntilClosed(stop)
	f.cleanups[0]()
	require.Len(t, f.errors, 1)
	assert.Contains(t, f.errors[0], "blockedUntilClosed")
}

func TestCheckWaitsForSlowEnds(t *testing.T) {
	f := &fakeTB{TB: t}
	Check(f)
	stop := make(chan struct{})
	go blockedUntilClosed(stop)
	time.AfterFunc(30*time.Millisecond, func() { close(stop) })
	f.cleanups[0]()
	assert.Empty(t, f.errors)
}

func TestCheckIgnoresOlderGoroutines(t *testing.T) {
	setPatience(t, 20*time.Millisecond)
	stop := make(chan struct{})
	defer close(stop)
	go blockedUntilClosed(stop)
	f := &fakeTB{TB: t}
	Check(f)
	f.cleanups[0]()
	assert.Empty(t, f.errors)
}
