package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/mpio"
)

// Scenarios where an attempt at the formula has failed once, and that are quick:
// there the latency policy stays within its bounds. docs/policies.md has all of
// them, the one where it does not among these.
func TestLatencyPolicyWithinBounds(t *testing.T) {
	set, err := find("equal-2/qd8,equal-4/qd256,slow-2/qd32,slow-4/qd32,far-2/qd1,far-2/qd32,far-4/qd256,lines-2/qd8,lines-2/qd32,lines-4,jitter-4/qd32,mixed-lines-2/qd8,ladder-8/qd256")
	require.NoError(t, err)
	o := options{
		policies: []string{mpio.PolicyLatency, mpio.PolicyQueueDepth, mpio.PolicyServiceTime},
		seed:     1, warmUp: time.Second, measure: 30 * time.Millisecond, jobs: 4,
	}
	tables, err := runAll(set, o)
	require.NoError(t, err)
	for _, table := range tables {
		v := table.verdict()
		assert.True(t, v.meets(), "%s: %.2f of the throughput of %s, %.2f times the p99 of %s", table.Name, v.throughput, v.best, v.p99, v.fast)
	}
}

func TestMedianOfSeeds(t *testing.T) {
	list := []Result{
		{Policy: "x", Rate: 3, P99: 10, Requests: 7, Errors: 1, Paths: []float64{0.1, 0.9}},
		{Policy: "x", Rate: 1, P99: 30, Requests: 9, Errors: 2, Paths: []float64{0.3, 0.7}},
		{Policy: "x", Rate: 2, P99: 20, Requests: 8, Errors: 0, Paths: []float64{0.2, 0.8}},
	}
	want := Result{Policy: "x", Rate: 2, P99: 20, Requests: 8, Errors: 3, Paths: []float64{0.2, 0.8}}
	assert.Equal(t, want, median(list))
	assert.Equal(t, want.Paths, list[2].Paths, "the results stay as they are")
	assert.InDelta(t, 0.1, list[0].Paths[0], 0)

	s := find1(t, "far-2/qd1")
	o := options{seed: 1, seeds: 3, warmUp: 10 * time.Millisecond, measure: 10 * time.Millisecond}
	m, err := runSeeds(s, mpio.PolicyLatency, o)
	require.NoError(t, err)
	var rates []float64
	for i := range uint64(3) {
		o.seed = 1 + i
		r, err := run(s, mpio.PolicyLatency, o)
		require.NoError(t, err)
		rates = append(rates, r.Rate)
	}
	assert.Contains(t, rates, m.Rate)
	_, err = runSeeds(s, "fastest", o)
	require.Error(t, err)
}

func find1(t *testing.T, name string) *Scenario {
	set, err := find(name)
	require.NoError(t, err)
	require.Len(t, set, 1)
	return set[0]
}
