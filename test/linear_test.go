package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/nbdload"
	"github.com/iscsimp/iscsimp/test/peer"
	"github.com/iscsimp/iscsimp/test/tcpproxy"
)

// TestHistoryIsLinearizableWhilePathsFlap records what concurrent readers and writers of a few blocks saw while the lines to the target went bad and well at
// random, and asks a checker whether one disk, doing one thing after another, could have answered so.
func TestHistoryIsLinearizableWhilePathsFlap(t *testing.T) {
	const paths = 3
	target := peer.NeedTgtd(t, paths, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1)}}})
	proxies, portals := behindProxies(t, target.Portals)
	device := peer.NeedLogin(t, peer.Login{Portals: portals, IQN: target.IQN, LUN: 1})
	waitPaths(t, device, "all paths up", allUp(paths))

	random := seed(t)
	stop := make(chan struct{})
	flapping := make(chan error, 1)
	go func() {
		defer close(stop)
		flapping <- flap(rand.New(rand.NewPCG(random, 1)), proxies, 6*time.Second)
	}()
	history, err := nbdload.Record(nbdload.Recording{Disks: []nbdload.Disk{dialNBD(t, device), dialNBD(t, device)}, Zeroes: true, Seed: random}, stop)
	require.NoError(t, <-flapping)
	require.NoError(t, err)
	t.Logf("%d operations on blocks, %d torn and left out", len(history.Operations), history.Torn)
	require.Zero(t, history.Errors, "one path was always well")
	require.Empty(t, history.Damaged)
	require.Greater(t, len(history.Operations), 200)
	requireLinearizable(t, history)
}

// flap makes all but one path, another one each time, do something bad for a while.
func flap(random *rand.Rand, proxies []*tcpproxy.Proxy, total time.Duration) error {
	for end := time.Now().Add(total); time.Now().Before(end); {
		well := random.IntN(len(proxies))
		for i, proxy := range proxies {
			if i == well {
				continue
			}
			var err error
			switch random.IntN(5) {
			case 0:
				err = proxy.Cut()
			case 1:
				err = proxy.Stall()
			case 2:
				err = proxy.Delay(time.Duration(1+random.IntN(50)) * time.Millisecond)
			case 3:
				proxy.Reset()
			}
			if err != nil {
				return err
			}
		}
		time.Sleep(time.Duration(50+random.IntN(500)) * time.Millisecond)
		for _, proxy := range proxies {
			if err := proxy.Go(); err != nil {
				return err
			}
		}
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
	}
	return nil
}

// requireLinearizable fails with the path of a picture when the history is not.
func requireLinearizable(t *testing.T, history nbdload.History) {
	t.Helper()
	result, info := porcupine.CheckOperationsVerbose(nbdload.Registers, history.Operations, 2*time.Minute)
	if result == porcupine.Ok {
		return
	}
	picture := filepath.Join(os.TempDir(), fmt.Sprintf("%s-%d.html", t.Name(), os.Getpid()))
	require.NoError(t, porcupine.VisualizePath(nbdload.Registers, info, picture))
	t.Fatalf("the history is %s; open %s", map[porcupine.CheckResult]string{porcupine.Illegal: "not linearizable", porcupine.Unknown: "too long to check"}[result], picture)
}
