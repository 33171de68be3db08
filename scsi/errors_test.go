package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestFormatErrorSaysWhatIsMissing(t *testing.T) {
	assert.EqualError(t, short("READ KEYS data", 8, 24), "scsi: READ KEYS data: data too short: 8 bytes, need 24")
	assert.EqualError(t, malformed("VPD page 0x83", "designator %d passes the end", 2),
		"scsi: VPD page 0x83: malformed data: designator 2 passes the end")
}
