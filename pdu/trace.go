package pdu

import (
	"encoding/hex"
	"strconv"
)

// AppendTrace appends one line of text that describes the header bhs, without a
// newline and without allocating, such as
//
//	> SCSI-Command I=0 F=1 R itt=00000003 lun=1 cmdsn=7 expstatsn=5 edtl=4096 cdb=28000000000000000800
//
// The line starts with > when fromInitiator and with < otherwise, then come the
// PDU type and its fields in a fixed order: tags in hexadecimal, numbers in
// decimal, codes by name. Fields that say nothing in this PDU, such as a zero
// length or a residual count without its flag, are left out. The format is stable:
// recorded traces are compared as text. A header of an unknown type, or one
// shorter than BHSLen, is shown in hexadecimal.
func AppendTrace(dst []byte, fromInitiator bool, bhs BHS) []byte {
	direction := "< "
	if fromInitiator {
		direction = "> "
	}
	t := tracer(append(dst, direction...))
	if len(bhs) < BHSLen {
		return t.word("short-header").hex("bytes", bhs)
	}
	op := bhs.Opcode()
	if !op.Known() {
		return t.word("unknown-opcode").hex("bhs", bhs[:BHSLen])
	}
	t = append(t, opcodeNames[op]...)
	t = t.body(op, bhs[:BHSLen])
	if n := bhs.AHSLen(); n != 0 {
		t = t.num("ahs", uint64(n))
	}
	if n := bhs.DataLen(); n != 0 {
		t = t.num("len", uint64(n))
	}
	return t
}

// tracer is the line so far.
type tracer []byte

func (t tracer) body(op Opcode, b BHS) tracer {
	switch op {
	case OpNOPOut:
		return t.flag("I", b.Immediate()).itt(b).ttt(b).lun(b).request(b)
	case OpSCSICommand:
		return t.scsiCommand(SCSICommandView(b))
	case OpTaskMgmt:
		return t.taskMgmt(TaskMgmtView(b))
	case OpLogin:
		return t.login(LoginView(b))
	case OpText:
		return t.flag("I", b.Immediate()).flag("F", b.Final()).flag("C", TextView(b).Continue()).
			itt(b).ttt(b).lun(b).request(b)
	case OpDataOut:
		v := DataOutView(b)
		return t.flag("F", v.Final()).itt(b).ttt(b).lun(b).num32("expstatsn", v.ExpStatSN()).
			num32("datasn", v.DataSN()).num32("offset", v.BufferOffset())
	case OpLogout:
		v := LogoutView(b)
		return t.flag("I", v.Immediate()).code("reason", logoutReasonNames, uint8(v.Reason())).
			itt(b).num32("cid", uint32(v.CID())).request(b)
	case OpSNACK:
		v := SNACKView(b)
		return t.code("type", snackTypeNames, uint8(v.Type())).itt(b).ttt(b).lun(b).
			num32("expstatsn", v.ExpStatSN()).num32("begrun", v.BegRun()).num32("runlength", v.RunLength())
	default:
		return t.targetBody(op, b)
	}
}

func (t tracer) targetBody(op Opcode, b BHS) tracer {
	switch op {
	case OpNOPIn:
		return t.itt(b).ttt(b).lun(b).response(b)
	case OpSCSIResponse:
		return t.scsiResponse(SCSIResponseView(b))
	case OpTaskMgmtResponse:
		return t.tmResponse(TaskMgmtResponseView(b).Response()).itt(b).response(b)
	case OpLoginResponse:
		return t.loginResponse(LoginResponseView(b))
	case OpTextResponse:
		return t.flag("F", b.Final()).flag("C", TextResponseView(b).Continue()).
			itt(b).ttt(b).lun(b).response(b)
	case OpDataIn:
		return t.dataIn(DataInView(b))
	case OpLogoutResponse:
		v := LogoutResponseView(b)
		return t.code("response", logoutResultNames, uint8(v.Response())).itt(b).response(b).
			num32("time2wait", uint32(v.Time2Wait())).num32("time2retain", uint32(v.Time2Retain()))
	case OpR2T:
		v := R2TView(b)
		return t.itt(b).ttt(b).lun(b).response(b).num32("r2tsn", v.R2TSN()).
			num32("offset", v.BufferOffset()).num32("desired", v.DesiredDataLen())
	case OpAsync:
		return t.async(AsyncView(b))
	case OpReject:
		v := RejectView(b)
		return t.code("reason", rejectReasonNames, uint8(v.Reason())).response(b).num32("datasn", v.DataSN())
	default:
		return t // every known opcode has its case
	}
}

