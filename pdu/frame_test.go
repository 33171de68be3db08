package pdu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The vectors of RFC 7143 §A.4.
func TestCRC32CVectors(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range 32 {
		up[i], down[31-i] = byte(i), byte(i)
	}
	read10 := "01c00000 00000000 00000000 00000000 14000000 00000400" +
		"00000014 00000018 28000000 00000000 02000000 00000000"
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"zeroes", make([]byte, 32), "aa36918a"},
		{"ones", bytes.Repeat([]byte{0xff}, 32), "43aba862"},
		{"incrementing", up, "4e79dd46"},
		{"decrementing", down, "5cdb3f11"},
		{"read(10)", unhex(t, read10), "563a96d9"},
		{"nothing", nil, "00000000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got [DigestLen]byte
			PutDigest(got[:], CRC32C(tc.data))
			assert.Equal(t, unhex(t, tc.want), got[:])
			assert.Equal(t, CRC32C(tc.data), Digest(got[:]))
			// Any split gives the same result.
			for i := range tc.data {
				require.Equal(t, CRC32C(tc.data), UpdateCRC32C(UpdateCRC32C(0, tc.data[:i]), tc.data[i:]))
			}
		})
	}
}

func TestPadLen(t *testing.T) {
	for n, want := range []int{0, 3, 2, 1, 0, 3, 2, 1, 0} {
		assert.Equal(t, want, PadLen(n), n)
	}
	assert.Equal(t, 1, PadLen(MaxDataLen))
}

func TestLayoutOf(t *testing.T) {
	both := Digests{Header: true, Data: true}
	for _, tc := range []struct {
		ahs, data int
		d         Digests
		want      Layout
	}{
		{0, 0, Digests{}, Layout{HeaderLen: 48, DataOff: 48, Total: 48}},
		{0, 0, both, Layout{HeaderLen: 48, HeaderDigestLen: 4, DataOff: 52, Total: 52}},
		{0, 5, Digests{}, Layout{HeaderLen: 48, DataOff: 48, DataLen: 5, PadLen: 3, Total: 56}},
		{8, 4, Digests{Header: true}, Layout{HeaderLen: 56, HeaderDigestLen: 4, DataOff: 60, DataLen: 4, Total: 64}},
		{8, 7, both, Layout{HeaderLen: 56, HeaderDigestLen: 4, DataOff: 60, DataLen: 7, PadLen: 1, DataDigestLen: 4, Total: 72}},
		{1020, MaxDataLen, both, Layout{
			HeaderLen: 1068, HeaderDigestLen: 4, DataOff: 1072, DataLen: MaxDataLen, PadLen: 1,
			DataDigestLen: 4, Total: 1072 + 1<<24 + 4,
		}},
	} {
		header := (&NOPOut{AHSLen: tc.ahs, DataLen: tc.data}).AppendTo(nil)
		assert.Equal(t, tc.want, LayoutOf(header, tc.d), "%d+%d %+v", tc.ahs, tc.data, tc.d)
	}
}

func TestAppendPDU(t *testing.T) {
	bhs := (&NOPOut{Immediate: true, ITT: ReservedTag, TTT: 7}).AppendTo(nil)
	orig := bytes.Clone(bhs)
	got := AppendPDU([]byte{0xee}, bhs, unhex(t, "0001 03 aa"), []byte("hello"), Digests{Header: true, Data: true})
	assert.Equal(t, orig, bhs, "the caller's header stays as it was")
	header := unhex(t, "40800000 01000005"+zeros2+ones+"00000007"+zeros2+zeros4+"000103aa")
	want := append([]byte{0xee}, header...)
	want = append(want, digestOf(header)...)
	want = append(want, "hello\x00\x00\x00"...)
	want = append(want, digestOf([]byte("hello\x00\x00\x00"))...)
	assert.Equal(t, want, got)
}

func digestOf(p []byte) []byte {
	var b [DigestLen]byte
	PutDigest(b[:], CRC32C(p))
	return b[:]
}

func allDigests() []Digests {
	return []Digests{{}, {Header: true}, {Data: true}, {Header: true, Data: true}}
}

var wide = Limits{MaxAHS: MaxAHSLen, MaxData: MaxDataLen}

func TestReadPDURoundTrip(t *testing.T) {
	r := newRand(t)
	for _, d := range allDigests() {
		var stream []byte
		var want []PDU
		for range 50 {
			p := randomStreamPDU(r)
			stream = AppendPDU(stream, p.BHS, p.AHS, p.Data, d)
			want = append(want, p)
		}
		for name, src := range map[string]io.Reader{
			"whole":     bytes.NewReader(stream),
			"bytewise":  iotest.OneByteReader(bytes.NewReader(stream)),
			"early EOF": iotest.DataErrReader(bytes.NewReader(stream)),
		} {
			var buf []byte
			for _, w := range want {
				got, err := ReadPDU(src, buf, d, wide)
				require.NoError(t, err, "%s %+v", name, d)
				require.Equal(t, w, got)
				buf = got.BHS[:0]
			}
			_, err := ReadPDU(src, buf, d, wide)
			require.Equal(t, io.EOF, err)
		}
	}
}

