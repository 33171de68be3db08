package scsi

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	vpd00Golden = "00 00 00 06 00 80 83 b0 b1 b2"
	vpd80Golden = "00 80 00 0a 20 20 62 65 61 66 31 31 00 00" // "beaf11"
	vpdB0Golden = "00 b0 00 3c  01 10 00 08  00 00 20 00  00 00 04 00  00 00 00 09" +
		"00 40 00 00  00 00 01 00  00 00 00 20  80 00 00 05" +
		"00 00 00 01 00 00 00 02  00 00 00 0a  00 00 00 0b  00 00 00 0c  00 00 00 0d  00 00 00 0e"
	vpdB1Golden = "00 b1 00 3c 00 01 00 05 02 00 00 00" +
		"00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000"
	vpdB2Golden = "00 b2 00 04 0b e6 02 00"
)

var blockLimitsWant = BlockLimits{
	WSNZ: true, MaxCompareAndWrite: 16, OptimalGranularity: 8, MaxTransfer: 0x2000, OptimalTransfer: 0x400,
	MaxPrefetch: 9, MaxUnmapBlocks: 0x400000, MaxUnmapDescriptors: 256, UnmapGranularity: 32,
	UnmapAlignment: 5, UnmapAlignmentValid: true, MaxWriteSame: 0x100000002,
	MaxAtomic: 10, AtomicAlignment: 11, AtomicGranularity: 12, MaxAtomicBoundary: 13, MaxAtomicBoundaryLen: 14,
}

func TestParseVPDPages(t *testing.T) {
	good := unhex(t, vpd00Golden)
	got, err := ParseVPDPages(good)
	require.NoError(t, err)
	assert.Equal(t, []uint8{0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}, got)
	assert.Equal(t, good, AppendVPD(nil, TypeDisk, VPDSupportedPages, got))
	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, err := ParseVPDPages(b); return err })
	good[4] = 0x77
	assert.Equal(t, uint8(0), got[0], "the result is a copy")
}

func TestParseSerial(t *testing.T) {
	good := unhex(t, vpd80Golden)
	got, err := ParseSerial(good)
	require.NoError(t, err)
	assert.Equal(t, "beaf11", got)
	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, err := ParseSerial(b); return err })
	_, err = ParseSerial(good[:7])
	requireNeed(t, err, 14)

	got, err = ParseSerial(unhex(t, "00 80 00 00 ff ff"))
	require.NoError(t, err, "behind the page there may be anything")
	assert.Empty(t, got)
	_, err = ParseSerial(unhex(t, vpdB2Golden))
	require.ErrorIs(t, err, ErrMalformed)
	require.EqualError(t, err, "scsi: VPD page 0x80: malformed data: the data is of page 0xb2")
}

func TestParseBlockLimits(t *testing.T) {
	good := unhex(t, vpdB0Golden)
	got, err := ParseBlockLimits(good)
	require.NoError(t, err)
	assert.Equal(t, blockLimitsWant, got)
	assert.Equal(t, good, got.AppendTo(nil))
	requireFromPrefixes(t, good, 16, func(b []byte) error { _, err := ParseBlockLimits(b); return err })

	old := append([]byte(nil), good[:16]...)
	old[3] = 12
	got, err = ParseBlockLimits(append(old, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	require.NoError(t, err, "SBC-2 had 12 bytes")
	assert.Equal(t, BlockLimits{WSNZ: true, MaxCompareAndWrite: 16, OptimalGranularity: 8, MaxTransfer: 0x2000, OptimalTransfer: 0x400}, got)
	old[3] = 11
	_, err = ParseBlockLimits(old)
	require.ErrorIs(t, err, ErrShort)
}

func TestParseBlockCharacteristics(t *testing.T) {
	good := unhex(t, vpdB1Golden)
	got, err := ParseBlockCharacteristics(good)
	require.NoError(t, err)
	assert.Equal(t, BlockCharacteristics{RotationRate: RotationNonRotating, FormFactor: 5, FUAB: true}, got)
	assert.Equal(t, good, got.AppendTo(nil))
	requireFromPrefixes(t, good, 8, func(b []byte) error { _, err := ParseBlockCharacteristics(b); return err })
}

func TestParseProvisioning(t *testing.T) {
	good := unhex(t, vpdB2Golden)
	got, err := ParseProvisioning(good)
	require.NoError(t, err)
	assert.Equal(t, Provisioning{
		ThresholdExponent: 11, LBPU: true, LBPWS: true, LBPWS10: true,
		LBPRZ: 1, AncSup: true, Type: ProvisioningThin,
	}, got)
	assert.True(t, got.UnmapsToZero())
	assert.False(t, Provisioning{LBPRZ: 2}.UnmapsToZero())
	assert.Equal(t, good, got.AppendTo(nil))
	few, err := ParseProvisioning(Provisioning{DP: true, LBPWS: true, LBPRZ: 2}.AppendTo(nil))
	require.NoError(t, err)
	assert.Equal(t, Provisioning{DP: true, LBPWS: true, LBPRZ: 2}, few)
	requireFromPrefixes(t, good, 6, func(b []byte) error { _, err := ParseProvisioning(b); return err })
}

func TestAppendVPDCutsAtItsLengthField(t *testing.T) {
	page := AppendVPD(nil, 0xff, VPDSerial, bytes.Repeat([]byte{'x'}, 70000))
	require.Len(t, page, 4+0xffff)
	assert.Equal(t, []byte{0x1f, 0x80, 0xff, 0xff}, page[:4])
	serial, err := ParseSerial(page)
	require.NoError(t, err)
	assert.Len(t, serial, 0xffff)
}

func FuzzParseVPD(f *testing.F) {
	for _, s := range []string{vpd00Golden, vpd80Golden, vpdB0Golden, vpdB1Golden, vpdB2Golden} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParseVPDPages(b); err == nil {
			require.LessOrEqual(t, len(p), len(b)-4)
		}
		if s, err := ParseSerial(b); err == nil {
			require.Equal(t, s, cleanString([]byte(s)))
		}
		if l, err := ParseBlockLimits(b); err == nil {
			again, err := ParseBlockLimits(l.AppendTo(nil))
			require.NoError(t, err)
			require.Equal(t, l, again)
		}
		if c, err := ParseBlockCharacteristics(b); err == nil {
			again, err := ParseBlockCharacteristics(c.AppendTo(nil))
			require.NoError(t, err)
			require.Equal(t, c, again)
		}
		if p, err := ParseProvisioning(b); err == nil {
			again, err := ParseProvisioning(p.AppendTo(nil))
			require.NoError(t, err)
			require.Equal(t, p, again)
		}
	})
}
