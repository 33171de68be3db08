package pdu

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unhex turns groups of hexadecimal digits into bytes.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(t, err)
	return b
}

// codec is one PDU type with a header written down by hand from the bit diagram
// of RFC 7143, twelve words of four bytes.
type codec struct {
	name   string
	golden string
	// defined has the bits set that the diagram defines; the others are reserved.
	defined string
	value   any
	encode  func(v any, dst []byte) []byte
	decode  func(b []byte) any
	view    func(b []byte) any
	// allocs returns the allocations of one encode and one decode.
	allocs func(b []byte) (encode, decode float64)
}

func newCodec[T any, V ~[]byte](name, golden, defined string, value T,
	appendTo func(*T, []byte) []byte, decode func(V) T,
) codec {
	var sink T
	return codec{
		name: name, golden: golden, defined: defined, value: value,
		encode: func(v any, dst []byte) []byte { p := v.(T); return appendTo(&p, dst) },
		decode: func(b []byte) any { return decode(V(b)) },
		view:   func(b []byte) any { return V(b) },
		allocs: func(b []byte) (float64, float64) {
			buf := make([]byte, 0, BHSLen)
			enc := testing.AllocsPerRun(100, func() { buf = appendTo(&value, buf[:0]) })
			dec := testing.AllocsPerRun(100, func() { sink = decode(V(b)) })
			_ = sink
			return enc, dec
		},
	}
}

// Words that many PDU types share: LUN, ITT, then numbers that differ from each
// other in every byte.
const (
	lunHex  = "00010203 04050607"
	lunVal  = 0x0001020304050607
	ones    = "ffffffff"
	zeros   = "00000000"
	zeros2  = zeros + " " + zeros
	zeros3  = zeros + " " + zeros2
	zeros4  = zeros + " " + zeros3
	ones2   = ones + " " + ones
	ones3   = ones + " " + ones2
	ones4   = ones + " " + ones3
	lenHex  = "02010203" // two words of AHS, 0x010203 bytes of data
	ahsVal  = 8
	dataVal = 0x010203
	numbers = "31323334 41424344 51525354" // StatSN, ExpCmdSN, MaxCmdSN
)

func codecs() []codec {
	return slices.Concat(initiatorCodecs(), initiatorTaskCodecs(), targetControlCodecs(), targetCodecs())
}

func initiatorCodecs() []codec {
	return []codec{
		newCodec("NOPOut",
			"40800000"+lenHex+lunHex+"11121314 21222324 31323334 41424344"+zeros4,
			"7f800000"+ones+ones2+ones4+zeros4,
			NOPOut{
				Immediate: true, LUN: lunVal, ITT: 0x11121314, TTT: 0x21222324, CmdSN: 0x31323334,
				ExpStatSN: 0x41424344, AHSLen: ahsVal, DataLen: dataVal,
			}, (*NOPOut).AppendTo, NOPOutView.Decode),
		newCodec("SCSICommand",
			"41a20000"+lenHex+lunHex+"11121314 21222324 31323334 41424344 2a000102 03040506 0708090a 0b0c0d0e",
			"7fe70000"+ones+ones2+ones4+ones4,
			SCSICommand{
				Immediate: true, Final: true, Write: true, Attr: AttrOrdered, LUN: lunVal,
				ITT: 0x11121314, ExpectedDataLen: 0x21222324, CmdSN: 0x31323334, ExpStatSN: 0x41424344,
				CDB:    [16]byte{0x2a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14},
				AHSLen: ahsVal, DataLen: dataVal,
			}, (*SCSICommand).AppendTo, SCSICommandView.Decode),
		newCodec("TaskMgmt",
			"42810000"+zeros+lunHex+"11121314 21222324 31323334 41424344 51525354 61626364"+zeros2,
			"7fff0000"+ones+ones2+ones4+ones2+zeros2,
			TaskMgmt{
				Immediate: true, Function: TMAbortTask, LUN: lunVal, ITT: 0x11121314,
				RefTaskTag: 0x21222324, CmdSN: 0x31323334, ExpStatSN: 0x41424344,
				RefCmdSN: 0x51525354, ExpDataSN: 0x61626364,
			}, (*TaskMgmt).AppendTo, TaskMgmtView.Decode),
		newCodec("Login",
			// T, CSG 1, NSG 3: 1 0 00 01 11
			"43870102"+lenHex+"80a1a2a3 a4a5b1b2 11121314 c1c20000 31323334 41424344"+zeros4,
			"7fcfffff"+ones+ones2+ones+"ffff0000"+ones2+zeros4,
			Login{
				Transit: true, CSG: StageOperational, NSG: StageFullFeature, VersionMax: 1, VersionMin: 2,
				ISID: [6]byte{0x80, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5}, TSIH: 0xb1b2, ITT: 0x11121314,
				CID: 0xc1c2, CmdSN: 0x31323334, ExpStatSN: 0x41424344, AHSLen: ahsVal, DataLen: dataVal,
			}, (*Login).AppendTo, LoginView.Decode),
	}
}

