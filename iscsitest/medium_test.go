package iscsitest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMemoryAgainstAPlainSlice runs random operations on both.
func TestMemoryAgainstAPlainSlice(t *testing.T) {
	const size = 4*chunkSize + 3*sectorSize
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	m, plain, mapped := NewMemory(size), make([]byte, size), make([]bool, size/sectorSize)
	for range 2000 {
		off := rng.IntN(size/sectorSize) * sectorSize
		n := min(1+rng.IntN(chunkSize/sectorSize*2), (size-off)/sectorSize) * sectorSize
		switch rng.IntN(4) {
		case 0:
			b := pattern(n, byte(rng.Uint32()))
			_, err := m.WriteAt(b, int64(off))
			require.NoError(t, err)
			copy(plain[off:], b)
			for s := off / sectorSize; s < (off+n)/sectorSize; s++ {
				mapped[s] = true
			}
		case 1:
			require.NoError(t, m.Unmap(int64(off), int64(n)))
			clear(plain[off : off+n])
			clear(mapped[off/sectorSize : (off+n)/sectorSize])
		case 2:
			b := pattern(n, 1)
			_, err := m.ReadAt(b, int64(off))
			require.NoError(t, err)
			require.True(t, bytes.Equal(plain[off:off+n], b))
		case 3:
			is, run := m.Mapped(int64(off), int64(n))
			want := 0
			for s := off / sectorSize; s < (off+n)/sectorSize && mapped[s] == mapped[off/sectorSize]; s++ {
				want += sectorSize
			}
			require.Equal(t, []any{mapped[off/sectorSize], int64(want)}, []any{is, run})
		}
	}
}

func TestMemoryBounds(t *testing.T) {
	m := NewMemory(1024)
	b := make([]byte, 512)
	for _, off := range []int64{-1, 513, 1024, 1 << 62} {
		_, err := m.ReadAt(b, off)
		assert.Error(t, err)
		_, err = m.WriteAt(b, off)
		assert.Error(t, err)
		assert.Error(t, m.Unmap(off, 512))
	}
	assert.Error(t, m.Resize(-1))
}

func TestMemoryForgetsWhatIsPastASmallerSize(t *testing.T) {
	m := NewMemory(4 * chunkSize)
	_, err := m.WriteAt(pattern(4*chunkSize, 1), 0)
	require.NoError(t, err)
	require.NoError(t, m.Resize(chunkSize+512))
	require.NoError(t, m.Resize(4*chunkSize))
	b := make([]byte, 4*chunkSize)
	_, err = m.ReadAt(b, 0)
	require.NoError(t, err)
	assert.Equal(t, pattern(4*chunkSize, 1)[:chunkSize+512], b[:chunkSize+512])
	assert.True(t, isZero(b[chunkSize+512:]))
}
