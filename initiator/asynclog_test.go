package initiator

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

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

func TestAsyncLoggerNeverWaitsAndCountsWhatItDropped(t *testing.T) {
	leak.Check(t)
	var out bytes.Buffer
	g := &gate{Handler: slog.NewTextHandler(&out, nil), held: make(chan struct{}), waits: make(chan struct{})}
	logger, stop := asyncLogger(slog.New(g))
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

func TestAsyncLoggerKeepsAttributesAndLevels(t *testing.T) {
	leak.Check(t)
	var out bytes.Buffer
	logger, stop := asyncLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	logger.With("a", 1).WithGroup("g").Warn("kept", "b", 2)
	logger.Info("left out")
	stop()
	require.Contains(t, out.String(), "msg=kept a=1 g.b=2")
	assert.NotContains(t, out.String(), "left out")
}

func TestAsyncLoggerWithoutALogger(t *testing.T) {
	leak.Check(t)
	logger, stop := asyncLogger(nil)
	logger.Error("to nobody")
	stop()
}
