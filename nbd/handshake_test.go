package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scriptConn is a net.Conn whose peer has said everything in advance.
type scriptConn struct {
	net.Conn // panics on what a handshake has no business with
	in       *bytes.Reader
	out      bytes.Buffer
	writeErr error
}

func (c *scriptConn) Read(b []byte) (int, error) { return c.in.Read(b) }

func (c *scriptConn) Write(b []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	return c.out.Write(b)
}

// haggle runs a handshake over what the client sends.
func haggle(srv *Server, client []byte) (*negotiation, *scriptConn, error) {
	c := &scriptConn{in: bytes.NewReader(client)}
	n := &negotiation{srv: srv, conn: c, remote: "test"}
	return n, c, n.run()
}

func handshakeServer(t testing.TB, change func(*Config)) *Server {
	t.Helper()
	lp := &manualLoop{}
	disk, ro := newMemDevice(lp, mib), newMemDevice(lp, 8192)
	ro.geo.ReadOnly, ro.geo.Rotational, ro.geo.BlockSize = true, true, 4096
	ro.geo.Size += 100 // not a multiple of the block size
	cfg := Config{Exports: []Export{
		{Name: "disk", Description: "a disk", Device: disk},
		{Name: "ro", Device: ro},
	}}
	if change != nil {
		change(&cfg)
	}
	srv, err := New(cfg)
	require.NoError(t, err)
	return srv
}

func clientFlags(flags uint32) []byte { return binary.BigEndian.AppendUint32(nil, flags) }

func opt(option uint32, data ...byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// infoData is the data of INFO and GO.
func infoData(name string, infos ...uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(infos)))
	for _, i := range infos {
		b = binary.BigEndian.AppendUint16(b, i)
	}
	return b
}

// optReply is one option reply as a client sees it.
type optReply struct {
	option, reply uint32
	data          string
}

