package session

import "slices"

// ranges is a set of bytes of a transfer whose parts may come in any order
// (DataPDUInOrder=No, DataSequenceInOrder=No; RFC 7143 §13.18-19). Where they must
// come in order, a number is enough and there is none.
type ranges struct {
	spans []span // in order, with gaps between them
	total uint32 // bytes in them
}

// span is the bytes from lo on, before hi.
type span struct{ lo, hi uint32 }

// maxSpans bounds what a target can make us remember of one task: parts that
// follow one another become one.
const maxSpans = 8192

// add takes in the bytes lo to hi, of which none may be there yet.
func (r *ranges) add(lo, hi uint32) bool {
	i := r.after(lo)
	if i > 0 && r.spans[i-1].hi > lo || i < len(r.spans) && r.spans[i].lo < hi {
		return false
	}
	below := i > 0 && r.spans[i-1].hi == lo
	above := i < len(r.spans) && r.spans[i].lo == hi
	switch {
	case below && above:
		r.spans[i-1].hi = r.spans[i].hi
		r.spans = slices.Delete(r.spans, i, i+1)
	case below:
		r.spans[i-1].hi = hi
	case above:
		r.spans[i].lo = lo
	case len(r.spans) == maxSpans:
		return false
	default:
		r.spans = slices.Insert(r.spans, i, span{lo, hi})
	}
	r.total += hi - lo
	return true
}

// after gives the index of the first span that begins behind lo.
func (r *ranges) after(lo uint32) int {
	i, _ := slices.BinarySearchFunc(r.spans, lo, func(s span, lo uint32) int {
		if s.lo <= lo {
			return -1
		}
		return 1
	})
	return i
}

// covers reports whether all of lo to hi is there.
func (r *ranges) covers(lo, hi uint32) bool {
	i := r.after(lo)
	return i > 0 && r.spans[i-1].hi >= hi
}

// prefix is how many bytes are there from the start on without a hole.
func (r *ranges) prefix() uint32 {
	if len(r.spans) == 0 || r.spans[0].lo > 0 {
		return 0
	}
	return r.spans[0].hi
}
