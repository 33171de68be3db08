package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asProgram makes the test binary behave like iscsimp.
const asProgram = "ISCSIMP_TEST_AS_PROGRAM"

var update = flag.Bool("update", false, "write testdata/ instead of comparing with it")

func TestMain(m *testing.M) {
	version = "1.2.3"
	systemConfigFile = "/nonexistent/iscsimp/config.yaml" // that of this machine is not meant
	if os.Getenv(asProgram) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(func() int {
		state, err := os.MkdirTemp("", "iscsimp-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(state)
		os.Setenv("XDG_STATE_HOME", state) // a generated initiator name must not stay on this machine
		os.Setenv("XDG_CONFIG_HOME", state)
		return m.Run()
	}())
}

// result is what one run of the program left.
type result struct {
	code           int
	stdout, stderr string
}

// runCLI runs the program in this process.
func runCLI(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "go test -update writes it")
	assert.Equal(t, string(want), got, "if it is meant to change: go test -update, and look at the difference")
}

func TestHelp(t *testing.T) {
	golden(t, "help/iscsimp.txt", runCLI(t, "--help").stdout)
	for _, cmd := range newApp(nil, nil).Commands {
		r := runCLI(t, cmd.Name, "--help")
		assert.Zero(t, r.code)
		golden(t, "help/"+cmd.Name+".txt", r.stdout)
		assert.Equal(t, r, runCLI(t, "--help", cmd.Name), "the option may stand first")
		assert.Equal(t, r, runCLI(t, "help", cmd.Name))
	}
	assert.Equal(t, runCLI(t, "--help"), runCLI(t, "help"))
	assert.Equal(t, exitInvalid, runCLI(t, "help", "frobnicate").code)
	assert.Equal(t, runCLI(t, "--help").stdout, runCLI(t).stdout)
}

func TestVersion(t *testing.T) {
	assert.Contains(t, runCLI(t, "version").stdout, "iscsimp 1.2.3 (go")
	assert.Equal(t, "iscsimp version 1.2.3\n", runCLI(t, "--version").stdout)
	assert.Contains(t, runCLI(t, "version", "--json").stdout, `"program_version":"1.2.3"`)
}

// badLogin is a login that is right but for args, and would fail later.
func badLogin(args ...string) []string {
	return append([]string{"login", "--runtime-dir", "/nonexistent/dir", "-p", "127.0.0.1", someIQN}, args...)
}

const someIQN = "iqn.2026-01.test:disk"

