package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// startTarget starts a target that the program can log in to.
func startTarget(t *testing.T, cfg iscsitest.Config) *iscsitest.Target {
	t.Helper()
	tgt, err := iscsitest.NewTarget(cfg)
	require.NoError(t, err)
	t.Cleanup(tgt.Close)
	return tgt
}

// program is a running `iscsimp login`.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string // runtime folder
	ready  readyReport
	line   string
	stdout *bufio.Reader
	stderr *lockedBuffer
	ended  chan struct{}
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// patience is how long a test waits for what must come.
const patience = time.Minute

// self is a command that runs this test binary as iscsimp.
func self(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

func loginArgs(tgt *iscsitest.Target, dir string, more ...string) []string {
	args := []string{
		"login", "--json", "--runtime-dir", dir, "--state-dir", dir, "--initiator-name", "iqn.2026-01.test.iscsimp:host",
		"--login-timeout", "60", "--noop-timeout", "60", "--suspect-after", "60", "-p", tgt.Addr(0), tgt.Name(),
	}
	return append(args, more...)
}

// login starts the program and waits until it is ready.
func login(t *testing.T, tgt *iscsitest.Target, more ...string) *program {
	t.Helper()
	dir := shortdir.New(t)
	return launch(t, dir, loginArgs(tgt, dir, more...)...)
}

// launch starts the program with any arguments and waits until it is ready.
func launch(t *testing.T, dir string, args ...string) *program {
	t.Helper()
	p := &program{t: t, dir: dir, stderr: &lockedBuffer{}, ended: make(chan struct{})}
	p.cmd = self(t.Context(), args...)
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.stdout = bufio.NewReader(out)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		select {
		case <-p.ended:
		default:
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("stderr:\n%s", p.stderr)
		}
	})
	p.line, err = p.stdout.ReadString('\n')
	require.NoError(t, err, "no ready line; stderr:\n%s", p.stderr)
	require.NoError(t, json.Unmarshal([]byte(p.line), &p.ready))
	return p
}

// wait waits for the end and returns the exit code.
func (p *program) wait() int {
	p.t.Helper()
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	rest, err := io.ReadAll(p.stdout)
	require.NoError(p.t, err)
	assert.Empty(p.t, string(rest), "one line is all it prints")
	_ = p.cmd.Wait()
	close(p.ended)
	return p.cmd.ProcessState.ExitCode()
}

func (p *program) signal(s os.Signal) { require.NoError(p.t, p.cmd.Process.Signal(s)) }

// greets reports whether an NBD server answers at a Unix socket.
func greets(t *testing.T, network, address string) {
	t.Helper()
	c, err := net.Dial(network, address)
	require.NoError(t, err)
	defer c.Close()
	magic := make([]byte, 16)
	_, err = io.ReadFull(c, magic)
	require.NoError(t, err)
	assert.Equal(t, "NBDMAGICIHAVEOPT", string(magic))
}

// hasEnded checks that nothing is left of p.
func (p *program) hasEnded(tgt *iscsitest.Target) {
	p.t.Helper()
	assert.Empty(p.t, tgt.Sessions(), "logged out everywhere")
	left, err := os.ReadDir(p.dir)
	require.NoError(p.t, err)
	assert.Empty(p.t, left, "no socket and no lock stays behind")
}

