package loop

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// steady makes a pacer that has seen inFlight commands with one event every
// perEvent for a while, and a last round of so many events.
func steady(inFlight int, perEvent time.Duration, round int) (p *pacer, now int64) {
	p = &pacer{}
	p.pause(now)
	for range inFlight {
		p.Sent()
	}
	for range 3 * paceWindow / min(perEvent, 3*paceWindow) {
		p.Answered()
		p.Sent()
		now += 2 * int64(perEvent)
		p.pause(now)
	}
	for range round / 2 {
		p.Answered()
		p.Sent()
	}
	if round%2 != 0 {
		p.Answered()
	}
	return p, now + 1
}

func TestPacerPausesOnlyWhereItPays(t *testing.T) {
	const us = time.Microsecond
	for _, c := range []struct {
		name     string
		inFlight int
		perEvent time.Duration
		round    int
		want     time.Duration
	}{
		{"depth 1", 1, 20 * us, 1, 0},
		{"few in flight", paceInFlight - 1, 5 * us, 1, 0},
		{"many, small rounds", 25, 6 * us, 1, 24 * us},
		{"just enough", paceInFlight + 1, 6 * us, 1, 12 * us},
		{"a long queue: the cap", 129, 6 * us, 1, paceMax},
		{"very quick: the floor", 17, us, 1, paceMin},
		{"the round was large", 32, 6 * us, 8, 0},
		{"the round was large, long queue", 128, 6 * us, 32, 0},
		{"events are rare: a slow disk", 65, 21 * us, 1, 0},
		{"rarer than the window", 64, 2 * paceWindow, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, now := steady(c.inFlight, c.perEvent, c.round)
			got := p.pause(now)
			assert.InDelta(t, c.want, got, float64(us))
		})
	}
}

func TestPacerForgetsAnOldRate(t *testing.T) {
	p, now := steady(32, 6*time.Microsecond, 1)
	require.NotZero(t, p.pause(now))
	p.Answered()
	assert.Zero(t, p.pause(now+int64(time.Hour)), "what was an hour ago says nothing")
}

func TestPacerGivesUpOnCoarseTimers(t *testing.T) {
	p, now := steady(32, 6*time.Microsecond, 1)
	ask := func(at int64) time.Duration { p.Answered(); p.Sent(); return p.pause(at) }
	for range paceLateMost - 1 {
		p.paused(now, 4*time.Millisecond)
	}
	p.paused(now, 20*time.Microsecond) // one in time: start over
	for range paceLateMost - 1 {
		p.paused(now, 4*time.Millisecond)
	}
	require.NotZero(t, ask(now))
	p.paused(now, 4*time.Millisecond)
	require.Zero(t, ask(now))
	require.Zero(t, ask(now+int64(paceOff)-1))
	p.from, p.atFrom, p.perEvent = now+int64(paceOff), p.events, 6000
	require.NotZero(t, ask(now+int64(paceOff)))
}

func TestLoadOfAnyLoop(t *testing.T) {
	for name, l := range map[string]Loop{"reactor": New(), "portable": NewPortable()} {
		t.Run(name, func(t *testing.T) {
			defer l.Close()
			load := LoadOf(l)
			require.NotNil(t, load)
			if _, ok := l.(loader); ok {
				assert.Same(t, load, LoadOf(l))
			}
		})
	}
}
