package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/urfave/cli/v2"
)

const (
	flagAll   = "all"
	flagForce = "force"
	flagWait  = "wait"
)

func logoutCommand() *cli.Command {
	return &cli.Command{
		Name:      "logout",
		Usage:     "end a device: drain, flush, log out",
		ArgsUsage: "NAME...|--all",
		Description: "Returns when the processes have ended. 0 means that what was written is safe and every\n" +
			"session is logged out; otherwise it says what did not go well. With --force that is a warning.",
		Flags: flags([]cli.Flag{
			&cli.BoolFlag{Name: flagAll, DisableDefaultText: true, Usage: "end every device that runs here"},
			&cli.BoolFlag{Name: flagForce, DisableDefaultText: true, Usage: "do not wait for I/O: what is under way fails"},
			&cli.StringFlag{Name: flagTimeout, Value: "60", Usage: "wait at most `TIME` for the processes to end"},
		}),
		OnUsageError: onUsageError,
		Action:       runLogout,
	}
}

const flagTimeout = "timeout"

type logoutReport struct {
	Version int            `json:"version"`
	Devices []logoutResult `json:"devices"`
}

// logoutResult is one line of the report.
type logoutResult struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Gone  bool   `json:"gone"`            // no process runs it any more, however that ended
	Error string `json:"error,omitempty"` // it still runs, or did not end in order
	// Warning is what --force has cost.
	Warning string `json:"warning,omitempty"`
	err     error
}

func runLogout(c *cli.Context) error {
	dir, err := runtimeDir(c)
	if err != nil {
		return err
	}
	timeout, err := timeOf(c, flagTimeout)
	if err != nil {
		return err
	}
	names, err := logoutNames(c, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(c.Context, timeout,
		failf(exitTimeout, "it has not ended within %v; `--force` does not wait for I/O", timeout))
	defer cancel()
	results := make([]logoutResult, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { results[i] = logoutOne(ctx, dir, name, c.Bool(flagForce)) })
	}
	wg.Wait()
	return reportLogout(c, results)
}

// logoutNames says whom to log out; none is an error of its own kind.
func logoutNames(c *cli.Context, dir string) ([]string, error) {
	names := c.Args().Slice()
	if c.Bool(flagAll) == (len(names) > 0) {
		return nil, usagef("logout needs NAME... or --all, one of the two")
	}
	for _, name := range names {
		if err := checkDeviceName(name); err != nil {
			return nil, err
		}
	}
	if len(names) > 0 {
		return names, nil
	}
	devices, err := runningDevices(c.Context, dir)
	if err != nil {
		return nil, err
	}
	if err := nothingIfEmpty(c, devices); err != nil {
		return nil, err
	}
	for _, d := range devices {
		names = append(names, d.Name)
	}
	return names, nil
}

func logoutOne(ctx context.Context, dir, name string, force bool) logoutResult {
	r := logoutResult{Name: name}
	watch := watchEnd(dir, name)
	defer watch.close()
	var a controlAnswer
	r.err = controlCall(ctx, dir, name, http.MethodPost, "/v1/logout", logoutRequest{Force: force}, &a)
	r.PID = a.PID
	var end claim
	switch {
	case errors.Is(r.err, errGone):
		r.err = noSuchDevice(dir, name)
		if holder, running := watch.holder(); running { // it is just starting or just ending
			r.PID = holder.PID
			end, r.err = watch.wait(ctx)
		} else {
			removeStale(dir, name)
		}
	case r.err == nil:
		end, r.err = watch.wait(ctx)
	}
	if r.err == nil {
		r.Gone = true
		r.judge(end, force)
	}
	if r.err != nil {
		r.Error = r.err.Error()
	}
	return r
}

// judge looks at how the process ended, which it noted last.
func (r *logoutResult) judge(end claim, force bool) {
	switch {
	case !end.Ended:
		r.err = failf(exitError, "process %d is gone, but did not log out: it was killed, or crashed; see its log", r.PID)
	case end.Failed != "" && force:
		r.Warning = end.Failed
	case end.Failed != "":
		r.err = failf(exitError, "it has ended, but not in order: %s", end.Failed)
	}
}

func reportLogout(c *cli.Context, results []logoutResult) error {
	if c.Bool(flagJSON) {
		err := writeJSON(c.App.Writer, logoutReport{schemaVersion, results}, false)
		if err != nil {
			return err
		}
	}
	var errs []error
	for _, r := range results {
		if r.Warning != "" {
			fmt.Fprintf(c.App.ErrWriter, "iscsimp: %s: %s\n", r.Name, r.Warning)
		}
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Name, r.err))
		} else if !c.Bool(flagJSON) {
			fmt.Fprintf(c.App.Writer, "%s: logged out\n", r.Name)
		}
	}
	return errors.Join(errs...)
}
