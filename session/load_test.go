package session

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// load is a number of workers that write and read regions of their own, at
// random places and lengths, and check what they read. It runs on the loop. A
// command that fails with its session is sent again on the next one.
type load struct {
	l       *live
	rng     *rand.Rand
	workers []*worker
	waiting []*worker // for room
	left    int       // operations to be started
	busy    int
	lost    int // commands that failed with their session
	maxLen  int // blocks
	done    chan struct{}
	wrong   []string
	starts  func(w *worker) // called after each Submit, if not nil
}

type worker struct {
	ld     *load
	cmd    Command
	base   uint64 // first block of the region
	shadow []byte // what the region holds
	buf    []byte
	at     int // offset in the region of the command under way
	calls  int // completions of the command under way
}

const regionBlocks = 2560

// newLoad prepares workers × regionBlocks blocks from block 0; l must log in
// afterwards or be up.
func newLoad(l *live, seed uint64, workers, ops, maxBlocks int) *load {
	ld := &load{
		l: l, rng: rand.New(rand.NewPCG(seed, 7)), left: ops, maxLen: maxBlocks, done: make(chan struct{}),
	}
	for i := range workers {
		w := &worker{ld: ld, base: uint64(i * regionBlocks), shadow: make([]byte, regionBlocks*512), buf: make([]byte, maxBlocks*512)}
		w.cmd.Owner = w
		ld.workers = append(ld.workers, w)
	}
	return ld
}

// start lets all workers go. On the loop.
func (ld *load) start() {
	ld.l.onUp = ld.kick
	for _, w := range ld.workers {
		w.next()
	}
}

// run does all operations and checks the medium at the end.
func (ld *load) run(t *testing.T) {
	t.Helper()
	ld.l.do(ld.start)
	ld.wait(t)
}

func (ld *load) wait(t *testing.T) {
	t.Helper()
	select {
	case <-ld.done:
	case <-time.After(2 * patience):
		var st Stats
		ld.l.do(func() { st = ld.l.s.Stats() })
		t.Fatalf("the load does not end: %d left, %d busy, %d waiting, %+v", ld.left, ld.busy, len(ld.waiting), st)
	}
	require.Empty(t, ld.wrong)
	got := content(t, ld.l.tgt)
	for i, w := range ld.workers {
		require.True(t, bytes.Equal(w.shadow, got[w.base*512:][:len(w.shadow)]), "region %d differs on the medium", i)
	}
}

// next begins an operation, or ends the worker.
func (w *worker) next() {
	ld := w.ld
	if ld.left == 0 {
		if ld.busy == 0 {
			select {
			case <-ld.done:
			default:
				close(ld.done)
			}
		}
		return
	}
	ld.left--
	ld.busy++
	n := 1 + ld.rng.IntN(ld.maxLen)
	if ld.rng.IntN(3) == 0 { // small ones are the rule
		n = 1 + ld.rng.IntN(min(16, ld.maxLen))
	}
	block := ld.rng.IntN(regionBlocks - n + 1)
	w.at = block * 512
	w.cmd.Data = w.buf[:n*512]
	if ld.rng.IntN(2) == 0 {
		w.cmd.Dir, w.cmd.CDB = DirWrite, scsi.Write16(w.base+uint64(block), uint32(n), 0)
		fill(w.cmd.Data, ld.rng)
	} else {
		w.cmd.Dir, w.cmd.CDB = DirRead, scsi.Read16(w.base+uint64(block), uint32(n), 0)
		clear(w.cmd.Data)
	}
	w.send()
}

// fill makes data that tells where it belongs.
func fill(p []byte, rng *rand.Rand) {
	x := rng.Uint64()
	for i := 0; i+8 <= len(p); i += 8 {
		x = x*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(p[i:], x)
	}
}

func (w *worker) send() {
	w.calls = 0
	if !w.ld.l.s.Submit(&w.cmd) {
		w.ld.waiting = append(w.ld.waiting, w)
		return
	}
	if w.ld.starts != nil {
		w.ld.starts(w)
	}
}

// kick sends what waited for room.
func (ld *load) kick() {
	for len(ld.waiting) > 0 && ld.l.s.Room() > 0 {
		w := ld.waiting[0]
		ld.waiting = ld.waiting[1:]
		w.send()
	}
}

func (w *worker) CommandDone(c *Command) {
	ld := w.ld
	if w.calls++; w.calls > 1 {
		ld.wrong = append(ld.wrong, "a command was completed twice")
	}
	switch {
	case c.Err != nil:
		ld.lost++
		w.send() // finds no room, and goes on when the session is up again
		return
	case c.Status == scsi.CheckCondition && isAttention(c.Sense):
		w.send() // commands were cleared with a connection (RFC 7143 §11.14.5)
		return
	case c.Status != scsi.Good || c.Underflow || c.Overflow:
		ld.wrong = append(ld.wrong, c.CDB.String()+": "+c.Status.String())
	case c.Dir == DirWrite:
		copy(w.shadow[w.at:], c.Data)
	case c.Received != len(c.Data) || !bytes.Equal(c.Data, w.shadow[w.at:][:len(c.Data)]):
		ld.wrong = append(ld.wrong, c.CDB.String()+": wrong data")
	}
	ld.busy--
	w.next()
	ld.kick()
}

func isAttention(sense []byte) bool {
	s, ok := scsi.ParseSense(sense)
	return ok && s.Key == scsi.KeyUnitAttention
}
