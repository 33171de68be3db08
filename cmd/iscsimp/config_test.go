package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/chaptest"
	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// configFile writes a configuration that only its owner can read.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// cleanState gives the test a state folder of its own.
func cleanState(t *testing.T) {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
}

// understood is what login makes of a command line.
func understood(t *testing.T, args ...string) (o loginOptions, err error) {
	t.Helper()
	app := newApp(io.Discard, io.Discard)
	for _, cmd := range app.Commands {
		if cmd.Name == "login" {
			cmd.Action = withSettings(func(c *cli.Context) error {
				o, err = loginOptionsOf(c, "/run/x")
				return err
			})
		}
	}
	app.Metadata = map[string]any{}
	line, err := optionsFirst(app, append([]string{"login"}, args...))
	require.NoError(t, err)
	return o, app.Run(append([]string{"iscsimp"}, line...))
}

// everySetting is the example of the manual: it holds one of each kind.
const everySetting = `
# For every device
defaults:
  portals: [192.0.2.1, "192.0.2.2:3261"]
  node.session.timeo.replacement_timeout: -1
  noop_out_interval: 3   # as in iscsid.conf
  policy: round-robin
  HeaderDigest: CRC32C,None
  node.conn[0].iscsi.DataDigest: None
  ImmediateData: No
  InitialR2T: Yes
  cmds_max: 32
  initiator_name: iqn.2026-01.test:me
targets:
  iqn.2026-01.test:disk:
    portal: 192.0.2.3
    path_selector: "queue-length 0"
    node.session.auth.username: alice
    password: "a secret: with # in it"
    discovery_chap_user: bob
    discovery_chap_secret: another secret
devices:
  db:
    target: iqn.2026-01.test:disk
    lun: 7
    shared: yes
    exports:
      - unix:/run/db.sock
      - tcp:127.0.0.1:0
    paths:
      192.0.2.3:
        priority: 2
      "[2001:db8::1]:3260":
        state: down
        weight: 5
`

func TestConfiguration(t *testing.T) {
	cleanState(t)
	path := configFile(t, everySetting)
	o, err := understood(t, "--config", path, "db")
	require.NoError(t, err)
	cfg := o.cfg
	assert.Equal(t, "db", o.name)
	assert.Equal(t, "iqn.2026-01.test:disk", cfg.Target)
	assert.Equal(t, "7", cfg.LUN.String())
	assert.Equal(t, []string{"192.0.2.3:3260"}, cfg.Portals, "those of the target replace the general ones")
	assert.Equal(t, initiator.Forever, cfg.NoPathTimeout)
	assert.InDelta(t, 3, cfg.NoopInterval.Seconds(), 0)
	assert.Equal(t, "queue-depth", cfg.Policy)
	assert.Equal(t, 32, cfg.CommandsMax)
	assert.Equal(t, []bool{true, false, true, true, true}, []bool{cfg.HeaderDigest, cfg.DataDigest, cfg.NoImmediateData, cfg.InitialR2T, cfg.Shared})
	assert.Equal(t, "iqn.2026-01.test:me", cfg.InitiatorName)
	assert.Equal(t, "alice", cfg.CHAP.User)
	assert.False(t, cfg.CHAP.Secret.IsZero())
	assert.Equal(t, "bob", cfg.DiscoveryCHAP.User)
	assert.Len(t, o.exports, 2)
	assert.Equal(t, []initiator.PathSetting{{Portal: "192.0.2.3:3260", Priority: 2}, {Portal: "[2001:db8::1]:3260", Weight: 5, Down: true}}, cfg.Paths)

	for _, args := range [][]string{{"iqn.2026-01.test:disk", "--lun", "7"}, {"iscsi://h/iqn.2026-01.test:disk/7"}, {"--name", "db", "iqn.2026-01.test:disk"}} {
		again, err := understood(t, append([]string{"--config", path}, args...)...)
		require.NoError(t, err)
		assert.Equal(t, "db", again.name, "known by target and LUN: %v", args)
		assert.Equal(t, "7", again.cfg.LUN.String())
		assert.True(t, again.cfg.Shared)
		if initiator.IsURL(args[0]) {
			assert.Equal(t, []string{"h:3260"}, again.cfg.Portals, "the address is nearer than the file")
		}
	}
	other, err := understood(t, "--config", path, "iqn.2026-01.test:disk")
	require.NoError(t, err)
	assert.Equal(t, "disk-0", other.name)
	assert.False(t, other.cfg.Shared, "another LUN")
	assert.Equal(t, "alice", other.cfg.CHAP.User)
	third, err := understood(t, "--config", path, "iqn.2026-01.test:third")
	require.NoError(t, err)
	assert.Equal(t, "round-robin", third.cfg.Policy)
	assert.Empty(t, third.cfg.CHAP.User)
	assert.Equal(t, []string{"192.0.2.1:3260", "192.0.2.2:3261"}, third.cfg.Portals)
}

