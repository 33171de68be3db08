package serial

import (
	"math/rand/v2"
	"testing"
	"testing/quick"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const opposite = 1 << 31

func TestEdges(t *testing.T) {
	for _, tc := range []struct {
		a, b         uint32
		less, lessEq bool
		latest       uint32
		diff         int32
	}{
		{0, 0, false, true, 0, 0},
		{0, 1, true, true, 1, -1},
		{1, 0, false, false, 1, 1},
		{0xffffffff, 0, true, true, 0, -1},
		{0, 0xffffffff, false, false, 0, 1},
		{0xffffffff, 0xffffffff, false, true, 0xffffffff, 0},
		{0, 0x7fffffff, true, true, 0x7fffffff, -0x7fffffff},
		{0x7fffffff, 0, false, false, 0x7fffffff, 0x7fffffff},
		{0, 0x80000001, false, false, 0, 0x7fffffff},
		{0x80000001, 0, true, true, 0, -0x7fffffff},
		{0xfffffff0, 0x7fffffef, true, true, 0x7fffffef, -0x7fffffff},
		// Exactly opposite: the order is undefined, neither comes first.
		{0, 0x80000000, false, false, 0, -0x80000000},
		{0x80000000, 0, false, false, 0x80000000, -0x80000000},
		{5, 0x80000005, false, false, 5, -0x80000000},
	} {
		assert.Equal(t, tc.less, Less(tc.a, tc.b), "Less(%#x, %#x)", tc.a, tc.b)
		assert.Equal(t, tc.lessEq, LessEq(tc.a, tc.b), "LessEq(%#x, %#x)", tc.a, tc.b)
		assert.Equal(t, tc.latest, Max(tc.a, tc.b), "Max(%#x, %#x)", tc.a, tc.b)
		assert.Equal(t, tc.diff, Diff(tc.a, tc.b), "Diff(%#x, %#x)", tc.a, tc.b)
	}
}

// The definition in RFC 1982 §3.2, written out.
func TestLessMatchesTheDefinition(t *testing.T) {
	check(t, func(a, b uint32) bool {
		i, j := uint64(a), uint64(b)
		want := (i < j && j-i < opposite) || (i > j && i-j > opposite)
		return Less(a, b) == want
	})
}

func TestOrderIsConsistent(t *testing.T) {
	check(t, func(a, b uint32) bool {
		switch b - a {
		case 0:
			return !Less(a, b) && !Less(b, a) && LessEq(a, b) && Max(a, b) == a && Diff(a, b) == 0
		case opposite:
			return !Less(a, b) && !Less(b, a) && !LessEq(a, b) && !LessEq(b, a) && Max(a, b) == a && Max(b, a) == b
		default:
			return Less(a, b) != Less(b, a) && Less(a, b) == LessEq(a, b) &&
				Max(a, b) == Max(b, a) && LessEq(a, Max(a, b)) && LessEq(b, Max(a, b)) &&
				Less(a, b) == (Diff(a, b) < 0) && Diff(a, b) == -Diff(b, a)
		}
	})
}

func TestDiffUndoesAddition(t *testing.T) {
	check(t, func(base, n uint32) bool {
		return Diff(base+n, base) == int32(n) && base+uint32(Diff(n, base)) == n
	})
}

// Shifting both numbers changes nothing, across the wrap-around too.
func TestOrderIsInvariantUnderShifts(t *testing.T) {
	shift := rand.Uint32()
	t.Logf("shift %#x", shift)
	check(t, func(a, b uint32) bool {
		return Less(a, b) == Less(a+shift, b+shift) && LessEq(a, b) == LessEq(a+shift, b+shift) &&
			Max(a, b)+shift == Max(a+shift, b+shift) && Diff(a, b) == Diff(a+shift, b+shift)
	})
}

// check tries f on random pairs and on pairs close to each other and to the
// opposite point.
func check(t *testing.T, f func(a, b uint32) bool) {
	t.Helper()
	require.NoError(t, quick.Check(f, &quick.Config{MaxCount: 20000}))
	near := func(a uint32, delta int8) bool {
		d := uint32(int32(delta % 4))
		return f(a, a+d) && f(a, a+opposite+d)
	}
	require.NoError(t, quick.Check(near, &quick.Config{MaxCount: 20000}))
}
