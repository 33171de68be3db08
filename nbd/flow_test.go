package nbd

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRepliesLeaveInTheOrderOfCompletion(t *testing.T) {
	r := newRig(t, mib, func(_ *Config, d *memDevice) { d.hold = true })
	copy(r.dev.data, pattern(mib, 0))
	reads := map[uint64]int{}
	for i := range uint64(8) {
		reads[i] = 512
		r.feed(req(cmdRead, 0, i, i*512, 512))
	}
	order := []int{5, 0, 5, 1, 0, 2, 1, 0} // indices into the shrinking queue
	for _, i := range order {
		r.dev.completeAt(i)
	}
	var cookies []uint64
	for _, a := range r.answers(reads) {
		cookies = append(cookies, a.cookie)
		assert.Equal(t, string(r.dev.data[a.cookie*512:a.cookie*512+512]), a.data)
	}
	assert.Equal(t, []uint64{5, 0, 7, 2, 1, 6, 4, 3}, cookies)
	r.end()
}

func TestRepliesShareOneWrite(t *testing.T) {
	r := newRig(t, mib, func(_ *Config, d *memDevice) { d.hold = true })
	for i := range uint64(20) {
		r.feed(write(0, i, i*512, make([]byte, 512)))
	}
	r.feed(req(cmdRead, 0, 100, 0, 512))
	r.feed(req(cmdRead, 0, 101, 0, 512))
	for len(r.dev.queue) > 0 {
		r.dev.completeAt(0)
	}
	iov := r.conn.WriteBuffers(make([][]byte, 0, 16))
	require.Len(t, iov, 3, "20 headers in one piece, then each READ in one")
	assert.Len(t, iov[0], 20*simpleReplyLen)
	assert.Len(t, iov[1], simpleReplyLen+512)
	assert.Len(t, r.conn.WriteBuffers(make([][]byte, 0, 2)), 2, "no more slices than there is room for")
	assert.Len(t, r.answers(map[uint64]int{100: 512, 101: 512}), 22)
	r.end()
}

// Whatever portion of the output leaves at a time, the client sees the same.
func TestPartialWrites(t *testing.T) {
	for _, portion := range []int{1, 7, 15, 16, 17, 33, 500, 5000} {
		t.Run(fmt.Sprint(portion), func(t *testing.T) {
			r := newRig(t, mib, func(_ *Config, d *memDevice) { d.hold = true })
			copy(r.dev.data, pattern(mib, 0))
			reads := map[uint64]int{}
			for i := range uint64(200) {
				if i%3 == 0 {
					reads[i] = 512
					r.feed(req(cmdRead, 0, i, i*512, 512))
				} else {
					r.feed(req(cmdFlush, 0, i, 0, 0))
				}
			}
			for len(r.dev.queue) > 0 {
				r.dev.completeAt(0)
				r.send(portion) // the ring grows and wraps while a reply is half gone
			}
			for r.send(portion) > 0 {
			}
			for i, a := range r.answers(reads) {
				require.EqualValues(t, i, a.cookie)
				require.Zero(t, a.errno)
				if n := reads[a.cookie]; n > 0 {
					require.Equal(t, string(r.dev.data[i*512:i*512+n]), a.data)
				}
			}
			r.end()
		})
	}
}

func TestRequestLimitStopsReading(t *testing.T) {
	const limit, total = 4, 100
	r := newRig(t, mib, func(cfg *Config, d *memDevice) {
		cfg.MaxInflightRequests = limit
		d.hold = true
	})
	var wire []byte
	for i := range uint64(total) {
		wire = append(wire, write(0, i, i*512, pattern(512, byte(i)))...)
	}
	var got []answer
	stops := 0
	for len(got) < total {
		var err error
		wire, err = r.offer(wire, 1000)
		require.NoError(t, err)
		require.LessOrEqual(t, len(r.dev.queue), limit)
		if len(wire) > 0 {
			stops++
			require.Len(t, r.dev.queue, limit, "not everything was taken, so the limit was reached")
		}
		require.NotEmpty(t, r.dev.queue, "nothing in flight and not done: stuck")
		r.dev.completeAt(0)
		got = append(got, r.answers(nil)...)
	}
	assert.Positive(t, stops)
	assert.Positive(t, r.stream.resumes)
	for i := range total {
		assert.Equal(t, pattern(512, byte(i)), r.dev.data[i*512:i*512+512])
	}
	r.end()
}

func TestMemoryLimitStopsReading(t *testing.T) {
	const limit = 1 << 20
	for name, hold := range map[string]bool{"slow device": true, "slow client": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 16*mib, func(cfg *Config, d *memDevice) {
				cfg.MaxInflightBytes = limit
				d.hold = hold
			})
			copy(r.dev.data, pattern(16*mib, 1))
			reads := map[uint64]int{}
			var wire []byte
			for i := range uint64(64) {
				wire = append(wire, req(cmdRead, 0, i, i<<18, 200<<10)...)
				reads[i] = 200 << 10
			}
			rest, err := r.offer(wire, len(wire))
			require.NoError(t, err)
			assert.Empty(t, rest, "a few requests too many are held back, not lost")
			assert.Equal(t, limit, r.conn.memory)
			direct, scratch := r.conn.ReadBuffers()
			assert.Zero(t, len(direct)+len(scratch), "reading must stop at the limit")

			var got []answer
			for len(got) < 64 {
				if hold {
					r.dev.completeAt(len(r.dev.queue) - 1)
				}
				assert.LessOrEqual(t, r.conn.memory, limit)
				got = append(got, r.answers(reads)...)
			}
			for _, a := range got {
				require.Zero(t, a.errno)
				require.True(t, a.data == string(r.dev.data[a.cookie<<18:][:200<<10]))
			}
			r.end()
		})
	}
}

