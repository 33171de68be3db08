package scsi

import (
	"cmp"
	"fmt"
	"slices"
)

// ASC is an additional sense code and its qualifier as one number:
// ASC<<8 | ASCQ, so that 0x2900 is "29/00" (SPC-4 annex F).
type ASC uint16

// The codes that callers compare with or that the test target sends.
const (
	ASCNone                     ASC = 0x0000
	ASCPeripheralWriteFault     ASC = 0x0300
	ASCNotReady                 ASC = 0x0400 // cause not reportable
	ASCBecomingReady            ASC = 0x0401
	ASCInitCommandRequired      ASC = 0x0402
	ASCManualIntervention       ASC = 0x0403
	ASCFormatInProgress         ASC = 0x0404
	ASCALUATransition           ASC = 0x040a
	ASCALUAStandby              ASC = 0x040b
	ASCALUAUnavailable          ASC = 0x040c
	ASCCommunicationFailure     ASC = 0x0800
	ASCCommunicationTimeout     ASC = 0x0801
	ASCWriteError               ASC = 0x0c00
	ASCUnexpectedUnsolicited    ASC = 0x0c0c // unexpected unsolicited data
	ASCNotEnoughUnsolicited     ASC = 0x0c0d // not enough unsolicited data
	ASCUnrecoveredReadError     ASC = 0x1100
	ASCParameterListLength      ASC = 0x1a00
	ASCMiscompare               ASC = 0x1d00
	ASCInvalidOpcode            ASC = 0x2000
	ASCAccessDenied             ASC = 0x2002 // no access rights
	ASCLBAOutOfRange            ASC = 0x2100
	ASCInvalidFieldInCDB        ASC = 0x2400
	ASCLUNNotSupported          ASC = 0x2500
	ASCInvalidFieldInParameters ASC = 0x2600
	ASCInvalidRelease           ASC = 0x2604 // of a persistent reservation
	ASCWriteProtected           ASC = 0x2700
	ASCHardwareWriteProtect     ASC = 0x2701
	ASCSoftwareWriteProtect     ASC = 0x2702
	ASCSpaceAllocationFailed    ASC = 0x2707
	ASCMediumMayHaveChanged     ASC = 0x2800 // not ready to ready change
	ASCPowerOnOrReset           ASC = 0x2900
	ASCPowerOn                  ASC = 0x2901
	ASCBusReset                 ASC = 0x2902
	ASCDeviceReset              ASC = 0x2903
	ASCDeviceInternalReset      ASC = 0x2904
	ASCNexusLoss                ASC = 0x2907
	ASCParametersChanged        ASC = 0x2a00
	ASCModeParametersChanged    ASC = 0x2a01
	ASCReservationsPreempted    ASC = 0x2a03
	ASCReservationsReleased     ASC = 0x2a04
	ASCRegistrationsPreempted   ASC = 0x2a05
	ASCALUAStateChanged         ASC = 0x2a06
	ASCALUATransitionFailed     ASC = 0x2a07
	ASCCapacityChanged          ASC = 0x2a09
	ASCCommandsCleared          ASC = 0x2f00 // by another initiator
	ASCThinSoftThreshold        ASC = 0x3807
	ASCMediumNotPresent         ASC = 0x3a00
	ASCInquiryDataChanged       ASC = 0x3f03
	ASCReportedLUNsChanged      ASC = 0x3f0e
	ASCInternalTargetFailure    ASC = 0x4400
	ASCParityError              ASC = 0x4700
	ASCDataPhaseCRC             ASC = 0x4701
	ASCInformationUnitCRC       ASC = 0x4703
	ASCProtocolServiceCRC       ASC = 0x4705
	ASCCommandsClearedByEvent   ASC = 0x477f // some commands cleared by iSCSI protocol event
	ASCDataPhaseError           ASC = 0x4b00
	ASCOverlappedCommands       ASC = 0x4e00
	ASCInsufficientResources    ASC = 0x5503
)

// MakeASC joins code and qualifier.
func MakeASC(asc, ascq uint8) ASC { return ASC(asc)<<8 | ASC(ascq) }

// Split returns code and qualifier.
func (c ASC) Split() (asc, ascq uint8) { return uint8(c >> 8), uint8(c) }

// String is the text and the code, "write protected (27/00)".
func (c ASC) String() string {
	return fmt.Sprintf("%s (%02X/%02X)", c.Text(), uint8(c>>8), uint8(c))
}

// Text is the standard's meaning in lower case; for codes not in the table it
// is that of the qualifier 00 with ", qualifier 0x..", or says that it is unknown.
func (c ASC) Text() string {
	if text, ok := lookupASC(c); ok {
		return text
	}
	asc, ascq := c.Split()
	switch {
	case asc == 0x40:
		return fmt.Sprintf("diagnostic failure on component 0x%02x", ascq)
	case asc == 0x4d:
		return fmt.Sprintf("tagged overlapped commands, task tag 0x%02x", ascq)
	case asc >= 0x80:
		return "vendor specific additional sense"
	case ascq >= 0x80:
		return "vendor specific qualifier of additional sense"
	}
	if text, ok := lookupASC(c &^ 0xff); ok && ascq != 0 {
		return fmt.Sprintf("%s, qualifier 0x%02x", text, ascq)
	}
	return "unknown additional sense"
}

// lookupASC finds the exact code in ascTexts.
func lookupASC(c ASC) (string, bool) {
	i, ok := slices.BinarySearchFunc(ascTexts, c, func(e ascText, c ASC) int { return cmp.Compare(e.code, c) })
	if !ok {
		return "", false
	}
	return ascTexts[i].text, true
}