func TestLoginLifeCycle(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(s.String(), func(t *testing.T) {
			tgt := startTarget(t, iscsitest.Config{Portals: make([]iscsitest.Portal, 2), LUNs: []iscsitest.LUN{{Size: 1 << 20, BlockSize: 4096}}})
			p := login(t, tgt, "--wait", "all")
			assert.Equal(t, 1, p.ready.Version)
			assert.Equal(t, "ready", p.ready.Event)
			assert.Equal(t, "disk-0", p.ready.Name)
			assert.Equal(t, tgt.Name(), p.ready.Target)
			assert.Equal(t, uint64(1<<20), p.ready.SizeBytes)
			assert.Equal(t, uint32(4096), p.ready.BlockSize)
			assert.Equal(t, 2, p.ready.PathsUp)
			assert.Equal(t, 2, p.ready.PathsTotal)
			assert.Equal(t, p.cmd.Process.Pid, p.ready.PID)
			socket := filepath.Join(p.dir, "disk-0"+exportSuffix)
			assert.Equal(t, []string{"nbd+unix:///?socket=" + socket}, p.ready.Exports)
			greets(t, "unix", socket)
			st, err := os.Stat(socket)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), st.Mode().Perm())

			r := runCLI(t, "paths", "disk-0", "--json", "--runtime-dir", p.dir)
			require.Zero(t, r.code, r.stderr)
			var report devicesReport
			require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
			require.Len(t, report.Devices, 1)
			assert.Equal(t, "up", report.Devices[0].State)
			assert.Equal(t, 2, report.Devices[0].PathsUp)
			r = runCLI(t, "path", "disk-0", tgt.Addr(1), "down", "--runtime-dir", p.dir)
			require.Zero(t, r.code, r.stderr)
			r = runCLI(t, "paths", "--runtime-dir", p.dir)
			assert.Contains(t, r.stdout, "offline")

			p.signal(s)
			assert.Zero(t, p.wait())
			p.hasEnded(tgt)
		})
	}
}

// TestPlacesThatCannotBeListenedOn: what is to be done depends on what is in the way.
func TestPlacesThatCannotBeListenedOn(t *testing.T) {
	dir := shortdir.New(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for path, says := range map[string]string{"file": "remove it", "none/sock": "make its folder", "file/sock": "--export"} {
		_, err := exportAddress{"unix", filepath.Join(dir, path)}.listen()
		require.ErrorContains(t, err, says, path)
		require.ErrorContains(t, err, "--export", path)
		assert.Equal(t, path == "none/sock", strings.Contains(err.Error(), "make its folder"), "%v", err)
	}
}

func TestLoginOnTCPAndWithSeveralExports(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	extra := filepath.Join(shortdir.New(t), "my socket")
	p := login(t, tgt, "--export", "tcp:127.0.0.1:0", "--export", "unix:"+extra, "--name", "mine")
	require.Len(t, p.ready.Exports, 2)
	address, ok := strings.CutPrefix(p.ready.Exports[0], "nbd://")
	require.True(t, ok)
	greets(t, "tcp", address)
	assert.Contains(t, p.ready.Exports[1], "my%20socket")
	greets(t, "unix", extra)
	p.signal(syscall.SIGTERM)
	assert.Zero(t, p.wait())
	p.hasEnded(tgt)
}

func TestLogoutEndsALogin(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	p := login(t, tgt)
	r := runCLI(t, "logout", "disk-0", "--runtime-dir", p.dir)
	assert.Zero(t, r.code, r.stderr)
	assert.Zero(t, p.wait())
	p.hasEnded(tgt)
}

func TestASecondLoginIsRefused(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{LUNs: []iscsitest.LUN{{}, {Number: 1}}})
	p := login(t, tgt)
	before := len(tgt.Sessions())
	for _, args := range [][]string{nil, {"--name", "other"}, {"--lun", "1", "--name", "disk-0"}} {
		r := runCLI(t, loginArgs(tgt, p.dir, args...)...)
		assert.Equal(t, exitExists, r.code, "%v: %s", args, r.stderr)
		assert.Contains(t, r.stderr, "process")
	}
	elsewhere := shortdir.New(t)
	r := runCLI(t, loginArgs(tgt, elsewhere, "--state-dir", p.dir)...)
	assert.Equal(t, exitExists, r.code, "another runtime folder: %s", r.stderr)
	assert.Contains(t, r.stderr, "`iscsimp logout disk-0 --runtime-dir "+p.dir+"` ends it")
	left, err := os.ReadDir(elsewhere)
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Len(t, tgt.Sessions(), before, "the first must not notice")
	p.signal(syscall.SIGTERM)
	assert.Zero(t, p.wait())
}

