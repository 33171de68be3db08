package scsi

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const capacity16Golden = "00 00 00 01 00 00 00 ff  00 00 02 00  05 03 c0 07" +
	"00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00"

var capacity16Want = Capacity{
	LastLBA: 0x1000000ff, BlockSize: 512, Protection: 3, PhysicalPerLogicalExp: 3,
	LBPME: true, LBPRZ: true, LowestAligned: 7,
}

func TestParseReadCapacity16(t *testing.T) {
	good := unhex(t, capacity16Golden)
	got, err := ParseReadCapacity16(good)
	require.NoError(t, err)
	assert.Equal(t, capacity16Want, got)
	assert.Equal(t, good, got.AppendTo16(nil))
	assert.Equal(t, uint64(0x100000100), got.Blocks())
	assert.Equal(t, uint64(0x100000100*512), got.Bytes())
	assert.Equal(t, uint64(4096), got.PhysicalBlockSize())
	assert.Equal(t, "4294967552 blocks of 512 bytes", got.String())
	requireFromPrefixes(t, good, 12, func(b []byte) error { _, err := ParseReadCapacity16(b); return err })

	plain, err := ParseReadCapacity16(good[:12])
	require.NoError(t, err)
	assert.Equal(t, Capacity{LastLBA: 0x1000000ff, BlockSize: 512}, plain)
	unprotected := unhex(t, capacity16Golden)
	unprotected[12] = 0x04 // a type without PROT_EN
	plain, err = ParseReadCapacity16(unprotected)
	require.NoError(t, err)
	assert.Zero(t, plain.Protection)
}

func TestParseReadCapacity10(t *testing.T) {
	good := unhex(t, "00 00 00 ff 00 00 10 00")
	got, err := ParseReadCapacity10(good)
	require.NoError(t, err)
	assert.Equal(t, Capacity{LastLBA: 255, BlockSize: 4096}, got)
	assert.False(t, got.NeedsReadCapacity16())
	assert.Equal(t, good, got.AppendTo10(nil))
	requireFromPrefixes(t, good, 8, func(b []byte) error { _, err := ParseReadCapacity10(b); return err })

	got, err = ParseReadCapacity10(unhex(t, "ff ff ff ff 00 00 02 00"))
	require.NoError(t, err)
	assert.True(t, got.NeedsReadCapacity16())
	assert.Equal(t, unhex(t, "ff ff ff ff 00 00 02 00"), capacity16Want.AppendTo10(nil), "too big for ten bytes")
}

func TestImpossibleCapacitiesAreRefused(t *testing.T) {
	for name, bytes := range map[string]string{
		"block size 0":        "00 00 00 00 00 00 00 ff 00 00 00 00",
		"last block 2^64-1":   "ff ff ff ff ff ff ff ff 00 00 02 00",
		"beyond 2^63 bytes":   "00 40 00 00 00 00 00 00 00 00 02 00",
		"product beyond 2^64": "0f ff ff ff ff ff ff ff ff ff ff ff",
	} {
		_, err := ParseReadCapacity16(unhex(t, bytes))
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
	_, err := ParseReadCapacity10(unhex(t, "00 00 00 ff 00 00 00 00"))
	require.ErrorIs(t, err, ErrMalformed)
	_, err = ParseReadCapacity16(unhex(t, "00 3f ff ff ff ff ff fe 00 00 02 00"))
	require.NoError(t, err, "one block below 2^63 bytes")
}

func TestCapacityArithmeticSaturates(t *testing.T) {
	assert.False(t, Capacity{}.Known())
	assert.Zero(t, Capacity{}.Blocks())
	assert.Zero(t, Capacity{LastLBA: 5}.Bytes())
	assert.Equal(t, "unknown capacity", Capacity{}.String())
	assert.Equal(t, uint64(math.MaxUint64), Capacity{LastLBA: math.MaxUint64, BlockSize: 1}.Blocks())
	assert.Equal(t, uint64(math.MaxUint64), Capacity{LastLBA: math.MaxUint64 - 1, BlockSize: 512}.Bytes())
}

func FuzzParseReadCapacity(f *testing.F) {
	f.Add(unhex(f, capacity16Golden))
	f.Add([]byte("\x00\x00\x00\xff\x00\x00\x02\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseReadCapacity16(b); err == nil {
			require.Positive(t, c.Bytes())
			require.LessOrEqual(t, c.Bytes(), uint64(math.MaxInt64))
			again, err := ParseReadCapacity16(c.AppendTo16(nil))
			require.NoError(t, err)
			require.Equal(t, c, again)
		}
		if c, err := ParseReadCapacity10(b); err == nil {
			require.Equal(t, b[:8], c.AppendTo10(nil))
		}
	})
}
