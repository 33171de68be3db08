package initiator

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
)

func stateConfig(t testing.TB) Config {
	return Config{
		Target: "iqn.2026-01.test:disk", LUN: scsi.MakeLUN(3), InitiatorName: "iqn.2026-01.test:host",
		StateDir: filepath.Join(t.TempDir(), "a", "b"),
	}
}

func records() []mpio.SessionRecord {
	return []mpio.SessionRecord{
		{Portal: "127.0.0.1:3260", Target: "iqn.2026-01.test:disk", ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, TPGT: 1, Provable: true},
		{Portal: "[::1]:3260", Target: "iqn.2026-01.test:disk", ISID: [6]byte{0x80, 9}, TPGT: -1},
	}
}

func TestStateIsKept(t *testing.T) {
	c := stateConfig(t)
	f := newStateFile(c)
	list, err := f.load()
	require.NoError(t, err)
	require.Empty(t, list, "nothing is there at first, not even the folder")
	require.NoError(t, f.save(1, nil))
	require.NoError(t, f.save(2, records()))
	list, err = newStateFile(c).load()
	require.NoError(t, err)
	require.Equal(t, records(), list)

	require.NoError(t, f.save(1, nil), "one that hung meanwhile")
	list, err = f.load()
	require.NoError(t, err)
	require.Len(t, list, 2, "changes nothing any more")
	other := c
	other.LUN = scsi.MakeLUN(4)
	list, err = newStateFile(other).load()
	require.NoError(t, err)
	require.Empty(t, list)

	require.NoError(t, f.save(3, nil))
	left, err := os.ReadDir(c.StateDir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// Under another name the host cannot end the sessions it had before.
func TestStateOfAnotherName(t *testing.T) {
	c := stateConfig(t)
	require.NoError(t, newStateFile(c).save(1, records()))
	c.InitiatorName += "2"
	list, err := newStateFile(c).load()
	require.NoError(t, err)
	require.Len(t, list, 2)
	for _, r := range list {
		require.False(t, r.Provable)
	}
}

// What cannot be understood was left by someone: it counts as a session of which
// nothing is known.
func TestStateThatIsDamaged(t *testing.T) {
	c := stateConfig(t)
	good := `{"version":1,"target":"iqn.2026-01.test:disk","lun":"3","initiator_name":"iqn.2026-01.test:host","sessions":[`
	for name, content := range map[string]string{
		"empty":           "",
		"cut short":       good,
		"no sessions":     good + `]}`,
		"another version": `{"version":2}`,
		"another target":  `{"version":1,"target":"iqn.2026-01.test:other","lun":"3","sessions":[{}]}`,
		"no JSON":         "\x00\x01",
		"no ISID":         good + `{"portal":"p","target":"t","isid":"80","tpgt":1,"provable":true}]}`,
		"bad ISID":        good + `{"portal":"p","target":"t","isid":"80010203040x","tpgt":1,"provable":true}]}`,
		"no group":        good + `{"portal":"p","target":"t","isid":"800102030405","tpgt":-1,"provable":true}]}`,
		"no portal":       good + `{"target":"t","isid":"800102030405","tpgt":1,"provable":true}]}`,
	} {
		f := newStateFile(c)
		require.NoError(t, os.MkdirAll(c.StateDir, 0o755))
		require.NoError(t, os.WriteFile(f.path, []byte(content), 0o600))
		list, err := f.load()
		require.NoError(t, err, name)
		require.Len(t, list, 1, name)
		assert.False(t, list[0].Provable, name)
	}
}

func TestStateFolderThatCannotBeUsed(t *testing.T) {
	c := stateConfig(t)
	require.NoError(t, os.WriteFile(filepath.Dir(filepath.Dir(c.StateDir))+"/a", nil, 0o600))
	f := newStateFile(c)
	_, err := f.load()
	require.Error(t, err)
	require.ErrorContains(t, f.save(1, records()), "make it writable")
}

// FuzzState: whatever is in the file, it is never taken for nothing.
func FuzzState(f *testing.F) {
	c := stateConfig(f)
	s := newStateFile(c)
	require.NoError(f, s.save(1, records()))
	b, err := os.ReadFile(s.path)
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list := s.parse(b)
		require.NotEmpty(t, list)
		for _, r := range list {
			require.False(t, r.Provable && (r.TPGT < 0 || r.Portal == "" || r.Target == ""))
		}
	})
}

// TestHungStateFolder: a disk that does not answer fails the note, not the loop.
func TestHungStateFolder(t *testing.T) {
	c := stateConfig(t)
	c.Portals, c.OnlyGiven = []string{"127.0.0.1:1"}, true
	c, err := c.withDefaults()
	require.NoError(t, err)
	d, err := newDevice(c)
	require.NoError(t, err)
	defer d.Abort()
	d.state.mu.Lock() // a save that hangs
	noted := make(chan error, 1)
	start := time.Now()
	d.onLoop(func() { d.remember(records(), func(err error) { noted <- err }) })
	require.ErrorContains(t, <-noted, "no answer of the file system")
	assert.GreaterOrEqual(t, time.Since(start), saveTimeout)
	d.state.mu.Unlock()
	require.Eventually(t, func() bool { // it goes on, in a folder that is about to be removed
		d.state.mu.Lock()
		defer d.state.mu.Unlock()
		return d.state.saved == 1
	}, time.Minute, time.Millisecond)
}
