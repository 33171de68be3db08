// Package test tries the iscsimp binary against targets and clients that others wrote: gotgt and tgtd as processes of their own on one side, fio, libnbd's and
// qemu's tools and a checking load on the other.
//
// What does not belong here: tests that need no foreign program; those stand beside the package they test.
package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/nbdload"
	"github.com/iscsimp/iscsimp/test/peer"
	"github.com/iscsimp/iscsimp/test/tcpproxy"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := peer.RemoveBuilt(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// seed is random, printed, and repeated with ISCSIMP_SEED.
func seed(t *testing.T) uint64 {
	t.Helper()
	value := rand.Uint64()
	if given := os.Getenv("ISCSIMP_SEED"); given != "" {
		var err error
		value, err = strconv.ParseUint(given, 0, 64)
		require.NoError(t, err, "ISCSIMP_SEED")
	}
	t.Logf("seed: ISCSIMP_SEED=%d", value)
	return value
}

// behindProxies puts a proxy in front of each portal and returns the proxies and their addresses.
func behindProxies(t *testing.T, portals []string) (proxies []*tcpproxy.Proxy, addresses []string) {
	t.Helper()
	for _, portal := range portals {
		proxy, err := tcpproxy.Open("127.0.0.1:0", portal)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, proxy.Close()) })
		proxies = append(proxies, proxy)
		addresses = append(addresses, proxy.Addr())
	}
	return proxies, addresses
}

// load is a verified load that has filled its blocks and is running.
type load struct {
	t      *testing.T
	device *peer.Device
	*nbdload.Runner
}

// loadBytes is how much of a device the load uses, from its start.
const loadBytes = 16 << 20

// startLoad fills 16 MiB of the device (or all of a smaller one) and starts 32 workers over two NBD connections.
func startLoad(t *testing.T, device *peer.Device) load {
	t.Helper()
	clients := []*nbdload.Client{dialNBD(t, device), dialNBD(t, device)}
	runner, err := nbdload.NewRunner(nbdload.Load{Clients: clients, Bytes: min(loadBytes, clients[0].Size), Seed: seed(t)})
	require.NoError(t, err)
	require.NoError(t, runner.Fill())
	runner.Start()
	return load{t, device, runner}
}

func dialNBD(t *testing.T, device *peer.Device) *nbdload.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), peer.Patience)
	defer cancel()
	client, err := nbdload.Dial(ctx, "unix", device.Socket, "")
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// finish stops the load, reads every block once more, and demands that nothing went wrong.
func (l load) finish() nbdload.Stats {
	l.t.Helper()
	stats := l.Stop()
	errVerify := l.Verify()
	l.t.Logf("%d operations, longest %v, %d torn and read again", stats.Operations, stats.LongestStall.Round(time.Millisecond), stats.Torn)
	require.Empty(l.t, stats.Problems)
	require.NoError(l.t, errVerify)
	require.Zero(l.t, stats.Errors)
	require.Zero(l.t, stats.Mismatches)
	require.Positive(l.t, stats.Writes)
	return stats
}

// waitPaths waits until the device's status fulfills condition.
func waitPaths(t *testing.T, device *peer.Device, what string, condition func(peer.DeviceStatus) bool) peer.DeviceStatus {
	t.Helper()
	status, err := device.WaitPaths(t.Context(), peer.Patience, what, condition)
	require.NoError(t, err)
	return status
}

func allUp(n int) func(peer.DeviceStatus) bool {
	return func(s peer.DeviceStatus) bool { return s.PathsUp() == n }
}

// steady is for tests that hurt the same path again and again: it would be on probation most of the time.
var steady = []string{"--marginal=off"}

func pathIs(portal, state string) func(peer.DeviceStatus) bool {
	return func(s peer.DeviceStatus) bool { return s.Path(portal).State == state }
}

func pathIsNot(portal, state string) func(peer.DeviceStatus) bool {
	return func(s peer.DeviceStatus) bool { return s.Path(portal).State != state }
}

// runFor lets the load run on for a while: time under load is what these tests need, not time for something to settle.
func runFor(t *testing.T, length time.Duration) {
	t.Helper()
	select {
	case <-time.After(length):
	case <-t.Context().Done():
		t.Fatal(context.Cause(t.Context()))
	}
}