// optReplies decodes what follows the greeting.
func optReplies(t testing.TB, out []byte) []optReply {
	t.Helper()
	require.GreaterOrEqual(t, len(out), 18)
	out = out[18:]
	var all []optReply
	for len(out) > 0 {
		require.GreaterOrEqual(t, len(out), 20)
		require.Equal(t, magicOptionReply, binary.BigEndian.Uint64(out))
		n := int(binary.BigEndian.Uint32(out[16:]))
		require.GreaterOrEqual(t, len(out), 20+n)
		all = append(all, optReply{binary.BigEndian.Uint32(out[8:]), binary.BigEndian.Uint32(out[12:]), string(out[20 : 20+n])})
		out = out[20+n:]
	}
	return all
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

const (
	diskFlags = "\x01\x6d" // HAS_FLAGS FLUSH FUA TRIM WRITE_ZEROES MULTI_CONN
	diskSize  = "\x00\x00\x00\x00\x00\x10\x00\x00"
	diskBlock = "\x00\x03\x00\x00\x02\x00\x00\x00\x10\x00\x02\x00\x00\x00"
	roFlags   = "\x01\x17" // HAS_FLAGS READ_ONLY FLUSH ROTATIONAL MULTI_CONN
	roSize    = "\x00\x00\x00\x00\x00\x00\x20\x00"
	roBlock   = "\x00\x03\x00\x00\x10\x00\x00\x00\x10\x00\x02\x00\x00\x00"
)

func TestGreetingBytes(t *testing.T) {
	_, c, err := haggle(handshakeServer(t, nil), nil)
	require.ErrorIs(t, err, io.EOF)
	assert.Equal(t, "NBDMAGIC"+"IHAVEOPT"+"\x00\x03", c.out.String())
}

func TestOptionReplies(t *testing.T) {
	tests := []struct {
		name string
		wire []byte
		want []optReply
	}{
		{"abort", opt(optAbort), []optReply{{optAbort, repAck, ""}}},
		{"abort with data", opt(optAbort, 1, 2, 3), []optReply{{optAbort, repAck, ""}}},
		{"list", opt(optList), []optReply{
			{optList, repServer, "\x00\x00\x00\x04disk" + "a disk"},
			{optList, repServer, "\x00\x00\x00\x02ro"},
			{optList, repAck, ""},
		}},
		{"info", opt(optInfo, infoData("disk")...), []optReply{
			{optInfo, repInfo, "\x00\x00" + diskSize + diskFlags},
			{optInfo, repInfo, diskBlock},
			{optInfo, repAck, ""},
		}},
		{"info, everything asked for", opt(optInfo, infoData("ro", 3, 2, 1, 0, 77, 3)...), []optReply{
			{optInfo, repInfo, "\x00\x00" + roSize + roFlags},
			{optInfo, repInfo, "\x00\x01ro"},
			{optInfo, repInfo, "\x00\x02"},
			{optInfo, repInfo, roBlock},
			{optInfo, repAck, ""},
		}},
		{"info of the default export", opt(optInfo, infoData("", infoName, infoDescription)...), []optReply{
			{optInfo, repInfo, "\x00\x00" + diskSize + diskFlags},
			{optInfo, repInfo, "\x00\x01disk"},
			{optInfo, repInfo, "\x00\x02a disk"},
			{optInfo, repInfo, diskBlock},
			{optInfo, repAck, ""},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, c, err := haggle(handshakeServer(t, nil), cat(clientFlags(3), tt.wire))
			require.Error(t, err, "the client went without choosing")
			assert.Nil(t, n.chosen)
			assert.Equal(t, tt.want, optReplies(t, c.out.Bytes()))
		})
	}
}

func TestRefusedOptions(t *testing.T) {
	tooLong := strings.Repeat("x", maxString+1)
	tests := []struct {
		name   string
		option uint32
		data   []byte
		reply  uint32
	}{
		{"STARTTLS", optStartTLS, nil, repErrUnsup},
		{"STRUCTURED_REPLY", optStructuredReply, nil, repErrUnsup},
		{"LIST_META_CONTEXT", 9, make([]byte, 100), repErrUnsup},
		{"SET_META_CONTEXT", 10, make([]byte, 100), repErrUnsup},
		{"EXTENDED_HEADERS", 11, nil, repErrUnsup},
		{"withdrawn", 4, nil, repErrUnsup},
		{"zero", 0, nil, repErrUnsup},
		{"unknown with much data", 1 << 31, make([]byte, maxOptionData), repErrUnsup},
		{"LIST with data", optList, []byte{0}, repErrInvalid},
		{"GO without data", optGo, nil, repErrInvalid},
		{"GO with 5 bytes", optGo, make([]byte, 5), repErrInvalid},
		{"GO, the name is longer than the data", optGo, []byte{0, 0, 0, 1, 0, 0}, repErrInvalid},
		{"GO, the name's length overflows", optGo, []byte{255, 255, 255, 255, 0, 0}, repErrInvalid},
		{"GO, fewer requests than announced", optGo, []byte{0, 0, 0, 0, 0, 2, 0, 1}, repErrInvalid},
		{"GO, more requests than announced", optGo, []byte{0, 0, 0, 0, 0, 0, 0, 1}, repErrInvalid},
		{"GO, half a request", optGo, []byte{0, 0, 0, 0, 0, 1, 0}, repErrInvalid},
		{"GO, unknown export", optGo, infoData("nothing\x00\xff\n"), repErrUnknown},
		{"INFO, unknown export", optInfo, infoData("nothing"), repErrUnknown},
		{"GO, name too long", optGo, infoData(tooLong), repErrTooBig},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// After the refusal the handshake goes on.
			n, c, err := haggle(handshakeServer(t, nil), cat(clientFlags(1), opt(tt.option, tt.data...), opt(optGo, infoData("disk")...)))
			require.NoError(t, err)
			require.NotNil(t, n.chosen)
			got := optReplies(t, c.out.Bytes())
			require.Len(t, got, 4)
			assert.Equal(t, tt.option, got[0].option)
			assert.Equal(t, tt.reply, got[0].reply)
			assert.NotEmpty(t, got[0].data, "a text for humans")
			assert.Equal(t, optReply{optGo, repAck, ""}, got[3])
		})
	}
}

