package main

import (
	"fmt"
	"sync"

	"github.com/gostor/gotgt/pkg/api"
)

// ramStore is a LUN in memory. gotgt calls it from one goroutine per connection; the lock makes each read and write atomic, so that a torn block seen by an
// initiator is never this store's doing.
type ramStore struct {
	mu    sync.RWMutex
	bytes []byte // guarded by mu
}

var _ api.BackingStore = (*ramStore)(nil)

func (s *ramStore) Open(*api.SCSILu, string) error        { return nil }
func (s *ramStore) Close(*api.SCSILu) error               { return nil }
func (s *ramStore) Init(*api.SCSILu, string) error        { return nil }
func (s *ramStore) Exit(*api.SCSILu) error                { return nil }
func (s *ramStore) Size(*api.SCSILu) uint64               { return uint64(len(s.bytes)) }
func (s *ramStore) DataSync(_, _ int64) error             { return nil }
func (s *ramStore) DataAdvise(_, _ int64, _ uint32) error { return nil }

// Read returns a copy: gotgt sends it after the lock is gone.
func (s *ramStore) Read(offset, length int64) ([]byte, error) {
	if err := s.check(offset, length); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]byte(nil), s.bytes[offset:offset+length]...), nil
}

func (s *ramStore) Write(data []byte, offset int64) error {
	if err := s.check(offset, int64(len(data))); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.bytes[offset:], data)
	return nil
}

// Unmap clears the ranges; gotgt gives offset and length in bytes.
func (s *ramStore) Unmap(ranges []api.UnmapBlockDescriptor) error {
	for _, r := range ranges {
		if err := s.check(int64(r.Offset), int64(r.TL)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range ranges {
		clear(s.bytes[r.Offset : r.Offset+uint64(r.TL)])
	}
	return nil
}

// check refuses ranges outside the LUN: gotgt itself lets a write past the end through when the expected transfer length says so.
func (s *ramStore) check(offset, length int64) error {
	if size := int64(len(s.bytes)); offset < 0 || length < 0 || offset > size || length > size-offset {
		return fmt.Errorf("%d bytes at %d are outside the LUN of %d bytes", length, offset, size)
	}
	return nil
}