func (t tracer) scsiCommand(v SCSICommandView) tracer {
	b := BHS(v)
	t = t.flag("I", v.Immediate()).flag("F", v.Final())
	t = t.wordIf("R", v.Read()).wordIf("W", v.Write())
	if v.Attr() != AttrSimple {
		t = t.code("attr", taskAttrNames, uint8(v.Attr()))
	}
	t = t.itt(b).anyLUN(v.LUN()).request(b).num32("edtl", v.ExpectedDataLen())
	return t.hex("cdb", v[32:32+cdbLen(v[32:48])])
}

func (t tracer) taskMgmt(v TaskMgmtView) tracer {
	b := BHS(v)
	return t.flag("I", v.Immediate()).code("function", tmFunctionNames, uint8(v.Function())).
		itt(b).tag("rtt", v.RefTaskTag()).lun(b).request(b).
		num32("refcmdsn", v.RefCmdSN()).num32("expdatasn", v.ExpDataSN())
}

func (t tracer) login(v LoginView) tracer {
	b := BHS(v)
	t = t.flag("T", v.Transit()).flag("C", v.Continue()).stages(v.Transit(), v.CSG(), v.NSG())
	t = t.version("vmax", v.VersionMax()).version("vmin", v.VersionMin())
	return t.hex("isid", v[8:14]).num32("tsih", uint32(v.TSIH())).itt(b).
		num32("cid", uint32(v.CID())).request(b)
}

func (t tracer) loginResponse(v LoginResponseView) tracer {
	b := BHS(v)
	t = t.flag("T", v.Transit()).flag("C", v.Continue()).stages(v.Transit(), v.CSG(), v.NSG())
	t = t.version("vmax", v.VersionMax()).version("vactive", v.VersionActive())
	t = t.hex("isid", v[8:14]).num32("tsih", uint32(v.TSIH())).itt(b)
	return t.response(b).hex("status", v[36:38])
}

func (t tracer) scsiResponse(v SCSIResponseView) tracer {
	b := BHS(v)
	t = t.code("response", serviceNames, uint8(v.Response())).hex("status", v[3:4]).itt(b)
	if v.SNACKTag() != 0 {
		t = t.tag("snacktag", v.SNACKTag())
	}
	t = t.response(b).num32("expdatasn", v.ExpDataSN())
	t = t.residual("bidi-", v.BidiOverflow(), v.BidiUnderflow(), v.BidiResidualCount())
	return t.residual("", v.Overflow(), v.Underflow(), v.ResidualCount())
}

func (t tracer) dataIn(v DataInView) tracer {
	b := BHS(v)
	t = t.flag("F", v.Final()).wordIf("A", v.Ack()).wordIf("S", v.HasStatus()).itt(b)
	if v.Ack() {
		t = t.ttt(b).lun(b)
	}
	if v.HasStatus() {
		t = t.hex("status", v[3:4]).num32("statsn", v.StatSN())
	}
	t = t.num32("expcmdsn", v.ExpCmdSN()).num32("maxcmdsn", v.MaxCmdSN()).
		num32("datasn", v.DataSN()).num32("offset", v.BufferOffset())
	return t.residual("", v.Overflow(), v.Underflow(), v.ResidualCount())
}

func (t tracer) async(v AsyncView) tracer {
	if e := v.AsyncEvent(); e.Vendor() {
		t = t.num32("event", uint32(e)).num32("vcode", uint32(v.AsyncVCode()))
	} else {
		t = t.code("event", asyncEventNames, uint8(e))
	}
	return t.lun(BHS(v)).response(BHS(v)).num32("param1", uint32(v.Param1())).
		num32("param2", uint32(v.Param2())).num32("param3", uint32(v.Param3()))
}

