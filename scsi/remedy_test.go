package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClassifyStatus(t *testing.T) {
	stray := Sense{Key: KeyIllegalRequest, Code: ASCLUNNotSupported}
	for st, want := range map[Status]Remedy{
		Good:                RemedyNone,
		ConditionMet:        RemedyNone,
		Busy:                RetryHere,
		TaskSetFull:         RetryHere,
		ACAActive:           RetryHere,
		TaskAborted:         RetryHere,
		ReservationConflict: GiveUp,
		Status(0x22):        GiveUp,
	} {
		assert.Equal(t, want, Classify(st, Sense{}), st)
		assert.Equal(t, want, Classify(st, stray), "%v: sense counts only with CHECK CONDITION", st)
	}
}

// classifyTests has what must stay true, whatever becomes of the rules.
var classifyTests = []struct {
	key  SenseKey
	code ASC
	want Remedy
}{
	{KeyNoSense, ASCNone, RetryHere},
	{KeyNoSense, 0x0016, RetryHere},
	{KeyRecoveredError, 0x1701, RemedyNone},
	{KeyRecoveredError, 0x5d00, RemedyNone},
	{KeyCompleted, 0, RemedyNone},

	{KeyNotReady, ASCBecomingReady, Wait},
	{KeyNotReady, ASCFormatInProgress, Wait},
	{KeyNotReady, ASCALUATransition, Wait},
	{KeyNotReady, 0x3e00, Wait},
	{KeyNotReady, ASCALUAStandby, OtherPath},
	{KeyNotReady, ASCALUAUnavailable, OtherPath},
	{KeyNotReady, ASCNotReady, OtherPath},
	{KeyNotReady, ASCInitCommandRequired, OtherPath},
	{KeyNotReady, ASCManualIntervention, OtherPath},
	{KeyNotReady, ASCCommunicationFailure, OtherPath},
	{KeyNotReady, ASCMediumNotPresent, GiveUp},
	{KeyNotReady, 0x3a02, GiveUp},

	{KeyMediumError, ASCUnrecoveredReadError, GiveUp},
	{KeyMediumError, ASCWriteError, GiveUp},
	{KeyMediumError, 0x3e03, GiveUp},
	{KeyMiscompare, ASCMiscompare, GiveUp},
	{KeyBlankCheck, 0, GiveUp},
	{KeyVolumeOverflow, 0, GiveUp},

	{KeyHardwareError, ASCInternalTargetFailure, OtherPath},
	{KeyHardwareError, ASCCommunicationTimeout, OtherPath},
	{KeyHardwareError, ASCPeripheralWriteFault, GiveUp},
	{KeyHardwareError, 0x3200, GiveUp},

	{KeyIllegalRequest, ASCInvalidOpcode, GiveUp},
	{KeyIllegalRequest, ASCLBAOutOfRange, GiveUp},
	{KeyIllegalRequest, ASCInvalidFieldInCDB, GiveUp},
	{KeyIllegalRequest, ASCInvalidFieldInParameters, GiveUp},
	{KeyIllegalRequest, ASCInsufficientResources, GiveUp},
	{KeyIllegalRequest, ASCLUNNotSupported, OtherPath},
	{KeyIllegalRequest, 0x9401, OtherPath},

	{KeyUnitAttention, ASCPowerOnOrReset, RetryHere},
	{KeyUnitAttention, ASCNexusLoss, RetryHere},
	{KeyUnitAttention, ASCModeParametersChanged, RetryHere},
	{KeyUnitAttention, ASCALUAStateChanged, RetryHere},
	{KeyUnitAttention, ASCCapacityChanged, RetryHere},
	{KeyUnitAttention, ASCInquiryDataChanged, RetryHere},
	{KeyUnitAttention, ASCReportedLUNsChanged, RetryHere},
	{KeyUnitAttention, ASCThinSoftThreshold, RetryHere},
	{KeyUnitAttention, ASCCommandsClearedByEvent, RetryHere},
	{KeyUnitAttention, ASCALUATransition, Wait},

	{KeyDataProtect, ASCWriteProtected, GiveUp},
	{KeyDataProtect, ASCSpaceAllocationFailed, GiveUp},
	{KeyDataProtect, 0x7471, GiveUp},

	{KeyAbortedCommand, ASCNone, RetryHere},
	{KeyAbortedCommand, ASCCommandsCleared, RetryHere},
	{KeyAbortedCommand, ASCOverlappedCommands, RetryHere},
	{KeyAbortedCommand, ASCUnexpectedUnsolicited, RetryHere},
	{KeyAbortedCommand, ASCProtocolServiceCRC, OtherPath},
	{KeyAbortedCommand, ASCDataPhaseCRC, OtherPath},
	{KeyAbortedCommand, ASCCommandsClearedByEvent, RetryHere},
	{KeyAbortedCommand, ASCDataPhaseError, OtherPath},
	{KeyAbortedCommand, 0x4b07, OtherPath},
	{KeyAbortedCommand, ASCInternalTargetFailure, OtherPath},
	{KeyAbortedCommand, ASCALUATransition, Wait},
	{KeyAbortedCommand, 0x1001, GiveUp},

	{KeyVendorSpecific, 0x8000, GiveUp},
	{KeyCopyAborted, 0, GiveUp},
	{SenseKey(0x0c), 0, GiveUp},
}

