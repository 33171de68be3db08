package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
)

// TestSegmentExtremes: the smallest and the largest segments and bursts, each with
// each, in both directions.
func TestSegmentExtremes(t *testing.T) {
	const least, most = 512, 1<<24 - 1
	onDrivers(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: 20 << 20}}})
		big := make([]byte, 16<<20)
		fill(big, rand.New(rand.NewPCG(4, 4)))
		n := 0
		for _, ours := range []uint32{least, most} {
			for _, theirs := range []uint32{least, most} {
				for _, burst := range []uint32{least, most} {
					for _, first := range []uint32{least, burst} {
						for _, digest := range []bool{false, true} {
							if n++; n%2 == 0 != at.raw { // half of them on either driver
								continue
							}
							data := big
							if min(ours, theirs, burst) == least {
								data = big[:1<<20-512]
							}
							require.NoError(t, tgt.SetParams(iscsitest.Params{
								MaxRecvDataSegmentLength: theirs, MaxBurstLength: burst, FirstBurstLength: first, MaxOutstandingR2T: 4,
							}))
							l := logIn(t, at, tgt, Config{
								MaxRecvDataSegmentLength: ours, MaxBurstLength: burst, FirstBurstLength: first,
								DataDigest: digest, HeaderDigest: digest,
							})
							require.Equal(t, [3]uint32{ours, theirs, burst}, [3]uint32{
								l.s.params.MaxRecvDataSegmentLength, l.s.params.MaxSendDataSegmentLength, l.s.params.MaxBurstLength,
							})
							l.run(newOp(DirWrite, uint64(n), data))
							back := newOp(DirRead, uint64(n), make([]byte, len(data)))
							l.run(back)
							require.Equal(t, len(data), back.Received)
							require.True(t, bytes.Equal(data, back.Data), "ours %d, theirs %d, burst %d, first %d", ours, theirs, burst, first)
							l.close()
						}
					}
				}
			}
		}
	})
}

// TestAnyOrder: data that comes, and is asked for, in any order, under load.
func TestAnyOrder(t *testing.T) {
	for i := range 8 {
		pdus, sequences, level := i&1 != 0, i&2 != 0, uint8(i&4)/2
		t.Run(fmt.Sprintf("pdus=%v sequences=%v level=%d", pdus, sequences, level), func(t *testing.T) {
			everywhere(t, func(t *testing.T, at place) {
				tgt := newTarget(t, at, iscsitest.Config{Params: iscsitest.Params{
					AnyPDUOrder: true, AnySequenceOrder: true, MaxConnections: 2, ErrorRecoveryLevel: 2,
					MaxBurstLength: 8192, FirstBurstLength: 2048, MaxRecvDataSegmentLength: 1024, MaxOutstandingR2T: 4,
				}})
				l := logIn(t, at, tgt, Config{
					AnyPDUOrder: pdus, AnySequenceOrder: sequences, MaxRecvDataSegmentLength: 512,
					Connections: 2, ErrorRecoveryLevel: level,
				})
				got := tgt.Sessions()[0].Negotiated
				require.Equal(t, [2]bool{pdus, sequences}, [2]bool{got.AnyPDUOrder, got.AnySequenceOrder})
				require.Equal(t, [2]bool{!pdus, !sequences}, [2]bool{l.s.params.DataPDUInOrder, l.s.params.DataSequenceInOrder})
				r2ts := uint16(4)
				if level == 2 && !sequences {
					r2ts = 1
				}
				require.Equal(t, r2ts, l.s.params.MaxOutstandingR2T)
				ld := newLoad(l, uint64(i), 4, 150, 128)
				ld.run(t)
				require.Zero(t, ld.lost)
			})
		})
	}
}

// TestDataIsAcknowledged where the target wants it, over the connection that it
// came on.
func TestDataIsAcknowledged(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{Params: iscsitest.Params{
			AckData: true, MaxConnections: 3, ErrorRecoveryLevel: 2, MaxBurstLength: 16384,
		}})
		l := logIn(t, at, tgt, Config{Connections: 3, ErrorRecoveryLevel: 2, MaxRecvDataSegmentLength: 4096})
		l.awaitConnections(3)
		newLoad(l, 1, 8, 400, 256).run(t)
		require.Eventually(t, func() bool { return tgt.Sessions()[0].Acks == 0 }, time.Minute, time.Millisecond)
	})
}