func TestAKilledLoginLeavesTheWayFree(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	p := login(t, tgt)
	p.signal(syscall.SIGKILL)
	p.wait()
	again := self(t.Context(), loginArgs(tgt, p.dir)...)
	out, err := again.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, again.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, `"event":"ready"`)
	require.NoError(t, again.Process.Signal(syscall.SIGTERM))
	require.NoError(t, again.Wait())
}

func TestASecondSignalDoesNotWaitForIO(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	p := login(t, tgt)
	hold := iscsitest.NewHold(iscsitest.HoldStrict)
	tgt.Inject(iscsitest.SCSI(scsi.OpSyncCache10, scsi.OpSyncCache16), iscsitest.Hang(hold))
	p.signal(syscall.SIGTERM)
	require.NoError(t, hold.WaitHeld(t.Context(), 1), "it flushes first")
	r := runCLI(t, "ls", "--runtime-dir", p.dir)
	assert.Contains(t, r.stdout, "closing", "it still answers")
	p.signal(syscall.SIGTERM)
	assert.Equal(t, exitError, p.wait(), "data may be lost: that is no success")
	assert.Contains(t, p.stderr.String(), "may be lost")
	p.hasEnded(tgt)
}

func TestLoginGivesUpDrainingInTime(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	p := login(t, tgt, "--drain-timeout", "0.2")
	hold := iscsitest.NewHold(iscsitest.HoldStrict)
	tgt.Inject(iscsitest.SCSI(scsi.OpSyncCache10, scsi.OpSyncCache16), iscsitest.Hang(hold))
	p.signal(syscall.SIGTERM)
	assert.Equal(t, exitError, p.wait())
	assert.Contains(t, p.stderr.String(), "after 200ms")
	p.hasEnded(tgt)
}

func TestASignalBeforeItIsReady(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dir := shortdir.New(t)
	cmd := self(t.Context(), "login", "--runtime-dir", dir, "--initiator-name", "iqn.2026-01.test.iscsimp:host",
		"--login-timeout", "60", "-p", l.Addr().String(), iscsitest.DefaultName)
	require.NoError(t, cmd.Start())
	c, err := l.Accept() // it waits for an answer now
	require.NoError(t, err)
	defer c.Close()
	r := runCLI(t, "ls", "--runtime-dir", dir)
	assert.Contains(t, r.stdout, "starting")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "it was told to end, and did")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestTheReaderOfTheReadyLineMayGoAway(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	dir := shortdir.New(t)
	cmd := self(t.Context(), loginArgs(tgt, dir, "--log-level", "debug")...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	errs, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	out.Close()
	errs.Close() // every line it logs fails from now on
	tgt.DropSessions(nil)
	require.Eventually(t, func() bool { return len(tgt.Sessions()) == 1 }, patience, 5*time.Millisecond, "it must live and log in again")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
}

// loginInBackground logs in to tgt in a process that goes on by itself.
func loginInBackground(t *testing.T, tgt *iscsitest.Target, dir string) (ready readyReport) {
	out, err := self(t.Context(), loginArgs(tgt, dir, "--background")...).Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &ready))
	return ready
}

func TestLoginInTheBackground(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	dir := shortdir.New(t)
	ready := loginInBackground(t, tgt, dir)
	greets(t, "unix", filepath.Join(dir, "disk-0"+exportSuffix))
	assert.NotEqual(t, os.Getpid(), ready.PID)

	var stderr bytes.Buffer
	second := self(t.Context(), loginArgs(tgt, dir, "--background")...)
	second.Stderr = &stderr
	_ = second.Run()
	assert.Equal(t, exitExists, second.ProcessState.ExitCode())
	assert.Contains(t, stderr.String(), "already logged in", "the reason reaches the one who asked")

	r := runCLI(t, "logout", "disk-0", "--runtime-dir", dir)
	require.Zero(t, r.code, r.stderr)
	log, err := os.ReadFile(filepath.Join(dir, "disk-0"+logSuffix))
	require.NoError(t, err)
	assert.Contains(t, string(log), "path-up")
	assert.Empty(t, tgt.Sessions())
}

