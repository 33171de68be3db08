package main

import (
	"io"
	"math"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStoreKeepsToItsBounds(t *testing.T) {
	s := &ramStore{bytes: make([]byte, 4096)}
	require.NoError(t, s.Write([]byte("abcd"), 4092))
	got, err := s.Read(4090, 6)
	require.NoError(t, err)
	assert.Equal(t, "\x00\x00abcd", string(got))
	got[5] = 'x' // a copy
	require.NoError(t, s.Unmap([]api.UnmapBlockDescriptor{{Offset: 4092, TL: 2}}))
	got, err = s.Read(4092, 4)
	require.NoError(t, err)
	assert.Equal(t, "\x00\x00cd", string(got))

	for _, at := range [][2]int64{{4093, 4}, {-1, 4}, {0, -1}, {math.MaxInt64, 1}, {4096, 1}, {0, 4097}} {
		_, err := s.Read(at[0], at[1])
		assert.Error(t, err, at)
	}
	require.Error(t, s.Write([]byte("abcd"), 4093))
	require.Error(t, s.Unmap([]api.UnmapBlockDescriptor{{Offset: 0, TL: 512}, {Offset: 4096, TL: 512}}))
	got, err = s.Read(4094, 2)
	require.NoError(t, err)
	assert.Equal(t, "cd", string(got), "a refused request must change nothing")
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-portals", "127.0.0.2:3260,127.0.0.3:3260", "-block-shift", "12", "-size", "2", "-store", "file:/x"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, 3260, o.port)
	assert.Len(t, o.portals, 2)
	assert.EqualValues(t, 2<<20, o.sizeBytes)
	assert.Equal(t, "/x", o.storePath)
	_, err = parseOptions([]string{"-unknown"}, io.Discard)
	require.Error(t, err)
}
