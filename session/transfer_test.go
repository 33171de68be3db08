package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
)

// TestNegotiatedTransfers: a write and a read for every combination of what a
// target may want of a transfer, each on one of the drivers.
func TestNegotiatedTransfers(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: 1 << 20}}})
		n := 0
		for _, p := range transferParams() {
			if n++; (n*7/3)%2 == 0 == at.raw {
				continue
			}
			require.NoError(t, tgt.SetParams(p))
			t.Run(fmt.Sprintf("%03d", n), func(t *testing.T) { oneTransfer(t, at, tgt, p, n) })
			if t.Failed() {
				t.Logf("parameters: %+v", p)
				return
			}
		}
	})
}

func transferParams() (all []iscsitest.Params) {
	for i := range 4 {
		for d := range 4 {
			for _, mrdsl := range []uint32{512, 8192, 65536} {
				for _, first := range []uint32{512, 65536} {
					for _, burst := range []uint32{4096, 262144} {
						for _, r2ts := range []uint16{1, 8} {
							all = append(all, iscsitest.Params{
								InitialR2T: i&1 != 0, NoImmediateData: i&2 != 0,
								HeaderDigest: iscsitest.DigestPolicy(1 + d&1), DataDigest: iscsitest.DigestPolicy(1 + d>>1),
								MaxRecvDataSegmentLength: mrdsl, FirstBurstLength: min(first, burst),
								MaxBurstLength: burst, MaxOutstandingR2T: r2ts, SeparateStatus: i&d&1 != 0,
							})
						}
					}
				}
			}
		}
	}
	return all
}

func oneTransfer(t *testing.T, at place, tgt *iscsitest.Target, p iscsitest.Params, n int) {
	cfg := Config{HeaderDigest: true, DataDigest: true, MaxRecvDataSegmentLength: []uint32{512, 4096, 262144}[n%3]}
	if n%5 == 0 {
		cfg.InitialR2T = true
	}
	if n%7 == 0 {
		cfg.NoImmediateData = true
	}
	l := logIn(t, at, tgt, cfg)
	got := l.s.params // the loop changes it with a login only
	info := tgt.Sessions()
	require.Len(t, info, 1)
	theirs := info[0].Negotiated
	assert.Equal(t, theirs, iscsitest.Negotiated{
		HeaderDigest: got.HeaderDigest, DataDigest: got.DataDigest, MaxConnections: uint32(got.MaxConnections),
		InitialR2T: got.InitialR2T, ImmediateData: got.ImmediateData,
		SendMRDSL: got.MaxRecvDataSegmentLength, RecvMRDSL: got.MaxSendDataSegmentLength,
		MaxBurstLength: got.MaxBurstLength, FirstBurstLength: got.FirstBurstLength, MaxOutstandingR2T: uint32(got.MaxOutstandingR2T),
		DefaultTime2Wait: uint32(got.DefaultTime2Wait), DefaultTime2Retain: uint32(got.DefaultTime2Retain),
	}, "both sides settled on the same")
	assert.Equal(t, p.InitialR2T || cfg.InitialR2T, got.InitialR2T)
	assert.Equal(t, !p.NoImmediateData && !cfg.NoImmediateData, got.ImmediateData)
	assert.Equal(t, p.HeaderDigest == iscsitest.DigestRequired, got.HeaderDigest)
	assert.Equal(t, p.DataDigest == iscsitest.DigestRequired, got.DataDigest)

	rng := rand.New(rand.NewPCG(uint64(n), 3))
	data := make([]byte, 512*(1+rng.IntN(170)))
	fill(data, rng)
	l.run(newOp(DirWrite, 7, data))
	back := newOp(DirRead, 7, make([]byte, len(data)))
	l.run(back)
	require.Equal(t, len(data), back.Received)
	require.True(t, bytes.Equal(data, back.Data))
	l.close()
	require.Empty(t, tgt.Sessions(), "logged out")
}

// TestConcurrentLoad: many commands of all lengths at once, through windows of
// all sizes, with what they leave behind checked on the medium.
func TestConcurrentLoad(t *testing.T) {
	for _, window := range []uint32{1, 2, 128} {
		t.Run(fmt.Sprintf("window=%d", window), func(t *testing.T) {
			everywhere(t, func(t *testing.T, at place) {
				tgt := newTarget(t, at, iscsitest.Config{
					LUNs:   []iscsitest.LUN{{Size: 16 << 20}},
					Params: iscsitest.Params{CmdWindow: window, MaxBurstLength: 128 << 10, MaxRecvDataSegmentLength: 32 << 10},
				})
				l := logIn(t, at, tgt, Config{CmdsMax: 32, HeaderDigest: window == 2, DataDigest: window == 2})
				room := 0
				l.do(func() { room = l.s.Room() })
				require.Equal(t, min(int(window), 32), room)
				ld := newLoad(l, uint64(window), 6, 50, 2048)
				ld.run(t)
				require.Zero(t, ld.lost)
				var st Stats
				l.do(func() { st = l.s.Stats() })
				require.Zero(t, st.InFlight)
				require.Greater(t, st.BytesReceived, uint64(1<<20))
				require.Greater(t, st.BytesSent, uint64(1<<20))
			})
		})
	}
}

// TestSmallSegments: long transfers in many small PDUs, in both directions.
func TestSmallSegments(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{
			LUNs:   []iscsitest.LUN{{Size: 16 << 20}},
			Params: iscsitest.Params{MaxRecvDataSegmentLength: 512, MaxBurstLength: 65536, FirstBurstLength: 512, MaxOutstandingR2T: 4, R2TLength: 5000},
		})
		l := logIn(t, at, tgt, Config{MaxRecvDataSegmentLength: 512, DataDigest: true})
		newLoad(l, 11, 4, 40, 1024).run(t)
	})
}