func TestOneRequestAboveTheMemoryLimitIsServed(t *testing.T) {
	r := newRig(t, 4*mib, func(cfg *Config, _ *memDevice) { cfg.MaxInflightBytes = 4096 })
	r.feed(req(cmdRead, 0, 1, 0, 4*mib))
	assert.Len(t, r.answers(map[uint64]int{1: 4 * mib}), 1)
	r.end()
}

func TestErrorFloodIsBounded(t *testing.T) {
	r := newRig(t, mib, func(cfg *Config, _ *memDevice) { cfg.MaxInflightRequests = 100 })
	var wire []byte
	for i := range uint64(5000) {
		wire = append(wire, req(99, 0, i, 0, 0)...)
	}
	// The client does not read its answers: the server stops reading too.
	rest, err := r.offer(wire, 1<<14)
	require.NoError(t, err)
	assert.NotZero(t, len(rest))
	assert.LessOrEqual(t, r.conn.replies.len(), 100)
	got := 0
	for got < 5000 {
		n := len(r.answers(nil))
		require.NotZero(t, n, "stuck")
		got += n
		rest, err = r.offer(rest, 1<<14)
		require.NoError(t, err)
	}
	r.end()
}

// Large payloads are read into their buffers, small requests in one go.
func TestWindowFollowsTheStream(t *testing.T) {
	r := newRig(t, 64*mib, nil)
	large := make([]byte, mib)
	copied := 0
	var stream []byte
	for i := range uint64(8) {
		stream = append(stream, write(0, i, i*mib, large)...)
	}
	for len(stream) > 0 {
		direct, scratch := r.conn.ReadBuffers()
		n := copy(direct, stream)
		k := copy(scratch, stream[n:])
		copied += k
		stream = stream[n+k:]
		require.NoError(t, r.conn.DidRead(n+k))
	}
	assert.Len(t, r.answers(nil), 8)
	assert.Less(t, copied, windowFull+8*windowSmall, "only the first payload is met unprepared")

	calls := 0
	stream = nil
	for i := range uint64(2000) {
		stream = append(stream, req(cmdFlush, 0, i, 0, 0)...)
	}
	for len(stream) > 0 {
		_, scratch := r.conn.ReadBuffers()
		if len(scratch) == 0 {
			r.answers(nil)
			continue
		}
		n := copy(scratch, stream)
		stream = stream[n:]
		calls++
		require.NoError(t, r.conn.DidRead(n))
	}
	assert.LessOrEqual(t, calls, 8, "the window grows back")
	assert.NotEmpty(t, r.answers(nil))
	r.end()
}

// Bytes written are bytes read, whatever the sizes, alignments, portions and
// the order of completion.
func TestWhatIsWrittenIsRead(t *testing.T) {
	for round := range 10 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			t.Logf("seed %#x", seed)
			history(t, rng)
		})
	}
}

// history sends random requests that do not overlap while in flight and checks
// every answer against a model.
func history(t *testing.T, rng *rand.Rand) {
	const size = mib
	r := newRig(t, size, func(cfg *Config, d *memDevice) {
		cfg.MaxInflightRequests = 1 + rng.IntN(40)
		cfg.MaxInflightBytes = 1 << (12 + rng.IntN(10))
		d.hold = true
	})
	model := make([]byte, size)
	reads, expect := map[uint64]int{}, map[uint64]string{}
	var wire []byte
	cookie, answered := uint64(0), uint64(0)
	for batch := range uint64(10) {
		at := uint64(0)
		for at < size {
			at += uint64(rng.IntN(64)) * 512
			n := uint64(1+rng.IntN(1<<rng.IntN(10))) * 512
			if at+n > size {
				break
			}
			cookie++
			if rng.IntN(2) == 0 {
				data := make([]byte, n)
				for i := 0; i < len(data); i += 8 {
					binary.LittleEndian.PutUint64(data[i:], batch<<48^cookie<<24^uint64(i))
				}
				copy(model[at:], data)
				wire = append(wire, write(0, cookie, at, data)...)
			} else {
				reads[cookie], expect[cookie] = int(n), string(model[at:at+n])
				wire = append(wire, req(cmdRead, 0, cookie, at, uint32(n))...)
			}
			at += n
		}
		for answered < cookie {
			var err error
			wire, err = r.offer(wire, 1+rng.IntN(1<<rng.IntN(19)))
			require.NoError(t, err)
			if len(r.dev.queue) > 0 {
				r.dev.completeAt(rng.IntN(len(r.dev.queue)))
			}
			r.send(rng.IntN(1 << rng.IntN(20)))
			if rng.IntN(4) == 0 || len(r.dev.queue) == 0 {
				for _, a := range r.answers(reads) {
					answered++
					require.Zero(t, a.errno)
					require.True(t, expect[a.cookie] == a.data, "wrong data for request %d", a.cookie)
				}
			}
		}
	}
	assert.True(t, string(model) == string(r.dev.data))
	r.end()
}