var badCommandLines = map[string]struct {
	args []string
	says string
}{
	"unknown command":       {[]string{"frobnicate"}, `no command "frobnicate"`},
	"unknown option":        {[]string{"ls", "--frobnicate"}, "ls has no option --frobnicate"},
	"unknown first option":  {[]string{"--frobnicate"}, "not defined"},
	"option like another":   {badLogin("--polcy", "x"), "did you mean --policy?"},
	"command like another":  {[]string{"discovr"}, "did you mean discover?"},
	"address without host":  {[]string{"discover", "iscsi://"}, "iscsi://host[:port]"},
	"path action like":      {[]string{"path", "d", "1", "weigth", "3"}, "did you mean weight?"},
	"value missing":         {[]string{"discover", "-p"}, "option -p needs a value"},
	"no portal":             {[]string{"discover"}, "-p PORTAL"},
	"bad portal":            {[]string{"discover", "-p", "a b"}, "host:port"},
	"stray argument":        {[]string{"discover", "-p", "a", "b"}, "stands alone"},
	"luns without target":   {[]string{"luns", "-p", "a"}, "needs one TARGET"},
	"luns without portal":   {[]string{"luns", someIQN}, "no portal given"},
	"target is no name":     {[]string{"luns", "-p", "a", "disk"}, "names look like"},
	"two targets":           {[]string{"luns", "-p", "a", someIQN, someIQN}, "needs one TARGET"},
	"bad address":           {[]string{"luns", "iscsi://"}, "iscsi://host"},
	"password in address":   {[]string{"luns", "iscsi://u%p@h/" + someIQN}, "password"},
	"user in address":       {[]string{"luns", "iscsi://u@h/" + someIQN}, "no secret for CHAP user"},
	"secret in address":     {[]string{"luns", "iscsi://u:p@h/" + someIQN}, "in a file or the environment"},
	"two users":             {[]string{"login", "--runtime-dir", "/nonexistent/dir", "--chap-user", "a", "iscsi://b@h/" + someIQN}, "leave one out"},
	"secret without user":   {badLogin("--chap-secret-file", "/x"), "--chap-user USER"},
	"secret file missing":   {badLogin("--chap-user", "a", "--chap-secret-file", "/nonexistent/x"), "chmod 600"},
	"CHAP algorithms":       {[]string{"discover", "-p", "a", "--chap-algs", "8"}, "--chap-user USER"},
	"log level":             {[]string{"discover", "-p", "a", "--log-level", "loud"}, "debug, info"},
	"log format":            {[]string{"discover", "-p", "a", "--log-format", "xml"}, "text or json"},
	"log level, no log":     {[]string{"ls", "--log-level", "loud"}, "debug, info"},
	"log format, no log":    {[]string{"paths", "--log-format", "xml"}, "text or json"},
	"bad initiator name":    {[]string{"discover", "-p", "a", "--initiator-name", "me"}, "names look like"},
	"trace file":            {[]string{"discover", "-p", "a", "--initiator-name", someIQN, "--trace", "/nonexistent/x"}, "--trace"},
	"login time":            {[]string{"discover", "-p", "a", "--login-timeout", "0"}, "longer than nothing"},
	"LUN":                   {badLogin("--lun", "x"), "LUN"},
	"two LUNs":              {[]string{"login", "iscsi://h/" + someIQN + "/1", "--lun", "2"}, "leave one out"},
	"name":                  {badLogin("--name", "../x"), "letters, digits"},
	"wait":                  {badLogin("--wait", "most"), "any, all or a number"},
	"wait for none":         {badLogin("--wait", "0"), "any, all or a number"},
	"no-path time":          {badLogin("--no-path-timeout", "soon"), "fail, forever or a time: 120"},
	"negative time":         {badLogin("--fence-timeout", "-1"), "--fence-timeout"},
	"half a switch":         {badLogin("--hedge", "maybe"), "--hedge"},
	"hedging without limit": {badLogin("--hedge-budget", "80"), "--hedge-budget"},
	"hedging no number":     {badLogin("--hedge-budget", "NaN"), "--hedge-budget"},
	"a marginal switch":     {badLogin("--marginal", "2"), "--marginal"},
	"no error rate":         {badLogin("--marginal-path-err-rate-threshold", "0"), "--marginal-path-err-rate-threshold"},
	"no sample":             {badLogin("--marginal-path-err-sample-time", "0"), "--marginal-path-err-sample-time"},
	"time that is no time":  {badLogin("--noop-timeout", "NaN"), "--noop-timeout"},
	"no connection":         {badLogin("--connections", "0"), "from 1 to 16"},
	"too many connections":  {badLogin("--connections", "17"), "from 1 to 16"},
	"level 1":               {badLogin("--connections", "2", "--error-recovery-level", "1"), "only 0 and 2"},
	"level 3":               {badLogin("--error-recovery-level", "3"), "from 0 to 2"},
	"level 2, 1 connection": {badLogin("--error-recovery-level", "2"), "several connections"},
	"commands":              {badLogin("--cmds-max", "0"), "from 1 to 4096"},
	"first burst":           {badLogin("--first-burst-length", "511"), "from 512 to 16777215"},
	"max burst":             {badLogin("--max-burst-length", "16777216"), "from 512 to 16777215"},
	"data segment":          {badLogin("--max-recv-data-segment-length", "-1"), "from 512 to 16777215"},
	"data segment as text":  {badLogin("--max-recv-data-segment-length", "8k"), "whole number"},
	"bursts that disagree":  {badLogin("--first-burst-length", "8192", "--max-burst-length", "4096"), "lower the one"},
	"R2Ts":                  {badLogin("--max-outstanding-r2t", "65536"), "from 1 to 65535"},
	"transfer size":         {badLogin("--max-transfer", "65535"), "from 65536 to 4194304"},
	"reset and shared":      {badLogin("--lun-reset", "--shared"), "leave one out"},
	"reconnect times":       {badLogin("--reconnect-min", "9"), "lower the one"},
	"replacement time":      {badLogin("--replacement-timeout", "soon"), "fail, forever or a time"},
	"immediate data":        {badLogin("--immediate-data=maybe"), "yes or no"},
	"order of PDUs":         {badLogin("--data-pdu-in-order=1"), "yes or no"},
	"export":                {badLogin("--export", "/x"), "unix:PATH or tcp:HOST:PORT"},
	"export without path":   {badLogin("--export", "unix:"), "no path"},
	"export without host":   {badLogin("--export", "tcp:"), "tcp:HOST:PORT"},
	"export with bad port":  {badLogin("--export", "tcp:a:b:c"), "tcp:HOST:PORT"},
	"logout of nothing":     {[]string{"logout"}, "NAME... or --all"},
	"logout of both":        {[]string{"logout", "x", "--all"}, "one of the two"},
	"logout of a bad name":  {[]string{"logout", "a/b"}, "letters, digits"},
	"ls with argument":      {[]string{"ls", "x"}, "takes no argument"},
	"version with argument": {[]string{"version", "x"}, "takes no argument"},
	"path of nothing":       {[]string{"path"}, "NAME PATH"},
	"path action":           {[]string{"path", "d", "1", "sideways"}, "up, down"},
	"path priority":         {[]string{"path", "d", "1", "priority", "0"}, "within 1.."},
	"path policy unknown":   {[]string{"path", "d", "policy", "fastest"}, "no policy"},
	"path failback unknown": {[]string{"path", "d", "failback", "never"}, "immediate, manual"},
	"path weight missing":   {[]string{"path", "d", "1", "weight"}, "takes one number"},
	"path up with value":    {[]string{"path", "d", "1", "up", "2"}, "takes no value"},
	"doctor of a bad name":  {[]string{"doctor", "-p", "a", "x"}, "names look like"},
}

