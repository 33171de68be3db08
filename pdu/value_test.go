package pdu

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseBool(t *testing.T) {
	yes, err := ParseBool("Yes")
	require.NoError(t, err)
	assert.True(t, yes)
	no, err := ParseBool([]byte("No"))
	require.NoError(t, err)
	assert.False(t, no)
	for _, bad := range []string{"", "yes", "YES", "no", "true", "1", "Yes "} {
		_, err := ParseBool(bad)
		assert.ErrorContains(t, err, "want Yes or No", bad)
	}
}

func TestParseNumber(t *testing.T) {
	for value, want := range map[string]uint64{
		"0":                      0,
		"7":                      7,
		"262144":                 262144,
		"18446744073709551615":   math.MaxUint64,
		"0x0":                    0,
		"0X1f":                   31,
		"0xFFffFFffFFffFFff":     math.MaxUint64,
		"0x00000000000000000010": 16,
	} {
		got, err := ParseNumber(value)
		require.NoError(t, err, value)
		assert.Equal(t, want, got, value)
		got, err = ParseNumber([]byte(value))
		require.NoError(t, err, value)
		assert.Equal(t, want, got, value)
	}
	for value, want := range map[string]string{
		"":                     "it is empty",
		"007":                  "no leading zeros",
		"00":                   "no leading zeros",
		"-1":                   "only decimal digits",
		"+1":                   "only decimal digits",
		" 1":                   "only decimal digits",
		"1 ":                   "only decimal digits",
		"1_000":                "only decimal digits",
		"1e3":                  "only decimal digits",
		"ff":                   "only decimal digits",
		"0x":                   "no digits after 0x",
		"0xg":                  "only hexadecimal digits",
		"0b11":                 "no leading zeros",
		"18446744073709551616": "64 bits",
		"99999999999999999999": "64 bits",
		"0x10000000000000000":  "64 bits",
	} {
		_, err := ParseNumber(value)
		assert.ErrorContains(t, err, want, "%q", value)
		assert.ErrorContains(t, err, fmt.Sprintf("%q", value))
	}
	_, err := ParseNumber(strings.Repeat("z", 9000))
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 200, "long values are cut in errors")
}

func TestParseRange(t *testing.T) {
	for value, want := range map[string][2]uint64{
		"0~0":                    {0, 0},
		"512~16777215":           {512, 16777215},
		"0x10~17":                {16, 17},
		"1~18446744073709551615": {1, math.MaxUint64},
	} {
		lo, hi, err := ParseRange(value)
		require.NoError(t, err, value)
		assert.Equal(t, want, [2]uint64{lo, hi}, value)
	}
	for value, want := range map[string]string{
		"5":     "two numbers",
		"":      "two numbers",
		"2~1":   "lower than the first",
		"~1":    "it is empty",
		"1~":    "it is empty",
		"1~2~3": "only decimal digits",
		"1 ~2":  "only decimal digits",
	} {
		_, _, err := ParseRange([]byte(value))
		assert.ErrorContains(t, err, want, "%q", value)
	}
}

func TestParseBinary(t *testing.T) {
	for value, want := range map[string]string{
		"0x0":        "00",
		"0xa":        "0a",
		"0XaB":       "ab",
		"0xabc":      "0abc",
		"0x00ff":     "00ff",
		"0b//8=":     "ffff",
		"0BAA==":     "00",
		"0bAQIDBAUG": "010203040506",
	} {
		got, err := ParseBinary(value, 16)
		require.NoError(t, err, value)
		assert.Equal(t, want, hex.EncodeToString(got), value)
	}
	for value, want := range map[string]string{
		"":                              "neither 0x nor 0b",
		"12":                            "neither 0x nor 0b",
		"x12":                           "neither 0x nor 0b",
		"0x":                            "no digits after 0x",
		"0b":                            "no digits after 0b",
		"0x1g":                          "offset 3",
		"0x12 ":                         "offset 4",
		"0bAA=\n=":                      "line end at offset 5",
		"0bAA\r\nAA":                    "line end",
		"0bAQIDBA":                      "not padded base64",
		"0bA":                           "not padded base64",
		"0b====":                        "not padded base64",
		"0b" + strings.Repeat("=", 400): "not padded base64",
		"0bAB==":                        "illegal base64", // bits beyond the last byte are not 0
		"0bA-_A":                        "illegal base64",
		"0bAA==AAAA":                    "illegal base64",
	} {
		_, err := ParseBinary([]byte(value), 16)
		assert.ErrorContains(t, err, want, "%q", value)
	}
}

func TestParseBinaryLimit(t *testing.T) {
	for n := range 40 {
		want := strings.Repeat("\x5a", n+1)
		for _, value := range []string{
			"0x" + hex.EncodeToString([]byte(want)),
			"0b" + base64.StdEncoding.EncodeToString([]byte(want)),
		} {
			got, err := ParseBinary(value, n+1)
			require.NoError(t, err, value)
			require.Equal(t, want, string(got))
			_, err = ParseBinary(value, n)
			require.ErrorContains(t, err, fmt.Sprintf("of %d bytes, at most %d allowed", n+1, n))
		}
	}
	_, err := ParseBinary("0xabc", 1)
	assert.ErrorContains(t, err, "of 2 bytes", "half a byte counts")
}

func TestParseBinaryKeepsValuesOutOfErrors(t *testing.T) {
	for _, value := range []string{"0xdeadbeefzz", "0bdeadbee", "0bdeadbe!f", "deadbeef", "0xdeadbeefdeadbeef"} {
		_, err := ParseBinary(value, 4)
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "deadbe")
	}
}

func FuzzParseNumber(f *testing.F) {
	for _, s := range []string{"0", "262144", "0x1F", "18446744073709551616", "0x10000000000000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseNumber(s)
		fromBytes, errBytes := ParseNumber([]byte(s))
		require.Equal(t, got, fromBytes)
		require.Equal(t, err == nil, errBytes == nil)
		if err != nil {
			return
		}
		digits, base := s, 10
		if len(s) > 2 && (s[1] == 'x' || s[1] == 'X') {
			digits, base = s[2:], 16
		}
		want, ok := new(big.Int).SetString(digits, base)
		require.True(t, ok, "%q", s)
		require.True(t, want.IsUint64())
		require.Equal(t, want.Uint64(), got)
	})
}

func FuzzParseRange(f *testing.F) {
	f.Add("512~16777215")
	f.Add("0x1~2")
	f.Fuzz(func(t *testing.T, s string) {
		lo, hi, err := ParseRange(s)
		if err == nil {
			require.LessOrEqual(t, lo, hi)
			require.Equal(t, 1, strings.Count(s, "~"))
		}
	})
}

func FuzzParseBinary(f *testing.F) {
	f.Add("0xabc", 2)
	f.Add("0bAQIDBA==", 100)
	f.Add("0b", 0)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		got, err := ParseBinary(s, limit)
		if err != nil {
			require.Nil(t, got)
			return
		}
		require.NotEmpty(t, got)
		require.LessOrEqual(t, len(got), limit)
		if s[1]|0x20 == 'b' {
			require.Equal(t, s[2:], base64.StdEncoding.EncodeToString(got))
			return
		}
		digits := strings.ToLower(s[2:])
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		require.Equal(t, digits, hex.EncodeToString(got))
	})
}
