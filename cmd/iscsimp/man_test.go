package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestManualIsComplete: every command, option, key and variable is in it.
func TestManualIsComplete(t *testing.T) {
	r := runCLI(t, "man")
	require.Zero(t, r.code, r.stderr)
	page := strings.ReplaceAll(r.stdout, `\-`, "-")
	app := newApp(nil, nil)
	for _, cmd := range app.Commands {
		at := max(strings.Index(page, "\n.SS "+cmd.Name+" "), strings.Index(page, "\n.SS "+cmd.Name+"\n"))
		require.Positive(t, at, cmd.Name)
		part := page[at:]
		if end := strings.Index(part[1:], "\n.S"); end > 0 {
			part = part[:end]
		}
		for _, f := range cmd.Flags {
			o := optionOf(f)
			assert.NotEmpty(t, o.usage, o.names)
			where := part
			if o.category == categoryCommon {
				where = page
			}
			for _, n := range o.names {
				if len(n) > 1 {
					assert.Contains(t, where, "--"+n, cmd.Name)
				}
			}
		}
	}
	for key := range newConfigKeys().names {
		assert.Contains(t, page, key)
	}
	for _, name := range secretVariables {
		assert.Contains(t, page, name)
	}
	assert.Regexp(t, regexp.MustCompile(`^\.TH ISCSIMP 1 `), page)
	for line := range strings.Lines(r.stdout) {
		assert.Regexp(t, regexp.MustCompile(`^(\.(TH|SH|SS|PP|TP|B|I|br|nf|fi|nh|ad)\b|[^.'])`), line, "no text is taken for a request")
		assert.NotRegexp(t, regexp.MustCompile("[^\n\x20-\x7e]"), line, "plain ASCII goes through every troff")
	}
}

func TestRoffText(t *testing.T) {
	assert.Equal(t, `\&.x`, escapeRoff(".x"))
	assert.Equal(t, `a.\eb \-\-c \(aq \(ga \[u2026]`, escapeRoff("a.\\b --c ' ` …"))
}

// shellWith gives a shell that is there, or skips.
func shellWith(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not here", name)
	}
	return path
}

// TestBashCompletion asks a real bash.
func TestBashCompletion(t *testing.T) {
	bash := shellWith(t, "bash")
	dir := t.TempDir()
	script := filepath.Join(dir, "completion")
	require.NoError(t, os.WriteFile(script, []byte(runCLI(t, "completion", "bash").stdout), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "iscsimp"), []byte("#!/bin/sh\necho NAME STATE\necho disk-1 up\n"), 0o700))
	for line, want := range map[string]string{
		"iscsimp dis":                          "discover",
		"iscsimp --json dis":                   "discover",
		"iscsimp login --poli":                 "--policy",
		"iscsimp login --policy queue":         "queue-depth",
		"iscsimp login x --noop-out-t":         "--noop-out-timeout",
		"iscsimp --log-level d":                "debug",
		"iscsimp logout dis":                   "disk-1",
		"iscsimp path disk-1 1 pri":            "priority",
		"iscsimp completion z":                 "zsh",
		"iscsimp login --config " + dir + "/c": dir + "/completion",
		"iscsimp ls --shared":                  "",
	} {
		words := strings.Fields(line)
		cmd := exec.CommandContext(t.Context(), bash, "-c", `. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _iscsimp; echo "${COMPREPLY[*]}"`, "bash", script)
		cmd.Args = append(cmd.Args, words...)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Equal(t, want, strings.TrimSpace(string(out)), line)
	}
}

// TestOtherCompletions: other shells that are here read theirs; every command and
// option is in each.
func TestOtherCompletions(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			r := runCLI(t, "completion", shell)
			require.Zero(t, r.code, r.stderr)
			for _, cmd := range newApp(nil, nil).Commands {
				assert.Contains(t, r.stdout, cmd.Name)
				for _, o := range optionsOf(cmd) {
					assert.Contains(t, r.stdout, o.names[0])
				}
			}
			script := filepath.Join(t.TempDir(), "completion")
			require.NoError(t, os.WriteFile(script, []byte(r.stdout), 0o600))
			out, err := exec.CommandContext(t.Context(), shellWith(t, shell), "-n", script).CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Empty(t, string(out))
		})
	}
	assert.Equal(t, exitInvalid, runCLI(t, "completion").code)
	assert.Equal(t, exitInvalid, runCLI(t, "completion", "tcsh").code)
}