func initiatorTaskCodecs() []codec {
	return []codec{
		newCodec("Text",
			"44400000"+lenHex+lunHex+"11121314 21222324 31323334 41424344"+zeros4,
			"7fc00000"+ones+ones2+ones4+zeros4,
			Text{
				Immediate: true, Continue: true, LUN: lunVal, ITT: 0x11121314, TTT: 0x21222324,
				CmdSN: 0x31323334, ExpStatSN: 0x41424344, AHSLen: ahsVal, DataLen: dataVal,
			}, (*Text).AppendTo, TextView.Decode),
		newCodec("DataOut",
			"05800000"+lenHex+lunHex+"11121314 21222324"+zeros+"41424344"+zeros+"61626364 71727374"+zeros,
			"3f800000"+ones+ones2+ones2+zeros+ones+zeros+ones2+zeros,
			DataOut{
				Final: true, LUN: lunVal, ITT: 0x11121314, TTT: 0x21222324, ExpStatSN: 0x41424344,
				DataSN: 0x61626364, BufferOffset: 0x71727374, AHSLen: ahsVal, DataLen: dataVal,
			}, (*DataOut).AppendTo, DataOutView.Decode),
		newCodec("Logout",
			"46820000"+zeros+zeros2+"11121314 c1c20000 31323334 41424344"+zeros4,
			"7fff0000"+ones+zeros2+ones+"ffff0000"+ones2+zeros4,
			Logout{
				Immediate: true, Reason: LogoutForRecovery, ITT: 0x11121314, CID: 0xc1c2,
				CmdSN: 0x31323334, ExpStatSN: 0x41424344,
			}, (*Logout).AppendTo, LogoutView.Decode),
		newCodec("SNACK",
			"10830000"+zeros+lunHex+"11121314 21222324"+zeros+"41424344"+zeros2+"71727374 81828384",
			"3f8f0000"+ones+ones2+ones2+zeros+ones+zeros2+ones2,
			SNACK{
				Type: SNACKRData, LUN: lunVal, ITT: 0x11121314, TTT: 0x21222324, ExpStatSN: 0x41424344,
				BegRun: 0x71727374, RunLength: 0x81828384,
			}, (*SNACK).AppendTo, SNACKView.Decode),
	}
}

