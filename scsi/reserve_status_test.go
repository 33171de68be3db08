package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReservationTypeProperties(t *testing.T) {
	for typ, want := range map[ReservationType]struct {
		short               string
		reads, regs, shared bool
	}{
		WriteExclusive:                {"we", false, false, false},
		ExclusiveAccess:               {"ea", true, false, false},
		WriteExclusiveRegistrantsOnly: {"wero", false, true, false},
		ExclusiveRegistrantsOnly:      {"earo", true, true, false},
		WriteExclusiveAllRegistrants:  {"wear", false, true, true},
		ExclusiveAllRegistrants:       {"eaar", true, true, true},
	} {
		assert.True(t, typ.Valid(), typ)
		assert.Equal(t, want.short, typ.Short())
		assert.Equal(t, want.reads, typ.ExcludesReads(), typ)
		assert.Equal(t, want.regs, typ.Registrants(), typ)
		assert.Equal(t, want.shared, typ.AllHold(), typ)
		for _, s := range []string{want.short, string('0' + rune(typ))} {
			got, err := ParseReservationType(s)
			require.NoError(t, err)
			assert.Equal(t, typ, got)
		}
	}
	valid := 0
	for typ := range ReservationType(255) {
		if typ.Valid() {
			valid++
		} else {
			assert.Empty(t, typ.Short())
		}
	}
	assert.Len(t, ReservationTypes(), valid)
	for _, s := range []string{"", "2", "9", "10", "wee", "x"} {
		_, err := ParseReservationType(s)
		assert.Error(t, err, s)
	}
}

const capabilitiesGolden = "00 08 1d 91 ea 01 00 00"

func TestParseReserveCapabilities(t *testing.T) {
	good := unhex(t, capabilitiesGolden)
	got, err := ParseReserveCapabilities(good)
	require.NoError(t, err)
	want := ReserveCapabilities{
		PersistCapable: true, PersistActive: true, AllPorts: true, SpecifyPorts: true, CompatibleHold: true,
		AllowCommands: 1, TypesKnown: true, Types: ReservationTypes(),
	}
	assert.Equal(t, want, got)
	assert.Equal(t, good, want.AppendTo(nil))
	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, err := ParseReserveCapabilities(b); return err })
	_, err = ParseReserveCapabilities(unhex(t, "00 04 00 00 00 00 00 00"))
	require.ErrorIs(t, err, ErrMalformed)
	assert.Equal(t, unhex(t, "00 08 00 00 00 00 00 00"), ReserveCapabilities{Types: []ReservationType{2, 200}}.AppendTo(nil))
}

const fullStatusGolden = "00 00 00 07 00 00 00 58" +
	"00 00 00 00 00 00 00 0a  00 00 00 00 01 05 00 00 00 00 00 01 00 00 00 28" +
	"45 00 00 24 69 71 6e 2e 32 30 32 36 2d 30 31 2e 78 3a 61 2c 69 2c 30 78 38 30 30 30 30 30 30 30 30 30 30 31 00 00 00 00" +
	"00 00 00 00 00 00 00 0b  00 00 00 00 02 00 00 00 00 00 00 00 00 00 00 00"

func TestParseFullStatus(t *testing.T) {
	id := AppendISCSITransportID(nil, "iqn.2026-01.x:a", [6]byte{0x80, 0, 0, 0, 0, 1})
	list := []Registration{
		{Key: 10, Holder: true, Type: WriteExclusiveRegistrantsOnly, Port: 1, TransportID: id},
		{Key: 11, AllPorts: true, TransportID: []byte{}},
	}
	good := AppendFullStatus(nil, 7, list)
	assert.Equal(t, unhex(t, fullStatusGolden), good)
	generation, got, err := ParseFullStatus(good)
	require.NoError(t, err)
	assert.Equal(t, uint32(7), generation)
	assert.Equal(t, list, got)
	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, _, err := ParseFullStatus(b); return err })

	_, none, err := ParseFullStatus(unhex(t, "00 00 00 07 00 00 00 00"))
	require.NoError(t, err)
	assert.Empty(t, none)
	_, _, err = ParseFullStatus(unhex(t, "00 00 00 07 00 00 00 04 01 02 03 04"))
	require.ErrorIs(t, err, ErrMalformed)
	long := AppendFullStatus(nil, 7, list)
	long[8+20] = 0xff // the TransportID would be huge
	_, _, err = ParseFullStatus(long)
	require.ErrorIs(t, err, ErrMalformed)
}

func TestISCSITransportID(t *testing.T) {
	isid := [6]byte{0x80, 1, 2, 3, 4, 0xff}
	b := AppendISCSITransportID(nil, "iqn.2026-01.test:host", isid)
	assert.Zero(t, len(b)%4)
	name, got, port, err := ParseISCSITransportID(b)
	require.NoError(t, err)
	assert.Equal(t, "iqn.2026-01.test:host", name)
	assert.Equal(t, isid, got)
	assert.True(t, port)
	requireFromPrefixes(t, b, len(b), func(b []byte) error { _, _, _, err := ParseISCSITransportID(b); return err })

	whole := append([]byte{0x05, 0, 0, 20}, "iqn.2026-01.x:a\x00\x00\x00\x00\x00"...)
	name, _, port, err = ParseISCSITransportID(whole)
	require.NoError(t, err)
	assert.Equal(t, "iqn.2026-01.x:a", name)
	assert.False(t, port)
	for what, b := range map[string][]byte{
		"another transport": {0, 0, 0, 0},
		"no name":           {0x45, 0, 0, 4, 0, 0, 0, 0},
		"not ended":         {0x05, 0, 0, 4, 'a', 'b', 'c', 'd'},
		"no ISID":           {0x45, 0, 0, 4, 'a', 'b', 'c', 0},
		"format 2":          {0x85, 0, 0, 4, 'a', 'b', 'c', 0},
		"bad ISID":          append([]byte{0x45, 0, 0, 20}, "ab,i,0x80000000000g\x00"...),
	} {
		_, _, _, err := ParseISCSITransportID(b)
		assert.ErrorIs(t, err, ErrMalformed, what)
	}
}

func FuzzParseReserveStatus(f *testing.F) {
	f.Add(unhex(f, capabilitiesGolden))
	f.Add(unhex(f, fullStatusGolden))
	f.Add(AppendISCSITransportID(nil, "iqn.2026-01.test:host", [6]byte{0x80, 1, 2, 3, 4, 5}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseReserveCapabilities(b); err == nil {
			again, err := ParseReserveCapabilities(c.AppendTo(nil))
			require.NoError(t, err)
			require.Equal(t, c, again)
		}
		if generation, list, err := ParseFullStatus(b); err == nil {
			g, again, err := ParseFullStatus(AppendFullStatus(nil, generation, list))
			require.NoError(t, err)
			require.Equal(t, generation, g)
			require.Equal(t, list, again)
		}
		if name, isid, port, err := ParseISCSITransportID(b); err == nil && port {
			n, i, p, err := ParseISCSITransportID(AppendISCSITransportID(nil, name, isid))
			require.NoError(t, err)
			require.True(t, p)
			require.Equal(t, name, n)
			require.Equal(t, isid, i)
		}
	})
}
