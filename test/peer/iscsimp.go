package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Login describes one `iscsimp login`.
type Login struct {
	Portals []string // given with -p, and the only ones used
	IQN     string
	LUN     int
	Name    string   // of the device; default disk
	Args    []string // further options
}

// Device is a running `iscsimp login` that exports its LUN at Socket.
type Device struct {
	*process
	Name       string
	Socket     string          // of the NBD export
	RuntimeDir string          // removed by Stop
	Ready      json.RawMessage // the line it printed when it was ready
	binary     string
}

// DeviceStatus is one device of `iscsimp paths --json`; fields that nothing here uses are left out. Sizes are in bytes.
type DeviceStatus struct {
	Name      string       `json:"name"`
	Target    string       `json:"target"`
	State     string       `json:"state"`
	SizeBytes uint64       `json:"size_bytes"`
	BlockSize uint32       `json:"block_size"`
	LastError string       `json:"last_error"`
	Fenced    []any        `json:"fenced"`
	Paths     []PathStatus `json:"paths"`
}

// PathStatus is one path of a device.
type PathStatus struct {
	ID         string  `json:"id"`
	Portal     string  `json:"portal"`
	State      string  `json:"state"`
	Since      string  `json:"since"`
	Reason     string  `json:"reason"`
	Share      float64 `json:"share"` // of the I/O of the last seconds, 0 to 1
	IOs        uint64  `json:"ios"`
	IOPS       float64 `json:"iops"`
	MBps       float64 `json:"mbps"`
	P50Seconds float64 `json:"p50_seconds"`
	P99Seconds float64 `json:"p99_seconds"`
	InFlight   int     `json:"in_flight"`
	Retries    uint64  `json:"retries"`
	Losses     uint64  `json:"losses"` // of the session

	Connections int `json:"connections"` // logged in
}

// Path returns the path through a portal; its zero value when there is none.
func (s DeviceStatus) Path(portal string) PathStatus {
	for _, p := range s.Paths {
		if p.Portal == portal {
			return p
		}
	}
	return PathStatus{}
}

// BuildIscsimp builds the binary of the main module once per process and returns its path. The environment variable ISCSIMP_BINARY names another one to use,
// and ISCSIMP_RACE=1 builds with the race detector.
func BuildIscsimp() (string, error) {
	if path := os.Getenv("ISCSIMP_BINARY"); path != "" {
		return path, nil
	}
	if os.Getenv("ISCSIMP_RACE") == "1" {
		return buildCommand(RepositoryRoot(), "./cmd/iscsimp", "-race")
	}
	return buildCommand(RepositoryRoot(), "./cmd/iscsimp")
}

// readyLimit is how long a login may take until its device is ready.
const readyLimit = Patience

// StartLogin runs `iscsimp login` until it reports the device ready. It keeps its sockets and its identity apart from those of the machine.
func StartLogin(ctx context.Context, login Login) (*Device, error) {
	binary, err := BuildIscsimp()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "iscsimp-") // short: a unix socket's path is limited
	if err != nil {
		return nil, err
	}
	if login.Name == "" {
		login.Name = "disk"
	}
	d := &Device{Name: login.Name, RuntimeDir: dir, Socket: filepath.Join(dir, "nbd.sock"), binary: binary}
	args := []string{
		"login", "--json", "--only-given", "--runtime-dir", dir, "--state-dir", dir, "--name", login.Name, "--lun", strconv.Itoa(login.LUN),
		"--export", "unix:" + d.Socket, "--initiator-name", InitiatorName,
	}
	for _, portal := range login.Portals {
		args = append(args, "-p", portal)
	}
	args = append(append(args, login.Args...), login.IQN)
	d.process, err = startReady(exec.CommandContext(ctx, binary, args...), readyLimit, func(line string) error {
		d.Ready = json.RawMessage(line)
		if !json.Valid(d.Ready) {
			return fmt.Errorf("the ready line is not JSON: %q", line)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("iscsimp %s: %w", strings.Join(args, " "), err), os.RemoveAll(dir))
	}
	return d, nil
}

