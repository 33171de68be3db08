package test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/peer"
)

func haveConnections(n int) func(peer.DeviceStatus) bool {
	return func(s peer.DeviceStatus) bool {
		for _, p := range s.Paths {
			if p.Connections != n {
				return false
			}
		}
		return s.PathsUp() == len(s.Paths)
	}
}

// TestTgtdSeveralConnections: four connections in one session, as the target counts them; one is dropped under load, again and again. tgtd
// grants ErrorRecoveryLevel 0 only, at which the session is reinstated as a whole. That may not be felt but as a pause.
func TestTgtdSeveralConnections(t *testing.T) {
	target := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16)}}, Options: map[string]string{"MaxConnections": "4", "DefaultTime2Wait": "0"}})
	device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: 1, Args: []string{"--connections", "4"}})
	waitPaths(t, device, "four connections", haveConnections(4))
	load := startLoad(t, device)
	for round := range 5 {
		runFor(t, 300*time.Millisecond)
		shown, err := target.Admin("--op", "show", "--mode", "conn", "--tid", "1")
		require.NoError(t, err)
		require.Equal(t, 4, strings.Count(shown, "Connection:"), shown)
		sessions, err := target.Sessions()
		require.NoError(t, err)
		require.Len(t, sessions, 1, shown)
		require.NoError(t, target.DropConnection(sessions[0]))
		waitPaths(t, device, "loss noticed", func(s peer.DeviceStatus) bool { return s.Paths[0].Losses > uint64(round) })
		waitPaths(t, device, "four connections again", haveConnections(4))
	}
	stats := load.finish()
	assert.Less(t, stats.LongestStall, 10*time.Second)
}
