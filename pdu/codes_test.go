package pdu

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestKnownCodes: what is defined or a vendor's own, and the first code on either
// side of it that is not (RFC 7143 §11.4.3, §11.6.1, §11.9.1, §11.15.1, §11.17.1).
func TestKnownCodes(t *testing.T) {
	for code, known := range map[int]bool{0: true, 1: true, 2: false, 0x7f: false, 0x80: true, 0xff: true} {
		assert.Equal(t, known, ServiceResponse(code).Known(), "service response %#x", code)
	}
	for code, known := range map[int]bool{0: true, 7: true, 8: false, 254: false, 255: true} {
		assert.Equal(t, known, TMResponse(code).Known(), "task management response %d", code)
	}
	for code, known := range map[int]bool{0: true, 3: true, 4: false, 255: false} {
		assert.Equal(t, known, LogoutResult(code).Known(), "logout response %d", code)
	}
	for code, known := range map[int]bool{0: true, 5: true, 6: false, 247: false, 248: true, 255: true} {
		assert.Equal(t, known, AsyncEvent(code).Known(), "event %d", code)
	}
	for code, known := range map[int]bool{0: false, 1: true, 0x0c: true, 0x0d: false, 255: false} {
		assert.Equal(t, known, RejectReason(code).Known(), "reject reason %#x", code)
	}
}
