package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/chaptest"
	"github.com/iscsimp/iscsimp/internal/heldport"
	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/scsi"
)

// speaker listens and has serve speak on each connection.
func speaker(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// closedPort is an address where nobody listens before the test has ended.
func closedPort(t *testing.T) string {
	t.Helper()
	p, err := heldport.Hold("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(p.Release)
	return p.Addr()
}

// errorWalk runs command lines and writes down what a person sees of each.
type errorWalk struct {
	t     *testing.T
	text  strings.Builder
	dir   string   // the runtime folder
	hides []string // pairs of what differs from run to run, and its name
}

func (w *errorWalk) hide(what, name string) string {
	w.hides = append(w.hides, what, name)
	return what
}

var (
	logLine = regexp.MustCompile(`(?m)^time=.*\n`)
	// What doctor says of this machine is not of interest, nor are its columns.
	noFailure = regexp.MustCompile(`(?m)^(STATUS|ok|note|warn) .*\n( .*\n)?`)
	columns   = regexp.MustCompile(` {2,}`)
)

// run runs a command line; --runtime-dir and the like are added.
func (w *errorWalk) run(args ...string) {
	w.t.Helper()
	all := slices.Clone(args)
	if !slices.Contains(args, "--runtime-dir") {
		all = append(all, "--runtime-dir", w.dir)
	}
	if slices.Contains(args, "-p") {
		all = append(all, "--initiator-name", "iqn.2026-01.test.iscsimp:host", "--login-timeout", "2")
	}
	r := runCLI(w.t, all...)
	out := logLine.ReplaceAllString(r.stderr, "")
	if out == "" { // doctor tells on stdout
		out = columns.ReplaceAllString(noFailure.ReplaceAllString(r.stdout, ""), "  ")
	}
	names := strings.NewReplacer(w.hides...)
	fmt.Fprintf(&w.text, "$ iscsimp %s\n%sexit code %d\n\n", names.Replace(strings.Join(args, " ")), names.Replace(out), r.code)
	assert.NotZero(w.t, r.code, args)
}

// TestErrorsOfEveryKind keeps what people see when something is wrong, so that a
// change of it is a change that is looked at. Each must say what to do.
func TestErrorsOfEveryKind(t *testing.T) {
	cleanState(t)
	w := &errorWalk{t: t}
	w.dir = w.hide(shortdir.New(t), "DIR")
	tgt := startTarget(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "one"}, {Number: 1, DeviceType: scsi.TypeController}, {Number: 2, DeviceType: scsi.TypeProcessor}}})
	guarded := startTarget(t, iscsitest.Config{Authenticate: chaptest.New(t)})
	portal, third := w.hide(tgt.Addr(0), "PORTAL"), w.hide(guarded.Addr(0), "GUARDED")
	closed := w.hide(closedPort(t), "CLOSED")
	silent := w.hide(speaker(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), "SILENT")
	web := w.hide(speaker(t, func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n"+strings.Repeat("no\n", 100))
		_, _ = io.Copy(io.Discard, c)
	}), "WEB")
	secret := w.hide(secretFile(t, "a wrong secret, and long"), "FILE")
	open := w.hide(filepath.Join(t.TempDir(), "open"), "OPEN")
	require.NoError(t, os.WriteFile(open, []byte("secret"), 0o644))

	for _, p := range []string{closed, silent, web} {
		w.run("discover", "-p", p)
	}
	w.run("discover", "-p", third, "--chap-user", "eve", "--chap-secret-file", secret)
	w.run("discover", "-p", third, "--chap-user", "eve", "--chap-secret-file", open)
	w.run("luns", "-p", portal, "iqn.2026-01.test:another")
	w.run("login", "-p", closed, "-p", web, tgt.Name())
	w.run("login", "-p", portal, "iqn.2026-01.test:another")
	for _, lun := range []string{"1", "2", "7"} {
		w.run("login", "-p", portal, tgt.Name(), "--lun", lun)
	}
	w.run("login", "-p", third, tgt.Name())
	w.run("login", "-p", portal, tgt.Name(), "--wait", "2", "--only-given")
	w.run("login", "-p", portal, tgt.Name(), "--export", "tcp:"+portal)
	w.run("login", "-p", portal, tgt.Name(), "--export", "unix:/nonexistent/x.sock")
	w.run("login", "-p", portal, tgt.Name(), "--runtime-dir", "/dev/null")
	for _, cmd := range []string{"ls", "paths", "explain", "logout --all", "logout nobody", "paths nobody", "path nobody 1 up"} {
		w.run(strings.Fields(cmd)...)
	}
	w.run("doctor", "-p", closed)
	golden(t, "errors.txt", w.text.String())
}

// TestErrorsOfTheCommandLine keeps the words of all errors in command lines.
func TestErrorsOfTheCommandLine(t *testing.T) {
	var b strings.Builder
	for _, name := range sortedKeys(badCommandLines) {
		c := badCommandLines[name]
		fmt.Fprintf(&b, "$ iscsimp %s\n%s\n", strings.Join(c.args, " "), runCLI(t, c.args...).stderr)
	}
	golden(t, "errors-usage.txt", b.String())
}

// TestErrorsOfAConfiguration keeps the words of all errors in configuration files.
func TestErrorsOfAConfiguration(t *testing.T) {
	cleanState(t)
	var b strings.Builder
	for _, text := range sortedKeys(wrongConfigs) {
		path := configFile(t, text)
		_, err := understood(t, "--config", path, someIQN)
		fmt.Fprintf(&b, "%s\n--> %s\n\n", text, strings.ReplaceAll(fmt.Sprint(err), path, "FILE"))
	}
	golden(t, "errors-config.txt", b.String())
}
