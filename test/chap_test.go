package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/peer"
)

const exitAuthentication = 24

// Accounts of the targets here.
var (
	alice   = peer.Account{User: "alice", Secret: "alicesecret1234"}
	storage = peer.Account{User: "storage", Secret: "storagesecret56"}
)

// fileOf is a file with the secret of an account.
func fileOf(t *testing.T, account peer.Account) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(account.Secret+"\n"), 0o600))
	return path
}

// asUser are the options to log in as an account.
func asUser(t *testing.T, account peer.Account, more ...string) []string {
	return append([]string{"--chap-user", account.User, "--chap-secret-file", fileOf(t, account)}, more...)
}

// proven are the options to have the target prove itself.
func proven(t *testing.T, account peer.Account) []string {
	return []string{"--mutual-chap-user", account.User, "--mutual-chap-secret-file", fileOf(t, account)}
}

// TestTgtdCHAP: one-way and mutual, with every order of algorithms. tgtd takes 7 for SHA-1: a list that begins with SHA256 succeeds at the second login.
func TestTgtdCHAP(t *testing.T) {
	target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 16)}}, CHAP: &alice, MutualCHAP: &storage})
	for name, options := range map[string][]string{
		"one-way":              asUser(t, alice),
		"mutual":               asUser(t, alice, proven(t, storage)...),
		"SHA256 first":         asUser(t, alice, "--chap-algs", "SHA256,MD5"),
		"SHA256 first, mutual": asUser(t, alice, append(proven(t, storage), "--chap-algs", "SHA256,MD5")...),
		"MD5 only":             asUser(t, alice, "--chap-algs", "MD5"),
	} {
		t.Run(name, func(t *testing.T) {
			options = append(options, "--log-level", "debug", "--trace", filepath.Join(t.TempDir(), "trace"))
			device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: 1, Args: options})
			waitPaths(t, device, "all paths up", allUp(2))
			load := startLoad(t, device)
			runFor(t, 300*time.Millisecond)
			sessions, err := target.Sessions()
			require.NoError(t, err)
			require.NotEmpty(t, sessions)
			require.NoError(t, target.DropConnection(sessions[0]))
			waitPaths(t, device, "all paths up", allUp(2))
			load.finish()
			status, err := device.Command(t.Context(), "paths", "--json")
			require.NoError(t, err)
			noSecretIn(t, string(device.Ready), status, device.Output(), ofFile(t, options[len(options)-1]), ofProcess(t, device.Pid()))
		})
	}
}

// noSecretIn looks for the accounts' secrets, as text and in hexadecimal.
func noSecretIn(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		require.NotEmpty(t, text)
		for _, account := range []peer.Account{alice, storage} {
			assert.NotContains(t, text, account.Secret)
			assert.NotContains(t, strings.ToLower(text), fmt.Sprintf("%x", account.Secret))
		}
	}
}

func ofFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// ofProcess is what every program of the same user can read of a process.
func ofProcess(t *testing.T, pid int) string {
	t.Helper()
	return ofFile(t, fmt.Sprintf("/proc/%d/cmdline", pid)) + ofFile(t, fmt.Sprintf("/proc/%d/environ", pid))
}

// TestTgtdRefusesWrongSecrets, and is refused when it does not prove itself: the login ends with the exit code of iscsiadm for that.
func TestTgtdRefusesWrongSecrets(t *testing.T) {
	both := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1)}}, CHAP: &alice, MutualCHAP: &storage})
	oneWay := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1)}}, CHAP: &alice})
	open := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1)}}})
	liar := peer.Account{User: alice.User, Secret: "not alice at all"}
	for name, c := range map[string]struct {
		target  *peer.TgtdTarget
		options []string
	}{
		"no CHAP here":                {oneWay, nil},
		"wrong secret":                {oneWay, asUser(t, liar)},
		"wrong secret, SHA256 first":  {oneWay, asUser(t, liar, "--chap-algs", "7,5")},
		"wrong user":                  {oneWay, asUser(t, peer.Account{User: "bob", Secret: alice.Secret})},
		"wrong secret of the target":  {both, asUser(t, alice, proven(t, peer.Account{User: storage.User, Secret: "not the storage"})...)},
		"wrong name of the target":    {both, asUser(t, alice, proven(t, peer.Account{User: "bob", Secret: storage.Secret})...)},
		"target cannot prove itself":  {oneWay, asUser(t, alice, proven(t, storage)...)},
		"target wants no CHAP at all": {open, asUser(t, alice, proven(t, storage)...)},
	} {
		t.Run(name, func(t *testing.T) {
			err := loginOnce(t, append(c.options, "-p", c.target.Portals[0], c.target.IQN, "--lun", "1")...)
			require.Error(t, err)
			t.Log(err)
			assert.Equal(t, exitAuthentication, exitStatus(err))
			noSecretIn(t, err.Error())
		})
	}
}

// TestOneWayCHAPIsNotInsistedOn: targets without CHAP let the initiator in all the same, also gotgt, which never speaks of AuthMethod.
func TestOneWayCHAPIsNotInsistedOn(t *testing.T) {
	gotgt := peer.NeedGotgt(t, peer.Gotgt{Portals: 1})
	tgtd := peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 1)}}})
	for name, login := range map[string]peer.Login{
		"gotgt": {Portals: gotgt.Portals, IQN: gotgt.IQN, LUN: gotgt.LUN},
		"tgtd":  {Portals: tgtd.Portals, IQN: tgtd.IQN, LUN: 1},
	} {
		t.Run(name, func(t *testing.T) {
			login.Args = asUser(t, alice)
			device := peer.NeedLogin(t, login)
			require.NoError(t, dialNBD(t, device).Read(make([]byte, 512), 0))
			assert.Contains(t, device.Output(), "asks for no authentication")
			_, err := peer.RunIscsimp(t.Context(), append([]string{"discover", "-p", login.Portals[0], "--initiator-name", peer.InitiatorName}, login.Args...)...)
			require.NoError(t, err)
		})
	}
}