// InitiatorName is the name that iscsimp uses when it is started here.
const InitiatorName = "iqn.2026-01.io.github.iscsimp:test-initiator"

// Command runs the iscsimp binary with another sub-command in the device's runtime folder and returns what it printed on standard output.
func (d *Device) Command(ctx context.Context, args ...string) (string, error) {
	return runIscsimp(ctx, d.binary, append(args, "--runtime-dir", d.RuntimeDir)...)
}

// RunIscsimp runs the iscsimp binary and returns what it printed on standard output; the error holds what it printed on standard error.
func RunIscsimp(ctx context.Context, args ...string) (string, error) {
	binary, err := BuildIscsimp()
	if err != nil {
		return "", err
	}
	return runIscsimp(ctx, binary, args...)
}

func runIscsimp(ctx context.Context, binary string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("iscsimp %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Status asks for `paths --json` of this device.
func (d *Device) Status(ctx context.Context) (DeviceStatus, error) {
	output, err := d.Command(ctx, "paths", "--json", d.Name)
	if err != nil {
		return DeviceStatus{}, err
	}
	var report struct {
		Version int            `json:"version"`
		Devices []DeviceStatus `json:"devices"`
	}
	if err := json.Unmarshal([]byte(output), &report); err != nil {
		return DeviceStatus{}, fmt.Errorf("paths --json: %w: %s", err, output)
	}
	if report.Version != 1 || len(report.Devices) != 1 {
		return DeviceStatus{}, fmt.Errorf("paths --json: version %d with %d devices, want version 1 with one: %s", report.Version, len(report.Devices), output)
	}
	return report.Devices[0], nil
}

// WaitPaths polls until the device reports condition as true; it fails after limit with the last status.
func (d *Device) WaitPaths(ctx context.Context, limit time.Duration, what string, condition func(DeviceStatus) bool) (DeviceStatus, error) {
	var status DeviceStatus
	err := WaitFor(ctx, limit, func() error {
		if d.Exited() {
			return fmt.Errorf("iscsimp has ended: %s", d.ending())
		}
		var err error
		if status, err = d.Status(ctx); err != nil {
			return err
		}
		if !condition(status) {
			return fmt.Errorf("not yet %s: %+v", what, status)
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("%w\nlog of iscsimp:\n%s", err, d.Output())
	}
	return status, err
}

// WaitUp waits until n paths are up.
func (d *Device) WaitUp(ctx context.Context, n int) (DeviceStatus, error) {
	return d.WaitPaths(ctx, Patience, fmt.Sprintf("%d paths up", n), func(s DeviceStatus) bool { return s.PathsUp() == n })
}

// PathsUp counts the paths in state up.
func (s DeviceStatus) PathsUp() int {
	n := 0
	for _, p := range s.Paths {
		if p.State == "up" {
			n++
		}
	}
	return n
}

// Stop sends SIGTERM, on which iscsimp drains, logs out and ends with status 0.
func (d *Device) Stop() error {
	defer os.RemoveAll(d.RuntimeDir)
	if d.Exited() {
		return fmt.Errorf("iscsimp had ended by itself: %s; its log:\n%s", d.ending(), d.Output())
	}
	return d.terminate(Patience)
}

// NeedLogin is StartLogin for tests. At the end of the test iscsimp must stop in order; its log is shown when the test failed.
func NeedLogin(t testing.TB, login Login) *Device {
	t.Helper()
	device, err := StartLogin(context.Background(), login)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := device.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of iscsimp:\n%s", device.Output())
		}
	})
	return device
}

// WaitExit waits until iscsimp ended by itself, as after `iscsimp logout`, and returns an error unless its status was 0.
func (d *Device) WaitExit(ctx context.Context) error {
	defer os.RemoveAll(d.RuntimeDir)
	select {
	case <-d.done:
	case <-time.After(Patience):
		d.Kill()
		return fmt.Errorf("iscsimp did not end; its log:\n%s", d.Output())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if d.err != nil {
		return fmt.Errorf("iscsimp ended with %w; its log:\n%s", d.err, d.Output())
	}
	return nil
}
