package nbdload

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLedger spells out which versions of one block a read may return.
func TestLedger(t *testing.T) {
	l := newLedger(1)
	require.NoError(t, l.checkRead(0, l.beginRead(0), 0), "untouched")
	require.Error(t, l.checkRead(0, l.beginRead(0), 1), "never written")

	one := l.beginWrite(0)
	during := l.beginRead(0)
	for version := range uint64(2) {
		require.NoError(t, l.checkRead(0, during, version), "a read during a write sees old or new")
	}
	l.acknowledge(0, one)
	require.NoError(t, l.checkRead(0, during, 0), "a read that began before the acknowledgement")
	require.Error(t, l.checkRead(0, l.beginRead(0), 0), "stale after the acknowledgement")

	// Two concurrent writes: whichever was acknowledged last, either may have landed last.
	two, three := l.beginWrite(0), l.beginWrite(0)
	l.acknowledge(0, three)
	l.acknowledge(0, two)
	after := l.beginRead(0)
	require.NoError(t, l.checkRead(0, after, two))
	require.NoError(t, l.checkRead(0, after, three))
	require.Error(t, l.checkRead(0, after, one))

	// A write that failed may land at any time until never.
	failed := l.beginWrite(0)
	next := l.beginWrite(0)
	l.acknowledge(0, next)
	after = l.beginRead(0)
	require.NoError(t, l.checkRead(0, after, failed))
	require.NoError(t, l.checkRead(0, after, next))
	require.Error(t, l.checkRead(0, after, two))

	before := l.beginRead(0)
	late := l.beginWrite(0)
	require.NoError(t, l.checkRead(0, before, late), "a write that began during the read")
	assert.True(t, l.overlapped(0, before))
	require.Panics(t, func() { l.acknowledge(0, one) })
}

func TestStampIsTiedToItsPlace(t *testing.T) {
	block := make([]byte, BlockSize)
	version, err := readStamp(block, 1, 2)
	require.NoError(t, err)
	assert.Zero(t, version)
	stamp{run: 1, block: 2, version: 3}.put(block)
	version, err = readStamp(block, 1, 2)
	require.NoError(t, err)
	assert.Equal(t, uint64(3), version)
	_, err = readStamp(block, 1, 3)
	require.ErrorContains(t, err, "holds block 2")
	_, err = readStamp(block, 2, 2)
	require.ErrorContains(t, err, "another run")
	for _, i := range []int{8, 31, 32, fillerStart, BlockSize - 1} {
		block[i] ^= 0x80
		_, err = readStamp(block, 1, 2)
		require.ErrorIs(t, err, errTorn, "byte %d", i)
		block[i] ^= 0x80
	}
	other := make([]byte, BlockSize)
	stamp{run: 1, block: 2, version: 4}.put(other)
	for sector := 0; sector < BlockSize; sector += 512 {
		assert.NotEqual(t, block[sector:sector+512], other[sector:sector+512], "versions share the sector at %d", sector)
	}
}