// TestHangupOfAService: without a terminal SIGHUP asks for settings to be read
// again, and never means that the disk shall go.
func TestHangupOfAService(t *testing.T) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP) // else the process ignores it where nohup runs the tests
	defer signal.Stop(caught)
	tgt := startTarget(t, iscsitest.Config{})
	dir := shortdir.New(t)
	ready := loginInBackground(t, tgt, dir)
	process, err := os.FindProcess(ready.PID)
	require.NoError(t, err)
	require.NoError(t, process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool {
		log, err := os.ReadFile(filepath.Join(dir, "disk-0"+logSuffix))
		return err == nil && strings.Contains(string(log), "SIGHUP does nothing")
	}, patience, 5*time.Millisecond)
	assert.Contains(t, runCLI(t, "ls", "--runtime-dir", dir).stdout, "up")
	r := runCLI(t, "logout", "disk-0", "--runtime-dir", dir)
	require.Zero(t, r.code, r.stderr)
}

// loginCase says what stands on the command line of a login that fails.
type loginCase func(*testing.T) []string

// at is a login to a target of its own.
func at(cfg iscsitest.Config, more ...string) loginCase {
	return func(t *testing.T) []string {
		tgt := startTarget(t, cfg)
		return append([]string{"-p", tgt.Addr(0), tgt.Name()}, more...)
	}
}

// refusedWith is a login that the target refuses.
func refusedWith(status pdu.LoginStatus) loginCase {
	return func(t *testing.T) []string {
		tgt := startTarget(t, iscsitest.Config{})
		tgt.Inject(iscsitest.Op(pdu.OpLogin), iscsitest.FailLogin(status))
		return []string{"-p", tgt.Addr(0), tgt.Name()}
	}
}

// greetedWith is a login at a port where something else speaks.
func greetedWith(greeting string) loginCase {
	return func(t *testing.T) []string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		stop := make(chan struct{})
		t.Cleanup(func() {
			close(stop)
			l.Close()
		})
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.WriteString(c, greeting)
					<-stop
				}()
			}
		}()
		return []string{"--login-timeout", "0.3", "-p", l.Addr().String(), iscsitest.DefaultName}
	}
}

func otherTarget(t *testing.T) []string {
	return []string{"-p", startTarget(t, iscsitest.Config{}).Addr(0), "iqn.2026-01.test:other"}
}

func fileInTheWay(t *testing.T) []string {
	file := filepath.Join(shortdir.New(t), "f")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	return at(iscsitest.Config{}, "--export", "unix:"+file)(t)
}

func TestLoginFailures(t *testing.T) {
	const mail = "220 mail.example.com ESMTP, who is there? Say HELO, and mind that this line is long enough\r\n"
	for name, c := range map[string]struct {
		args loginCase
		code int
		says string
	}{
		"nobody listens":                {func(*testing.T) []string { return []string{"-p", "127.0.0.1:1", someIQN} }, exitConnect, "refused"},
		"not iSCSI":                     {greetedWith(mail), exitConnect, "protocol error"},
		"silence":                       {greetedWith(""), exitTimeout, "no answer"},
		"no such target":                {otherTarget, exitLogin, "they list"},
		"refused":                       {refusedWith(pdu.LoginServiceUnavailable), exitLogin, "0x0301"},
		"not authorized":                {refusedWith(pdu.LoginForbidden), exitAuth, "0x0202"},
		"no such LUN":                   {at(iscsitest.Config{}, "--lun", "7"), exitNothing, "iscsimp luns"},
		"not a disk":                    {at(iscsitest.Config{LUNs: []iscsitest.LUN{{DeviceType: 1}}}), exitError, "not a disk"},
		"bad export":                    {at(iscsitest.Config{}, "--export", "tcp:192.0.2.1:1"), exitError, "--export"},
		"file in the way of the export": {fileInTheWay, exitError, "not a socket"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortdir.New(t)
			args := append([]string{"login", "--runtime-dir", dir, "--initiator-name", "iqn.2026-01.test.iscsimp:host", "--log-level", "error"}, c.args(t)...)
			r := runCLI(t, args...)
			assert.Equal(t, c.code, r.code, r.stderr)
			assert.Contains(t, r.stderr, c.says)
			assert.Empty(t, r.stdout)
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

func TestTwoPortalsWithDifferentUnits(t *testing.T) {
	a := startTarget(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "A", Size: 1 << 20}}})
	b := startTarget(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "B", Size: 2 << 20}}})
	p := login(t, a, "-p", b.Addr(0), "--only-given")
	require.Eventually(t, func() bool {
		return strings.Contains(runCLI(t, "paths", "--runtime-dir", p.dir).stdout, "quarantined")
	}, patience, 20*time.Millisecond)
	p.signal(syscall.SIGTERM)
	assert.Zero(t, p.wait())
}

