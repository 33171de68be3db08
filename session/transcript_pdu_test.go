package session

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/transcript"
	"github.com/iscsimp/iscsimp/pdu"
)

// build makes a PDU of the target from a recv command, such as
//
//	recv data-in F S itt=a datasn=0 offset=0 len=512 statsn=5 max=40
//
// itt is the name of a command, "ping", "text", "logout", "tmf", or a number.
func (w *world) build(c transcript.Cmd) []byte {
	arg := func(name string, def uint32) uint32 {
		if v, ok := c.Args[name]; ok {
			return uint32(w.num(v))
		}
		return def
	}
	stat, exp := arg("statsn", 1), arg("exp", 1)
	limit := arg("max", 64)
	require.NotNil(w.t, w.s.conn, "%s: no connection to receive on", c.Pos)
	itt := w.tag(c.Args["itt"])
	data := make([]byte, arg("len", 0))
	for i := range data {
		data[i] = byte(arg("fill", 0x5a))
	}
	if len(c.Input) > 0 {
		data = data[:0]
		for _, l := range c.Input {
			data = append(append(data, l...), 0)
		}
		if c.Has("open") { // the last key is cut off in the middle
			data = data[:len(data)-1]
		}
	}
	if v, ok := c.Args["sense"]; ok {
		b, err := hex.DecodeString(v)
		require.NoError(w.t, err)
		data = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	var bhs []byte
	switch kind := c.Flags[0]; kind {
	case "login":
		p := pdu.LoginResponse{
			Transit: c.Has("T"), Continue: c.Has("C"), CSG: pdu.Stage(arg("csg", 0)), NSG: pdu.Stage(arg("nsg", 0)),
			TSIH: uint16(arg("tsih", 0)), ITT: w.s.conn.loginITT, StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit,
			StatusClass: uint8(arg("status", 0) >> 8), StatusDetail: uint8(arg("status", 0)),
			VersionActive: uint8(arg("version", 0)),
		}
		bhs = p.AppendTo(nil)
	case "data-in":
		p := pdu.DataIn{
			Final: c.Has("F"), HasStatus: c.Has("S"), Ack: c.Has("A"), Underflow: c.Has("U"), Overflow: c.Has("O"), Status: uint8(arg("status", 0)),
			LUN: uint64(arg("lun", 0)) << 48, ITT: itt, TTT: arg("ttt", pdu.ReservedTag), StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit,
			DataSN: arg("datasn", 0), BufferOffset: arg("offset", 0), ResidualCount: arg("resid", 0),
		}
		bhs = p.AppendTo(nil)
	case "response":
		p := pdu.SCSIResponse{
			Underflow: c.Has("U"), Overflow: c.Has("O"), Response: pdu.ServiceResponse(arg("response", 0)), Status: uint8(arg("status", 0)),
			ITT: itt, StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit, ResidualCount: arg("resid", 0),
		}
		bhs = p.AppendTo(nil)
	case "r2t":
		p := pdu.R2T{
			LUN: uint64(arg("lun", 1)) << 48, ITT: itt, TTT: arg("ttt", 7), StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit,
			R2TSN: arg("r2tsn", 0), BufferOffset: arg("offset", 0), DesiredDataLen: arg("want", 0),
		}
		bhs = p.AppendTo(nil)
	case "nop-in":
		p := pdu.NOPIn{LUN: uint64(arg("lun", 0)) << 48, ITT: itt, TTT: arg("ttt", pdu.ReservedTag), StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit}
		bhs = p.AppendTo(nil)
	case "text":
		p := pdu.TextResponse{Final: c.Has("F"), Continue: c.Has("C"), LUN: uint64(arg("lun", 0)) << 48, ITT: itt, TTT: arg("ttt", pdu.ReservedTag), StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit}
		bhs = p.AppendTo(nil)
	case "logout":
		p := pdu.LogoutResponse{Response: pdu.LogoutResult(arg("response", 0)), ITT: itt, StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit, Time2Wait: uint16(arg("t2w", 0))}
		bhs = p.AppendTo(nil)
	case "tmf":
		p := pdu.TaskMgmtResponse{Response: pdu.TMResponse(arg("response", 0)), ITT: itt, StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit}
		bhs = p.AppendTo(nil)
	case "async":
		p := pdu.Async{
			LUN: uint64(arg("lun", 0)) << 48, AsyncEvent: pdu.AsyncEvent(arg("event", 0)), StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit,
			Param1: uint16(arg("p1", 0)), Param2: uint16(arg("p2", 0)), Param3: uint16(arg("p3", 0)),
		}
		bhs = p.AppendTo(nil)
	case "reject":
		p := pdu.Reject{Reason: pdu.RejectReason(arg("reason", 4)), StatSN: stat, ExpCmdSN: exp, MaxCmdSN: limit}
		bhs = p.AppendTo(nil)
		bad := make([]byte, pdu.BHSLen)
		bad[0] = byte(arg("opcode", 1))
		binary.BigEndian.PutUint32(bad[16:], itt)
		data = bad
	case "opcode":
		bhs = make([]byte, pdu.BHSLen)
		bhs[0] = byte(arg("code", 0))
		binary.BigEndian.PutUint32(bhs[16:], itt)
	default:
		w.t.Fatalf("%s: unknown PDU %q", c.Pos, kind)
	}
	raw := pdu.AppendPDU(nil, bhs, nil, data, w.s.conn.digests)
	if v, ok := c.Args["flip"]; ok { // flip one bit of this byte; negative: from the end
		i := w.num(v)
		if i < 0 {
			i += len(raw)
		}
		raw[i] ^= 1
	}
	return raw
}

// tag gives the task tag a name stands for.
func (w *world) tag(name string) uint32 {
	kinds := map[string]taskKind{"ping": taskNOP, "text": taskText, "logout": taskLogout, "tmf": taskTMF}
	if name == "" {
		return pdu.ReservedTag
	}
	for i := range w.s.tasks.slots {
		t := &w.s.tasks.slots[i]
		if t.kind == taskFree {
			continue
		}
		if k, ok := kinds[name]; ok && t.kind == k || t.cmd != nil && t.cmd.User == name {
			return t.itt
		}
	}
	if c, ok := w.cmds[name]; ok { // detached: the slot is known by elimination
		for i := range w.s.tasks.slots {
			if t := &w.s.tasks.slots[i]; t.kind == taskSCSI && t.cmd == nil && c.slot == 0 {
				return t.itt
			}
		}
		w.t.Fatalf("command %s is not in flight", name)
	}
	return uint32(w.num(name))
}
