package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say why I/O goes where it goes now",
		ArgsUsage: "[NAME...]",
		Description: "In words: what the policy does with each path and what it knows of it, which writes are\n" +
			"fenced, and how long I/O goes on waiting when there is no path. With --json, the figures\n" +
			"it is made from, as `iscsimp paths --json` prints them.",
		Flags:        flags(),
		OnUsageError: onUsageError,
		Action:       runExplain,
	}
}

func runExplain(c *cli.Context) error {
	devices, err := selectDevices(c, c.Args().Slice())
	if err != nil {
		return err
	}
	if c.Bool(flagJSON) {
		err = writeJSON(c.App.Writer, devicesReport{schemaVersion, devices}, false)
	} else {
		err = writeExplained(c.App.Writer, devices)
	}
	if err != nil {
		return err
	}
	return nothingIfEmpty(c, devices)
}

func writeExplained(w io.Writer, devices []deviceStatus) error {
	var b strings.Builder
	for i, d := range devices {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintln(&b, printable(deviceHeading(d)))
		for _, line := range explainStatus(d) {
			fmt.Fprintln(&b, "  "+printable(line))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// policyWords say how a policy chooses.
var policyWords = map[string]string{
	"latency":            "each command goes to the path that is expected to finish it first; costs within 10 % are equal, and of equals chance picks one",
	"round-robin":        "commands go to all paths that are up in turn, by weight, whatever their priority",
	"round-robin-subset": "commands go to the paths of the best priority in turn, by weight",
	"queue-depth":        "each command goes to the path with the fewest commands in flight",
	"least-bytes":        "each command goes to the path with the fewest bytes in flight for its weight",
	"service-time":       "each command goes to the path whose commands in flight need the least time together, by the pace of late",
	"weighted":           "each command goes to the path with the lowest weight that has room for it",
	"failover":           "one path carries everything; the others wait until it fails",
}

// explainStatus says in words why the I/O of a device goes where it goes.
func explainStatus(d deviceStatus) []string {
	if d.State == stateNotAnswering {
		return []string{fmt.Sprintf("Its process %d does not answer, so nothing is known.", d.PID)}
	}
	var text []string
	say := func(format string, args ...any) { text = append(text, fmt.Sprintf(format, args...)) }
	if words := policyWords[d.Policy]; words != "" {
		say("Policy %s: %s.", d.Policy, words)
	}
	switch {
	case !d.FailbackPending:
	case d.FailbackSecondsLeft == nil:
		say("A better path is back, but failback is manual: I/O stays where it is until `iscsimp path %s PATH up`.", d.Name)
	default:
		say("A better path is back: I/O returns to it in %s (failback %s).", formatAge(*d.FailbackSecondsLeft), d.Failback)
	}
	best := "" // the state and priority of the paths that carry I/O
	for _, p := range d.Paths {
		if p.Active {
			best = fmt.Sprintf("a path that is %s with priority %d", p.State, p.Priority)
		}
	}
	for _, p := range d.Paths {
		say("Path %s (%s): %s", p.ID, p.Portal, explainPath(d, p, best))
	}
	switch {
	case best != "" || d.State == "starting" || strings.HasPrefix(d.State, "clos"):
	case d.NoPathSecondsLeft == nil:
		say("No path can be used: I/O waits for one without a limit (--%s).", flagNoPathTimeout)
	case *d.NoPathSecondsLeft > 0:
		say("No path can be used: I/O waits for one, and fails in %s (--%s).", formatAge(*d.NoPathSecondsLeft), flagNoPathTimeout)
	default:
		say("No path can be used, and the time to wait is over: I/O fails until there is one.")
	}
	for _, f := range d.Fenced {
		say("Fenced: %s of %d bytes at %d. Path %s (%s) was lost %s ago with it under way; it may still be carried out. Newer writes there wait until the target is known to have dropped it, at most %s.",
			f.Op, f.LengthBytes, f.OffsetBytes, f.Path, f.Portal, formatAge(f.SinceSeconds), formatAge(f.SecondsLeft))
	}
	if more := d.FencedTotal - len(d.Fenced); more > 0 {
		say("%d more writes are fenced.", more)
	}
	return text
}

// explainPath says what one path does and why.
func explainPath(d deviceStatus, p pathStatus, best string) string {
	policy := d.Policy
	if !p.Active {
		switch {
		case best == "" || p.State != "up" && p.State != "suspect":
			return fmt.Sprintf("carries nothing: it is %s for %s: %s.", p.State, formatAge(p.SinceSeconds), p.Reason)
		case d.FailbackPending && p.State == "up":
			return "carries nothing: it is up, but I/O stays with the paths it uses now (failback)."
		case policy == "failover" && best == fmt.Sprintf("a path that is %s with priority %d", p.State, p.Priority):
			return "carries nothing: it is as good as the path in use, but comes after it."
		}
		return fmt.Sprintf("carries nothing: it is %s with priority %d, and %s comes first.", p.State, p.Priority, best)
	}
	s := fmt.Sprintf("carries I/O: %s of the device's in the last seconds, %d commands in flight.", formatShare(p.Share), p.InFlight)
	switch c := p.Cost; {
	case slices.Contains([]string{"round-robin", "round-robin-subset", "least-bytes", "weighted"}, policy):
		s += fmt.Sprintf(" Weight %d.", p.Weight)
	case policy != "latency":
	case c.Known:
		s += explainCost(c)
	default:
		s += " Nothing was measured yet: it is taken to be as fast as the fastest."
	}
	if n := p.Cost.Limit; n > 0 {
		s += fmt.Sprintf(" At most %d commands: the target said its queue was full.", n)
	}
	if n := p.Cost.Ramp; n > 0 {
		s += fmt.Sprintf(" At most %d commands for now: it came up, and earns more with each success.", n)
	}
	return s
}

// explainCost takes the cost of a read of 4 KiB apart.
func explainCost(c pathCost) string {
	each := max(c.LatencySeconds, c.OldestSeconds)
	s := fmt.Sprintf(" A read of 4 KiB would take %s: %s", formatLatency(c.TotalSeconds), formatLatency(each))
	if c.OldestSeconds > c.LatencySeconds {
		s += " (the age of the oldest command)"
	}
	s += fmt.Sprintf(" for each of %d", 1+c.InFlight)
	if bytes := c.TotalSeconds - each*float64(1+c.InFlight); bytes > each/1000 && c.BytesPerSecond > 0 {
		s += fmt.Sprintf(", and %s for its bytes and those before it at %s MB/s", formatLatency(bytes), formatRate(c.BytesPerSecond/1e6))
	}
	if c.WriteSeconds > 0 {
		s += fmt.Sprintf("; a write %s each", formatLatency(c.WriteSeconds))
	}
	return s + "."
}
