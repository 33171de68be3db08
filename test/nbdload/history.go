package nbdload

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

// Disk is what a history is recorded on: a Client, or a device without NBD. Safe for use by many goroutines.
type Disk interface {
	Read(p []byte, offset uint64) error
	Write(p []byte, offset uint64, fua bool) error
	WriteZeroes(offset uint64, length uint32) error
}

// Recording describes a concurrent history over a few blocks, small enough for a linearizability checker. Zero fields have the defaults named.
type Recording struct {
	Disks   []Disk        // shared out among the workers; at least one
	Offset  uint64        // first byte to use, a multiple of 4 KiB
	Blocks  int           // default 8
	Workers int           // default 8
	Span    int           // an operation has 1 to this many blocks; default 3
	Zeroes  bool          // also zero blocks, with WRITE_ZEROES
	Think   time.Duration // a worker waits up to this long after each operation; it may be virtual time. Default none
	Seed    uint64        // of the random choices
}

// History is what was recorded: one register operation per block of each request, for porcupine.
type History struct {
	Operations []porcupine.Operation
	Errors     int      // requests answered with an error: their writes may take effect at any later time, or never
	FirstError error    // one of these errors
	Torn       int      // blocks read in the middle of a write, and left out
	Damaged    []string // blocks that no write of this recording can have left
}

// register is the input of one operation on one block.
type register struct {
	block   int
	write   bool
	version uint64 // what is written; 0 is zeros
}

// Registers is the sequential specification: every block is a register of its own that holds the version last written.
var Registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byBlock := map[int][]porcupine.Operation{}
		for _, operation := range history {
			block := operation.Input.(register).block
			byBlock[block] = append(byBlock[block], operation)
		}
		var parts [][]porcupine.Operation
		for _, part := range byBlock {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(register); in.write {
			return true, in.version
		}
		return output.(uint64) == state.(uint64), state
	},
	DescribeOperation: func(input, output any) string {
		if in := input.(register); in.write {
			return fmt.Sprintf("write(%d, v%d)", in.block, in.version)
		}
		return fmt.Sprintf("read(%d) -> v%d", input.(register).block, output)
	},
}

// recorder collects a history while workers run.
type recorder struct {
	Recording
	start   time.Time
	version atomic.Uint64
	// An operation without an answer never ends, and porcupine wants the operations of one client to follow one another: each such gets a client of its own.
	lostClients atomic.Int64
	stopping    atomic.Bool

	mu      sync.Mutex
	history History
	torn    []porcupine.Operation // reads of a block whose checksum was wrong
}

// Record zeroes the blocks, runs the workers until stop is closed, reads every block once more, and returns what was done and seen.
func Record(recording Recording, stop <-chan struct{}) (History, error) {
	if len(recording.Disks) == 0 {
		return History{}, errors.New("nbdload: no disk given")
	}
	recording.Blocks = defaultTo(recording.Blocks, 8)
	recording.Workers = defaultTo(recording.Workers, 8)
	recording.Span = min(defaultTo(recording.Span, 3), recording.Blocks)
	r := &recorder{Recording: recording, start: time.Now()}
	r.lostClients.Store(int64(recording.Workers))
	zeros := make([]byte, recording.Blocks*BlockSize)
	if err := recording.Disks[0].Write(zeros, recording.Offset, false); err != nil {
		return History{}, fmt.Errorf("nbdload: zeroing the blocks: %w", err)
	}
	var workers sync.WaitGroup
	for i := range recording.Workers {
		workers.Go(func() { r.work(i) })
	}
	<-stop
	r.stopping.Store(true)
	workers.Wait()
	err := r.readFinal()
	r.judgeTorn()
	return r.history, err
}

// readFinal reads every block once more, when nothing is written any more.
func (r *recorder) readFinal() error {
	buf := make([]byte, BlockSize)
	for block := range r.Blocks {
		if err := r.read(0, r.Disks[0], buf, block, 1); err != nil {
			return fmt.Errorf("nbdload: reading block %d at the end: %w", block, err)
		}
	}
	return nil
}

