package main

import (
	"bytes"
	"encoding/xml"
	"os"
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

// What the latency policy is for: nowhere is another one much better, and where
// paths differ it is far ahead of those that do not look.
func TestLatencyPolicyKeepsItsPromises(t *testing.T) {
	rivals := []string{mpio.PolicyLatency, mpio.PolicyRoundRobinSubset, mpio.PolicyQueueDepth, mpio.PolicyLeastBytes, mpio.PolicyServiceTime}
	o := options{policies: rivals, seed: 1, warmUp: 500 * time.Millisecond, measure: 500 * time.Millisecond, jobs: 4}
	set, err := find("equal-4/qd32,slow-4/qd8,slow-4/open50,far-2/qd1,far-2/qd8,far-4/open50,lines-2/open60,mixed-4/qd8,jitter-4/qd32,ladder-8/qd32")
	require.NoError(t, err)
	tables, err := runAll(set, o)
	require.NoError(t, err)
	for _, table := range tables {
		v := table.verdict()
		assert.GreaterOrEqual(t, v.throughput, 0.94, "%s: %s does more", table.Name, v.best)
		assert.LessOrEqual(t, v.p99, 1.15, "%s: p99 of %s is better", table.Name, v.fast)
		own, robin := table.results[0], table.results[1]
		switch topo, _, _ := strings.Cut(table.Name, "/"); topo {
		case "far-2", "far-4":
			assert.Greater(t, ratio(robin.P99, own.P99), 5.0, "%s: against round-robin", table.Name)
		}
	}

	o = options{policies: rivals[:2], seed: 1, warmUp: 1500 * time.Millisecond, measure: time.Second, jobs: 2}
	set, err = find("stall-2/qd8")
	require.NoError(t, err)
	tables, err = runAll(set, o)
	require.NoError(t, err)
	own := tables[0].results[0]
	assert.Greater(t, own.Share, 0.85, "a stall stops only what is in flight")
	assert.Less(t, own.P99, time.Millisecond)
}

func TestPlotsFromResults(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	args := []string{"-scenario", "slow-2/qd1", "-policy", "latency,failover", "-warmup", "100ms", "-measure", "100ms"}
	require.NoError(t, command(append(args, "-json"), &out))
	require.NoError(t, os.WriteFile(dir+"/results", out.Bytes(), 0o600))
	require.NoError(t, command([]string{"-results", dir + "/results", "-svg", dir, "-brief"}, &out))
	for _, name := range []string{"throughput.svg", "p99.svg"} {
		b, err := os.ReadFile(dir + "/" + name)
		require.NoError(t, err)
		assert.NoError(t, xml.Unmarshal(b, new(struct{ XMLName xml.Name })), name)
		assert.Contains(t, string(b), "failover")
	}
	require.Error(t, command([]string{"-results", dir + "/p99.svg"}, &out))
	require.Error(t, command([]string{"-results", dir + "/none"}, &out))
}