func TestBadCommandLines(t *testing.T) {
	for name, c := range badCommandLines {
		t.Run(name, func(t *testing.T) {
			r := runCLI(t, c.args...)
			assert.Equal(t, exitInvalid, r.code)
			assert.Contains(t, r.stderr, c.says)
			assert.Equal(t, 1, strings.Count(r.stderr, "\n"), "one line: %s", r.stderr)
			assert.Empty(t, r.stdout)
		})
	}
}

func TestOptionsMayStandAnywhere(t *testing.T) {
	for in, want := range map[string]string{
		"ls":                                    "ls",
		"--json ls":                             "ls --json",
		"--runtime-dir /x ls --json":            "ls --runtime-dir /x --json",
		"login -p a TARGET --lun 1":             "login -p a --lun 1 -- TARGET",
		"login TARGET -p=a --lun=1 --shared":    "login -p=a --lun=1 --shared -- TARGET",
		"login --shared TARGET":                 "login --shared -- TARGET",
		"path d 1 priority 2 --json":            "path --json -- d 1 priority 2",
		"logout -- --all":                       "logout -- --all",
		"logout a -- -b --json":                 "logout -- a -b --json",
		"discover -h":                           "discover -h",
		"--log-level debug discover -p a -p b ": "discover --log-level debug -p a -p b",
		"--help":                                "--help",
		"":                                      "",
	} {
		t.Run(in, func(t *testing.T) {
			got, err := optionsFirst(newApp(nil, nil), strings.Fields(in))
			require.NoError(t, err)
			assert.Equal(t, strings.Fields(want), append([]string{}, got...))
		})
	}
}

func FuzzOptionsFirst(f *testing.F) {
	for _, s := range []string{"--json ls", "login -p a TARGET --lun 1", "-- --", "- -p", "login --", "--runtime-dir"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		got, err := optionsFirst(newApp(nil, nil), args)
		if err != nil {
			return
		}
		words := func(list []string) map[string]int {
			n := map[string]int{}
			for _, w := range list {
				if w = strings.TrimPrefix(w, "--"); w != "" { // help becomes --help
					n[w]++
				}
			}
			return n
		}
		before, after := words(args), words(got)
		for w, n := range before {
			require.Equal(t, n, after[w], "%q must be neither lost nor doubled in %q", w, got)
		}
		require.Len(t, after, len(before))
	})
}
