package asynclog

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/leak"
)

// gate is a log handler that can be held up.
type gate struct {
	slog.Handler
	held   chan struct{} // closed: let pass
	waits  chan struct{}
	signal sync.Once
}

func (g *gate) Handle(ctx context.Context, r slog.Record) error {
	g.signal.Do(func() { close(g.waits) })
	<-g.held
	return g.Handler.Handle(ctx, r)
}

func TestLoggerNeverWaitsAndCountsWhatItDropped(t *testing.T) {
	leak.Check(t)
	var out bytes.Buffer
	g := &gate{Handler: slog.NewTextHandler(&out, nil), held: make(chan struct{}), waits: make(chan struct{})}
	logger, stop := New(slog.New(g))
	logger.Info("first")
	<-g.waits // the writer is stuck with it now
	const more = logBacklog + 10
	for range more {
		logger.Info("more")
	}
	close(g.held)
	stop()
	text := out.String()
	assert.Equal(t, 1, strings.Count(text, "msg=first"))
	assert.Equal(t, logBacklog, strings.Count(text, "msg=more"))
	assert.Contains(t, text, "dropped=10")
	logger.Info("late") // must not block nor panic
	stop()
}

func TestLoggerKeepsAttributesAndLevels(t *testing.T) {
	leak.Check(t)
	var out bytes.Buffer
	logger, stop := New(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	logger.With("a", 1).WithGroup("g").Warn("kept", "b", 2)
	logger.Info("left out")
	stop()
	require.Contains(t, out.String(), "msg=kept a=1 g.b=2")
	assert.NotContains(t, out.String(), "left out")
}

func TestStopGivesUpOnALogThatHangs(t *testing.T) {
	leak.Check(t)
	old := patience
	patience = 10 * time.Millisecond
	t.Cleanup(func() { patience = old })
	g := &gate{Handler: slog.DiscardHandler, held: make(chan struct{}), waits: make(chan struct{})}
	logger, stop := New(slog.New(stuck{g}))
	logger.Info("x")
	<-g.waits
	stop()
	close(g.held)
}

// stuck takes every record, which the handler that discards would not.
type stuck struct{ *gate }

func (stuck) Enabled(context.Context, slog.Level) bool { return true }

func TestLoggerWithoutALogger(t *testing.T) {
	leak.Check(t)
	logger, stop := New(nil)
	logger.Error("to nobody")
	stop()
}
