package wire

import (
	"context"
	"errors"
	"fmt"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// RunAborted sends one command and, in the same breath, asks the target to abort it. It waits for the end of both: look at Err and Status of the command, which
// may have been quicker, and at what the target said.
func (w *Session) RunAborted(ctx context.Context, c session.Command) (*session.Command, session.TMFResult, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	own := &command{Command: c, w: w, done: make(chan struct{})}
	own.Owner = own
	answer := make(chan session.TMFResult, 1)
	taken, asked := false, false
	w.do(func() {
		if taken = w.s.Submit(&own.Command); taken {
			asked = w.s.AbortTask(&own.Command, func(r session.TMFResult) { answer <- r })
		}
	})
	if !asked {
		return nil, session.TMFResult{}, fmt.Errorf("command taken: %v, abort taken: false", taken)
	}
	var result session.TMFResult
	for range 2 {
		select {
		case result = <-answer:
		case <-own.done:
			own.done = nil // a nil channel is never ready
		case <-ctx.Done():
			return nil, result, fmt.Errorf("a command or its abort was not answered: %w", ctx.Err())
		}
	}
	return &own.Command, result, nil
}

// ResetLUN resets a unit and returns what the target said.
func (w *Session) ResetLUN(ctx context.Context, lun int) (session.TMFResult, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer := make(chan session.TMFResult, 1)
	taken := false
	w.do(func() {
		taken = w.s.ResetLUN(scsi.MakeLUN(uint16(lun)), func(r session.TMFResult) { answer <- r })
	})
	if !taken {
		return session.TMFResult{}, errors.New("the session takes no reset")
	}
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return session.TMFResult{}, fmt.Errorf("the reset was not answered: %w", ctx.Err())
	}
}

// Loss says why the session was lost last; empty if it was not.
func (w *Session) Loss() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.downs) == 0 {
		return ""
	}
	return fmt.Sprint(w.downs[len(w.downs)-1])
}