// TestPrecedence: command line, environment, saved steering, file, default.
func TestPrecedence(t *testing.T) {
	cleanState(t)
	target := "iqn.2026-01.test:disk"
	path := configFile(t, "defaults:\n  policy: weighted\n  cmds_max: 5\n  portal: h\ntargets:\n  "+target+":\n    policy: failover\n  "+target+"2:\n")
	policy := func(args ...string) string {
		o, err := understood(t, append([]string{"--config", path}, args...)...)
		require.NoError(t, err)
		assert.Equal(t, 5, o.cfg.CommandsMax)
		return o.cfg.Policy
	}
	assert.Equal(t, "weighted", policy(target+"2"))
	assert.Equal(t, "failover", policy(target))
	_, err := saveSteering("disk-0", "", pathCommand{Action: flagPolicy, Value: "least-bytes"})
	require.NoError(t, err)
	assert.Equal(t, "least-bytes", policy(target))
	assert.Equal(t, "failover", policy(target, "--lun", "1"), "saved for another device")
	t.Setenv("ISCSIMP_POLICY", "queue-depth")
	assert.Equal(t, "queue-depth", policy(target))
	assert.Equal(t, "latency", policy(target, "--policy", "latency"))
	t.Setenv("ISCSIMP_CMDS_MAX", "6")
	t.Setenv("ISCSIMP_REPLACEMENT_TIMEOUT", "forever")
	o, err := understood(t, "--config", path, target, "--noop-out-interval", "9")
	require.NoError(t, err)
	assert.Equal(t, 6, o.cfg.CommandsMax)
	assert.Equal(t, initiator.Forever, o.cfg.NoPathTimeout, "by another name of the option")
	assert.InDelta(t, 9, o.cfg.NoopInterval.Seconds(), 0)
	t.Setenv("ISCSIMP_CONFIG", path)
	o, err = understood(t, target, "--policy", "latency")
	require.NoError(t, err)
	assert.Equal(t, []string{"h:3260"}, o.cfg.Portals, "the file is named in the environment")
}

// TestWhatTheEnvironmentDoesNotSay: what is to be done stands on the command line.
func TestWhatTheEnvironmentDoesNotSay(t *testing.T) {
	for _, name := range []string{"ALL", "FORCE", "LUN", "NAME", "KEY", "SAVE", "BACKGROUND"} {
		t.Setenv(variablePrefix+name, "1")
	}
	r := runCLI(t, "logout", "--runtime-dir", shortdir.New(t))
	assert.Contains(t, r.stderr, "one of the two")
	o, err := understood(t, "-p", "h", someIQN)
	require.NoError(t, err)
	assert.Equal(t, "disk-0", o.name)
	t.Setenv("ISCSIMP_SHARED", "perhaps")
	_, err = understood(t, "-p", "h", someIQN)
	require.ErrorContains(t, err, "ISCSIMP_SHARED in the environment: \"perhaps\" is neither yes nor no")
	t.Setenv("ISCSIMP_SHARED", "no")
	t.Setenv("ISCSIMP_CMDS_MAX", "many")
	_, err = understood(t, "-p", "h", someIQN)
	require.ErrorContains(t, err, "ISCSIMP_CMDS_MAX in the environment")
	t.Setenv("ISCSIMP_CMDS_MAX", "0")
	_, err = understood(t, "-p", "h", someIQN)
	require.ErrorContains(t, err, "(--cmds-max is from ISCSIMP_CMDS_MAX in the environment)")
}

