package iscsitest

import (
	"fmt"
	"io"
	"sync"
)

// Medium is what a LUN stores its blocks on. All offsets and lengths are in
// bytes and multiples of the LUN's block size, and lie inside Size. Methods
// may be called from many goroutines at once. A Medium may be shared by
// several LUNs, targets and portals.
//
// The commands of a LUN whose Medium is a *Memory run on the goroutine that
// reads the connection; those of any other Medium run each on their own, so
// that a Medium may block.
type Medium interface {
	// ReadAt and WriteAt transfer all of p or fail: an error becomes CHECK
	// CONDITION with MEDIUM ERROR.
	io.ReaderAt
	io.WriterAt
	// Size is the capacity in bytes.
	Size() int64
	// Sync makes completed writes durable.
	Sync() error
	// Unmap deallocates a range, which reads as zeros afterwards.
	Unmap(off, length int64) error
}

// Mapper is a Medium that knows which blocks are allocated. Without it GET LBA
// STATUS reports everything as mapped.
type Mapper interface {
	// Mapped tells whether the byte at off is allocated and how many bytes
	// from off on, at most limit and at least 1, share that state.
	Mapped(off, limit int64) (mapped bool, run int64)
}

// Resizer is a Medium whose capacity can change, as Target.SetSize wants.
type Resizer interface {
	// Resize sets the capacity in bytes; what lies past a smaller size is lost.
	Resize(size int64) error
}

const (
	sectorSize   = 512
	chunkSize    = 64 << 10
	chunkSectors = chunkSize / sectorSize
)

// Memory is a sparse Medium in RAM. Untouched and unmapped blocks cost nothing
// and read as zeros. One ReadAt sees either all or nothing of one WriteAt.
type Memory struct {
	mu     sync.RWMutex // guards everything below
	size   int64
	chunks map[int64]*chunk // by offset / chunkSize
	syncs  int
}

type chunk struct {
	data   [chunkSize]byte
	mapped [chunkSectors]bool
	count  int // true entries of mapped
}

var (
	_ Medium  = (*Memory)(nil)
	_ Mapper  = (*Memory)(nil)
	_ Resizer = (*Memory)(nil)
)

// NewMemory returns an empty sparse medium of size bytes.
func NewMemory(size int64) *Memory {
	return &Memory{size: size, chunks: make(map[int64]*chunk)}
}

// Size returns the capacity in bytes.
func (m *Memory) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size
}

// Syncs tells how often Sync was called.
func (m *Memory) Syncs() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.syncs
}

// Sync counts its calls; memory is as durable as it gets.
func (m *Memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return nil
}

// Resize changes the capacity. Blocks past a smaller size are dropped.
func (m *Memory) Resize(size int64) error {
	if size < 0 {
		return fmt.Errorf("resize to %d bytes: size is negative", size)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if size < m.size {
		for i := range m.chunks { // most sizes are whole chunks; the rest is cleared below
			if i*chunkSize >= size {
				delete(m.chunks, i)
			}
		}
		if rest := size % chunkSize; rest != 0 {
			m.lockedUnmap(size, chunkSize-rest)
		}
	}
	m.size = size
	return nil
}

func (m *Memory) lockedCheck(op string, off, length int64) error {
	if off < 0 || length < 0 || off > m.size || length > m.size-off {
		return fmt.Errorf("%s of %d bytes at %d is outside the medium of %d bytes", op, length, off, m.size)
	}
	return nil
}

// ReadAt fills p from off on.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.lockedCheck("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		in := at % chunkSize
		end := n + int(min(chunkSize-in, int64(len(p)-n)))
		if c := m.chunks[at/chunkSize]; c != nil {
			copy(p[n:end], c.data[in:])
		} else {
			clear(p[n:end])
		}
		n = end
	}
	return len(p), nil
}

// WriteAt stores p from off on. The sectors of 512 bytes it touches become
// mapped.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.lockedCheck("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		in := at % chunkSize
		c := m.chunks[at/chunkSize]
		if c == nil {
			c = new(chunk)
			m.chunks[at/chunkSize] = c
		}
		copied := copy(c.data[in:], p[n:])
		for s := in / sectorSize; s*sectorSize < in+int64(copied); s++ {
			if !c.mapped[s] {
				c.mapped[s] = true
				c.count++
			}
		}
		n += copied
	}
	return len(p), nil
}

// Unmap deallocates whole sectors inside the range and zeroes the rest of it.
func (m *Memory) Unmap(off, length int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.lockedCheck("unmap", off, length); err != nil {
		return err
	}
	m.lockedUnmap(off, length)
	return nil
}

func (m *Memory) lockedUnmap(off, length int64) {
	for length > 0 {
		in := off % chunkSize
		n := min(chunkSize-in, length)
		if c := m.chunks[off/chunkSize]; c != nil {
			c.unmap(in, n)
			if c.count == 0 {
				delete(m.chunks, off/chunkSize)
			}
		}
		off += n
		length -= n
	}
}

func (c *chunk) unmap(in, n int64) {
	clear(c.data[in : in+n])
	for s := (in + sectorSize - 1) / sectorSize; (s+1)*sectorSize <= in+n; s++ {
		if c.mapped[s] {
			c.mapped[s] = false
			c.count--
		}
	}
}

// Mapped reports the allocation state at off and how far it goes on.
func (m *Memory) Mapped(off, limit int64) (mapped bool, run int64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	limit = min(limit, m.size-off)
	state := func(at int64) bool {
		c := m.chunks[at/chunkSize]
		return c != nil && c.mapped[at%chunkSize/sectorSize]
	}
	mapped = state(off)
	for run < limit {
		at := off + run
		if m.chunks[at/chunkSize] == nil { // skip a hole in one step
			if mapped {
				break
			}
			run += chunkSize - at%chunkSize
			continue
		}
		if state(at) != mapped {
			break
		}
		run += sectorSize - at%sectorSize
	}
	return mapped, max(min(run, limit), 1)
}

// Allocated is the number of mapped bytes.
func (m *Memory) Allocated() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var n int64
	for _, c := range m.chunks {
		n += int64(c.count) * sectorSize
	}
	return n
}
