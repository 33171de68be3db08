package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
)

func pathSubcommand() *cli.Command {
	return &cli.Command{
		Name:      "path",
		Usage:     "steer one path, or the choice among them, by hand",
		ArgsUsage: "NAME PATH up|down|priority N|weight N, or NAME policy P|failback WHEN",
		Description: "PATH is a path's number or its portal, as `iscsimp paths` shows them.\n" +
			"down: no new I/O goes there. up: the path is used again.\n" +
			"up also makes I/O return to a path that failback keeps it away from.\n" +
			"priority N: paths with the smallest N that are up carry all the I/O.\n" +
			"weight N: with the policies round-robin, round-robin-subset and least-bytes, how much I/O the\n" +
			"path gets compared with others of its priority; with weighted, what it costs: the smallest N\n" +
			"is used first. The other policies do not go by it.\n" +
			"In the place of PATH, policy P and failback WHEN change for the running device what\n" +
			"login was told with --policy and --failback.",
		Flags: flags([]cli.Flag{
			&cli.BoolFlag{Name: flagSave, DisableDefaultText: true, Usage: "keep it for later logins too, in steering.yaml in the state folder"},
		}),
		OnUsageError: onUsageError,
		Action:       runPath,
	}
}

type pathReport struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	pathCommand
	Saved string `json:"saved,omitempty"` // the file it is kept in
}

func runPath(c *cli.Context) error {
	name, cmd, err := parsePathCommand(c.Args().Slice())
	if err != nil {
		return err
	}
	dir, err := runtimeDir(c)
	if err != nil {
		return err
	}
	st, ok := statusOf(c.Context, dir, name)
	if !ok {
		return noSuchDevice(dir, name)
	}
	if err := controlCall(c.Context, dir, name, http.MethodPost, "/v1/path", cmd, nil); err != nil {
		return err
	}
	report := pathReport{Version: schemaVersion, Name: name, pathCommand: cmd}
	if c.Bool(flagSave) {
		if report.Saved, err = saveSteering(name, portalOf(st, cmd.Path), cmd); err != nil {
			return fmt.Errorf("it is done, but not saved: %w", err)
		}
	}
	if now, ok := statusOf(c.Context, dir, name); ok {
		for _, n := range cmd.notes(now) {
			fmt.Fprintf(c.App.ErrWriter, "iscsimp: %s\n", n)
		}
	}
	if c.Bool(flagJSON) {
		return writeJSON(c.App.Writer, report, false)
	}
	if report.Saved != "" {
		_, err = fmt.Fprintln(c.App.Writer, "saved in", report.Saved)
	}
	return err
}

// goesByWeight reports whether the weights of paths count for a policy.
func goesByWeight(policy string) bool {
	return slices.Contains([]string{"round-robin", "round-robin-subset", "least-bytes", "weighted"}, policy)
}

// notes tells what somebody may not have meant who gave the command; now is the
// device after it.
func (p pathCommand) notes(now deviceStatus) []string {
	var list []string
	switch {
	case p.Action == "weight" && !goesByWeight(now.Policy):
		list = append(list, fmt.Sprintf("the policy %s does not go by weights; `iscsimp path %s policy weighted` and others do", now.Policy, now.Name))
	case p.Action == "priority" && now.Policy == "round-robin":
		list = append(list, fmt.Sprintf("the policy round-robin uses all paths, whatever their priority; `iscsimp path %s policy round-robin-subset` does not", now.Name))
	case p.Action == "down" && now.State == "no-path":
		list = append(list, fmt.Sprintf("that was the last path of %s: I/O waits for one; `iscsimp path %s %s up` takes it back", now.Name, now.Name, p.Path))
	}
	return list
}

// portalOf gives the portal of a path that is named by its number or its portal.
func portalOf(st deviceStatus, path string) string {
	portal, err := initiator.ParsePortal(path)
	for _, p := range st.Paths {
		if p.ID == path || err == nil && p.Portal == portal {
			return p.Portal
		}
	}
	return portal
}

func parsePathCommand(args []string) (name string, cmd pathCommand, err error) {
	if len(args) < 3 {
		return "", cmd, usagef("path needs NAME PATH and what to do: up, down, priority N or weight N; or NAME and policy P or failback WHEN")
	}
	if err := checkDeviceName(args[0]); err != nil {
		return "", cmd, err
	}
	if len(args) == 3 && isDeviceAction(args[1]) {
		cmd = pathCommand{Action: args[1], Value: args[2]}
		return args[0], cmd, cmd.checkDevice()
	}
	cmd = pathCommand{Path: args[1], Action: args[2]}
	values := 0
	if slices.Contains([]string{"priority", "weight"}, cmd.Action) {
		values = 1
	}
	if !slices.Contains(strings.Fields(pathActions), cmd.Action) {
		_, err := cmd.op()
		return "", cmd, err
	}
	if len(args) != 3+values {
		if values == 0 {
			return "", cmd, usagef("path … %s takes no value, but %q was given", cmd.Action, args[3])
		}
		return "", cmd, usagef("path … %s takes one number, not %d values", cmd.Action, len(args)-3)
	}
	if values == 1 {
		cmd.Value = args[3]
	}
	_, err = cmd.op()
	return args[0], cmd, err
}

// isDeviceAction reports whether an action concerns the whole device.
func isDeviceAction(s string) bool { return s == flagPolicy || s == flagFailback }

// checkDevice says what is wrong with a command that concerns the whole device.
func (p pathCommand) checkDevice() error {
	if p.Action == flagFailback {
		_, err := parseFailback(p.Value)
		return err
	}
	if !slices.Contains(initiator.Policies(), p.Value) {
		return usagef("there is no policy %q; use %s", p.Value, strings.Join(initiator.Policies(), ", "))
	}
	return nil
}

// steerDevice does what a command that concerns the whole device says.
func (p pathCommand) steerDevice(ctx context.Context, dev *initiator.Device) error {
	if err := p.checkDevice(); err != nil {
		return err
	}
	if p.Action == flagPolicy {
		return dev.SetPolicy(ctx, p.Value)
	}
	after, _ := parseFailback(p.Value)
	return dev.SetFailback(ctx, after)
}

// Limits of the values of a path command.
const (
	maxPriority = initiator.MaxPriority
	maxWeight   = initiator.MaxWeight
)

// op is what the command asks of the device, or what is wrong with it.
func (p pathCommand) op() (initiator.PathOp, error) {
	switch p.Action {
	case "up":
		return initiator.PathOp{Kind: initiator.PathUp}, nil
	case "down":
		return initiator.PathOp{Kind: initiator.PathDown}, nil
	case "priority":
		n, err := p.number(maxPriority)
		return initiator.PathOp{Kind: initiator.PathPriority, Value: n}, err
	case "weight":
		n, err := p.number(maxWeight)
		return initiator.PathOp{Kind: initiator.PathWeight, Value: n}, err
	}
	return initiator.PathOp{}, usagef("%q is nothing a path can do; use up, down, priority N or weight N%s", p.Action, didYouMean(p.Action, strings.Fields(pathActions)))
}

func (p pathCommand) number(most int) (int, error) {
	n, err := strconv.Atoi(p.Value)
	if err != nil || n < 1 || n > most {
		return 0, usagef("%s %q is not a number within 1..%d", p.Action, p.Value, most)
	}
	return n, nil
}
