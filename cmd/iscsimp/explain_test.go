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
	moved := trouble.Fenced[0]
	moved.OffsetBytes, moved.SecondsLeft, moved.Moved = 8192, 60, true
	trouble.Fenced = append(trouble.Fenced[:1:1], moved)
	trouble.Paths[0].Cost = pathCost{
		TotalSeconds: 0.002104, LatencySeconds: 250e-6, WriteSeconds: 400e-6, OldestSeconds: 100e-6, QueueSeconds: 900e-6,
		InFlight: 7, QueuedBytes: 100000, BytesPerSecond: 1e9, Limit: 12, Known: true,
	}
	old := trouble.Paths[0]
	old.ID, old.Cost = "3", pathCost{TotalSeconds: 0.5, LatencySeconds: 250e-6, WriteSeconds: 400e-6, OldestSeconds: 0.25, LateSeconds: 0.249, InFlight: 1, Ramp: 5, Known: true}
	peak := old
	peak.Cost = pathCost{TotalSeconds: 0.096, LatencySeconds: 0.048, InFlight: 1, Known: true}
	peak.ID = "7"
	fresh := old
	fresh.ID, fresh.Cost = "4", pathCost{}
	spare := old
	spare.ID, spare.Active, spare.Priority = "5", false, 2
	trouble.Paths = append(trouble.Paths, old, peak, fresh, spare, battered())
	trouble.Fences = fenceCounts{Raised: 5, Settled: 4, TimedOut: 1, Waits: 7}
	trouble.Limits = deviceLimits{CommandSeconds: 30, LUNReset: true, FenceSeconds: 60, NoPathSeconds: 120}

	flaky := sample()
	flaky.NoPathSecondsLeft, flaky.Fenced, flaky.FencedTotal, flaky.Failed = nil, nil, 0, 0
	flaky.Hedging = hedgeStatus{Budget: 0.02, Hedges: 120, Wins: 97, Denied: 14}
	flaky.Paths = flaky.Paths[:1]
	for i, h := range []pathHealth{
		{Relapses: 3, RestSecondsLeft: 12.5, Faults: 2},
		{Relapses: 1, Sampling: true, Sampled: 21, SampleFailed: 1, ErrorRate: 0.03},
		{Relapses: 1, RestSecondsLeft: 4, Trial: true, Stalls: 4},
	} {
		p := flaky.Paths[0]
		p.ID, p.State, p.Active, p.SinceSeconds, p.Health = []string{"2", "3", "4"}[i], "marginal", false, 3, h
		p.Reason = "half of its reads took more than 84 ms, against 1.2 ms on the others, for 3 s; it carried 0.4 % of the commands"
		flaky.Paths = append(flaky.Paths, p)
	}
	flaky.Paths[0].Health.NeededSeconds, flaky.Paths[0].Hedged = 55, 1

	failover := sample()
	failover.Failed, failover.Limits = 0, deviceLimits{CommandSeconds: 0.5, FenceSeconds: 5, NoPathSeconds: -1}
	failover.Policy, failover.NoPathSecondsLeft, failover.Fenced, failover.FencedTotal = "failover", nil, nil, 0
	second := failover.Paths[0]
	second.ID, second.Active = "2", false
	failover.Paths = []pathStatus{failover.Paths[0], second}

	failover.Key, failover.Reserved = "0x00000000000000a1", "wero"

	back := failover
	back.Reserved, back.Preempted = "", "input/output error: this host's registration was removed: it was fenced off: key 0x00000000000000a1 was removed by another host"
	back.FailbackPending, back.Failback = true, "manual"
	left := 3.0
	soon := back
	soon.Policy, soon.Failback, soon.FailbackSecondsLeft = "weighted", "after 5s", &left

	// Of three paths the best is back and held back; the third never was better.
	better, worse := second, second
	better.ID, better.HeldBack, better.SinceSeconds = "2", true, 4
	worse.ID, worse.Priority = "3", 2
	soon.Paths = []pathStatus{failover.Paths[0], better, worse}
	back.Paths = []pathStatus{failover.Paths[0], better}

	silent := sample()
	silent.NoPathSecondsLeft, silent.Failed, silent.FencedTotal = nil, 0, 70
	quiet := silent.Paths[0]
	quiet.ID, quiet.State, quiet.Active, quiet.SinceSeconds = "2", "suspect", false, 0.4
	quiet.Reason = "nothing received although commands are in flight"
	dialing := quiet
	dialing.ID, dialing.State, dialing.Reason, dialing.LoggingIn, dialing.SentTo = "3", "down", "connection lost", true, "10.0.0.7:3260"
	idle := silent.Paths[0]
	idle.ID, idle.Share, idle.IOPS, idle.InFlight = "4", 0, 0, 0
	idle.Losses, idle.LastError, idle.LastLoss = 2, "connection lost (read: reset)", &targetNotice{Text: "connection lost (read: reset); see to the network", Count: 2, SinceSeconds: 3600}
	silent.Paths = []pathStatus{silent.Paths[0], quiet, dialing, idle}
	earlier := silent.Fenced[0]
	earlier.Op, earlier.Portal, earlier.Path = initiator.OpOfEarlierRun, "", "10.0.0.8:3260"
	silent.Fenced = append(silent.Fenced[:1:1], earlier)
	silent.Fences = fenceCounts{Raised: 3, Settled: 3}

	asymmetric := sample()
	asymmetric.NoPathSecondsLeft, asymmetric.Fenced, asymmetric.FencedTotal = nil, nil, 0
	active := asymmetric.Paths[0]
	active.ALUAState, active.ALUAGroup, active.ALUASinceSeconds = "active/optimized", 1, 7200
	slower := active
	slower.ID, slower.Active, slower.ALUAState, slower.ALUAGroup, slower.ALUAPreferred = "2", false, "active/non-optimized", 2, true
	waits := slower
	waits.ID, waits.State, waits.ALUAState, waits.ALUAGroup, waits.ALUAPreferred = "3", "standby", "standby", 3, false
	waits.Reason = "the target says that its target port group 3 is standby"
	untold := slower
	untold.ID, untold.ALUAState, untold.ALUAGroup, untold.ALUAPreferred = "4", "unknown", 0, false
	asymmetric.Paths = []pathStatus{active, slower, waits, untold}

	cutOff := sample()
	cutOff.State, cutOff.Paths = "no-path", cutOff.Paths[1:]
	failing := cutOff
	failing.NoPathSecondsLeft, failing.Fenced, failing.FencedTotal = new(float64), nil, 0
	failing.Limits = deviceLimits{CommandSeconds: 30, FenceSeconds: 60}
	patient := failing
	patient.NoPathSecondsLeft = nil
	return []deviceStatus{trouble, flaky, failover, back, soon, silent, asymmetric, cutOff, failing, patient, notAnswering("hung-1", claim{PID: 99, Target: "iqn.2026-01.com.example:hung"})}
}

