package test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/nbdload"
	"github.com/iscsimp/iscsimp/test/peer"
)

// twoControllers starts two tgtd processes that serve one file as one disk, as the two controllers of an array do, and logs in to both.
func twoControllers(t *testing.T, args ...string) (controllers [2]*peer.TgtdTarget, device *peer.Device) {
	t.Helper()
	file := peer.RAMFile(t, 2*loadBytes>>20)
	var portals []string
	for i := range controllers {
		controllers[i] = peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: file}}})
		portals = append(portals, controllers[i].Portals...)
	}
	device = peer.NeedLogin(t, peer.Login{Portals: portals, IQN: controllers[0].IQN, LUN: 1, Args: slices.Concat(steady, args)})
	waitPaths(t, device, "all paths up", allUp(2))
	return controllers, device
}

func TestTgtdKilledUnderLoadAndRestarted(t *testing.T) {
	controllers, device := twoControllers(t)
	load := startLoad(t, device)
	for range 2 {
		runFor(t, 500*time.Millisecond)
		controllers[1].Kill()
		waitPaths(t, device, "path of the dead controller not up", pathIsNot(controllers[1].Portals[0], "up"))
		runFor(t, time.Second)
		require.NoError(t, controllers[1].Restart(t.Context()))
		waitPaths(t, device, "all paths up", allUp(2))
	}
	runFor(t, 500*time.Millisecond)
	load.finish()
}

// TestTgtdHungControllerWakesUp stops a controller with commands inside and lets it carry them out seconds later, when newer data have been written through the
// other one. Only writes that overlap its unanswered ones may wait for it; nothing may be overwritten.
func TestTgtdHungControllerWakesUp(t *testing.T) {
	controllers, device := twoControllers(t, "--fence-timeout", "60s")
	load := startLoad(t, device)
	elsewhere := dialNBD(t, device)
	for range 2 {
		runFor(t, 500*time.Millisecond)
		require.NoError(t, controllers[1].Pause())
		waitPaths(t, device, "path of the hung controller given up", pathIs(controllers[1].Portals[0], "down"))
		for began := time.Now(); time.Since(began) < time.Second; { // blocks that the load does not use are never fenced
			start := time.Now()
			require.NoError(t, elsewhere.Write(make([]byte, nbdload.BlockSize), loadBytes, false))
			require.NoError(t, elsewhere.Read(make([]byte, nbdload.BlockSize), loadBytes))
			assert.Less(t, time.Since(start), 5*time.Second, "I/O that overlaps nothing waits for the hung controller")
		}
		require.NoError(t, controllers[1].Resume())
		waitPaths(t, device, "all paths up", allUp(2))
	}
	load.finish()
}

func TestTgtdDropsSessionsUnderLoad(t *testing.T) {
	target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16)}}, NOPInterval: 1, NOPCount: 3})
	device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: 1})
	waitPaths(t, device, "all paths up", allUp(2))
	load := startLoad(t, device)
	for range 5 {
		runFor(t, 300*time.Millisecond)
		sessions, err := target.Sessions()
		require.NoError(t, err)
		require.NotEmpty(t, sessions)
		require.NoError(t, target.DropConnection(sessions[0]))
		waitPaths(t, device, "all paths up", allUp(2))
	}
	load.finish()
}

func TestTgtdSilentLineUnderLoad(t *testing.T) {
	target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16)}}})
	proxies, portals := behindProxies(t, target.Portals)
	device := peer.NeedLogin(t, peer.Login{Portals: portals, IQN: target.IQN, LUN: 1})
	waitPaths(t, device, "all paths up", allUp(2))
	load := startLoad(t, device)
	runFor(t, 500*time.Millisecond)
	require.NoError(t, proxies[0].Stall())
	silent := time.Now()
	waitPaths(t, device, "silent path not up", pathIsNot(portals[0], "up"))
	status := waitPaths(t, device, "silent path down", pathIs(portals[0], "down"))
	down := since(t, status.Path(portals[0])).Sub(silent)
	t.Logf("down %v after the line fell silent", down.Round(time.Millisecond))
	assert.Less(t, down, 2*downLimit)
	require.NoError(t, proxies[0].Go())
	waitPaths(t, device, "all paths up", allUp(2))
	load.finish()
}

