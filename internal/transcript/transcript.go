// Package transcript runs scenarios kept as text: a command, a line of dashes,
// and what the command must print. With -rewrite the expected text is written
// anew; commit that only if you understand what changed it. For tests only.
package transcript

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts' expected output anew")

// Cmd is one command of a transcript: words of the first line, of which those
// with a '=' are arguments, and the lines that follow it up to the dashes.
type Cmd struct {
	Name  string
	Flags []string
	Args  map[string]string
	Input []string
	Pos   string // file:line, for messages
}

// Has reports whether a word without '=' is on the command line.
func (c Cmd) Has(flag string) bool {
	for _, f := range c.Flags {
		if f == flag {
			return true
		}
	}
	return false
}

// Dir runs every file of testdata/NAME in a subtest. start is called for each
// file and gives the function that runs a command and returns its output.
func Dir(t *testing.T, dir string, start func(t *testing.T) func(t *testing.T, c Cmd) string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	require.NoError(t, err)
	require.NotEmpty(t, files, "no transcripts in %s", dir)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			run(t, f, start(t))
		})
	}
}

func run(t *testing.T, file string, do func(t *testing.T, c Cmd) string) {
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	var out bytes.Buffer
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	for i := 0; i < len(lines); {
		if strings.TrimSpace(lines[i]) == "" || strings.HasPrefix(lines[i], "#") {
			fmt.Fprintln(&out, lines[i])
			i++
			continue
		}
		c, cmdLines, next := parse(t, lines, i, file)
		want, after := expected(lines, next)
		got := strings.TrimRight(do(t, c), "\n")
		for _, l := range cmdLines {
			fmt.Fprintln(&out, l)
		}
		fmt.Fprintln(&out, "----")
		if got != "" {
			fmt.Fprintln(&out, got)
		}
		if !*rewrite && got != want {
			t.Fatalf("%s: %s\nwant:\n%s\ngot:\n%s", c.Pos, cmdLines[0], want, got)
		}
		i = after
	}
	if *rewrite {
		require.NoError(t, os.WriteFile(file, out.Bytes(), 0o644))
	}
}

func parse(t *testing.T, lines []string, i int, file string) (c Cmd, cmd []string, next int) {
	c = Cmd{Args: map[string]string{}, Pos: fmt.Sprintf("%s:%d", file, i+1)}
	for j, w := range strings.Fields(lines[i]) {
		k, v, ok := strings.Cut(w, "=")
		switch {
		case j == 0:
			c.Name = w
		case ok:
			c.Args[k] = v
		default:
			c.Flags = append(c.Flags, w)
		}
	}
	cmd = lines[i : i+1]
	for next = i + 1; next < len(lines) && lines[next] != "----"; next++ {
		require.NotEmpty(t, lines[next], "%s: command without a line of dashes", c.Pos)
		c.Input = append(c.Input, lines[next])
		cmd = lines[i : next+1]
	}
	require.Less(t, next, len(lines), "%s: command without a line of dashes", c.Pos)
	return c, cmd, next + 1
}

// expected reads up to the next blank line.
func expected(lines []string, i int) (want string, next int) {
	start := i
	for i < len(lines) && lines[i] != "" {
		i++
	}
	return strings.Join(lines[start:i], "\n"), i
}
