package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Gotgt describes a gotgt target: one RAM LUN, number 0, behind several portals.
type Gotgt struct {
	Portals    int    // number of portals on 127.0.0.2, 127.0.0.3, …; default 1
	IQN        string // default iqn.2026-01.io.github.iscsimp:gotgt
	SizeMiB    int    // default 64
	BlockShift int    // 9 (default) or 12
}

// GotgtTarget is a running gotgtd process.
type GotgtTarget struct {
	*process
	Portals []string // host:port
	IQN     string
	LUN     int
	stdin   io.Closer
}

// StartGotgt builds gotgtd once per process, starts it on a free port and waits until it is ready.
func StartGotgt(ctx context.Context, g Gotgt) (*GotgtTarget, error) {
	g.Portals = max(g.Portals, 1)
	if g.IQN == "" {
		g.IQN = "iqn.2026-01.io.github.iscsimp:gotgt"
	}
	if g.SizeMiB == 0 {
		g.SizeMiB = 64
	}
	if g.BlockShift == 0 {
		g.BlockShift = 9
	}
	binary, err := buildCommand(RepositoryRoot()+"/test", "./cmd/gotgtd")
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	target := &GotgtTarget{Portals: Portals(g.Portals, port), IQN: g.IQN}
	cmd := exec.CommandContext(ctx, binary, "-portals", strings.Join(target.Portals, ","), "-iqn", g.IQN,
		"-size", fmt.Sprint(g.SizeMiB), "-block-shift", fmt.Sprint(g.BlockShift))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	target.stdin = stdin
	if target.process, err = startReady(cmd, Patience, func(line string) error {
		if line != "ready" {
			return fmt.Errorf("unexpected line %q instead of ready", line)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("gotgtd: %w", err)
	}
	return target, nil
}

// Binary is the path of the gotgtd that was built.
func (t *GotgtTarget) Binary() string { return t.cmd.Path }

// Stop ends the target in order. A gotgtd that had died before is an error, with the reason it printed.
func (t *GotgtTarget) Stop() error {
	if t.Exited() {
		return fmt.Errorf("gotgtd died by itself: %s\n%s", t.ending(), t.Output())
	}
	defer t.stdin.Close()
	return t.terminate(3 * time.Second)
}

// NeedGotgt is StartGotgt for tests; the target is stopped at the end of the test.
func NeedGotgt(t testing.TB, g Gotgt) *GotgtTarget {
	t.Helper()
	target, err := StartGotgt(context.Background(), g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Stop(); err != nil {
			t.Error(err)
		}
	})
	return target
}

// startReady starts cmd and hands its first line of standard output to ready; later lines are read and kept with the output.
func startReady(cmd *exec.Cmd, limit time.Duration, ready func(line string) error) (*process, error) {
	reader, writer := io.Pipe()
	cmd.Stdout = writer
	p, err := start(cmd)
	if err != nil {
		return nil, err
	}
	go func() {
		<-p.done
		_ = writer.Close()
	}()
	first := make(chan error, 1)
	go func() {
		lines := bufio.NewReader(reader)
		line, err := lines.ReadString('\n')
		if err == nil {
			err = ready(strings.TrimSuffix(line, "\n"))
		}
		first <- err
		_, _ = io.Copy(p.output, lines)
	}()
	select {
	case err = <-first:
	case <-time.After(limit):
		err = fmt.Errorf("no line on standard output within %v", limit)
	}
	if err != nil {
		p.Kill()
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("ended before it was ready: %w", p.err)
		}
		return nil, fmt.Errorf("%w; its output:\n%s", err, p.Output())
	}
	return p, nil
}
