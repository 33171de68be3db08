package loop

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	requestSize = 48
	replySize   = 48 + 4096
)

// requester keeps depth requests under way until a number of them is done.
// It allocates nothing.
type requester struct {
	stream   Stream
	requests []byte // depth requests
	unsent   int    // bytes
	scratch  []byte
	partial  int // bytes of the reply that is still coming in
	left     int // requests still to be started
	pending  int // requests under way
	start    Task
	count    int
	depth    int
	timeout  Timer // re-armed with each batch, as a session would
	l        Loop
	done     chan struct{}
	closed   chan error
}

func newRequester(tb testing.TB, l Loop, c net.Conn, depth int) *requester {
	r := &requester{
		l: l, depth: depth,
		requests: make([]byte, depth*requestSize),
		scratch:  make([]byte, 256<<10),
		done:     make(chan struct{}, 1),
		closed:   make(chan error, 1),
	}
	r.start.Run = func() {
		r.left = r.count
		r.issue(r.depth)
	}
	r.timeout.Fn = func() { panic("a reply takes an hour") }
	do(tb, l, func() {
		var err error
		r.stream, err = l.Attach(c, r)
		assert.NoError(tb, err)
	})
	require.NotNil(tb, r.stream)
	return r
}

// run does count exchanges.
func (r *requester) run(count int) {
	r.count = count
	r.l.PostTask(&r.start)
	<-r.done
}

func (r *requester) issue(n int) {
	n = min(n, r.left)
	if n == 0 {
		return
	}
	r.left -= n
	r.pending += n
	r.unsent += n * requestSize
	r.l.SetTimer(&r.timeout, r.l.Now()+int64(3600e9))
	r.stream.Flush()
}

func (r *requester) ReadBuffers() (direct, scratch []byte) { return nil, r.scratch }

func (r *requester) DidRead(n int) error {
	r.partial += n
	complete := r.partial / replySize
	r.partial %= replySize
	r.pending -= complete
	if r.pending == 0 && r.left == 0 {
		r.l.StopTimer(&r.timeout)
		r.done <- struct{}{}
		return nil
	}
	r.issue(complete)
	return nil
}

func (r *requester) WriteBuffers(iov [][]byte) [][]byte {
	if r.unsent == 0 {
		return iov
	}
	return append(iov, r.requests[:r.unsent])
}

func (r *requester) DidWrite(n int) { r.unsent -= n }

func (r *requester) Closed(err error) { r.closed <- err }

// respond answers requests in batches, the way a good target would.
func respond(c net.Conn, depth int) {
	in, out := make([]byte, 64<<10), make([]byte, depth*replySize)
	partial := 0
	for {
		n, err := c.Read(in)
		if err != nil {
			return
		}
		partial += n
		batch := partial / requestSize
		partial %= requestSize
		if _, err := c.Write(out[:batch*replySize]); err != nil {
			return
		}
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	onDrivers(t, func(t *testing.T, l Loop) {
		for _, depth := range []int{1, 128} {
			ours, peer := pair(t)
			go respond(peer, depth)
			r := newRequester(t, l, ours, depth)
			r.run(10 * depth)
			// One run is PostTask, SetTimer, StopTimer, Flush, and all there
			// is to reading and writing, hundreds of times.
			allocs := testing.AllocsPerRun(50, func() { r.run(10 * depth) })
			assert.Zero(t, allocs, "depth %d", depth)
			do(t, l, func() { r.stream.Abort(nil) })
			await(t, r.closed, "Closed")
		}
	})
}

func TestReactorNeedsFewSystemCalls(t *testing.T) {
	open, ok := drivers()["reactor"]
	if !ok {
		t.Skip("no reactor here")
	}
	l := open(t)
	defer l.Close()
	ours, peer := pair(t)
	const depth, count = 32, 20_000
	go respond(peer, depth)
	r := newRequester(t, l, ours, depth)
	before := l.(Counter).Syscalls()
	r.run(count)
	spent := l.(Counter).Syscalls().Sub(before)
	assert.Less(t, float64(spent.Total())/count, 1.0, "%+v", spent)
}

func BenchmarkExchange(b *testing.B) {
	for _, depth := range []int{1, 32, 128} {
		for name, open := range drivers() {
			b.Run(fmt.Sprintf("depth=%d/%s", depth, name), func(b *testing.B) {
				l := open(b)
				defer l.Close()
				ours, peer := pair(b)
				_ = peer.SetDeadline(time.Time{})
				go respond(peer, depth)
				r := newRequester(b, l, ours, depth)
				r.run(depth)
				b.ReportAllocs()
				b.SetBytes(replySize)
				before := l.(Counter).Syscalls()
				b.ResetTimer()
				r.run(b.N)
				b.StopTimer()
				spent := l.(Counter).Syscalls().Sub(before)
				b.ReportMetric(float64(spent.Total())/float64(b.N), "syscalls/op")
			})
		}
	}
}

func BenchmarkPostTask(b *testing.B) {
	for name, open := range drivers() {
		b.Run(name, func(b *testing.B) {
			l := open(b)
			defer l.Close()
			done := make(chan struct{}, 1)
			task := &Task{Run: func() { done <- struct{}{} }}
			b.ReportAllocs()
			for b.Loop() {
				l.PostTask(task)
				<-done
			}
		})
	}
}
