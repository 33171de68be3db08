package pdu

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type segment struct {
	typ  uint8
	body string
}

func collectAHS(ahs []byte) (got []segment, err error) {
	err = WalkAHS(ahs, func(typ uint8, body []byte) error {
		got = append(got, segment{typ, string(body)})
		return nil
	})
	return got, err
}

func TestAppendExtendedCDB(t *testing.T) {
	for _, tc := range []struct{ tail, want string }{
		{"", ""},
		{"11", "0002 01 00 11 000000"},
		{"1112", "0003 01 00 1112 0000"},
		{"111213", "0004 01 00 111213 00"},
		{"11121314", "0005 01 00 11121314"},
		{"1112131415", "0006 01 00 11121314 15000000"},
	} {
		got := AppendExtendedCDB([]byte{0xee}, unhex(t, tc.tail))
		assert.Equal(t, append([]byte{0xee}, unhex(t, tc.want)...), got, "tail %q", tc.tail)
	}
}

func TestExtendedCDBLengthLimit(t *testing.T) {
	longest := bytes.Repeat([]byte{7}, MaxAHSLen-4)
	ahs := AppendExtendedCDB(nil, longest)
	require.Len(t, ahs, MaxAHSLen)
	got, err := collectAHS(ahs)
	require.NoError(t, err)
	assert.Equal(t, []segment{{AHSExtendedCDB, string(longest)}}, got)
	assert.Panics(t, func() { AppendExtendedCDB(nil, append(longest, 7)) })
}

func TestWalkAHSBothSegments(t *testing.T) {
	ahs := AppendExtendedCDB(nil, []byte("spill"))
	ahs = AppendBidiReadLen(ahs, 0x01020304)
	assert.Equal(t, unhex(t, "0005 02 00 01020304"), ahs[len(ahs)-8:])
	got, err := collectAHS(ahs)
	require.NoError(t, err)
	assert.Equal(t, []segment{{AHSExtendedCDB, "spill"}, {AHSBidiReadLen, "\x01\x02\x03\x04"}}, got)
	assert.EqualValues(t, 0x01020304, BidiReadLen([]byte(got[1].body)))
}

func TestWalkAHS(t *testing.T) {
	for _, tc := range []struct {
		name, ahs string
		want      []segment
		err       string
	}{
		{name: "none"},
		{name: "reserved type, no body", ahs: "0000 03 ff", want: []segment{{3, ""}}},
		{name: "reserved type with body", ahs: "0002 3f aa bb 000000", want: []segment{{0x3f, "\xaa\xbb"}}},
		{name: "reserved bits of the type", ahs: "0002 c1 00 bb 000000", want: []segment{{1, "\xbb"}}},
		{name: "type 0", ahs: "0001 00 aa", want: []segment{{0, "\xaa"}}},
		{name: "cut prefix", ahs: "0000 03", err: "3 bytes left, need 4"},
		{name: "body beyond the end", ahs: "0005 02 00 010203", err: "takes 8 bytes, only 7 left"},
		{name: "padding beyond the end", ahs: "0003 01 00 0102", err: "takes 8 bytes, only 6 left"},
		{name: "longest length", ahs: "ffff 01 00", err: "takes 65540 bytes"},
		{name: "extended CDB without CDB", ahs: "0001 01 00", err: "at byte 0: extended CDB of length 1"},
		{name: "extended CDB of length 0", ahs: "0000 01 00", err: "extended CDB of length 0"},
		{name: "bidi too short", ahs: "0004 02 00 01020300", err: "read length of length 4"},
		{name: "bidi too long", ahs: "0006 02 00 01020304 05000000", err: "read length of length 6"},
		{
			name: "good, then bad", ahs: "0005 02 00 01020304 0009 01 00",
			want: []segment{{2, "\x01\x02\x03\x04"}}, err: "AHS at byte 8",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := collectAHS(unhex(t, tc.ahs))
			assert.Equal(t, tc.want, got)
			if tc.err == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, tc.err)
			}
		})
	}
}

func TestWalkAHSStopsAtTheCallersError(t *testing.T) {
	stop := errors.New("stop")
	calls := 0
	err := WalkAHS(AppendBidiReadLen(AppendBidiReadLen(nil, 1), 2), func(uint8, []byte) error {
		calls++
		return stop
	})
	assert.Same(t, stop, err)
	assert.Equal(t, 1, calls)
}

func FuzzWalkAHS(f *testing.F) {
	f.Add(AppendBidiReadLen(AppendExtendedCDB(nil, []byte("spill over")), 4096))
	f.Add([]byte(strings.Repeat("\x00\x01\x03\xaa", 3)))
	f.Fuzz(func(t *testing.T, ahs []byte) {
		total := 0
		err := WalkAHS(ahs, func(typ uint8, body []byte) error {
			require.Less(t, typ, uint8(64))
			require.Equal(t, len(body), cap(body), "an append must not write into ahs")
			reserved := 0
			switch typ {
			case AHSExtendedCDB:
				require.NotEmpty(t, body)
				reserved = 1
			case AHSBidiReadLen:
				require.Len(t, body, 4)
				reserved = 1
			}
			n := ahsPrefixLen + reserved + len(body)
			total += n + PadLen(n)
			return nil
		})
		if err == nil {
			require.Equal(t, len(ahs), total)
		} else {
			require.LessOrEqual(t, total, len(ahs))
		}
	})
}

func TestSplitSense(t *testing.T) {
	for _, tc := range []struct{ name, data, sense, rest, err string }{
		{name: "empty"},
		{name: "no sense", data: "0000"},
		{name: "sense only", data: "0003 700005", sense: "700005"},
		{name: "sense and more", data: "0002 7000 aabb", sense: "7000", rest: "aabb"},
		{name: "one byte", data: "00", err: "no room for SenseLength"},
		{name: "cut", data: "0003 7000", sense: "7000", err: "SenseLength 3, only 2 bytes follow"},
		{name: "longest length", data: "ffff 70", sense: "70", err: "SenseLength 65535"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sense, rest, err := SplitSense(unhex(t, tc.data))
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				assert.Equal(t, string(unhex(t, tc.sense)), string(sense), "what is there")
				assert.Empty(t, rest)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, string(unhex(t, tc.sense)), string(sense))
			assert.Equal(t, string(unhex(t, tc.rest)), string(rest))
		})
	}
}

func TestAppendSense(t *testing.T) {
	assert.Equal(t, unhex(t, "ee 0003 700005"), AppendSense([]byte{0xee}, []byte{0x70, 0, 5}))
	assert.Len(t, AppendSense(nil, make([]byte, 65535)), 2+65535)
	assert.Panics(t, func() { AppendSense(nil, make([]byte, 65536)) })
}

func FuzzSplitSense(f *testing.F) {
	f.Add(AppendSense(nil, []byte{0x70, 0, 5}))
	f.Fuzz(func(t *testing.T, data []byte) {
		sense, rest, err := SplitSense(data)
		if err != nil {
			return
		}
		require.Equal(t, len(sense), cap(sense))
		if len(data) > 0 {
			require.Equal(t, data, append(AppendSense(nil, sense), rest...))
		}
	})
}
