package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
)

// TestConnectionsInStatus: --connections reaches the target; `paths` tells how many there are.
func TestConnectionsInStatus(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{Params: iscsitest.Params{MaxConnections: 4}})
	p := login(t, tgt, "--connections", "3")
	var report devicesReport
	require.Eventually(t, func() bool {
		r := runCLI(t, "paths", "--json", "--runtime-dir", p.dir)
		return r.code == 0 && json.Unmarshal([]byte(r.stdout), &report) == nil && report.Devices[0].Paths[0].Connections == 3
	}, patience, 10*time.Millisecond)
	assert.Contains(t, runCLI(t, "paths", "--runtime-dir", p.dir).stdout, "CONNS")
	require.Zero(t, runCLI(t, "logout", "--all", "--runtime-dir", p.dir).code)
	require.Zero(t, p.wait())
}

// TestPathsTableOfSeveralConnections: the column is there only when it tells something.
func TestPathsTableOfSeveralConnections(t *testing.T) {
	paths := sample().Paths
	paths[0].Connections = 1
	var b bytes.Buffer
	require.NoError(t, tableOf(pathColumns, paths).writeTo(&b))
	assert.NotContains(t, b.String(), "CONNS")
	paths[0].Connections = 4
	b.Reset()
	require.NoError(t, tableOf(pathColumns, paths).writeTo(&b))
	golden(t, "paths-connections.txt", b.String())
}

// TestKeysReachTheTarget: what the options say is what is negotiated.
func TestKeysReachTheTarget(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{Params: iscsitest.Params{AnyPDUOrder: true, AnySequenceOrder: true}})
	p := login(t, tgt, "--initial-r2t", "--immediate-data=no", "--data-pdu-in-order=no", "--data-sequence-in-order=no", "--first-burst-length", "4096", "--max-burst-length", "65536",
		"--max-recv-data-segment-length", "8192", "--max-outstanding-r2t", "3")
	sessions := tgt.Sessions()
	require.Len(t, sessions, 1)
	n := sessions[0].Negotiated
	assert.True(t, n.InitialR2T)
	assert.False(t, n.ImmediateData)
	assert.True(t, n.AnyPDUOrder && n.AnySequenceOrder)
	assert.EqualValues(t, 65536, n.MaxBurstLength)
	assert.EqualValues(t, 3, n.MaxOutstandingR2T)
	require.Zero(t, runCLI(t, "logout", "--all", "--runtime-dir", p.dir).code)
	require.Zero(t, p.wait())
	p = login(t, tgt, "--max-burst-length", "1024") // the default of the first burst comes down with it
	assert.EqualValues(t, 1024, tgt.Sessions()[0].Negotiated.MaxBurstLength)
	require.Zero(t, runCLI(t, "logout", "--all", "--runtime-dir", p.dir).code)
	require.Zero(t, p.wait())
}
