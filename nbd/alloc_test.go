package nbd

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cycle feeds a batch of requests and lets the answers leave, as a driver
// does, without the bookkeeping of a test. It is reused without allocation.
type cycle struct {
	*rig
	wire []byte
}

func (c *cycle) run() {
	rest := c.wire
	for len(rest) > 0 {
		direct, scratch := c.conn.ReadBuffers()
		n := copy(direct, rest)
		n += copy(scratch, rest[n:])
		rest = rest[n:]
		if n > 0 && c.conn.DidRead(n) != nil {
			panic("violation")
		}
		c.drain(n == 0)
	}
	c.drain(true)
}

func (c *cycle) drain(complete bool) {
	for complete && len(c.dev.queue) > 0 {
		c.dev.completeAt(len(c.dev.queue) - 1)
	}
	for {
		n := 0
		for _, b := range c.conn.WriteBuffers(c.iov[:0]) {
			n += len(b)
		}
		if n == 0 {
			return
		}
		c.conn.DidWrite(n)
	}
}

func newCycle(t testing.TB, cmd uint16, size, depth int, hold bool) *cycle {
	r := newRig(t, 64*mib, func(_ *Config, d *memDevice) { d.hold = hold })
	r.iov = make([][]byte, 0, 64)
	c := &cycle{rig: r}
	for i := range depth {
		b := req(cmd, 0, uint64(i), uint64(i*size), uint32(size))
		if cmd == cmdWrite {
			b = append(b, make([]byte, size)...)
		}
		c.wire = append(c.wire, b...)
	}
	return c
}

func TestNoAllocationPerRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		cmd  uint16
	}{{"read", cmdRead}, {"write", cmdWrite}} {
		for _, hold := range []bool{false, true} {
			for _, size := range []int{4096, 64 << 10} {
				t.Run(fmt.Sprintf("%s %d hold=%v", tt.name, size, hold), func(t *testing.T) {
					c := newCycle(t, tt.cmd, size, 16, hold)
					c.run() // fills the pools
					assert.Zero(t, testing.AllocsPerRun(50, c.run))
					c.end()
				})
			}
		}
	}
}

// With more requests than the limits allow, going on from what was held back
// must not allocate either.
func TestNoAllocationUnderBackPressure(t *testing.T) {
	c := newCycle(t, cmdWrite, 4096, 200, true)
	c.conn.maxRequests = 16
	c.run()
	assert.Zero(t, testing.AllocsPerRun(50, c.run))
	assert.Positive(t, c.stream.resumes)
	c.end()
}

func TestErrorsDoNotAllocateEither(t *testing.T) {
	c := newCycle(t, 99, 0, 32, false)
	c.run()
	assert.Zero(t, testing.AllocsPerRun(50, c.run))
	c.end()
}

func TestPoolIsBounded(t *testing.T) {
	var p pool
	var all []buffer
	for range 2*poolRetain/mib + 1 {
		all = append(all, p.get(mib))
	}
	for _, b := range all {
		p.put(b)
	}
	assert.Equal(t, poolRetain, p.retained)
	assert.Zero(t, p.out)
	p.trim()
	assert.Zero(t, p.retained)
	p.put(buffer{}) // holds nothing
	assert.Zero(t, p.out)
}

func TestPoolClasses(t *testing.T) {
	var p pool
	for _, n := range []int{0, 1, 4096, 4097, 8192, 100_000, maxPayload} {
		b := p.get(n)
		require.Len(t, b.data(n), n)
		require.Equal(t, n, cap(b.data(n)))
		_, cost := classOf(n)
		require.GreaterOrEqual(t, cost, n)
		require.Less(t, cost, max(2*n, 1<<minClassShift+1))
		p.put(b)
		again := p.get(n)
		require.Same(t, &b.b[0], &again.b[0], "the same memory is used again")
		p.put(again)
	}
}

func BenchmarkConn(b *testing.B) {
	for _, bb := range []struct {
		name  string
		cmd   uint16
		size  int
		depth int
	}{
		{"read-4k", cmdRead, 4096, 32},
		{"write-4k", cmdWrite, 4096, 32},
		{"read-128k", cmdRead, 128 << 10, 8},
		{"write-128k", cmdWrite, 128 << 10, 8},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c := newCycle(b, bb.cmd, bb.size, bb.depth, false)
			b.SetBytes(int64(bb.size * bb.depth))
			b.ReportAllocs()
			for b.Loop() {
				c.run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*bb.depth), "ns/request")
		})
	}
}
