package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// quickSession answers its commands, oldest first, when asked to. It allocates nothing.
type quickSession struct {
	fakeSession
	ring [256]*session.Command
	r, w int
}

func (s *quickSession) Room() int { return len(s.ring) - (s.w - s.r) }
func (s *quickSession) Submit(c *session.Command) bool {
	s.ring[s.w%len(s.ring)] = c
	s.w++
	return true
}

func (s *quickSession) answer() bool {
	if s.r == s.w {
		return false
	}
	c := s.ring[s.r%len(s.ring)]
	s.r++
	c.Err, c.Status, c.Received = nil, scsi.Good, len(c.Data)
	c.Owner.CommandDone(c)
	return true
}

// quickLoop is a clock and timers that never fire.
type quickLoop struct{ *fakeLoop }

func (quickLoop) SetTimer(*loop.Timer, int64) {}
func (quickLoop) StopTimer(*loop.Timer)       {}

type counter int

func (c *counter) RequestDone(*block.Request) { *c++ }

// newQuick makes a device that is up, on n quickSessions.
func newQuick(tb testing.TB, n int, policy string) (*Device, *fakeLoop, []*quickSession) {
	r := newRig(tb, n, func(c *Config) { c.Policy = policy }).up()
	var list []*quickSession
	for _, p := range r.d.paths {
		s := &quickSession{}
		s.unit = r.unit
		p.sess, p.ramp = s, 0
		list = append(list, s)
	}
	r.d.loop = quickLoop{r.l}
	return r.d, r.l, list
}

func TestHotPathAllocatesNothing(t *testing.T) {
	for _, policy := range Policies() {
		for _, op := range []block.Op{block.OpRead, block.OpWrite, block.OpFlush} {
			d, l, sessions := newQuick(t, 4, policy)
			var done counter
			reqs := make([]block.Request, 32)
			data := make([]byte, 4096)
			round := func() {
				for i := range reqs {
					reqs[i] = block.Request{Op: op, Offset: uint64(i) * 4096, Length: 4096, Data: data, Owner: &done}
					d.Submit(&reqs[i])
				}
				l.now += 10 * usec
				for _, s := range sessions {
					for s.answer() {
					}
				}
			}
			round()
			done = 0
			n := testing.AllocsPerRun(100, round)
			assert.Zero(t, n, "%s, %v", policy, op)
			assert.Equal(t, counter(101*32), done)
		}
	}
}

func BenchmarkSubmitToComplete(b *testing.B) {
	for _, c := range []struct {
		name  string
		op    block.Op
		paths int
		depth int
	}{
		{"read/paths=1/depth=1", block.OpRead, 1, 1},
		{"read/paths=4/depth=32", block.OpRead, 4, 32},
		{"write/paths=4/depth=32", block.OpWrite, 4, 32},
		{"write/paths=4/depth=128", block.OpWrite, 4, 128},
	} {
		b.Run(c.name, func(b *testing.B) {
			d, l, sessions := newQuick(b, c.paths, PolicyLatency)
			var done counter
			reqs := make([]block.Request, c.depth)
			data := make([]byte, 4096)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				i := n % c.depth
				if n >= c.depth { // the oldest has to be answered first
					l.now += usec
					for s := n; ; s++ {
						if sessions[s%len(sessions)].answer() {
							break
						}
					}
					for int(done) < n-c.depth+1 {
						for _, s := range sessions {
							s.answer()
						}
					}
				}
				reqs[i] = block.Request{Op: c.op, Offset: uint64(n%500) * 4096, Length: 4096, Data: data, Owner: &done}
				d.Submit(&reqs[i])
				n++
			}
		})
	}
}
