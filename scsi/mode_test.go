package scsi

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	cachingGolden = "88 12 04 00 ff ff 00 00 ff ff ff ff 80 14 00 00 00 00 00 00"
	controlGolden = "0a 0a 06 00 08 40 00 00 00 00 00 00"
	subpageGolden = "4a 01 00 04 aa bb cc dd" // page 0x0a, subpage 1

	modeSense6Golden = "33 00 90 08" + "00 00 10 00 00 00 02 00" +
		subpageGolden + cachingGolden + controlGolden
	modeSense10Golden = "00 2e 00 10 00 00 00 00" + subpageGolden + controlGolden + cachingGolden
)

func TestParseModeSense6(t *testing.T) {
	good := unhex(t, modeSense6Golden)
	m, err := ParseModeSense6(good)
	require.NoError(t, err)
	assert.True(t, m.WriteProtected)
	assert.True(t, m.DPOFUA)
	assert.Len(t, m.BlockDescriptors, 8)

	caching, ok := m.Caching()
	assert.True(t, ok)
	assert.Equal(t, CachingPage{WCE: true}, caching)
	control, ok := m.Control()
	assert.True(t, ok)
	assert.Equal(t, ControlPage{DescriptorSense: true, SoftwareWP: true, TaskAborted: true}, control)
	sub, ok := m.Page(ModePageControl, 1)
	assert.True(t, ok)
	assert.Equal(t, unhex(t, subpageGolden), sub)
	_, ok = m.Page(0x1c, 0)
	assert.False(t, ok)
	assert.Equal(t, good, m.AppendTo6(nil))
	requireFromPrefixes(t, good, 12, func(b []byte) error { _, err := ParseModeSense6(b); return err })
}

func TestParseModeSense10(t *testing.T) {
	good := unhex(t, modeSense10Golden)
	m, err := ParseModeSense10(good)
	require.NoError(t, err)
	assert.False(t, m.WriteProtected)
	assert.True(t, m.DPOFUA)
	assert.Empty(t, m.BlockDescriptors)
	caching, ok := m.Caching()
	assert.True(t, ok)
	assert.True(t, caching.WCE)
	assert.Equal(t, good, m.AppendTo10(nil))
	requireFromPrefixes(t, good, 8, func(b []byte) error { _, err := ParseModeSense10(b); return err })
}

func TestModePagesThatAreNotWhole(t *testing.T) {
	good := unhex(t, modeSense10Golden)
	m, err := ParseModeSense10(good[:8+8+12+3])
	require.NoError(t, err)
	caching, ok := m.Caching()
	assert.True(t, ok, "WCE is in the third byte")
	assert.True(t, caching.WCE)
	m, err = ParseModeSense10(good[:8+8+12+2])
	require.NoError(t, err)
	_, ok = m.Caching()
	assert.False(t, ok)
	m, err = ParseModeSense10(good[:8+8+5])
	require.NoError(t, err)
	_, ok = m.Control()
	assert.False(t, ok)
	m, err = ParseModeSense10(good[:8+3])
	require.NoError(t, err)
	_, ok = m.Page(ModePageControl, 1)
	assert.False(t, ok, "half a subpage header")

	// The length says that the pages behind it are not there.
	m, err = ParseModeSense6(unhex(t, "03 00 00 00"+cachingGolden))
	require.NoError(t, err)
	_, ok = m.Caching()
	assert.False(t, ok)
	m, err = ParseModeSense6(unhex(t, "00 00 80 00"))
	require.NoError(t, err, "a length of 0 still has a header")
	assert.True(t, m.WriteProtected)
	_, err = ParseModeSense6(unhex(t, "03 00 00 08 00 00 00 00 00 00 00 00"))
	require.ErrorIs(t, err, ErrShort)
}

func TestModePagesRoundTrip(t *testing.T) {
	for i := range 8 {
		caching := CachingPage{WCE: i&1 != 0, RCD: i&2 != 0}
		control := ControlPage{DescriptorSense: i&1 != 0, SoftwareWP: i&2 != 0, TaskAborted: i&4 != 0}
		want := ModeData{
			MediumType: 7, WriteProtected: i&2 != 0, DPOFUA: i&4 != 0,
			Pages: control.AppendTo(caching.AppendTo(nil)),
		}
		for _, parse := range []func() (ModeData, error){
			func() (ModeData, error) { return ParseModeSense6(want.AppendTo6(nil)) },
			func() (ModeData, error) { return ParseModeSense10(want.AppendTo10(nil)) },
		} {
			m, err := parse()
			require.NoError(t, err)
			assert.Equal(t, want.specific(), m.specific())
			assert.Equal(t, want.MediumType, m.MediumType)
			gotCaching, _ := m.Caching()
			gotControl, _ := m.Control()
			assert.Equal(t, caching, gotCaching)
			assert.Equal(t, control, gotControl)
		}
	}
	huge := ModeData{BlockDescriptors: make([]byte, 70000), Pages: bytes.Repeat([]byte{1}, 70000)}
	assert.Len(t, huge.AppendTo6(nil), 256)
	assert.Len(t, huge.AppendTo10(nil), 0xffff+2)
}

func FuzzParseModeSense(f *testing.F) {
	f.Add(unhex(f, modeSense6Golden), uint8(ModePageCaching), uint8(0))
	f.Add(unhex(f, modeSense10Golden), uint8(ModePageControl), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, page, sub uint8) {
		for _, parse := range []func([]byte) (ModeData, error){ParseModeSense6, ParseModeSense10} {
			m, err := parse(b)
			if err != nil {
				continue
			}
			m.Caching()
			m.Control()
			if p, ok := m.Page(page, sub); ok {
				require.Equal(t, page, p[0]&0x3f)
			}
			again, err := ParseModeSense10(m.AppendTo10(nil))
			require.NoError(t, err)
			require.True(t, bytes.Equal(m.Pages, again.Pages))
			require.True(t, bytes.Equal(m.BlockDescriptors, again.BlockDescriptors))
		}
	})
}
