package initiator

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/internal/loop"
)

// countOwner counts completions.
type countOwner struct {
	done chan *Request
}

func (c *countOwner) RequestDone(r *Request) { c.done <- r }

func loops(t *testing.T, test func(t *testing.T, l loop.Loop)) {
	for name, portable := range map[string]bool{"best": false, "portable": true} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			l := newLoop(portable)
			defer l.Close()
			test(t, l)
		})
	}
}

func TestSubmitQueueKeepsOrderAndLosesNothing(t *testing.T) {
	loops(t, func(t *testing.T, l loop.Loop) {
		const submitters, each = 8, 500
		last := make([]uint64, submitters)
		owner := &countOwner{done: make(chan *Request, submitters*each)}
		q := newSubmitQueue(l, func(r *Request) {
			if r.Offset <= last[r.Length] {
				t.Errorf("request %d of submitter %d came after %d", r.Offset, r.Length, last[r.Length])
			}
			last[r.Length] = r.Offset
			r.Owner.RequestDone(r)
		})
		var wg sync.WaitGroup
		for s := range submitters {
			wg.Go(func() {
				for i := range each {
					q.push(&Request{Op: OpFlush, Length: uint64(s), Offset: uint64(i + 1), Owner: owner})
				}
			})
		}
		wg.Wait()
		for range submitters * each {
			require.NoError(t, (<-owner.done).Err)
		}
	})
}

func TestSubmitQueueRefusesAfterTheLoopEnded(t *testing.T) {
	loops(t, func(t *testing.T, l loop.Loop) {
		owner := &countOwner{done: make(chan *Request, 2)}
		q := newSubmitQueue(l, func(r *Request) { r.Owner.RequestDone(r) })
		l.Close()
		for range 2 {
			q.push(&Request{Op: OpFlush, Owner: owner})
			assert.ErrorIs(t, (<-owner.done).Err, ErrClosed)
		}
	})
}

func TestSubmitQueueAllocatesNothing(t *testing.T) {
	loops(t, func(t *testing.T, l loop.Loop) {
		owner := &countOwner{done: make(chan *Request, 1)}
		q := newSubmitQueue(l, func(r *Request) { r.Owner.RequestDone(r) })
		r := &Request{Op: OpFlush, Owner: owner}
		once := func() {
			q.push(r)
			<-owner.done
		}
		once()
		assert.Zero(t, testing.AllocsPerRun(1000, once))
	})
}
