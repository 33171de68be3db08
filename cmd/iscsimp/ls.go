package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:         "ls",
		Usage:        "list the devices that run here",
		ArgsUsage:    " ",
		Flags:        flags(),
		OnUsageError: onUsageError,
		Action:       runLs,
	}
}

func runLs(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	devices, err := selectDevices(c, nil)
	if err != nil {
		return err
	}
	if c.Bool(flagJSON) {
		if err := writeJSON(c.App.Writer, devicesReport{schemaVersion, devices}, false); err != nil {
			return err
		}
	} else if len(devices) > 0 {
		if err := devicesTable(devices).writeTo(c.App.Writer); err != nil {
			return err
		}
	}
	return nothingIfEmpty(c, devices)
}

// selectDevices asks the devices called names, or all if none is given.
func selectDevices(c *cli.Context, names []string) ([]deviceStatus, error) {
	dir, err := runtimeDir(c)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return runningDevices(c.Context, dir)
	}
	devices := []deviceStatus{}
	for _, name := range names {
		if err := checkDeviceName(name); err != nil {
			return nil, err
		}
		st, ok := statusOf(c.Context, dir, name)
		if !ok {
			return nil, noSuchDevice(dir, name)
		}
		devices = append(devices, st)
	}
	return devices, nil
}

// noSuchDevice says that name does not run in dir, or that this user cannot know.
func noSuchDevice(dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name+lockSuffix))
	if errors.Is(err, fs.ErrPermission) {
		return notYours(name, err)
	}
	if err == nil {
		f.Close()
	}
	return failf(exitNoDevice, "no device called %q runs here; `iscsimp ls` lists those that do", name)
}

// notYours says that a device, if there is one, belongs to another user.
func notYours(name string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path
	}
	return failf(exitError, "device %s: %w; ask as the user who runs it", name, err)
}

// nothingIfEmpty gives "nothing found" for an empty list.
func nothingIfEmpty(c *cli.Context, devices []deviceStatus) error {
	if len(devices) > 0 {
		return nil
	}
	dir, err := runtimeDir(c)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "iscsimp: no device runs here (looked in %s)\n", dir)
	return silentExit(exitNothing)
}

func devicesTable(devices []deviceStatus) *table {
	t := &table{header: []string{"NAME", "STATE", "SIZE", "PATHS", "LUN", "TARGET", "EXPORT"}}
	for _, d := range devices {
		size := ""
		if d.SizeBytes > 0 {
			size = formatSize(d.SizeBytes)
		}
		t.add(d.Name, d.State, size, fmt.Sprintf("%d/%d", d.PathsUp, d.PathsTotal), fmt.Sprint(d.LUN),
			d.Target, strings.Join(d.Exports, " "))
	}
	return t
}
