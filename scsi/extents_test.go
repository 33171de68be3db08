package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const unmapGolden = "00 26 00 20 00 00 00 00" +
	"01 02 03 04 05 06 07 08  00 00 10 00  00 00 00 00" +
	"00 00 00 00 00 00 00 09  ff ff ff ff  00 00 00 00"

func TestUnmapParameterList(t *testing.T) {
	extents := []Extent{{0x0102030405060708, 4096}, {9, 0xffffffff}}
	list := AppendUnmapDescriptors([]byte("before"), extents)
	assert.Equal(t, "before", string(list[:6]))
	assert.Equal(t, unhex(t, unmapGolden), list[6:])
	assert.Equal(t, UnmapLen(2), len(list[6:]))
	got, err := ParseUnmapDescriptors(list[6:])
	require.NoError(t, err)
	assert.Equal(t, extents, got)
	requireFromPrefixes(t, list[6:], len(list)-6, func(b []byte) error { _, err := ParseUnmapDescriptors(b); return err })

	got, err = ParseUnmapDescriptors(unhex(t, "00 06 00 00 00 00 00 00"))
	require.NoError(t, err)
	assert.Empty(t, got)
	got, err = ParseUnmapDescriptors(append(unhex(t, "00 18 00 1f"), list[10:]...))
	require.NoError(t, err)
	assert.Equal(t, extents[:1], got, "a part of a descriptor does not count")
}

func TestUnmapHasRoomForSoManyExtents(t *testing.T) {
	list := AppendUnmapDescriptors(nil, make([]Extent, MaxUnmapExtents))
	assert.LessOrEqual(t, len(list), 0xffff, "Unmap takes 16 bits")
	assert.Greater(t, len(list)+extentLen, 0xffff)
	got, err := ParseUnmapDescriptors(list)
	require.NoError(t, err)
	assert.Len(t, got, MaxUnmapExtents)
	assert.Panics(t, func() { AppendUnmapDescriptors(nil, make([]Extent, MaxUnmapExtents+1)) })
}

func TestUnmapListAllocatesNothingIntoABuffer(t *testing.T) {
	buf := make([]byte, 0, UnmapLen(2))
	extents := []Extent{{1, 2}, {3, 4}}
	require.Zero(t, testing.AllocsPerRun(100, func() { buf = AppendUnmapDescriptors(buf[:0], extents) }))
}

const lbaStatusGolden = "00 00 00 24 00 00 00 00" +
	"00 00 00 00 00 00 00 40  00 00 00 10  01 00 00 00" +
	"00 00 00 00 00 00 00 50  00 00 00 08  00 00 00 00"

func TestParseLBAStatus(t *testing.T) {
	good := unhex(t, lbaStatusGolden)
	got, err := ParseLBAStatus(good)
	require.NoError(t, err)
	want := []LBAExtent{{64, 16, LBADeallocated}, {80, 8, LBAMapped}}
	assert.Equal(t, want, got)
	assert.Equal(t, good, AppendLBAStatus(nil, want))
	requireFromPrefixes(t, good, 24, func(b []byte) error { _, err := ParseLBAStatus(b); return err })
	got, err = ParseLBAStatus(good[:39])
	require.NoError(t, err)
	assert.Equal(t, want[:1], got, "whole descriptors only")
	long := unhex(t, lbaStatusGolden)
	long[0] = 0xff
	got, err = ParseLBAStatus(long)
	require.NoError(t, err)
	assert.Equal(t, want, got, "the unit has more than the data holds")
}

func TestLBAStatusAWalkCannotUse(t *testing.T) {
	for name, bytes := range map[string]string{
		"all zeros, as some targets answer": "00000000 00000000 00000000 00000000 00000000 00000000",
		"empty extent":                      "00000014 00000000 00000000 00000040 00000000 00000000",
		"past the end of all addresses":     "00000014 00000000 ffffffff ffffffff 00000002 00000000",
		"gap": "00000024 00000000 00000000 00000040 00000010 00000000" +
			"00000000 00000051 00000010 00000000",
		"backwards": "00000024 00000000 00000000 00000040 00000010 00000000" +
			"00000000 00000040 00000010 00000000",
	} {
		_, err := ParseLBAStatus(unhex(t, bytes))
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
}

func FuzzParseExtents(f *testing.F) {
	f.Add(unhex(f, unmapGolden))
	f.Add(unhex(f, lbaStatusGolden))
	f.Fuzz(func(t *testing.T, b []byte) {
		if extents, err := ParseUnmapDescriptors(b); err == nil {
			again, err := ParseUnmapDescriptors(AppendUnmapDescriptors(nil, extents))
			require.NoError(t, err)
			require.Equal(t, extents, again)
		}
		if extents, err := ParseLBAStatus(b); err == nil {
			require.NotEmpty(t, extents)
			again, err := ParseLBAStatus(AppendLBAStatus(nil, extents))
			require.NoError(t, err)
			require.Equal(t, extents, again)
		}
	})
}