func TestReadOnlyLUN(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{LUNs: []iscsitest.LUN{{ReadOnly: true}}})
	p := login(t, tgt)
	assert.True(t, p.ready.ReadOnly)
	p.signal(syscall.SIGTERM)
	assert.Zero(t, p.wait())
}

func TestDiscoverLunsAndDoctorAgainstATarget(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{Portals: make([]iscsitest.Portal, 2)})
	me := []string{"--initiator-name", "iqn.2026-01.test.iscsimp:host", "--runtime-dir", shortdir.New(t)}
	trace := filepath.Join(t.TempDir(), "trace")
	r := runCLI(t, append(me, "discover", "-p", tgt.Addr(0)+", 127.0.0.1:1", "--trace", trace)...)
	assert.Zero(t, r.code)
	assert.Contains(t, r.stdout, tgt.Addr(1))
	assert.Contains(t, r.stderr, "127.0.0.1:1", "the dead one is reported")
	lines, err := os.ReadFile(trace)
	require.NoError(t, err)
	assert.Contains(t, string(lines), tgt.Addr(0)+" > Text")
	r = runCLI(t, append(me, "discover", "-p", "127.0.0.1:1", "--json")...)
	assert.Equal(t, exitConnect, r.code)
	assert.Contains(t, r.stdout, `"ok":false`)

	r = runCLI(t, append(me, "luns", "iscsi://"+tgt.Addr(0)+"/"+tgt.Name())...)
	assert.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stdout, "64 MiB")

	r = runCLI(t, append(me, "doctor", "-p", tgt.Addr(0), tgt.Name())...)
	assert.Zero(t, r.code, r.stdout)
	r = runCLI(t, append(me, "doctor", "-p", tgt.Addr(0), "iqn.2026-01.test:other", "--json")...)
	assert.Equal(t, exitNothing, r.code)
	assert.Contains(t, r.stdout, `"ok":false`)
	r = runCLI(t, append(me, "doctor", "-p", "127.0.0.1:1")...)
	assert.Equal(t, exitConnect, r.code)
	r = runCLI(t, append(me, "doctor", "-p", "127.0.0.1:1", "-p", tgt.Addr(0))...)
	assert.Zero(t, r.code, "one portal that works is enough")
	assert.Contains(t, r.stdout, "warn")
}

func TestNoTargetsAndNoLUNs(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{LUNs: []iscsitest.LUN{}, Portals: []iscsitest.Portal{{Hidden: true}}})
	me := []string{"--initiator-name", "iqn.2026-01.test.iscsimp:host", "-p", tgt.Addr(0)}
	r := runCLI(t, append([]string{"luns", tgt.Name()}, me...)...)
	assert.Equal(t, exitNothing, r.code, r.stderr)
	assert.Contains(t, r.stderr, "LUN mapping")
}
