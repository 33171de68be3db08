package nbdload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// BlockSize is the unit that is stamped and checked, in bytes.
const BlockSize = 4096

// stamp is what a block says about itself.
//
//	byte 0       8       16      24      32         36     40         4096
//	     | magic |  run  | block |version| checksum | zero |  filler   |
//
// The filler depends on all of them, so that no two versions share a sector; the checksum covers everything but itself, so that a block made of two versions is
// found out.
type stamp struct{ run, block, version uint64 }

const (
	stampMagic    = 0x69736373696d7001 // "iscsimp" and a version
	checksumStart = 32
	fillerStart   = 40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn is a block whose checksum does not fit, as when it is read in the middle of a write.
var errTorn = errors.New("the checksum does not match: parts of the block belong to different writes, or bytes are damaged")

// put fills block with the stamp.
func (s stamp) put(block []byte) {
	binary.BigEndian.PutUint64(block, stampMagic)
	binary.BigEndian.PutUint64(block[8:], s.run)
	binary.BigEndian.PutUint64(block[16:], s.block)
	binary.BigEndian.PutUint64(block[24:], s.version)
	state := s.run ^ s.block<<32 ^ s.version
	for i := fillerStart; i < BlockSize; i += 8 {
		state = state*6364136223846793005 + 1442695040888963407
		binary.BigEndian.PutUint64(block[i:], state)
	}
	binary.BigEndian.PutUint64(block[checksumStart:], 0)
	binary.BigEndian.PutUint32(block[checksumStart:], stampChecksum(block))
}

// readStamp takes the stamp out of a block; a block of zeros is version 0 of any block.
func readStamp(block []byte, run, number uint64) (version uint64, err error) {
	magic := binary.BigEndian.Uint64(block)
	if magic == 0 && allZero(block) {
		return 0, nil
	}
	if magic != stampMagic {
		return 0, fmt.Errorf("the block was never written by this load: it starts with % x", block[:16])
	}
	if stampChecksum(block) != binary.BigEndian.Uint32(block[checksumStart:]) {
		return 0, errTorn
	}
	got := stamp{binary.BigEndian.Uint64(block[8:]), binary.BigEndian.Uint64(block[16:]), binary.BigEndian.Uint64(block[24:])}
	if got.run != run {
		return 0, fmt.Errorf("the block holds data of another run (%#x, now %#x)", got.run, run)
	}
	if got.block != number {
		return 0, fmt.Errorf("the block holds block %d", got.block)
	}
	return got.version, nil
}

func stampChecksum(block []byte) uint32 {
	return crc32.Update(crc32.Checksum(block[:checksumStart], castagnoli), castagnoli, block[fillerStart:])
}

func allZero(block []byte) bool {
	for i := 0; i < len(block); i += 8 {
		if binary.NativeEndian.Uint64(block[i:]) != 0 {
			return false
		}
	}
	return true
}

func aSecondFromNow() time.Time { return time.Now().Add(time.Second) }
