package pdu

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type pair struct{ key, value string }

func collectKeys(data []byte) (got []pair, err error) {
	err = WalkKeys(data, func(key, value []byte) error {
		got = append(got, pair{string(key), string(value)})
		return nil
	})
	return got, err
}

func TestKeysRoundTrip(t *testing.T) {
	want := []pair{
		{"InitiatorName", "iqn.2026-01.org.example:host"},
		{"TargetAddress", "[2001:db8::1]:3260,1"},
		{"TargetAddress", "192.0.2.1:3260,2"},
		{"InitiatorAlias", "héhé = ünïcode"},
		{"CHAP_A", "5"},
		{"Zz", "9"},
		{"TargetAlias", ""},
		{"X-com.example.Key+1@_", "a,b"},
		{"X#NodeArchitecture", "1"},
		{"K" + strings.Repeat("k", MaxKeyLen-1), strings.Repeat("v", MaxValueLen)},
	}
	var data []byte
	for _, p := range want {
		data = AppendKey(data, p.key, p.value)
	}
	assert.True(t, bytes.HasPrefix(data, []byte("InitiatorName=iqn.2026-01.org.example:host\x00TargetAddress=")))
	got, err := collectKeys(data)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestWalkKeys(t *testing.T) {
	long := "K" + strings.Repeat("k", MaxKeyLen)
	for _, tc := range []struct {
		name, data string
		want       []pair
		err        string
	}{
		{name: "empty"},
		{name: "padding only", data: "\x00\x00\x00"},
		{name: "padding counted as data", data: "A=1\x00\x00\x00", want: []pair{{"A", "1"}}},
		{name: "null bytes in the middle", data: "A=1\x00\x00B=2\x00", want: []pair{{"A", "1"}}, err: `byte 4: "" is not key=value`},
		{name: "no closing null byte", data: "A=1\x00Bcd=secret", want: []pair{{"A", "1"}}, err: `byte 4: "Bcd"… has no closing null byte`},
		{name: "no equal sign", data: "Abc\x00", err: `"Abc" is not key=value`},
		{name: "second equal sign belongs to the value", data: "A=b=c\x00", want: []pair{{"A", "b=c"}}},
		{name: "empty key", data: "=x\x00", err: "empty key"},
		{name: "longest key", data: long[1:] + "=x\x00", err: "does not start with a capital letter"},
		{name: "key too long", data: long + "=x\x00", err: "has 64 characters, at most 63"},
		{name: "key too long by far", data: "K" + strings.Repeat("k", 9000) + "\x00", err: "is not key=value"},
		{name: "small first letter", data: "abc=x\x00", err: "does not start with a capital letter"},
		{name: "character after Z first", data: "[bc=x\x00", err: "does not start with a capital letter"},
		{name: "digit first", data: "1bc=x\x00", err: "does not start with a capital letter"},
		{name: "space in key", data: "A b=x\x00", err: "offset 1"},
		{name: "# elsewhere", data: "A#b=x\x00", err: "offset 1"},
		{name: "# later", data: "Xa#b=x\x00", err: "offset 2"},
		{name: "control character", data: "Ab\n=x\x00", err: "offset 2"},
		{name: "high byte", data: "A\xc3=x\x00", err: "offset 1"},
		{name: "value too long", data: "A=" + strings.Repeat("v", MaxValueLen+1) + "\x00", err: "has 8193 bytes, at most 8192"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := collectKeys([]byte(tc.data))
			assert.Equal(t, tc.want, got)
			if tc.err == "" {
				assert.NoError(t, err)
				return
			}
			assert.ErrorContains(t, err, tc.err)
			assert.NotContains(t, err.Error(), "secret", "values stay out of errors")
			assert.Less(t, len(err.Error()), 300)
		})
	}
}

func TestWalkKeysStopsAtTheCallersError(t *testing.T) {
	stop := errors.New("stop")
	calls := 0
	err := WalkKeys([]byte("A=1\x00B=2\x00"), func(_, _ []byte) error {
		calls++
		return stop
	})
	assert.Same(t, stop, err)
	assert.Equal(t, 1, calls)
}

func TestAppendKeyRefusesWhatWouldNotParse(t *testing.T) {
	for _, p := range []pair{
		{"", "x"},
		{"lower", "x"},
		{"A=B", "x"},
		{"A\x00B", "x"},
		{strings.Repeat("K", MaxKeyLen+1), "x"},
		{"A", "1\x00InitiatorName=evil"},
		{"A", strings.Repeat("v", MaxValueLen+1)},
	} {
		assert.Error(t, CheckKey(p.key, p.value), "%.20q", p.key)
		assert.Panics(t, func() { AppendKey(nil, p.key, p.value) }, "%.20q", p.key)
	}
	assert.NoError(t, CheckKey("TargetName", "iqn.2026-01.org.example:disk"))
}

func TestKeysDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1024)
	var total int
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		buf = AppendKey(buf[:0], "MaxBurstLength", "262144")
		buf = AppendKey(buf, "ImmediateData", "Yes")
		_ = WalkKeys(buf, func(key, value []byte) error {
			total += len(key) + len(value)
			return nil
		})
	}))
}

func FuzzWalkKeys(f *testing.F) {
	data := AppendKey(nil, "TargetName", "iqn.2026-01.org.example:disk")
	f.Add(AppendKey(data, "X#NodeArchitecture", ""))
	f.Add([]byte("A=1\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var again []byte
		err := WalkKeys(data, func(key, value []byte) error {
			require.NoError(t, CheckKey(string(key), string(value)))
			require.Equal(t, len(value), cap(value), "an append must not write into data")
			again = AppendKey(again, string(key), string(value))
			return nil
		})
		require.True(t, bytes.HasPrefix(data, again), "pairs in order, nothing skipped")
		if err == nil {
			require.Empty(t, bytes.TrimRight(data[len(again):], "\x00"))
		}
	})
}

func BenchmarkWalkKeys(b *testing.B) {
	var data []byte
	for _, p := range []pair{
		{"HeaderDigest", "CRC32C,None"},
		{"DataDigest", "CRC32C,None"},
		{"InitialR2T", "No"},
		{"MaxRecvDataSegmentLength", "262144"},
		{"MaxBurstLength", "1048576"},
		{"ErrorRecoveryLevel", "0"},
	} {
		data = AppendKey(data, p.key, p.value)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := WalkKeys(data, func(_, _ []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
