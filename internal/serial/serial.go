// Package serial compares 32-bit sequence numbers that wrap around, as RFC 1982
// defines it and RFC 7143 §4.2.2.1 uses it for CmdSN, StatSN and DataSN. What does
// not belong here: windows and any other state.
package serial

// half is the distance at which RFC 1982 leaves the order of two numbers open.
const half = 1 << 31

// Less reports whether a comes before b. For numbers exactly 2^31 apart, whose
// order is undefined, it is false both ways, so that nothing moves by mistake.
func Less(a, b uint32) bool { return b-a != 0 && b-a < half }

// LessEq reports whether a comes before b or equals it. It is false both ways for
// numbers exactly 2^31 apart.
func LessEq(a, b uint32) bool { return b-a < half }

// Max returns the later one of a and b, and a when their order is undefined.
func Max(a, b uint32) uint32 {
	if Less(a, b) {
		return b
	}
	return a
}

// Diff returns how far a is after b, negative when it is before: Diff(b+n, b) == n
// for n in [-2^31, 2^31). For numbers exactly 2^31 apart it is -2^31.
func Diff(a, b uint32) int32 { return int32(a - b) }
