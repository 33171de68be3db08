package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestFailedToStore(t *testing.T) {
	for s, want := range map[Sense]bool{
		{Key: KeyMediumError, Code: ASCWriteError}:                true,
		{Key: KeyHardwareError, Code: ASCInternalTargetFailure}:   true,
		{Key: KeyNotReady, Code: ASCCommunicationFailure}:         true,
		{Key: KeyAbortedCommand, Code: ASCCommunicationTimeout}:   true,
		{Key: KeyNotReady, Code: ASCALUAStandby}:                  false,
		{Key: KeyNotReady, Code: ASCBecomingReady}:                false,
		{Key: KeyAbortedCommand, Code: ASCCommandsClearedByEvent}: false,
		{Key: KeyUnitAttention, Code: ASCPowerOn}:                 false,
		{Key: KeyIllegalRequest, Code: ASCInvalidOpcode}:          false,
		{}: false,
	} {
		assert.Equal(t, want, s.FailedToStore(), s.String())
	}
}