func (t tracer) word(s string) tracer { return append(t, s...) }

func (t tracer) wordIf(s string, on bool) tracer {
	if !on {
		return t
	}
	return append(append(t, ' '), s...)
}

func (t tracer) key(s string) tracer {
	return append(append(append(t, ' '), s...), '=')
}

func (t tracer) flag(name string, on bool) tracer { return append(t.key(name), '0'+bit(on, 1)) }

func (t tracer) num(name string, v uint64) tracer { return strconv.AppendUint(t.key(name), v, 10) }

func (t tracer) num32(name string, v uint32) tracer { return t.num(name, uint64(v)) }

// anyLUN shows a LUN: as a number when it is a plain one, else all eight bytes.
func (t tracer) anyLUN(lun uint64) tracer {
	if n, ok := plainLUN(lun); ok {
		return t.num32("lun", n)
	}
	return t.tag("lun", uint32(lun>>32)).hex32(uint32(lun))
}

func (t tracer) hex(name string, p []byte) tracer { return hex.AppendEncode(t.key(name), p) }

func (t tracer) tag(name string, v uint32) tracer { return t.key(name).hex32(v) }

func (t tracer) hex32(v uint32) tracer {
	return hex.AppendEncode(t, []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// code shows a code by its name in names, or in decimal when it has none.
func (t tracer) code(name string, names []string, code uint8) tracer {
	if int(code) < len(names) && names[code] != "" {
		return append(t.key(name), names[code]...)
	}
	return t.num32(name, uint32(code))
}

func (t tracer) tmResponse(r TMResponse) tracer {
	if r == TMRejected {
		return append(t.key("response"), "rejected"...)
	}
	return t.code("response", tmResponseNames, uint8(r))
}

func (t tracer) stages(transit bool, csg, nsg Stage) tracer {
	t = t.code("csg", stageNames, uint8(csg))
	if !transit {
		return t
	}
	return t.code("nsg", stageNames, uint8(nsg))
}

// version shows a version unless it is 0, the only one there is.
func (t tracer) version(name string, v uint8) tracer {
	if v == 0 {
		return t
	}
	return t.num32(name, uint32(v))
}

func (t tracer) itt(b BHS) tracer { return t.tag("itt", b.ITT()) }

func (t tracer) ttt(b BHS) tracer { return t.tag("ttt", b.TTT()) }

// lun shows the LUN of PDU types that often have none.
func (t tracer) lun(b BHS) tracer {
	if b.LUN() == 0 {
		return t
	}
	return t.anyLUN(b.LUN())
}

// request shows the numbers of an initiator PDU.
func (t tracer) request(b BHS) tracer {
	return t.num32("cmdsn", b.CmdSN()).num32("expstatsn", b.ExpStatSN())
}

// response shows the numbers of a target PDU.
func (t tracer) response(b BHS) tracer {
	return t.num32("statsn", b.StatSN()).num32("expcmdsn", b.ExpCmdSN()).num32("maxcmdsn", b.MaxCmdSN())
}

func (t tracer) residual(prefix string, over, under bool, n uint32) tracer {
	if over {
		t = append(append(t, ' '), prefix...)
		t = strconv.AppendUint(append(t, "overflow="...), uint64(n), 10)
	}
	if under {
		t = append(append(t, ' '), prefix...)
		t = strconv.AppendUint(append(t, "underflow="...), uint64(n), 10)
	}
	return t
}

// plainLUN returns the number in a single-level LUN with peripheral addressing on
// bus 0, as in SAM-2 §4.9: the second byte is the number and all others are 0.
func plainLUN(lun uint64) (n uint32, ok bool) {
	return uint32(lun >> 48), lun&^(0xff<<48) == 0
}

// cdbLen returns the length of a CDB by the group code of its first byte, or 16
// when the group has none or bytes beyond it are in use.
func cdbLen(cdb []byte) int {
	n := 16
	switch cdb[0] >> 5 {
	case 0:
		n = 6
	case 1, 2:
		n = 10
	case 5:
		n = 12
	}
	for _, c := range cdb[n:] {
		if c != 0 {
			return len(cdb)
		}
	}
	return n
}
