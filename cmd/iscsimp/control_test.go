package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/internal/shortdir"
)

// fakeDevice is something to control.
type fakeDevice struct {
	mu     sync.Mutex
	forced []bool
	steers []pathCommand
	err    error
	hang   chan struct{} // status waits for it, or for its context
	onEnd  func()

	reserves     []reserveCommand
	reservations initiator.Reservations
}

func (f *fakeDevice) status(ctx context.Context) (deviceStatus, error) {
	if f.hang != nil {
		select {
		case <-f.hang:
		case <-ctx.Done():
			return deviceStatus{}, failf(exitTimeout, "the device does not answer: %w", ctx.Err())
		}
	}
	return sample(), f.err
}

func (f *fakeDevice) steer(_ context.Context, cmd pathCommand) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steers = append(f.steers, cmd)
	return f.err
}

func (f *fakeDevice) reserve(_ context.Context, cmd reserveCommand) (reserveReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reserves = append(f.reserves, cmd)
	return newReserveReport("disk1-0", cmd.Action, f.reservations), f.err
}

func (f *fakeDevice) logout(force bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forced = append(f.forced, force)
	if f.onEnd != nil {
		go f.onEnd()
	}
}

// runFake runs dev under name in dir as a process would, until the returned
// function is called.
func runFake(t *testing.T, dir, name string, dev controlled) (end func()) {
	t.Helper()
	lock, err := lockDevice(dir, name, "iqn.2026-01.com.example:"+name, 0)
	require.NoError(t, err)
	server, err := listenControl(filepath.Join(dir, name+controlSuffix), dev)
	require.NoError(t, err)
	end = sync.OnceFunc(func() {
		server.close()
		lock.release()
	})
	t.Cleanup(end)
	return end
}

func TestControlSocket(t *testing.T) {
	leak.Check(t)
	dir := shortdir.New(t)
	dev := &fakeDevice{}
	runFake(t, dir, "disk1-0", dev)
	st, err := os.Stat(filepath.Join(dir, "disk1-0"+controlSuffix))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), st.Mode().Perm())

	r := runCLI(t, "paths", "disk1-0", "--runtime-dir", dir)
	assert.Zero(t, r.code)
	assert.Contains(t, r.stdout, "[2001:db8::1]:3260")
	assert.Empty(t, r.stderr)
	r = runCLI(t, "ls", "--runtime-dir", dir, "--json")
	assert.Contains(t, r.stdout, `{"version":1,"devices":[{"name":"disk1-0"`)
	r = runCLI(t, "paths", "other", "--runtime-dir", dir)
	assert.Equal(t, exitNoDevice, r.code)

	r = runCLI(t, "path", "disk1-0", "2", "priority", "3", "--runtime-dir", dir, "--json")
	assert.Zero(t, r.code, r.stderr)
	assert.Equal(t, []pathCommand{{Path: "2", Action: "priority", Value: "3"}}, dev.steers)
	r = runCLI(t, "path", "disk1-0", "policy", "queue-depth", "--runtime-dir", dir)
	assert.Zero(t, r.code, r.stderr)
	r = runCLI(t, "path", "disk1-0", "failback", "30", "--runtime-dir", dir, "--json")
	assert.Zero(t, r.code, r.stderr)
	assert.JSONEq(t, `{"version":1,"name":"disk1-0","action":"failback","value":"30"}`, r.stdout)
	assert.Equal(t, []pathCommand{{Action: "policy", Value: "queue-depth"}, {Action: "failback", Value: "30"}}, dev.steers[1:])
	dev.err = noSuchDevice("/nonexistent", "z")
	r = runCLI(t, "path", "disk1-0", "2", "up", "--runtime-dir", dir)
	assert.Equal(t, exitNoDevice, r.code, "the exit code travels")
	assert.Contains(t, r.stderr, `"z"`)
}

func TestLogoutWaitsForTheEnd(t *testing.T) {
	leak.Check(t)
	dir := shortdir.New(t)
	for _, force := range []bool{false, true} {
		dev := &fakeDevice{}
		end := runFake(t, dir, "a", dev)
		dev.onEnd = end
		args := []string{"logout", "a", "--runtime-dir", dir}
		if force {
			args = append(args, "--force")
		}
		r := runCLI(t, args...)
		assert.Zero(t, r.code, r.stderr)
		assert.Equal(t, "a: logged out\n", r.stdout)
		assert.Equal(t, []bool{force}, dev.forced)
	}
	r := runCLI(t, "logout", "a", "--runtime-dir", dir)
	assert.Equal(t, exitNoDevice, r.code)
	assert.Equal(t, exitNothing, runCLI(t, "logout", "--all", "--runtime-dir", dir).code)
}

func TestLogoutOfSeveralReportsEach(t *testing.T) {
	leak.Check(t)
	dir := shortdir.New(t)
	quick, stuck := &fakeDevice{}, &fakeDevice{}
	quick.onEnd = runFake(t, dir, "quick", quick)
	runFake(t, dir, "stuck", stuck)
	r := runCLI(t, "logout", "--all", "--timeout", "2", "--runtime-dir", dir, "--json")
	assert.Equal(t, exitTimeout, r.code)
	assert.Contains(t, r.stdout, `{"name":"quick","pid":`)
	assert.Contains(t, r.stdout, `"gone":true`)
	assert.Contains(t, r.stderr, "stuck: it has not ended within 2s")
	assert.Contains(t, r.stderr, "--force")
}

