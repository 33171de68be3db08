package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestDeviceNames(t *testing.T) {
	for _, good := range []string{"a", "disk-0", "A_b.c-9", strings.Repeat("x", maxDeviceName)} {
		assert.NoError(t, checkDeviceName(good), good)
	}
	for _, bad := range []string{"", ".", ".x", "-x", "a/b", "a b", "ä", "a\n", strings.Repeat("x", maxDeviceName+1)} {
		assert.Equal(t, exitInvalid, exitCode(checkDeviceName(bad)), "%q", bad)
	}
}

func TestDerivedNames(t *testing.T) {
	long := "iqn.2026-01.com.example:" + strings.Repeat("a", 100)
	for _, c := range []struct {
		target, want string
		lun          scsi.LUN
	}{
		{"iqn.2026-01.com.example:disk1", "disk1-0", 0},
		{"iqn.2026-01.com.example:a:b", "b-300", scsi.MakeLUN(300)},
		{"iqn.2026-01.com.example", "iqn.2026-01.com.example-1", scsi.MakeLUN(1)},
		{"iqn.2026-01.com.example:", "iqn.2026-01.com.example_-0", 0},
		{"iqn.2026-01.com.example:--", "lun-0", 0},
		{"eui.02004567a425678d", "eui.02004567a425678d-0", 0},
	} {
		assert.Equal(t, c.want, deriveDeviceName(c.target, c.lun))
		assert.NoError(t, checkDeviceName(c.want))
	}
	for _, lun := range []scsi.LUN{0, scsi.MakeLUN(65535), 0x0102030405060708} {
		name := deriveDeviceName(long, lun)
		assert.NoError(t, checkDeviceName(name))
		assert.NotEqual(t, name, deriveDeviceName(long+"b", lun), "what is cut off must still tell")
	}
}

func FuzzDeriveDeviceName(f *testing.F) {
	f.Add("iqn.2026-01.com.example:disk1", uint64(0))
	f.Add(":", uint64(1<<63))
	f.Fuzz(func(t *testing.T, target string, lun uint64) {
		require.NoError(t, checkDeviceName(deriveDeviceName(target, scsi.LUN(lun))))
	})
}

func TestRuntimeDirMustBeOurs(t *testing.T) {
	base := t.TempDir()
	fresh := filepath.Join(base, "a", "b")
	require.NoError(t, prepareRuntimeDir(fresh))
	require.NoError(t, prepareRuntimeDir(fresh), "again")
	st, err := os.Stat(fresh)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), st.Mode().Perm())

	open := filepath.Join(base, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	assert.ErrorContains(t, prepareRuntimeDir(open), "others may write")

	file := filepath.Join(base, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	assert.ErrorContains(t, prepareRuntimeDir(file), "not a folder")

	link := filepath.Join(base, "link")
	require.NoError(t, os.Symlink(fresh, link))
	assert.Error(t, prepareRuntimeDir(link), "somebody else may turn a link")
}

func TestSocketPathsAreShortEnough(t *testing.T) {
	_, err := socketPath("/run/iscsimp", strings.Repeat("x", maxDeviceName)+controlSuffix)
	assert.NoError(t, err)
	_, err = socketPath("/"+strings.Repeat("x", 100), "a.sock")
	assert.Equal(t, exitInvalid, exitCode(err))
	assert.ErrorContains(t, err, "shorter")
}

func TestRunningNamesSeesSocketsOnly(t *testing.T) {
	dir := shortdir.New(t)
	names, err := runningNames(filepath.Join(dir, "none"))
	require.NoError(t, err)
	assert.Empty(t, names)
	for _, n := range []string{"b", "a", "bad name"} {
		l, err := net.Listen("unix", filepath.Join(dir, n+controlSuffix))
		require.NoError(t, err)
		defer l.Close()
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"+controlSuffix), nil, 0o600))
	names, err = runningNames(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, names)
}

func TestLocksExcludeNameAndDevice(t *testing.T) {
	dir := shortdir.New(t)
	const target = "iqn.2026-01.com.example:a"
	first, err := lockDevice(dir, "one", target, 0)
	require.NoError(t, err)
	_, err = lockDevice(dir, "two", target, 0)
	assert.Equal(t, exitExists, exitCode(err))
	assert.ErrorContains(t, err, `runs it as "one"`)
	_, err = lockDevice(dir, "one", target, scsi.MakeLUN(1))
	assert.Equal(t, exitExists, exitCode(err))
	assert.ErrorContains(t, err, "--name")
	other, err := lockDevice(dir, "two", target, scsi.MakeLUN(1))
	require.NoError(t, err)
	other.release()
	holder, running := holderOf(dir, "one")
	assert.True(t, running)
	assert.Equal(t, os.Getpid(), holder.PID)
	assert.Equal(t, target, holder.Target)
	first.release()
	first.release()
	_, running = holderOf(dir, "one")
	assert.False(t, running)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left, "locks leave nothing behind")
}

func TestLocksUnderContention(t *testing.T) {
	dir := shortdir.New(t)
	var holders, most, taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				f, _, err := lockFile(filepath.Join(dir, "x"), claim{PID: 1}, 0)
				if !assert.NoError(t, err) {
					return
				}
				if f == nil {
					continue
				}
				taken.Add(1)
				if n := holders.Add(1); n > most.Load() {
					most.Store(n)
				}
				holders.Add(-1)
				(&deviceLock{files: []*os.File{f}}).release()
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, most.Load(), "two must never hold it, although the file comes and goes")
	assert.NotZero(t, taken.Load())
}

func TestALockHeldForAMomentIsNoDevice(t *testing.T) {
	dir := shortdir.New(t)
	f, _, err := lockFile(filepath.Join(dir, "x"+lockSuffix), claim{}, 0)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l, err := lockDevice(dir, "x", "iqn.2026-01.com.example:a", 0)
		if assert.NoError(t, err, "like the look `ls` takes") {
			l.release()
		}
	}()
	(&deviceLock{files: []*os.File{f}}).release()
	<-done
}
