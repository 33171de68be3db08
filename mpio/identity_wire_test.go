package mpio_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
)

// impostors answer at the address of a portal of another target, under its name.
var impostors = map[string]iscsitest.LUN{
	"another disk":                   {Serial: "other"},
	"equal serial, another NAA":      {Serial: "S1", NAA: []byte{0x60, 1, 0x40, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}},
	"equal names, smaller":           {Serial: "S1", Size: 32 << 20},
	"equal names, larger":            {Serial: "S1", Size: 128 << 20},
	"equal names, other block size":  {Serial: "S1", BlockSize: 4096},
	"equal names, other product":     {Serial: "S1", Product: "OTHER DISK"},
	"equal names, another LUN":       {Serial: "S1", Number: 1},
	"equal names, not a disk at all": {Serial: "S1", DeviceType: scsi.TypeEnclosure},
}

// TestSwapOnTheWire: while a path is away another unit takes the place of its own.
// Not a block of it is read or written, by whatever path is left, and when the
// right one is back all is well again.
func TestSwapOnTheWire(t *testing.T) {
	for name, lun := range impostors {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWireTo(t, 2, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "S1"}}}, nil)
				defer w.close()
				w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
				other, err := iscsitest.NewTarget(iscsitest.Config{Portals: []iscsitest.Portal{{Addr: "-"}}, LUNs: []iscsitest.LUN{lun}})
				require.NoError(t, err)
				defer other.Close()
				touched := other.Inject(iscsitest.Or(iscsitest.Reads(), iscsitest.Writes()))
				stop := w.load(4)
				w.impostor.Store(other)
				w.tgt.CutConnections(iscsitest.ByPortal(1))
				time.Sleep(5 * time.Second)
				state := w.snapshot().Paths[1].State
				assert.Contains(t, []mpio.State{mpio.StateQuarantined, mpio.StateDown}, state)
				stop()

				// With nothing else left, too.
				w.tgt.StopPortal(0)
				read := w.submit(block.OpRead, 3, make([]byte, 512))
				time.Sleep(20 * time.Second)
				assert.Empty(t, read, "it waits for the right unit")
				assert.Zero(t, touched.Hits())

				w.impostor.Store(nil)
				require.NoError(t, w.tgt.StartPortal(0))
				other.CutConnections(nil)
				require.NoError(t, <-read)
				w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
				assert.Zero(t, touched.Hits())
			})
		})
	}
}

// TestRemapOnTheWire: a session lives on while another unit is mapped to its LUN,
// which the target says, or does not say before the size does.
func TestRemapOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWireTo(t, 2, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "S1"}}}, func(c *mpio.Config) { c.NoPathTimeout = 5 * time.Second })
		defer func() {
			assert.ErrorIs(t, w.leave(), block.ErrIO, "there is nowhere to flush to")
			w.tgt.Close()
		}()
		w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
		require.NoError(t, <-w.submit(block.OpWrite, 3, make([]byte, 512)))
		require.NoError(t, w.tgt.SetSerial(0, "S2"))
		touched := w.tgt.Inject(iscsitest.And(iscsitest.Or(iscsitest.Reads(), iscsitest.Writes())))
		assert.ErrorIs(t, <-w.submit(block.OpWrite, 3, bytes.Repeat([]byte{9}, 512)), block.ErrIO)
		for _, p := range w.snapshot().Paths {
			assert.Equal(t, mpio.StateQuarantined, p.State)
		}
		assert.LessOrEqual(t, touched.Hits(), 2, "what brought the news, and was not executed")
		assert.Equal(t, make([]byte, 512), w.medium(3))
	})
}

// medium is a block as the target's medium has it.
func (w *wire) medium(lba int64) []byte {
	b := make([]byte, 512)
	_, err := w.tgt.Medium(0).ReadAt(b, lba*512)
	require.NoError(w.t, err)
	return b
}

// TestResizeOnTheWire resizes a unit that is named by nothing unique, under load.
func TestResizeOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 3, iscsitest.Quirks{}, nil)
		defer w.close()
		stop := w.load(4)
		blocks := func() uint64 { return w.d.Geometry().Size / 512 }
		for _, size := range []int64{128 << 20, 512 << 20, 256 << 20, 32 << 20, 64 << 20} {
			require.NoError(t, w.tgt.SetSize(0, size))
			last := int(size/512) - 1
			w.until(func(mpio.Snapshot) bool { return blocks() == uint64(size/512) })
			require.NoError(t, <-w.submit(block.OpWrite, last, make([]byte, 512)))
			require.ErrorIs(t, <-w.submit(block.OpRead, last+1, make([]byte, 512)), block.ErrRange)
			w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 3 })
			time.Sleep(500 * time.Millisecond)
		}
		n, longest := stop()
		assert.Greater(t, n, 200)
		assert.Less(t, longest, time.Second)
	})
}
