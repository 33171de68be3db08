package loop

import (
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// talker sends a pattern in offers of random sizes, and checks the pattern
// that comes into buffers of random sizes, with pauses.
type talker struct {
	t        *testing.T
	l        Loop
	rng      *rand.Rand
	stream   Stream
	sentence []byte // all that is sent, and all that is expected
	sent     int
	heard    int
	direct   []byte
	scratch  []byte
	rest     Timer
	both     func() // called when a talker has sent and heard everything
	closed   chan error
}

func (k *talker) ReadBuffers() (direct, scratch []byte) {
	if k.rng.IntN(8) == 0 {
		k.l.SetTimer(&k.rest, k.l.Now()+k.rng.Int64N(int64(time.Millisecond)))
		return nil, nil
	}
	k.direct = make([]byte, k.rng.IntN(5000))
	k.scratch = make([]byte, 1+k.rng.IntN(20000))
	return k.direct, k.scratch
}

func (k *talker) DidRead(n int) error {
	got := append(k.direct[:min(n, len(k.direct))], k.scratch[:max(n-len(k.direct), 0)]...)
	assertSame(k.t, k.sentence[k.heard:k.heard+n], got)
	k.heard += n
	k.progress()
	return nil
}

func (k *talker) WriteBuffers(iov [][]byte) [][]byte {
	left := k.sentence[k.sent:]
	for range k.rng.IntN(40) + 1 {
		n := min(len(left), k.rng.IntN(9000))
		iov = append(iov, left[:n])
		left = left[n:]
	}
	if len(left) > 0 {
		k.stream.Flush() // sometimes all slices are empty; ask again
	}
	return iov
}

func (k *talker) DidWrite(n int) {
	k.sent += n
	k.progress()
}

func (k *talker) progress() {
	if k.sent == len(k.sentence) && k.heard == len(k.sentence) {
		k.both()
	}
}

func (k *talker) Closed(err error) {
	k.l.StopTimer(&k.rest)
	k.closed <- err
}

func TestRandomTraffic(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	sentence := pattern(1 << 20)
	onDrivers(t, func(t *testing.T, l Loop) {
		const pairs = 4
		var talkers []*talker
		for i := range pairs {
			ours, peer := narrowPair(t)
			complete := 0
			var first *talker
			for j, c := range []net.Conn{ours, peer} {
				k := &talker{t: t, l: l, sentence: sentence, closed: make(chan error, 2)}
				k.rng = rand.New(rand.NewPCG(seed, uint64(2*i+j)))
				k.rest.Fn = func() { k.stream.ResumeReading() }
				if j == 0 {
					first = k
				}
				k.both = func() {
					if complete++; complete == 2 {
						first.stream.Close(errTest)
					}
				}
				talkers = append(talkers, k)
				do(t, l, func() {
					var err error
					k.stream, err = l.Attach(c, k)
					assert.NoError(t, err)
					k.stream.Flush()
				})
			}
		}
		for i, k := range talkers {
			err := await(t, k.closed, "the end of a conversation")
			assert.Equal(t, []error{errTest, io.EOF}[i%2], err)
			require.Equal(t, len(sentence), k.sent)
			require.Equal(t, len(sentence), k.heard)
		}
	})
}