// judgeTorn tells torn blocks that a concurrent write explains from damage. Nothing promises that a read sees a concurrent write whole or not at all.
func (r *recorder) judgeTorn() {
	for _, read := range r.torn {
		block := read.Input.(register).block
		if slices.ContainsFunc(r.history.Operations, func(op porcupine.Operation) bool {
			in := op.Input.(register)
			return in.write && in.block == block && op.Call <= read.Return && op.Return >= read.Call
		}) {
			r.history.Torn++
			continue
		}
		r.history.Damaged = append(r.history.Damaged, fmt.Sprintf("block %d: %v", block, errTorn))
	}
}

func defaultTo(value, otherwise int) int {
	if value == 0 {
		return otherwise
	}
	return value
}

func (r *recorder) work(worker int) {
	random := rand.New(rand.NewPCG(r.Seed, uint64(worker)))
	client := r.Disks[worker%len(r.Disks)]
	buf := make([]byte, r.Span*BlockSize)
	for !r.stopping.Load() {
		count := 1 + random.IntN(r.Span)
		first := random.IntN(r.Blocks - count + 1)
		var err error
		switch kind := random.IntN(20); {
		case kind == 0 && r.Zeroes:
			err = r.write(worker, client, nil, first, count)
		case kind < 10:
			err = r.write(worker, client, buf, first, count)
		default:
			err = r.read(worker, client, buf, first, count)
		}
		if errors.Is(err, ErrConnectionLost) {
			return
		}
		if r.Think > 0 {
			time.Sleep(time.Duration(random.Int64N(int64(r.Think))))
		}
	}
}

func (r *recorder) now() int64 { return int64(time.Since(r.start)) }

// write writes a new version to each block; without buf it zeroes them.
func (r *recorder) write(worker int, client Disk, buf []byte, first, count int) error {
	operations := make([]porcupine.Operation, count)
	for i := range operations {
		input := register{block: first + i, write: true}
		if buf != nil {
			input.version = r.version.Add(1)
			stamp{r.Seed, uint64(first + i), input.version}.put(buf[i*BlockSize : (i+1)*BlockSize])
		}
		operations[i] = porcupine.Operation{ClientId: worker, Input: input, Output: uint64(0)}
	}
	offset := r.Offset + uint64(first)*BlockSize
	call := r.now()
	var err error
	if buf == nil {
		err = client.WriteZeroes(offset, uint32(count*BlockSize))
	} else {
		err = client.Write(buf[:count*BlockSize], offset, false)
	}
	end := r.now()
	if err != nil {
		worker, end = int(r.lostClients.Add(1)), math.MaxInt64
	}
	for i := range operations {
		operations[i].ClientId, operations[i].Call, operations[i].Return = worker, call, end
	}
	r.add(operations, err, nil, "")
	return err
}

func (r *recorder) read(worker int, client Disk, buf []byte, first, count int) error {
	call := r.now()
	err := client.Read(buf[:count*BlockSize], r.Offset+uint64(first)*BlockSize)
	end := r.now()
	if err != nil {
		r.add(nil, err, nil, "")
		return err
	}
	var operations, torn []porcupine.Operation
	damage := ""
	for i := range count {
		version, err := readStamp(buf[i*BlockSize:(i+1)*BlockSize], r.Seed, uint64(first+i))
		operation := porcupine.Operation{ClientId: worker, Input: register{block: first + i}, Call: call, Output: version, Return: end}
		switch {
		case errors.Is(err, errTorn):
			torn = append(torn, operation)
		case err != nil:
			damage = fmt.Sprintf("block %d: %v", first+i, err)
		default:
			operations = append(operations, operation)
		}
	}
	r.add(operations, nil, torn, damage)
	return nil
}

func (r *recorder) add(operations []porcupine.Operation, err error, torn []porcupine.Operation, damage string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Operations = append(r.history.Operations, operations...)
	r.torn = append(r.torn, torn...)
	if err != nil {
		r.history.Errors++
		r.history.FirstError = cmp.Or(r.history.FirstError, err)
	}
	if damage != "" && !slices.Contains(r.history.Damaged, damage) {
		r.history.Damaged = append(r.history.Damaged, damage)
	}
}
