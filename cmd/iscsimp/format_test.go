package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestFormatting(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 10 << 30: "10 GiB",
		1<<40 - 1: "1 TiB", math.MaxUint64: "16 EiB", 1<<20 - 1: "1 MiB",
	} {
		assert.Equal(t, want, formatSize(n))
	}
	for s, want := range map[float64]string{
		0: "-", -1: "-", 262e-6: "262µs", 2.36e-3: "2.36ms", 0.25: "250ms", 12.34: "12.3s",
	} {
		assert.Equal(t, want, formatLatency(s))
	}
	assert.Equal(t, "-", formatLatency(math.NaN()))
	for s, want := range map[float64]string{
		0: "0s", -5: "0s", 59.9: "59s", 60: "1m00s", 3599: "59m59s", 3600: "1h00m", 86400: "1d00h", 200000: "2d07h",
		math.Inf(1): "-",
	} {
		assert.Equal(t, want, formatAge(s))
	}
	assert.Equal(t, "33.3%", formatShare(1.0/3))
	assert.Equal(t, "-", formatShare(math.NaN()))
	for v, want := range map[float64]string{0: "0", 0.04: "0.0", 9.96: "10.0", 1234.5: "1234"} {
		assert.Equal(t, want, formatRate(v))
	}
	assert.Equal(t, "", formatTime(time.Time{}))
	local := time.FixedZone("x", 3600)
	assert.Equal(t, "2026-11-22T11:00:00.250Z", formatTime(time.Date(2026, 11, 22, 12, 0, 0, 250e6, local)))
}

func TestTablesCannotBeDisturbedByTargets(t *testing.T) {
	var b bytes.Buffer
	tab := table{header: []string{"A", "B"}}
	tab.add("x\ty\nz\x1b[31m", "")
	require.NoError(t, tab.writeTo(&b))
	assert.Equal(t, "A           B\nx?y?z?[31m  -\n", b.String())
}

// sample is a device in trouble, with everything there is to show.
func sample() deviceStatus {
	left := 42.5
	return deviceStatus{
		Name: "disk1-0", Target: "iqn.2026-01.com.example:disk1", LUN: 0, State: "degraded", PID: 1234,
		InitiatorName: "iqn.2026-01.com.example:host", Started: "2026-11-22T11:00:00.000Z", UptimeSeconds: 3600,
		SizeBytes: 10 << 30, BlockSize: 512, Identity: "naa.6001405abcdef", Vendor: "ACME", Product: "DISK",
		Policy: "latency", Exports: []string{"nbd+unix:///?socket=/run/iscsimp/disk1-0.nbd"}, PathsUp: 1, PathsTotal: 2,
		InFlight: 7, Queued: 3, Requests: 1000000, Failed: 2, LastError: "input/output error", NoPathSecondsLeft: &left,
		Fenced:      []fencedRange{{Path: "2", Portal: "10.0.1.1:3260", Op: "WRITE", OffsetBytes: 4096, LengthBytes: 512, SinceSeconds: 1.5, SecondsLeft: 58.5}},
		FencedTotal: 1,
		Paths: []pathStatus{
			{
				ID: "1", Portal: "10.0.0.1:3260", State: "up", Active: true, Since: "2026-11-22T11:00:01.000Z", SinceSeconds: 3599,
				Reason: "identified as naa.6001405abcdef", Priority: 1, Weight: 1, Share: 0.98, ShareTotal: 0.5, IOs: 500000, Bytes: 1 << 31,
				IOPS: 43210.4, MBps: 176.9, P50Seconds: 0.000262, P99Seconds: 0.00236, InFlight: 7, Retries: 0, Logins: 1,
				ISID: "80c46d60931b", TPGT: 1, LocalAddress: "10.0.0.9:51404",
			},
			{
				ID: "2", Portal: "[2001:db8::1]:3260", State: "down", Since: "2026-11-22T11:59:00.000Z", SinceSeconds: 60,
				Reason: "connection lost: reset by peer; check the network", Priority: 1, Weight: 1, Share: 0.02, ShareTotal: 0.5,
				IOs: 500000, Retries: 9, Errors: 1, Losses: 1, Logins: 1, TPGT: -1,
			},
		},
	}
}

func TestPathsTableAndJSON(t *testing.T) {
	devices := []deviceStatus{sample(), notAnswering("hung-1", claim{PID: 99, Target: "iqn.2026-01.com.example:hung", LUN: lunJSON(scsi.MakeLUN(1))})}
	var b bytes.Buffer
	require.NoError(t, writePaths(&b, devices))
	golden(t, "paths.txt", b.String())
	b.Reset()
	require.NoError(t, devicesTable(devices).writeTo(&b))
	golden(t, "ls.txt", b.String())
	b.Reset()
	require.NoError(t, writeJSON(&b, devicesReport{schemaVersion, devices}, true))
	golden(t, "paths.json", b.String())
	var back devicesReport
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	assert.Equal(t, devices, back.Devices)
}

