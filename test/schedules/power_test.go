package schedules

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/scsi"
)

// What a flush promises, under schedules in which the target loses power with a volatile
// cache, or fails to store what is in it: every write answered before the flush was asked
// for is there for good if the flush succeeds. One that fails tells that what it covers may be
// lost, once. A write with FUA promises the same for itself.
//
// Each worker writes a few blocks of its own, with numbers that grow, so that a block that
// holds less than was promised is found by looking at it.

const (
	ownBlocks = 6
	blockSize = 4096
)

// owned is a block of a worker.
type owned struct {
	issued  uint64 // newest write submitted
	acked   uint64 // ... answered
	floor   uint64 // what a flush or FUA has made durable
	tainted uint64 // a flush that failed was to cover writes up to this one
}

// promises is what the clients of a disk rely on.
type promises struct {
	disk                   disk
	mu                     sync.Mutex // guards everything below
	blocks                 []owned
	failure                string
	ops, flushes, failures int
}

func (p *promises) fail(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure == "" {
		p.failure = fmt.Sprintf("%v: ", time.Now().Format("05.000")) + fmt.Sprintf(format, args...)
	}
}

// work writes and reads blocks of one worker until stop.
func (p *promises) work(rnd *rand.Rand, first int, stop <-chan struct{}) {
	for ; !closed(stop); time.Sleep(time.Duration(rnd.Int64N(int64(60 * time.Millisecond)))) {
		n := 1 + rnd.IntN(ownBlocks)
		from := first + rnd.IntN(ownBlocks-n+1)
		if rnd.IntN(3) == 0 {
			p.read(from, n)
			continue
		}
		p.write(from, n, rnd.IntN(4) == 0)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// write gives n blocks one number, greater than those they had.
func (p *promises) write(first, n int, fua bool) {
	p.mu.Lock()
	id := uint64(0)
	for i := first; i < first+n; i++ {
		id = max(id, p.blocks[i].issued)
	}
	id++
	buf := make([]byte, n*blockSize)
	for i := range n {
		p.blocks[first+i].issued = id
		for at := i * blockSize; at < (i+1)*blockSize; at += 8 {
			binary.LittleEndian.PutUint64(buf[at:], id)
		}
	}
	p.ops++
	p.mu.Unlock()
	err := p.disk.Write(buf, uint64(first*blockSize), fua)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failures++
		return
	}
	for i := first; i < first+n; i++ {
		b := &p.blocks[i]
		b.acked = id
		if fua {
			b.floor = id
		}
	}
}

// read looks at n blocks.
func (p *promises) read(first, n int) {
	p.mu.Lock()
	before := append([]owned(nil), p.blocks[first:first+n]...)
	p.ops++
	p.mu.Unlock()
	buf := make([]byte, n*blockSize)
	if err := p.disk.Read(buf, uint64(first*blockSize)); err != nil {
		p.fail("read of blocks %d+%d: %v", first, n, err)
		return
	}
	for i, b := range before {
		for at := i * blockSize; at < (i+1)*blockSize; at += sector {
			got := binary.LittleEndian.Uint64(buf[at:])
			if got < b.floor || got > b.issued {
				p.fail("block %d holds write %d; %d was made durable, and %d was the last", first+i, got, b.floor, b.issued)
			}
		}
	}
}

// flush asks for one flush after the other.
func (p *promises) flush(rnd *rand.Rand, stop <-chan struct{}) {
	for ; !closed(stop); time.Sleep(time.Duration(rnd.Int64N(int64(400 * time.Millisecond)))) {
		p.flushOnce()
	}
}

func (p *promises) flushOnce() {
	p.mu.Lock()
	asked := append([]owned(nil), p.blocks...)
	p.flushes++
	p.mu.Unlock()
	err := p.disk.do(&block.Request{Op: block.OpFlush})
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range asked {
		b := &p.blocks[i]
		switch {
		case err != nil:
			b.tainted = max(b.tainted, asked[i].acked)
		case asked[i].acked > b.tainted:
			b.floor = max(b.floor, asked[i].acked)
		}
	}
	if err != nil {
		p.failures++
	}
}

// powerFaults are those that a schedule with a volatile cache is made of, besides what
// happens to lines.
var powerFaults = []fault{
	{"power loss", powerLoss},
	{"power loss", powerLoss},
	{"failed sync", failedSync},
	{"failed sync", failedSync},
}

// withoutHolds leaves out what a loss of power ends but a Hold does not: writes that a
// target has, and executes when it is released. Unit attentions of resets that never were
// would fail flushes for nothing.
func withoutHolds(list []fault) []fault {
	return slices.DeleteFunc(slices.Clone(list), func(f fault) bool {
		return slices.Contains([]string{"hung writes", "hang", "turned away", "unit attention"}, f.name)
	})
}

// powerLoss: everything in flight ends, the cache is gone, and the target says so.
func powerLoss(r *rig, _ int) {
	off := func() {
		for i := range r.proxies {
			r.tgt.StopPortal(i)
		}
		r.tgt.DropSessions(nil)
	}
	off()
	r.later(r.upTo(2*time.Second), func() {
		off() // another fault may have switched it on
		r.cache.lose(r.rnd)
		require.NoError(r.t, r.tgt.PowerOn(0))
		for i := range r.proxies {
			require.NoError(r.t, r.tgt.StartPortal(i))
		}
	})
}

// failedSync: the target fails to store what is in the cache, and takes it for stored.
func failedSync(r *rig, p int) {
	failures := []iscsitest.Action{
		iscsitest.FailSense(scsi.KeyNotReady, scsi.ASCCommunicationFailure),
		iscsitest.FailSense(scsi.KeyMediumError, scsi.ASCWriteError),
		iscsitest.FailSense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure),
	}
	sync := iscsitest.And(iscsitest.OnPortal(p), iscsitest.SCSI(scsi.OpSyncCache10), iscsitest.First(1), iscsitest.Func("fails", func(e *iscsitest.Event) bool {
		r.cache.fails(task{e.Portal, e.Command.ITT})
		return true
	}))
	r.inject(sync, failures[r.rnd.IntN(len(failures))])
}

