package iscsitest

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestReadBackOverEveryTransport(t *testing.T) {
	leak.Check(t)
	tgt, err := NewTarget(Config{})
	require.NoError(t, err)
	t.Cleanup(tgt.Close)
	tcp, err := net.Dial("tcp", tgt.Addr(0))
	require.NoError(t, err)
	pipe, err := tgt.Dial(0)
	require.NoError(t, err)
	for i, nc := range []net.Conn{tcp, pipe} {
		c := newClient(t, nc)
		c.isid[5] = byte(i)
		c.login()
		require.Equal(t, scsi.Good, c.write(uint64(8*i), pattern(4096, byte(i))).status)
		assert.True(t, isPattern(c.read(uint64(8*i), 8), byte(i)))
	}
	assert.Len(t, tgt.Sessions(), 2)
	assert.Empty(t, tgt.Violations())
}

func TestDataInIsSplitByWhatTheInitiatorTakes(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt, "MaxRecvDataSegmentLength=1024", "MaxBurstLength=2560")
	_, err := tgt.Medium(0).WriteAt(pattern(8192, 3), 0)
	require.NoError(t, err)
	o := c.run(0, scsi.Read(0, 16, 0), 8192)
	require.True(t, isPattern(o.data, 3))
	var ends []uint32 // of sequences
	for i, in := range o.pdus {
		assert.LessOrEqual(t, in.DataLen, 1024)
		if in.Final {
			ends = append(ends, in.BufferOffset+uint32(in.DataLen))
		}
		assert.Equal(t, i == len(o.pdus)-1, in.HasStatus)
	}
	assert.Equal(t, []uint32{2560, 5120, 7680, 8192}, ends)
}

func TestSeparateStatus(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{SeparateStatus: true}})
	c := loggedIn(t, tgt)
	o := c.run(0, scsi.Read(0, 4, 0), 2048)
	require.Len(t, o.pdus, 1)
	assert.False(t, o.pdus[0].HasStatus)
	assert.True(t, o.pdus[0].Final)
	assert.EqualValues(t, 1, o.resp.ExpDataSN)
}

func TestResiduals(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	for _, tc := range []struct {
		name        string
		edtl        uint32
		over, under bool
		resid       uint32
		data        int
	}{
		{"exact", 1024, false, false, 0, 1024},
		{"too little asked for", 512, true, false, 512, 512},
		{"too much asked for", 4096, false, true, 3072, 1024},
		{"nothing asked for", 0, true, false, 1024, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := c.run(0, scsi.Read(0, 2, 0), tc.edtl)
			assert.Equal(t, scsi.Good, o.status)
			assert.Equal(t, []any{tc.over, tc.under, tc.resid, tc.data}, []any{o.over, o.under, o.resid, len(o.data)})
		})
	}
}

// writeCase is one way to send write data.
type writeCase struct {
	name      string
	params    Params
	keys      []string
	immediate int // bytes in the command
	unsol     int // bytes in unsolicited Data-Out
	wantR2Ts  int
}

func TestWriteDataPhases(t *testing.T) {
	const size = 64 << 10
	for _, tc := range []writeCase{
		{"all by R2T", Params{R2TLength: 16 << 10}, []string{"InitialR2T=Yes", "ImmediateData=No"}, 0, 0, 4},
		{"immediate, rest by R2T", Params{}, []string{"ImmediateData=Yes"}, 8192, 0, 1},
		{"immediate and unsolicited", Params{}, []string{"InitialR2T=No", "FirstBurstLength=32768"}, 8192, 24 << 10, 1},
		{"unsolicited alone", Params{}, []string{"InitialR2T=No", "FirstBurstLength=65536"}, 0, size, 0},
		{"all immediate", Params{}, []string{"FirstBurstLength=65536"}, size, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tgt := startTarget(t, Config{Params: tc.params})
			c := loggedIn(t, tgt, tc.keys...)
			data := pattern(size, 7)
			cmd := c.command(0, scsi.Write(64, size/512, 0), size, false, true)
			cmd.Final = tc.unsol == 0
			c.send(cmd, data[:tc.immediate])
			for sn, off := uint32(0), tc.immediate; off < tc.immediate+tc.unsol; sn++ {
				n := min(8192, tc.immediate+tc.unsol-off)
				c.send(&pdu.DataOut{
					Final: off+n == tc.immediate+tc.unsol, ITT: cmd.ITT, TTT: pdu.ReservedTag, ExpStatSN: c.expStat,
					DataSN: sn, BufferOffset: uint32(off),
				}, data[off:off+n])
				off += n
			}
			r2ts := tgt.countR2Ts(c, cmd, data)
			assert.Equal(t, tc.wantR2Ts, r2ts)
			assert.True(t, isPattern(c.read(64, size/512), 7))
			assert.Empty(t, tgt.Violations())
		})
	}
}

