package session

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRangesModel compares the set with a plain one, over random additions.
func TestRangesModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for range 300 {
		var r ranges
		var model [64]bool
		for range 60 {
			lo := uint32(rng.IntN(64))
			hi := lo + 1 + uint32(rng.IntN(int(min(12, 64-lo))))
			free, all := true, true
			for i := lo; i < hi; i++ {
				free, all = free && !model[i], all && model[i]
			}
			require.Equal(t, all, r.covers(lo, hi))
			require.Equal(t, free, r.add(lo, hi))
			if free {
				for i := lo; i < hi; i++ {
					model[i] = true
				}
			}
			var total, prefix uint32
			for i, there := range model {
				if there {
					total++
					if int(prefix) == i {
						prefix++
					}
				}
			}
			require.Equal(t, total, r.total)
			require.Equal(t, prefix, r.prefix())
			for i := 1; i < len(r.spans); i++ {
				require.Less(t, r.spans[i-1].hi, r.spans[i].lo)
			}
		}
	}
}

// TestRangesAreBounded: a target that leaves a hole after each byte is stopped.
func TestRangesAreBounded(t *testing.T) {
	var r ranges
	n := uint32(0)
	for ; r.add(2*n, 2*n+1); n++ {
	}
	require.Equal(t, uint32(maxSpans), n)
	require.True(t, r.add(1, 2), "what closes a hole is welcome")
}
