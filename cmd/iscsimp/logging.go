package main

import (
	"bufio"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/pdu"
)

// newLogger makes the logger --log-level and --log-format ask for. It logs to w.
func newLogger(c *cli.Context, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	switch name := strings.ToLower(c.String(flagLogLevel)); name {
	case "debug", "info", "warn", "error":
		if err := level.UnmarshalText([]byte(name)); err != nil {
			return nil, err
		}
	default:
		return nil, usagef("--%s %q: use debug, info, warn or error", flagLogLevel, name)
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := c.String(flagLogFormat); format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	default:
		return nil, usagef("--%s %q: use text or json", flagLogFormat, format)
	}
}

// traceBacklog is how many lines may wait for a slow disk.
const traceBacklog = 1 << 14

// tracer writes one line per PDU to a file, from a goroutine of its own: the
// loops that call it must not wait for a disk.
type tracer struct {
	lines chan []byte
	free  sync.Pool
	ended chan struct{}
	once  sync.Once
	err   error // of the file; valid once ended

	mu      sync.Mutex // guards the fields below
	dropped uint64
	closed  bool
}

// openTrace opens the file --trace names. Without the option both results are nil.
func openTrace(c *cli.Context) (*tracer, error) {
	path := c.String(flagTrace)
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, usagef("--%s: %v; name a file in a folder that is there and may be written to", flagTrace, err)
	}
	return newTracer(f), nil
}

func newTracer(f io.WriteCloser) *tracer {
	t := &tracer{lines: make(chan []byte, traceBacklog), ended: make(chan struct{})}
	go t.write(f)
	return t
}

func (t *tracer) write(f io.WriteCloser) {
	defer close(t.ended)
	w := bufio.NewWriterSize(f, 1<<16)
	flush := time.NewTicker(time.Second) // so that a look at the file shows what is going on
	defer flush.Stop()
	for {
		select {
		case line, more := <-t.lines:
			if !more {
				t.err = w.Flush()
				if err := f.Close(); t.err == nil {
					t.err = err
				}
				return
			}
			_, _ = w.Write(line) // the writer keeps the first error for Flush
			t.free.Put(&line)
		case <-flush.C:
			_ = w.Flush()
		}
	}
}

// pdu is an initiator.TraceFunc.
func (t *tracer) pdu(portal string, fromInitiator bool, bhs pdu.BHS) {
	var line []byte
	if b, ok := t.free.Get().(*[]byte); ok {
		line = (*b)[:0]
	}
	line = time.Now().UTC().AppendFormat(line, "15:04:05.000000 ")
	line = append(append(line, portal...), ' ')
	line = append(pdu.AppendTrace(line, fromInitiator, bhs), '\n')
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	select {
	case t.lines <- line:
	default:
		t.dropped++
	}
}

// hook is the tracer as the configuration takes it.
func (t *tracer) hook() initiator.TraceFunc {
	if t == nil {
		return nil
	}
	return t.pdu
}

// close writes what is waiting. It reports what is missing from the file.
func (t *tracer) close(logger *slog.Logger) {
	if t == nil {
		return
	}
	t.once.Do(func() {
		t.mu.Lock()
		t.closed = true
		close(t.lines)
		t.mu.Unlock()
		<-t.ended
		if t.err != nil {
			logger.Warn("the trace is not complete", "err", t.err)
		}
		if t.dropped > 0 {
			logger.Warn("the trace is not complete: the file is too slow", "lines_missing", t.dropped)
		}
	})
}
