package mpio_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/session"
)

// TestClearedByAnotherHost: a function of another host ends what this one has in
// flight, without an answer. The unit attention that tells of it has the device ask
// about it at once, not when its time is up.
func TestClearedByAnotherHost(t *testing.T) {
	for name, clear := range map[string]func(s *session.Session, done func(session.TMFResult)) bool{
		"LOGICAL UNIT RESET": func(s *session.Session, done func(session.TMFResult)) bool { return s.ResetLUN(0, done) },
		"CLEAR TASK SET":     func(s *session.Session, done func(session.TMFResult)) bool { return s.ClearTaskSet(0, done) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { clearUnderWrite(t, clear) })
		})
	}
}

func clearUnderWrite(t *testing.T, clear func(*session.Session, func(session.TMFResult)) bool) {
	seen := events{}
	w := newWire(t, 2, iscsitest.Quirks{}, func(c *mpio.Config) { c.OnEvent = seen.note })
	defer w.close()
	w.onlyA()
	var other *session.Session
	host := newHost(t, w.tgt, "other", func(c *mpio.Config) {
		plain := c.NewSession
		c.NewSession = func(pc mpio.PathConfig, obs session.Observer) (mpio.Session, error) {
			s, err := plain(pc, obs)
			other, _ = s.(*session.Session)
			return s, err
		}
	})
	defer func() { assert.NoError(t, host.leave()) }()

	w.tgt.Inject(iscsitest.And(iscsitest.Writes(), iscsitest.First(1)), iscsitest.Drop()) // it hangs there
	data := bytes.Repeat([]byte{7}, 512)
	write := w.submit(block.OpWrite, 1, data)
	time.Sleep(100 * time.Millisecond)
	results := make(chan session.TMFResult, 1)
	host.on(func() { require.True(t, clear(other, func(r session.TMFResult) { results <- r })) })
	r := <-results
	require.True(t, r.Ended(), "%v", r)
	start := time.Now()
	require.NoError(t, <-w.submit(block.OpRead, 2, make([]byte, 512)), "it brings the news")
	require.NoError(t, <-write)
	assert.Less(t, time.Since(start), 2*time.Second)
	assert.Equal(t, data, w.medium(1))
	s := w.snapshot()
	assert.EqualValues(t, 1, s.Paths[0].Aborts)
	assert.Zero(t, s.Paths[0].Timeouts, "the path is not to blame")
	w.on(func() {
		assert.Equal(t, 1, seen[mpio.CommandAborted])
		assert.Zero(t, seen[mpio.PathDown]+seen[mpio.PathMarginal]+seen[mpio.FenceRaised]+seen[mpio.CommandTimedOut])
	})
}
