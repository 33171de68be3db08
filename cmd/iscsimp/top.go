package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	flagInterval = "interval"
	flagOnce     = "once"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name:      "top",
		Usage:     "watch devices and paths, live",
		ArgsUsage: "[NAME...]",
		Description: "What `paths` and `explain` say, renewed all the time.\n" +
			"Keys: q or Ctrl-C ends it; e shows or hides the words; arrows, space, b, g and G scroll.\n" +
			"Without a terminal, frames come one after another. With --json, each is one line.",
		Flags: flags([]cli.Flag{
			&cli.StringFlag{Name: flagInterval, Value: "1", Usage: "look every `TIME`, at least 0.1"},
			&cli.BoolFlag{Name: flagOnce, DisableDefaultText: true, Usage: "print what it shows now, and end"},
		}),
		OnUsageError: onUsageError,
		Action:       runTop,
	}
}

const minInterval = 100 * time.Millisecond

func runTop(c *cli.Context) error {
	interval, err := timeOf(c, flagInterval)
	if err != nil {
		return err
	}
	if interval < minInterval {
		return usagef("--%s %v is too short; use %v or more", flagInterval, interval, minInterval)
	}
	devices, err := selectDevices(c, c.Args().Slice()) // names that are wrong are told at once
	if err != nil {
		return err
	}
	v := &topView{devices: devices, asOf: time.Now(), interval: interval, explain: true}
	screen := openTerminal(c.App.Writer, os.Stdin)
	if c.Bool(flagOnce) || c.Bool(flagJSON) || screen == nil {
		return topInLines(c, v, screen)
	}
	return topOnScreen(c, v, screen)
}

// topInLines prints frames one after another.
func topInLines(c *cli.Context, v *topView, screen *terminal) error {
	// SIGPIPE: whoever read has seen enough, which is no failure.
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	defer stop()
	width := 0
	if screen != nil {
		width, _ = screen.size()
	}
	tick := time.NewTicker(v.interval)
	defer tick.Stop()
	for first := true; ; first = false {
		if !first {
			v.look(c)
		}
		if err := printFrame(c, v, width, first); errors.Is(err, syscall.EPIPE) {
			return nil
		} else if err != nil {
			return err
		}
		if c.Bool(flagOnce) {
			return nothingIfEmpty(c, v.devices)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func printFrame(c *cli.Context, v *topView, width int, first bool) error {
	if c.Bool(flagJSON) {
		return writeJSON(c.App.Writer, devicesReport{schemaVersion, append([]deviceStatus{}, v.devices...)}, false)
	}
	v.now = time.Now()
	lines := v.frame(width, 0)
	lines[0] = strings.TrimSuffix(lines[0], "  q quit, e explain")
	if !first {
		lines = append([]string{""}, lines...)
	}
	_, err := io.WriteString(c.App.Writer, strings.Join(lines, "\n")+"\n")
	return err
}

// look asks the devices again.
func (v *topView) look(c *cli.Context) {
	devices, err := selectDevices(c, c.Args().Slice())
	if err != nil {
		v.devices, v.problem = nil, err.Error()
		return
	}
	v.devices, v.problem, v.asOf = devices, "", time.Now()
}

// topOnScreen is the live view. Whatever happens, the terminal is as before at the
// end, and while the process is stopped.
func topOnScreen(c *cli.Context, v *topView, screen *terminal) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, watchedByTop...)
	defer signal.Stop(signals)
	if err := screen.enter(); err != nil {
		return fmt.Errorf("cannot use the terminal: %w; try --%s", err, flagOnce)
	}
	defer screen.leave()
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	keys := screen.keys(ctx)
	news := make(chan *topView, 1)
	looking := false
	tick := time.NewTicker(v.interval)
	defer tick.Stop()
	v.color = os.Getenv("NO_COLOR") == ""
	for {
		v.now = time.Now()
		v.problem = noDevices(v)
		if err := screen.draw(v); err != nil {
			return nil //nolint:nilerr // the terminal is gone, and with it whoever looked
		}
		select {
		case <-tick.C:
			if !looking { // a device that hangs must not hang the keys
				looking = true
				go func() {
					n := &topView{}
					n.look(c)
					news <- n
				}()
			}
		case n := <-news:
			looking = false
			v.devices, v.problem, v.asOf = n.devices, n.problem, n.asOf
			if n.problem != "" {
				v.asOf = time.Now()
			}
		case k := <-keys:
			if _, height := screen.size(); v.key(k, height) {
				return nil
			}
		case s := <-signals:
			if screen.signal(s) {
				return nil
			}
		case <-c.Done():
			return nil
		}
	}
}

func noDevices(v *topView) string {
	if len(v.devices) == 0 && v.problem == "" {
		return "No device runs here. `iscsimp login` starts one."
	}
	return v.problem
}

// key does what a key says, and reports whether it ends the view. height is that of the screen.
func (v *topView) key(k string, height int) (quit bool) {
	page := max(1, height-2)
	switch k {
	case "q", "Q", "\x03":
		return true
	case "e":
		v.explain = !v.explain
		v.scroll = 0
	case "down", "j":
		v.scroll++
	case "up", "k":
		v.scroll--
	case " ", "pagedown":
		v.scroll += page
	case "b", "pageup":
		v.scroll -= page
	case "g", "home":
		v.scroll = 0
	case "G", "end":
		v.scroll = 1 << 30
	}
	return false
}

// named are the keys that send several bytes.
var named = map[string]string{
	"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "pageup", "\x1b[6~": "pagedown",
	"\x1b[H": "home", "\x1b[F": "end", "\x1b[1~": "home", "\x1b[4~": "end", "\x1bOH": "home", "\x1bOF": "end",
}

// splitKeys tells keys apart in what a terminal sends.
func splitKeys(s string) []string {
	var keys []string
next:
	for s != "" {
		for sequence, name := range named {
			if strings.HasPrefix(s, sequence) {
				keys, s = append(keys, name), s[len(sequence):]
				continue next
			}
		}
		keys, s = append(keys, s[:1]), s[1:]
	}
	return keys
}
