package mpio

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// warm makes a rig of n paths whose p99 is known: about 100 µs, so that a read
// is hedged at hedgeFloor.
func warm(t testing.TB, n int, change func(*Config)) *rig {
	r := newRig(t, n, change).up()
	for i := range 400 {
		r.read(i, 1)
		r.l.run(200 * usec)
	}
	r.l.run(10 * msec)
	return r
}

// heldRead sends a read over path i, which holds it.
func (r *rig) heldRead(i, lba, n int) *result {
	for j, p := range r.d.paths {
		p.limit = 0
		if j != i {
			p.limit, p.inflight = 1, p.inflight+1 // full for a moment
		}
	}
	r.s[i].hold = true
	q := r.read(lba, n)
	for j, p := range r.d.paths {
		if j != i {
			p.limit, p.inflight = 0, p.inflight-1
		}
	}
	require.Len(r.t, r.s[i].flights, 1)
	return q
}

func TestOldReadIsHedgedAndTheSecondAnswerIsDropped(t *testing.T) {
	r := warm(t, 2, nil)
	copy(r.unit.data[7*testBlock:], stamp(42, 2))
	q := r.heldRead(0, 7, 2)
	sent := r.l.now
	r.l.run(hedgeFloor - usec)
	require.False(t, q.done)
	r.l.run(hedgeFloor)
	require.True(t, q.done)
	require.NoError(t, q.Err)
	assert.Less(t, q.at-sent, int64(2*hedgeFloor))
	assert.Equal(t, stamp(42, 2), q.Data)
	assert.Equal(t, 1, r.s[0].detached)
	assert.GreaterOrEqual(t, r.d.paths[0].age(r.l.now), int64(hedgeFloor), "it has still not answered")

	// The late answer changes nothing but what is known of the path.
	copy(r.unit.data[7*testBlock:], stamp(43, 2))
	r.l.run(40 * msec)
	r.s[0].release()
	r.l.run(sec)
	assert.Equal(t, stamp(42, 2), q.Data)
	assert.Zero(t, r.d.paths[0].age(r.l.now))
	assert.Equal(t, 1, r.d.paths[0].est[0].far, "what it really took is known")
	s := r.d.Snapshot()
	assert.Equal(t, []uint64{1, 1, 0}, []uint64{s.Hedges, s.HedgeWins, s.HedgesDenied})
	assert.Equal(t, uint64(1), s.Paths[0].Hedged)
	r.requireIdle()
}

func TestFirstAnswerMayBeTheFirstCopys(t *testing.T) {
	r := warm(t, 2, nil)
	q := r.heldRead(0, 7, 2)
	r.s[1].hold = true
	r.l.run(2 * hedgeFloor)
	require.Len(t, r.s[1].flights, 1, "hedged")
	r.s[0].release()
	require.True(t, q.done)
	assert.Equal(t, 1, r.s[1].detached)
	assert.Zero(t, r.d.hedges.bufs.out)
	r.s[1].release()
	r.l.run(sec)
	s := r.d.Snapshot()
	assert.Equal(t, []uint64{1, 0}, []uint64{s.Hedges, s.HedgeWins})
	r.requireIdle()
}

// Whatever becomes of one copy, the other one or another try answers the read.
func TestHedgeOutlivesFailures(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(r *rig)
		wins uint64
	}{
		"first path lost":  {func(r *rig) { r.s[0].cut(sec); r.s[1].release() }, 1},
		"second path lost": {func(r *rig) { r.s[1].cut(sec); r.s[0].release() }, 0},
		"both lost":        {func(r *rig) { r.s[0].cut(sec); r.s[1].cut(sec); r.s[0].hold, r.s[1].hold = false, false }, 0},
		"second fails": {func(r *rig) {
			r.s[1].intercept = func(scsi.CDB) (answer, bool) { return sense(scsi.KeyMediumError, scsi.ASCUnrecoveredReadError), true }
			r.s[1].release()
			r.s[1].intercept = nil
			r.l.run(sec)
			r.s[0].release()
		}, 0},
		"second raises doubt": {func(r *rig) {
			r.s[1].intercept = func(scsi.CDB) (answer, bool) { return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true }
			r.s[1].release()
			r.s[1].intercept = nil
			assert.Equal(r.t, StateChecking, r.state(1))
			r.s[0].release()
		}, 0},
		"second is short": {func(r *rig) {
			r.s[1].intercept = func(scsi.CDB) (answer, bool) { return answer{under: true, residual: 512}, true }
			r.s[1].release()
			r.s[1].intercept = nil
			r.s[0].release()
		}, 0},
		"second silent":   {func(r *rig) { r.s[1].silence(); r.s[0].release(); r.s[1].release() }, 0},
		"first silent":    {func(r *rig) { r.s[0].silence(); r.s[1].release(); r.s[0].release() }, 1},
		"second offline":  {func(r *rig) { _ = r.d.SetPath("b", PathOp{Kind: OpDown}); r.s[0].release(); r.s[1].release() }, 0},
		"closed by force": {func(r *rig) { r.d.Close(true, nil) }, 0},
		"closed":          {func(r *rig) { r.d.Close(false, nil); r.s[1].release(); r.s[0].release() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := warm(t, 2, nil)
			q := r.heldRead(0, 7, 2)
			r.s[1].hold = true
			r.l.run(2 * hedgeFloor)
			require.Len(t, r.s[1].flights, 1, "hedged")
			c.do(r)
			r.l.run(30 * sec)
			require.True(t, q.done)
			if name != "closed by force" {
				require.NoError(t, q.Err)
				assert.Equal(t, r.unit.data[7*testBlock:9*testBlock], q.Data)
			}
			assert.Equal(t, c.wins, r.d.hedges.wins)
			assert.Zero(t, r.d.hedges.bufs.out)
			r.requireIdle()
		})
	}
}

