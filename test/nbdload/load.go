package nbdload

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Load describes a verified load. Zero fields have the defaults named.
type Load struct {
	Clients       []*Client // connections, shared out among the workers; at least one
	Workers       int       // operations in flight; default 32
	Offset, Bytes uint64    // the part of the export to use, in multiples of 4 KiB; default all of it
	MaxBlocks     int       // an operation has 1 to this many blocks of 4 KiB; default 16
	WritePercent  int       // default 50; -1 is none
	Seed          uint64    // of the random choices; also marks the blocks of this run
}

// Stats are the counts of a load.
type Stats struct {
	Operations, Reads, Writes int64
	BytesRead, BytesWritten   int64
	Errors                    int64 // operations the server answered with an error, or lost
	Mismatches                int64 // blocks read that were never written, stale, or damaged
	Torn                      int64 // blocks read in the middle of a write and read again; no error
	LongestStall              time.Duration
	Problems                  []string // the first few errors and mismatches in words
}

// Runner runs one Load. Fill, then Start, then Stop, then Verify.
type Runner struct {
	load     Load
	blocks   int
	ledger   *ledger
	stopping atomic.Bool
	workers  sync.WaitGroup

	operations, reads, writes, bytesRead, bytesWritten, errors, mismatches, torn, longest atomic.Int64

	mu       sync.Mutex
	problems []string
}

const (
	maxProblems  = 8
	maxRereads   = 100 // of a block that is being written whenever it is read
	fillInFlight = 8
)

// NewRunner checks the load against its export.
func NewRunner(load Load) (*Runner, error) {
	if len(load.Clients) == 0 {
		return nil, errors.New("nbdload: no client given")
	}
	size := load.Clients[0].Size
	if load.Bytes == 0 && load.Offset < size {
		load.Bytes = (size - load.Offset) / BlockSize * BlockSize
	}
	if load.Workers == 0 {
		load.Workers = 32
	}
	if load.MaxBlocks == 0 {
		load.MaxBlocks = 16
	}
	if load.WritePercent == 0 {
		load.WritePercent = 50
	}
	blocks := load.Bytes / BlockSize
	if load.Offset%BlockSize != 0 || load.Bytes%BlockSize != 0 || load.Offset+load.Bytes > size || blocks < uint64(load.MaxBlocks) {
		return nil, fmt.Errorf("nbdload: %d bytes at %d do not fit an export of %d bytes and operations of up to %d blocks of %d",
			load.Bytes, load.Offset, size, load.MaxBlocks, BlockSize)
	}
	return &Runner{load: load, blocks: int(blocks), ledger: newLedger(int(blocks))}, nil
}

// Fill writes every block once, whatever the export holds.
func (r *Runner) Fill() error {
	return r.sweep(func(client *Client, buf []byte, first, count int) { r.write(client, buf, first, count) })
}

// Verify reads every block and checks it; call it after Stop.
func (r *Runner) Verify() error {
	return r.sweep(func(client *Client, buf []byte, first, count int) { r.read(client, buf, first, count) })
}

// sweep calls f over all blocks, several calls at a time, and fails when any of them met a problem.
func (r *Runner) sweep(f func(client *Client, buf []byte, first, count int)) error {
	before := r.errors.Load() + r.mismatches.Load()
	var next atomic.Int64
	var sweepers sync.WaitGroup
	step := r.load.MaxBlocks
	for i := range fillInFlight {
		sweepers.Go(func() {
			buf := make([]byte, step*BlockSize)
			for {
				first := int(next.Add(int64(step))) - step
				if first >= r.blocks || r.errors.Load() > before {
					return
				}
				f(r.client(i), buf, first, min(step, r.blocks-first))
			}
		})
	}
	sweepers.Wait()
	if n := r.errors.Load() + r.mismatches.Load() - before; n > 0 {
		return fmt.Errorf("nbdload: %d problems, the first of all: %s", n, r.Stats().Problems[0])
	}
	return nil
}

// Start sets the workers going.
func (r *Runner) Start() {
	for i := range r.load.Workers {
		r.workers.Go(func() { r.work(i) })
	}
}

// Stop ends the workers after the operation each is at, and returns the counts.
func (r *Runner) Stop() Stats {
	r.stopping.Store(true)
	r.workers.Wait()
	return r.Stats()
}

