package mpio

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// The log of a device tells each thing once, and of what happens again and again how
// often it did. Whoever takes events (Config.OnEvent) gets every one of them.

const (
	flapBurst   = 4    // losses that are told as they come ...
	flapCalm    = 60e9 // ns: ... unless there was none for so long before
	flapPause   = 60e9 // ns between two words about what goes on flapping
	flapSettled = 10e9 // ns after which its state is told, as what became of it
)

// flapLog keeps a path that comes and goes, or a device that loses all its paths
// again and again, from flooding the log.
type flapLog struct {
	spent  int    // losses told as they came
	last   int64  // loop time of the last loss
	told   int64  // loop time of the last word
	untold int    // losses since that were not told
	losses uint64 // of sessions, at the last word
}

// lose counts one loss, and reports whether to tell of it.
func (f *flapLog) lose(now int64) bool {
	if now-f.last >= flapCalm {
		f.spent = 0
	}
	f.last = now
	if f.spent >= flapBurst {
		f.untold++
		return false
	}
	f.spent++
	f.told = now
	return true
}

// due reports whether it is time for a word about what was not told; since is when
// the present state began.
func (f *flapLog) due(now, since int64) bool {
	return f.untold > 0 && (now-since >= flapSettled || now-f.told >= flapPause)
}

// word is the word: how often it happened.
func (f *flapLog) word(now int64, what string) string {
	s := fmt.Sprintf("; %s %s since the last word about it", what, counted(f.untold, "time"))
	f.untold, f.told = 0, now
	return s
}

// record logs e, unless it is the same over and over.
func (d *Device) record(e Event) {
	level := e.Kind.level()
	if e.unproven {
		level = slog.LevelWarn
	}
	if !d.toTell(&e) {
		level = slog.LevelDebug
	}
	d.write(level, e)
}

// toTell reports whether e is to be told now, rather than counted.
func (d *Device) toTell(e *Event) bool {
	p := d.path(e.Path)
	switch e.Kind {
	case PathDown, PathSuspected:
		if p == nil {
			return true
		}
		told := p.flaps.lose(e.At)
		if told {
			p.flaps.losses = p.stat.losses
		}
		return told
	case PathUp, PathMarginal, FailedBack, FenceRaised, FenceSettled:
		return p == nil || p.flaps.untold == 0 || e.unproven
	case NoPath:
		return d.flaps.lose(e.At)
	case PathsBack, CacheDoubted:
		return d.flaps.untold == 0
	}
	return true
}

// tellFlaps says what became of what keeps coming and going.
func (d *Device) tellFlaps(now int64) {
	for _, p := range d.paths {
		if p.closed || p.state == StateChecking || !p.flaps.due(now, p.since) {
			continue
		}
		e := Event{Kind: p.state.event(), Path: p.cfg.ID, State: p.state, Text: p.reason}
		if n := p.stat.losses - p.flaps.losses; n > 0 {
			p.flaps.untold, p.flaps.losses = int(n), p.stat.losses
			e.Text += p.flaps.word(now, "its session was lost")
		} else {
			e.Text += p.flaps.word(now, "it came and went")
		}
		d.write(max(e.Kind.level(), slog.LevelInfo), e)
	}
	if !d.flaps.due(now, max(d.noPathSince, d.backSince)) {
		return
	}
	e := Event{Kind: PathsBack, Text: "a path is usable"}
	if d.noPathSince != 0 {
		e = Event{Kind: NoPath, Count: d.waiting(), Text: d.noPathText()}
	}
	e.Text += d.flaps.word(now, "there was none")
	d.write(e.Kind.level(), e)
}

// write writes one line about e.
func (d *Device) write(level slog.Level, e Event) {
	if !d.cfg.Logger.Enabled(context.Background(), level) {
		return
	}
	args := []any{"event", e.Kind.String()}
	cause := ""
	if e.Err != nil {
		cause = e.Err.Error()
	}
	if e.Path != "" {
		args = append(args, "path", e.Path)
	}
	if p := d.path(e.Path); p != nil {
		args = append(args, "portal", p.cfg.Portal)
		prefix := p.cfg.Portal + ": "
		e.Text, cause = strings.TrimPrefix(e.Text, prefix), strings.TrimPrefix(cause, prefix)
	}
	if e.Count > 0 {
		args = append(args, "count", e.Count)
	}
	if !strings.Contains(e.Text, cause) {
		args = append(args, "err", cause)
	}
	d.cfg.Logger.Log(context.Background(), level, e.Text, args...)
}
