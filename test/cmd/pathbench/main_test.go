package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/peer"
)

func TestMain(m *testing.M) {
	status := m.Run()
	_ = peer.RemoveBuilt()
	os.Exit(status)
}

func TestSummary(t *testing.T) {
	s := &scenario{name: "x", size: 1e6, rates: []int{3e6, 1e6}}
	r := result{scenario: s}
	took := make([]time.Duration, 200)
	for i := range took {
		took[i] = time.Duration(200-i) * time.Millisecond
	}
	r.summarize(took, 100*time.Second)
	assert.Equal(t, []any{2.0, 2.0, 101 * time.Millisecond, 199 * time.Millisecond, 200 * time.Millisecond}, []any{r.rate, r.mbps(), r.p50, r.p99, r.longest})
	r = result{scenario: s}
	r.summarize(nil, time.Second)
	assert.Zero(t, r.rate)

	assert.InDelta(t, 0.25, lastShare(
		peer.DeviceStatus{Paths: []peer.PathStatus{{IOs: 10}, {IOs: 5}}},
		peer.DeviceStatus{Paths: []peer.PathStatus{{IOs: 40}, {IOs: 15}}}), 1e-9)
}

func TestTables(t *testing.T) {
	s := &scenario{name: "x", text: "some lines", size: 1e6, rates: []int{3e6, 1e6}}
	at := func(who string, rate float64, p99 time.Duration, errors int) result {
		return result{scenario: s, who: who, job: "read", rate: rate, p99: p99, errors: errors}
	}
	list := rows([]result{
		at("a", 2, 4*time.Millisecond, 0), at("b", 1, 40*time.Millisecond, 1),
		at("a", 4, 2*time.Millisecond, 0), at("b", 2, 20*time.Millisecond, 1),
		at("a", 3, 9*time.Millisecond, 0), at("b", 9, 30*time.Millisecond, 0),
	})
	var out strings.Builder
	assert.Equal(t, 2, writeTables(&out, list))
	assert.Contains(t, out.String(), "x (some lines), reads, 3 rounds\n")
	assert.Contains(t, out.String(), "| a | 3.0 (0.75 of the sum) | 0.00 | 4.00 | 0 | 0 % | 1.00 | 1.00 |\n")
	assert.Contains(t, out.String(), "| b | 2.0 (0.50 of the sum) | 0.00 | 30.00 | 0 | 0 % | 0.67 | 7.50 |\n")
}

func TestChoice(t *testing.T) {
	err := command(t.Context(), []string{"-s", "nothing"}, io.Discard, io.Discard)
	require.ErrorContains(t, err, `"nothing"`)
	err = command(t.Context(), []string{"-c", "latency; fastest"}, io.Discard, io.Discard)
	require.ErrorContains(t, err, "fastest")
	names := map[string]bool{}
	for _, s := range scenarios {
		assert.False(t, names[s.name], s.name)
		names[s.name] = true
		assert.True(t, s.rates == nil || len(s.rates) == s.paths, s.name)
	}
}

// The whole of it, for a moment: what is measured is of the order it must be.
func TestRealRun(t *testing.T) {
	peer.NeedTool(t, "tgtd")
	var out bytes.Buffer
	err := command(t.Context(), []string{"-s", "far-2,stall-2,flaky-2", "-c", "latency;round-robin, neither", "-w", "100ms", "-t", "400ms"}, &out, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, 6, strings.Count(out.String(), "| latency |"))
	assert.Equal(t, 6, strings.Count(out.String(), "| round-robin, neither |"))
	assert.NotContains(t, out.String(), "| 0.0 |", "nothing came through")

	s := scenarios[1]
	results, err := measure(t.Context(), &s, contestants[5], spans{100 * time.Millisecond, 400 * time.Millisecond})
	require.NoError(t, err)
	for _, r := range results {
		assert.Zero(t, r.errors)
		assert.Greater(t, r.p50, 2*base)
		assert.Greater(t, r.p99, 20*time.Millisecond, "round-robin waits for the far path")
	}
}