// TestSecretsOfOthers: a secret in the file goes with its user only.
func TestSecretsOfOthers(t *testing.T) {
	cleanState(t)
	target := "iqn.2026-01.test:disk"
	path := configFile(t, "defaults:\n  portal: h\n  chap_user: a\n  chap_secret: of user a here\ntargets:\n  "+target+":\n    chap_user: b\n")
	for _, args := range [][]string{{target}, {target, "--chap-user", "c"}, {"iscsi://c@h/" + target}} {
		_, err := understood(t, append([]string{"--config", path}, args...)...)
		require.ErrorContains(t, err, "no secret for CHAP user", args)
	}
	o, err := understood(t, "--config", path, target+"2")
	require.NoError(t, err)
	assert.Equal(t, "a", o.cfg.CHAP.User)
	_, err = understood(t, "--config", path, "iscsi://a@h/"+target+"2")
	require.NoError(t, err)
	t.Setenv(variableCHAPSecret, "from the environment")
	o, err = understood(t, "--config", path, "iscsi://c@h/"+target)
	require.NoError(t, err)
	assert.Equal(t, "c", o.cfg.CHAP.User, "the address is nearer than the file")
}

// wrongConfigs and what is said about them; FILE stands for the file's name.
var wrongConfigs = map[string]string{
	"polisy: x":                                             "FILE line 1: \"polisy\" is none of defaults, targets and devices",
	"policy: x":                                             "put it under defaults:",
	"default:\n  policy: x":                                 "did you mean defaults?",
	"defaults:\n  polisy: latency":                          "FILE line 2: there is no setting \"polisy\"; did you mean policy?",
	"defaults:\n  noop_out_intervall: 1":                    "did you mean noop_out_interval?",
	"defaults:\n  json: yes":                                "there is no setting",
	"defaults:\n  lun: 1":                                   "there is no setting",
	"defaults: latency":                                     "defaults must hold settings",
	"targets: latency":                                      "targets must hold names",
	"targets:\n  disk: {policy: latency}":                   "FILE line 2",
	"targets:\n  iqn.2026-01.test:d:\n    - a":              "must hold settings, each as key: value, not a list",
	"devices:\n  a/b: {}":                                   "letters, digits",
	"devices:\n  a:\n    target: disk":                      "FILE line 3: target",
	"devices:\n  a:\n    lun: x":                            "FILE line 3: lun",
	"devices:\n  a:\n    taget: x":                          "did you mean target?",
	"defaults:\n  policy: a\n  policy: b":                   "is there twice",
	"defaults:\n  header_digest: yes\n  HeaderDigest: None": "FILE line 3: HeaderDigest means the same as header_digest on line 2",
	"defaults:\n  policy: [a, b]":                           "policy needs a value, not a list",
	"defaults:\n  policy:":                                  "policy needs a value, not nothing",
	"defaults:\n  portals: [a, [b]]":                        "portals needs a value, not a list",
	"defaults:\n  shared: perhaps":                          "\"perhaps\" is neither yes nor no",
	"defaults:\n  cmds_max: -1":                             "\"-1\" is not a whole number",
	"defaults:\n  HeaderDigest: MD5":                        "neither None nor CRC32C",
	"defaults:\n  no_path_retry: 12":                        "no_path_timeout, in seconds",
	"defaults:\n  path_selector: historical":                "round-robin, queue-length or service-time",
	"defaults:\n  chap_secret: [a]":                         "chap_secret needs a value",
	"defaults:\n  chap_secret: a\n  password: b":            "twice, under two names",
	"defaults:\n  a: b\n c: d":                              "FILE line 3: the line is not indented",
	"devices:\n  a:\n    paths: [a]":                        "paths must hold portals",
	"devices:\n  a:\n    paths: {a b: {}}":                  "host:port",
	"devices:\n  a:\n    paths: {h: {priority: 0}}":         "within 1..",
	"devices:\n  a:\n    paths: {h: {weight: x}}":           "within 1..",
	"devices:\n  a:\n    paths: {h: {state: off}}":          "use up or down",
	"devices:\n  a:\n    paths: {h: {wieght: 1}}":           "did you mean weight?",
	"devices:\n  a:\n    paths: {h: 1}":                     "must hold priority, weight or state",
	"devices:\n  a:\n    paths:\n      h: {weight: 1}\n      H:3260: {weight: 2}":            "FILE line 5: portal h:3260 is there twice",
	"devices:\n  a: {target: iqn.2026-01.test:d}\n  b: {target: iqn.2026-01.test:d, lun: 0}": "devices a and b are both iqn.2026-01.test:d LUN 0",
	// Right in form, and wrong for the option: the error names the option and the place.
	"defaults:\n  portals: h\n  cmds_max: 99999":      "--cmds-max 99999: must be from 1 to 4096 (--cmds-max is from FILE line 3)",
	"defaults:\n  portals: h\n  command_timeout: x":   "(--command-timeout is from FILE line 3)",
	"defaults:\n  portals: a b":                       "(--portal is from FILE line 2)",
	"defaults:\n  portals: h\n  noop_out_interval: x": "(--noop-interval is from FILE line 3)",
}

