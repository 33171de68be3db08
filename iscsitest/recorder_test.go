package iscsitest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestRecorderKeepsATrace(t *testing.T) {
	var live strings.Builder
	rec := &Recorder{KeepData: true, Live: &live}
	tgt := startTarget(t, Config{Recorder: rec})
	c := loggedIn(t, tgt)
	rec.Reset()
	require.Equal(t, scsi.Good, c.write(8, pattern(512, 1)).status)
	c.read(8, 1)
	want := strings.TrimPrefix(`
> SCSI-Command I=0 F=1 W itt=00000001 lun=0 cmdsn=100 expstatsn=3 edtl=512 cdb=2a000000000800000100 len=512
< SCSI-Response response=completed status=00 itt=00000001 statsn=3 expcmdsn=101 maxcmdsn=228 expdatasn=0
> SCSI-Command I=0 F=1 R itt=00000002 lun=0 cmdsn=101 expstatsn=4 edtl=512 cdb=28000000000800000100
< Data-In F=1 S itt=00000002 status=00 statsn=4 expcmdsn=102 maxcmdsn=229 datasn=0 offset=0 len=512
`, "\n")
	got := strings.ReplaceAll(rec.Trace(0), "attr=simple ", "")
	assert.Equal(t, want, got)
	assert.Contains(t, live.String(), "Login")
	assert.Equal(t, 2, rec.Count(OfCommand(scsi.OpRead10)))
	data := rec.Select(Op(pdu.OpDataIn))
	require.Len(t, data, 1)
	assert.True(t, isPattern(data[0].Data, 1))
	require.NoError(t, rec.CheckCmdSNOrder())
	assert.True(t, strings.HasPrefix(rec.Trace(-1), "0 > "))
}

func TestCheckCmdSNOrderFindsWhatIsWrong(t *testing.T) {
	record := func(rec *Recorder, conn int, immediate bool, sn uint32) {
		rec.record(FromInitiator, 0, conn, (&pdu.NOPOut{Immediate: immediate, CmdSN: sn}).AppendTo(nil), nil)
	}
	type step struct {
		immediate bool
		sn        uint32
	}
	for _, tc := range []struct {
		name  string
		steps []step
		good  bool
	}{
		{"in order over the wrap", []step{{false, 0xffffffff}, {false, 0}, {false, 1}}, true},
		{"immediate carries the next", []step{{false, 5}, {true, 6}, {false, 6}}, true},
		{"swapped", []step{{false, 5}, {false, 7}, {false, 6}}, false},
		{"hole", []step{{false, 5}, {false, 7}}, false},
		{"twice", []step{{false, 5}, {false, 5}}, false},
		{"immediate with an old one", []step{{false, 5}, {true, 5}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := &Recorder{}
			record(rec, 1, false, 900) // another connection does not matter
			for _, s := range tc.steps {
				record(rec, 0, s.immediate, s.sn)
			}
			assert.Equal(t, tc.good, rec.CheckCmdSNOrder() == nil)
		})
	}
}

func TestRecorderForgetsTheOldest(t *testing.T) {
	rec := &Recorder{Limit: 10}
	for i := range uint32(25) {
		rec.record(FromInitiator, 0, 0, (&pdu.NOPOut{CmdSN: i}).AppendTo(nil), nil)
	}
	records := rec.Records()
	assert.Len(t, records, 10)
	assert.EqualValues(t, 24, records[9].BHS().CmdSN())
	assert.Equal(t, 24, records[9].Index)
}

// TestCheckCmdSNOrderOverConnections has two connections in a session, the first
// of which is logged out over the second.
func TestCheckCmdSNOrderOverConnections(t *testing.T) {
	for name, tc := range map[string]struct {
		before  []uint32 // on the first connection
		logout  bool
		after   []uint32 // on the second
		itt     uint32   // added to the tags of those
		isValid bool
	}{
		"gaps":                        {[]uint32{1, 4}, false, []uint32{2, 3, 5}, 0, true},
		"swapped":                     {[]uint32{1, 4}, false, []uint32{3, 2}, 0, false},
		"retry":                       {[]uint32{1, 2}, true, []uint32{5, 2}, 0, true},
		"retry of what never arrived": {[]uint32{1, 3}, true, []uint32{5, 2, 6}, 0, true},
		"retry without logout":        {[]uint32{1, 2}, false, []uint32{5, 2}, 0, false},
		"another tag":                 {[]uint32{1, 2}, true, []uint32{5, 2}, 1, false},
		"retry twice":                 {[]uint32{1, 2}, true, []uint32{5, 2, 2}, 0, false},
		"own number again":            {[]uint32{1, 2}, true, []uint32{5, 6, 5}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			rec := new(Recorder)
			record := func(dir Direction, conn int, p appender) { rec.record(dir, 0, conn, p.AppendTo(nil), nil) }
			for conn, tsih := range []uint16{0, 7} {
				record(FromInitiator, conn, &pdu.Login{CID: uint16(conn), TSIH: tsih, CmdSN: 1, CSG: pdu.StageOperational})
				record(FromTarget, conn, &pdu.LoginResponse{
					Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, TSIH: 7,
				})
			}
			for _, sn := range tc.before {
				record(FromInitiator, 0, &pdu.NOPOut{CmdSN: sn, ITT: sn})
			}
			if tc.logout {
				record(FromInitiator, 1, &pdu.Logout{Immediate: true, Reason: pdu.LogoutCloseConnection, ITT: 99, CmdSN: 5})
				record(FromTarget, 1, &pdu.LogoutResponse{ITT: 99})
			}
			for _, sn := range tc.after {
				record(FromInitiator, 1, &pdu.NOPOut{CmdSN: sn, ITT: sn + tc.itt})
			}
			err := rec.CheckCmdSNOrder()
			assert.Equal(t, tc.isValid, err == nil, "%v", err)
		})
	}
}