func TestDiscoverAndLunsOutput(t *testing.T) {
	found := initiator.DiscoverResult{
		Targets: []initiator.Target{
			{Name: "iqn.2026-01.com.example:a", Portals: []initiator.TargetPortal{
				{Address: "10.0.0.1:3260", TPGT: 1, Via: []string{"10.0.0.1:3260"}},
				{Address: "[2001:db8::1]:3260", TPGT: -1, Via: []string{"10.0.0.1:3260", "10.0.0.2:3260"}},
			}},
			{Name: "iqn.2026-01.com.example:unreachable"},
		},
		Portals: []initiator.PortalReport{
			{Portal: "10.0.0.1:3260", Found: 2, Elapsed: 1500 * time.Microsecond},
			{Portal: "10.0.0.3:3260", Elapsed: time.Second, Err: errors.New("no answer")},
		},
	}
	var b bytes.Buffer
	require.NoError(t, targetsTable(found.Targets).writeTo(&b))
	golden(t, "discover.txt", b.String())
	b.Reset()
	require.NoError(t, writeJSON(&b, newDiscoverReport(found), true))
	golden(t, "discover.json", b.String())

	luns := initiator.LunsResult{Portals: found.Portals, LUNs: []initiator.LUNInfo{
		{LUN: 0, Type: scsi.TypeController, Vendor: "ACME", Product: "ARRAY", Revision: "1"},
		{
			LUN: scsi.MakeLUN(1), Type: scsi.TypeDisk, SizeBytes: 1 << 40, BlockSize: 4096, PhysicalBlock: 4096, Vendor: "ACME",
			Product: "DISK", Serial: "S1", Identity: "naa.6001405abcdef", Strong: true, Thin: true, ReadOnly: true, Portals: []string{"10.0.0.1:3260"},
		},
		{LUN: scsi.MakeLUN(1), Type: scsi.TypeDisk, Portals: []string{"10.0.0.2:3260"}, Err: errors.New("READ CAPACITY: no")},
		{LUN: 0x0102030405060708, Type: 0x42},
	}}
	b.Reset()
	require.NoError(t, lunsTable(luns.LUNs).writeTo(&b))
	golden(t, "luns.txt", b.String())
	b.Reset()
	require.NoError(t, writeJSON(&b, newLunsReport("iqn.2026-01.com.example:a", luns), true))
	golden(t, "luns.json", b.String())
}

func TestLUNsInJSON(t *testing.T) {
	for lun, want := range map[scsi.LUN]string{0: "0", scsi.MakeLUN(300): "300", 0x0102030405060708: `"0x0102030405060708"`} {
		b, err := json.Marshal(lunJSON(lun))
		require.NoError(t, err)
		assert.Equal(t, want, string(b))
		var back lunJSON
		require.NoError(t, json.Unmarshal(b, &back))
		assert.Equal(t, lun, scsi.LUN(back))
	}
	var l lunJSON
	for _, bad := range []string{`-1`, `"x"`, `65536`, `{}`, `1.5`} {
		assert.Error(t, json.Unmarshal([]byte(bad), &l), bad)
	}
}

func TestExitCodes(t *testing.T) {
	for want, errs := range map[int][]error{
		exitOK:       {nil},
		exitError:    {errors.New("x"), &initiator.Error{}, &initiator.Error{Kind: initiator.KindUnusable}, &initiator.Error{Kind: initiator.KindIdentity}},
		exitNoDevice: {noSuchDevice("/nonexistent", "x")},
		exitConnect:  {&initiator.Error{Kind: initiator.KindConnect}},
		exitLogin:    {&initiator.Error{Kind: initiator.KindLogin}},
		exitInvalid:  {usagef("x"), &initiator.Error{Kind: initiator.KindInvalid}},
		exitTimeout:  {&initiator.Error{Kind: initiator.KindTimeout}},
		exitNothing:  {&initiator.Error{Kind: initiator.KindNotFound}, silentExit(21)},
		exitAuth:     {&initiator.Error{Kind: initiator.KindAuth}},
	} {
		for _, err := range errs {
			assert.Equal(t, want, exitCode(err), "%v", err)
			if err != nil {
				assert.Equal(t, want, exitCode(errors.Join(nil, err)), "wrapped")
			}
		}
	}
}

func TestTimes(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "120": 2 * time.Minute, "0.5": 500 * time.Millisecond, "500ms": 500 * time.Millisecond, "2m": 2 * time.Minute, "1e3": 1000 * time.Second,
	} {
		got, err := parseTime("x", in)
		require.NoError(t, err, in)
		assert.Equal(t, want, got)
	}
	for _, bad := range []string{"", "x", "-1", "-1s", "NaN", "Inf", "1e300", "1 s"} {
		_, err := parseTime("x", bad)
		assert.Equal(t, exitInvalid, exitCode(err), bad)
	}
}
