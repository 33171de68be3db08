package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/iscsimp/iscsimp/test/nbdload"
	"github.com/iscsimp/iscsimp/test/peer"
)

func status(ios ...uint64) peer.DeviceStatus {
	var s peer.DeviceStatus
	for i, n := range ios {
		s.Paths = append(s.Paths, peer.PathStatus{Portal: string(rune('a' + i)), IOs: n})
	}
	return s
}

func TestShareBetween(t *testing.T) {
	assert.InDelta(t, 0.25, shareBetween(status(100, 10), status(130, 20), "b"), 1e-9)
	assert.InDelta(t, 0, shareBetween(status(100, 10), status(130, 10), "b"), 1e-9)
	assert.InDelta(t, 1, shareBetween(status(100, 10), status(100, 10), "b"), 1e-9, "a standstill is not a shed path")
}

func TestVerdict(t *testing.T) {
	good := demo{
		plan: plan{shedLimit: time.Second}, stats: nbdload.Stats{Operations: 5, LongestStall: 1500 * time.Microsecond},
		shed: 100 * time.Millisecond, back: 200 * time.Millisecond,
	}
	for name, c := range map[string]struct {
		change func(*demo)
		err    error
		ok     bool
	}{
		"good":          {func(*demo) {}, nil, true},
		"error":         {func(*demo) {}, errors.New("died"), false},
		"I/O error":     {func(d *demo) { d.stats.Errors = 1 }, nil, false},
		"mismatch":      {func(d *demo) { d.stats.Mismatches = 1 }, nil, false},
		"no operations": {func(d *demo) { d.stats.Operations = 0 }, nil, false},
		"never shed":    {func(d *demo) { d.shed = 0 }, nil, false},
		"shed late":     {func(d *demo) { d.shed = 2 * time.Second }, nil, false},
		"never back":    {func(d *demo) { d.back = 0 }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			d := good
			d.out = &out
			c.change(&d)
			assert.Equal(t, c.ok, d.verdict(c.err))
			if c.ok {
				assert.Equal(t, "\nverdict: ok operations=5 errors=0 mismatches=0 longest-stall=2ms slow-path-shed=100ms path-back=200ms\n", out.String())
			} else {
				assert.Contains(t, out.String(), "verdict: failed")
			}
		})
	}
}
