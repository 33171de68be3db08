package nbd

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/iscsimp/iscsimp/internal/block"
)

// FuzzHandshake: whatever a client sends, the handshake ends, answers with
// well-formed messages only, and reserves a connection only if it says so.
func FuzzHandshake(f *testing.F) {
	f.Add(clientFlags(3))
	f.Add(cat(clientFlags(3), opt(optList), opt(optAbort)))
	f.Add(cat(clientFlags(3), opt(optInfo, infoData("ro", 0, 1, 2, 3)...), opt(optGo, infoData("disk", 3)...), []byte("rest")))
	f.Add(cat(clientFlags(1), opt(optExportName, []byte("disk")...)))
	f.Add(cat(clientFlags(3), opt(optStartTLS), opt(optStructuredReply), opt(10, make([]byte, 30)...), opt(optGo, infoData("")...)))
	srv := handshakeServer(f, nil)
	f.Fuzz(func(t *testing.T, client []byte) {
		n, c, err := haggle(srv, client)
		if err == nil && n.chosen == nil {
			t.Fatal("the handshake ended without choice and without error")
		}
		if n.chosen != nil {
			srv.abandon(n.chosen, errors.New("test"))
		}
		if len(srv.conns) != 0 || srv.open != 0 {
			t.Fatal("a reservation leaked")
		}
		checkOptionReplies(t, c.out.Bytes())
	})
}

// checkOptionReplies requires whole replies, except that the last message may
// be the answer to EXPORT_NAME.
func checkOptionReplies(t *testing.T, out []byte) {
	out = out[18:]
	for len(out) > 0 {
		if len(out) == 10 || len(out) == 134 {
			return
		}
		if len(out) < 20 || binary.BigEndian.Uint64(out) != magicOptionReply {
			t.Fatalf("malformed reply %x", out)
		}
		n := 20 + int(binary.BigEndian.Uint32(out[16:]))
		if n > len(out) {
			t.Fatalf("a reply of %d bytes, %d came", n, len(out))
		}
		out = out[n:]
	}
}

// FuzzTransmission feeds arbitrary bytes in arbitrary portions to a connection
// whose device completes in arbitrary order: nothing panics, memory stays
// bounded, the connection never stops with work left, nothing leaks.
func FuzzTransmission(f *testing.F) {
	f.Add(cat(req(cmdRead, 0, 1, 0, 512), write(1, 2, 512, make([]byte, 1024)), req(cmdFlush, 0, 3, 0, 0), req(cmdDisc, 0, 0, 0, 0)), []byte{9, 200, 3})
	f.Add(cat(req(cmdTrim, 0, 1, 0, 4096), req(cmdWriteZeroes, 2, 2, 0, 512), req(99, 0, 3, 0, 0)), []byte{1})
	f.Add(cat(write(0, 1, 1<<40, make([]byte, 2048)), req(cmdRead, 0, 2, 0, 512)), []byte{30})
	f.Add(cat(req(cmdRead, 0, 1, 0, 65536), req(cmdRead, 0, 2, 0, 65536), req(cmdRead, 0, 3, 0, 65536)), []byte{255, 0})
	f.Add(req(cmdWrite, 0, 1, 0, maxDrain+1), []byte{28})
	f.Fuzz(func(t *testing.T, stream, choices []byte) {
		const limit = 128 << 10
		r := newRig(t, 64<<10, func(cfg *Config, d *memDevice) {
			cfg.MaxInflightRequests, cfg.MaxInflightBytes = 8, limit
			d.hold = true
		})
		choose := func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			v := int(choices[0])
			choices = append(choices[1:], choices[0])
			return v % max(n, 1)
		}
		var err error
		for len(stream) > 0 && err == nil {
			before := len(stream)
			stream, err = r.offer(stream, 1+choose(256))
			if r.conn.memory > limit && r.conn.inflight > 1 {
				t.Fatalf("%d bytes held", r.conn.memory)
			}
			if len(r.dev.queue) > 0 && (choose(2) == 0 || len(stream) == before) {
				r.dev.completeAt(choose(len(r.dev.queue)))
			}
			if choose(3) == 0 || len(stream) == before {
				r.send(1 + choose(256))
				if len(stream) == before && r.send(1<<30) == 0 && len(r.dev.queue) == 0 {
					break // DISC, or the violation was found while going on
				}
			}
		}
		if !r.stream.aborted && !r.stream.closed && err == nil && len(stream) > 0 {
			t.Fatalf("stuck with %d bytes unread", len(stream))
		}
		for _, q := range r.dev.queue {
			if q.Op == block.OpRead && uint64(len(q.Data)) != q.Length {
				t.Fatal("a buffer was taken from the device")
			}
		}
		r.end()
	})
}
