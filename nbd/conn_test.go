package nbd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/invariants"
)

const mib = 1 << 20

func TestRequestsReachTheDevice(t *testing.T) {
	payload := pattern(1024, 1)
	tests := []struct {
		name string
		wire []byte
		want block.Request
	}{
		{"read", req(cmdRead, 0, 1, 512, 1024), block.Request{Op: block.OpRead, Offset: 512, Length: 1024}},
		{"read with a meaningless FUA", req(cmdRead, cmdFlagFUA, 1, 512, 1024), block.Request{Op: block.OpRead, Offset: 512, Length: 1024}},
		{"write", write(0, 1, 1024, payload), block.Request{Op: block.OpWrite, Offset: 1024, Length: 1024}},
		{"write FUA", write(cmdFlagFUA, 1, 1024, payload), block.Request{Op: block.OpWrite, FUA: true, Offset: 1024, Length: 1024}},
		{"flush", req(cmdFlush, 0, 1, 0, 0), block.Request{Op: block.OpFlush}},
		{"flush with a meaningless FUA", req(cmdFlush, cmdFlagFUA, 1, 0, 0), block.Request{Op: block.OpFlush}},
		{"trim", req(cmdTrim, 0, 1, 0, mib), block.Request{Op: block.OpTrim, Length: mib}},
		{"trim FUA", req(cmdTrim, cmdFlagFUA, 1, 0, mib), block.Request{Op: block.OpTrim, FUA: true, Length: mib}},
		{"zeroes", req(cmdWriteZeroes, 0, 1, 512, 512), block.Request{Op: block.OpWriteZeroes, Offset: 512, Length: 512}},
		{"zeroes without a hole, FUA", req(cmdWriteZeroes, cmdFlagNoHole|cmdFlagFUA, 1, 512, 512), block.Request{Op: block.OpWriteZeroes, FUA: true, NoUnmap: true, Offset: 512, Length: 512}},
		{"the last block", req(cmdRead, 0, 1, mib-512, 512), block.Request{Op: block.OpRead, Offset: mib - 512, Length: 512}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, mib, nil)
			r.dev.recrd = true
			r.feed(tt.wire)
			require.Len(t, r.dev.seen, 1)
			assert.Equal(t, tt.want, r.dev.seen[0])
			reads := map[uint64]int{}
			if tt.want.Op == block.OpRead {
				reads[1] = int(tt.want.Length)
			}
			got := r.answers(reads)
			require.Len(t, got, 1)
			assert.Zero(t, got[0].errno)
			r.end()
		})
	}
}

const refusalSize = 80 * mib

func block4k(_ *Config, d *memDevice)  { d.geo.BlockSize = 4096 }
func readOnly(_ *Config, d *memDevice) { d.geo.ReadOnly = true }
func noTrim(_ *Config, d *memDevice)   { d.geo.CanTrim = false }

var some = pattern(512, 3)

