package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/iscsimp/iscsimp/initiator"
)

// The exit codes: those of iscsiadm(8) where they mean the same.
const (
	exitOK        = 0
	exitError     = 1  // any other error
	exitNoDevice  = 2  // no such session or device
	exitConnect   = 4  // connection failed
	exitLogin     = 5  // login refused
	exitInvalid   = 7  // invalid argument
	exitTimeout   = 8  // timed out
	exitExists    = 15 // already logged in
	exitNothing   = 21 // nothing found
	exitAuth      = 24 // authentication failed
	exitHelpLines = "0 done, 1 other error, 2 no such device, 4 connection failed, 5 login refused,\n" +
		"7 invalid argument, 8 timed out, 15 already logged in, 21 nothing found,\n" +
		"24 authentication failed."
)

func exitCodeHelp() string { return exitHelpLines }

// exitErr is an error that knows its exit code.
type exitErr struct {
	code int
	err  error
}

func (e *exitErr) Error() string { return e.err.Error() }
func (e *exitErr) Unwrap() error { return e.err }

// silentExit ends the program with a code when all there is to say was said.
type silentExit int

func (s silentExit) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// failf makes an error with the given exit code.
func failf(code int, format string, args ...any) error {
	return &exitErr{code: code, err: fmt.Errorf(format, args...)}
}

// usagef makes an error about the command line itself.
func usagef(format string, args ...any) error { return failf(exitInvalid, format, args...) }

// exitCode maps any error to the program's exit code. It is the only place that does.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if s, ok := errors.AsType[silentExit](err); ok {
		return int(s)
	}
	if e, ok := errors.AsType[*exitErr](err); ok {
		return e.code
	}
	if errors.Is(err, context.Canceled) {
		return exitError
	}
	if strings.HasPrefix(err.Error(), "Required flag") { // the library has no type for it
		return exitInvalid
	}
	switch initiator.KindOf(err) {
	case initiator.KindInvalid:
		return exitInvalid
	case initiator.KindConnect:
		return exitConnect
	case initiator.KindTimeout:
		return exitTimeout
	case initiator.KindLogin:
		return exitLogin
	case initiator.KindAuth:
		return exitAuth
	case initiator.KindNotFound:
		return exitNothing
	case initiator.KindUnusable, initiator.KindIdentity, initiator.KindClosed, initiator.KindOther:
	}
	return exitError
}
