package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/iscsimp/iscsimp/internal/filelock"
)

// endWatch waits for the end of the process that runs a device. It keeps the
// process's lock file open, since the file is removed at the end, with the last word
// of the process in it. All methods do on nil what they do if no process runs.
type endWatch struct{ file *os.File }

// watchEnd looks at the process that runs the device called name, if there is one.
func watchEnd(dir, name string) *endWatch {
	f, err := os.OpenFile(filepath.Join(dir, name+lockSuffix), os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	return &endWatch{f}
}

// holder tells who runs the device, if anybody does.
func (w *endWatch) holder() (c claim, running bool) {
	if w == nil {
		return c, false
	}
	taken, err := filelock.Try(w.file)
	if err != nil {
		return c, false
	}
	return readClaim(w.file), !taken
}

// wait waits until no process runs the device, and gives its last word.
func (w *endWatch) wait(ctx context.Context) (claim, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, running := w.holder()
		if !running {
			// A process that does not note its end at least removes the file in order.
			c.Ended = c.Ended || !filelock.Supported || !filelock.Names(w.file, w.file.Name())
			return c, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return c, context.Cause(ctx)
		}
	}
}

func (w *endWatch) close() {
	if w != nil {
		w.file.Close()
	}
}