func targetCodecs() []codec {
	return []codec{
		newCodec("NOPIn",
			"20800000"+lenHex+lunHex+"11121314 21222324"+numbers+zeros3,
			"3f800000"+ones+ones2+ones2+ones3+zeros3,
			NOPIn{
				LUN: lunVal, ITT: 0x11121314, TTT: 0x21222324, StatSN: 0x31323334, ExpCmdSN: 0x41424344,
				MaxCmdSN: 0x51525354, AHSLen: ahsVal, DataLen: dataVal,
			}, (*NOPIn).AppendTo, NOPInView.Decode),
		newCodec("SCSIResponse",
			// 1 00 o=1 u=0 O=0 U=1 0
			"21920102"+lenHex+zeros2+"11121314 21222324"+numbers+"61626364 71727374 81828384",
			"3f9effff"+ones+zeros2+ones2+ones3+ones3,
			SCSIResponse{
				BidiOverflow: true, Underflow: true, Response: ServiceTargetFailure, Status: 2,
				ITT: 0x11121314, SNACKTag: 0x21222324, StatSN: 0x31323334, ExpCmdSN: 0x41424344,
				MaxCmdSN: 0x51525354, ExpDataSN: 0x61626364, BidiResidualCount: 0x71727374,
				ResidualCount: 0x81828384, AHSLen: ahsVal, DataLen: dataVal,
			}, (*SCSIResponse).AppendTo, SCSIResponseView.Decode),
		newCodec("DataIn",
			// F=1 A=1 000 O=0 U=1 S=1
			"25c30008"+lenHex+lunHex+"11121314 21222324"+numbers+"61626364 71727374 81828384",
			"3fc700ff"+ones+ones2+ones2+ones3+ones3,
			DataIn{
				Final: true, Ack: true, Underflow: true, HasStatus: true, Status: 8, LUN: lunVal,
				ITT: 0x11121314, TTT: 0x21222324, StatSN: 0x31323334, ExpCmdSN: 0x41424344,
				MaxCmdSN: 0x51525354, DataSN: 0x61626364, BufferOffset: 0x71727374,
				ResidualCount: 0x81828384, AHSLen: ahsVal, DataLen: dataVal,
			}, (*DataIn).AppendTo, DataInView.Decode),
		newCodec("R2T",
			"31800000"+zeros+lunHex+"11121314 21222324"+numbers+"61626364 71727374 81828384",
			"3f800000"+ones+ones2+ones2+ones3+ones3,
			R2T{
				LUN: lunVal, ITT: 0x11121314, TTT: 0x21222324, StatSN: 0x31323334, ExpCmdSN: 0x41424344,
				MaxCmdSN: 0x51525354, R2TSN: 0x61626364, BufferOffset: 0x71727374,
				DesiredDataLen: 0x81828384,
			}, (*R2T).AppendTo, R2TView.Decode),
		newCodec("Async",
			"32800000"+lenHex+lunHex+ones+zeros+numbers+"02f1d1d2 d3d4d5d6"+zeros,
			"3f800000"+ones+ones2+ones+zeros+ones3+ones2+zeros,
			Async{
				LUN: lunVal, StatSN: 0x31323334, ExpCmdSN: 0x41424344, MaxCmdSN: 0x51525354,
				AsyncEvent: AsyncConnectionDrop, AsyncVCode: 0xf1, Param1: 0xd1d2, Param2: 0xd3d4,
				Param3: 0xd5d6, AHSLen: ahsVal, DataLen: dataVal,
			}, (*Async).AppendTo, AsyncView.Decode),
	}
}