// Stats returns the counts so far.
func (r *Runner) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{
		Operations: r.operations.Load(), Reads: r.reads.Load(), Writes: r.writes.Load(),
		BytesRead: r.bytesRead.Load(), BytesWritten: r.bytesWritten.Load(),
		Errors: r.errors.Load(), Mismatches: r.mismatches.Load(), Torn: r.torn.Load(),
		LongestStall: time.Duration(r.longest.Load()), Problems: append([]string(nil), r.problems...),
	}
}

// work is one worker: one operation at a time, at random places.
func (r *Runner) work(number int) {
	random := rand.New(rand.NewPCG(r.load.Seed, uint64(number)))
	buf := make([]byte, r.load.MaxBlocks*BlockSize)
	client := r.client(number)
	for !r.stopping.Load() {
		count := 1 + random.IntN(r.load.MaxBlocks)
		first := random.IntN(r.blocks - count + 1)
		operation := r.read
		if random.IntN(100) < r.load.WritePercent {
			operation = r.write
		}
		if err := operation(client, buf, first, count); errors.Is(err, ErrConnectionLost) {
			return
		}
	}
}

func (r *Runner) client(worker int) *Client { return r.load.Clients[worker%len(r.load.Clients)] }

func (r *Runner) position(block int) uint64 { return r.load.Offset + uint64(block)*BlockSize }

func (r *Runner) write(client *Client, buf []byte, first, count int) error {
	versions := make([]uint64, count)
	for i := range count {
		versions[i] = r.ledger.beginWrite(first + i)
		stamp{r.load.Seed, uint64(first + i), versions[i]}.put(buf[i*BlockSize : (i+1)*BlockSize])
	}
	start := time.Now()
	err := client.Write(buf[:count*BlockSize], r.position(first), false)
	r.finished(start, err, "write", first, count)
	if err != nil {
		return err
	}
	r.writes.Add(1)
	r.bytesWritten.Add(int64(count) * BlockSize)
	for i, version := range versions {
		r.ledger.acknowledge(first+i, version)
	}
	return nil
}

func (r *Runner) read(client *Client, buf []byte, first, count int) error {
	views := make([]readView, count)
	for i := range count {
		views[i] = r.ledger.beginRead(first + i)
	}
	start := time.Now()
	err := client.Read(buf[:count*BlockSize], r.position(first))
	r.finished(start, err, "read", first, count)
	if err != nil {
		return err
	}
	r.reads.Add(1)
	r.bytesRead.Add(int64(count) * BlockSize)
	for i := range count {
		if err := r.check(client, buf[i*BlockSize:(i+1)*BlockSize], first+i, views[i]); err != nil {
			return err
		}
	}
	return nil
}

// check judges one block that was read. Nothing promises that a read sees a concurrent write of the same block whole or not at all, so that a torn block is
// read again as long as writes of it overlap the read.
func (r *Runner) check(client *Client, block []byte, number int, view readView) error {
	for range maxRereads {
		version, err := readStamp(block, r.load.Seed, uint64(number))
		if err == nil {
			err = r.ledger.checkRead(number, view, version)
		}
		if !errors.Is(err, errTorn) || !r.ledger.overlapped(number, view) {
			if err != nil {
				r.mismatches.Add(1)
				r.problem("mismatch in block %d (byte %d): %v", number, r.position(number), err)
			}
			return nil
		}
		r.torn.Add(1)
		view = r.ledger.beginRead(number)
		start := time.Now()
		err = client.Read(block, r.position(number))
		r.finished(start, err, "read", number, 1)
		if err != nil {
			return err
		}
	}
	return nil
}

// finished counts an operation and how long it took.
func (r *Runner) finished(start time.Time, err error, what string, first, count int) {
	elapsed := time.Since(start)
	r.operations.Add(1)
	for {
		longest := r.longest.Load()
		if int64(elapsed) <= longest || r.longest.CompareAndSwap(longest, int64(elapsed)) {
			break
		}
	}
	if err != nil {
		r.errors.Add(1)
		r.problem("%s of %d blocks at block %d failed after %v: %v", what, count, first, elapsed.Round(time.Millisecond), err)
	}
}

func (r *Runner) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, fmt.Sprintf(format, args...))
	}
}
