package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// explainSamples are devices in every situation there is something to say about.
func explainSamples() []deviceStatus {
	trouble := sample()
	trouble.NoPathSecondsLeft = nil
	trouble.FencedTotal = 3
	trouble.Paths[0].Cost = pathCost{
		TotalSeconds: 0.002104, LatencySeconds: 250e-6, WriteSeconds: 400e-6, OldestSeconds: 100e-6,
		InFlight: 7, QueuedBytes: 100000, BytesPerSecond: 1e9, Limit: 12, Known: true,
	}
	old := trouble.Paths[0]
	old.ID, old.Cost = "3", pathCost{TotalSeconds: 0.5, LatencySeconds: 250e-6, WriteSeconds: 400e-6, OldestSeconds: 0.25, InFlight: 1, Ramp: 5, Known: true}
	fresh := old
	fresh.ID, fresh.Cost = "4", pathCost{}
	spare := old
	spare.ID, spare.Active, spare.Priority = "5", false, 2
	trouble.Paths = append(trouble.Paths, old, fresh, spare)

	failover := sample()
	failover.Policy, failover.NoPathSecondsLeft, failover.Fenced, failover.FencedTotal = "failover", nil, nil, 0
	second := failover.Paths[0]
	second.ID, second.Active = "2", false
	failover.Paths = []pathStatus{failover.Paths[0], second}

	back := failover
	back.FailbackPending, back.Failback = true, "manual"
	left := 3.0
	soon := back
	soon.Policy, soon.Failback, soon.FailbackSecondsLeft = "weighted", "after 5s", &left

	cutOff := sample()
	cutOff.State, cutOff.Paths = "no-path", cutOff.Paths[1:]
	failing := cutOff
	failing.NoPathSecondsLeft, failing.Fenced, failing.FencedTotal = new(float64), nil, 0
	patient := failing
	patient.NoPathSecondsLeft = nil
	return []deviceStatus{trouble, failover, back, soon, cutOff, failing, patient, notAnswering("hung-1", claim{PID: 99, Target: "iqn.2026-01.com.example:hung"})}
}

func TestExplain(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, writeExplained(&b, explainSamples()))
	golden(t, "explain.txt", b.String())
}

func TestCostInStatus(t *testing.T) {
	var p initiator.PathSnapshot
	p.Cost.Total, p.Cost.Latency, p.Cost.Write, p.Cost.Age = 1, 2, 3, 4
	p.Cost.InFlight, p.Cost.Queued, p.Cost.Bandwidth, p.Cost.Limit, p.Cost.Ramp, p.Cost.Known = 5, 6, 7, 8, 9, true
	assert.Equal(t, pathCost{1, 2, 3, 4, 5, 6, 7, 8, 9, true}, newPathStatus(p, time.Now()).Cost)
}

func TestExplainARunningDevice(t *testing.T) {
	p := login(t, startTarget(t, iscsitest.Config{}))
	r := runCLI(t, "explain", "--runtime-dir", p.dir)
	require.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stdout, "carries I/O")
	assert.Contains(t, r.stdout, "Nothing was measured yet")
	r = runCLI(t, "explain", "--json", p.ready.Name, "--runtime-dir", p.dir)
	require.Zero(t, r.code, r.stderr)
	var report devicesReport
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	require.Len(t, report.Devices, 1)
	assert.Equal(t, p.ready.Name, report.Devices[0].Name)
	cost := report.Devices[0].Paths[0].Cost
	assert.Positive(t, cost.TotalSeconds)
	assert.Equal(t, pathCost{TotalSeconds: cost.TotalSeconds, Ramp: cost.Ramp}, cost, "nothing was read yet")
	assert.Equal(t, exitNoDevice, runCLI(t, "explain", "nobody", "--runtime-dir", p.dir).code)
	require.Zero(t, runCLI(t, "logout", "--all", "--runtime-dir", p.dir).code)
	require.Zero(t, p.wait())
	assert.Equal(t, exitNothing, runCLI(t, "explain", "--runtime-dir", p.dir).code)
}
