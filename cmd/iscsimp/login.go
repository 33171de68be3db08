package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/asynclog"
	"github.com/iscsimp/iscsimp/nbd"
)

func loginCommand() *cli.Command {
	return &cli.Command{
		Name:      "login",
		Usage:     "log in to a LUN over every path, export it, and stay",
		ArgsUsage: "TARGET",
		Description: "Logs in to every portal of TARGET: those given with -p, and those they name unless\n" +
			"--only-given. Exports the LUN over NBD and prints one line when it is ready. Stays in\n" +
			"the foreground and logs to stderr until SIGINT, SIGTERM or `iscsimp logout`; then it\n" +
			"drains, flushes, logs out and ends with 0. A second signal does not wait for I/O. SIGHUP\n" +
			"ends it if it tells that the terminal is gone; a process without one goes on.\n\n" +
			"TIME is a number of seconds, or has a unit: 500ms, 2m.",
		Flags:        flags(sessionFlags(), authFlags(), digestFlags(), keyFlags(), loginFlags()),
		OnUsageError: onUsageError,
		Action:       runLogin,
	}
}

func runLogin(c *cli.Context) (err error) {
	starter := takeHandoff()
	defer func() { starter.failed(err) }()
	if err := takeSecrets(); err != nil {
		return err
	}
	dir, err := runtimeDir(c)
	if err != nil {
		return err
	}
	options, err := loginOptionsOf(c, dir)
	if err != nil {
		return err
	}
	stderr, err := newLogger(c, c.App.ErrWriter)
	if err != nil {
		return err
	}
	logger, stopLog := asynclog.New(stderr) // a stuck terminal must not keep a signal from being heard
	defer stopLog()
	if err := prepareRuntimeDir(dir); err != nil {
		return err
	}
	control, err := socketPath(dir, options.name+controlSuffix)
	if err != nil {
		return err
	}
	if c.Bool(flagBackground) && starter == nil {
		return startBackground(c, dir, options.name)
	}
	forgetSecrets()
	lock, err := options.lock(dir, logger)
	if err != nil {
		return err
	}
	defer func() { lock.end(err) }()
	trace, err := openTrace(c)
	if err != nil {
		return err
	}
	defer trace.close(logger)
	options.cfg.Logger, options.cfg.Trace = logger, trace.hook()
	options.warnOfAccounts(c, logger)
	ends := newEnding(c.Context, logger.With("device", options.name))
	defer ends.stop()
	r := newRunner(options, ends)
	server, err := listenControl(control, r)
	if err != nil {
		return err
	}
	defer server.close()
	return r.run(func(report readyReport) error {
		report.Control = control
		if starter != nil {
			starter.send(handoffMessage{Ready: &report})
			return nil
		}
		return printReady(c, report)
	})
}