// randomStreamPDU returns a PDU whose header holds the lengths of its parts.
func randomStreamPDU(r *rand.Rand) PDU {
	p := PDU{AHS: make([]byte, 4*r.IntN(4)), Data: make([]byte, r.IntN(70))}
	for i := range p.Data {
		p.Data[i] = byte(r.Uint32())
	}
	p.BHS = (&DataIn{ITT: r.Uint32(), AHSLen: len(p.AHS), DataLen: len(p.Data)}).AppendTo(nil)
	return p
}

func TestReadPDUUsesTheBuffer(t *testing.T) {
	lim := Limits{MaxAHS: 8, MaxData: 4093}
	buf := make([]byte, lim.BufLen())
	d := Digests{Header: true, Data: true}
	stream := AppendPDU(nil, (&NOPIn{}).AppendTo(nil), make([]byte, 8), make([]byte, 4093), d)
	require.Len(t, stream, lim.BufLen())
	src := bytes.NewReader(stream)
	allocs := testing.AllocsPerRun(20, func() {
		src.Reset(stream)
		p, err := ReadPDU(src, buf, d, lim)
		if err != nil || &p.BHS[0] != &buf[0] || len(p.Data) != 4093 {
			panic("not in the buffer")
		}
	})
	assert.Zero(t, allocs)
	p, err := ReadPDU(bytes.NewReader(stream), buf, d, lim)
	require.NoError(t, err)
	for _, part := range [][]byte{p.BHS, p.AHS, p.Data} {
		assert.Equal(t, len(part), cap(part), "an append must not write into the next part")
	}
	// A buffer one byte too short is left for new memory.
	p, err = ReadPDU(bytes.NewReader(stream), buf[:0:len(stream)-1], d, lim)
	require.NoError(t, err)
	assert.Len(t, p.Data, 4093)
	assert.NotSame(t, &buf[0], &p.BHS[0])
}

// A stream that ends inside a PDU is never taken for a clean end.
func TestReadPDUTruncated(t *testing.T) {
	for _, d := range allDigests() {
		stream := AppendPDU(nil, (&NOPIn{}).AppendTo(nil), make([]byte, 4), []byte("hello"), d)
		for n := range len(stream) {
			_, err := ReadPDU(bytes.NewReader(stream[:n]), nil, d, wide)
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			require.Equal(t, want, err, "%d bytes %+v", n, d)
		}
	}
}

func TestReadPDUPassesOnReadErrors(t *testing.T) {
	stream := AppendPDU(nil, (&NOPIn{}).AppendTo(nil), nil, []byte("hello"), Digests{})
	broken := errors.New("broken line")
	for n := range len(stream) {
		src := io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken))
		_, err := ReadPDU(src, nil, Digests{}, wide)
		require.ErrorIs(t, err, broken, "after %d bytes", n)
	}
}

// Each flipped bit is found by one of the digests, or changes the AHS length, after
// which a header digest is expected elsewhere.
func TestReadPDUFindsEveryFlippedBit(t *testing.T) {
	d := Digests{Header: true, Data: true}
	bhs := (&DataIn{ITT: 9}).AppendTo(nil)
	stream := AppendPDU(nil, bhs, make([]byte, 4), []byte("hello"), d)
	headerEnd := BHSLen + 4 + DigestLen
	for i := range len(stream) * 8 {
		bad := bytes.Clone(stream)
		bad[i/8] ^= 1 << (i % 8)
		p, err := ReadPDU(bytes.NewReader(bad), nil, d, wide)
		require.Error(t, err, "bit %d", i)
		frame, ok := errors.AsType[*FrameError](err)
		switch {
		case i/8 >= headerEnd:
			require.True(t, ok)
			require.Equal(t, FrameDataDigest, frame.Kind)
			require.True(t, frame.InSync())
			require.EqualValues(t, 9, frame.ITT)
			require.Equal(t, OpDataIn, frame.Opcode)
			require.EqualValues(t, 9, p.BHS.ITT(), "the header is good")
			require.Len(t, p.Data, 5)
		case i/8 == 4 && !ok:
			require.Equal(t, io.ErrUnexpectedEOF, err)
		default:
			require.True(t, ok, "bit %d: %v", i, err)
			require.Equal(t, FrameHeaderDigest, frame.Kind)
			require.False(t, frame.InSync())
			require.Nil(t, p.BHS)
		}
	}
}

// A broken header digest is reported as such even when the data length in the
// broken header is out of bounds.
func TestReadPDUHeaderDigestComesBeforeTheDataLimit(t *testing.T) {
	stream := AppendPDU(nil, (&NOPIn{}).AppendTo(nil), nil, nil, Digests{Header: true})
	stream[5] = 0xff
	_, err := ReadPDU(bytes.NewReader(stream), nil, Digests{Header: true}, Limits{MaxData: 8192})
	frame, ok := errors.AsType[*FrameError](err)
	require.True(t, ok)
	assert.Equal(t, FrameHeaderDigest, frame.Kind)
}

