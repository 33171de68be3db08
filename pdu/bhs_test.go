package pdu

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestBHSLengths(t *testing.T) {
	b := make(BHS, BHSLen)
	for _, n := range []int{0, 4, 8, 1016, MaxAHSLen} {
		b.SetAHSLen(n)
		assert.Equal(t, n, b.AHSLen())
		assert.Equal(t, byte(n/4), b[4])
	}
	for _, n := range []int{0, 1, 255, 256, 65535, 65536, 0x123456, MaxDataLen} {
		b.SetDataLen(n)
		assert.Equal(t, n, b.DataLen())
		assert.Equal(t, MaxAHSLen, b.AHSLen(), "the neighboring field stays")
	}
	b.SetDataLen(0x123456)
	assert.Equal(t, []byte{0x12, 0x34, 0x56}, []byte(b[5:8]))
}

func TestLengthsThatDoNotFitPanic(t *testing.T) {
	b := make(BHS, BHSLen)
	for _, n := range []int{-4, -1, 1, 2, 3, 1018, MaxAHSLen + 4} {
		assert.Panics(t, func() { b.SetAHSLen(n) }, "AHS %d", n)
	}
	for _, n := range []int{-1, MaxDataLen + 1} {
		assert.Panics(t, func() { b.SetDataLen(n) }, "data %d", n)
	}
	assert.Equal(t, make(BHS, BHSLen), b, "nothing is written before the panic")
	for _, c := range codecs() {
		assert.Panics(t, func() { c.decode(make([]byte, BHSLen-1)) }, c.name)
	}
}

func TestBHSSettersMatchTypedViews(t *testing.T) {
	b := BHS((&NOPOut{}).AppendTo(nil))
	b.SetITT(0x01020304)
	b.SetCmdSN(0x05060708)
	b.SetExpStatSN(0x090a0b0c)
	assert.Equal(t, NOPOut{ITT: 0x01020304, CmdSN: 0x05060708, ExpStatSN: 0x090a0b0c}, NOPOutView(b).Decode())

	b = BHS((&NOPIn{}).AppendTo(nil))
	b.SetStatSN(0x01020304)
	b.SetExpCmdSN(0x05060708)
	b.SetMaxCmdSN(0x090a0b0c)
	assert.Equal(t, NOPIn{StatSN: 0x01020304, ExpCmdSN: 0x05060708, MaxCmdSN: 0x090a0b0c}, NOPInView(b).Decode())
}

func TestOpcodeIgnoresTheOtherBits(t *testing.T) {
	b := make(BHS, BHSLen)
	b[0] = 0x80 | 0x40 | 0x25
	assert.Equal(t, OpDataIn, b.Opcode())
	assert.True(t, b.Immediate())
	assert.False(t, b.Final())
	b[1] = 0x80
	assert.True(t, b.Final())
}

func TestOpcodeNames(t *testing.T) {
	names := map[string]Opcode{}
	known := 0
	for i := range 256 {
		op := Opcode(i)
		assert.NotEmpty(t, op.String())
		assert.NotContains(t, names, op.String(), "two opcodes with one name")
		names[op.String()] = op
		if op.Known() {
			known++
			assert.Equal(t, op >= OpNOPIn, op.FromTarget(), "%v", op)
		}
	}
	assert.Equal(t, 18, known)
	assert.Equal(t, "SCSI-Command", OpSCSICommand.String())
	assert.Equal(t, "Opcode-0x1c", Opcode(0x1c).String())
	assert.Equal(t, "Opcode-0xff", Opcode(0xff).String())
}

