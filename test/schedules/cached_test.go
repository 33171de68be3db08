package schedules

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/iscsimp/iscsimp/iscsitest"
)

const sector = 512

// What becomes of a sector when the power goes.
const (
	stable    = iota
	cached    // it may be lost; Sync makes it durable
	forgotten // it may be lost, and Sync does nothing for it: the system took a failed write for done
)

// cachedMedium is a disk with a volatile cache.
type cachedMedium struct {
	mu     sync.Mutex // guards everything below
	now    []byte     // what reads see
	disk   []byte     // what outlives a loss of power
	sector []uint8
	losses int
	// Commands that fail to store what is in the cache. The target forgets it when the
	// initiator has got the answer: if that is lost nobody can tell.
	failing map[task]bool
}

// task is a command of a session through one portal.
type task struct {
	portal int
	itt    uint32
}

var _ iscsitest.Medium = (*cachedMedium)(nil)

func newCachedMedium(size int) *cachedMedium {
	return &cachedMedium{now: make([]byte, size), disk: make([]byte, size), sector: make([]uint8, size/sector), failing: map[task]bool{}}
}

func (m *cachedMedium) Size() int64 { return int64(len(m.now)) }

func (m *cachedMedium) check(off, n int64) error {
	if off < 0 || n < 0 || off+n > m.Size() {
		return fmt.Errorf("%d bytes at %d are outside the medium", n, off)
	}
	return nil
}

func (m *cachedMedium) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	return copy(p, m.now[off:]), nil
}

func (m *cachedMedium) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	m.lockedMark(off, int64(len(p)))
	return copy(m.now[off:], p), nil
}

func (m *cachedMedium) Unmap(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, n); err != nil {
		return err
	}
	m.lockedMark(off, n)
	clear(m.now[off : off+n])
	return nil
}

func (m *cachedMedium) lockedMark(off, n int64) {
	for i := off / sector; i*sector < off+n; i++ {
		m.sector[i] = cached
	}
}

// Sync makes durable what is in the cache.
func (m *cachedMedium) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, s := range m.sector {
		if s == cached {
			copy(m.disk[i*sector:(i+1)*sector], m.now[i*sector:])
			m.sector[i] = stable
		}
	}
	return nil
}

// fails tells that a command fails.
func (m *cachedMedium) fails(t task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failing[t] = true
}

// answered is a failed fsync: what it was to store counts as stored from now on.
func (m *cachedMedium) answered(t task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.failing[t] {
		return
	}
	delete(m.failing, t)
	for i, s := range m.sector {
		if s == cached {
			m.sector[i] = forgotten
		}
	}
}

// lose is a loss of power: of what is not durable some sectors are gone.
func (m *cachedMedium) lose(rnd *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keep := rnd.IntN(2) == 0 // now and then some of it was written out already
	for i, s := range m.sector {
		if s == stable {
			continue
		}
		m.sector[i] = stable
		if keep && rnd.IntN(2) == 0 {
			copy(m.disk[i*sector:(i+1)*sector], m.now[i*sector:])
			continue
		}
		if string(m.now[i*sector:(i+1)*sector]) != string(m.disk[i*sector:(i+1)*sector]) {
			m.losses++
		}
		copy(m.now[i*sector:(i+1)*sector], m.disk[i*sector:])
	}
}
