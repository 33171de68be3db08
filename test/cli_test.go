package test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/test/peer"
)

// Exit codes of the command line, those of iscsiadm(8).
const (
	exitNoSuchDevice  = 2
	exitConnection    = 4
	exitLoginRefused  = 5
	exitAlreadyLogged = 15
	exitNothingFound  = 21
)

func exitStatus(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// loginOnce runs a login that is expected to fail, with its sockets in a folder of its own.
func loginOnce(t *testing.T, args ...string) error {
	t.Helper()
	all := append([]string{"login", "--only-given", "--runtime-dir", shortdir.New(t), "--name", "x", "--initiator-name", peer.InitiatorName}, args...)
	_, err := peer.RunIscsimp(t.Context(), all...)
	return err
}

func TestDiscoverFindsTargetsAndReportsDeadPortals(t *testing.T) {
	gotgt := peer.NeedGotgt(t, peer.Gotgt{Portals: 3})
	tgtd := peer.NeedTgtd(t, 2, peer.Tgtd{})
	output, err := peer.RunIscsimp(t.Context(), "discover", "--json", "-p", gotgt.Portals[0], "-p", tgtd.Portals[0], "-p", tgtd.Portals[1], "-p", unusedPortal(t))
	require.NoError(t, err, "a portal that does not answer must not spoil the rest")
	require.True(t, json.Valid([]byte(output)), output)
	for _, want := range append(append([]string{gotgt.IQN, tgtd.IQN}, gotgt.Portals...), tgtd.Portals...) {
		assert.Contains(t, output, want)
	}
}

func TestLunsListsTheDisk(t *testing.T) {
	target := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 3), Serial: "SERIAL77"}}})
	output, err := peer.RunIscsimp(t.Context(), "luns", "--json", "-p", target.Portals[0], target.IQN)
	require.NoError(t, err)
	require.True(t, json.Valid([]byte(output)), output)
	for _, want := range []string{"TESTVEND", "3145728"} {
		assert.Contains(t, output, want)
	}
}

func unusedPortal(t *testing.T) string {
	t.Helper()
	port, err := peer.FreePort()
	require.NoError(t, err)
	return peer.Portals(1, port)[0]
}

func TestFailuresNameTheirRemedy(t *testing.T) {
	target := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1)}}})
	portal := target.Portals[0]
	echo := somethingElse(t)
	for name, c := range map[string]struct {
		args   []string
		status int
	}{
		"nothing listens":     {[]string{"-p", unusedPortal(t), target.IQN}, exitConnection},
		"not iSCSI":           {[]string{"-p", echo, "--login-timeout", "2s", target.IQN}, exitConnection},
		"no such target":      {[]string{"-p", portal, target.IQN + "x"}, exitLoginRefused},
		"no such LUN":         {[]string{"-p", portal, target.IQN, "--lun", "9"}, exitNothingFound},
		"LUN that is no disk": {[]string{"-p", portal, target.IQN, "--lun", "0"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			err := loginOnce(t, c.args...)
			require.Error(t, err)
			t.Log(err)
			assert.Equal(t, c.status, exitStatus(err))
		})
	}
}

// somethingElse listens like a portal but speaks another protocol.
func somethingElse(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 mail.example.com ESMTP ready to serve whoever comes along with something to say\r\n")
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestSecondLoginOfTheSameDeviceIsRefused(t *testing.T) {
	target := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1)}}})
	device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: 1})
	_, err := device.Command(t.Context(), "login", "--only-given", "--name", device.Name, "-p", target.Portals[0], target.IQN, "--lun", "1")
	require.Error(t, err)
	assert.Equal(t, exitAlreadyLogged, exitStatus(err), err)
	require.NoError(t, dialNBD(t, device).Read(make([]byte, 512), 0), "the first must go on")
}

func TestLsPathsAndLogout(t *testing.T) {
	target := peer.NeedGotgt(t, peer.Gotgt{Portals: 2})
	device, err := peer.StartLogin(t.Context(), peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: target.LUN, Name: "disk7"})
	require.NoError(t, err)
	output, err := device.Command(t.Context(), "ls")
	require.NoError(t, err)
	assert.Contains(t, output, "disk7")
	output, err = device.Command(t.Context(), "paths", "disk7")
	require.NoError(t, err)
	assert.Contains(t, output, target.Portals[0])
	_, err = device.Command(t.Context(), "paths", "disk8")
	assert.Equal(t, exitNoSuchDevice, exitStatus(err))
	_, err = device.Command(t.Context(), "logout", "disk7")
	require.NoError(t, err)
	require.NoError(t, device.WaitExit(t.Context()))
}
