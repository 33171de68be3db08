package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMakeLUN(t *testing.T) {
	for n, want := range map[uint16]LUN{
		0:     0,
		3:     0x0003_0000_0000_0000,
		255:   0x00ff_0000_0000_0000,
		256:   0x4100_0000_0000_0000,
		16383: 0x7fff_0000_0000_0000,
		16384: 0xd200_4000_0000_0000,
		65535: 0xd200_ffff_0000_0000,
	} {
		assert.Equal(t, want, MakeLUN(n), n)
	}
	for n := range 1 << 16 {
		l := MakeLUN(uint16(n))
		got, ok := l.Number()
		back, err := ParseLUN(l.String())
		if !ok || got != uint16(n) || err != nil || back != l {
			require.Fail(t, "no round trip", "%d: %v %v %v", n, l, back, err)
		}
	}
}

func TestLUNsOfOtherForms(t *testing.T) {
	tests := []struct {
		lun    LUN
		number uint16
		ok     bool
		text   string
	}{
		{0x4003_0000_0000_0000, 3, true, "0x4003000000000000"}, // flat, but not as MakeLUN writes it
		{0x0103_0000_0000_0000, 0, false, "0x0103000000000000"},
		{0x0003_0001_0000_0000, 0, false, "0x0003000100000000"}, // a second level
		{0x8003_0000_0000_0000, 0, false, "0x8003000000000000"},
		{0xc101_0000_0000_0000, 0, false, "0xc101000000000000"},
		{0xd201_0000_0000_0000, 0, false, "0xd201000000000000"}, // number 65536
		{0xd200_0003_0000_0000, 3, true, "0xd200000300000000"},
		{0xd200_0003_0000_0001, 0, false, "0xd200000300000001"},
		{0xffff_ffff_ffff_ffff, 0, false, "0xffffffffffffffff"},
	}
	for _, tt := range tests {
		n, ok := tt.lun.Number()
		assert.Equal(t, tt.ok, ok, tt.text)
		if ok {
			assert.Equal(t, tt.number, n, tt.text)
		}
		assert.Equal(t, tt.text, tt.lun.String())
		back, err := ParseLUN(tt.text)
		require.NoError(t, err)
		assert.Equal(t, tt.lun, back)
	}
	assert.True(t, LUN(0xc101_0000_0000_0000).IsWellKnown())
	assert.False(t, MakeLUN(1).IsWellKnown())
	for _, bad := range []string{"", "-1", "65536", "0x", "0x3", "0x00030000000000000", "0x000300000000000g", "three", "+3", " 3"} {
		_, err := ParseLUN(bad)
		assert.ErrorContains(t, err, "LUN", bad)
	}
}

const reportLunsGolden = "00 00 00 18 00 00 00 00" +
	"00 00 00 00 00 00 00 00" +
	"00 01 00 00 00 00 00 00" +
	"41 00 00 00 00 00 00 00"

func TestParseReportLuns(t *testing.T) {
	good := unhex(t, reportLunsGolden)
	want := []LUN{MakeLUN(0), MakeLUN(1), MakeLUN(256)}
	got, err := ParseReportLuns(good)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	assert.Equal(t, good, AppendReportLuns(nil, want))

	got, err = ParseReportLuns(append(good, 0, 0, 0, 0))
	require.NoError(t, err, "filled up with zeros")
	assert.Equal(t, want, got)

	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, err := ParseReportLuns(b); return err })
	_, err = ParseReportLuns(good[:16])
	requireNeed(t, err, 32)
	_, err = ParseReportLuns(unhex(t, "ff ff ff ff 00 00 00 00 00 00"))
	require.ErrorIs(t, err, ErrShort)

	got, err = ParseReportLuns(make([]byte, 8))
	require.NoError(t, err)
	assert.Empty(t, got)
}

func FuzzParseReportLuns(f *testing.F) {
	f.Add(unhex(f, reportLunsGolden))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		luns, err := ParseReportLuns(b)
		if err != nil {
			return
		}
		again, err := ParseReportLuns(AppendReportLuns(nil, luns))
		require.NoError(t, err)
		require.Equal(t, luns, again)
	})
}

func FuzzParseLUN(f *testing.F) {
	f.Add("3")
	f.Add("0x4003000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLUN(s)
		if err != nil {
			return
		}
		again, err := ParseLUN(l.String())
		require.NoError(t, err)
		require.Equal(t, l, again)
	})
}
