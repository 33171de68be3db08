//go:build !linux

package loop

import (
	"errors"
	"fmt"
)

// NewReactor is not available on this system: the error wraps
// errors.ErrUnsupported. Use New or NewPortable.
func NewReactor() (Loop, error) {
	return nil, fmt.Errorf("the epoll reactor runs on Linux only, use the portable loop: %w", errors.ErrUnsupported)
}
