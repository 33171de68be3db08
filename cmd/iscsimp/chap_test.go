package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/chaptest"
	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// secretFile is a file with a secret that only its owner can read.
func secretFile(t *testing.T, secret string) string {
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
	return path
}

func chapTarget(t *testing.T) *iscsitest.Target {
	return startTarget(t, iscsitest.Config{Authenticate: chaptest.New(t)})
}

// noSecrets asserts that no secret is in texts.
func noSecrets(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for _, s := range []string{chaptest.Secret, chaptest.MutualSecret, "a wrong secret"} {
			assert.NotContains(t, text, s)
			assert.NotContains(t, strings.ToLower(text), fmt.Sprintf("%x", s))
		}
	}
}

// processText is what the system shows of a process.
func processText(t *testing.T, pid int) string {
	if runtime.GOOS != "linux" {
		return ""
	}
	var all []byte
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		require.NoError(t, err)
		require.NotEmpty(t, b)
		all = append(all, b...)
	}
	return string(all)
}

func fileText(t *testing.T, path ...string) string {
	b, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	require.NotEmpty(t, b)
	return string(b)
}

// TestCHAPFromFiles: mutual CHAP at every command that logs in, with as much
// output as there is, none of which shows a secret.
func TestCHAPFromFiles(t *testing.T) {
	tgt := chapTarget(t)
	trace := filepath.Join(t.TempDir(), "trace")
	options := []string{
		"--chap-user", chaptest.User, "--chap-secret-file", secretFile(t, chaptest.Secret), "--chap-algs", "md5,sha256",
		"--mutual-chap-user", chaptest.MutualUser, "--mutual-chap-secret-file", secretFile(t, chaptest.MutualSecret),
		"--log-level", "debug", "--trace", trace,
	}
	p := login(t, tgt, options...)
	noSecrets(t, processText(t, p.cmd.Process.Pid))
	for _, args := range [][]string{{"ls", "--json"}, {"paths", "--json"}, {"paths"}} {
		r := runCLI(t, append(args, "--runtime-dir", p.dir)...)
		require.Zero(t, r.code, r.stderr)
		noSecrets(t, r.stdout, r.stderr)
	}
	require.Zero(t, runCLI(t, "logout", "--all", "--runtime-dir", p.dir).code)
	require.Zero(t, p.wait())
	noSecrets(t, p.line, p.stderr.String(), fileText(t, trace))
	assert.Contains(t, p.stderr.String(), "logged in")

	common := append([]string{"--initiator-name", "iqn.2026-01.test.iscsimp:host", "--runtime-dir", p.dir, "-p", tgt.Addr(0)}, options...)
	for command, target := range map[string][]string{"discover": nil, "luns": {tgt.Name()}, "doctor": {tgt.Name()}} {
		r := runCLI(t, append(append([]string{command, "--json"}, common...), target...)...)
		require.Zero(t, r.code, "%s: %s%s", command, r.stdout, r.stderr)
		noSecrets(t, r.stdout, r.stderr, fileText(t, trace))
	}
}

// TestCHAPFromTheEnvironment: the secrets reach a process in the background, but
// neither its environment nor its command line.
func TestCHAPFromTheEnvironment(t *testing.T) {
	tgt := chapTarget(t)
	t.Setenv(variableCHAPSecret, chaptest.Secret)
	t.Setenv(variableMutualSecret, chaptest.MutualSecret)
	dir := shortdir.New(t)
	address := fmt.Sprintf("iscsi://%s@%s/%s/0", chaptest.User, tgt.Addr(0), tgt.Name())
	cmd := self(t.Context(), "login", "--json", "--background", "--runtime-dir", dir, "--log-level", "debug",
		"--initiator-name", "iqn.2026-01.test.iscsimp:host", address)
	out, err := cmd.Output()
	require.NoError(t, err)
	var ready readyReport
	require.NoError(t, json.Unmarshal(out, &ready))
	shown := processText(t, ready.PID)
	noSecrets(t, shown, string(out))
	if shown != "" {
		assert.NotContains(t, shown, variableCHAPSecret+"=")
		assert.NotContains(t, shown, variableMutualSecret+"=")
	}
	require.Zero(t, runCLI(t, "logout", ready.Name, "--runtime-dir", dir).code)
	noSecrets(t, fileText(t, dir, ready.Name+logSuffix))
}

// TestCHAPFailures end with 24, and tell what to do but not the secret.
func TestCHAPFailures(t *testing.T) {
	tgt := chapTarget(t)
	right, wrong := secretFile(t, chaptest.Secret), secretFile(t, "a wrong secret")
	for name, options := range map[string][]string{
		"none":                  nil,
		"wrong secret":          {"--chap-user", chaptest.User, "--chap-secret-file", wrong},
		"wrong user":            {"--chap-user", "bob", "--chap-secret-file", right},
		"target's secret wrong": {"--chap-user", chaptest.User, "--chap-secret-file", right, "--mutual-chap-secret-file", wrong},
		"target's name wrong": {
			"--chap-user", chaptest.User, "--chap-secret-file", right,
			"--mutual-chap-user", "bob", "--mutual-chap-secret-file", secretFile(t, chaptest.MutualSecret),
		},
	} {
		for _, command := range []string{"login", "background", "luns", "doctor"} {
			t.Run(command+" "+name, func(t *testing.T) {
				args := []string{command, "--runtime-dir", shortdir.New(t), "--initiator-name", "iqn.2026-01.test.iscsimp:host", "-p", tgt.Addr(0), tgt.Name()}
				if command == "background" {
					args[0] = "login"
					args = append(args, "--background")
				}
				var stdout, stderr strings.Builder
				cmd := self(t.Context(), append(args, options...)...)
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				_ = cmd.Run()
				assert.Equal(t, exitAuth, cmd.ProcessState.ExitCode(), "%s%s", &stdout, &stderr)
				noSecrets(t, stdout.String(), stderr.String())
			})
		}
	}
}

// TestSecretFilesAreForTheirOwner: a file that others can read is refused.
func TestSecretFilesAreForTheirOwner(t *testing.T) {
	if !hasFileModes {
		t.Skip("no permission bits here")
	}
	path := secretFile(t, chaptest.Secret)
	require.NoError(t, os.Chmod(path, 0o644))
	r := runCLI(t, "discover", "-p", "127.0.0.1:1", "--chap-user", "a", "--chap-secret-file", path)
	assert.Equal(t, exitInvalid, r.code)
	assert.Contains(t, r.stderr, "chmod")
	noSecrets(t, r.stderr)
	t.Setenv(variableCHAPSecret, "")
	r = runCLI(t, "discover", "-p", "127.0.0.1:1", "--chap-user", "a")
	assert.Equal(t, exitInvalid, r.code)
	assert.Contains(t, r.stderr, variableCHAPSecret)
}
