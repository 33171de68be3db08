package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
)

// finder has a system file with the given content, none if it is empty.
func finder(t *testing.T, system string) nameFinder {
	dir := t.TempDir()
	n := nameFinder{systemFile: filepath.Join(dir, "etc"), stateDir: filepath.Join(dir, "state"), random: strings.NewReader("abcdefghijkl")}
	if system != "" {
		require.NoError(t, os.WriteFile(n.systemFile, []byte(system), 0o600))
	}
	return n
}

func TestInitiatorNameOrder(t *testing.T) {
	n := finder(t, "## comment\n# InitiatorName=iqn.2026-01.x:no\n  InitiatorName = iqn.2026-01.x:system  \nInitiatorAlias=z\n")
	name, source, err := n.find("iqn.2026-01.x:given")
	require.NoError(t, err)
	assert.Equal(t, "iqn.2026-01.x:given command line", name+" "+source)
	name, source, err = n.find("")
	require.NoError(t, err)
	assert.Equal(t, "iqn.2026-01.x:system "+n.systemFile, name+" "+source)
	_, err = os.Stat(n.stateDir)
	assert.ErrorIs(t, err, fs.ErrNotExist, "nothing is generated without need")

	n = finder(t, "")
	_, _, err = n.existing("")
	require.ErrorIs(t, err, fs.ErrNotExist)
	name, source, err = n.find("")
	require.NoError(t, err)
	assert.Equal(t, "iqn.2026-01.io.iscsimp:616263646566", name)
	assert.Equal(t, n.ownFile(), source)
	require.NoError(t, initiator.CheckName(name))
	again, _, err := n.find("")
	require.NoError(t, err)
	assert.Equal(t, name, again, "it is kept")
}

func TestInitiatorNameErrors(t *testing.T) {
	for name, c := range map[string]struct{ content, says string }{
		"two names":  {"InitiatorName=iqn.2026-01.x:a\nInitiatorName=iqn.2026-01.x:b\n", "two initiators"},
		"none":       {"# nothing\n", "no InitiatorName="},
		"not a name": {"InitiatorName=host\n", "names look like"},
		"endless":    {strings.Repeat("x", 1<<17), "token too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := finder(t, c.content).find("")
			require.Error(t, err, "a broken file must not be passed over in silence")
			assert.Contains(t, err.Error(), c.says)
		})
	}
	_, _, err := finder(t, "").find("host")
	assert.Equal(t, exitInvalid, exitCode(err))
	n := finder(t, "")
	n.random = strings.NewReader("x")
	_, _, err = n.find("")
	assert.ErrorContains(t, err, "--initiator-name")
	n.stateDir = ""
	_, _, err = n.find("")
	assert.ErrorContains(t, err, "--initiator-name")
}

func TestGeneratingANameTwiceAtOnceGivesOne(t *testing.T) {
	base := finder(t, "")
	var wg sync.WaitGroup
	names := make([]string, 16)
	for i := range names {
		wg.Go(func() {
			n := base
			n.random = strings.NewReader(strings.Repeat(string(rune('a'+i)), 6))
			var err error
			names[i], _, err = n.find("")
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	for _, n := range names {
		assert.Equal(t, names[0], n)
	}
}

func TestDoctorOnInitiatorNames(t *testing.T) {
	n := finder(t, "InitiatorName=iqn.2026-01.x:system\n")
	assert.Equal(t, verdictOK, checkInitiatorName(n, "").Status)
	require.NoError(t, os.MkdirAll(n.stateDir, 0o700))
	require.NoError(t, os.WriteFile(n.ownFile(), []byte("InitiatorName=iqn.2026-01.x:own\n"), 0o600))
	f := checkInitiatorName(n, "")
	assert.Equal(t, verdictNote, f.Status)
	assert.Contains(t, f.Detail, "iqn.2026-01.x:own")
	assert.Equal(t, verdictNote, checkInitiatorName(finder(t, ""), "").Status, "one will be made")
	f = checkInitiatorName(finder(t, "x"), "")
	assert.Equal(t, verdictFail, f.Status)
	assert.NotEmpty(t, f.Remedy)
	n = finder(t, "")
	n.stateDir = filepath.Join(n.systemFile, "below", "a", "file")
	require.NoError(t, os.WriteFile(n.systemFile, nil, 0o600))
	f = checkInitiatorName(n, "")
	assert.Equal(t, verdictFail, f.Status, f.Detail)
}

func TestDoctorOnLimitsAndModules(t *testing.T) {
	assert.Equal(t, verdictWarn, checkOpenFiles(256, true).Status)
	assert.Equal(t, verdictOK, checkOpenFiles(1<<20, true).Status)
	assert.Equal(t, verdictNote, checkOpenFiles(0, false).Status)
	assert.Equal(t, verdictNote, checkKernelNBD(filepath.Join(t.TempDir(), "none")).Status)
	assert.Equal(t, verdictOK, checkKernelNBD(t.TempDir()).Status)
}
