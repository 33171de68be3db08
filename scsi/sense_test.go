package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// senseGolden has sense data as targets send it.
var senseGolden = []struct {
	name  string
	bytes string
	want  Sense
	text  string
}{
	{
		"reset", "70 00 06 00 00 00 00 0a 00 00 00 00 29 00 00 00 00 00",
		Sense{Key: KeyUnitAttention, Code: ASCPowerOnOrReset},
		"UNIT ATTENTION: power on, reset, or bus device reset occurred (29/00)",
	},
	{
		"medium error with lba", "f0 00 03 12 34 56 78 0a 00 00 00 00 11 00 07 80 00 10",
		Sense{
			Key: KeyMediumError, Code: ASCUnrecoveredReadError, HasInfo: true, Information: 0x12345678,
			FRU: 7, Specific: [3]byte{0x80, 0, 0x10},
		},
		"MEDIUM ERROR: unrecovered read error (11/00)",
	},
	{
		"deferred", "71 00 03 00 00 00 00 0a 00 00 00 00 0c 02 00 00 00 00",
		Sense{Key: KeyMediumError, Code: 0x0c02, Deferred: true},
		"deferred MEDIUM ERROR: write error - auto reallocation failed (0C/02)",
	},
	{
		"information not valid", "70 00 25 ff ff ff ff 0a 00 00 00 00 24 00 00 cf 00 02",
		Sense{Key: KeyIllegalRequest, Code: ASCInvalidFieldInCDB, ILI: true, Specific: [3]byte{0xcf, 0, 2}},
		"ILLEGAL REQUEST: invalid field in CDB (24/00)",
	},
	{
		"descriptor format", "72 02 04 0a 00 00 00 00",
		Sense{Key: KeyNotReady, Code: ASCALUATransition},
		"NOT READY: logical unit not accessible, asymmetric access state transition (04/0A)",
	},
	{
		"descriptors", "72 03 11 00 00 00 00 20  00 0a 80 00 00 00 00 01 23 45 67 89" +
			"02 06 00 00 80 00 20 00  03 02 00 05  05 02 00 20  80 02 aa bb",
		Sense{
			Key: KeyMediumError, Code: ASCUnrecoveredReadError, HasInfo: true, Information: 0x123456789,
			Specific: [3]byte{0x80, 0, 0x20}, FRU: 5, ILI: true,
		},
		"MEDIUM ERROR: unrecovered read error (11/00)",
	},
	{
		"descriptor deferred", "73 04 44 00 00 00 00 00",
		Sense{Key: KeyHardwareError, Code: ASCInternalTargetFailure, Deferred: true},
		"deferred HARDWARE ERROR: internal target failure (44/00)",
	},
	{
		"information descriptor not valid", "72 03 11 00 00 00 00 0c  00 0a 00 00 00 00 00 01 23 45 67 89",
		Sense{Key: KeyMediumError, Code: ASCUnrecoveredReadError},
		"MEDIUM ERROR: unrecovered read error (11/00)",
	},
	{
		"descriptor passes the end", "72 05 20 00 00 00 00 ff  00 0a 80 00 00 00 00",
		Sense{Key: KeyIllegalRequest, Code: ASCInvalidOpcode},
		"ILLEGAL REQUEST: invalid command operation code (20/00)",
	},
	{
		"key only", "70 00 06",
		Sense{Key: KeyUnitAttention},
		"UNIT ATTENTION: no additional sense information (00/00)",
	},
	{
		"additional length says there is no code", "70 00 05 00 00 00 00 00 00 00 00 00 24 00 00 00 00 00",
		Sense{Key: KeyIllegalRequest},
		"ILLEGAL REQUEST: no additional sense information (00/00)",
	},
	{
		"cut in the code", "70 00 05 00 00 00 00 0a 00 00 00 00 25",
		Sense{Key: KeyIllegalRequest, Code: ASCLUNNotSupported},
		"ILLEGAL REQUEST: logical unit not supported (25/00)",
	},
	{
		"descriptor key only", "72 0b",
		Sense{Key: KeyAbortedCommand},
		"ABORTED COMMAND: no additional sense information (00/00)",
	},
	{
		"longer than it says", "70 00 07 00 00 00 00 0a 00 00 00 00 27 00 00 00 00 00 ff ff ff ff",
		Sense{Key: KeyDataProtect, Code: ASCWriteProtected},
		"DATA PROTECT: write protected (27/00)",
	},
}

func TestParseSense(t *testing.T) {
	for _, tt := range senseGolden {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := ParseSense(unhex(t, tt.bytes))
			require.True(t, ok)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.text, got.String())
			assert.False(t, got.IsZero())
		})
	}
	for name, bytes := range map[string]string{
		"empty": "", "no key": "70 00", "no key in descriptors": "72", "vendor format": "7f 00 06 00 00 00 00 0a",
		"not sense data": "00 00 00 00 00 00 00 00", "reserved format": "74 06 29 00 00 00 00 00",
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := ParseSense(unhex(t, bytes))
			assert.False(t, ok)
			assert.True(t, got.IsZero())
		})
	}
}

func TestSenseRoundTrip(t *testing.T) {
	for _, tt := range senseGolden {
		got, ok := ParseSense(tt.want.AppendDescriptor([]byte("before"))[6:])
		require.True(t, ok, tt.name)
		assert.Equal(t, tt.want, got, tt.name)

		want := tt.want
		if want.Information > 0xffffffff {
			want.HasInfo, want.Information = false, 0
		}
		got, ok = ParseSense(tt.want.AppendFixed([]byte("before"))[6:])
		require.True(t, ok, tt.name)
		assert.Equal(t, want, got, tt.name)
	}
	assert.Equal(t, unhex(t, senseGolden[0].bytes), AppendFixedSense(nil, KeyUnitAttention, ASCPowerOnOrReset))
}

