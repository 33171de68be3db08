package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// A unit that is write protected when the device comes up may be written to later.
func TestWriteProtectedUnitIsNotedBeforeItIsWrittenTo(t *testing.T) {
	r, book := newNoted(t, 2, nil)
	r.unit.mode.WriteProtected = true
	r.up()
	require.True(t, r.d.Geometry().ReadOnly)
	r.unit.mode.WriteProtected = false
	r.only(0)
	r.attend(0, scsi.ASCModeParametersChanged) // the other path does not say so yet
	require.NoError(t, r.waitFor(r.read(0, 1)))
	r.l.run(sec)
	require.False(t, r.d.Geometry().ReadOnly)
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	assert.ElementsMatch(t, []SessionRecord{earlier(0), earlier(1)}, book.last(), "a crash from now on leaves writes behind")
}

// A unit that becomes write protected still has what was written before in its cache.
func TestWriteProtectedUnitIsFlushedAtTheEnd(t *testing.T) {
	r, book := newNoted(t, 1, nil)
	r.up()
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	r.unit.mode.WriteProtected = true
	r.attend(0, scsi.ASCModeParametersChanged)
	require.NoError(t, r.waitFor(r.read(0, 1)))
	r.l.run(sec)
	require.True(t, r.d.Geometry().ReadOnly)
	closed := false
	r.d.Close(false, func(error) { closed = true })
	r.l.run(sec)
	require.True(t, closed)
	assert.Equal(t, 1, r.unit.counts[scsi.OpSyncCache10])
	assert.Empty(t, book.last(), "and nothing is left to remember")
}

// What the target has not read yet of a path that was fenced off by its key is kept out
// because the path is not registered. The next process may register it.
func TestPathThatIsKeptOutIsNotedAtTheEnd(t *testing.T) {
	for until, want := range map[int64][]SessionRecord{60 * sec: {earlier(0)}, 0: nil} {
		r, book := newNoted(t, 2, nil)
		r.up()
		r.d.paths[0].rsv.notBefore, r.d.paths[0].rsv.settledGen = r.l.now+until, r.d.paths[0].gen
		r.d.Close(false, nil)
		r.l.run(sec)
		require.True(t, r.d.closeDone)
		assert.ElementsMatch(t, want, book.last())
	}
}
