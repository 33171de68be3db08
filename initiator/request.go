package initiator

import (
	"sync"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
)

// Request is one block operation for Device.Submit. The submitter owns it and
// its Data before Submit and after Owner.RequestDone; the device owns both in
// between. It may be used again afterwards.
type Request = block.Request

// Completer learns that a Request is done. RequestDone is called exactly once
// for each submitted Request, on the device's loop, and must not block: it may
// submit further requests, send on a channel that has room, or count.
type Completer = block.Completer

// Op is what a Request asks for.
type Op = block.Op

// The operations.
const (
	OpRead        = block.OpRead        // Data is filled
	OpWrite       = block.OpWrite       // Data is stored
	OpFlush       = block.OpFlush       // all completed writes become durable
	OpTrim        = block.OpTrim        // the range may be deallocated; contents afterwards undefined
	OpWriteZeroes = block.OpWriteZeroes // the range reads as zeros afterwards
)

// The errors of I/O, to be compared with errors.Is.
var (
	ErrIO       = block.ErrIO       // the target failed the command, or no path was left for too long
	ErrReadOnly = block.ErrReadOnly // a write to a read-only device
	ErrRange    = block.ErrRange    // a request that ends after the device's end
	ErrAlign    = block.ErrAlign    // a write whose offset or length is not a multiple of the block size
	ErrNoSpace  = block.ErrNoSpace  // a thin-provisioned LUN is full
	ErrClosed   = block.ErrClosed   // the device was closed
	ErrNotSup   = block.ErrNotSup   // the target cannot do it
)

// Geometry describes a device: sizes in bytes, and what it can do.
type Geometry = block.Geometry

// submitQueue carries requests from any goroutine to the loop. It allocates
// nothing once it has grown to the usual depth.
type submitQueue struct {
	loop   loop.Loop
	submit func(*Request) // on the loop

	mu     sync.Mutex // guards the fields below
	in     []*Request // not yet taken by the loop
	posted bool       // the task is on its way
	closed bool

	task loop.Task
	out  []*Request // loop only: what run works on
}

func newSubmitQueue(l loop.Loop, submit func(*Request)) *submitQueue {
	q := &submitQueue{loop: l, submit: submit}
	q.task.Run = q.run
	return q
}

// push hands r over. If the loop is gone it completes r at once with ErrClosed.
func (q *submitQueue) push(r *Request) {
	q.mu.Lock()
	if !q.closed {
		q.in = append(q.in, r)
		if q.posted {
			q.mu.Unlock()
			return
		}
		if q.posted = q.loop.PostTask(&q.task); q.posted {
			q.mu.Unlock()
			return
		}
		q.in = q.in[:0] // nobody else is in it: an earlier one would have posted
		q.closed = true
	}
	q.mu.Unlock()
	r.Err = ErrClosed
	r.Owner.RequestDone(r)
}

// run submits what has gathered. It runs on the loop.
func (q *submitQueue) run() {
	q.mu.Lock()
	q.in, q.out = q.out[:0], q.in
	q.posted = false
	q.mu.Unlock()
	for i, r := range q.out {
		q.out[i] = nil
		q.submit(r)
	}
}
