// Package wire runs one session of package session over a loop, as package initiator does, but with every knob of session.Config in reach and one command
// after the other or many at once, for tests that ask what a target and the session agree on.
//
// What does not belong here: several paths, retries, and NBD; those are iscsimp's own business and are tested through its command line.
package wire

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session"
)

// InitiatorName is the name sessions use unless their Config has one.
const InitiatorName = "iqn.2026-01.io.github.iscsimp:wire"

// patience bounds what must end by itself.
const patience = time.Minute

// Session is a session on a loop of its own. All methods may be called from any goroutine.
type Session struct {
	loop loop.Loop
	s    *session.Session
	room chan struct{} // holds a token when there may be room for a command again

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each piece of news
	ups     []session.Up
	downs   []*session.Error
	closed  bool

	received [256]atomic.Int64 // PDUs from the target, by opcode
}

// Start makes a session and starts its login; nothing is waited for. What cfg leaves out gets the defaults of session.Config, the name InitiatorName and an
// ISID made from the portal; a TPGT of 0 means that it is not known.
func Start(cfg session.Config) (*Session, error) {
	if cfg.InitiatorName == "" {
		cfg.InitiatorName = InitiatorName
	}
	if cfg.ISID == [6]byte{} {
		cfg.ISID = session.DeriveISID(cfg.InitiatorName, cfg.TargetName, cfg.Portal)
	}
	if cfg.TPGT == 0 {
		cfg.TPGT = -1
	}
	w := &Session{loop: loop.New(), room: make(chan struct{}, 1), changed: make(chan struct{})}
	trace := cfg.Trace
	cfg.Trace = func(fromInitiator bool, bhs pdu.BHS) {
		if !fromInitiator {
			w.received[bhs.Opcode()].Add(1)
		}
		if trace != nil {
			trace(fromInitiator, bhs)
		}
	}
	driver := session.NewDriver(w.loop, nil)
	s, err := session.New(cfg, driver, &observer{w: w})
	if err != nil {
		w.loop.Close()
		return nil, err
	}
	w.s = s
	driver.Bind(s)
	w.do(s.Start)
	return w, nil
}

// loginAttempts is how often LogIn lets the session try: it offers fewer keys to a target that hangs up.
const loginAttempts = 4

// LogIn is Start, and waits for the first login; a login that is refused for good or keeps failing ends the session and is the error.
func LogIn(ctx context.Context, cfg session.Config) (*Session, error) {
	w, err := Start(cfg)
	if err != nil {
		return nil, err
	}
	err = w.wait(ctx, func() error {
		switch {
		case len(w.ups) > 0:
			return nil
		case len(w.downs) > 0 && w.downs[len(w.downs)-1].Permanent(), len(w.downs) >= loginAttempts:
			return w.downs[len(w.downs)-1]
		}
		return errWait
	})
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// observer keeps the methods of session.Observer out of Session's.
type observer struct {
	session.Uninterested
	w *Session
}

func (o *observer) note(f func(w *Session)) {
	w := o.w
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
	close(w.changed)
	w.changed = make(chan struct{})
}

// SessionUp implements session.Observer.
func (o *observer) SessionUp(_ *session.Session, up session.Up) {
	o.note(func(w *Session) { w.ups = append(w.ups, up) })
	o.w.wakeSubmitters()
}

// SessionDown implements session.Observer.
func (o *observer) SessionDown(_ *session.Session, err *session.Error, _ int64) {
	o.note(func(w *Session) { w.downs = append(w.downs, err) })
}

// SessionSilent implements session.Observer.
func (o *observer) SessionSilent(*session.Session) {}

// SessionAlive implements session.Observer.
func (o *observer) SessionAlive(*session.Session) {}

// SessionChanged implements session.Observer.
func (o *observer) SessionChanged(*session.Session) {
	o.note(func(*Session) {})
	o.w.wakeSubmitters()
}

// SessionClosed implements session.Observer.
func (o *observer) SessionClosed(*session.Session) { o.note(func(w *Session) { w.closed = true }) }

// errWait says that a condition does not hold yet.
var errWait = errors.New("it did not happen in time")

// wait calls condition, with the lock held, on each piece of news until it returns something other than errWait.
func (w *Session) wait(ctx context.Context, condition func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		w.mu.Lock()
		err, changed := condition(), w.changed
		w.mu.Unlock()
		if !errors.Is(err, errWait) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}

// WaitUp waits for the n-th login, counted from 1, and returns what was told about it.
func (w *Session) WaitUp(ctx context.Context, n int) (up session.Up, err error) {
	err = w.wait(ctx, func() error {
		if len(w.ups) < n {
			return fmt.Errorf("%w: login %d (there were %d; losses: %v)", errWait, n, len(w.ups), w.downs)
		}
		up = w.ups[n-1]
		return nil
	})
	return up, err
}

// WaitConnections waits until the session has n connections.
func (w *Session) WaitConnections(ctx context.Context, n int) error {
	deadline := time.Now().Add(patience)
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		have := w.Stats().Connections
		if have == n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
			if time.Now().After(deadline) {
				return fmt.Errorf("%d connections instead of %d", have, n)
			}
		}
	}
}

// Logins is how many logins succeeded.
func (w *Session) Logins() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ups)
}

// Downs is how often the session was lost or a login failed.
func (w *Session) Downs() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.downs)
}

// Received is how many PDUs of a kind the target sent.
func (w *Session) Received(op pdu.Opcode) int64 { return w.received[op].Load() }

// Stats is a snapshot; its zero value after Close.
func (w *Session) Stats() (stats session.Stats) {
	w.do(func() { stats = w.s.Stats() })
	return stats
}

// RetryNow has a lost session log in at once.
func (w *Session) RetryNow() { w.do(w.s.RetryNow) }

// do runs f on the loop and waits for it.
func (w *Session) do(f func()) {
	done := make(chan struct{})
	if w.loop.Post(func() { f(); close(done) }) {
		<-done
	}
}

// Close logs out, waits for the end, and ends the loop.
func (w *Session) Close() error {
	w.do(w.s.Close)
	err := w.wait(context.Background(), func() error {
		if !w.closed {
			return fmt.Errorf("%w: the end of the session", errWait)
		}
		return nil
	})
	w.loop.Close()
	return err
}

// SendTargets asks a discovery session for all targets.
func (w *Session) SendTargets(ctx context.Context) ([]session.TargetInfo, error) {
	type answer struct {
		list []session.TargetInfo
		err  *session.Error
	}
	answers := make(chan answer, 1)
	w.do(func() {
		w.s.SendTargets(func(list []session.TargetInfo, err *session.Error) { answers <- answer{list, err} })
	})
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		return a.list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(patience):
		return nil, errors.New("SendTargets was not answered")
	}
}
