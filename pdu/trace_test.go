package pdu

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata/trace.txt; review the difference")

// tracedPDUs returns headers as they occur in practice, beyond the golden ones.
func tracedPDUs() [][]byte {
	read := [16]byte{0: 0x28, 8: 8}
	long := [16]byte{0: 0x2a, 15: 1} // more bytes in use than its group code says
	return [][]byte{
		(&SCSICommand{
			Final: true, Read: true, Attr: AttrSimple, LUN: 1 << 48, ITT: 3, ExpectedDataLen: 4096,
			CmdSN: 7, ExpStatSN: 5, CDB: read,
		}).AppendTo(nil),
		(&SCSICommand{Read: true, Write: true, LUN: 0x4001 << 48, CDB: long, AHSLen: 8}).AppendTo(nil),
		(&SCSICommand{Final: true, CDB: [16]byte{}}).AppendTo(nil),
		(&SCSICommand{Final: true, Attr: 7, CDB: [16]byte{0x9e, 0x10}}).AppendTo(nil),
		(&SCSICommand{Final: true, CDB: [16]byte{0xa0}}).AppendTo(nil),
		(&SCSIResponse{ITT: 3, StatSN: 5, ExpCmdSN: 8, MaxCmdSN: 40}).AppendTo(nil),
		(&SCSIResponse{Overflow: true, ResidualCount: 10, BidiUnderflow: true, BidiResidualCount: 11}).AppendTo(nil),
		(&DataIn{ITT: 3, DataSN: 1, BufferOffset: 4096, DataLen: 4096, ExpCmdSN: 8, MaxCmdSN: 40}).AppendTo(nil),
		(&DataIn{Final: true, HasStatus: true, Underflow: true, ResidualCount: 512, StatSN: 5}).AppendTo(nil),
		(&Login{Transit: true, NSG: StageOperational, CmdSN: 1, DataLen: 150}).AppendTo(nil),
		(&LoginResponse{Transit: true, CSG: StageOperational, NSG: StageFullFeature, TSIH: 9}).AppendTo(nil),
		(&TaskMgmtResponse{Response: TMNoTask}).AppendTo(nil),
		(&TaskMgmtResponse{Response: 77}).AppendTo(nil),
		(&Async{AsyncEvent: 250, AsyncVCode: 3}).AppendTo(nil),
		(&NOPIn{ITT: ReservedTag, TTT: ReservedTag}).AppendTo(nil),
		append([]byte{0x5c, 0x80}, make([]byte, BHSLen-2)...),
		{0x20, 0x80, 0x00},
		nil,
	}
}

// traceLines traces every golden header, so that no PDU type is left out, and then
// the practical ones.
func traceLines(t *testing.T) string {
	var text []byte
	for _, c := range codecs() {
		header := unhex(t, c.golden)
		text = AppendTrace(text, !BHS(header).Opcode().FromTarget(), header)
		text = append(text, '\n')
	}
	for _, header := range tracedPDUs() {
		fromInitiator := len(header) > 0 && !BHS(header).Opcode().FromTarget()
		text = AppendTrace(text, fromInitiator, header)
		text = append(text, '\n')
	}
	return string(text)
}

func TestAppendTrace(t *testing.T) {
	got := traceLines(t)
	if *rewrite {
		require.NoError(t, os.WriteFile("testdata/trace.txt", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/trace.txt")
	require.NoError(t, err)
	assert.Equal(t, strings.Split(string(want), "\n"), strings.Split(got, "\n"))
}

func TestAppendTraceExample(t *testing.T) {
	assert.Equal(t,
		"> SCSI-Command I=0 F=1 R itt=00000003 lun=1 cmdsn=7 expstatsn=5 edtl=4096 cdb=28000000000000000800",
		string(AppendTrace(nil, true, tracedPDUs()[0])))
}

// Codes of any value, known or not, leave a line of text in the trace.
func TestAppendTraceOfEveryCode(t *testing.T) {
	for _, c := range codecs() {
		header := unhex(t, c.golden)
		for _, at := range []int{1, 2, 3, 36, 37} {
			for code := range 256 {
				b := append([]byte(nil), header...)
				b[at] = byte(code)
				require.Contains(t, string(AppendTrace(nil, true, b)), BHS(b).Opcode().String()+" ")
			}
		}
	}
}

func TestAppendTraceDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1024)
	headers := tracedPDUs()
	for _, c := range codecs() {
		headers = append(headers, unhex(t, c.golden))
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		for _, header := range headers {
			buf = AppendTrace(buf[:0], true, header)
		}
	}))
}

func BenchmarkAppendTrace(b *testing.B) {
	buf, header := make([]byte, 0, 1024), tracedPDUs()[0]
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendTrace(buf[:0], true, header)
	}
}
