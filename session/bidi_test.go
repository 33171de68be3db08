package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// Service actions of 32-byte CDBs (SBC-3).
const (
	exchange32 = 0x0007 // XDWRITEREAD(32)
	read32     = 0x0009
	write32    = 0x000b
)

func long32(action uint16, lba uint64, blocks uint32) []byte {
	b := make([]byte, 32)
	b[0], b[7] = 0x7f, 24
	binary.BigEndian.PutUint16(b[8:], action)
	binary.BigEndian.PutUint64(b[12:], lba)
	binary.BigEndian.PutUint32(b[28:], blocks)
	return b
}

// TestLongCDBs: more than 16 bytes go on in an AHS, fewer have none.
func TestLongCDBs(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		rec := &iscsitest.Recorder{}
		tgt := newTarget(t, at, iscsitest.Config{Recorder: rec, Params: iscsitest.Params{HeaderDigest: iscsitest.DigestRequired}})
		l := logIn(t, at, tgt, Config{HeaderDigest: true})
		data := make([]byte, 300<<10)
		fill(data, rand.New(rand.NewPCG(1, 2)))
		w := newOp(DirWrite, 0, data)
		w.Long = long32(write32, 9, uint32(len(data)/512))
		l.run(w)
		r := newOp(DirRead, 0, make([]byte, len(data)))
		r.Long = long32(read32, 9, uint32(len(data)/512))
		l.run(r)
		require.True(t, bytes.Equal(data, r.Data))
		cdb := scsi.Read16(9, 1, 0)
		short := newOp(DirRead, 0, make([]byte, 512))
		short.CDB, short.Long = scsi.CDB{0xff}, cdb[:]
		l.run(short)
		require.True(t, bytes.Equal(data[:512], short.Data))
		vendor := newOp(DirNone, 0, nil)
		vendor.Long = append([]byte{0xc1}, make([]byte, maxCDB-1)...)
		l.submit(vendor)
		vendor.wait(t)
		require.Nil(t, vendor.Err)
		require.Equal(t, scsi.CheckCondition, vendor.Status)
		var ahs []int
		for _, p := range rec.Records() {
			if p.BHS().Opcode() == pdu.OpSCSICommand {
				ahs = append(ahs, p.BHS().AHSLen())
			}
		}
		require.Equal(t, []int{20, 20, 0, 4 + 244}, ahs)
		l.do(func() {
			require.Panics(t, func() { l.s.Submit(&Command{Long: make([]byte, maxCDB+1)}) })
		})
		l.run(newOp(DirRead, 0, data[:512]))
	})
}

// TestBidirectional: XDWRITEREAD writes, and reads what the old and the new data
// differ in, whatever the login settled on; with the residuals of either direction.
func TestBidirectional(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: 4 << 20}}})
		rng := rand.New(rand.NewPCG(5, 5))
		for i := range 24 {
			require.NoError(t, tgt.SetParams(iscsitest.Params{
				InitialR2T: i&1 != 0, NoImmediateData: i&2 != 0, MaxRecvDataSegmentLength: []uint32{512, 8192, 65536}[i%3],
				MaxBurstLength: []uint32{4096, 262144}[i/2%2], FirstBurstLength: 4096, MaxOutstandingR2T: 1 + uint16(i%4),
				AnyPDUOrder: i%8 > 3, AnySequenceOrder: i%5 > 2,
			}))
			t.Run(fmt.Sprint(i), func(t *testing.T) { exchange(t, at, tgt, rng, i) })
		}
	})
}

func exchange(t *testing.T, at place, tgt *iscsitest.Target, rng *rand.Rand, i int) {
	l := logIn(t, at, tgt, Config{
		MaxRecvDataSegmentLength: []uint32{512, 4096, 262144}[i%3], HeaderDigest: true, DataDigest: i%4 == 0,
		AnyPDUOrder: true, AnySequenceOrder: i%2 == 0,
	})
	blocks := 1 + rng.IntN(600)
	old := content(t, tgt)[512*7:][:512*blocks]
	data := make([]byte, len(old))
	fill(data, rng)
	o := newOp(DirBoth, 0, data)
	asked := len(data) + (i%3-1)*512 // less, as much, more
	o.In = make([]byte, asked)
	if i%2 == 0 {
		o.Long = long32(exchange32, 7, uint32(blocks))
	} else {
		o.CDB = scsi.Write10(7, uint32(blocks), 0)
		o.CDB[0] = 0x53
	}
	l.run(o)
	got := min(asked, len(data))
	assert.Equal(t, got, o.Received)
	assert.False(t, o.Underflow || o.Overflow, "all was written")
	assert.Equal(t, asked > len(data), o.InUnderflow)
	assert.Equal(t, asked < len(data), o.InOverflow)
	if asked != len(data) {
		assert.EqualValues(t, 512, o.InResidual)
	}
	want := bytes.Clone(data)
	for j := range want {
		want[j] ^= old[j]
	}
	assert.True(t, bytes.Equal(want[:got], o.In[:got]), "what came back")
	assert.True(t, bytes.Equal(data, content(t, tgt)[512*7:][:len(data)]), "what was written")
	l.close()
}

// TestBothWithoutData in one of the directions is a plain command.
func TestBothWithoutData(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, Config{})
		w := newOp(DirBoth, 3, bytes.Repeat([]byte{7}, 512))
		w.CDB = scsi.Write16(3, 1, 0)
		l.run(w)
		r := newOp(DirBoth, 3, nil)
		r.CDB, r.In = scsi.Read16(3, 1, 0), make([]byte, 512)
		l.run(r)
		require.Equal(t, 512, r.Received)
		require.Equal(t, w.Data, r.In)
	})
}