// refusals are requests that must not reach the device of refusalSize bytes.
var refusals = []struct {
	name   string
	change func(*Config, *memDevice)
	wire   []byte
	errno  uint32
}{
	{"unknown command", nil, req(99, 0, 7, 0, 512), errnoInval},
	{"block status, not negotiated", nil, req(7, 0, 7, 0, 512), errnoInval},
	{"cache, not advertised", nil, req(cmdCache, 0, 7, 0, 512), errnoInval},
	{"unknown flag on read", nil, req(cmdRead, 1<<7, 7, 0, 512), errnoInval},
	{"DF without structured replies", nil, req(cmdRead, 1<<2, 7, 0, 512), errnoInval},
	{"NO_HOLE on write", nil, write(cmdFlagNoHole, 7, 0, some), errnoInval},
	{"FAST_ZERO, not advertised", nil, req(cmdWriteZeroes, cmdFlagFastZero, 7, 0, 512), errnoInval},
	{"read of nothing", nil, req(cmdRead, 0, 7, 0, 0), errnoInval},
	{"write of nothing", nil, req(cmdWrite, 0, 7, 0, 0), errnoInval},
	{"trim of nothing", nil, req(cmdTrim, 0, 7, 0, 0), errnoInval},
	{"zeroes of nothing", nil, req(cmdWriteZeroes, 0, 7, 0, 0), errnoInval},
	{"flush with a length", nil, req(cmdFlush, 0, 7, 0, 512), errnoInval},
	{"flush with an offset", nil, req(cmdFlush, 0, 7, 512, 0), errnoInval},
	{"read past the end", nil, req(cmdRead, 0, 7, refusalSize-512, 1024), errnoInval},
	{"read beyond the end", nil, req(cmdRead, 0, 7, refusalSize, 512), errnoInval},
	{"read, offset + length overflows", nil, req(cmdRead, 0, 7, math.MaxUint64-511, 512), errnoInval},
	{"write past the end", nil, write(0, 7, refusalSize, some), errnoNoSpace},
	{"write, offset + length overflows", nil, write(0, 7, math.MaxUint64-511, some), errnoNoSpace},
	{"zeroes past the end", nil, req(cmdWriteZeroes, 0, 7, 512, refusalSize), errnoNoSpace},
	{"trim past the end", nil, req(cmdTrim, 0, 7, 512, refusalSize), errnoInval},
	{"read, longer than advertised", nil, req(cmdRead, 0, 7, 0, maxPayload+512), errnoInval},
	{"read, as long as can be", nil, req(cmdRead, 0, 7, 0, math.MaxUint32), errnoInval},
	{"unaligned offset", nil, req(cmdRead, 0, 7, 100, 512), errnoInval},
	{"unaligned length", nil, req(cmdRead, 0, 7, 0, 100), errnoInval},
	{"unaligned write", nil, write(0, 7, 0, some[:100]), errnoInval},
	{"unaligned trim", nil, req(cmdTrim, 0, 7, 0, 100), errnoInval},
	{"512 on 4096-byte blocks", block4k, req(cmdRead, 0, 7, 512, 4096), errnoInval},
	{"write, read-only", readOnly, write(0, 7, 0, some), errnoPerm},
	{"write FUA, read-only", readOnly, write(cmdFlagFUA, 7, 0, some), errnoPerm},
	{"trim, read-only", readOnly, req(cmdTrim, 0, 7, 0, 512), errnoPerm},
	{"zeroes, read-only", readOnly, req(cmdWriteZeroes, 0, 7, 0, 512), errnoPerm},
	{"FUA where it is not offered", readOnly, req(cmdRead, cmdFlagFUA, 7, 0, 512), errnoInval},
	{"trim where it is not offered", noTrim, req(cmdTrim, 0, 7, 0, 512), errnoInval},
}

func TestRefusals(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, mib, func(cfg *Config, d *memDevice) {
				d.geo.Size = refusalSize
				if tt.change != nil {
					tt.change(cfg, d)
				}
			})
			r.dev.recrd = true
			r.feed(tt.wire)
			assert.Empty(t, r.dev.seen, "a refused request must not reach the device")
			assert.Equal(t, []answer{{cookie: 7, errno: tt.errno}}, r.answers(nil))
			r.feed(req(cmdRead, 0, 8, 0, 4096)) // the stream is still in step
			got := r.answers(map[uint64]int{8: 4096})
			require.Len(t, got, 1)
			assert.Zero(t, got[0].errno)
			assert.EqualValues(t, 1, r.srv.Snapshot().Total.Errors)
			r.end()
		})
	}
}

func TestLargestRequestIsServed(t *testing.T) {
	r := newRig(t, maxPayload, nil)
	payload := pattern(maxPayload, 9)
	r.feed(write(0, 1, 0, payload))
	r.feed(req(cmdRead, 0, 2, 0, maxPayload))
	got := r.answers(map[uint64]int{2: maxPayload})
	require.Len(t, got, 2)
	assert.True(t, got[1].data == string(payload))
	r.end()
}

func TestDeviceErrors(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("path 2: %w", err) }
	tests := []struct {
		err         error
		read, write uint32
	}{
		{block.ErrIO, errnoIO, errnoIO},
		{wrap(block.ErrIO), errnoIO, errnoIO},
		{block.ErrReadOnly, errnoPerm, errnoPerm},
		{wrap(block.ErrRange), errnoInval, errnoNoSpace},
		{block.ErrAlign, errnoInval, errnoInval},
		{wrap(block.ErrNoSpace), errnoNoSpace, errnoNoSpace},
		{block.ErrClosed, errnoShutdown, errnoShutdown},
		{block.ErrNotSup, errnoNotSup, errnoNotSup},
		{errors.New("something else"), errnoIO, errnoIO},
	}
	for _, tt := range tests {
		t.Run(tt.err.Error(), func(t *testing.T) {
			r := newRig(t, mib, func(_ *Config, d *memDevice) {
				d.fail = func(*block.Request) error { return tt.err }
			})
			r.feed(req(cmdRead, 0, 1, 0, 512))
			r.feed(write(0, 2, 0, make([]byte, 512)))
			assert.Equal(t, []answer{{cookie: 1, errno: tt.read}, {cookie: 2, errno: tt.write}}, r.answers(nil))
			r.end()
		})
	}
}

