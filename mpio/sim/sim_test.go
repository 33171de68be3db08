package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/mpio"
)

// simulate puts policies through a scenario for a short while.
func simulate(t *testing.T, scenario string, measure time.Duration, policies ...string) []Result {
	t.Helper()
	set, err := find(scenario)
	require.NoError(t, err)
	tables, err := runAll(set, options{policies: policies, seed: 1, warmUp: time.Second, measure: measure, jobs: 2})
	require.NoError(t, err)
	for _, r := range tables[0].results {
		require.Zero(t, r.Errors, r.Policy)
		require.NotZero(t, r.Requests, r.Policy)
	}
	return tables[0].results
}

func TestSameSeedSameFigures(t *testing.T) {
	a := simulate(t, "stall-2/qd8", 200*time.Millisecond, mpio.Policies()...)
	b := simulate(t, "stall-2/qd8", 200*time.Millisecond, mpio.Policies()...)
	assert.Equal(t, a, b)
}

// The model does what can be computed by hand.
func TestModel(t *testing.T) {
	r := simulate(t, "equal-2/qd1", time.Second, mpio.PolicyFailover)[0]
	assert.InDelta(t, 1, r.Share, 0.02, "one request at a time takes latency, service and line")
	r = simulate(t, "equal-2/qd256", time.Second, mpio.PolicyQueueDepth)[0]
	assert.InDelta(t, 40000, r.Rate, 400, "two controllers at their limit")
	r = simulate(t, "lines-2/qd32", time.Second, mpio.PolicyLeastBytes)[0]
	assert.InDelta(t, 500, r.MBps, 10, "two lines at their limit")
	r = simulate(t, "far-2/qd1", 4*time.Second, mpio.PolicyRoundRobin)[0]
	assert.InDelta(t, 20, r.P99.Seconds()*1e3, 1)
	assert.InDelta(t, 0.5, r.Paths[1], 0.02)
}

func TestCommand(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, command([]string{"-list"}, &out))
	assert.Contains(t, out.String(), "stall-4/qd32")
	out.Reset()
	require.NoError(t, command([]string{"-scenario", "slow-2/qd1", "-policy", "latency,failover", "-warmup", "100ms", "-measure", "200ms"}, &out))
	assert.Equal(t, 5, strings.Count(out.String(), "\n"))
	require.Error(t, command([]string{"-scenario", "nothing"}, &out))
	require.Error(t, command([]string{"-scenario", "slow-2/qd1", "-policy", "fastest"}, &out))
	require.Error(t, command([]string{"-nonsense"}, &out))
}
