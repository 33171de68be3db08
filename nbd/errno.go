package nbd

import (
	"errors"

	"github.com/iscsimp/iscsimp/internal/block"
)

// errnoOf turns the outcome of a device request into the error value of a
// reply. The good path compares one pointer and allocates nothing.
func errnoOf(op block.Op, err error) uint32 {
	if err == nil {
		return 0
	}
	switch {
	case errors.Is(err, block.ErrReadOnly):
		return errnoPerm
	case errors.Is(err, block.ErrRange):
		return errnoRange(op)
	case errors.Is(err, block.ErrAlign):
		return errnoInval
	case errors.Is(err, block.ErrNoSpace):
		return errnoNoSpace
	case errors.Is(err, block.ErrClosed):
		return errnoShutdown
	case errors.Is(err, block.ErrNotSup):
		// The protocol reserves ENOTSUP for FAST_ZERO, but clients take it as
		// "do without" where EINVAL would fail the guest's discard.
		return errnoNotSup
	}
	return errnoIO
}

// errnoRange is what a request beyond the end of the export gets: ENOSPC if it
// would have put data there, else EINVAL (proto.md, "Error values").
func errnoRange(op block.Op) uint32 {
	if op == block.OpWrite || op == block.OpWriteZeroes {
		return errnoNoSpace
	}
	return errnoInval
}
