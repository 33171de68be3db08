package chap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// CreateSecretFile writes a secret of GenerateSecret, as one line, into a new file
// that only its owner may access, as LoadSecretFile wants it. A file that is there
// already is left as it is. When CreateSecretFile returns nil the file is on disk.
func CreateSecretFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		hint := "check the path, and who may write to the folder"
		if errors.Is(err, fs.ErrExist) {
			hint = "it is never overwritten: a secret may be in use; take another path, or move the file away"
		}
		return &Error{Reason: ReasonSecret, Msg: "cannot create a file for the secret", Hint: hint, Err: err}
	}
	_, err = fmt.Fprintln(f, GenerateSecret())
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil { // half a secret would be worse than none
		os.Remove(path)
		return &Error{Reason: ReasonSecret, Msg: "cannot write the secret", Hint: "check for room on the file system", Err: err}
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync() // not every system can; the file itself was
		dir.Close()
	}
	return nil
}