// runPower plays the schedule of a seed.
func runPower(t *testing.T, seed uint64, with setting) (p *promises, lost int, done []string) {
	synctest.Test(t, func(t *testing.T) {
		with.cached = true
		r := newRig(t, seed, with)
		const workers = 3
		p = &promises{disk: disk{r}, blocks: make([]owned, workers*ownBlocks)}
		stop, healed := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(healed)
			r.play()
			r.heal()
			time.Sleep(fenceTimeout + holdMost)
		}()
		var clients sync.WaitGroup
		for i := range workers {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			clients.Go(func() { p.work(rnd, i*ownBlocks, stop) })
		}
		rnd := rand.New(rand.NewPCG(seed, 99))
		clients.Go(func() { p.flush(rnd, stop) })
		<-healed
		close(stop)
		idle := make(chan struct{})
		go func() {
			defer close(idle)
			clients.Wait()
			// Power is lost once more, in silence: what was promised is there.
			p.flushOnce()
			r.cache.lose(r.rnd)
			p.read(0, len(p.blocks))
		}()
		stuck := false
		select {
		case <-idle:
		case <-time.After(patience):
			stuck = true
			s, _ := json.MarshalIndent(r.snapshot(), "", " ")
			p.fail("requests hang: %s", s)
		}
		if err := r.close(stuck); err != nil {
			p.fail("closing: %v", err)
		}
		<-idle
		for _, v := range r.tgt.Violations() {
			p.fail("%v", v)
		}
		lost, done = r.cache.losses, r.done
	})
	return p, lost, done
}

func TestFlush(t *testing.T) {
	n, seed := schedules(t, 30)
	var mu sync.Mutex
	ops, failures, lost := 0, 0, 0
	t.Run("seeds", func(t *testing.T) {
		for i := range n {
			seed := seed + uint64(i)
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				p, l, done := runPower(t, seed, setting{})
				if !assert.Empty(t, p.failure) {
					t.Logf("again: ISCSIMP_SEED=%d\n%s", seed, strings.Join(done, "\n"))
				}
				mu.Lock()
				defer mu.Unlock()
				ops, failures, lost = ops+p.ops+p.flushes, failures+p.failures, lost+l
			})
		}
	})
	t.Logf("%d operations, %d of them failed as they had to; %d sectors were lost", ops, failures, lost)
	if n > 1 {
		assert.NotZero(t, failures)
		assert.Greater(t, lost, n)
	}
}
