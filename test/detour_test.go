package test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/peer"
)

// TestDeadPortalHoldsBackOverlappingWritesForSecondsOnly has a portal of tgtd fall silent with writes in flight, for good. Newer writes to the same blocks wait
// until the session behind it is ended through the other portal, and not for the fence's whole time.
func TestDeadPortalHoldsBackOverlappingWritesForSecondsOnly(t *testing.T) {
	target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 4)}}})
	proxies, portals := behindProxies(t, target.Portals)
	device := peer.NeedLogin(t, peer.Login{Portals: portals, IQN: target.IQN, LUN: 1, Args: []string{"--policy", "round-robin", "--one-node"}})
	waitPaths(t, device, "all paths up", allUp(2))
	client := dialNBD(t, device)
	buf := make([]byte, 4096)
	require.NoError(t, proxies[0].Stall())
	start, longest := time.Now(), time.Duration(0)
	for time.Since(start) < 12*time.Second {
		began := time.Now()
		require.NoError(t, client.Write(buf, 0, false))
		longest = max(longest, time.Since(began))
	}
	t.Logf("the longest of the writes to one block took %v", longest)
	assert.Greater(t, longest, time.Second, "the test must reach the fence")
	assert.Less(t, longest, 20*time.Second)
	require.NoError(t, proxies[0].Go())
	waitPaths(t, device, "all paths up", allUp(2))
}
