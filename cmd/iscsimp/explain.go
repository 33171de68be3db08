package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
)

func explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say why I/O goes where it goes now",
		ArgsUsage: "[NAME...]",
		Description: "In words: what the policy does with each path and what it knows of it, what went wrong\n" +
			"there, which writes are fenced, how long what may take, and how long I/O goes on waiting\n" +
			"when there is no path. With --json, the figures it is made from, as `iscsimp paths --json`\n" +
			"prints them.",
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
	"latency":            "each command goes where it costs least time, its own and that of others it holds up; costs within 10 % are equal, and of equals the path with fewer commands is taken",
	"round-robin":        "commands go to all paths that are up in turn, by weight, whatever their priority",
	"round-robin-subset": "commands go to the paths of the best priority in turn, by weight",
	"queue-depth":        "each command goes to the path with the fewest commands in flight",
	"least-bytes":        "each command goes to the path with the fewest bytes in flight for its weight",
	"service-time":       "each command goes to the path whose commands in flight need the least time together, by their pace in the last seconds",
	"weighted":           "each command goes to the path with the lowest weight that has room for it",
	"failover":           "one path carries everything; the others wait until it fails",
}

// deviceFacts are what explain says of a device, in this order. Each gives no,
// one or several sentences, each a line. A new kind of fact is a line here.
var deviceFacts = []func(d deviceStatus) []string{
	policyFact,
	failbackFact,
	pathsFact,
	noPathFact,
	reservationFact,
	fencedFact,
	hedgeFact,
	lostRequestsFact,
	limitsFact,
}

// pathFacts are what explain adds about each path besides what it does now. Each
// gives a sentence, or "" if there is nothing to say. A new kind is a line here.
var pathFacts = []func(p pathStatus) string{
	aluaFact,
	queueFullFact,
	rampFact,
	retryFact,
	sentToFact,
	healthFact,
	connectionsFact,
	timeoutsFact,
	troubleFact,
	rejectFact,
	asyncFact,
	lastErrorFact,
}

// explainStatus says in words why the I/O of a device goes where it goes.
func explainStatus(d deviceStatus) []string {
	if d.State == stateNotAnswering {
		return []string{fmt.Sprintf("Its process %d does not answer, so nothing is known. If it stays so: kill -QUIT %d makes it tell in its log where it hangs.", d.PID, d.PID)}
	}
	var text []string
	for _, fact := range deviceFacts {
		text = append(text, fact(d)...)
	}
	return text
}

func policyFact(d deviceStatus) []string {
	if words := policyWords[d.Policy]; words != "" {
		return []string{fmt.Sprintf("Policy %s: %s.", d.Policy, words)}
	}
	return nil
}

func failbackFact(d deviceStatus) []string {
	switch {
	case !d.FailbackPending:
		return nil
	case d.FailbackSecondsLeft == nil:
		return []string{fmt.Sprintf("A better path is back, but failback is manual: I/O stays where it is until `iscsimp path %s PATH up`.", d.Name)}
	}
	return []string{fmt.Sprintf("A better path is back: I/O returns to it in %s (failback %s).", formatSoon(*d.FailbackSecondsLeft), d.Failback)}
}

func pathsFact(d deviceStatus) []string {
	best := bestPath(d)
	var lines []string
	for _, p := range d.Paths {
		sentences := []string{explainPath(d, p, best)}
		for _, fact := range pathFacts {
			if s := fact(p); s != "" {
				sentences = append(sentences, s)
			}
		}
		lines = append(lines, fmt.Sprintf("Path %s (%s): %s", p.ID, p.Portal, strings.Join(sentences, " ")))
	}
	return lines
}

// bestPath describes the paths that carry I/O, "" if there is none.
func bestPath(d deviceStatus) string {
	best := ""
	for _, p := range d.Paths {
		if p.Active {
			best = rank(p)
		}
	}
	return best
}

// rank is what decides which group of paths carries I/O.
func rank(p pathStatus) string {
	if p.ALUAState != "" {
		return fmt.Sprintf("a path that is %s and %s with priority %d", p.State, p.ALUAState, p.Priority)
	}
	return fmt.Sprintf("a path that is %s with priority %d", p.State, p.Priority)
}

