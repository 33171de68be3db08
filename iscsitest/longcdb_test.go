package iscsitest

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

func long32(action uint16, lba uint64, blocks uint32) []byte {
	b := make([]byte, longCDBLen)
	b[0], b[7] = byte(opVariableLength), longCDBLen-8
	binary.BigEndian.PutUint16(b[8:], action)
	binary.BigEndian.PutUint64(b[12:], lba)
	binary.BigEndian.PutUint32(b[28:], blocks)
	return b
}

// sendLong sends a command with additional header segments.
func (c *client) sendLong(cmd *pdu.SCSICommand, ahs, data []byte) {
	c.t.Helper()
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.nc.Write(pdu.AppendPDU(nil, cmd.AppendTo(nil), ahs, data, c.digests))
	require.NoError(c.t, err)
}

func TestLongCDBs(t *testing.T) {
	tgt := startTarget(t, Config{})
	var seen []byte
	tgt.Inject(Func("long", func(e *Event) bool {
		if e.Command != nil && e.Command.Long != nil && e.Opcode() == pdu.OpSCSICommand {
			seen = e.Command.Long
		}
		return false
	}))
	c := loggedIn(t, tgt, "HeaderDigest=CRC32C")
	run := func(cdb []byte, edtl uint32, data []byte) outcome {
		cmd := c.command(0, scsi.CDB(cdb[:16]), edtl, data == nil && edtl > 0, data != nil)
		c.sendLong(cmd, pdu.AppendExtendedCDB(nil, cdb[16:]), data)
		return c.await()
	}
	write := long32(actionWrite32, 5, 2)
	require.Equal(t, scsi.Good, run(write, 1024, pattern(1024, 9)).status)
	assert.Equal(t, write, seen)
	o := run(long32(actionRead32, 5, 2), 1024, nil)
	require.Equal(t, scsi.Good, o.status)
	assert.True(t, isPattern(o.data, 9))
	assert.Equal(t, scsi.ASCLBAOutOfRange, run(long32(actionRead32, 1<<40, 1), 512, nil).sense.Code)
	assert.Equal(t, scsi.ASCInvalidOpcode, run(long32(0x7777, 0, 0), 0, nil).sense.Code)
	vendor := append([]byte{0xc1}, make([]byte, 259)...)
	assert.Equal(t, scsi.ASCInvalidOpcode, run(vendor, 0, nil).sense.Code)
	assert.Len(t, seen, 260)
	assert.Empty(t, tgt.Violations())

	cmd := c.command(0, scsi.TestUnitReady(), 0, false, false)
	c.sendLong(cmd, []byte{0, 1, 0x3f, 0}, nil)
	assert.Equal(t, scsi.CheckCondition, c.await().status)
	assert.Len(t, tgt.Violations(), 1)
}

// TestXDWriteRead: a bidirectional command, short and long, with both residuals.
func TestXDWriteRead(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	c.write(3, pattern(1024, 5))
	long := long32(actionExchange32, 3, 2)
	short := scsi.Write(3, 2, 0)
	short[0] = byte(opExchange10)
	for _, cdb := range [][]byte{short[:], long} {
		cmd := c.command(0, scsi.CDB(cdb[:16]), 1024, true, true)
		ahs := pdu.AppendBidiReadLen(pdu.AppendExtendedCDB(nil, cdb[16:]), 2048)
		c.sendLong(cmd, ahs, pattern(1024, 5))
		o := c.await()
		require.Equal(t, scsi.Good, o.status)
		require.Len(t, o.data, 1024)
		assert.True(t, isZero(o.data), "the same data was there before")
		assert.False(t, o.resp.Underflow || o.resp.Overflow)
		assert.True(t, o.resp.BidiUnderflow)
		assert.EqualValues(t, 1024, o.resp.BidiResidualCount)
	}
	assert.Empty(t, tgt.Violations())
	c.send(c.command(0, short, 1024, true, true), pattern(1024, 6))
	c.await()
	assert.Len(t, tgt.Violations(), 1, "the AHS is missing")
}
