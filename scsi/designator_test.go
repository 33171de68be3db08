package scsi

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// vpd83Golden is like what a Linux target sends.
const vpd83Golden = "00 83 00 48" +
	"01 03 00 10  60 01 40 5a bc de f0 12 34 56 78 9a bc de f0 12" + // NAA 6 of the unit
	"02 01 00 10  4c 49 4f 2d 4f 52 47 20 64 69 73 6b 31 00 00 00" + // T10, "LIO-ORG disk1"
	"51 94 00 04  00 00 00 02" + // relative target port 2
	"51 95 00 04  00 00 00 07" + // target port group 7
	"53 a8 00 0c  69 71 6e 2e 74 65 73 74 3a 61 00 00" // name of the target device

func TestParseDesignators(t *testing.T) {
	good := unhex(t, vpd83Golden)
	got, err := ParseDesignators(good)
	require.NoError(t, err)
	require.Len(t, got, 5)
	assert.Equal(t, Designator{CodeSet: CodeSetBinary, Type: DesignatorNAA, ID: unhex(t, "6001405abcdef0123456789abcdef012")}, got[0])
	assert.Equal(t, Designator{CodeSet: CodeSetASCII, Type: DesignatorT10, ID: []byte("LIO-ORG disk1\x00\x00\x00")}, got[1])
	assert.Equal(t, Designator{
		ProtocolID: 5, CodeSet: CodeSetBinary, PIV: true, Association: AssociationPort,
		Type: DesignatorRelativePort, ID: []byte{0, 0, 0, 2},
	}, got[2])
	assert.Equal(t, AssociationDevice, got[4].Association)

	var names []string
	for _, d := range got {
		names = append(names, d.String())
	}
	assert.Equal(t, []string{"naa.6001405abcdef0123456789abcdef012", "t10.LIO-ORG disk1", "port.2", "group.7", "iqn.test:a"}, names)

	group, port, ok := PortGroup(got)
	assert.True(t, ok)
	assert.Equal(t, [2]uint16{7, 2}, [2]uint16{group, port})
	_, _, ok = PortGroup(got[:3])
	assert.False(t, ok, "no group")
	assert.Len(t, UnitDesignators(got), 2)
	assert.Equal(t, good, AppendVPD83(nil, TypeDisk, got))

	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, err := ParseDesignators(b); return err })
	_, err = ParseDesignators(good[:20])
	requireNeed(t, err, len(good))
	clear(good)
	assert.Equal(t, "naa.6001405abcdef0123456789abcdef012", got[0].String(), "the identifiers are copies")
	_ = append(got[0].ID, 0xff)
	assert.Equal(t, "t10.LIO-ORG disk1", got[1].String(), "an identifier does not reach into the next")
}