// TestTgtdSettings: every way a target may want its data, verified under load.
func TestTgtdSettings(t *testing.T) {
	for name, c := range map[string]struct {
		options map[string]string
		block   int
	}{
		"unsolicited data":  {options: map[string]string{"InitialR2T": "No", "ImmediateData": "Yes", "FirstBurstLength": "65536"}},
		"nothing immediate": {options: map[string]string{"InitialR2T": "Yes", "ImmediateData": "No"}},
		"small segments":    {options: map[string]string{"MaxRecvDataSegmentLength": "512", "MaxBurstLength": "4096", "FirstBurstLength": "1024"}},
		"4096-byte blocks":  {block: 4096},
		"small window":      {options: map[string]string{"MaxQueueCmd": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16), BlockSize: c.block}}, Options: c.options})
			device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: 1})
			status := waitPaths(t, device, "all paths up", allUp(2))
			if c.block != 0 {
				assert.EqualValues(t, c.block, status.BlockSize)
			}
			load := startLoad(t, device)
			runFor(t, 700*time.Millisecond)
			load.finish()
		})
	}
}

// TestTgtdTwoDisksThatLookAlikeToTheUser: two portals of one target name lead to different disks. The second must never be used.
func TestTgtdTwoDisksThatLookAlikeToTheUser(t *testing.T) {
	first := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16), SCSIID: "A", Serial: "A"}}, TID: 1})
	second := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16), SCSIID: "B", Serial: "B"}}, TID: 2})
	portals := []string{first.Portals[0], second.Portals[0]}
	device := peer.NeedLogin(t, peer.Login{Portals: portals, IQN: first.IQN, LUN: 1})
	status := waitPaths(t, device, "one path quarantined", func(s peer.DeviceStatus) bool {
		return s.PathsUp() == 1 && (s.Path(portals[0]).State == "quarantined" || s.Path(portals[1]).State == "quarantined")
	})
	for _, path := range status.Paths {
		if path.State == "quarantined" {
			assert.NotEmpty(t, path.Reason)
			assert.Zero(t, path.IOs)
		}
	}
	load := startLoad(t, device)
	runFor(t, 300*time.Millisecond)
	load.finish()
}

func TestTgtdReadOnlyDisk(t *testing.T) {
	target := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1), ReadOnly: true}}})
	device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: 1})
	client := dialNBD(t, device)
	const readOnly = 1 << 1
	assert.NotZero(t, client.Flags&readOnly, "the export does not say that it is read-only")
	require.ErrorIs(t, client.Write(make([]byte, 4096), 0, false), nbdload.Errno(1))
	require.NoError(t, client.Read(make([]byte, 4096), 0))
}

// TestTgtdDataSurviveTheProcess: what was flushed is there after iscsimp left and another one came.
func TestTgtdDataSurviveTheProcess(t *testing.T) {
	target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 4)}}})
	written := bytes.Repeat([]byte("iscsimp!"), 8192)
	login := peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: 1}
	first, err := peer.StartLogin(t.Context(), login)
	require.NoError(t, err)
	client := dialNBD(t, first)
	require.NoError(t, client.Write(written, 1<<20, true))
	require.NoError(t, client.Flush())
	require.NoError(t, first.Stop())
	require.NoError(t, peer.WaitFor(t.Context(), peer.Patience, func() error {
		left, err := target.Sessions()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("sessions %v are left after the logout", left)
		}
		return err
	}))
	client = dialNBD(t, peer.NeedLogin(t, login))
	got := make([]byte, len(written))
	require.NoError(t, client.Read(got, 1<<20))
	require.Equal(t, written, got)
}

// TestWithoutAFenceTheHungControllerOverwrites is a test of the test above: with a fence that gives up at once, the same controller does overwrite newer data,
// and the load sees it.
func TestWithoutAFenceTheHungControllerOverwrites(t *testing.T) {
	controllers, device := twoControllers(t, "--fence-timeout", "1ms")
	load := startLoad(t, device)
	for range 10 {
		runFor(t, 200*time.Millisecond)
		require.NoError(t, controllers[1].Pause())
		waitPaths(t, device, "path of the hung controller given up", pathIs(controllers[1].Portals[0], "down"))
		runFor(t, 500*time.Millisecond) // newer data to overwrite
		require.NoError(t, controllers[1].Resume())
		waitPaths(t, device, "all paths up", allUp(2))
		if load.Stats().Mismatches > 0 {
			break
		}
	}
	load.Stop()
	_ = load.Verify()
	require.Positive(t, load.Stats().Mismatches, "the test of the fence would not notice if it were missing")
	t.Log(load.Stats().Problems[0])
}
