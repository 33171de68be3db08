package nbdload

import (
	"fmt"
	"slices"
	"sync"
)

// ledger knows which versions of each block a read may return, while reads and writes overlap freely.
//
// A version is dead once a write that started after that version was acknowledged has itself been acknowledged: from then on no new read may see it. All other
// versions are live: the newest acknowledged one, those that ran concurrently with it, and those not answered yet. A read may return a version that was live
// when the read began, or one whose write began before the read ended.
type ledger struct {
	blocks []blockLedger
}

type blockLedger struct {
	mu    sync.Mutex
	next  uint64 // the version the next write gets; 1 is the first
	clock uint64 // counts starts and acknowledgements
	live  []liveVersion
}

type liveVersion struct {
	version uint64
	started uint64 // clock of the start
	acked   uint64 // clock of the acknowledgement, 0 before it
}

// readView is what beginRead saw of a block.
type readView struct {
	live    []uint64
	next    uint64
	writing bool // a write was in flight
}

// newLedger starts with every block at version 0, acknowledged.
func newLedger(blocks int) *ledger {
	l := &ledger{blocks: make([]blockLedger, blocks)}
	for i := range l.blocks {
		l.blocks[i].next = 1
		l.blocks[i].clock = 1
		l.blocks[i].live = []liveVersion{{version: 0, acked: 1}}
	}
	return l
}

// beginWrite gives out the next version of a block.
func (l *ledger) beginWrite(block int) (version uint64) {
	b := &l.blocks[block]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock++
	version = b.next
	b.next++
	b.live = append(b.live, liveVersion{version: version, started: b.clock})
	return version
}

// acknowledge notes that the write of a version was answered with success. A write that failed is never acknowledged: it may or may not have landed, so its
// version stays live until a later write replaces it for certain, which for an unanswered write is never.
func (l *ledger) acknowledge(block int, version uint64) {
	b := &l.blocks[block]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock++
	i := slices.IndexFunc(b.live, func(v liveVersion) bool { return v.version == version })
	if i < 0 {
		panic(fmt.Sprintf("nbdload: version %d of block %d acknowledged twice", version, block))
	}
	b.live[i].acked = b.clock
	started := b.live[i].started
	b.live = slices.DeleteFunc(b.live, func(v liveVersion) bool { return v.acked != 0 && v.acked < started })
}

// beginRead notes what a read that starts now may return.
func (l *ledger) beginRead(block int) readView {
	b := &l.blocks[block]
	b.mu.Lock()
	defer b.mu.Unlock()
	view := readView{live: make([]uint64, len(b.live)), next: b.next}
	for i, v := range b.live {
		view.live[i] = v.version
		view.writing = view.writing || v.acked == 0
	}
	return view
}

// checkRead judges a version that a read returned which began with view and has just ended.
func (l *ledger) checkRead(block int, view readView, version uint64) error {
	if slices.Contains(view.live, version) {
		return nil
	}
	b := &l.blocks[block]
	b.mu.Lock()
	defer b.mu.Unlock()
	if version >= b.next {
		return fmt.Errorf("version %d was never written, %d is the newest", version, b.next-1)
	}
	if version < view.next {
		return fmt.Errorf("version %d is stale: when the read began, only %v could be there", version, view.live)
	}
	return nil
}

// overlapped says whether any write of the block was in flight at any time between beginRead and now.
func (l *ledger) overlapped(block int, view readView) bool {
	b := &l.blocks[block]
	b.mu.Lock()
	defer b.mu.Unlock()
	return view.writing || b.next != view.next
}
