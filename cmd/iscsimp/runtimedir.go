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

const systemRuntimeDir = "/run/iscsimp"

// maxSocketPath is what fits into a sockaddr_un everywhere.
const maxSocketPath = 103

// runtimeDir says where the sockets of running devices are. It does not create it.
func runtimeDir(c *cli.Context) (string, error) {
	if dir := c.String(flagRuntimeDir); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() <= 0 || ownedByMe(systemRuntimeDir) {
		return systemRuntimeDir, nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "iscsimp"), nil
	}
	return "", failf(exitError, "no runtime folder: %s is not yours and XDG_RUNTIME_DIR is not set; give one with --%s DIR",
		systemRuntimeDir, flagRuntimeDir)
}

// prepareRuntimeDir creates dir for the owner only, or checks that nobody else
// can plant files in the one that is there.
func prepareRuntimeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("runtime folder: %w; choose another with --%s", err, flagRuntimeDir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("runtime folder: %w; choose another with --%s", err, flagRuntimeDir)
	}
	return checkRuntimeDir(dir)
}

// checkRuntimeDir reports why dir cannot hold sockets safely, or nil.
func checkRuntimeDir(dir string) error {
	st, err := os.Lstat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("runtime folder: %w", err)
	case !st.IsDir():
		return failf(exitError, "runtime folder: %s is not a folder; choose another with --%s", dir, flagRuntimeDir)
	case !ownedByMe(dir):
		return failf(exitError, "runtime folder: %s belongs to another user; choose another with --%s", dir, flagRuntimeDir)
	case hasFileModes && st.Mode().Perm()&0o022 != 0:
		return failf(exitError, "runtime folder: others may write to %s; use a folder of its own for iscsimp (chmod 0700)", dir)
	}
	return nil
}

// socketPath names a socket in dir and checks that it is short enough for the system.
func socketPath(dir, file string) (string, error) {
	path := filepath.Join(dir, file)
	if len(path) > maxSocketPath {
		return "", usagef("the socket's path %s is longer than %d bytes; use a shorter --%s or --name", path, maxSocketPath, flagRuntimeDir)
	}
	return path, nil
}

const (
	controlSuffix = ".sock" // NAME.sock: control socket
	exportSuffix  = ".nbd"  // NAME.nbd: default export
	lockSuffix    = ".lock" // NAME.lock and .device-HASH.lock: held while the process lives
)

// runningNames lists the devices that have a control socket in dir, in order.
func runningNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), controlSuffix)
		if ok && checkDeviceName(name) == nil && e.Type()&fs.ModeSocket != 0 {
			names = append(names, name)
		}
	}
	return names, nil
}
