package iscsitest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// TestDataOutRules breaks one rule at a time. Each is recorded, nothing is
// written, and the command ends with CHECK CONDITION once its data is through.
func TestDataOutRules(t *testing.T) {
	const size = 4096
	type sender func(c *client, cmd *pdu.SCSICommand, data []byte)
	solicited := func(change func(d *pdu.DataOut)) sender {
		return func(c *client, cmd *pdu.SCSICommand, data []byte) {
			c.send(cmd, nil)
			r := pdu.R2TView(c.recv(pdu.OpR2T).BHS).Decode()
			d := pdu.DataOut{Final: true, LUN: r.LUN, ITT: r.ITT, TTT: r.TTT}
			change(&d)
			n := int(r.DesiredDataLen)
			c.send(&d, data[:n])
			if !d.Final {
				c.send(&pdu.DataOut{Final: true, LUN: r.LUN, ITT: r.ITT, TTT: r.TTT, DataSN: 1, BufferOffset: uint32(n)}, nil)
			}
		}
	}
	unsolicited := func(final bool, immediate int, parts ...pdu.DataOut) sender {
		return func(c *client, cmd *pdu.SCSICommand, data []byte) {
			cmd.Final = final
			c.send(cmd, data[:immediate])
			for _, d := range parts {
				d.ITT, d.TTT = cmd.ITT, pdu.ReservedTag
				c.send(&d, data[d.BufferOffset:int(d.BufferOffset)+d.DataLen])
			}
		}
	}
	free := []string{"InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=2048"}
	strict := []string{"InitialR2T=Yes", "ImmediateData=No"}
	for _, tc := range []struct {
		name string
		keys []string
		send sender
		code scsi.ASC
	}{
		{"immediate data not negotiated", strict, unsolicited(true, 512), scsi.ASCUnexpectedUnsolicited},
		{"unsolicited data not negotiated", strict, unsolicited(false, 0, pdu.DataOut{Final: true, DataLen: 2048}), scsi.ASCUnexpectedUnsolicited},
		{"immediate data over FirstBurstLength", free, unsolicited(true, 2560), scsi.ASCUnexpectedUnsolicited},
		{"unsolicited data over FirstBurstLength", free, unsolicited(false, 512, pdu.DataOut{Final: true, BufferOffset: 512, DataLen: 2048}), scsi.ASCNotEnoughUnsolicited},
		{"unsolicited data under FirstBurstLength", free, unsolicited(false, 512, pdu.DataOut{Final: true, BufferOffset: 512, DataLen: 512}), scsi.ASCNotEnoughUnsolicited},
		{"unsolicited data with a gap", free, unsolicited(false, 512, pdu.DataOut{Final: true, BufferOffset: 1024, DataLen: 1536}), scsi.ASCNotEnoughUnsolicited},
		{"unsolicited DataSN", free, unsolicited(false, 512, pdu.DataOut{BufferOffset: 512, DataLen: 512}, pdu.DataOut{Final: true, BufferOffset: 1024, DataLen: 1024}), scsi.ASCNotEnoughUnsolicited},
		{"DataSN", strict, solicited(func(d *pdu.DataOut) { d.DataSN = 1 }), scsi.ASCNotEnoughUnsolicited},
		{"Buffer Offset", strict, solicited(func(d *pdu.DataOut) { d.BufferOffset = 512 }), scsi.ASCNotEnoughUnsolicited},
		{"LUN", strict, solicited(func(d *pdu.DataOut) { d.LUN = 7 << 48 }), scsi.ASCNotEnoughUnsolicited},
		{"no F bit", strict, solicited(func(d *pdu.DataOut) { d.Final = false }), scsi.ASCNotEnoughUnsolicited},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tgt := startTarget(t, Config{})
			c := loggedIn(t, tgt, tc.keys...)
			cmd := c.command(0, scsi.Write(0, size/512, 0), size, false, true)
			tc.send(c, cmd, pattern(size, 1))
			var o outcome
			for { // a Reject may come before or after
				p, err := c.recvErr()
				require.NoError(t, err)
				if p.BHS.Opcode() == pdu.OpSCSIResponse {
					o.status = scsi.Status(pdu.SCSIResponseView(p.BHS).Status())
					o.sense, _ = scsi.ParseSense(p.Data[2:])
					break
				}
				require.Equal(t, pdu.OpReject, p.BHS.Opcode())
			}
			assert.Equal(t, scsi.CheckCondition, o.status)
			assert.Equal(t, scsi.Sense{Key: scsi.KeyAbortedCommand, Code: tc.code}, o.sense)
			assert.NotEmpty(t, tgt.Violations())
			assert.True(t, isZero(readMedium(t, tgt, 0, size/512)))
		})
	}
}

func TestR2TsMustBeAnsweredInOrder(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{R2TLength: 512}})
	c := loggedIn(t, tgt, "InitialR2T=Yes", "ImmediateData=No", "MaxOutstandingR2T=2")
	data := pattern(1024, 1)
	c.send(c.command(0, scsi.Write(0, 2, 0), 1024, false, true), nil)
	first := pdu.R2TView(c.recv(pdu.OpR2T).BHS).Decode()
	second := pdu.R2TView(c.recv(pdu.OpR2T).BHS).Decode()
	c.answerR2T(second, data, 512)
	c.answerR2T(first, data, 512)
	assert.Equal(t, scsi.CheckCondition, c.await().status)
	assert.Len(t, tgt.Violations(), 1)
}

func TestADataSegmentLongerThanDeclaredEndsTheConnection(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{MaxRecvDataSegmentLength: 1024}})
	c := loggedIn(t, tgt)
	go func() { // net.Pipe: the target stops reading within
		raw := pdu.AppendPDU(nil, c.command(0, scsi.Write(0, 4, 0), 2048, false, true).AppendTo(nil), nil, pattern(2048, 1), c.digests)
		c.nc.Write(raw)
	}()
	c.expectEnd()
	assert.Len(t, tgt.Violations(), 1)
}

func TestWriteShorterThanTheCommand(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	c.send(c.command(0, scsi.Write(0, 4, 0), 1024, false, true), pattern(1024, 1))
	o := c.await()
	assert.Equal(t, scsi.Good, o.status)
	assert.True(t, o.over)
	assert.EqualValues(t, 1024, o.resid)
	assert.True(t, isPattern(readMedium(t, tgt, 0, 2), 1))
	assert.True(t, isZero(readMedium(t, tgt, 2, 2)), "nothing past what was sent")

	c.send(c.command(0, scsi.Write(8, 1, 0), 1024, false, true), pattern(1024, 2))
	o = c.await()
	assert.True(t, o.under)
	assert.EqualValues(t, 512, o.resid)
	assert.True(t, isZero(readMedium(t, tgt, 9, 1)), "nothing past the command's blocks")
}