func TestWrongConfigurations(t *testing.T) {
	cleanState(t)
	for text, says := range wrongConfigs {
		path := configFile(t, text)
		_, err := understood(t, "--config", path, someIQN)
		if assert.Error(t, err, text) {
			assert.Equal(t, exitInvalid, exitCode(err))
			assert.Contains(t, strings.ReplaceAll(err.Error(), path, "FILE"), says, text)
			assert.NotContains(t, err.Error(), "\n")
		}
	}
}

func TestConfigurationFilesThatAreNotRead(t *testing.T) {
	for file, says := range map[string]string{"/nonexistent/x": "no such file", t.TempDir(): "is a folder"} {
		r := runCLI(t, "ls", "--config", file)
		assert.Equal(t, exitInvalid, r.code)
		assert.Contains(t, r.stderr, says)
	}
	for _, cmd := range []string{"man", "version", "completion bash"} {
		assert.Zero(t, runCLI(t, append(strings.Fields(cmd), "--config", "/nonexistent/x")...).code, "it needs none")
	}
	assert.NotContains(t, runCLI(t, "ls", "--config", "/dev/null", "--runtime-dir", shortdir.New(t)).stderr, "configuration")
	if !hasFileModes {
		return
	}
	secret := configFile(t, "defaults:\n  chap_secret: something secret\n")
	open := configFile(t, "defaults:\n  log_level: info\n")
	for file, modes := range map[string]map[os.FileMode]string{
		secret: {0o600: "", 0o400: "", 0o640: "line 2", 0o604: "chmod 600"},
		open:   {0o644: "", 0o664: "", 0o646: "chmod o-w"},
	} {
		for mode, says := range modes {
			require.NoError(t, os.Chmod(file, mode))
			r := runCLI(t, "ls", "--config", file, "--runtime-dir", shortdir.New(t))
			assert.NotContains(t, r.stderr, "something secret")
			if says == "" {
				assert.Equal(t, exitNothing, r.code, "%v %s", mode, r.stderr)
				continue
			}
			assert.Equal(t, exitInvalid, r.code, "%v", mode)
			assert.Contains(t, r.stderr, says)
		}
	}
}

