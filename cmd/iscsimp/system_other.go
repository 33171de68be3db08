//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package main

import (
	"os"
	"syscall"
)

// hasFileModes: permission bits mean something here.
const hasFileModes = false

// ownedByMe reports whether path exists; this system tells owners in other ways.
func ownedByMe(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func openFileLimit() (uint64, bool) { return 0, false }

func mayWrite(string) bool { return true }

// detached: there is no way to leave a process behind in good order here.
func detached() *syscall.SysProcAttr { return nil }

// hasTerminal reports whether this process belongs to a terminal.
func hasTerminal() bool { return true }
