package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// crash kills the device in the middle of everything, and starts another on what it had
// noted. The target has the writes of the old sessions, and those of sessions before them
// that no login has ended, and executes them whenever it likes within 30 s.
func (c *chaos) crash(book *notebook) {
	old := c.s
	inherited := book.last()
	for _, e := range c.l.events { // of the dead process, and what its sessions would do
		e.dead = true
	}
	clear(c.l.timers)
	book.busy = false
	cfg := c.d.cfg
	cfg.Inherited = inherited
	c.s, c.open = nil, map[*result]bool{}
	c.l.run(c.rnd.Int64N(3 * sec))
	var err error
	c.d, err = New(cfg, c.l)
	require.NoError(c.t, err)
	c.d.Relate(portalAt(0), portalAt(1), portalAt(2))
	for i := range old {
		require.NoError(c.t, c.d.AddPath(PathConfig{ID: pathID(i), Portal: portalAt(i), TPGT: 1, ISID: [6]byte{0x80, byte(i + 1)}}))
		c.equip(c.s[i])
		c.inherit(old[i], c.s[i])
	}
	c.d.Start()
}

// inherit hands what the target has of a session of the dead process to the one that is
// made anew with its ISID. Its first login, if it is honest, ends the last session before.
func (c *chaos) inherit(old, heir *fakeSession) {
	heir.honest, heir.room = old.honest, old.room
	for _, f := range old.flights {
		if f.data != nil && c.rnd.IntN(4) > 0 { // else it had not left
			heir.zombies = append(heir.zombies, f)
		}
	}
	for _, f := range append(heir.zombies, old.zombies...) {
		ended := 0
		if f.gen != old.logins {
			ended = -1 // a session that the login after it did not end: none will
		}
		f.gen = ended
	}
	heir.zombies = append(heir.zombies, old.zombies...)
	for _, f := range heir.zombies {
		heir.rises(f)
	}
}

// equip makes the session c's.
func (c *chaos) equip(s *fakeSession) {
	s.delay = func() int64 { return 20*usec + c.rnd.Int64N(2*msec) }
	s.rises = func(f *flight) { c.l.after(c.rnd.Int64N(30*sec), func() { s.wakeIf(f) }) }
	s.intercept = c.answer
}

// newCrashing is a chaos whose sessions are noted.
func newCrashing(t *testing.T, seed uint64, change func(*Config)) (*chaos, *notebook) {
	var c *chaos
	book := &notebook{t: t, l: func() *fakeLoop { return c.l }}
	c = newChaos(t, seed, func(cfg *Config) {
		cfg.Remember = book.remember
		if change != nil {
			change(cfg)
		}
	})
	book.takes = c.rnd.Int64N(20 * msec)
	c.rec, c.d.watch = nil, nil // the model's steps in Go know of no crash
	for _, s := range c.s {
		s.rec = nil
	}
	return c, book
}

// TestNoWriteOfADeadProcessReplacesANewerOne lets the process die at random, again and again.
func TestNoWriteOfADeadProcessReplacesANewerOne(t *testing.T) {
	first, n := seeds(t)
	waited := uint64(0)
	for seed := first; seed < first+n; seed++ {
		c, book := newCrashing(t, seed, nil)
		c.d.Start()
		c.l.run(100 * msec)
		for range 3 {
			c.stir(chaosOps / 3)
			waited += c.d.stat.fencedWaits
			c.crash(book)
			c.l.run(c.rnd.Int64N(sec))
		}
		c.stir(chaosOps / 3)
		c.heal()
		require.Empty(t, c.failure, "MPIO_SEED=%d", seed)
		require.Empty(t, c.open, "requests never completed, MPIO_SEED=%d", seed)
		c.requireIdle()
	}
	if n > 1 {
		assert.NotZero(t, waited)
	}
}

// TestACrashWithoutANoteIsFound: the same, with a note that says that nothing is left.
func TestACrashWithoutANoteIsFound(t *testing.T) {
	first, _ := seeds(t)
	for seed := first; seed < first+400; seed++ {
		c, book := newCrashing(t, seed, func(cfg *Config) { cfg.Shared = false })
		c.d.Start()
		c.l.run(100 * msec)
		for range 3 {
			c.stir(chaosOps / 3)
			book.lists = nil
			c.crash(book)
		}
		c.stir(chaosOps / 3)
		if c.failure != "" {
			t.Logf("seed %d: %s", seed, c.failure)
			return
		}
	}
	t.Fatal("a stale write of an earlier process must be found")
}