func TestWhatIsNotHedged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		op     block.Op
	}{
		"writes":       {op: block.OpWrite},
		"flushes":      {op: block.OpFlush},
		"switched off": {func(c *Config) { c.HedgeBudget = -1 }, block.OpRead},
		"failover":     {func(c *Config) { c.Policy = PolicyFailover }, block.OpRead},
	} {
		t.Run(name, func(t *testing.T) {
			r := warm(t, 2, c.change)
			r.s[0].hold, r.s[1].hold = true, false
			for i := range uint64(8) {
				r.submit(block.Request{Op: c.op, Offset: i * 4096, Length: 512, Data: make([]byte, 512)})
			}
			held := len(r.s[0].flights)
			require.NotZero(t, held)
			r.l.run(sec)
			assert.Len(t, r.s[0].flights, held)
			assert.Zero(t, r.d.hedges.sent)
		})
	}
	_, err := New(Config{NewSession: newRig(t, 1, nil).d.cfg.NewSession, HedgeBudget: 0.6}, newFakeLoop())
	assert.ErrorContains(t, err, "HedgeBudget")
}

// However slow a path is, hedges stay within their budget.
func TestHedgeBudget(t *testing.T) {
	for _, policy := range Policies() {
		for _, budget := range []float64{0.005, 0.05} {
			r := newRig(t, 3, func(c *Config) { c.Policy, c.HedgeBudget = policy, budget }).up()
			for _, s := range r.s {
				s.delay = jitter(r, msec)
			}
			r.s[0].delay = jitter(r, 20*msec)
			l := newLoad(r, 16, 8, 4)
			r.l.run(4 * sec)
			s := r.d.Snapshot()
			reads := float64(s.Requests) * 3 / 4
			assert.LessOrEqual(t, float64(s.Hedges), budget*reads+hedgeStart, "%s %v", policy, budget)
			if policy == PolicyRoundRobin {
				assert.Greater(t, float64(s.Hedges), budget*reads*0.9, "it is used where it is needed")
				assert.NotZero(t, s.HedgesDenied)
			}
			assert.Zero(t, l.errors)
		}
	}
}

// tails is the worst of each thousand service times of reads.
type tails struct {
	worst []int64
	took  []int64
}

func (x *tails) add(took int64) {
	x.took = append(x.took, took)
}

func (x *tails) quantile(q float64) int64 {
	slices.Sort(x.took)
	return x.took[int(q*float64(len(x.took)-1))]
}

// clocked keeps depth reads in flight and takes the time of each.
func (r *rig) clocked(depth int) *tails {
	all := &tails{}
	l := newLoad(r, 0, 8, 0)
	for range depth {
		w := &worker{l: l}
		w.Data, w.Length = make([]byte, 4096), 4096
		at := int64(0)
		w.again = func() { at = r.l.now; w.submit() }
		w.Owner = completerFunc(func(q *block.Request) {
			all.add(r.l.now - at)
			w.RequestDone(q)
		})
		w.again()
	}
	return all
}

// hedging runs fn with hedging off and on.
func hedging(t *testing.T, fn func(t *testing.T, change func(*Config)) int64) (off, on int64) {
	off = fn(t, func(c *Config) { c.HedgeBudget = -1 })
	return off, fn(t, nil)
}

