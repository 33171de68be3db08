package peer_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/peer"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := peer.RemoveBuilt(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// url is libiscsi's name of a LUN.
func url(portal, iqn string, lun int) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", portal, iqn, lun)
}

// writeAndReadBack writes through one portal and reads through another with qemu's own initiator.
func writeAndReadBack(t *testing.T, writer, reader, iqn string, lun int) {
	t.Helper()
	peer.NeedQemuISCSI(t)
	peer.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 3M", url(writer, iqn, lun))
	peer.Run(t, "qemu-io", "-f", "raw", "-c", "read -P 0x5a 1M 3M", url(reader, iqn, lun))
}

func TestGotgtServesOneDiskThroughAllPortals(t *testing.T) {
	for _, shift := range []int{9, 12} {
		t.Run(fmt.Sprintf("block shift %d", shift), func(t *testing.T) {
			target := peer.NeedGotgt(t, peer.Gotgt{Portals: 3, BlockShift: shift})
			require.Len(t, target.Portals, 3)
			writeAndReadBack(t, target.Portals[0], target.Portals[2], target.IQN, target.LUN)
		})
	}
}

func TestGotgtRefusesWhatItCannotDo(t *testing.T) {
	target := peer.NeedGotgt(t, peer.Gotgt{})
	binary := target.Binary()
	for name, args := range map[string][]string{
		"needed on all interfaces": {"-portals", target.Portals[0]},
		"not IP:PORT":              {"-portals", "localhost:1"},
		"another port":             {"-portals", "127.0.0.2:1,127.0.0.3:2"},
		"give 9":                   {"-portals", "127.0.0.2:1", "-block-shift", "10"},
		"give 1 to 4095":           {"-portals", "127.0.0.2:1", "-size", "0"},
		"give ram or file":         {"-portals", "127.0.0.2:1", "-store", "tape"},
	} {
		output, err := exec.Command(binary, args...).CombinedOutput()
		require.Error(t, err, name)
		assert.Contains(t, string(output), name)
	}
}

func TestGotgtEndsWithItsStandardInput(t *testing.T) {
	binary := peer.NeedGotgt(t, peer.Gotgt{}).Binary()
	port, err := peer.FreePort()
	require.NoError(t, err)
	cmd := exec.Command(binary, "-portals", peer.Portals(1, port)[0])
	cmd.Stdin = strings.NewReader("") // ends at once
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(peer.Patience, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	defer timer.Stop()
	require.NoError(t, cmd.Wait())
}

func TestTgtdSurvivesKillAndKeepsItsFile(t *testing.T) {
	target := peer.NeedTgtd(t, 2, peer.Tgtd{
		LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16)}, {}}, NOPInterval: 5, NOPCount: 3,
		Options: map[string]string{"InitialR2T": "No"},
	})
	writeAndReadBack(t, target.Portals[0], target.Portals[1], target.IQN, 1)
	target.Kill()
	_, err := net.Dial("tcp", target.Portals[0])
	require.Error(t, err)
	require.NoError(t, target.Restart(t.Context()))
	peer.Run(t, "qemu-io", "-f", "raw", "-c", "read -P 0x5a 1M 3M", url(target.Portals[1], target.IQN, 1))
	peer.Run(t, "qemu-io", "-f", "raw", "-c", "read 0 4k", url(target.Portals[1], target.IQN, 2))
}

func TestTgtdRefusesAPortalInUse(t *testing.T) {
	peer.NeedTool(t, "tgtd")
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	require.NoError(t, err)
	defer listener.Close()
	_, err = peer.StartTgtd(t.Context(), peer.Tgtd{Portals: []string{listener.Addr().String()}}, t.TempDir())
	require.ErrorContains(t, err, "portal in use")
}

func TestTgtdAsksForCHAP(t *testing.T) {
	target := peer.NeedTgtd(t, 1, peer.Tgtd{
		LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1), BlockSize: 4096}},
		CHAP: &peer.Account{User: "alice", Secret: "secret1234567"}, MutualCHAP: &peer.Account{User: "target", Secret: "revsecret12345"},
		Options: map[string]string{"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"},
	})
	peer.NeedQemuISCSI(t)
	without := exec.Command("qemu-io", "-f", "raw", "-c", "read 0 4k", url(target.Portals[0], target.IQN, 1))
	require.Error(t, without.Run())
	peer.Run(t, "qemu-io", "-f", "raw", "-c", "read 0 4k", url("alice%secret1234567@"+target.Portals[0], target.IQN, 1))
}

func TestTgtdDropsASessionOnRequest(t *testing.T) {
	target := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1)}}})
	peer.NeedQemuISCSI(t)
	cmd := exec.Command("qemu-io", "-f", "raw", url(target.Portals[0], target.IQN, 1))
	stdin, err := cmd.StdinPipe() // qemu-io waits for commands and keeps its session
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var sessions []string
	require.NoError(t, peer.WaitFor(t.Context(), peer.Patience, func() error {
		sessions, err = target.Sessions()
		if err == nil && len(sessions) != 1 {
			err = fmt.Errorf("%d sessions", len(sessions))
		}
		return err
	}))
	require.NoError(t, target.DropConnection(sessions[0]))
	require.NoError(t, peer.WaitFor(t.Context(), peer.Patience, func() error {
		left, err := target.Sessions()
		if err == nil && slices.Contains(left, sessions[0]) {
			err = fmt.Errorf("session %s is still there", sessions[0])
		}
		return err
	}))
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}

func TestFreePortsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port, err := peer.FreePort()
		require.NoError(t, err)
		require.False(t, seen[port])
		require.Less(t, port, ephemeralPort(t), "an outgoing connection could take it")
		seen[port] = true
	}
}

// ephemeralPort is the lowest port that the system gives to outgoing connections.
func ephemeralPort(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	require.NoError(t, err)
	low, err := strconv.Atoi(strings.Fields(string(text))[0])
	require.NoError(t, err)
	return low
}

func TestMissingToolNamesItsPackage(t *testing.T) {
	t.Setenv("PATH", "")
	_, err := peer.FindTool("nbdinfo")
	require.ErrorContains(t, err, "apt-get install libnbd-bin")
}
