package pdu

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newRand returns a generator whose seed shows up when the test fails.
func newRand(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// fieldMask limits random values of types narrower than the Go type behind them.
var fieldMask = map[reflect.Type]uint64{
	reflect.TypeFor[TaskAttr]():     0x07,
	reflect.TypeFor[TMFunction]():   0x7f,
	reflect.TypeFor[Stage]():        0x03,
	reflect.TypeFor[LogoutReason](): 0x7f,
	reflect.TypeFor[SNACKType]():    0x0f,
}

// randomPDU returns a value of the same type as like with every field at random.
func randomPDU(t testing.TB, r *rand.Rand, like any) any {
	p := reflect.New(reflect.TypeOf(like)).Elem()
	for i := range p.NumField() {
		f, name := p.Field(i), p.Type().Field(i).Name
		switch {
		case name == "AHSLen":
			f.SetInt(r.Int64N(MaxAHSLen/4+1) * 4)
		case name == "DataLen":
			f.SetInt(r.Int64N(MaxDataLen + 1))
		case f.Kind() == reflect.Bool:
			f.SetBool(r.IntN(2) == 1)
		case f.Kind() == reflect.Array:
			for j := range f.Len() {
				f.Index(j).SetUint(r.Uint64N(256))
			}
		case f.CanUint():
			mask := uint64(1)<<f.Type().Bits() - 1
			if m, ok := fieldMask[f.Type()]; ok {
				mask = m
			}
			f.SetUint(r.Uint64() & mask)
		default:
			require.Failf(t, "no generator", "%s.%s", p.Type(), name)
		}
	}
	return p.Interface()
}

func TestRandomRoundTrip(t *testing.T) {
	r := newRand(t)
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			for range 500 {
				want := randomPDU(t, r, c.value)
				header := c.encode(want, nil)
				require.Len(t, header, BHSLen)
				got := c.decode(header)
				require.Equal(t, want, got)
				require.Equal(t, header, c.encode(got, nil))
			}
		})
	}
}

// Every field of a struct has a getter of the same name in the view, which agrees
// with Decode, and the common getters of BHS agree with both.
func TestViewsHaveAGetterPerField(t *testing.T) {
	r := newRand(t)
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			value := reflect.ValueOf(randomPDU(t, r, c.value))
			header := c.encode(value.Interface(), nil)
			view := reflect.ValueOf(c.view(header))
			for i := range value.NumField() {
				name := value.Type().Field(i).Name
				want := value.Field(i).Interface()
				getter := view.MethodByName(name)
				require.True(t, getter.IsValid(), "getter %s", name)
				assert.Equal(t, want, getter.Call(nil)[0].Interface(), name)
				common := reflect.ValueOf(BHS(header)).MethodByName(name)
				if common.IsValid() {
					assert.Equal(t, want, common.Call(nil)[0].Interface(), "BHS.%s", name)
				}
			}
			// Decode and one getter per field; LoginResponse joins two of its fields.
			extra := 1
			if c.name == "LoginResponse" {
				extra = 2
			}
			assert.Equal(t, value.NumField()+extra, view.NumMethod(), "methods of the view")
		})
	}
}

func TestHeadersDoNotAllocate(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			encode, decode := c.allocs(unhex(t, c.golden))
			assert.Zero(t, encode, "encode")
			assert.Zero(t, decode, "decode")
		})
	}
}

// FuzzHeaders runs every decoder over the same bytes.
func FuzzHeaders(f *testing.F) {
	for _, c := range codecs() {
		f.Add(unhex(f, c.golden))
	}
	all := codecs()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < BHSLen {
			assert.NotContains(t, string(AppendTrace(nil, true, b)), "\n")
			return
		}
		for _, c := range all {
			value := c.decode(b)
			header := c.encode(value, nil)
			require.Len(t, header, BHSLen, c.name)
			require.Equal(t, value, c.decode(header), c.name)
		}
		for _, line := range [][]byte{AppendTrace(nil, true, b), AppendTrace(nil, false, b)} {
			for _, char := range line {
				require.True(t, char >= ' ' && char <= '~', "%q in trace", char)
			}
		}
		l := LayoutOf(b, Digests{Header: true, Data: true})
		require.Zero(t, l.Total%4)
		require.LessOrEqual(t, l.Total, Limits{MaxAHS: MaxAHSLen, MaxData: MaxDataLen}.BufLen())
	})
}

func BenchmarkSCSICommandAppendTo(b *testing.B) {
	p := SCSICommand{Final: true, Read: true, LUN: 1 << 48, ITT: 3, ExpectedDataLen: 4096, CDB: [16]byte{0x88}}
	buf := make([]byte, 0, BHSLen)
	b.ReportAllocs()
	for b.Loop() {
		p.CmdSN++
		buf = p.AppendTo(buf[:0])
	}
}

func BenchmarkDataOutAppendTo(b *testing.B) {
	p := DataOut{Final: true, LUN: 1 << 48, ITT: 3, TTT: 4, DataLen: 65536}
	buf := make([]byte, 0, BHSLen)
	b.ReportAllocs()
	for b.Loop() {
		p.DataSN++
		buf = p.AppendTo(buf[:0])
	}
}

// The fields an initiator looks at in each Data-In PDU.
func BenchmarkDataInView(b *testing.B) {
	p := DataIn{Final: true, HasStatus: true, ITT: 3, DataLen: 4096}
	header := p.AppendTo(nil)
	var sum uint32
	b.ReportAllocs()
	for b.Loop() {
		v := DataInView(header)
		sum += v.ITT() + v.BufferOffset() + v.DataSN() + v.ExpCmdSN() + v.MaxCmdSN() + uint32(v.DataLen())
		if v.HasStatus() {
			sum += v.StatSN() + uint32(v.Status())
		}
	}
	_ = sum
}

func BenchmarkSCSIResponseDecode(b *testing.B) {
	header := (&SCSIResponse{ITT: 3, Status: 2, DataLen: 20}).AppendTo(nil)
	var sum uint32
	b.ReportAllocs()
	for b.Loop() {
		p := SCSIResponseView(header).Decode()
		sum += p.StatSN
	}
	_ = sum
}

func BenchmarkR2TDecode(b *testing.B) {
	header := (&R2T{ITT: 3, TTT: 4, DesiredDataLen: 65536}).AppendTo(nil)
	var sum uint32
	b.ReportAllocs()
	for b.Loop() {
		p := R2TView(header).Decode()
		sum += p.DesiredDataLen
	}
	_ = sum
}
