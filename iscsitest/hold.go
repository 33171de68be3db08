package iscsitest

import (
	"context"
	"sync"
)

// HoldScope says which ends of its task a held command outlives.
type HoldScope uint8

const (
	// HoldStrict is what RFC 7143 wants. A task that is aborted, or whose
	// session ended, is gone: releasing the hold does nothing for it.
	HoldStrict HoldScope = iota
	// HoldHung is a target that hangs: it did not notice that the connection
	// died, and runs the command when released, unless the task was aborted or
	// its session was reinstated meanwhile (RFC 7143 §6.3.5), which is what the
	// write fence builds on.
	HoldHung
	// HoldZombie is a broken target: the command runs when released, whatever
	// happened to its task and session. Only Target.Close ends it.
	HoldZombie
)

// Hold keeps what was stopped by HoldWrite, Hang or a proxy's Hold until
// Release: a controller that hangs and wakes up. One Hold may stop any number
// of things. All methods may be called from any goroutine.
type Hold struct {
	// Scope is for holds at a Target; set it before use. A FaultProxy holds
	// bytes, which outlive everything but the connection to the target.
	Scope HoldScope

	mu       sync.Mutex // guards held and change
	held     int
	change   chan struct{} // closed and renewed when held changes
	released chan struct{} // closed by Release
	once     sync.Once
}

// NewHold returns a Hold that stops things until it is released.
func NewHold(scope HoldScope) *Hold {
	return &Hold{Scope: scope, change: make(chan struct{}), released: make(chan struct{})}
}

// Release lets go of everything held, in no particular order, and stops
// nothing any more. Further calls do nothing.
func (h *Hold) Release() { h.once.Do(func() { close(h.released) }) }

// Held is the number of things stopped so far, released ones included.
func (h *Hold) Held() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held
}

// WaitHeld waits until n things were stopped, or for the end of ctx, whose
// error it returns.
func (h *Hold) WaitHeld(ctx context.Context, n int) error {
	for {
		h.mu.Lock()
		held, change := h.held, h.change
		h.mu.Unlock()
		if held >= n {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// arrive counts one more thing that was stopped.
func (h *Hold) arrive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held++
	close(h.change)
	h.change = make(chan struct{})
}