// A path that stalls for 120 ms every second, too short for SuspectAfter: hedging
// takes the stall off the reads.
func TestHedgesHideStalls(t *testing.T) {
	off, on := hedging(t, func(t *testing.T, change func(*Config)) int64 {
		r := newRig(t, 2, change).up()
		x := rnd(99)
		normal := func() int64 { return 500*usec + int64(x.below(int(500*usec))) }
		r.s[1].delay = normal
		r.s[0].delay = func() int64 {
			if into := r.l.now % sec; into < 120*msec {
				return 120*msec - into + normal()
			}
			return normal()
		}
		all := r.clocked(8)
		r.l.run(10 * sec)
		t.Logf("p50 %.1f ms, p99.9 %.1f ms, worst %.1f ms, %d reads, %d hedges", float64(all.quantile(0.5))/1e6,
			float64(all.quantile(0.999))/1e6, float64(all.quantile(1))/1e6, len(all.took), r.d.hedges.sent)
		return all.quantile(1)
	})
	assert.Less(t, on*5, off)
}

// A path that goes silent holds its reads up for SuspectAfter, unless they are hedged.
func TestHedgesHideSilence(t *testing.T) {
	off, on := hedging(t, func(t *testing.T, change func(*Config)) int64 {
		r := newRig(t, 2, change).up()
		for _, s := range r.s {
			s.delay = jitter(r, msec)
		}
		all := r.clocked(16)
		r.l.run(3 * sec)
		r.s[0].hold = true
		r.l.run(200 * msec)
		r.s[0].silence()
		r.l.run(sec)
		return all.quantile(1)
	})
	t.Logf("longest read: %.1f ms without hedging, %.1f ms with it", float64(off)/1e6, float64(on)/1e6)
	assert.Less(t, on*5, off)
}

type completerFunc func(*block.Request)

func (f completerFunc) RequestDone(r *block.Request) { f(r) }

func TestHedgingAllocatesNothing(t *testing.T) {
	d, l, sessions := newQuick(t, 2, PolicyRoundRobin)
	d.hedges.budget = 1
	var done counter
	data := make([]byte, 4096)
	reqs := make([]block.Request, 8)
	submit := func() {
		for i := range reqs {
			reqs[i] = block.Request{Op: block.OpRead, Offset: uint64(i) * 4096, Length: 4096, Data: data, Owner: &done}
			d.Submit(&reqs[i])
		}
	}
	fast := func(list ...*quickSession) {
		for _, s := range list {
			for s.answer() {
			}
		}
	}
	for range 40 {
		submit()
		l.now += 10 * usec
		fast(sessions...)
	}
	round := func() {
		submit()
		l.now += 10 * usec
		fast(sessions[1])
		l.now += 3 * msec
		d.hedges.look()
		fast(sessions[1], sessions[0])
		l.now += sec / 100
	}
	round()
	before := d.hedges.sent
	assert.Zero(t, testing.AllocsPerRun(50, round))
	assert.GreaterOrEqual(t, d.hedges.sent-before, uint64(50*4))
	assert.Equal(t, counter(92*8), done)
}

func TestHedgeBuffersAreBounded(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 2))
	var b hedgeBuffers
	var out [][]byte
	used := map[*byte]bool{}
	denied := 0
	for range 20000 {
		if g.IntN(2) == 0 {
			n := 512 << g.IntN(12)
			buf := b.take(n)
			if buf == nil {
				denied++
				continue
			}
			require.Len(t, buf, n)
			require.False(t, used[&buf[0]], "handed out twice")
			used[&buf[0]] = true
			out = append(out, buf)
		} else if len(out) > 0 {
			i := g.IntN(len(out))
			delete(used, &out[i][0])
			b.give(out[i])
			out = slices.Delete(out, i, i+1)
		}
		held := 0
		for _, f := range slices.Concat(b.free, out) {
			held += cap(f)
		}
		require.Equal(t, held, b.bytes)
		require.Equal(t, len(out), b.out)
		require.LessOrEqual(t, held, maxHedgeMemory)
		require.LessOrEqual(t, len(out)+len(b.free), maxHedges)
	}
	assert.NotZero(t, denied, "the test must reach the bound")
}

// The property test again, with every read hedged that can be.
func TestHedgingKeepsTheProperties(t *testing.T) {
	first, n := seeds(t)
	sent, wins := uint64(0), uint64(0)
	for seed := first; seed < first+n/3+1; seed++ {
		c := newChaos(t, seed, func(cfg *Config) { cfg.HedgeBudget = 0.5 })
		c.d.hedges.budget = 100
		c.run()
		require.Empty(t, c.failure, "MPIO_SEED=%d", seed)
		require.Empty(t, c.open, "requests never completed, MPIO_SEED=%d", seed)
		require.Zero(t, c.d.hedges.bufs.out, "MPIO_SEED=%d", seed)
		c.requireIdle()
		sent, wins = sent+c.d.hedges.sent, wins+c.d.hedges.wins
	}
	t.Logf("%d reads hedged, %d of them won", sent, wins)
	if n > 1 {
		assert.Greater(t, sent, n/4)
		assert.Greater(t, wins, n/4)
	}
}
