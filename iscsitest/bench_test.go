package iscsitest

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// BenchmarkRead4K keeps 32 reads of 4 KiB in flight over loopback TCP; the cost
// includes that of a raw client.
func BenchmarkRead4K(b *testing.B) {
	tgt, err := NewTarget(Config{})
	require.NoError(b, err)
	defer tgt.Close()
	nc, err := net.Dial("tcp", tgt.Addr(0))
	require.NoError(b, err)
	defer nc.Close()
	login := &pdu.Login{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ITT: 1, CmdSN: 1}
	_, err = nc.Write(pdu.AppendPDU(nil, login.AppendTo(nil), nil, textOf(nameKeys...), pdu.Digests{}))
	require.NoError(b, err)
	buf := make([]byte, 16<<10)
	lim := pdu.Limits{MaxData: pdu.MaxDataLen}
	_, err = pdu.ReadPDU(nc, buf, pdu.Digests{}, lim)
	require.NoError(b, err)

	var raw []byte
	sent, done := 0, 0
	b.SetBytes(4096)
	for b.Loop() {
		for ; sent < done+32; sent++ {
			cmd := pdu.SCSICommand{
				Final: true, Read: true, ITT: uint32(sent), ExpectedDataLen: 4096,
				CmdSN: uint32(1 + sent), CDB: scsi.Read(uint64(sent%1000)*8, 8, 0),
			}
			raw = cmd.AppendTo(raw)
		}
		if len(raw) > 16*pdu.BHSLen || done == 0 {
			_, err = nc.Write(raw)
			require.NoError(b, err)
			raw = raw[:0]
		}
		p, err := pdu.ReadPDU(nc, buf, pdu.Digests{}, lim)
		require.NoError(b, err)
		require.Equal(b, pdu.OpDataIn, p.BHS.Opcode())
		done++
	}
}
