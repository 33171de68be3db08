package mpio

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// The property test lets random things happen to random requests: paths are
// cut, fall silent and hold commands back; targets execute commands of lost
// sessions much later, or end them honestly at the next login, or do not.
//
//  1. Every request completes exactly once.
//  2. No block ever goes back from a write to an older one.
//  3. A read returns for each block nothing older than what was acknowledged
//     when it was submitted, and nothing that was not submitted by its end.
const (
	chaosBlocks = 48
	chaosPaths  = 3
	chaosOps    = 400
)

type chaos struct {
	*rig
	rnd     *rand.Rand
	ids     uint64
	acked   [chaosBlocks]uint64 // newest acknowledged write
	open    map[*result]bool
	failure string // the first violation
	healed  bool
}

// newChaos makes a rig of dishonest and honest paths. FenceTimeout is longer
// than any target here holds a command, so that settling by time is right.
func newChaos(t testing.TB, seed uint64, change func(*Config)) *chaos {
	c := &chaos{rnd: rand.New(rand.NewPCG(seed, 77)), open: map[*result]bool{}}
	c.rig = newRig(t, chaosPaths, func(cfg *Config) {
		cfg.Seed = seed + 1
		cfg.FenceTimeout = 40 * time.Second
		cfg.NoPathTimeout = time.Duration(5+c.rnd.IntN(100)) * time.Second
		cfg.CommandTimeout = 5 * time.Second
		cfg.Marginal.Off = false
		cfg.Shared = c.rnd.IntN(4) == 0
		cfg.Policy = Policies()[c.rnd.IntN(len(Policies()))]
		if change != nil {
			change(cfg)
		}
	})
	c.unit.written = c.check
	for _, s := range c.s {
		s.honest = c.rnd.IntN(3) > 0
		s.room = 1 + c.rnd.IntN(16)
		s.delay = func() int64 { return 20*usec + c.rnd.Int64N(2*msec) }
		// A command of a lost session is executed at some later time, if no honest
		// login has ended it by then. A target gives up after 30 s.
		s.rises = func(f *flight) { c.l.after(c.rnd.Int64N(30*sec), func() { s.wakeIf(f) }) }
		s.intercept = func(cdb scsi.CDB) (answer, bool) { return c.answer(cdb) }
	}
	c.record(chaosBlocks)
	return c
}

func (c *chaos) fail(format string, args ...any) {
	if c.failure == "" {
		c.failure = fmt.Sprintf(format, args...)
	}
}

// check sees every write the medium executes, late ones included.
func (c *chaos) check(lba uint64, data []byte) {
	for i := 0; i < len(data); i += testBlock {
		b := int(lba) + i/testBlock
		is, was := binary.LittleEndian.Uint64(data[i:]), c.at(b)
		if is < was {
			c.fail("block %d went from write %d back to %d at %v", b, was, is, time.Duration(c.l.now))
		}
	}
}

// answer is now and then something else than the unit's own.
func (c *chaos) answer(cdb scsi.CDB) (answer, bool) {
	if c.healed {
		return answer{}, false
	}
	switch c.rnd.IntN(300) {
	case 0:
		return answer{status: scsi.Busy}, true
	case 1:
		return answer{status: scsi.TaskSetFull}, true
	case 2:
		return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true
	case 3:
		return sense(scsi.KeyNotReady, scsi.ASCALUATransition), true
	case 4:
		return sense(scsi.KeyAbortedCommand, scsi.ASCCommandsClearedByEvent), true
	case 5:
		return sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure), true
	case 6:
		return answer{under: true, residual: 512}, true
	}
	return answer{}, false
}

func (c *chaos) request() {
	lba := c.rnd.IntN(chaosBlocks)
	n := 1 + c.rnd.IntN(min(4, chaosBlocks-lba))
	switch c.rnd.IntN(10) {
	case 0:
		c.track(c.submit(block.Request{Op: block.OpFlush}), nil)
	case 1, 2, 3:
		floor := append([]uint64(nil), c.acked[lba:lba+n]...)
		q := c.read(lba, n)
		c.track(q, func() {
			for i, f := range floor {
				if got := binary.LittleEndian.Uint64(q.Data[i*testBlock:]); got < f || got > c.ids {
					c.fail("read of block %d gave write %d, acknowledged was %d", lba+i, got, f)
				}
			}
		})
	default:
		c.ids++
		id := c.ids
		q := c.write(lba, n, id)
		c.track(q, func() {
			for b := lba; b < lba+n; b++ {
				c.acked[b] = max(c.acked[b], id)
			}
		})
	}
}