func TestDesignatorListsThatAreNotWhole(t *testing.T) {
	for name, bytes := range map[string]string{
		"identifier passes the page": "00 83 00 06 01 03 00 08 60 01",
		"half a header":              "00 83 00 02 01 03",
		"second one passes":          "00 83 00 0b 01 02 00 04 01 02 03 04 01 03 00",
	} {
		_, err := ParseDesignators(unhex(t, bytes))
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
	for name, bytes := range map[string]string{
		"empty page":          "00 83 00 00",
		"filled with zeros":   "00 83 00 0b 00 00 00 00 00 00 00 00 00 00 00",
		"empty designator":    "00 83 00 04 01 03 00 00",
		"zeros behind a page": "00 83 00 00 00 00 00 00",
	} {
		got, err := ParseDesignators(unhex(t, bytes))
		require.NoError(t, err, name)
		assert.Empty(t, got, name)
	}
}

// unitDesignator is a designator of the unit, the identifier in hexadecimal for
// binary types and as it is for names.
func unitDesignator(typ DesignatorType, id string) Designator {
	if typ == DesignatorName || typ == DesignatorT10 {
		return Designator{CodeSet: CodeSetASCII, Type: typ, ID: []byte(id)}
	}
	b, err := hex.DecodeString(id)
	if err != nil {
		panic(err)
	}
	return Designator{CodeSet: CodeSetBinary, Type: typ, ID: b}
}

func TestDesignatorStrength(t *testing.T) {
	tests := []struct {
		name string
		d    Designator
		want Strength
	}{
		{"NAA 6 of Linux", unitDesignator(DesignatorNAA, "6001405abcdef0123456789abcdef012"), Strong},
		{"NAA 5", unitDesignator(DesignatorNAA, "5000c500a1b2c3d4"), Strong},
		{"NAA 2", unitDesignator(DesignatorNAA, "2001000c50a1b2c3"), Strong},
		{"NAA 6, only the last bits set", unitDesignator(DesignatorNAA, "60014050000000000000000000000001"), Strong},
		{"NAA 5, only the first bits of the rest set", unitDesignator(DesignatorNAA, "5000c50f00000000"), Strong},
		{"NAA 6 of tgt, company 0", unitDesignator(DesignatorNAA, "60000000000000000e00000000010001"), Weak},
		{"NAA 6 with nothing behind the company", unitDesignator(DesignatorNAA, "60014050000000000000000000000000"), Weak},
		{"NAA 6 all ones", unitDesignator(DesignatorNAA, "6fffffffffffffffffffffffffffffff"), Weak},
		{"NAA 6 too short", unitDesignator(DesignatorNAA, "6001405abcdef012"), Weak},
		{"NAA 5 too long", unitDesignator(DesignatorNAA, "5000c500a1b2c3d45000c500a1b2c3d4"), Weak},
		{"NAA 5 cut", unitDesignator(DesignatorNAA, "5000c5"), Weak},
		{"NAA 3, locally assigned", unitDesignator(DesignatorNAA, "3000000100010001"), Weak},
		{"NAA 1 of old", unitDesignator(DesignatorNAA, "100000c500a1b2c3"), Weak},
		{"NAA zeros", unitDesignator(DesignatorNAA, "0000000000000000"), None},
		{"EUI-64", unitDesignator(DesignatorEUI64, "0025385a91b2c3d4"), Strong},
		{"EUI-64 of 12", unitDesignator(DesignatorEUI64, "0025385a91b2c3d400000001"), Strong},
		{"EUI-64 of 16", unitDesignator(DesignatorEUI64, "00000000000000010025385a91b2c3d4"), Strong},
		{"EUI-64 of company 0", unitDesignator(DesignatorEUI64, "0000005a91b2c3d4"), Weak},
		{"EUI-64 with nothing behind the company", unitDesignator(DesignatorEUI64, "0025380000000000"), Weak},
		{"EUI-64 of a wrong length", unitDesignator(DesignatorEUI64, "0025385a91b2c3d4aa"), Weak},
		{"EUI-64 all ones", unitDesignator(DesignatorEUI64, "ffffffffffffffff"), None},
		{"UUID", unitDesignator(DesignatorUUID, "1000f81d4fae7dec11d0a76500a0c91e6bf6"), Strong},
		{"UUID of a wrong type", unitDesignator(DesignatorUUID, "2000f81d4fae7dec11d0a76500a0c91e6bf6"), Weak},
		{"UUID nil", unitDesignator(DesignatorUUID, "100000000000000000000000000000000000"), Weak},
		{"name of a unit", unitDesignator(DesignatorName, "iqn.2001-04.com.example:a,L,0x0001000000000000"), Strong},
		{"name of a target", unitDesignator(DesignatorName, "iqn.2001-04.com.example:a"), Weak},
		{"name naa", unitDesignator(DesignatorName, "naa.6001405ABCDEF0123456789ABCDEF012\x00\x00"), Strong},
		{"name naa of company 0", unitDesignator(DesignatorName, "naa.60000000000000000e00000000010001"), Weak},
		{"name eui", unitDesignator(DesignatorName, "eui.0025385A91B2C3D4"), Strong},
		{"name eui, not a number", unitDesignator(DesignatorName, "eui.unit"), Weak},
		{"name without a prefix", unitDesignator(DesignatorName, "unit"), Weak},
		{"T10 of tgt", unitDesignator(DesignatorT10, "IET     00010001"), Weak},
		{"T10 blank", unitDesignator(DesignatorT10, "        "), None},
		{"vendor specific", unitDesignator(DesignatorVendor, "0102"), Weak},
		{"MD5", unitDesignator(DesignatorMD5, "000102030405060708090a0b0c0d0e0f"), Weak},
		{"relative port", unitDesignator(DesignatorRelativePort, "00000001"), None},
		{"unit group", unitDesignator(DesignatorUnitGroup, "00000001"), None},
		{"NAA of the port", Designator{Association: AssociationPort, Type: DesignatorNAA, ID: []byte("\x50\x00\xc5\x00\xa1\xb2\xc3\xd4")}, None},
		{"no identifier", Designator{Type: DesignatorNAA}, None},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, Identity{Designators: []Designator{tt.d}}.Strength())
		})
	}
	assert.Equal(t, None, Identity{}.Strength())
	assert.Equal(t, Weak, Identity{Serial: "beaf11"}.Strength())
	assert.Equal(t, None, Identity{Serial: "00000000"}.Strength())
}

func TestDesignatorString(t *testing.T) {
	for want, d := range map[string]Designator{
		"uuid.f81d4fae-7dec-11d0-a765-00a0c91e6bf6": unitDesignator(DesignatorUUID, "1000f81d4fae7dec11d0a76500a0c91e6bf6"),
		"type10.1000":           unitDesignator(DesignatorUUID, "1000"),
		"eui.0025385a91b2c3d4":  unitDesignator(DesignatorEUI64, "0025385a91b2c3d4"),
		"md5.0102":              unitDesignator(DesignatorMD5, "0102"),
		"vendor.0102":           unitDesignator(DesignatorVendor, "0102"),
		"vendor.unit 7":         {CodeSet: CodeSetASCII, ID: []byte("unit 7  ")},
		"unitgroup.258":         unitDesignator(DesignatorUnitGroup, "00000102"),
		"type6.01":              unitDesignator(DesignatorUnitGroup, "01"),
		"type9.01020000":        unitDesignator(DesignatorProtocol, "01020000"),
		"t10.IET     0001?0001": unitDesignator(DesignatorT10, "IET     0001\n0001"),
	} {
		assert.Equal(t, want, d.String())
	}
}

func FuzzParseDesignators(f *testing.F) {
	f.Add(unhex(f, vpd83Golden))
	f.Add(unhex(f, "00 83 00 06 01 03 00 08 60 01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseDesignators(b)
		if err != nil {
			return
		}
		again, err := ParseDesignators(AppendVPD83(nil, TypeDisk, list))
		require.NoError(t, err)
		require.Equal(t, list, again)
		PortGroup(list)
		id := Identity{Designators: list}
		require.Equal(t, id.Strength() == None, id.Name() == "")
		match, _ := SameUnit(id, id)
		require.Equal(t, Unproven, match, "the capacity is not known")
		id.Capacity = Capacity{BlockSize: 512}
		match, _ = SameUnit(id, id)
		require.Equal(t, id.Strength() == Strong, match == Same)
	})
}
