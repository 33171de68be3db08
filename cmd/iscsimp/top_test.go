package main

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// topSample is a view of devices in trouble.
func topSample() *topView {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	d := sample()
	d.Paths = append(d.Paths, battered())
	d.Limits = deviceLimits{CommandSeconds: 30, FenceSeconds: 60, NoPathSeconds: 120}
	return &topView{
		devices: []deviceStatus{d, notAnswering("hung-1", claim{PID: 99, Target: "iqn.2026-01.com.example:hung"})},
		now:     now, asOf: now, interval: time.Second, explain: true,
	}
}

func TestTopFrames(t *testing.T) {
	for name, size := range map[string][2]int{"80x24": {80, 24}, "40x8": {40, 8}, "200x40": {200, 40}, "all": {0, 0}} {
		golden(t, "top-"+name+".txt", strings.Join(topSample().frame(size[0], size[1]), "\n")+"\n")
	}
	late := topSample()
	late.asOf = late.now.Add(-9 * time.Second)
	assert.Contains(t, late.frame(80, 24)[0], "NO NEWS FOR 9s")
	brief := topSample()
	brief.explain = false
	assert.NotContains(t, strings.Join(brief.frame(80, 24), "\n"), "Policy")
	colored := topSample()
	colored.color = true
	assert.Contains(t, strings.Join(colored.frame(80, 24), "\n"), " \x1b[31mdown\x1b[0m ")
}

// TestTopFramesFit: whatever the size and however far it was scrolled, no line is
// too long and none too many, and scrolling reaches the end.
func TestTopFramesFit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		v := topSample()
		w, h := 1+r.IntN(250), 1+r.IntN(60)
		v.scroll = r.IntN(80) - 10
		lines := v.frame(w, h)
		require.LessOrEqual(t, len(lines), h)
		for _, l := range lines {
			require.LessOrEqual(t, utf8.RuneCountInString(l), w, "%dx%d %q", w, h, l)
		}
		v.scroll = 1 << 30
		if lines = v.frame(w, h); h > 1 && w > 20 {
			require.NotContains(t, lines[len(lines)-1], "more below")
		}
	}
}

func TestTopKeys(t *testing.T) {
	v := topSample()
	assert.Nil(t, openTerminal(nil, nil), "nothing is no terminal")
	assert.Equal(t, []string{"up", "q", "pagedown", "\x1b", "x"}, splitKeys("\x1b[Aq\x1b[6~\x1bx"))
	for _, c := range []struct {
		key    string
		scroll int
	}{{"j", 1}, {"down", 2}, {"k", 1}, {"g", 0}, {"up", -1}} {
		require.False(t, v.key(c.key, 24))
		assert.Equal(t, c.scroll, v.scroll, c.key)
	}
	assert.True(t, v.key("q", 24))
}

func TestTopOfARunningDevice(t *testing.T) {
	p := login(t, startTarget(t, iscsitest.Config{}))
	r := runCLI(t, "top", "--once", "--runtime-dir", p.dir)
	require.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stdout, "carries I/O")
	assert.NotContains(t, r.stdout, "\x1b")
	assert.NotContains(t, r.stdout, "q quit")
	r = runCLI(t, "top", "--once", "--json", "--runtime-dir", p.dir)
	var report devicesReport
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	assert.Len(t, report.Devices, 1)
	assert.Equal(t, exitNoDevice, runCLI(t, "top", "--once", "nobody", "--runtime-dir", p.dir).code)
	assert.Equal(t, exitInvalid, runCLI(t, "top", "--interval", "0.01", "--runtime-dir", p.dir).code)
	require.Zero(t, runCLI(t, "logout", "--all", "--runtime-dir", p.dir).code)
	require.Zero(t, p.wait())
	assert.Equal(t, exitNothing, runCLI(t, "top", "--once", "--runtime-dir", p.dir).code)
}

// TestTopInAPipe: frames come until the reader has seen enough.
func TestTopInAPipe(t *testing.T) {
	dir := shortdir.New(t)
	cmd := self(t.Context(), "top", "--json", "--interval", "0.1", "--runtime-dir", dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	dec := json.NewDecoder(out)
	for range 3 {
		var report devicesReport
		require.NoError(t, dec.Decode(&report))
		assert.Equal(t, schemaVersion, report.Version)
		assert.NotNil(t, report.Devices)
	}
	require.NoError(t, out.Close())
	require.NoError(t, cmd.Wait(), "that its reader left is no error")
}