// track runs then when q succeeds.
func (c *chaos) track(q *result, then func()) {
	if q.done {
		return // refused at once: no path for too long
	}
	c.open[q] = true
	q.then = func() {
		delete(c.open, q)
		if q.Err == nil && then != nil {
			then()
		}
	}
}

// mischief does something to a path.
func (c *chaos) mischief() {
	s := c.s[c.rnd.IntN(len(c.s))]
	switch c.rnd.IntN(9) {
	case 0, 1:
		s.unsent = c.rnd.IntN(4) == 0
		s.cut(c.rnd.Int64N(8 * sec))
	case 2, 3:
		s.hold = true
		c.l.after(c.rnd.Int64N(6*sec), func() { s.release() })
	case 4:
		if s.logged && len(s.flights) > 0 && !s.isSilent {
			s.hold = true
			s.silence()
			c.l.after(c.rnd.Int64N(3*sec), func() {
				if c.rnd.IntN(2) == 0 {
					s.cut(c.rnd.Int64N(2 * sec))
				}
				s.release()
			})
		}
	case 5:
		op := PathOp{Kind: OpDown}
		_ = c.d.SetPath(s.cfg.ID, op)
		c.l.after(c.rnd.Int64N(5*sec), func() { _ = c.d.SetPath(s.cfg.ID, PathOp{Kind: OpUp}) })
	case 6:
		_ = c.d.SetPath(s.cfg.ID, PathOp{Kind: OpPriority, Value: 1 + c.rnd.IntN(2)})
	case 7:
		_ = c.d.SetPolicy(Policies()[c.rnd.IntN(len(Policies()))])
	case 8:
		s.honest = !s.honest
	}
}

// run lets all of it happen, then heals everything.
func (c *chaos) run() {
	c.d.Start()
	c.l.run(100 * msec)
	c.stir(chaosOps)
	if c.failure == "" {
		c.heal()
	}
}

// stir lets random things happen.
func (c *chaos) stir(ops int) {
	for range ops {
		if c.failure != "" {
			return
		}
		switch {
		case c.rnd.IntN(12) == 0:
			c.mischief()
		case len(c.open) < 40:
			c.request()
		}
		if c.rnd.IntN(3) == 0 {
			c.l.run(c.rnd.Int64N(5 * msec))
		}
		if c.rnd.IntN(40) == 0 {
			c.l.run(c.rnd.Int64N(4 * sec))
		}
	}
}

func (c *chaos) heal() {
	c.healed = true
	for _, s := range c.s {
		s.release()
	}
	c.l.run(300 * sec)
}

func seeds(t testing.TB) (first, n uint64) {
	n = 150
	if testing.Short() {
		n = 60
	}
	if s := os.Getenv("MPIO_SEEDS"); s != "" {
		var err error
		n, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	if s := os.Getenv("MPIO_SEED"); s != "" {
		first, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		return first, 1
	}
	return rand.Uint64N(1 << 40), n
}

func TestNoAcknowledgedWriteIsReplacedByAnOlderOne(t *testing.T) {
	first, n := seeds(t)
	t.Logf("seeds %d to %d; MPIO_SEED runs one", first, first+n-1)
	raised, waits := uint64(0), uint64(0)
	steps := map[string]int{}
	for seed := first; seed < first+n; seed++ {
		c := newChaos(t, seed, nil)
		c.run()
		require.Empty(t, c.failure, "MPIO_SEED=%d", seed)
		require.NoError(t, c.rec.finish(), "MPIO_SEED=%d", seed)
		for step, n := range c.rec.count {
			steps[step] += n
		}
		require.Empty(t, c.open, "requests never completed, MPIO_SEED=%d", seed)
		c.requireIdle()
		raised += c.d.stat.fencesRaised
		waits += c.d.stat.fencedWaits
	}
	t.Logf("%d fences raised, %d commands held back; steps of the model: %v", raised, waits, steps)
	if n > 1 {
		require.Greater(t, raised, n, "the test must reach the fence")
		require.Greater(t, waits, n/4)
	}
}

// TestThePropertyTestCanFail runs the same without the fence.
func TestThePropertyTestCanFail(t *testing.T) {
	first, _ := seeds(t)
	for seed := first; seed < first+400; seed++ {
		c := newChaos(t, seed, func(cfg *Config) { cfg.UnsafeNoFence, cfg.Shared = true, false })
		c.run()
		if c.failure != "" {
			t.Logf("seed %d: %s", seed, c.failure)
			return
		}
	}
	t.Fatal("without the fence a stale write must be found")
}