// TestUsualConfigurationFiles: the system's file goes before one's own.
func TestUsualConfigurationFiles(t *testing.T) {
	system, own := systemConfigFile, t.TempDir()
	t.Cleanup(func() { systemConfigFile = system })
	t.Setenv("XDG_CONFIG_HOME", own)
	found, err := configPath("")
	require.NoError(t, err)
	assert.Empty(t, found)
	mine := filepath.Join(own, "iscsimp", "config.yaml")
	require.NoError(t, os.MkdirAll(filepath.Dir(mine), 0o755))
	require.NoError(t, os.WriteFile(mine, nil, 0o600))
	found, err = configPath("")
	require.NoError(t, err)
	assert.Equal(t, mine, found)
	systemConfigFile = configFile(t, "")
	found, err = configPath("")
	require.NoError(t, err)
	assert.Equal(t, systemConfigFile, found)
}

// TestLoginFromConfiguration: a device that the file describes comes up by its name
// alone, with its secret, in the background too; steering that was saved is there
// after a restart, and the secret is nowhere to be seen.
func TestLoginFromConfiguration(t *testing.T) {
	cleanState(t)
	tgt := startTarget(t, iscsitest.Config{Authenticate: chaptest.New(t), Portals: make([]iscsitest.Portal, 2)})
	dir := shortdir.New(t)
	path := configFile(t, "defaults:\n  runtime_dir: "+dir+"\n  initiator_name: iqn.2026-01.test.iscsimp:host\n  wait: all\n"+
		"devices:\n  mine:\n    target: "+tgt.Name()+"\n    portals: "+tgt.Addr(0)+"\n    chap_user: "+chaptest.User+"\n    chap_secret: \""+chaptest.Secret+"\"\n")
	r := runCLI(t, "doctor", "--config", path, "mine")
	assert.Zero(t, r.code, r.stdout+r.stderr)
	assert.Contains(t, r.stdout, path)
	if detached() == nil {
		return
	}
	start := func() {
		cmd := self(t.Context(), "login", "--config", path, "mine", "--background")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		noSecrets(t, string(out))
	}
	start()
	r = runCLI(t, "path", "mine", tgt.Addr(1), "down", "--save", "--config", path)
	require.Zero(t, r.code, r.stderr)
	assert.Equal(t, "saved in "+steeringFile()+"\n", r.stdout)
	r = runCLI(t, "path", "mine", "1", "priority", "3", "--save", "--json", "--config", path)
	require.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stdout, steeringFile())
	require.Zero(t, runCLI(t, "logout", "--all", "--config", path).code)
	start()
	var report devicesReport
	r = runCLI(t, "paths", "--json", "--config", path)
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report), r.stderr)
	states := map[string]string{}
	for _, p := range report.Devices[0].Paths {
		states[p.Portal] = p.State
		if p.Portal == tgt.Addr(0) {
			assert.Equal(t, 3, p.Priority)
		}
	}
	assert.Equal(t, map[string]string{tgt.Addr(0): "up", tgt.Addr(1): "offline"}, states)
	noSecrets(t, r.stdout, fileText(t, dir, "mine"+logSuffix), fileText(t, steeringFile()), processText(t, report.Devices[0].PID))
	r = runCLI(t, "logout", "--all", "--config", path)
	require.Zero(t, r.code, r.stderr)
}