func targetControlCodecs() []codec {
	return []codec{
		newCodec("TaskMgmtResponse",
			"2280ff00"+zeros+zeros2+"11121314"+zeros+numbers+zeros3,
			"3f80ff00"+ones+zeros2+ones+zeros+ones3+zeros3,
			TaskMgmtResponse{
				Response: TMRejected, ITT: 0x11121314, StatSN: 0x31323334, ExpCmdSN: 0x41424344,
				MaxCmdSN: 0x51525354,
			}, (*TaskMgmtResponse).AppendTo, TaskMgmtResponseView.Decode),
		newCodec("LoginResponse",
			// T=0 C=1 00 CSG=1 NSG=0
			"23440300"+lenHex+"80a1a2a3 a4a5b1b2 11121314"+zeros+numbers+"02070000"+zeros2,
			"3fcfffff"+ones+ones2+ones+zeros+ones3+"ffff0000"+zeros2,
			LoginResponse{
				Continue: true, CSG: StageOperational, VersionMax: 3,
				ISID: [6]byte{0x80, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5}, TSIH: 0xb1b2, ITT: 0x11121314,
				StatSN: 0x31323334, ExpCmdSN: 0x41424344, MaxCmdSN: 0x51525354,
				StatusClass: 2, StatusDetail: 7, AHSLen: ahsVal, DataLen: dataVal,
			}, (*LoginResponse).AppendTo, LoginResponseView.Decode),
		newCodec("TextResponse",
			"24800000"+lenHex+lunHex+"11121314 21222324"+numbers+zeros3,
			"3fc00000"+ones+ones2+ones2+ones3+zeros3,
			TextResponse{
				Final: true, LUN: lunVal, ITT: 0x11121314, TTT: 0x21222324, StatSN: 0x31323334,
				ExpCmdSN: 0x41424344, MaxCmdSN: 0x51525354, AHSLen: ahsVal, DataLen: dataVal,
			}, (*TextResponse).AppendTo, TextResponseView.Decode),
		newCodec("LogoutResponse",
			"26800300"+zeros+zeros2+"11121314"+zeros+numbers+zeros+"71727374"+zeros,
			"3f80ff00"+ones+zeros2+ones+zeros+ones3+zeros+ones+zeros,
			LogoutResponse{
				Response: LogoutCleanupFailed, ITT: 0x11121314, StatSN: 0x31323334,
				ExpCmdSN: 0x41424344, MaxCmdSN: 0x51525354, Time2Wait: 0x7172, Time2Retain: 0x7374,
			}, (*LogoutResponse).AppendTo, LogoutResponseView.Decode),
		newCodec("Reject",
			"3f800900"+lenHex+zeros2+ones+zeros+numbers+"61626364"+zeros2,
			"3f80ff00"+ones+zeros2+ones+zeros+ones3+ones+zeros2,
			Reject{
				Reason: RejectInvalidField, StatSN: 0x31323334, ExpCmdSN: 0x41424344,
				MaxCmdSN: 0x51525354, DataSN: 0x61626364, AHSLen: ahsVal, DataLen: dataVal,
			}, (*Reject).AppendTo, RejectView.Decode),
	}
}

func TestGoldenHeaders(t *testing.T) {
	seen := map[Opcode]bool{}
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			want := unhex(t, c.golden)
			require.Len(t, want, BHSLen, "the golden header itself")
			assert.Equal(t, hex.EncodeToString(want), hex.EncodeToString(c.encode(c.value, nil)))
			assert.Equal(t, c.value, c.decode(want))
			seen[BHS(want).Opcode()] = true
		})
	}
	for op := range Opcode(64) {
		assert.Equal(t, op.Known(), seen[op], "golden header for %v", op)
	}
}

// The headers above set each flag in one PDU only; here all of them are set, which
// also shows that reserved bits are ignored and sent as 0.
func TestReservedBitsAreSentAsZero(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			header := unhex(t, strings.Repeat(ones, 12))
			defined := unhex(t, c.defined)
			require.Len(t, defined, BHSLen, "the mask itself")
			want := make([]byte, BHSLen)
			for i := range want {
				want[i] = header[i] & defined[i]
			}
			golden := unhex(t, c.golden)
			want[0] = golden[0]&0x3f | want[0]&0x40
			got := c.encode(c.decode(header), nil)
			assert.Equal(t, hex.EncodeToString(want), hex.EncodeToString(got))
		})
	}
}

// All fields 0 leaves only the opcode, the bits the diagram shows as 1 and fixed
// tags.
func TestZeroValues(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			golden := unhex(t, c.golden)
			zero := make([]byte, BHSLen)
			zero[0] = golden[0] & 0x3f
			want := append([]byte(nil), zero...)
			switch c.name {
			case "Login":
				want[0] |= 0x40
			case "SCSICommand", "Text", "TextResponse", "DataOut", "DataIn", "LoginResponse":
			case "Async", "Reject":
				want[1] = 0x80
				copy(want[16:], unhex(t, ones))
			default:
				want[1] = 0x80
			}
			assert.Equal(t, hex.EncodeToString(want), hex.EncodeToString(c.encode(c.decode(zero), nil)))
		})
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			got := c.encode(c.value, []byte("before"))
			require.Len(t, got, len("before")+BHSLen)
			assert.Equal(t, "before", string(got[:6]))
			assert.Equal(t, unhex(t, c.golden), got[6:])
		})
	}
}

func TestStaleBytesInSpareCapacityDoNotLeak(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			buf := unhex(t, strings.Repeat(ones, 24))
			assert.Equal(t, unhex(t, c.golden), c.encode(c.value, buf[:0]))
		})
	}
}
