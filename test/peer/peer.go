// Package peer starts and stops the programs that iscsimp is tried against: the targets gotgt, tgtd and istgt, the NBD clients nobody here wrote (fio, nbdinfo,
// nbdcopy, qemu-io, qemu-img), and the iscsimp binary itself. Everything listens on 127.0.0.0/8 and is a child of the test, so that nothing outlives it.
//
// A tool that is not installed fails the test and names the Debian package to install; with ISCSIMP_ALLOW_SKIP=1 the test is skipped instead, loudly.
//
// What does not belong here: assertions about iscsimp, and fault injection (package tcpproxy).
package peer

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// debianPackage says which package brings a program.
var debianPackage = map[string]string{
	"tgtd": "tgt", "tgtadm": "tgt", "fio": "fio", "nbdinfo": "libnbd-bin", "nbdcopy": "libnbd-bin",
	"istgt": "istgt", "tshark": "tshark", "dumpcap": "tshark", "qemu-io": "qemu-utils", "qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "iscsi-perf": "libiscsi-bin", "jq": "jq",
}

// FindTool returns the path of a program, or an error that says what to install. It also looks where Debian keeps system programs.
func FindTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	install := debianPackage[name]
	if install == "" {
		install = name
	}
	return "", fmt.Errorf("%s is not installed; run: apt-get install %s", name, install)
}

// NeedTool is FindTool for tests: a missing program fails the test, or skips it when ISCSIMP_ALLOW_SKIP=1.
func NeedTool(t testing.TB, name string) string {
	t.Helper()
	path, err := FindTool(name)
	if err != nil {
		failOrSkip(t, err.Error())
	}
	return path
}

func failOrSkip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("ISCSIMP_ALLOW_SKIP") == "1" {
		t.Skipf("NOT TESTED (ISCSIMP_ALLOW_SKIP=1): %s", reason)
	}
	t.Fatalf("%s (or set ISCSIMP_ALLOW_SKIP=1 to leave this test out)", reason)
}

// Portals returns n portal addresses with one port: 127.0.0.2:port, 127.0.0.3:port, …
func Portals(n, port int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = net.JoinHostPort(fmt.Sprintf("127.0.0.%d", i+2), strconv.Itoa(port))
	}
	return list
}

// Patience is how long tests wait for what must come: longer than it takes on a machine that has more to do.
const Patience = time.Minute

// WaitFor polls condition every few milliseconds until it returns nil, and returns its last error after limit.
func WaitFor(ctx context.Context, limit time.Duration, condition func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %v: %w", limit, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// WaitReachable dials addresses ("tcp" or "unix") until all of them accept a connection.
func WaitReachable(ctx context.Context, limit time.Duration, network string, addresses ...string) error {
	return WaitFor(ctx, limit, func() error {
		for _, address := range addresses {
			conn, err := net.DialTimeout(network, address, time.Second)
			if err != nil {
				return err
			}
			_ = conn.Close()
		}
		return nil
	})
}

// RepositoryRoot is the folder of the main module, found from this source file.
func RepositoryRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// built holds the commands compiled so far, each once per process, in a folder that RemoveBuilt removes.
var built struct {
	sync.Mutex
	dir  string
	path map[string]string
	err  map[string]error
}

// buildCommand compiles pkg of the module in moduleDir and returns the path of the binary.
func buildCommand(moduleDir, pkg string, flags ...string) (string, error) {
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "iscsimp-test-bin-")
		if err != nil {
			return "", err
		}
		built.dir, built.path, built.err = dir, map[string]string{}, map[string]error{}
	}
	if path, ok := built.path[pkg]; ok {
		return path, built.err[pkg]
	}
	path := filepath.Join(built.dir, filepath.Base(pkg))
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), pkg)...)
	cmd.Dir = moduleDir
	output, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build %s: %w\n%s", pkg, err, output)
	}
	built.path[pkg], built.err[pkg] = path, err
	return path, err
}

// RemoveBuilt removes the binaries that were built; call it at the end of TestMain or main.
func RemoveBuilt() error {
	built.Lock()
	defer built.Unlock()
	dir := built.dir
	built.dir = ""
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}
