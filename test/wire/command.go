package wire

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// BlockSize is that of the disks these tests use, in bytes.
const BlockSize = 512

// command is one SCSI command that is waited for.
type command struct {
	session.Command
	w     *Session
	calls atomic.Int32
	done  chan struct{}
}

// CommandDone implements session.Completer.
func (c *command) CommandDone(done *session.Command) {
	if c.calls.Add(1) > 1 {
		panic("wire: a command was completed twice")
	}
	c.Sense = append([]byte(nil), done.Sense...) // it is the session's during this call only
	close(c.done)
	c.w.wakeSubmitters()
}

func (w *Session) wakeSubmitters() {
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// ErrNoRoom is the end of the patience with a session that takes no command.
var ErrNoRoom = errors.New("no room for a command")

// Run sends one command as soon as there is room for it and waits for its end, whatever it is: look at Err and Status of what comes back. The error is only
// about the waiting.
func (w *Session) Run(ctx context.Context, c session.Command) (*session.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return w.RunWithin(ctx, ctx, c)
}

// RunWithin is Run with a limit of its own for the wait for room (ErrNoRoom) and for the answer.
func (w *Session) RunWithin(room, answer context.Context, c session.Command) (*session.Command, error) {
	own := &command{Command: c, w: w, done: make(chan struct{})}
	own.Owner = own
	for {
		taken := false
		w.do(func() { taken = w.s.Submit(&own.Command) })
		if taken {
			break
		}
		select {
		case <-w.room:
		case <-room.Done():
			return nil, fmt.Errorf("%w: %w", ErrNoRoom, room.Err())
		}
	}
	w.wakeSubmitters() // there may be room for one more
	select {
	case <-own.done:
		return &own.Command, nil
	case <-answer.Done():
		return nil, fmt.Errorf("a command was not answered: %w", answer.Err())
	}
}

// run is Run for commands that must succeed. A UNIT ATTENTION, which targets owe to a new session, is taken note of by sending the command again.
func (w *Session) run(ctx context.Context, c session.Command) (*session.Command, error) {
	for attempt := 0; ; attempt++ {
		done, err := w.Run(ctx, c)
		switch {
		case err != nil:
			return done, err
		case done.Err != nil:
			return done, done.Err
		case done.Status == scsi.Good:
			return done, nil
		case attempt < 3 && len(done.Sense) > 2 && (done.Sense[2]&0xf == 6 || done.Sense[0]&0x7f >= 0x72 && done.Sense[1]&0xf == 6):
		default:
			return done, fmt.Errorf("%s: status %v, sense % x", c.CDB.Name(), done.Status, done.Sense)
		}
	}
}

// Write writes p, whole blocks, from block lba on.
func (w *Session) Write(ctx context.Context, lun int, p []byte, lba uint64) error {
	done, err := w.run(ctx, session.Command{LUN: scsi.MakeLUN(uint16(lun)), CDB: scsi.Write16(lba, uint32(len(p)/BlockSize), 0), Dir: session.DirWrite, Data: p})
	if err == nil && (done.Underflow || done.Overflow) {
		err = fmt.Errorf("write of %d bytes: residual %d", len(p), done.Residual)
	}
	return err
}

// Read fills p, whole blocks, from block lba on.
func (w *Session) Read(ctx context.Context, lun int, p []byte, lba uint64) error {
	done, err := w.run(ctx, session.Command{LUN: scsi.MakeLUN(uint16(lun)), CDB: scsi.Read16(lba, uint32(len(p)/BlockSize), 0), Dir: session.DirRead, Data: p})
	if err == nil && done.Received != len(p) {
		err = fmt.Errorf("read of %d bytes: %d came", len(p), done.Received)
	}
	return err
}