func TestRefusedWriteIsReadPast(t *testing.T) {
	for _, length := range []uint32{512, 100_000, maxPayload + 512, maxDrain} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			r := newRig(t, mib, nil)
			r.feed(req(cmdWrite, 0, 1, mib, length))
			piece := make([]byte, 1<<16)
			for left := int(length); left > 0; left -= min(left, len(piece)) {
				assert.Empty(t, r.answers(nil), "the answer comes once the payload has passed")
				r.feed(piece[:min(left, len(piece))])
				assert.Zero(t, r.conn.memory, "refused payloads are not buffered")
			}
			errno := errnoNoSpace
			if length > maxPayload {
				errno = errnoInval
			}
			assert.Equal(t, []answer{{cookie: 1, errno: errno}}, r.answers(nil))
			r.feed(req(cmdFlush, 0, 2, 0, 0))
			assert.Equal(t, []answer{{cookie: 2}}, r.answers(nil))
			r.end()
		})
	}
}

func TestViolationsEndTheConnection(t *testing.T) {
	badMagic := req(cmdRead, 0, 1, 0, 512)
	badMagic[0] = 'X'
	tests := map[string][]byte{
		"bad magic":                    badMagic,
		"bad magic after good":         append(req(cmdFlush, 0, 1, 0, 0), badMagic...),
		"absurd write":                 req(cmdWrite, 0, 1, 0, maxDrain+1),
		"payload of a zero-length one": req(cmdWrite, 0, 1, 0, 0, make([]byte, 512)...),
		"HTTP":                         []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
	}
	for name, wire := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, mib, nil)
			_, err := r.offer(wire, len(wire))
			require.Error(t, err)
			assert.Contains(t, err.Error(), "client")
			r.end()
		})
	}
}

func TestBadMagicBehindALimit(t *testing.T) {
	r := newRig(t, mib, func(cfg *Config, d *memDevice) { cfg.MaxInflightRequests = 1 })
	wire := append(req(cmdFlush, 0, 1, 0, 0), req(cmdFlush, 0, 2, 0, 0)...)
	r.feed(append(wire, make([]byte, requestLen)...))
	r.sendAll()
	assert.True(t, r.stream.aborted, "found while going on after the back-pressure")
	assert.ErrorContains(t, r.stream.reason, "protocol")
	r.end()
}

func TestDiscFinishesWhatIsInFlight(t *testing.T) {
	r := newRig(t, mib, func(_ *Config, d *memDevice) { d.hold = true })
	r.feed(req(cmdRead, 0, 1, 0, 512))
	r.feed(write(0, 2, 512, pattern(512, 5)))
	rest, err := r.offer(append(req(cmdDisc, 0, 3, 0, 0), req(cmdRead, 0, 4, 0, 512)...), 1<<20)
	require.NoError(t, err)
	assert.Empty(t, rest, "what came along with DISC is dropped")
	rest, err = r.offer(req(cmdRead, 0, 5, 0, 512), 512)
	require.NoError(t, err)
	assert.NotEmpty(t, rest, "nothing is read after DISC")

	assert.Empty(t, r.answers(nil))
	assert.False(t, r.stream.closed)
	r.dev.completeAt(1)
	assert.Equal(t, []answer{{cookie: 2}}, r.answers(nil))
	assert.False(t, r.stream.closed, "one is still in flight")
	r.dev.completeAt(0)
	r.send(100)
	assert.False(t, r.stream.closed, "the reply has not left in full yet")
	assert.Len(t, r.answers(map[uint64]int{1: 512}), 1)
	assert.True(t, r.stream.closed)
	assert.Equal(t, io.EOF, r.stream.reason)
	r.end()
}

func TestDiscWithNothingInFlight(t *testing.T) {
	r := newRig(t, mib, nil)
	r.feed(req(cmdDisc, 0, 0, 0, 0))
	assert.True(t, r.stream.closed)
	r.end()
}

