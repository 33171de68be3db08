package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	keysGolden        = "00 00 00 05 00 00 00 10  01 02 03 04 05 06 07 08  00 00 00 00 00 00 00 09"
	reservationGolden = "00 00 00 05 00 00 00 10  01 02 03 04 05 06 07 08  00 00 00 00 00 05 00 00"
)

func TestReserveParameters(t *testing.T) {
	want := ReserveParameters{Key: 0x0102030405060708, ActionKey: 9, APTPL: true, AllPorts: true}
	list := want.AppendTo(nil)
	assert.Equal(t, unhex(t, "01 02 03 04 05 06 07 08  00 00 00 00 00 00 00 09  00 00 00 00 05 00 00 00"), list)
	got, err := ParseReserveParameters(list)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	requireFromPrefixes(t, list, 24, func(b []byte) error { _, err := ParseReserveParameters(b); return err })
}

func TestParseReserveKeys(t *testing.T) {
	good := unhex(t, keysGolden)
	generation, keys, err := ParseReserveKeys(good)
	require.NoError(t, err)
	assert.Equal(t, uint32(5), generation)
	assert.Equal(t, []uint64{0x0102030405060708, 9}, keys)
	assert.Equal(t, good, AppendReserveKeys(nil, 5, keys))
	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, _, err := ParseReserveKeys(b); return err })
	_, _, err = ParseReserveKeys(good[:8])
	requireNeed(t, err, 24)
}

func TestParseReservation(t *testing.T) {
	good := unhex(t, reservationGolden)
	got, err := ParseReservation(good)
	require.NoError(t, err)
	assert.Equal(t, Reservation{Generation: 5, Held: true, Key: 0x0102030405060708, Type: WriteExclusiveRegistrantsOnly}, got)
	assert.Equal(t, good, got.AppendTo(nil))
	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, err := ParseReservation(b); return err })

	none := unhex(t, "00 00 00 07 00 00 00 00")
	got, err = ParseReservation(none)
	require.NoError(t, err)
	assert.Equal(t, Reservation{Generation: 7}, got)
	assert.Equal(t, none, got.AppendTo(nil))
	_, err = ParseReservation(unhex(t, "00 00 00 07 00 00 00 08 00 00 00 00 00 00 00 00"))
	require.ErrorIs(t, err, ErrMalformed)
}

func TestReservationTypeNames(t *testing.T) {
	names := map[string]bool{}
	for typ := range ReservationType(16) {
		names[typ.String()] = true
	}
	assert.Len(t, names, 16)
	assert.Equal(t, "reservation type 0x0", ReservationType(0).String())
	assert.Equal(t, "write exclusive", WriteExclusive.String())
}

func FuzzParseReservations(f *testing.F) {
	f.Add(unhex(f, keysGolden))
	f.Add(unhex(f, reservationGolden))
	f.Fuzz(func(t *testing.T, b []byte) {
		if generation, keys, err := ParseReserveKeys(b); err == nil {
			g, k, err := ParseReserveKeys(AppendReserveKeys(nil, generation, keys))
			require.NoError(t, err)
			require.Equal(t, generation, g)
			require.Equal(t, keys, k)
		}
		if r, err := ParseReservation(b); err == nil {
			again, err := ParseReservation(r.AppendTo(nil))
			require.NoError(t, err)
			require.Equal(t, r, again)
		}
		if p, err := ParseReserveParameters(b); err == nil {
			again, err := ParseReserveParameters(p.AppendTo(nil))
			require.NoError(t, err)
			require.Equal(t, p, again)
		}
	})
}

const supportedGolden = "00 03 00 0a 42 01 00 00 00 00 1f ff ff 00"

func TestParseSupportedOpcode(t *testing.T) {
	good := unhex(t, supportedGolden)
	support, usage, err := ParseSupportedOpcode(good)
	require.NoError(t, err)
	assert.Equal(t, SupportStandard, support)
	assert.Equal(t, OpUnmap, usage.Opcode())
	assert.Equal(t, uint8(0x1f), usage[6])
	assert.Equal(t, good, AppendSupportedOpcode(nil, support, usage))
	requireFromPrefixes(t, good, 4, func(b []byte) error { _, _, err := ParseSupportedOpcode(b); return err })

	support, usage, err = ParseSupportedOpcode(unhex(t, "00 01 00 00"))
	require.NoError(t, err)
	assert.Equal(t, SupportNone, support)
	assert.Zero(t, usage)
	assert.Equal(t, unhex(t, "00 01 00 00"), AppendSupportedOpcode(nil, SupportNone, CDB{0: byte(OpUnmap)}))
	_, usage, err = ParseSupportedOpcode(unhex(t, "00 03 ff ff 7f 01"))
	require.NoError(t, err, "a size of nonsense")
	assert.Equal(t, CDB{0x7f, 1}, usage)

	for s, want := range map[CommandSupport]string{
		SupportUnknown: "unknown", SupportNone: "not supported",
		SupportStandard: "supported", SupportVendor: "vendor specific", 2: "reserved",
	} {
		assert.Equal(t, want, s.String())
	}
}

func FuzzParseSupportedOpcode(f *testing.F) {
	f.Add(unhex(f, supportedGolden))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, usage, err := ParseSupportedOpcode(b)
		if err != nil {
			return
		}
		again, usage2, err := ParseSupportedOpcode(AppendSupportedOpcode(nil, s, usage))
		require.NoError(t, err)
		require.Equal(t, s, again)
		if usage2 != (CDB{}) {
			require.Equal(t, usage[:usage.Len()], usage2[:usage.Len()])
		}
	})
}