// stale leaves the socket of a dead process.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestStaleSocketsAreCleanedUp(t *testing.T) {
	leak.Check(t)
	dir := shortdir.New(t)
	stale(t, filepath.Join(dir, "dead"+controlSuffix))
	stale(t, filepath.Join(dir, "dead"+exportSuffix))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "dead"+lockSuffix), []byte(`{"pid":1}`), 0o600))
	r := runCLI(t, "ls", "--runtime-dir", dir)
	assert.Equal(t, exitNothing, r.code)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)

	stale(t, filepath.Join(dir, "again"+controlSuffix))
	runFake(t, dir, "again", &fakeDevice{}) // takes its place
	assert.Zero(t, runCLI(t, "paths", "again", "--runtime-dir", dir).code)

	stale(t, filepath.Join(dir, "gone"+controlSuffix))
	assert.Equal(t, exitNoDevice, runCLI(t, "logout", "gone", "--runtime-dir", dir).code)
}

func TestAProcessThatIsJustStartingKeepsItsSocket(t *testing.T) {
	dir := shortdir.New(t)
	lock, err := lockDevice(dir, "new", "iqn.2026-01.com.example:new", 0)
	require.NoError(t, err)
	defer lock.release()
	stale(t, filepath.Join(dir, "new"+controlSuffix)) // made, but not listened on yet
	r := runCLI(t, "ls", "--runtime-dir", dir)
	assert.Zero(t, r.code)
	assert.Contains(t, r.stdout, stateNotAnswering)
	_, err = os.Lstat(filepath.Join(dir, "new"+controlSuffix))
	assert.NoError(t, err)
}

func TestADeviceThatHangsHidesNoOther(t *testing.T) {
	leak.Check(t)
	impatient(t)
	dir := shortdir.New(t)
	hung := &fakeDevice{hang: make(chan struct{})}
	defer close(hung.hang)
	runFake(t, dir, "hung", hung)
	runFake(t, dir, "fine", &fakeDevice{})
	began := time.Now()
	r := runCLI(t, "ls", "--runtime-dir", dir)
	assert.Less(t, time.Since(began), patience)
	assert.Zero(t, r.code)
	assert.Contains(t, r.stdout, "fine")
	assert.Contains(t, r.stdout, stateNotAnswering)
}

func TestAProcessThatAcceptsAndSaysNothing(t *testing.T) {
	leak.Check(t)
	impatient(t)
	dir := shortdir.New(t)
	lock, err := lockDevice(dir, "mute", "iqn.2026-01.com.example:mute", 0)
	require.NoError(t, err)
	defer lock.release()
	l, err := net.Listen("unix", filepath.Join(dir, "mute"+controlSuffix))
	require.NoError(t, err)
	defer l.Close()
	r := runCLI(t, "paths", "mute", "--runtime-dir", dir)
	assert.Zero(t, r.code)
	assert.Contains(t, r.stdout, stateNotAnswering)
	r = runCLI(t, "logout", "mute", "--runtime-dir", dir)
	assert.Equal(t, exitTimeout, r.code)
	r = runCLI(t, "logout", "mute", "--timeout", "0.1", "--runtime-dir", dir)
	assert.Equal(t, exitTimeout, r.code)
	assert.Equal(t, "iscsimp: mute: it has not ended within 100ms; `--force` does not wait for I/O\n", r.stderr)
}

// impatient shortens the time limits of control sockets.
func impatient(t *testing.T) {
	old := controlTimeout
	controlTimeout = time.Second // what answers must do so in time
	t.Cleanup(func() { controlTimeout = old })
}

// ask sends one raw request to a control socket.
func ask(t *testing.T, dir, name, request string) string {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, name+controlSuffix))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, request)
	require.NoError(t, err)
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	return string(b)
}

func TestControlSocketBadRequests(t *testing.T) {
	leak.Check(t)
	dir := shortdir.New(t)
	dev := &fakeDevice{}
	runFake(t, dir, "x", dev)
	post := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	}
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"unknown path":    {"GET /v2/status HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusNotFound},
		"wrong method":    {"DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusMethodNotAllowed},
		"GET of a logout": {"GET /v1/logout HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusMethodNotAllowed},
		"not JSON":        {post("/v1/logout", "force"), http.StatusBadRequest},
		"wrong type":      {post("/v1/logout", `{"force":"yes"}`), http.StatusBadRequest},
		"too large":       {post("/v1/path", `{"path":"`+strings.Repeat("x", maxControlBody)+`"}`), http.StatusBadRequest},
		"not HTTP":        {"\x00\x01\x02\r\n\r\n", http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			answer := ask(t, dir, "x", c.request)
			assert.Contains(t, answer, fmt.Sprintf("HTTP/1.1 %d ", c.status), answer)
		})
	}
	assert.Empty(t, dev.forced, "none of them was a logout")
	assert.Empty(t, dev.steers)
	assert.Contains(t, ask(t, dir, "x", post("/v1/logout", "")), "HTTP/1.1 200")
	assert.Equal(t, []bool{false}, dev.forced, "an empty body is the default")
}

func TestTheSocketIsNotForOthers(t *testing.T) {
	dir := shortdir.New(t)
	_, err := listenControl(filepath.Join(dir, "none", "x.sock"), &fakeDevice{})
	assert.Error(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file.sock"), []byte("precious"), 0o600))
	_, err = listenControl(filepath.Join(dir, "file.sock"), &fakeDevice{})
	assert.Error(t, err)
	b, err := os.ReadFile(filepath.Join(dir, "file.sock"))
	require.NoError(t, err)
	assert.Equal(t, "precious", string(b), "only sockets are replaced")
}