// Every code of every type has a name, different from all others of its type.
func TestCodeNames(t *testing.T) {
	name := map[string]func(uint8) fmt.Stringer{
		"TaskAttr":        func(c uint8) fmt.Stringer { return TaskAttr(c) },
		"ServiceResponse": func(c uint8) fmt.Stringer { return ServiceResponse(c) },
		"TMFunction":      func(c uint8) fmt.Stringer { return TMFunction(c) },
		"TMResponse":      func(c uint8) fmt.Stringer { return TMResponse(c) },
		"Stage":           func(c uint8) fmt.Stringer { return Stage(c) },
		"LogoutReason":    func(c uint8) fmt.Stringer { return LogoutReason(c) },
		"LogoutResult":    func(c uint8) fmt.Stringer { return LogoutResult(c) },
		"SNACKType":       func(c uint8) fmt.Stringer { return SNACKType(c) },
		"AsyncEvent":      func(c uint8) fmt.Stringer { return AsyncEvent(c) },
		"RejectReason":    func(c uint8) fmt.Stringer { return RejectReason(c) },
	}
	for typ, of := range name {
		seen := map[string]int{}
		for c := range 256 {
			s := of(uint8(c)).String()
			other, dup := seen[s]
			assert.False(t, dup, "%s: %d and %d are both %q", typ, c, other, s)
			seen[s] = c
		}
	}
	for want, got := range map[string]fmt.Stringer{
		"head-of-queue":               AttrHeadOfQueue,
		"attr-0x07":                   TaskAttr(7),
		"target-failure":              ServiceTargetFailure,
		"task-reassign":               TMTaskReassign,
		"function-0x00":               TMFunction(0),
		"query-async-event":           TMQueryAsyncEvent,
		"succeeded":                   TMSucceeded,
		"rejected":                    TMRejected,
		"response-0x08":               TMResponse(8),
		"full-feature":                StageFullFeature,
		"stage-0x02":                  Stage(2),
		"remove-for-recovery":         LogoutForRecovery,
		"cleanup-failed":              LogoutCleanupFailed,
		"r-data":                      SNACKRData,
		"task-termination":            AsyncTaskTermination,
		"event-0x06":                  AsyncEvent(6),
		"vendor-0xf8":                 AsyncEvent(248),
		"waiting-for-logout":          RejectWaitingForLogout,
		"too-many-immediate-commands": RejectImmediate,
		"reason-0x0d":                 RejectReason(0x0d),
	} {
		assert.Equal(t, want, got.String())
	}
}

func TestRejectResendable(t *testing.T) {
	// The third column of the table in RFC 7143 §11.17.1.
	yes := map[RejectReason]bool{0x02: true, 0x03: true, 0x06: true, 0x0a: true}
	for c := range 256 {
		r := RejectReason(c)
		assert.Equal(t, yes[r], r.Resendable(), "%v", r)
	}
}

func TestLoginStatus(t *testing.T) {
	assigned := []LoginStatus{0x0000, 0x0101, 0x0102, 0x0300, 0x0301, 0x0302}
	for detail := range LoginStatus(0x0c) {
		assigned = append(assigned, 0x0200+detail)
	}
	seen := map[string]bool{}
	for _, s := range assigned {
		text := s.String()
		assert.Contains(t, text, fmt.Sprintf("0x%04x: ", uint16(s)))
		assert.NotContains(t, text, "unknown detail", "%04x", uint16(s))
		assert.NotContains(t, text, "reserved", "%04x", uint16(s))
		assert.False(t, seen[text[8:]], "text of %s occurs twice", text)
		seen[text[8:]] = true
	}
	for s, want := range map[LoginStatus]string{
		0x0001: "success with an unknown detail",
		0x0103: "TargetAddress",
		0x020c: "do not retry unchanged",
		0x0303: "retry later",
		0x0400: "reserved status class",
		0xffff: "reserved status class",
	} {
		assert.Contains(t, s.String(), want)
	}
	p := LoginResponse{StatusClass: 2, StatusDetail: 1}
	assert.Equal(t, LoginAuthFailure, p.LoginStatus())
	assert.Equal(t, LoginAuthFailure, LoginResponseView(p.AppendTo(nil)).LoginStatus())
	assert.EqualValues(t, 3, LoginOutOfResources.Class())
	assert.EqualValues(t, 2, LoginOutOfResources.Detail())
}
