package initiator

import (
	"context"
	"fmt"
	"io"
	"sync"
)

var (
	_ io.ReaderAt = (*Device)(nil)
	_ io.WriterAt = (*Device)(nil)
)

// waiter is a request that a goroutine waits for.
type waiter struct {
	req  Request
	done chan struct{} // room for one
	// abandoned waiters go back to the pool from RequestDone.
	mu        sync.Mutex
	abandoned bool
	finished  bool
}

var waiters = sync.Pool{New: func() any { return &waiter{done: make(chan struct{}, 1)} }}

// RequestDone implements Completer.
func (w *waiter) RequestDone(*Request) {
	w.mu.Lock()
	w.finished = true
	abandoned := w.abandoned
	w.mu.Unlock()
	if abandoned {
		w.release()
		return
	}
	w.done <- struct{}{}
}

func (w *waiter) release() {
	w.req = Request{}
	w.abandoned, w.finished = false, false
	waiters.Put(w)
}

// do runs one request and waits for its end. Only requests without Data may be
// left behind when ctx ends: a buffer belongs to the device until it is done.
func (d *Device) do(ctx context.Context, r Request) error {
	w := waiters.Get().(*waiter)
	r.Owner = w
	w.req = r
	d.queue.push(&w.req)
	if r.Data != nil {
		<-w.done
	} else {
		select {
		case <-w.done:
		case <-ctx.Done():
			w.mu.Lock()
			left := !w.finished
			w.abandoned = left
			w.mu.Unlock()
			if left {
				return context.Cause(ctx)
			}
			<-w.done
		}
	}
	err := w.req.Err
	w.release()
	return err
}

// ReadAt implements io.ReaderAt. off and len(p) may be anything: whole blocks
// go straight into p, parts of blocks through a small buffer. At the end of the
// device it returns what there is, and io.EOF. After a failure only the bytes before
// the failed command count as read. It waits as long as
// Config.NoPathTimeout lets it. Concurrent calls are welcome.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	size := int64(d.Size())
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, ErrRange)
	}
	if off >= size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > size-off {
		p, end = p[:size-off], io.EOF
	}
	n := 0
	for n < len(p) {
		m, err := d.readSome(p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, fmt.Errorf("read of %d bytes at %d: %w", len(p)-n, off+int64(n), err)
		}
	}
	return n, end
}

// readSome reads the beginning of p: either part of one block, or as many whole
// blocks as there are. It returns 0 with an error: which blocks arrived is not known.
func (d *Device) readSome(p []byte, off int64) (int, error) {
	bs := int64(d.BlockSize())
	within := off % bs
	if within == 0 && int64(len(p)) >= bs {
		p = p[:int64(len(p))/bs*bs]
		if err := d.do(context.Background(), Request{Op: OpRead, Offset: uint64(off), Length: uint64(len(p)), Data: p}); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	block := make([]byte, bs)
	err := d.do(context.Background(), Request{Op: OpRead, Offset: uint64(off - within), Length: uint64(bs), Data: block})
	if err != nil {
		return 0, err
	}
	return copy(p, block[within:]), nil
}

// WriteAt implements io.WriterAt. off and len(p) must be multiples of
// BlockSize, else nothing is written and the error is ErrAlign: to write part
// of a block the rest would have to be read first, which is not safe against
// other writers. The data is durable after the next Flush. When the error is
// not nil it is not known which blocks were written, and 0 is returned.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("write at %d: %w", off, ErrRange)
	}
	if bs := int64(d.BlockSize()); off%bs != 0 || int64(len(p))%bs != 0 {
		return 0, fmt.Errorf("write of %d bytes at %d: %w: both must be multiples of %d", len(p), off, ErrAlign, bs)
	}
	if len(p) == 0 {
		return 0, nil
	}
	err := d.do(context.Background(), Request{Op: OpWrite, Offset: uint64(off), Length: uint64(len(p)), Data: p})
	if err != nil {
		return 0, fmt.Errorf("write of %d bytes at %d: %w", len(p), off, err)
	}
	return len(p), nil
}

// Flush makes every write that completed before the call durable. When ctx ends
// first, it returns ctx's error and the flush goes on by itself.
func (d *Device) Flush(ctx context.Context) error {
	if err := d.do(ctx, Request{Op: OpFlush}); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// Discard tells the target that length bytes at off are not needed any more.
// It is a hint; what they read as afterwards is undefined. off and length must
// be multiples of BlockSize. When ctx ends first, the discard goes on by itself.
func (d *Device) Discard(ctx context.Context, off, length uint64) error {
	if err := d.do(ctx, Request{Op: OpTrim, Offset: off, Length: length}); err != nil {
		return fmt.Errorf("discard of %d bytes at %d: %w", length, off, err)
	}
	return nil
}

// WriteZeroes makes length bytes at off read as zeros, with the target's help
// where it has proved that it can. off and length must be multiples of
// BlockSize. When ctx ends first, the zeroing goes on by itself.
func (d *Device) WriteZeroes(ctx context.Context, off, length uint64) error {
	if err := d.do(ctx, Request{Op: OpWriteZeroes, Offset: off, Length: length}); err != nil {
		return fmt.Errorf("zeroing of %d bytes at %d: %w", length, off, err)
	}
	return nil
}

// Submit hands r to the device and returns at once. It may be called from any
// goroutine, and from RequestDone, and allocates nothing. r.Owner must be set.
// Requests of one goroutine reach the device in the order of submission, but
// may complete in any order: wait for a write before submitting another to the
// same blocks. After Close, r completes with ErrClosed, perhaps inside Submit.
func (d *Device) Submit(r *Request) { d.queue.push(r) }
