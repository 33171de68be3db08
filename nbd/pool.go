package nbd

import (
	"math/bits"

	"github.com/iscsimp/iscsimp/internal/invariants"
)

// Buffers come in size classes: a power of two from 4 KiB to 32 MiB for the
// data, and headroom in front of it for the reply header, so that a READ's
// reply leaves as one piece.
const (
	minClassShift = 12
	maxClassShift = 25 // 32 MiB = maxPayload
	classes       = maxClassShift - minClassShift + 1
	headroom      = simpleReplyLen
)

// poolRetain is how many bytes of unused buffers one pool keeps for reuse.
const poolRetain = 64 << 20

// buffer is one piece of pooled memory. The zero buffer holds none.
type buffer struct {
	b     []byte // headroom + the class's size
	class int8
}

// data is the part of the buffer behind the headroom, n bytes of it.
func (b buffer) data(n int) []byte {
	return b.b[headroom : headroom+n : headroom+n]
}

// classOf returns the size class that holds n bytes of data, and the memory
// it is accounted with.
func classOf(n int) (class int8, cost int) {
	shift := max(bits.Len(uint(max(n, 1)-1)), minClassShift)
	return int8(shift - minClassShift), 1 << shift
}

// pool keeps the buffers of one loop. It is used on that loop only and has no
// lock. Reuse is last in, first out: the buffer that is still in the cache.
type pool struct {
	free     [classes][][]byte
	retained int // bytes in free, headroom not counted
	out      int // buffers handed out and not yet back: tests look for leaks here
}

// get returns a buffer for n <= maxPayload bytes of data. What is in it is
// undefined.
func (p *pool) get(n int) buffer {
	class, cost := classOf(n)
	p.out++
	if free := p.free[class]; len(free) > 0 {
		b := free[len(free)-1]
		free[len(free)-1] = nil
		p.free[class] = free[:len(free)-1]
		p.retained -= cost
		return buffer{b, class}
	}
	return buffer{make([]byte, headroom+cost), class}
}

// put takes a buffer back. Nobody may hold a reference to it any more.
func (p *pool) put(b buffer) {
	if b.b == nil {
		return
	}
	p.out--
	invariants.Mangle(b.b)
	size := len(b.b) - headroom
	if p.retained+size > poolRetain {
		return
	}
	p.retained += size
	p.free[b.class] = append(p.free[b.class], b.b)
}

// trim gives all unused buffers to the garbage collector.
func (p *pool) trim() {
	p.free = [classes][][]byte{}
	p.retained = 0
}