func TestSteeringIsWrittenAndReadBack(t *testing.T) {
	cleanState(t)
	none, err := readSteering()
	require.NoError(t, err)
	assert.Nil(t, none)
	for _, c := range []struct{ name, portal, action, value string }{
		{"b", "10.0.0.1:3260", "down", ""},
		{"a", "[2001:db8::1]:3260", "priority", "2"},
		{"b", "10.0.0.2:3260", "weight", "7"},
		{"b", "10.0.0.1:3260", "priority", "4"},
		{"a", "", "policy", "failover"},
		{"a", "[2001:db8::1]:3260", "down", ""},
		{"a", "[2001:db8::1]:3260", "up", ""},
	} {
		_, err := saveSteering(c.name, c.portal, pathCommand{Path: c.portal, Action: c.action, Value: c.value})
		require.NoError(t, err)
	}
	golden(t, "steering.yaml", fileText(t, steeringFile()))
	saved, err := readSteering()
	require.NoError(t, err)
	assert.Equal(t, []initiator.PathSetting{{Portal: "10.0.0.1:3260", Priority: 4, Down: true}, {Portal: "10.0.0.2:3260", Weight: 7}}, pathSettings(saved.devices["b"].paths))
	assert.Equal(t, []string{"failover"}, saved.devices["a"].settings["policy"].values)
	left, err := filepath.Glob(filepath.Join(stateDir(), ".steering*"))
	require.NoError(t, err)
	assert.Empty(t, left)

	require.NoError(t, os.WriteFile(steeringFile(), []byte("devices: x\n"), 0o600))
	_, err = saveSteering("a", "", pathCommand{Action: "policy", Value: "failover"})
	require.Error(t, err)
	assert.Equal(t, "devices: x\n", fileText(t, steeringFile()), "what cannot be read is not replaced")
	r := runCLI(t, "ls")
	assert.Equal(t, exitInvalid, r.code)
	assert.Contains(t, r.stderr, "mend or remove the file")
}

// TestSavedSteeringLeavesTheRest: what was saved of a path replaces what the
// configuration says of the same, and nothing else.
func TestSavedSteeringLeavesTheRest(t *testing.T) {
	cleanState(t)
	path := configFile(t, "defaults: {portal: h}\ndevices:\n  disk-0:\n    paths:\n      a: {state: down, weight: 3}\n      b: {priority: 2, state: down}\n      c: {weight: 9}\n")
	for portal, action := range map[string]string{"a:3260": "priority", "b:3260": "up"} {
		cmd := pathCommand{Path: portal, Action: action}
		if action == "priority" {
			cmd.Value = "7"
		}
		_, err := saveSteering("disk-0", portal, cmd)
		require.NoError(t, err)
	}
	o, err := understood(t, "--config", path, someIQN)
	require.NoError(t, err)
	assert.ElementsMatch(t, []initiator.PathSetting{
		{Portal: "a:3260", Priority: 7, Weight: 3, Down: true},
		{Portal: "b:3260", Priority: 2},
		{Portal: "c:3260", Weight: 9},
	}, o.cfg.Paths)
}

func TestDidYouMean(t *testing.T) {
	words := []string{"policy", "portal", "shared"}
	for s, want := range map[string]string{"polcy": "policy", "Policy": "policy", "shraed": "shared", "x": "", "": "", "fence_timeout": ""} {
		hint := ""
		if want != "" {
			hint = "; did you mean " + want + "?"
		}
		assert.Equal(t, hint, didYouMean(s, words), s)
	}
}

// FuzzConfig: no text makes reading a configuration panic, and no error shows a secret.
func FuzzConfig(f *testing.F) {
	f.Add(everySetting)
	for text := range wrongConfigs {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := parseConfig("FILE", []byte(text))
		if err != nil {
			require.Equal(t, exitInvalid, exitCode(err))
			require.Contains(t, err.Error(), "FILE line ")
			return
		}
		require.NotNil(t, cfg.defaults)
	})
}

// TestConfigurationInTheManual: the example works, and no name is left out.
func TestConfigurationInTheManual(t *testing.T) {
	cleanState(t)
	manual := fileText(t, "../../docs/configuration.md")
	_, example, found := strings.Cut(manual, "```yaml\n")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "```")
	secret := secretFile(t, "a secret of the test")
	o, err := understood(t, "--config", configFile(t, strings.ReplaceAll(example, "/etc/iscsimp/alice.secret", secret)), "db")
	require.NoError(t, err)
	assert.Equal(t, "alice", o.cfg.CHAP.User)
	assert.Len(t, o.cfg.Portals, 3)
	assert.Len(t, o.cfg.Paths, 2)
	for name := range synonyms {
		assert.Contains(t, manual, name[strings.LastIndexByte(name, '.')+1:], name)
	}
	for name := range secretKeys {
		assert.Contains(t, manual, name[strings.LastIndexByte(name, '.')+1:], name)
	}
}
