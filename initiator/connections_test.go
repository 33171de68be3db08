package initiator_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// connected reports whether each of n paths has so many connections.
func connected(n, each int) func(initiator.Snapshot) bool {
	return func(s initiator.Snapshot) bool {
		for _, p := range s.Paths {
			if p.Session.Connections != each {
				return false
			}
		}
		return s.PathsUp == n
	}
}

// TestConnectionsPerPath: each path is one session of several connections; one
// that is lost under load costs nothing, and comes back.
func TestConnectionsPerPath(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{Portals: portals(2), Params: iscsitest.Params{MaxConnections: 4, ErrorRecoveryLevel: 2}})
		cfg := config(tgt)
		cfg.Wait, cfg.Portable, cfg.Connections = initiator.WaitAll, portable, 3
		cfg.ErrorRecoveryLevel = 2
		dev := open(t, cfg)
		snapshotUntil(t, dev, "all connections", connected(2, 3))
		sessions := tgt.Sessions()
		require.Len(t, sessions, 2, "a session each, and none left from discovery")
		for _, s := range sessions {
			assert.Len(t, s.Conns, 3)
		}
		stop := writers(t, dev, 8)
		for _, cid := range []uint16{0, 2, 1} {
			require.Equal(t, 2, tgt.CutConnection(nil, cid))
			snapshotUntil(t, dev, "the loss noticed", func(s initiator.Snapshot) bool { return !connected(2, 3)(s) })
			snapshotUntil(t, dev, "all connections back", connected(2, 3))
		}
		stop()
		s, err := dev.Snapshot(t.Context())
		require.NoError(t, err)
		for _, p := range s.Paths {
			assert.EqualValues(t, 1, p.Session.Logins, "the session was given up: %+v", p)
		}
		require.NoError(t, dev.Close(t.Context()))
		assert.Empty(t, tgt.Sessions())
	})
}

// TestFewerConnectionsThanAskedFor: the target decides.
func TestFewerConnectionsThanAskedFor(t *testing.T) {
	tgt := target(t, iscsitest.Config{Params: iscsitest.Params{MaxConnections: 2}})
	cfg := config(tgt)
	cfg.Connections = 16
	dev := open(t, cfg)
	snapshotUntil(t, dev, "two connections", connected(1, 2))
	require.NoError(t, dev.Close(t.Context()))
}

// writers write and read back, each in blocks of its own, until stop.
func writers(t *testing.T, dev *initiator.Device, n int) (stop func()) {
	var wg sync.WaitGroup
	end := make(chan struct{})
	for w := range n {
		wg.Go(func() {
			block, got := make([]byte, 4096), make([]byte, 4096)
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				off := int64(i%64*n+w) * 4096
				for j := range block {
					block[j] = byte(i + j + w)
				}
				if _, err := dev.WriteAt(block, off); !assert.NoError(t, err) {
					return
				}
				if _, err := dev.ReadAt(got, off); !assert.NoError(t, err) || !assert.True(t, bytes.Equal(block, got), "at %d", off) {
					return
				}
			}
		})
	}
	return func() { close(end); wg.Wait() }
}

// TestOperationalKeys: what the configuration says is what the target is told.
func TestOperationalKeys(t *testing.T) {
	tgt := target(t, iscsitest.Config{Params: iscsitest.Params{
		MaxBurstLength: 1 << 20, MaxOutstandingR2T: 16, AnyPDUOrder: true, AnySequenceOrder: true,
	}})
	cfg := config(tgt)
	cfg.AnyPDUOrder, cfg.AnySequenceOrder = true, true
	cfg.InitialR2T, cfg.NoImmediateData = true, true
	cfg.FirstBurstLength, cfg.MaxBurstLength, cfg.MaxRecvDataSegmentLength = 4096, 65536, 8192
	cfg.MaxOutstandingR2T = 3
	dev := open(t, cfg)
	s, err := dev.Snapshot(t.Context())
	require.NoError(t, err)
	p := s.Paths[0].Session.Params
	assert.True(t, p.InitialR2T)
	assert.False(t, p.ImmediateData)
	assert.False(t, p.DataPDUInOrder || p.DataSequenceInOrder)
	assert.EqualValues(t, 65536, p.MaxBurstLength)
	assert.EqualValues(t, 8192, p.MaxRecvDataSegmentLength)
	assert.EqualValues(t, 3, p.MaxOutstandingR2T)
	data := bytes.Repeat([]byte("data"), 64<<10)
	_, err = dev.WriteAt(data, 0)
	require.NoError(t, err)
	got := make([]byte, len(data))
	_, err = dev.ReadAt(got, 0)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(data, got))
	require.NoError(t, dev.Close(t.Context()))
}
