package scsi

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestASCTextsAreSortedAndSane(t *testing.T) {
	require.True(t, slices.IsSortedFunc(ascTexts, func(a, b ascText) int { return int(a.code) - int(b.code) }))
	for i, e := range ascTexts {
		if i > 0 {
			require.NotEqual(t, ascTexts[i-1].code, e.code, "twice")
		}
		assert.Equal(t, strings.TrimSpace(e.text), e.text)
		assert.NotEmpty(t, e.text)
		assert.Equal(t, e.text, e.code.Text())
	}
	assert.GreaterOrEqual(t, len(ascTexts), 150)
}

func TestNamedCodesHaveTexts(t *testing.T) {
	for _, c := range []ASC{
		ASCNone, ASCPeripheralWriteFault, ASCNotReady, ASCBecomingReady, ASCInitCommandRequired,
		ASCManualIntervention, ASCFormatInProgress, ASCALUATransition, ASCALUAStandby, ASCALUAUnavailable,
		ASCCommunicationFailure, ASCCommunicationTimeout, ASCWriteError, ASCUnexpectedUnsolicited,
		ASCNotEnoughUnsolicited, ASCUnrecoveredReadError, ASCParameterListLength, ASCMiscompare,
		ASCInvalidOpcode, ASCAccessDenied, ASCLBAOutOfRange, ASCInvalidFieldInCDB, ASCLUNNotSupported,
		ASCInvalidFieldInParameters, ASCWriteProtected, ASCHardwareWriteProtect, ASCSoftwareWriteProtect,
		ASCSpaceAllocationFailed, ASCPowerOnOrReset, ASCPowerOn, ASCBusReset, ASCDeviceReset, ASCNexusLoss,
		ASCParametersChanged, ASCModeParametersChanged, ASCReservationsPreempted, ASCReservationsReleased,
		ASCRegistrationsPreempted, ASCALUAStateChanged, ASCALUATransitionFailed, ASCCapacityChanged,
		ASCCommandsCleared, ASCThinSoftThreshold, ASCMediumNotPresent, ASCInquiryDataChanged,
		ASCReportedLUNsChanged, ASCInternalTargetFailure, ASCParityError, ASCDataPhaseCRC,
		ASCInformationUnitCRC, ASCProtocolServiceCRC, ASCCommandsClearedByEvent, ASCDataPhaseError,
		ASCOverlappedCommands, ASCInsufficientResources,
	} {
		_, ok := lookupASC(c)
		assert.True(t, ok, "%04x", uint16(c))
	}
}

func TestASCString(t *testing.T) {
	for code, want := range map[ASC]string{
		ASCSpaceAllocationFailed:  "space allocation failed write protect (27/07)",
		ASCCommandsClearedByEvent: "some commands cleared by iSCSI protocol event (47/7F)",
		0x40a1:                    "diagnostic failure on component 0xa1 (40/A1)",
		0x4d07:                    "tagged overlapped commands, task tag 0x07 (4D/07)",
		0x9401:                    "vendor specific additional sense (94/01)",
		0x2980:                    "vendor specific qualifier of additional sense (29/80)",
		0x2977:                    "power on, reset, or bus device reset occurred, qualifier 0x77 (29/77)",
		0x7f00:                    "unknown additional sense (7F/00)",
		0x7f01:                    "unknown additional sense (7F/01)",
	} {
		assert.Equal(t, want, code.String())
	}
	asc, ascq := ASC(0x2907).Split()
	assert.Equal(t, ASC(0x2907), MakeASC(asc, ascq))
	assert.Equal(t, uint8(0x29), asc)
}