// lock takes the device for this process.
func (o *loginOptions) lock(dir string, logger *slog.Logger) (*deviceLock, error) {
	l, err := lockDevice(dir, o.name, o.cfg.Target, o.cfg.LUN)
	if err != nil {
		return nil, err
	}
	if err := l.lockState(o.cfg.StateDir, o.cfg.ReadOnly, logger); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// warnOfAccounts tells what is doubtful about secrets that are used.
func (o *loginOptions) warnOfAccounts(c *cli.Context, logger *slog.Logger) {
	if o.cfg.CHAP.User == "" {
		return
	}
	warnings, _ := settingsOf(c).checkAccounts() // errors were told when the options were read
	for _, w := range warnings {
		logger.Warn(w)
	}
}

// readyReport is the one line login prints.
type readyReport struct {
	Version    int      `json:"version"`
	Event      string   `json:"event"` // ready
	Name       string   `json:"name"`
	Target     string   `json:"target"`
	LUN        lunJSON  `json:"lun"`
	SizeBytes  uint64   `json:"size_bytes"`
	BlockSize  uint32   `json:"block_size"`
	ReadOnly   bool     `json:"read_only"`
	Identity   string   `json:"identity,omitempty"`
	Exports    []string `json:"exports"`
	PathsUp    int      `json:"paths_up"`
	PathsTotal int      `json:"paths_total"`
	PID        int      `json:"pid"`
	Control    string   `json:"control"`
}

func printReady(c *cli.Context, r readyReport) error {
	if c.Bool(flagJSON) {
		return writeJSON(c.App.Writer, r, false)
	}
	protection := ""
	if r.ReadOnly {
		protection = ", read-only"
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s is ready: %s LUN %v, %s%s, %d of %d paths up, %s\n",
		r.Name, r.Target, r.LUN, formatSize(r.SizeBytes), protection, r.PathsUp, r.PathsTotal, strings.Join(r.Exports, " "))
	return err
}

// runner is the life of one device in this process. It implements controlled.
type runner struct {
	options loginOptions
	ends    *ending
	log     *slog.Logger

	mu      sync.Mutex        // guards the fields below
	dev     *initiator.Device // nil until it is ready, and again when it is closed
	exports []string          // URIs
	closing bool
}

func newRunner(o loginOptions, ends *ending) *runner {
	return &runner{options: o, ends: ends, log: o.cfg.Logger.With("device", o.name)}
}

// run opens the device, serves it until told to end, and closes it in order.
func (r *runner) run(ready func(readyReport) error) error {
	dev, err := initiator.Open(r.ends.soft, r.options.cfg)
	if err != nil {
		if r.ends.soft.Err() != nil && r.ends.failure() == nil { // told to end before it began
			return nil
		}
		return err
	}
	r.setDevice(dev)
	server, err := r.serve(dev)
	if size := dev.BlockSize(); size > 512 {
		r.log.Info("the device has large blocks: NBD clients that do not ask must be told, such as nbd-client with -b", "block_size", size)
	}
	if err == nil {
		var report readyReport
		if report, err = r.readyReport(dev); err == nil {
			err = ready(report)
		}
	}
	if err == nil {
		<-r.ends.soft.Done()
	}
	return errors.Join(err, r.ends.failure(), r.shutdown(dev, server))
}

// serve starts the NBD server. The server is returned even with an error.
func (r *runner) serve(dev *initiator.Device) (*nbd.Server, error) {
	server, err := nbd.New(nbd.Config{
		Exports: []nbd.Export{{Name: r.options.name, Description: fmt.Sprintf("%s LUN %v", r.options.cfg.Target, r.options.cfg.LUN), Device: dev.Block()}},
		Logger:  r.options.cfg.Logger, // it names the export
	})
	if err != nil {
		return nil, err
	}
	var uris []string
	for _, e := range r.options.exports {
		l, err := e.listen()
		if err != nil {
			return server, err
		}
		e.warnOpen(l, r.log)
		uris = append(uris, e.uri(l))
		r.accept(server, l)
	}
	r.mu.Lock()
	r.exports = uris
	r.mu.Unlock()
	return server, nil
}

// accept serves one listener until the server is closed.
func (r *runner) accept(server *nbd.Server, l net.Listener) {
	go func() {
		if err := server.Serve(l); err != nil && !errors.Is(err, nbd.ErrClosed) { // closed before it began
			r.ends.fail(fmt.Errorf("the export at %s failed: %w", l.Addr(), err))
		}
	}()
}

// flushShare is the part of the time to drain that clients cannot use up: it is
// kept for the last flush, which concerns what they were told is written.
const flushShare = 4

// shutdown lets clients finish, makes their data durable and logs out, within
// the time to drain; then, or when told twice, by force.
func (r *runner) shutdown(dev *initiator.Device, server *nbd.Server) error {
	r.mu.Lock()
	r.closing = true
	r.mu.Unlock()
	begin, forClients := time.Now(), r.options.drain-r.options.drain/flushShare
	r.log.Info("draining, flushing and logging out")
	var errs []error
	left := "the last flush was not done after %v: what was written since the one before may be lost"
	if server != nil {
		ctx, cancel := r.within(begin, forClients, underWay)
		defer cancel()
		if err := server.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("clients were cut off: %w", context.Cause(ctx)))
			// What hangs may go on hanging, and the device flushes after that only.
			flush, cancel := r.within(begin, r.options.drain, left)
			defer cancel()
			if err := dev.Flush(flush); err == nil {
				left = underWay
			} else if flush.Err() == nil {
				errs = append(errs, err)
			}
		}
	}
	ctx, cancel := r.within(begin, r.options.drain, left)
	defer cancel()
	if err := dev.Close(ctx); err != nil {
		errs = append(errs, fmt.Errorf("closing the device: %w", err))
	}
	r.setDevice(nil)
	return errors.Join(errs...)
}

const underWay = "I/O was still under way after %v: it may be lost"

// within is over at limit after begin, for the reason why, or when told not to wait.
func (r *runner) within(begin time.Time, limit time.Duration, why string) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(r.ends.hard, begin.Add(limit), fmt.Errorf(why, limit))
}

func (r *runner) setDevice(dev *initiator.Device) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dev = dev
}

func (r *runner) readyReport(dev *initiator.Device) (readyReport, error) {
	st, err := r.status(context.Background())
	if err != nil {
		return readyReport{}, err
	}
	return readyReport{
		Version: schemaVersion, Event: "ready", Name: st.Name, Target: st.Target, LUN: st.LUN,
		SizeBytes: st.SizeBytes, BlockSize: st.BlockSize, ReadOnly: dev.Geometry().ReadOnly, Identity: st.Identity,
		Exports: st.Exports, PathsUp: st.PathsUp, PathsTotal: st.PathsTotal, PID: os.Getpid(),
	}, nil
}

// logout implements controlled.
func (r *runner) logout(force bool) { r.ends.end("asked to log out", force) }
