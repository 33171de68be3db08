package nbd

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/iscsimp/iscsimp/internal/block"
)

// A client is held to the size it was told; one that connects after the device
// changed its size is told the new one.
func TestSizeIsThatOfTheNegotiation(t *testing.T) {
	r := newRig(t, mib, nil)
	r.dev.data = make([]byte, 2*mib)
	r.dev.geo.Size = 2 * mib
	r.feed(cat(req(cmdRead, 0, 1, mib-512, 512), req(cmdRead, 0, 2, mib, 512), write(0, 3, mib, pattern(512, 1))))
	assert.Equal(t, []uint32{0, errnoInval, errnoNoSpace}, errnos(r.answers(map[uint64]int{1: 512})))

	grown := r.connect()
	assert.EqualValues(t, 2*mib, grown.limits.size)
	assert.EqualValues(t, mib, r.conn.limits.size)
	grown.stream = r.stream
	grown.Closed(nil)
	r.end()
}

// The device shrank: what it refuses is told as what it is.
func TestShrunkDevice(t *testing.T) {
	r := newRig(t, 2*mib, nil)
	r.dev.data = r.dev.data[:mib]
	r.dev.geo.Size = mib
	r.feed(cat(req(cmdRead, 0, 1, mib-512, 512), req(cmdRead, 0, 2, mib, 512), write(0, 3, mib-512, pattern(1024, 1)), req(cmdTrim, 0, 4, mib, 512)))
	assert.Equal(t, []uint32{0, errnoInval, errnoNoSpace, errnoInval}, errnos(r.answers(map[uint64]int{1: 512})))
	assert.Equal(t, uint32(errnoNoSpace), errnoOf(block.OpWriteZeroes, block.ErrRange))
	r.end()
}

func errnos(list []answer) (all []uint32) {
	for _, a := range list {
		all = append(all, a.errno)
	}
	return all
}
