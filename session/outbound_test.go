package session

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOutboundQueue compares the send queue with a plain queue of bytes, over
// random sequences of headers, data, offers and partial writes. What a driver was
// offered must not change until it was told of as written.
func TestOutboundQueue(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range uint64(15) {
		m := &queueModel{t: t, rng: rand.New(rand.NewPCG(seed, i))}
		m.iov = make([][]byte, 0, 1+m.rng.IntN(64))
		for range 200 {
			m.queue()
			if m.rng.IntN(3) == 0 {
				m.write()
			}
		}
		for m.o.pending() > 0 {
			m.write()
		}
		require.Empty(t, m.want)
		require.Equal(t, m.o.queued, m.o.sent)
		if c := m.o.chunk; c != nil {
			require.Zero(t, c.busy)
		}
		for _, c := range m.o.spare {
			require.Zero(t, c.busy)
			require.NotSame(t, m.o.chunk, c)
		}
		require.LessOrEqual(t, len(m.o.spare), m.peak/chunkSize+2, "chunks are used again")
	}
}

// queueModel is an outbound with the bytes it should hold.
type queueModel struct {
	t    *testing.T
	rng  *rand.Rand
	o    outbound
	want []byte
	iov  [][]byte
	held []held // what the driver was offered and not told of yet
	next byte
	peak int // most bytes waiting, headers with the room they reserve
}

type held struct {
	b, copy []byte
}

func (m *queueModel) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		m.next++
		b[i] = m.next
	}
	return b
}

func (m *queueModel) queue() {
	switch m.rng.IntN(6) {
	case 0, 1, 2: // a header, perhaps with a digest
		b := m.bytes(48 + 4*m.rng.IntN(2))
		start := m.o.room(headerRoom)
		m.o.chunk.buf = append(m.o.chunk.buf, b...)
		m.o.commit(start)
		m.want = append(m.want, b...)
	case 3: // padding and digest, or nothing
		b := m.bytes(m.rng.IntN(8))
		start := m.o.room(8)
		m.o.chunk.buf = append(m.o.chunk.buf, b...)
		m.o.commit(start)
		m.want = append(m.want, b...)
	case 4:
		b := m.bytes(m.rng.IntN(5000))
		end := m.o.data(b)
		m.want = append(m.want, b...)
		require.Equal(m.t, m.o.queued, end)
	default: // many at once, so that chunks run full
		for range m.rng.IntN(900) {
			b := m.bytes(48)
			start := m.o.room(headerRoom)
			m.o.chunk.buf = append(m.o.chunk.buf, b...)
			m.o.commit(start)
			m.want = append(m.want, b...)
		}
	}
	m.peak = max(m.peak, m.o.pending())
	require.Equal(m.t, len(m.want), m.o.pending())
	m.unchanged()
}

// write is one offer and one write of a part of it, with more queued in between
// as a slow writer has it.
func (m *queueModel) write() {
	total := 0
	for _, b := range m.o.buffers(m.iov[:0]) {
		if len(b) == 0 || !bytes.Equal(m.want[total:total+len(b)], b) {
			m.t.Fatal("the offer differs from what was queued")
		}
		m.held = append(m.held, held{b, bytes.Clone(b)})
		total += len(b)
	}
	if total == 0 {
		require.Empty(m.t, m.want)
		return
	}
	for range m.rng.IntN(3) {
		m.queue()
	}
	n := 1 + m.rng.IntN(total)
	if m.rng.IntN(2) == 0 {
		n = total
	}
	m.held = m.held[:0]
	m.o.advance(n)
	m.want = m.want[n:]
}

func (m *queueModel) unchanged() {
	for _, h := range m.held {
		if !bytes.Equal(h.copy, h.b) {
			m.t.Fatal("bytes changed under the driver")
		}
	}
}
