package iscsitest

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// FuzzTarget sends arbitrary bytes to a target, before or after a login. It must
// neither panic nor keep anything running.
func FuzzTarget(f *testing.F) {
	login := pdu.AppendPDU(nil, (&pdu.Login{
		Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ITT: 1, CmdSN: 1,
	}).AppendTo(nil), nil, textOf(append([]string{"MaxConnections=2", "ErrorRecoveryLevel=2"}, nameKeys...)...), pdu.Digests{})
	add := func(afterLogin bool, bhs, data []byte) {
		f.Add(afterLogin, pdu.AppendPDU(nil, bhs, nil, data, pdu.Digests{}))
	}
	f.Add(false, login)
	add(false, (&pdu.Login{Continue: true, ITT: 1}).AppendTo(nil), textOf("InitiatorName=a"))
	for _, cdb := range []scsi.CDB{
		scsi.Read(0, 8, 0), scsi.Inquiry(96), scsi.InquiryVPD(0x83, 255), scsi.ReportLuns(64), scsi.ReadCapacity16(32),
		scsi.ModeSense6(0x3f, 0, false, 255), scsi.GetLBAStatus(0, 64), scsi.ReportSupportedOpcodes(0, 0, 0, 4096), scsi.RequestSense(18),
	} {
		add(true, (&pdu.SCSICommand{Final: true, Read: true, ITT: 2, CmdSN: 1, ExpectedDataLen: 4096, CDB: cdb}).AppendTo(nil), nil)
	}
	params := scsi.AppendUnmapDescriptors(nil, []scsi.Extent{{LBA: 1, Blocks: 2}})
	add(true, (&pdu.SCSICommand{Final: true, Write: true, ITT: 2, CmdSN: 1, ExpectedDataLen: uint32(len(params)), CDB: scsi.Unmap(uint16(len(params)))}).AppendTo(nil), params)
	add(true, (&pdu.SCSICommand{Final: true, Write: true, ITT: 2, CmdSN: 1, ExpectedDataLen: 512, CDB: scsi.Write(3, 1, 0)}).AppendTo(nil), make([]byte, 512))
	add(true, (&pdu.SCSICommand{Write: true, ITT: 2, CmdSN: 1, ExpectedDataLen: 512, CDB: scsi.WriteSame16(3, 9, true, false)}).AppendTo(nil), nil)
	add(true, (&pdu.DataOut{Final: true, ITT: 2, TTT: 1}).AppendTo(nil), make([]byte, 64))
	add(true, (&pdu.TaskMgmt{Immediate: true, Function: pdu.TMAbortTask, ITT: 3, RefTaskTag: 2}).AppendTo(nil), nil)
	add(true, (&pdu.Text{Final: true, ITT: 4, TTT: pdu.ReservedTag, CmdSN: 1}).AppendTo(nil), textOf("SendTargets="))
	add(true, (&pdu.Logout{ITT: 5, CmdSN: 1}).AppendTo(nil), nil)
	for _, reason := range []pdu.LogoutReason{pdu.LogoutCloseConnection, pdu.LogoutForRecovery} {
		add(true, (&pdu.Logout{Immediate: true, Reason: reason, ITT: 5, CmdSN: 1}).AppendTo(nil), nil)
	}
	long := long32(actionRead32, 1, 1)
	f.Add(true, pdu.AppendPDU(nil, (&pdu.SCSICommand{
		Final: true, Read: true, ITT: 2, CmdSN: 1, ExpectedDataLen: 512, CDB: scsi.CDB(long[:16]),
	}).AppendTo(nil), pdu.AppendExtendedCDB(nil, long[16:]), nil, pdu.Digests{}))
	add(true, (&pdu.NOPOut{ITT: 6, TTT: pdu.ReservedTag, CmdSN: 1}).AppendTo(nil), []byte("ping"))
	add(true, (&pdu.SNACK{ITT: 6}).AppendTo(nil), nil)

	f.Fuzz(func(t *testing.T, afterLogin bool, raw []byte) {
		tgt, err := NewTarget(Config{
			Portals: []Portal{{Addr: "-"}}, LUNs: []LUN{{Size: 1 << 20}},
			Params: Params{MaxConnections: 2, ErrorRecoveryLevel: 2},
		})
		require.NoError(t, err)
		defer tgt.Close()
		nc, err := tgt.Dial(0)
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.Copy(io.Discard, nc)
		}()
		nc.SetWriteDeadline(time.Now().Add(patience))
		if afterLogin {
			nc.Write(login)
		}
		nc.Write(raw)
		nc.Close()
		<-done
	})
}