func TestReadPDULimits(t *testing.T) {
	for _, tc := range []struct {
		name      string
		ahs, data int
		lim       Limits
		want      FrameErrorKind
		limit     uint32
	}{
		{"both at the limit", 8, 100, Limits{8, 100}, 0, 0},
		{"zero limits, no parts", 0, 0, Limits{}, 0, 0},
		{"AHS", 12, 0, Limits{8, 100}, FrameAHSTooLong, 8},
		{"data", 0, 101, Limits{8, 100}, FrameDataTooLong, 100},
		{"zero limits, AHS", 4, 0, Limits{}, FrameAHSTooLong, 0},
		{"zero limits, data", 0, 1, Limits{}, FrameDataTooLong, 0},
		{"negative limits", 0, 1, Limits{-1, -1}, FrameAHSTooLong, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bhs := (&NOPIn{ITT: 5}).AppendTo(nil)
			stream := AppendPDU(nil, bhs, make([]byte, tc.ahs), make([]byte, tc.data), Digests{})
			src := bytes.NewReader(stream)
			_, err := ReadPDU(src, nil, Digests{}, tc.lim)
			if tc.want == 0 {
				require.NoError(t, err)
				return
			}
			frame, ok := errors.AsType[*FrameError](fmt.Errorf("wrapped: %w", err))
			require.True(t, ok, "%v", err)
			assert.Equal(t, tc.want, frame.Kind)
			assert.Equal(t, tc.limit, frame.Want)
			assert.False(t, frame.InSync())
			assert.GreaterOrEqual(t, src.Len(), len(stream)-BHSLen-tc.ahs, "nothing of the part was read")
		})
	}
}

// A header may announce 16 MiB; memory must not follow before the limit is checked.
func TestReadPDUChecksBeforeAllocating(t *testing.T) {
	header := (&NOPIn{DataLen: MaxDataLen}).AppendTo(nil)
	src := bytes.NewReader(header)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		src.Reset(header)
		_, err := ReadPDU(src, nil, Digests{}, Limits{MaxData: 65536})
		require.Error(t, err)
	}
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

func TestFrameErrorTexts(t *testing.T) {
	for kind, want := range map[FrameErrorKind]string{
		FrameHeaderDigest:  "header digest error: received 00000001, computed 00000002; drop the connection",
		FrameDataDigest:    "data digest error in Data-In itt=0000000a: received 00000001, computed 00000002",
		FrameAHSTooLong:    "Data-In itt=0000000a has 1 bytes of AHS, at most 2 allowed",
		FrameDataTooLong:   "Data-In itt=0000000a has 1 bytes of data, at most 2 allowed",
		FrameErrorKind(99): "unknown kind 99",
	} {
		err := &FrameError{Kind: kind, Opcode: OpDataIn, ITT: 10, Got: 1, Want: 2}
		assert.ErrorContains(t, err, want)
	}
}

func FuzzReadPDU(f *testing.F) {
	for i, d := range allDigests() {
		f.Add(AppendPDU(nil, (&NOPIn{}).AppendTo(nil), make([]byte, 8), []byte("hello"), d), byte(i), uint16(8), uint16(100))
	}
	f.Fuzz(func(t *testing.T, stream []byte, digests byte, maxAHS, maxData uint16) {
		d := allDigests()[digests%4]
		lim := Limits{MaxAHS: int(maxAHS), MaxData: int(maxData)}
		src := bytes.NewReader(stream)
		p, err := ReadPDU(src, nil, d, lim)
		slow, slowErr := ReadPDU(iotest.OneByteReader(bytes.NewReader(stream)), make([]byte, 100), d, lim)
		require.Equal(t, err, slowErr, "the size of reads makes no difference")
		require.Equal(t, p, slow)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(p.AHS), lim.MaxAHS)
		require.LessOrEqual(t, len(p.Data), lim.MaxData)
		require.Equal(t, LayoutOf(p.BHS, d).Total, len(stream)-src.Len())
		// The padding may have been anything; sent again it is zero.
		again, err := ReadPDU(bytes.NewReader(AppendPDU(nil, p.BHS, p.AHS, p.Data, d)), nil, d, lim)
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}

func BenchmarkCRC32C(b *testing.B) {
	for _, n := range []int{BHSLen, 4096, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				CRC32C(data)
			}
		})
	}
}

func BenchmarkReadPDU4K(b *testing.B) {
	for _, d := range []Digests{{}, {Header: true, Data: true}} {
		b.Run(fmt.Sprintf("digests=%v", d.Data), func(b *testing.B) {
			lim := Limits{MaxData: 4096}
			stream := AppendPDU(nil, (&DataIn{}).AppendTo(nil), nil, make([]byte, 4096), d)
			src, buf := bytes.NewReader(stream), make([]byte, lim.BufLen())
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				src.Reset(stream)
				if _, err := ReadPDU(src, buf, d, lim); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendPDU4K(b *testing.B) {
	bhs, data := (&DataIn{}).AppendTo(nil), make([]byte, 4096)
	var buf []byte
	b.SetBytes(BHSLen + 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendPDU(buf[:0], bhs, nil, data, Digests{})
	}
}
