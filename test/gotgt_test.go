package test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/nbdload"
	"github.com/iscsimp/iscsimp/test/peer"
)

// shortFence lets writes that overlap a lost one go on soon: gotgt never proves that an old session is dead (TSIH 0), so that only time settles them. It is safe
// where nothing can be held back for that long.
var shortFence = []string{"--fence-timeout", "1s"}

func TestGotgtCarriesLoadOverAllPaths(t *testing.T) {
	for _, shift := range []int{9, 12} {
		t.Run(fmt.Sprintf("%d-byte blocks", 1<<shift), func(t *testing.T) {
			target := peer.NeedGotgt(t, peer.Gotgt{Portals: 3, SizeMiB: 16, BlockShift: shift})
			device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: target.LUN})
			status := waitPaths(t, device, "all paths up", allUp(3))
			assert.EqualValues(t, 16<<20, status.SizeBytes)
			assert.EqualValues(t, 1<<shift, status.BlockSize)
			assert.Equal(t, target.IQN, status.Target)
			load := startLoad(t, device)
			runFor(t, 2*time.Second)
			status = waitPaths(t, device, "I/O on each path", func(s peer.DeviceStatus) bool {
				return s.Paths[0].IOs > 100 && s.Paths[1].IOs > 100 && s.Paths[2].IOs > 100
			})
			for _, path := range status.Paths {
				assert.Equal(t, "up", path.State, path.Reason)
				assert.Zero(t, path.Retries, path.Portal)
			}
			load.finish()
		})
	}
}

// TestGotgtOutlivesIdleness: libiscsi's non-immediate NOP-Out hangs a session with gotgt after a few idle seconds.
func TestGotgtOutlivesIdleness(t *testing.T) {
	target := peer.NeedGotgt(t, peer.Gotgt{Portals: 2})
	device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: target.LUN})
	waitPaths(t, device, "all paths up", allUp(2))
	runFor(t, 7*time.Second) // idle, but for keep-alive
	client := dialNBD(t, device)
	start := time.Now()
	require.NoError(t, client.Read(make([]byte, 4096), 0))
	assert.Less(t, time.Since(start), 5*time.Second)
	status := waitPaths(t, device, "all paths up", allUp(2))
	for _, path := range status.Paths {
		assert.Zero(t, path.Retries, path.Portal)
	}
}

// TestGotgtPathFailsAndReturns lets one path go bad under load, in ways that lose what was under way, and come back.
func TestGotgtPathFailsAndReturns(t *testing.T) {
	target := peer.NeedGotgt(t, peer.Gotgt{Portals: 3})
	proxies, portals := behindProxies(t, target.Portals)
	device := peer.NeedLogin(t, peer.Login{Portals: portals, IQN: target.IQN, LUN: target.LUN, Args: slices.Concat(steady, shortFence)})
	waitPaths(t, device, "all paths up", allUp(3))
	load := startLoad(t, device)
	for range 2 {
		runFor(t, 300*time.Millisecond)
		require.NoError(t, proxies[1].Cut())
		waitPaths(t, device, "cut path not up", pathIsNot(portals[1], "up"))
		runFor(t, time.Second)
		require.NoError(t, proxies[1].Go())
		waitPaths(t, device, "all paths up after the cut", allUp(3))
		runFor(t, 300*time.Millisecond)
		proxies[1].Reset() // the path may be back before anyone looks
		waitPaths(t, device, "all paths up after the reset", allUp(3))
	}
	stats := load.finish()
	assert.Less(t, stats.LongestStall, 20*time.Second)
}

// TestGotgtPathFallsSilentForAMoment: what was under way is late, not lost. The fence may not give up before the line lets go what it holds back: against a
// target that proves nothing, time is the only protection.
func TestGotgtPathFallsSilentForAMoment(t *testing.T) {
	target := peer.NeedGotgt(t, peer.Gotgt{Portals: 3})
	proxies, portals := behindProxies(t, target.Portals)
	device := peer.NeedLogin(t, peer.Login{Portals: portals, IQN: target.IQN, LUN: target.LUN, Args: []string{"--fence-timeout", "15s"}})
	waitPaths(t, device, "all paths up", allUp(3))
	load := startLoad(t, device)
	for range 3 {
		runFor(t, 300*time.Millisecond)
		require.NoError(t, proxies[1].Stall())
		waitPaths(t, device, "silent path not up", pathIsNot(portals[1], "up"))
		require.NoError(t, proxies[1].Go())
		waitPaths(t, device, "all paths up after the silence", allUp(3))
	}
	load.finish()
}

// TestGotgtGoneForGood: without any path, I/O waits for the time given and then fails; iscsimp leaves in bounded time and says that it could not flush.
func TestGotgtGoneForGood(t *testing.T) {
	target, err := peer.StartGotgt(t.Context(), peer.Gotgt{Portals: 2})
	require.NoError(t, err)
	device, err := peer.StartLogin(t.Context(), peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: target.LUN, Args: []string{"--no-path-timeout", "2s", "--fence-timeout", "1s"}})
	require.NoError(t, err)
	waitPaths(t, device, "all paths up", allUp(2))
	client := dialNBD(t, device)
	block := bytes.Repeat([]byte{1}, nbdload.BlockSize)
	require.NoError(t, client.Write(block, 0, false))
	target.Kill()
	start := time.Now()
	failed := make(chan error, 2)
	go func() { failed <- client.Read(make([]byte, nbdload.BlockSize), 0) }()
	go func() { failed <- client.Write(block, 1<<20, false) }()
	for range 2 {
		select {
		case err := <-failed:
			var code nbdload.Errno
			require.True(t, errors.As(err, &code), "%v", err)
			assert.GreaterOrEqual(t, time.Since(start), 1500*time.Millisecond)
		case <-time.After(peer.Patience):
			t.Fatal("a request without a path did not fail in time")
		}
	}
	status := waitPaths(t, device, "no path up", allUp(0))
	assert.NotEmpty(t, status.Paths[0].Reason)
	require.ErrorContains(t, device.Stop(), "flush before logging out")
}
