package nbdload_test

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/iscsimp/iscsimp/test/nbdload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// enough ends a run of the load.
type enough func(nbdload.Stats) bool

func operations(n int64) enough { return func(s nbdload.Stats) bool { return s.Operations >= n } }

func mismatch(s nbdload.Stats) bool { return s.Mismatches > 0 }

// run fills, loads until it is enough, but for 10 s at most, and verifies.
func run(t *testing.T, server *fakeServer, until enough) (nbdload.Stats, error) {
	t.Helper()
	path := startServer(t, server)
	runner, err := nbdload.NewRunner(nbdload.Load{Clients: []*nbdload.Client{dial(t, path), dial(t, path)}, Seed: 7, Bytes: 1 << 20})
	require.NoError(t, err)
	if err := runner.Fill(); err != nil {
		return runner.Stats(), err
	}
	runner.Start()
	for start := time.Now(); !until(runner.Stats()) && time.Since(start) < time.Minute; {
		time.Sleep(5 * time.Millisecond)
	}
	runner.Stop()
	err = runner.Verify()
	return runner.Stats(), err
}

func TestLoadFindsNothingWrongWithAnHonestServer(t *testing.T) {
	stats, err := run(t, &fakeServer{}, operations(3000))
	require.NoError(t, err)
	assert.Zero(t, stats.Errors)
	assert.Zero(t, stats.Mismatches)
	assert.Empty(t, stats.Problems)
	assert.Positive(t, stats.Reads)
	assert.Positive(t, stats.Writes)
	assert.Equal(t, stats.Operations-stats.Torn, stats.Reads+stats.Writes)
	assert.Positive(t, stats.LongestStall)
}

func TestLoadFindsEveryKindOfLie(t *testing.T) {
	var count atomic.Int64
	everyHundredth := func(command uint16, do func(*request)) func(*request) uint32 {
		return func(r *request) uint32 {
			if r.command == command && count.Add(1)%100 == 99 {
				do(r)
			}
			return 0
		}
	}
	for name, server := range map[string]*fakeServer{
		"lost write":     {swallow: func(r *request) bool { return r.command == 1 && count.Add(1)%100 == 99 }},
		"misplaced":      {before: everyHundredth(1, func(r *request) { r.offset ^= nbdload.BlockSize })},
		"flipped bit":    {after: everyHundredth(0, func(r *request) { r.data[len(r.data)-1] ^= 1 })},
		"zeros":          {after: everyHundredth(0, func(r *request) { clear(r.data) })},
		"partial write":  {before: everyHundredth(1, func(r *request) { r.data = r.data[:len(r.data)-512] })},
		"foreign data":   {after: everyHundredth(0, func(r *request) { copy(r.data, "something else") })},
		"partial answer": {after: everyHundredth(0, func(r *request) { clear(r.data[len(r.data)-100:]) })},
	} {
		t.Run(name, func(t *testing.T) {
			stats, _ := run(t, server, mismatch)
			assert.Positive(t, stats.Mismatches)
			assert.NotEmpty(t, stats.Problems)
			assert.Zero(t, stats.Errors)
		})
	}
}

func TestLoadFindsALateWrite(t *testing.T) {
	// A copy of an old write lands again after a newer one was acknowledged: what a retry over another path without a fence can do.
	var old atomic.Pointer[request]
	var count atomic.Int64
	server := &fakeServer{}
	server.before = func(r *request) uint32 {
		switch n := count.Add(1); {
		case r.command == 1 && n%500 == 0:
			old.Store(&request{offset: r.offset, data: append([]byte(nil), r.data...)})
		case n%500 == 499 && old.Load() != nil:
			server.mu.Lock()
			defer server.mu.Unlock()
			copy(server.memory[old.Load().offset:], old.Load().data)
		}
		return 0
	}
	stats, _ := run(t, server, mismatch)
	assert.Positive(t, stats.Mismatches)
}

func TestLoadCountsErrorsAndTheirWritesStayPossible(t *testing.T) {
	// Writes that fail, but land: no reader may be told a mismatch for seeing either.
	var count atomic.Int64
	server := &fakeServer{}
	server.before = func(r *request) uint32 {
		if n := count.Add(1); r.command == 1 && n > 1000 && n%50 == 0 {
			server.mu.Lock()
			defer server.mu.Unlock()
			if n%100 == 0 {
				copy(server.memory[r.offset:], r.data)
			}
			return 5
		}
		return 0
	}
	stats, err := run(t, server, operations(3000))
	require.NoError(t, err)
	assert.Positive(t, stats.Errors)
	assert.Zero(t, stats.Mismatches)
	assert.Contains(t, stats.Problems[0], "EIO")
}