func TestExportName(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags uint32
		want  string
	}{
		{"disk", 3, diskSize + diskFlags},
		{"", 3, diskSize + diskFlags},
		{"ro", 3, roSize + roFlags},
		{"disk", 1, diskSize + diskFlags + strings.Repeat("\x00", 124)},
		{"disk", 0, diskSize + diskFlags + strings.Repeat("\x00", 124)}, // not even fixed newstyle
	} {
		n, c, err := haggle(handshakeServer(t, nil), cat(clientFlags(tt.flags), opt(optExportName, []byte(tt.name)...)))
		require.NoError(t, err)
		require.NotNil(t, n.chosen)
		assert.Equal(t, tt.want, c.out.String()[18:])
	}
}

func TestHandshakeReadsNotAByteTooMany(t *testing.T) {
	for name, choose := range map[string][]byte{
		"GO":          opt(optGo, infoData("disk", 0, 1, 2, 3)...),
		"EXPORT_NAME": opt(optExportName, []byte("disk")...),
	} {
		t.Run(name, func(t *testing.T) {
			n, c, err := haggle(handshakeServer(t, nil), cat(clientFlags(3), opt(optList), choose, []byte("a request")))
			require.NoError(t, err)
			require.NotNil(t, n.chosen)
			assert.Equal(t, len("a request"), c.in.Len())
		})
	}
}

func TestHandshakeViolations(t *testing.T) {
	badMagic := opt(optList)
	badMagic[3]++
	oversize := opt(optList)
	binary.BigEndian.PutUint32(oversize[12:], maxOptionData+1)
	huge := opt(optExportName)
	binary.BigEndian.PutUint32(huge[12:], 1<<32-1)
	tests := map[string]struct {
		wire []byte
		text string
	}{
		"nothing":                    {nil, "no client flags"},
		"half the flags":             {[]byte{0, 0}, "no client flags"},
		"unknown flags":              {cat(clientFlags(4), opt(optList)), "flags 0x4"},
		"all flags":                  {cat(clientFlags(1<<32-1), opt(optList)), "flags 0xffffffff"},
		"no option":                  {clientFlags(3), "no option"},
		"half an option header":      {cat(clientFlags(3), opt(optList)[:9]), "no option"},
		"half an option's data":      {cat(clientFlags(3), opt(optGo, infoData("disk")...)[:20]), "data of option 7"},
		"wrong option magic":         {cat(clientFlags(3), badMagic), "instead of"},
		"a request":                  {cat(clientFlags(3), req(cmdRead, 0, 1, 0, 512)), "instead of"},
		"data too long":              {cat(clientFlags(3), oversize), "attack"},
		"name of 4 GiB":              {cat(clientFlags(3), huge), "attack"},
		"HTTP":                       {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "flags"},
		"TLS":                        {[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "flags"},
		"EXPORT_NAME, unknown":       {cat(clientFlags(3), opt(optExportName, []byte("nothing")...)), "does not exist"},
		"EXPORT_NAME, name too long": {cat(clientFlags(3), opt(optExportName, make([]byte, maxString+1)...)), "4097 bytes"},
		"endless haggling":           {cat(clientFlags(3), bytes.Repeat(opt(optList), maxOptions+1)), "chose no export"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n, _, err := haggle(handshakeServer(t, nil), tt.wire)
			require.ErrorContains(t, err, tt.text)
			assert.Nil(t, n.chosen)
		})
	}
}

// A handshake that ends at any byte, or whose answers go nowhere, is an error
// and keeps no reservation.
func TestHandshakeCutShort(t *testing.T) {
	whole := cat(clientFlags(3), opt(optList), opt(optInfo, infoData("ro", 1)...), opt(optGo, infoData("disk", 3)...))
	srv := handshakeServer(t, nil)
	for i := range whole {
		n, _, err := haggle(srv, whole[:i])
		require.Error(t, err)
		require.Nil(t, n.chosen)
	}
	assert.Empty(t, srv.conns)
}

