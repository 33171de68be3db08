package nbdload_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/test/nbdload"
)

// request is what the fake server got; a hook may change it or answer it.
type request struct {
	command uint16
	offset  uint64
	data    []byte // of a write, or what a read will answer
}

// fakeServer is an NBD server in memory that can be told to misbehave.
type fakeServer struct {
	size uint64
	// before sees a request before it is carried out and returns an NBD error number; after sees what a read answers.
	before, after func(*request) uint32
	swallow       func(*request) bool // true: a write is acknowledged and forgotten

	mu     sync.Mutex
	memory []byte
}

func startServer(t *testing.T, s *fakeServer) string {
	t.Helper()
	if s.size == 0 {
		s.size = 4 << 20
	}
	s.memory = make([]byte, s.size)
	path := filepath.Join(shortdir.New(t), "s")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_ = s.serve(conn)
				_ = conn.Close()
			})
		}
	})
	return path
}

func dial(t *testing.T, path string) *nbdload.Client {
	t.Helper()
	client, err := nbdload.Dial(t.Context(), "unix", path, "")
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (s *fakeServer) negotiate(conn net.Conn) error {
	hello := []byte("NBDMAGICIHAVEOPT\x00\x03")
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	head := make([]byte, 20)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	option := make([]byte, binary.BigEndian.Uint32(head[16:]))
	if _, err := io.ReadFull(conn, option); err != nil {
		return err
	}
	reply := func(kind uint32, payload []byte) error {
		b := binary.BigEndian.AppendUint64(nil, 0x3e889045565a9)
		b = append(b, head[12:16]...)
		b = binary.BigEndian.AppendUint32(b, kind)
		b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
		_, err := conn.Write(append(b, payload...))
		return err
	}
	if binary.BigEndian.Uint32(option) != 0 {
		return errors.Join(reply(1<<31|6, []byte("no such export")), io.EOF)
	}
	info := binary.BigEndian.AppendUint64(make([]byte, 2), s.size)
	return errors.Join(reply(3, append(info, 0, 1)), reply(1, nil))
}

func (s *fakeServer) serve(conn net.Conn) error {
	if err := s.negotiate(conn); err != nil {
		return err
	}
	var sending sync.Mutex
	var working sync.WaitGroup
	defer working.Wait()
	for {
		head := make([]byte, 28)
		if _, err := io.ReadFull(conn, head); err != nil {
			return err
		}
		r := &request{command: binary.BigEndian.Uint16(head[6:]), offset: binary.BigEndian.Uint64(head[16:])}
		if r.command == 2 {
			return nil
		}
		r.data = make([]byte, binary.BigEndian.Uint32(head[24:]))
		if r.command == 1 {
			if _, err := io.ReadFull(conn, r.data); err != nil {
				return err
			}
		}
		working.Go(func() {
			code := s.carryOut(r)
			answer := binary.BigEndian.AppendUint32(nil, 0x67446698)
			answer = binary.BigEndian.AppendUint32(answer, code)
			answer = append(answer, head[8:16]...)
			if r.command == 0 && code == 0 {
				answer = append(answer, r.data...)
			}
			sending.Lock()
			defer sending.Unlock()
			_, _ = conn.Write(answer)
		})
	}
}

func (s *fakeServer) carryOut(r *request) uint32 {
	if s.before != nil {
		if code := s.before(r); code != 0 {
			return code
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.offset+uint64(len(r.data)) > s.size {
		return 28
	}
	there := s.memory[r.offset : r.offset+uint64(len(r.data))]
	switch r.command {
	case 0:
		copy(r.data, there)
		if s.after != nil {
			return s.after(r)
		}
	case 1:
		if s.swallow == nil || !s.swallow(r) {
			copy(there, r.data)
		}
	case 4, 6:
		if s.swallow == nil || !s.swallow(r) {
			clear(there)
		}
	}
	return 0
}