func noPathFact(d deviceStatus) []string {
	switch {
	case bestPath(d) != "" || d.State == "starting" || strings.HasPrefix(d.State, "clos"):
		return nil
	case d.NoPathSecondsLeft == nil:
		return []string{fmt.Sprintf("No path can be used: I/O waits for one without a limit (--%s).", flagNoPathTimeout)}
	case *d.NoPathSecondsLeft > 0:
		return []string{fmt.Sprintf("No path can be used: I/O waits for one, and fails in %s (--%s).", formatAge(*d.NoPathSecondsLeft), flagNoPathTimeout)}
	}
	return []string{"No path can be used, and the time to wait is over: I/O fails until there is one."}
}

func fencedFact(d deviceStatus) []string {
	var lines []string
	for _, f := range d.Fenced {
		if f.Op == initiator.OpOfEarlierRun {
			lines = append(lines, fmt.Sprintf("Fenced: the whole device, since %s. An earlier process was logged in at %s and ended without logging out: writes it had under way there may still be carried out. Writes wait until the target is known to have dropped them, at most %s; reads do not.",
				formatAge(f.SinceSeconds), cmp.Or(f.Portal, f.Path), formatAge(f.SecondsLeft)))
			continue
		}
		if f.Moved {
			lines = append(lines, fmt.Sprintf("Fenced: %s of %d bytes at %d. It was sent over another path as well %s ago, when path %s (%s) had fallen silent with it under way. Newer writes there wait until the target answers it, ends it when asked to, or ends the session; if that is lost without proof, at most %s more.",
				f.Op, f.LengthBytes, f.OffsetBytes, formatAge(f.SinceSeconds), f.Path, f.Portal, formatAge(f.SecondsLeft)))
			continue
		}
		lines = append(lines, fmt.Sprintf("Fenced: %s of %d bytes at %d. Path %s (%s) was lost %s ago with it under way; it may still be carried out. Newer writes there wait until the target is known to have dropped it, at most %s.",
			f.Op, f.LengthBytes, f.OffsetBytes, f.Path, f.Portal, formatAge(f.SinceSeconds), formatAge(f.SecondsLeft)))
	}
	if more := d.FencedTotal - len(d.Fenced); more > 0 {
		lines = append(lines, fmt.Sprintf("%d more writes are fenced.", more))
	}
	if n := d.Fences; n.Raised > 0 {
		s := fmt.Sprintf("Since the start %s of unknown outcome, %d settled", plural(n.Raised, "write was", "writes were"), n.Settled)
		if n.Waits > 0 {
			s += fmt.Sprintf("; %s to wait for one", plural(n.Waits, "newer write had", "newer writes had"))
		}
		lines = append(lines, s+".")
	}
	if d.Fences.TimedOut > 0 {
		lines = append(lines, fmt.Sprintf("%s settled by --%s alone, not by proof: had the target held one back for longer it could have replaced newer data.",
			plural(d.Fences.TimedOut, "of them was", "of them were"), flagFenceTimeout))
	}
	return lines
}

func lostRequestsFact(d deviceStatus) []string {
	if d.Failed == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d of %d requests failed since the start; the last error: %s.", d.Failed, d.Requests, strings.TrimSuffix(d.LastError, "."))}
}

// limitsFact says what happens when something takes too long.
func limitsFact(d deviceStatus) []string {
	l := d.Limits
	if l.CommandSeconds == 0 { // an older process does not tell
		return nil
	}
	chain := "aborted, then its session is dropped"
	if l.LUNReset {
		chain = "aborted, then the unit is reset, then its session is dropped"
	}
	noPath := "fails at once"
	switch {
	case l.NoPathSeconds < 0:
		noPath = "waits without a limit"
	case l.NoPathSeconds > 0:
		noPath = "waits " + formatLimit(l.NoPathSeconds)
	}
	return []string{fmt.Sprintf("Limits: a command not answered for %s on a live path is %s; a write of unknown outcome is fenced for at most %s; without a path I/O %s.",
		formatLimit(l.CommandSeconds), chain, formatLimit(l.FenceSeconds), noPath)}
}