func TestClassifySense(t *testing.T) {
	for _, tt := range classifyTests {
		s := Sense{Key: tt.key, Code: tt.code}
		got, why := Explain(CheckCondition, s)
		assert.Equal(t, tt.want, got, s)
		assert.NotEmpty(t, why, s)
		assert.Equal(t, got, Classify(CheckCondition, s))

	}
	assert.Equal(t, RetryHere, Classify(CheckCondition, Sense{}), "no sense data at all")
}

func TestDeferredErrorsDoNotHideALostWrite(t *testing.T) {
	for key := range KeyCompleted + 1 {
		want := GiveUp
		switch key {
		case KeyNoSense, KeyRecoveredError, KeyCompleted, KeyUnitAttention:
			want = RetryHere // nothing is lost, but this command was not executed
		}
		s := Sense{Key: key, Code: ASCWriteError, Deferred: true}
		assert.Equal(t, want, Classify(CheckCondition, s), s)
		assert.Equal(t, want == GiveUp, s.LostEarlierWrite(), s)
		s.Deferred = false
		assert.False(t, s.LostEarlierWrite(), s)
	}
}

func TestNoRuleIsUnreachable(t *testing.T) {
	seen := map[[3]uint16]bool{}
	defaults := map[SenseKey]bool{}
	for _, r := range senseRules {
		id := [3]uint16{uint16(r.key), uint16(r.mask), uint16(r.code)}
		assert.False(t, seen[id], "twice: %+v", r)
		seen[id] = true
		assert.Equal(t, r.code, r.code&r.mask, "never holds: %+v", r)
		assert.Contains(t, []ASC{exactly, anyASCQ, anySense}, r.mask)
		if r.mask == anySense {
			defaults[r.key] = true
			continue
		}
		got, why := explainSense(Sense{Key: r.key, Code: r.code, FRU: 1})
		assert.Equal(t, r.remedy, got, "%+v", r)
		if r.mask == exactly {
			assert.Equal(t, r.why, why)
		}
	}
	for key := range KeyCompleted + 1 {
		if key != 0x0c { // reserved
			assert.True(t, defaults[key], "%v has no default", key)
		}
	}
}

func TestRemedyNames(t *testing.T) {
	names := map[string]bool{}
	for r := range GiveUp + 2 {
		names[r.String()] = true
	}
	require.Len(t, names, int(GiveUp)+2)
}

func TestCommandErrorTellsTheUser(t *testing.T) {
	tests := []struct {
		err  CommandError
		want string
	}{
		{
			CommandError{OpWrite10, CheckCondition, Sense{Key: KeyDataProtect, Code: ASCSpaceAllocationFailed}},
			"WRITE(10): CHECK CONDITION: DATA PROTECT: space allocation failed write protect (27/07); " +
				"the target's storage pool is full: add space or discard unused blocks",
		},
		{
			CommandError{OpRead16, CheckCondition, Sense{Key: KeyMediumError, Code: ASCUnrecoveredReadError, HasInfo: true, Information: 4711}},
			"READ(16): CHECK CONDITION: MEDIUM ERROR: unrecovered read error (11/00) at block 4711; " +
				"the block cannot be read on any path: restore it from a copy",
		},
		{
			CommandError{OpUnmap, CheckCondition, Sense{Key: KeyIllegalRequest, Code: ASCInvalidFieldInParameters, Specific: [3]byte{0x80, 0, 16}}},
			"UNMAP: CHECK CONDITION: ILLEGAL REQUEST: invalid field in parameter list (26/00), byte 16 of the parameter list",
		},
		{
			CommandError{OpCompareAndWrite, CheckCondition, Sense{Key: KeyMiscompare, Code: ASCMiscompare, HasInfo: true, Information: 9}},
			"COMPARE AND WRITE: CHECK CONDITION: MISCOMPARE: miscompare during verify operation (1D/00) at byte 9",
		},
		{
			CommandError{OpWrite10, ReservationConflict, Sense{}},
			"WRITE(10): RESERVATION CONFLICT; another host holds a reservation on this unit",
		},
		{
			CommandError{OpVerify10, CheckCondition, Sense{}},
			"VERIFY(10): CHECK CONDITION: the target sent no sense data",
		},
		{
			CommandError{OpRead10, Busy, Sense{Key: KeyIllegalRequest}},
			"READ(10): BUSY",
		},
		{
			CommandError{OpRead10, CheckCondition, Sense{Key: KeyMediumError, Code: ASCWriteError, Deferred: true}},
			"READ(10): CHECK CONDITION: deferred MEDIUM ERROR: write error (0C/00); " +
				"an earlier write that was already answered is lost: check the data on the unit",
		},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, tt.err.Error())
		assert.Equal(t, Classify(tt.err.Status, tt.err.Sense), tt.err.Remedy())
	}
	for code := range hints {
		_, ok := lookupASC(code)
		assert.True(t, ok, "a hint for an unknown code %04x", uint16(code))
	}
}

func TestNewCommandErrorKnowsSuccess(t *testing.T) {
	require.NoError(t, NewCommandError(OpRead10, Good, Sense{Key: KeyIllegalRequest, Code: ASCLUNNotSupported}))
	require.NoError(t, NewCommandError(OpPreFetch10, ConditionMet, Sense{}))
	require.NoError(t, NewCommandError(OpRead10, CheckCondition, Sense{Key: KeyRecoveredError, Code: 0x1701}))
	err := NewCommandError(OpRead10, Busy, Sense{})
	var ce *CommandError
	require.ErrorAs(t, err, &ce)
	require.Equal(t, RetryHere, ce.Remedy())
}