func TestShutdownAnswersLateRequests(t *testing.T) {
	r := newRig(t, mib, func(_ *Config, d *memDevice) { d.hold = true })
	r.feed(req(cmdRead, 0, 1, 0, 512))
	half := write(0, 2, 0, make([]byte, 512))
	r.feed(half[:100])
	r.conn.shutDown()
	r.feed(half[100:])
	r.feed(req(cmdRead, 0, 3, 0, 512))
	r.feed(write(0, 4, 0, make([]byte, 512)))
	assert.Len(t, r.dev.queue, 1, "nothing new reaches the device")
	assert.Equal(t, []answer{{2, errnoShutdown, ""}, {3, errnoShutdown, ""}, {4, errnoShutdown, ""}}, r.answers(nil))
	assert.False(t, r.stream.closed)
	r.dev.completeAt(0)
	assert.Len(t, r.answers(map[uint64]int{1: 512}), 1)
	assert.True(t, r.stream.closed)
	assert.ErrorIs(t, r.stream.reason, ErrClosed)
	r.end()
}

func TestClosedKeepsBuffersUntilTheDeviceIsDone(t *testing.T) {
	r := newRig(t, mib, func(_ *Config, d *memDevice) { d.hold = true })
	r.feed(req(cmdRead, 0, 1, 0, 4096))
	r.feed(write(0, 2, 512, pattern(4096, 5)))
	r.feed(req(cmdRead, 0, 3, 0, 4096))
	r.dev.completeAt(2) // its reply never leaves
	half := write(0, 4, 8192, pattern(4096, 6))
	r.feed(half[:2000]) // a payload that never arrives in full
	r.conn.Closed(io.ErrUnexpectedEOF)

	pool := &r.conn.shard.pool
	assert.Equal(t, 2, pool.out, "the two at the device keep their buffers")
	for _, q := range r.dev.queue {
		assert.Len(t, q.Data, 4096)
	}
	assert.Empty(t, r.srv.Snapshot().Connections)
	assert.NotEmpty(t, r.srv.conns)
	r.dev.completeAt(0)
	assert.Equal(t, 1, pool.out)
	assert.NotEmpty(t, r.srv.conns)
	r.dev.completeAt(0)
	r.end()
	assert.Equal(t, pattern(4096, 5), r.dev.data[512:512+4096], "the write happened all the same")
	assert.Equal(t, make([]byte, 4096), r.dev.data[8192:8192+4096], "half a write did not")
}

func TestDoubleCompletionIsHarmless(t *testing.T) {
	r := newRig(t, mib, func(_ *Config, d *memDevice) { d.hold = true })
	r.feed(req(cmdFlush, 0, 1, 0, 0))
	q := r.dev.queue[0]
	owner := q.Owner
	r.dev.completeAt(0)
	again := func() { owner.RequestDone(q) }
	if invariants.Enabled {
		assert.Panics(t, again, "the bug must show where bugs are looked for")
	} else {
		assert.NotPanics(t, again)
	}
	assert.Len(t, r.answers(nil), 1)
	r.end()
}

func TestSnapshotCounts(t *testing.T) {
	r := newRig(t, mib, nil)
	r.feed(write(0, 1, 0, make([]byte, 1024)))
	r.feed(req(cmdRead, 0, 2, 0, 512))
	r.feed(req(cmdFlush, 0, 3, 0, 0))
	r.feed(req(cmdTrim, 0, 4, 0, 512))
	r.feed(req(cmdWriteZeroes, 0, 5, 0, 512))
	r.feed(req(cmdRead, 0, 6, mib, 512))
	r.dev.hold = true
	r.feed(req(cmdRead, 0, 7, 0, 8192))
	want := Counters{Reads: 2, Writes: 1, Flushes: 1, Trims: 1, WriteZeroes: 1, Errors: 1, BytesRead: 512, BytesWritten: 1024}
	snap := r.srv.Snapshot()
	require.Len(t, snap.Connections, 1)
	info := snap.Connections[0]
	assert.Equal(t, "disk", info.Export)
	assert.Equal(t, "test", info.Remote)
	assert.Equal(t, 1, info.InFlight)
	assert.GreaterOrEqual(t, info.Buffered, 8192)
	assert.Equal(t, want, info.Counters)
	assert.Equal(t, want, snap.Total)
	assert.EqualValues(t, 6, info.Counters.Ops())
	r.end()
	snap = r.srv.Snapshot()
	assert.Empty(t, snap.Connections)
	assert.Equal(t, want, snap.Total, "closed connections still count")
}
