//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package main

import (
	"context"
	"io"
	"os"
)

var watchedByTop = []os.Signal{os.Interrupt}

// terminal is not supported here: frames are printed one after another.
type terminal struct{}

func openTerminal(io.Writer, *os.File) *terminal { return nil }

func (*terminal) size() (width, height int)          { return 80, 24 }
func (*terminal) enter() error                       { return nil }
func (*terminal) leave()                             {}
func (*terminal) draw(*topView) error                { return nil }
func (*terminal) signal(os.Signal) bool              { return true }
func (*terminal) keys(context.Context) <-chan string { return nil }