// battered is a path on which everything went wrong that can be told of.
func battered() pathStatus {
	return pathStatus{
		ID: "6", Portal: "10.0.0.6:3260", State: "down", SinceSeconds: 4, Reason: "closed by the target", Priority: 1, Weight: 1,
		Retries: 1, Errors: 4, Timeouts: 3, Aborts: 2, Resets: 1, Moved: 12, Losses: 2, Logins: 3, LastError: "10.0.0.6:3260: TASK ABORTED",
		RetrySeconds: 3.5, TPGT: -1, Connections: 2,
		ConnectionList: []connectionStatus{
			{CID: 0, State: "up", LocalAddress: "10.0.0.9:1", OutstandingBytes: 12288},
			{CID: 1, State: "up", Silent: true},
			{CID: 2, State: "waiting", RetrySeconds: 0.2},
			{CID: 3, State: "clean-up"},
		},
		LastLoss:   &targetNotice{Text: "closed by the target", Count: 2, SinceSeconds: 4},
		LastReject: &targetNotice{Text: "invalid-field", Count: 2, SinceSeconds: 75},
		LastAsync:  &targetNotice{Text: "logout-request", Count: 1, SinceSeconds: 5},
	}
}

// TestEveryPolicyIsExplained: a policy that can be chosen can be explained.
func TestEveryPolicyIsExplained(t *testing.T) {
	for _, policy := range initiator.Policies() {
		assert.NotEmpty(t, policyWords[policy], policy)
	}
}

// TestPathColumnsWithSomethingToSay: columns that are empty for every path are not there.
func TestPathColumnsWithSomethingToSay(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, tableOf(pathColumns, append(sample().Paths, battered())).writeTo(&b))
	golden(t, "paths-battered.txt", b.String())
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
	p.Cost.Late, p.Cost.Queue, p.Cost.PerCommand = 10, 11, 12
	assert.Equal(t, pathCost{1, 2, 3, 4, 10, 11, 12, 5, 6, 7, 8, 9, true}, newPathStatus(p, time.Now()).Cost)
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
