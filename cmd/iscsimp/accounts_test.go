package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/chaptest"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// TestAccountsOfAFile: the accounts of a configuration file are judged together,
// also those of other devices than the one that logs in.
func TestAccountsOfAFile(t *testing.T) {
	tgt := chapTarget(t)
	secret := secretFile(t, chaptest.Secret)
	good := "targets:\n  " + tgt.Name() + ":\n    portal: " + tgt.Addr(0) + "\n    chap_user: " + chaptest.User + "\n    chap_secret_file: " + secret + "\n"
	luns := func(config string) result {
		r := runCLI(t, "luns", "--config", configFile(t, config), tgt.Name())
		noSecrets(t, r.stdout, r.stderr)
		return r
	}
	r := luns(good)
	require.Zero(t, r.code, r.stderr)

	other := "  iqn.2026-01.test:other:\n    chap_user: alice\n    chap_secret: \"some other secret\"\n"
	r = luns(good + other)
	require.Zero(t, r.code, r.stderr)
	for name, config := range map[string]string{
		"in the file":    "    mutual_chap_secret: \"" + chaptest.Secret + "\"\n",
		"the beginning":  "    mutual_chap_secret: \"" + chaptest.Secret + ", and more\"\n",
		"in a file":      "    mutual_chap_secret_file: " + secret + "\n",
		"discovery":      "    discovery_chap_user: x\n    discovery_mutual_chap_secret: \"" + chaptest.Secret + "\"\n",
		"without a user": "devices:\n  one:\n    target: iqn.2026-01.test:third\n    mutual_chap_secret: \"" + chaptest.Secret + "\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := luns(good + other + config)
			require.Equal(t, exitInvalid, r.code, r.stderr)
			assert.Contains(t, r.stderr, "target "+tgt.Name())
			assert.Contains(t, r.stderr, "chap-secret")
		})
	}

	r = luns(good + other + "    mutual_chap_secret_file: /nonexistent\n")
	require.Zero(t, r.code, "what another one needs does not matter here: %s", r.stderr)
	r = runCLI(t, "ls", "--config", configFile(t, good+other+"    mutual_chap_secret_file: "+secret+"\n"), "--runtime-dir", t.TempDir())
	require.NotEqual(t, exitInvalid, r.code, "a command that does not log in: %s", r.stderr)

	twice := "targets:\n  iqn.2026-01.test:a:\n    mutual_chap_secret: \"one for several\"\n  iqn.2026-01.test:b:\n    mutual_chap_secret: \"one for several\"\n"
	r = runCLI(t, "doctor", "--config", configFile(t, twice))
	require.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stdout, "target iqn.2026-01.test:a and target iqn.2026-01.test:b have the same mutual secret")
	assert.NotContains(t, r.stdout, "one for several")
	r = runCLI(t, "doctor", "--config", configFile(t, twice+"    chap_user: alice\n    chap_secret: \"one for several\"\n"))
	require.Equal(t, exitInvalid, r.code)
	assert.Contains(t, r.stdout, "both directions")
}

// TestDoctorTellsOfAuthentication: that there is none is no fault, but is said.
func TestDoctorTellsOfAuthentication(t *testing.T) {
	tgt := chapTarget(t)
	own, theirs := secretFile(t, chaptest.Secret), secretFile(t, chaptest.MutualSecret)
	open := startTarget(t, iscsitest.Config{})
	r := runCLI(t, "doctor", "-p", open.Addr(0))
	require.Zero(t, r.code, r.stdout)
	assert.Regexp(t, `note +authentication +none: .*\n.*chap-secret`, r.stdout)
	one := []string{"doctor", "-p", tgt.Addr(0), tgt.Name(), "--chap-user", chaptest.User, "--chap-secret-file", own}
	r = runCLI(t, one...)
	require.Zero(t, r.code, r.stdout)
	assert.Regexp(t, `note +authentication +CHAP of this host: .*\n.*mutual`, r.stdout)
	r = runCLI(t, append(one, "--mutual-chap-secret-file", theirs)...)
	require.Zero(t, r.code, r.stdout)
	assert.Regexp(t, `ok +authentication +CHAP in both directions`, r.stdout)
	assert.NotContains(t, runCLI(t, "doctor").stdout, "authentication", "of no portal there is nothing to say")
}
