// Package asynclog keeps a slow or stuck log from holding up who logs. It knows
// nothing of what is logged.
package asynclog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long stop waits for a log that hangs. Tests shorten it.
var patience = 2 * time.Second

// logBacklog is how many log records may wait for a slow log.
const logBacklog = 1024

// New returns a logger that never blocks and writes to l from a goroutine of
// its own, because nothing that runs on a loop, and nothing that has to end in
// time, may wait for a terminal, a pipe or a disk. When the backlog is full,
// records are dropped and counted; the count is logged once there is room again.
// stop writes what is still waiting and ends the goroutine; it gives up on a log
// that hangs after two seconds. The logger stays usable but silent. A nil l
// discards everything.
func New(l *slog.Logger) (logger *slog.Logger, stop func()) {
	if l == nil {
		return slog.New(slog.DiscardHandler), func() {}
	}
	q := &logQueue{records: make(chan logRecord, logBacklog), quit: make(chan struct{}), ended: make(chan struct{})}
	go q.run(l.Handler())
	return slog.New(asyncHandler{q, l.Handler()}), sync.OnceFunc(func() {
		close(q.quit)
		select {
		case <-q.ended:
		case <-time.After(patience):
		}
	})
}

type logRecord struct {
	handler slog.Handler
	record  slog.Record
}

type logQueue struct {
	records chan logRecord
	quit    chan struct{}
	ended   chan struct{}
	dropped atomic.Uint64
}

func (q *logQueue) run(h slog.Handler) {
	defer close(q.ended)
	for {
		select {
		case r := <-q.records:
			q.write(r, h)
		case <-q.quit:
			for {
				select {
				case r := <-q.records:
					q.write(r, h)
				default:
					return
				}
			}
		}
	}
}

func (q *logQueue) write(r logRecord, h slog.Handler) {
	ctx := context.Background()
	_ = r.handler.Handle(ctx, r.record) // where to tell of a failing log?
	if n := q.dropped.Swap(0); n > 0 {
		slog.New(h).Warn("log records were dropped: the log is too slow", "dropped", n)
	}
}

// asyncHandler queues records for the handler it stands for.
type asyncHandler struct {
	queue   *logQueue
	handler slog.Handler
}

func (h asyncHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.handler.Enabled(ctx, level)
}

func (h asyncHandler) Handle(_ context.Context, r slog.Record) error {
	select {
	case h.queue.records <- logRecord{h.handler, r}: // handlers of this project log values, not pointers
	default:
		h.queue.dropped.Add(1)
	}
	return nil
}

func (h asyncHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return asyncHandler{h.queue, h.handler.WithAttrs(attrs)}
}

func (h asyncHandler) WithGroup(name string) slog.Handler {
	return asyncHandler{h.queue, h.handler.WithGroup(name)}
}
