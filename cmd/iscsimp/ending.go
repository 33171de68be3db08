package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// ending says when a login is to end: soft is done when it shall drain and
// leave, hard when it shall not wait for I/O any more.
type ending struct {
	soft, hard       context.Context
	endSoft, endHard context.CancelCauseFunc
	log              *slog.Logger
	terminal         bool // there was one at the start: SIGHUP tells that it is gone
	signals          chan os.Signal
	quit             chan struct{}
	done             sync.WaitGroup
	mu               sync.Mutex // guards err
	err              error
}

var errForced = errors.New("told not to wait for I/O: what was under way may be lost")

// newEnding begins to listen for signals. The end of parent is a soft one.
func newEnding(parent context.Context, logger *slog.Logger) *ending {
	e := &ending{log: logger, terminal: hasTerminal(), signals: make(chan os.Signal, 4), quit: make(chan struct{})}
	e.soft, e.endSoft = context.WithCancelCause(parent)
	e.hard, e.endHard = context.WithCancelCause(context.WithoutCancel(parent))
	watched := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // under nohup it stays ignored
		watched = append(watched, syscall.SIGHUP)
	}
	signal.Notify(e.signals, watched...)
	// A reader of our output that goes away must not take the device with it.
	signal.Ignore(syscall.SIGPIPE)
	e.done.Go(e.watch)
	return e
}

func (e *ending) watch() {
	for {
		select {
		case s := <-e.signals:
			if s == syscall.SIGHUP && !e.terminal { // to a service it says "read your settings again"
				e.log.Warn("SIGHUP does nothing: settings are read at login; `iscsimp path` changes what can be changed, SIGTERM ends the device")
				continue
			}
			e.end("signal: "+s.String(), e.soft.Err() != nil)
		case <-e.quit:
			return
		}
	}
}

// end ends the login for a reason; with force it does not wait for I/O.
func (e *ending) end(why string, force bool) {
	e.log.Info("ending", "why", why, "force", force)
	e.endSoft(errors.New(why))
	if force {
		e.endHard(errForced)
	}
}

// fail ends the login because something broke.
func (e *ending) fail(err error) {
	e.mu.Lock()
	if e.err == nil {
		e.err = err
	}
	e.mu.Unlock()
	e.end(err.Error(), false)
}

// failure is what broke, if anything did.
func (e *ending) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// stop gives the signals back.
func (e *ending) stop() {
	signal.Stop(e.signals)
	close(e.quit)
	e.done.Wait()
	e.endSoft(nil)
	e.endHard(nil)
}