func TestConnectionLimit(t *testing.T) {
	srv := handshakeServer(t, func(cfg *Config) { cfg.MaxConnections = 1 })
	wire := cat(clientFlags(3), opt(optGo, infoData("disk")...))
	first, _, err := haggle(srv, wire)
	require.NoError(t, err)

	_, c, err := haggle(srv, wire)
	require.ErrorIs(t, err, io.EOF)
	got := optReplies(t, c.out.Bytes())
	require.Len(t, got, 1)
	assert.Equal(t, repErrPolicy, got[0].reply)
	assert.Contains(t, got[0].data, "raise the limit")
	_, _, err = haggle(srv, cat(clientFlags(3), opt(optExportName)))
	require.ErrorContains(t, err, "raise the limit")

	srv.abandon(first.chosen, errors.New("gone"))
	_, _, err = haggle(srv, wire)
	require.NoError(t, err)
}

func TestClosedServerRefusesOptions(t *testing.T) {
	srv := handshakeServer(t, nil)
	require.NoError(t, srv.Close(t.Context()))
	for _, wire := range [][]byte{opt(optList), opt(optGo, infoData("disk")...)} {
		_, c, err := haggle(srv, cat(clientFlags(3), wire))
		require.ErrorIs(t, err, ErrClosed)
		got := optReplies(t, c.out.Bytes())
		require.Len(t, got, 1)
		assert.Equal(t, repErrShutdown, got[0].reply)
	}
	_, c, err := haggle(srv, cat(clientFlags(3), opt(optExportName)))
	require.ErrorIs(t, err, ErrClosed)
	assert.Len(t, c.out.Bytes(), 18)
}

func TestGeometryThatCannotBeExported(t *testing.T) {
	srv := handshakeServer(t, nil)
	srv.cfg.Exports[0].Device.(*memDevice).geo.BlockSize = 520 // changed after New
	_, c, err := haggle(srv, cat(clientFlags(3), opt(optGo, infoData("disk")...)))
	require.Error(t, err)
	got := optReplies(t, c.out.Bytes())
	require.Len(t, got, 1)
	assert.Equal(t, repErrPolicy, got[0].reply)
	assert.Contains(t, got[0].data, "520")
}

func TestConfigIsChecked(t *testing.T) {
	dev := newMemDevice(&manualLoop{}, mib)
	odd := newMemDevice(&manualLoop{}, mib)
	odd.geo.BlockSize = 520
	big := newMemDevice(&manualLoop{}, mib)
	big.geo.BlockSize = 128 << 10
	tests := map[string]struct {
		cfg  Config
		text string
	}{
		"no exports":       {Config{}, "at least one device"},
		"no device":        {Config{Exports: []Export{{Name: "a"}}}, "no device"},
		"same name twice":  {Config{Exports: []Export{{Name: "a", Device: dev}, {Name: "a", Device: dev}}}, "name of its own"},
		"NUL in the name":  {Config{Exports: []Export{{Name: "a\x00", Device: dev}}}, "UTF-8"},
		"name not UTF-8":   {Config{Exports: []Export{{Name: "\xff", Device: dev}}}, "UTF-8"},
		"description long": {Config{Exports: []Export{{Description: strings.Repeat("x", 4097), Device: dev}}}, "4096"},
		"520-byte blocks":  {Config{Exports: []Export{{Device: odd}}}, "power of two"},
		"128 KiB blocks":   {Config{Exports: []Export{{Device: big}}}, "power of two"},
		"negative limit":   {Config{Exports: []Export{{Device: dev}}, MaxInflightBytes: -1}, "negative"},
		"negative timeout": {Config{Exports: []Export{{Device: dev}}, HandshakeTimeout: -time.Second}, "negative"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := New(tt.cfg)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

func TestPreferredBlock(t *testing.T) {
	for physical, want := range map[uint32]uint32{0: 4096, 512: 4096, 4096: 4096, 4097: 8192, 65536: 65536, 1<<32 - 1: maxPayload} {
		assert.Equal(t, want, preferredBlock(physical), "%d", physical)
	}
}
