package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
	"github.com/iscsimp/iscsimp/test/wire"
)

// ended says what a target answered to a task management function, unless it did what it was asked for.
func ended(r session.TMFResult) error {
	switch {
	case r.Ended():
		return nil
	case r.Err != nil && r.Err.Kind != session.KindTarget:
		return r.Err
	case r.Err != nil:
		return refusal("rejects " + r.Function.String())
	}
	return refusal(fmt.Sprintf("%v: %v", r.Function, r.Response))
}

// runAbortTask aborts writes and reads right behind their commands. Each ends as aborted or as done, and what is written next to the same blocks stays.
func runAbortTask(ctx context.Context, p party) error {
	return with(ctx, p.config(), func(w *wire.Session) error {
		const size = 256 << 10
		first, second, got := bytes.Repeat([]byte{1}, size), bytes.Repeat([]byte{2}, size), make([]byte, size)
		lun, blocks := scsi.MakeLUN(uint16(p.lun)), uint32(size/wire.BlockSize)
		if err := exchange(ctx, w, p.lun); err != nil { // takes note of what the target owes to a new session
			return err
		}
		for i := range 16 {
			lba := uint64(i) * uint64(blocks)
			c := session.Command{LUN: lun, CDB: scsi.Write16(lba, blocks, 0), Dir: session.DirWrite, Data: first}
			if i%4 == 3 {
				c = session.Command{LUN: lun, CDB: scsi.Read16(lba, blocks, 0), Dir: session.DirRead, Data: got}
			}
			done, result, err := w.RunAborted(ctx, c)
			if err == nil {
				err = ended(result)
			}
			switch {
			case err != nil:
				return err
			case done.Err != nil && done.Err.Kind != session.KindAborted:
				return fmt.Errorf("an aborted %s: %w", c.CDB.Name(), done.Err)
			case done.Err == nil && done.Status != scsi.Good && done.Status != scsi.TaskAborted:
				return fmt.Errorf("an aborted %s: status %v", c.CDB.Name(), done.Status)
			}
			if err := w.Write(ctx, p.lun, second, lba); err != nil {
				return err
			}
		}
		for i := range 16 {
			if err := w.Read(ctx, p.lun, got, uint64(i)*uint64(blocks)); err != nil {
				return err
			}
			if !bytes.Equal(got, second) {
				return fmt.Errorf("write %d: an aborted command changed what was written after it", i)
			}
		}
		return unlessErr(w.Downs() == 0, "the session was lost: "+w.Loss())
	})
}

// runLUNReset resets the unit again and again under load. What that ends is repeated by the load, which checks its data.
func runLUNReset(ctx context.Context, p party) error {
	return with(ctx, p.config(), func(w *wire.Session) error {
		if err := exchange(ctx, w, p.lun); err != nil {
			return err
		}
		load := make(chan error, 1)
		go func() { load <- crowd(ctx, w, p.lun, 16, 60) }()
		for range 3 {
			before := w.Received(pdu.OpSCSIResponse) + w.Received(pdu.OpDataIn)
			result, err := w.ResetLUN(ctx, p.lun)
			if err == nil {
				err = ended(result)
			}
			if err != nil {
				return errors.Join(err, <-load)
			}
			// The load goes on: the next reset meets commands under way again.
			for w.Received(pdu.OpSCSIResponse)+w.Received(pdu.OpDataIn) < before+40 && len(load) == 0 && ctx.Err() == nil {
				w.Stats()
			}
		}
		if err := <-load; err != nil {
			return err
		}
		return unlessErr(w.Downs() == 0, "the session was lost: "+w.Loss())
	})
}