func TestFieldPointer(t *testing.T) {
	at := func(a, b, c byte) Sense {
		return Sense{Key: KeyIllegalRequest, Code: ASCInvalidFieldInCDB, Specific: [3]byte{a, b, c}}
	}
	p, ok := at(0xc0, 0, 2).FieldPointer()
	require.True(t, ok)
	assert.Equal(t, "byte 2 of the CDB", p.String())
	p, ok = at(0xcd, 1, 0).FieldPointer()
	require.True(t, ok)
	assert.Equal(t, "byte 256 bit 5 of the CDB", p.String())
	p, ok = at(0x80, 0, 20).FieldPointer()
	require.True(t, ok)
	assert.Equal(t, "byte 20 of the parameter list", p.String())
	_, ok = at(0x40, 0, 2).FieldPointer()
	assert.False(t, ok, "SKSV is not set")
	_, ok = Sense{Key: KeyNotReady, Specific: [3]byte{0xc0, 0, 2}}.FieldPointer()
	assert.False(t, ok, "there it is progress")
}

func TestProgress(t *testing.T) {
	done, ok := Sense{Key: KeyNotReady, Code: ASCFormatInProgress, Specific: [3]byte{0x80, 0x40, 0}}.Progress()
	require.True(t, ok)
	assert.InDelta(t, 0.25, done, 1e-9)
	_, ok = Sense{Key: KeyNotReady, Code: ASCFormatInProgress}.Progress()
	assert.False(t, ok)
	_, ok = Sense{Key: KeyIllegalRequest, Specific: [3]byte{0x80, 0x40, 0}}.Progress()
	assert.False(t, ok)
}

func TestWhatAUnitAttentionCallsInQuestion(t *testing.T) {
	tests := []struct {
		code                       ASC
		identity, capacity, groups bool
	}{
		{ASCPowerOnOrReset, true, false, false},
		{ASCMediumMayHaveChanged, true, false, false},
		{ASCNexusLoss, true, false, false},
		{ASCInquiryDataChanged, true, false, false},
		{ASCReportedLUNsChanged, true, false, false},
		{ASCCapacityChanged, false, true, false},
		{ASCALUAStateChanged, false, false, true},
		{ASCALUATransitionFailed, false, false, true},
		{ASCModeParametersChanged, false, false, false},
		{ASCThinSoftThreshold, false, false, false},
	}
	for _, tt := range tests {
		s := Sense{Key: KeyUnitAttention, Code: tt.code}
		assert.Equal(t, tt.identity, s.IdentityMayHaveChanged(), s)
		assert.Equal(t, tt.capacity, s.CapacityMayHaveChanged(), s)
		assert.Equal(t, tt.groups, s.PortGroupsMayHaveChanged(), s)
		s.Key = KeyIllegalRequest
		assert.False(t, s.IdentityMayHaveChanged() || s.CapacityMayHaveChanged() || s.PortGroupsMayHaveChanged(), s)
	}
	for _, code := range []ASC{ASCALUATransition, ASCALUAStandby, ASCALUAUnavailable} {
		assert.True(t, Sense{Key: KeyNotReady, Code: code}.PortGroupsMayHaveChanged())
	}
	assert.False(t, Sense{Key: KeyNotReady, Code: ASCBecomingReady}.PortGroupsMayHaveChanged())
}

func TestParseSenseAllocatesNothing(t *testing.T) {
	fixed, descriptor := unhex(t, senseGolden[1].bytes), unhex(t, senseGolden[5].bytes)
	var s Sense
	var r Remedy
	n := testing.AllocsPerRun(100, func() {
		s, _ = ParseSense(fixed)
		r |= Classify(CheckCondition, s)
		s, _ = ParseSense(descriptor)
		r |= Classify(CheckCondition, s)
	})
	require.Zero(t, n)
	require.Equal(t, GiveUp, r)
}

func FuzzParseSense(f *testing.F) {
	for _, tt := range senseGolden {
		f.Add(unhex(f, tt.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := ParseSense(b)
		if !ok {
			require.True(t, s.IsZero())
			return
		}
		require.NotEmpty(t, s.String())
		again, ok := ParseSense(s.AppendDescriptor(nil))
		require.True(t, ok)
		require.Equal(t, s, again)
		again, ok = ParseSense(s.AppendFixed(nil))
		require.True(t, ok)
		require.Equal(t, s.Code, again.Code)
		require.LessOrEqual(t, Classify(CheckCondition, s), GiveUp)
		s.FieldPointer()
		s.Progress()
	})
}

func TestStatusAndKeyNames(t *testing.T) {
	names := map[string]bool{}
	for _, s := range []Status{Good, CheckCondition, ConditionMet, Busy, ReservationConflict, TaskSetFull, ACAActive, TaskAborted} {
		assert.NotContains(t, s.String(), "0x")
		names[s.String()] = true
	}
	assert.Len(t, names, 8)
	assert.Equal(t, "status 0x22", Status(0x22).String())
	assert.Equal(t, "UNIT ATTENTION", KeyUnitAttention.String())
	assert.Equal(t, "COMPLETED", KeyCompleted.String())
	assert.Equal(t, "SENSE KEY 0x10", SenseKey(16).String())
}
