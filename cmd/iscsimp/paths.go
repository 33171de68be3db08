package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

func pathsCommand() *cli.Command {
	return &cli.Command{
		Name:         "paths",
		Usage:        "show every path of the devices that run here",
		ArgsUsage:    "[NAME...]",
		Flags:        flags(),
		OnUsageError: onUsageError,
		Action:       runPaths,
	}
}

func runPaths(c *cli.Context) error {
	devices, err := selectDevices(c, c.Args().Slice())
	if err != nil {
		return err
	}
	if c.Bool(flagJSON) {
		if err := writeJSON(c.App.Writer, devicesReport{schemaVersion, devices}, false); err != nil {
			return err
		}
	} else if err := writePaths(c.App.Writer, devices); err != nil {
		return err
	}
	return nothingIfEmpty(c, devices)
}

// writePaths prints one headed table a device.
func writePaths(w io.Writer, devices []deviceStatus) error {
	var b bytes.Buffer // in one piece, so that `| head -1` does not end it by a signal
	for i, d := range devices {
		if i > 0 {
			fmt.Fprintln(&b)
		}
		fmt.Fprintln(&b, printable(deviceHeading(d)))
		if len(d.Paths) == 0 {
			continue
		}
		if err := tableOf(pathColumns, d.Paths).writeTo(&b); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// deviceHeading says in one line what the device is and how it does.
func deviceHeading(d deviceStatus) string {
	parts := []string{
		fmt.Sprintf("%s: %s LUN %v", d.Name, d.Target, d.LUN),
		d.State,
	}
	if d.SizeBytes > 0 {
		parts = append(parts, formatSize(d.SizeBytes))
	}
	if d.Policy != "" {
		parts = append(parts, "policy "+d.Policy)
	}
	if d.ReadOnly {
		parts = append(parts, "read-only")
	}
	parts = append(parts, fmt.Sprintf("%d in flight", d.InFlight))
	if d.Queued > 0 {
		parts = append(parts, fmt.Sprintf("%d waiting for a path", d.Queued))
	}
	if d.NoPathSecondsLeft != nil {
		parts = append(parts, fmt.Sprintf("no path: I/O fails in %s", formatAge(*d.NoPathSecondsLeft)))
	}
	if n := max(d.FencedTotal, len(d.Fenced)); n > 0 { // the list is not always complete
		parts = append(parts, fmt.Sprintf("fenced writes: %d", n))
	}
	return strings.Join(parts, ", ")
}
