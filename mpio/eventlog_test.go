package mpio

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
)

// logged is a rig whose log is kept, without times.
func logged(t *testing.T, paths int, tune func(*Config)) (*rig, *bytes.Buffer) {
	var b bytes.Buffer
	plain := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	r := newRig(t, paths, func(cfg *Config) {
		cfg.Logger = slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: plain}))
		if tune != nil {
			tune(cfg)
		}
	})
	return r, &b
}

func lineCount(b *bytes.Buffer) int { return strings.Count(b.String(), "\n") }

// TestAPathThatFlapsDoesNotFloodTheLog: an hour of it is told in about as many lines
// as it has minutes, while whoever takes events gets all of them, and the last word
// in the log is what became of the path.
func TestAPathThatFlapsDoesNotFloodTheLog(t *testing.T) {
	for name, tune := range map[string]func(*Config){
		"marginal":     nil,
		"not marginal": func(cfg *Config) { cfg.Marginal.Off = true },
	} {
		t.Run(name, func(t *testing.T) {
			r, log := logged(t, 2, tune)
			r.up()
			log.Reset()
			for range 900 {
				r.s[1].cut(2 * sec)
				r.l.run(4 * sec)
			}
			assert.Less(t, lineCount(log), 150, log.String())
			assert.GreaterOrEqual(t, lineCount(log), 50, "it is not forgotten: %s", log)
			assert.Regexp(t, `lost 1[456] times`, log.String(), "how often is told")
			assert.GreaterOrEqual(t, len(r.kinds(PathDown)), 900)
			log.Reset()
			r.s[1].cut(1000 * sec)
			r.l.run(90 * sec)
			require.Contains(t, log.String(), "event=path-down path=b", "that it is down for good is told")
			r.l.run(2000 * sec)
			assert.Contains(t, log.String(), "event=path-up path=b", "and that it is back")
			n := lineCount(log)
			r.l.run(600 * sec)
			assert.Equal(t, n, lineCount(log), "then there is nothing to tell:\n%s", log)
		})
	}
}

// TestADeviceThatFlapsDoesNotFloodTheLog: all paths at once, as when another host
// logs in with this host's name.
func TestADeviceThatFlapsDoesNotFloodTheLog(t *testing.T) {
	r, log := logged(t, 2, nil)
	r.up()
	log.Reset()
	for range 900 {
		r.write(0, 1, 1)
		r.s[0].cut(sec)
		r.s[1].cut(sec)
		r.l.run(4 * sec)
	}
	assert.Less(t, lineCount(log), 600, log.String())
	assert.Contains(t, log.String(), "event=no-path")
	log.Reset()
	r.s[0].cut(1000 * sec)
	r.s[1].cut(1000 * sec)
	r.l.run(90 * sec)
	assert.Contains(t, log.String(), "event=no-path\n", "%s", log)
	r.l.run(2000 * sec)
	assert.Contains(t, log.String(), "event=paths-back", "%s", log)
}

func TestALineOfTheLogNamesThePortalAndEachThingOnce(t *testing.T) {
	r, log := logged(t, 2, nil)
	r.up()
	portal := r.d.paths[0].cfg.Portal
	assert.Contains(t, log.String(), "portal="+portal)
	log.Reset()
	cause := errors.New("no room")
	r.d.emit(Event{Kind: PathDown, Path: "a", Text: portal + ": cannot be noted: no room; make some", Err: cause})
	assert.Equal(t, "level=WARN msg=\"cannot be noted: no room; make some\" event=path-down path=a portal="+portal+"\n", log.String())
}

// TestAFenceThatOnlyTimeSettledIsAWarning: nothing has proven that the write is over.
func TestAFenceThatOnlyTimeSettledIsAWarning(t *testing.T) {
	r, log := logged(t, 1, func(cfg *Config) { cfg.FenceTimeout, cfg.NoPathTimeout = 5*time.Second, time.Second })
	r.up()
	r.s[0].hold = true
	w := r.write(0, 1, 1)
	r.s[0].cut(1000 * sec)
	r.l.run(20 * sec)
	require.ErrorIs(t, w.Err, block.ErrIO)
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "event=fence-settled") {
			assert.Contains(t, line, "level=WARN")
			return
		}
	}
	assert.Fail(t, "it was not told", log.String())
}

// TestTheLastLossIsRemembered: a path that is up again can still say why it was not.
func TestTheLastLossIsRemembered(t *testing.T) {
	r := newRig(t, 2, nil).up()
	assert.Empty(t, r.d.Snapshot().Paths[0].Link.Lost)
	r.s[0].cut(sec)
	r.l.run(10 * sec)
	p := r.d.Snapshot().Paths[0]
	require.Equal(t, StateUp, p.State)
	assert.Contains(t, p.Link.Lost, "connection reset")
	assert.InDelta(t, 10, p.Link.LostAge, 0.5)
	assert.Empty(t, r.d.Snapshot().Paths[1].Link.Lost)
}