func TestLoadEndsWhenTheServerGoesAway(t *testing.T) {
	server := &fakeServer{}
	path := startServer(t, server)
	client := dial(t, path)
	runner, err := nbdload.NewRunner(nbdload.Load{Clients: []*nbdload.Client{client}, Bytes: 1 << 20})
	require.NoError(t, err)
	runner.Start()
	require.NoError(t, client.Close())
	stats := runner.Stop()
	assert.LessOrEqual(t, stats.Errors, int64(32))
	require.ErrorIs(t, client.Flush(), nbdload.ErrConnectionLost)
}

func TestLoadMustFitTheExport(t *testing.T) {
	client := dial(t, startServer(t, &fakeServer{size: 1 << 20}))
	for name, load := range map[string]nbdload.Load{
		"no client":  {},
		"too long":   {Clients: []*nbdload.Client{client}, Bytes: 2 << 20},
		"behind end": {Clients: []*nbdload.Client{client}, Offset: 2 << 20},
		"unaligned":  {Clients: []*nbdload.Client{client}, Offset: 512},
		"too small":  {Clients: []*nbdload.Client{client}, Bytes: 4096},
	} {
		_, err := nbdload.NewRunner(load)
		require.Error(t, err, name)
	}
}

func TestClientCommands(t *testing.T) {
	client := dial(t, startServer(t, &fakeServer{size: 1 << 20}))
	require.NoError(t, client.Write([]byte("twelve bytes"), 4096, true))
	require.NoError(t, client.Flush())
	got := make([]byte, 12)
	require.NoError(t, client.Read(got, 4096))
	assert.Equal(t, "twelve bytes", string(got))
	require.NoError(t, client.WriteZeroes(4096, 6))
	require.NoError(t, client.Read(got, 4096))
	assert.Equal(t, "\x00\x00\x00\x00\x00\x00 bytes", string(got))
	require.NoError(t, client.Trim(4096, 12))
	require.ErrorIs(t, client.Write(got, 1<<20, false), nbdload.Errno(28))
	require.NoError(t, client.Read(got, 0), "an error reply must not end the connection")
}

func TestDialRefusals(t *testing.T) {
	path := startServer(t, &fakeServer{})
	_, err := nbdload.Dial(t.Context(), "unix", path, "another")
	require.ErrorContains(t, err, "no such export")
	_, err = nbdload.Dial(t.Context(), "unix", filepath.Join(t.TempDir(), "none"), "")
	require.Error(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_, _ = conn.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	_, err = nbdload.Dial(t.Context(), "tcp", listener.Addr().String(), "")
	require.ErrorContains(t, err, "not a newstyle NBD server")
}

func record(t *testing.T, server *fakeServer, duration time.Duration) (nbdload.History, porcupine.CheckResult) {
	t.Helper()
	path := startServer(t, server)
	stop := make(chan struct{})
	time.AfterFunc(duration, func() { close(stop) })
	history, err := nbdload.Record(nbdload.Recording{Disks: []nbdload.Disk{dial(t, path)}, Seed: 11, Zeroes: true}, stop)
	require.NoError(t, err)
	return history, porcupine.CheckOperationsTimeout(nbdload.Registers, history.Operations, time.Minute)
}

func TestHistoryOfAnHonestServerIsLinearizable(t *testing.T) {
	history, result := record(t, &fakeServer{}, 300*time.Millisecond)
	assert.Greater(t, len(history.Operations), 500)
	assert.Equal(t, porcupine.Ok, result)
	assert.Zero(t, history.Errors)
	assert.Empty(t, history.Damaged)
}

func TestHistoryShowsLostWritesAndZeroes(t *testing.T) {
	for name, command := range map[string]uint16{"write": 1, "write zeroes": 6} {
		t.Run(name, func(t *testing.T) {
			var count atomic.Int64
			_, result := record(t, &fakeServer{swallow: func(r *request) bool { return r.command == command && count.Add(1)%5 == 4 }}, 600*time.Millisecond)
			assert.Equal(t, porcupine.Illegal, result)
		})
	}
}

func TestHistoryAllowsFailedWritesToLandOrNot(t *testing.T) {
	var count atomic.Int64
	history, result := record(t, &fakeServer{before: func(r *request) uint32 {
		if n := count.Add(1); r.command == 1 && n > 100 && n < 400 && n%50 == 0 {
			return 5
		}
		return 0
	}}, 200*time.Millisecond)
	assert.Positive(t, history.Errors)
	assert.Equal(t, porcupine.Ok, result)
}

func TestHistoryShowsBlocksTornForGood(t *testing.T) {
	var count atomic.Int64
	history, _ := record(t, &fakeServer{before: func(r *request) uint32 {
		if r.command == 1 && count.Add(1) > 100 {
			r.data = r.data[:len(r.data)-512]
		}
		return 0
	}}, 200*time.Millisecond)
	assert.NotEmpty(t, history.Damaged)
}