// countR2Ts answers R2Ts until the good end of the command.
func (tgt *Target) countR2Ts(c *client, cmd *pdu.SCSICommand, data []byte) (n int) {
	c.t.Helper()
	for {
		p, err := c.recvErr()
		require.NoError(c.t, err)
		if p.BHS.Opcode() != pdu.OpR2T {
			require.Equal(c.t, pdu.OpSCSIResponse, p.BHS.Opcode())
			require.EqualValues(c.t, scsi.Good, pdu.SCSIResponseView(p.BHS).Status())
			return n
		}
		n++
		c.answerR2T(pdu.R2TView(p.BHS).Decode(), data, 4096)
	}
}

func TestSeveralR2TsAreOutstanding(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{R2TLength: 4096, MaxOutstandingR2T: 3}})
	c := loggedIn(t, tgt, "InitialR2T=Yes", "ImmediateData=No", "MaxOutstandingR2T=8")
	assert.Equal(t, "3", c.keys["MaxOutstandingR2T"])
	data := pattern(20<<10, 9)
	cmd := c.command(0, scsi.Write(0, 40, 0), uint32(len(data)), false, true)
	c.send(cmd, nil)
	var open []pdu.R2T
	for range 3 { // before any of them is answered
		open = append(open, pdu.R2TView(c.recv(pdu.OpR2T).BHS).Decode())
	}
	c.expectNothing()
	for i, r := range open {
		assert.EqualValues(t, i, r.R2TSN)
		c.answerR2T(r, data, 8192)
	}
	p := c.answerR2Ts(cmd, data, 8192)
	assert.EqualValues(t, scsi.Good, pdu.SCSIResponseView(p.BHS).Status())
	assert.EqualValues(t, 5, pdu.SCSIResponseView(p.BHS).ExpDataSN())
	assert.True(t, isPattern(c.read(0, 40), 9))
	assert.Empty(t, tgt.Violations())
}

func TestDigestsBothWays(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{HeaderDigest: DigestRequired, DataDigest: DigestRequired}})
	c := loggedIn(t, tgt, "HeaderDigest=CRC32C,None", "DataDigest=None,CRC32C")
	require.True(t, c.digests.Header && c.digests.Data)
	require.Equal(t, scsi.Good, c.write(0, pattern(512, 1)).status)
	assert.True(t, isPattern(c.read(0, 1), 1))
	assert.Empty(t, tgt.Violations())
}

func TestDigestErrorsEndTheConnection(t *testing.T) {
	for _, part := range []string{"header", "data"} {
		t.Run(part, func(t *testing.T) {
			tgt := startTarget(t, Config{})
			c := loggedIn(t, tgt, "HeaderDigest=CRC32C", "DataDigest=CRC32C")
			cmd := c.command(0, scsi.Write(0, 1, 0), 512, false, true).AppendTo(nil)
			raw := pdu.AppendPDU(nil, cmd, nil, pattern(512, 1), c.digests)
			if part == "header" {
				raw[40] ^= 1
			} else {
				raw[100] ^= 1
			}
			go c.nc.Write(raw) // net.Pipe: the target may stop reading within
			if part == "data" {
				p := c.recv(pdu.OpReject)
				assert.Equal(t, pdu.RejectDataDigest, pdu.RejectView(p.BHS).Reason())
			}
			c.expectEnd()
			assert.True(t, isZero(readMedium(t, tgt, 0, 1)), "nothing may be written")
		})
	}
}

// readMedium reads blocks of 512 bytes past the target.
func readMedium(t *testing.T, tgt *Target, lba, blocks int64) []byte {
	t.Helper()
	b := make([]byte, blocks*512)
	_, err := tgt.Medium(0).ReadAt(b, lba*512)
	require.NoError(t, err)
	return b
}

func TestPortalsStopAndStart(t *testing.T) {
	leak.Check(t)
	tgt, err := NewTarget(Config{Portals: []Portal{{}, {Down: true}}})
	require.NoError(t, err)
	defer tgt.Close()
	nc, err := net.Dial("tcp", tgt.Addr(0))
	require.NoError(t, err)
	c := newClient(t, nc)
	c.login()
	addr := tgt.Addr(0)
	tgt.StopPortal(0)
	c.expectEnd()
	_, err = net.Dial("tcp", addr)
	require.Error(t, err)
	_, err = tgt.Dial(0)
	require.Error(t, err)
	require.NoError(t, tgt.StartPortal(0))
	assert.Equal(t, addr, tgt.Addr(0))
	nc, err = net.Dial("tcp", addr)
	require.NoError(t, err)
	c = newClient(t, nc)
	c.login()
	c.ping()
	_, err = tgt.Dial(1)
	require.Error(t, err, "a portal that is down")
}
