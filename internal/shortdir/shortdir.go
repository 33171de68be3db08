// Package shortdir makes folders for the Unix sockets of tests. The path of a
// socket may have 103 bytes only, which the name of a test, or of the folder for
// temporary files, can exceed.
package shortdir

import (
	"os"
	"testing"
)

// maxBase is how long the folder for temporary files may be to be used.
const maxBase = 32

// New makes an empty folder that is removed at the end of the test.
func New(t testing.TB) string {
	t.Helper()
	base := os.TempDir()
	if info, err := os.Stat("/tmp"); len(base) > maxBase && err == nil && info.IsDir() {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "iscsimp-") //nolint:usetesting // t.TempDir makes long names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
