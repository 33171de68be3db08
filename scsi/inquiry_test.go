package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const inquiryGolden = "00 00 06 12 1f 38 00 02" +
	"4c 49 4f 2d 4f 52 47 20" + // LIO-ORG
	"64 69 73 6b 31 20 20 20 20 20 20 20 20 20 20 20" + // disk1
	"34 2e 30 20" // 4.0

var inquiryWant = InquiryData{
	Version: 6, TPGS: 3, ThirdParty: true, CmdQue: true,
	Vendor: "LIO-ORG", Product: "disk1", Revision: "4.0",
}

func TestParseInquiry(t *testing.T) {
	good := unhex(t, inquiryGolden)
	got, err := ParseInquiry(good)
	require.NoError(t, err)
	assert.Equal(t, inquiryWant, got)
	assert.Equal(t, good, got.AppendTo(nil))
	requireFromPrefixes(t, good, 8, func(b []byte) error { _, err := ParseInquiry(b); return err })

	got, err = ParseInquiry(good[:20])
	require.NoError(t, err)
	assert.Equal(t, "LIO-ORG", got.Vendor)
	assert.Equal(t, "disk", got.Product)
	assert.Empty(t, got.Revision)

	got, err = ParseInquiry(unhex(t, "7f 80 05 02 1f 01 00 00"))
	require.NoError(t, err)
	assert.Equal(t, InquiryData{
		PeripheralQualifier: QualifierNotPossible, DeviceType: TypeUnknown,
		Removable: true, Version: 5, Protect: true,
	}, got)
	again, err := ParseInquiry(got.AppendTo(nil))
	require.NoError(t, err)
	assert.Equal(t, got, again)
}

func TestStringsOfATargetAreHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"  \x00 ":                "",
		" a b ":                  "a b",
		"IET\x00\x00":            "IET",
		"\x1b[31mred":            "?[31mred",
		"line\nbreak":            "line?break",
		"caf\xc3\xa9":            "caf??",
		"in\x00side":             "in?side",
		"\x7f":                   "?",
		"\x00   00010001   \x00": "00010001",
	} {
		assert.Equal(t, want, cleanString([]byte(in)), "%q", in)
	}
	q := InquiryData{Vendor: "a vendor too long", Product: "p", Revision: "12345"}
	got, err := ParseInquiry(q.AppendTo(nil))
	require.NoError(t, err)
	assert.Equal(t, InquiryData{Vendor: "a vendor", Product: "p", Revision: "1234"}, got)
}

func FuzzParseInquiry(f *testing.F) {
	f.Add(unhex(f, inquiryGolden))
	f.Add(inquiryWant.AppendTo(nil)[:9])
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseInquiry(b)
		if err != nil {
			require.Less(t, len(b), 8)
			return
		}
		again, err := ParseInquiry(q.AppendTo(nil))
		require.NoError(t, err)
		require.Equal(t, q, again)
	})
}
