package test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/peer"
)

const clientDiskMiB = 32

// onEachTarget runs f with a device on tgtd and one on gotgt, over several paths each.
func onEachTarget(t *testing.T, f func(t *testing.T, device *peer.Device)) {
	t.Helper()
	t.Run("tgtd", func(t *testing.T) {
		target := peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, clientDiskMiB)}}})
		device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: 1})
		waitPaths(t, device, "all paths up", allUp(2))
		f(t, device)
	})
	t.Run("gotgt", func(t *testing.T) {
		target := peer.NeedGotgt(t, peer.Gotgt{Portals: 3, SizeMiB: clientDiskMiB})
		device := peer.NeedLogin(t, peer.Login{Portals: target.Portals, IQN: target.IQN, LUN: target.LUN})
		waitPaths(t, device, "all paths up", allUp(3))
		f(t, device)
	})
}

func TestFioVerifies(t *testing.T) {
	onEachTarget(t, func(t *testing.T, device *peer.Device) {
		for _, job := range [][]string{
			{"rw=randwrite", "bs=4k", "iodepth=32"},
			{"rw=randwrite", "bs=64k", "iodepth=8"},
			{"rw=write", "bs=1m", "iodepth=4"},
		} {
			peer.Fio(t, device.Socket, append(job, "size="+strconv.Itoa(clientDiskMiB)+"m", "verify=crc32c", "do_verify=1", "verify_fatal=1")...)
		}
	})
}

func TestNbdinfoSeesTheDisk(t *testing.T) {
	onEachTarget(t, func(t *testing.T, device *peer.Device) {
		size := peer.Run(t, "nbdinfo", "--size", peer.NBDURI(device.Socket))
		assert.Equal(t, strconv.Itoa(clientDiskMiB<<20), strings.TrimSpace(size))
		var info struct {
			Protocol string
			Exports  []struct {
				ReadOnly bool `json:"is_read_only"`
				Flush    bool `json:"can_flush"`
				FUA      bool `json:"can_fua"`
				Trim     bool `json:"can_trim"`
				Zero     bool `json:"can_zero"`
				Multi    bool `json:"can_multi_conn"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(peer.Run(t, "nbdinfo", "--json", peer.NBDURI(device.Socket))), &info))
		require.Len(t, info.Exports, 1)
		assert.Equal(t, "newstyle-fixed", info.Protocol)
		export := info.Exports[0]
		assert.False(t, export.ReadOnly)
		assert.True(t, export.Flush && export.FUA && export.Zero && export.Multi, "%+v", export)
	})
}

// randomFile makes a file of the disk's size: random, with holes and runs of zeros.
func randomFile(t *testing.T) (path string, content []byte) {
	t.Helper()
	content = make([]byte, clientDiskMiB<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content)
	for _, hole := range [][2]int{{1 << 20, 5 << 20}, {7<<20 + 512, 7<<20 + 1024}, {20 << 20, 20<<20 + 65536}, {31 << 20, 32 << 20}} {
		clear(content[hole[0]:hole[1]])
	}
	path = filepath.Join(t.TempDir(), "in")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path, content
}

func requireSameFile(t *testing.T, want []byte, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, got, len(want))
	if !bytes.Equal(want, got) {
		for i := range want {
			if want[i] != got[i] {
				t.Fatalf("%s differs from what was copied in, first at byte %d", path, i)
			}
		}
	}
}

// TestCopiesInAndOut copies onto a disk that is full of other data, so that zeros that were promised and not written show.
func TestCopiesInAndOut(t *testing.T) {
	in, content := randomFile(t)
	for name, tool := range map[string]struct{ in, out []string }{
		"nbdcopy":  {[]string{"nbdcopy", "--connections=4", in, "URI"}, []string{"nbdcopy", "URI", "OUT"}},
		"qemu-img": {[]string{"qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", in, "URI"}, []string{"qemu-img", "convert", "-f", "raw", "-O", "raw", "URI", "OUT"}},
	} {
		t.Run(name, func(t *testing.T) {
			onEachTarget(t, func(t *testing.T, device *peer.Device) {
				out := filepath.Join(t.TempDir(), "out")
				run := func(command []string) {
					replaced := strings.Split(strings.NewReplacer("URI", peer.NBDURI(device.Socket), "OUT", out).Replace(strings.Join(command, "\n")), "\n")
					peer.Run(t, replaced[0], replaced[1:]...)
				}
				peer.QemuIO(t, device.Socket, "write -P 0xee 0 "+strconv.Itoa(clientDiskMiB)+"M")
				run(tool.in)
				run(tool.out)
				requireSameFile(t, content, out)
			})
		})
	}
}

func TestQemuIOPatterns(t *testing.T) {
	onEachTarget(t, func(t *testing.T, device *peer.Device) {
		peer.QemuIO(t, device.Socket,
			"write -P 0x11 0 4M", "read -P 0x11 0 4M",
			"write -f -P 0x22 4096 512", "read -P 0x22 4096 512", "read -P 0x11 4608 3584", // forced unit access, one block
			"write -z 1M 1M", "read -P 0 1M 1M", "read -P 0x11 0 4096", "read -P 0x11 2M 2M", // gotgt answers GOOD to WRITE SAME and writes nothing
			"write -z -u 3M 64k", "read -P 0 3M 64k", // zero and deallocate
			"write -P 0x33 1536k 1", "read -P 0x33 1536k 1", "read -P 0 1572865 511", // less than a block: qemu reads, changes and writes
			"aio_write -P 0x44 8M 1M", "aio_write -P 0x55 9M 1M", "aio_write -z 10M 1M", "aio_flush",
			"read -P 0x44 8M 1M", "read -P 0x55 9M 1M", "read -P 0 10M 1M",
			"discard 8M 1M", "read -P 0x55 9M 1M",
			"flush")
	})
}

func TestRequestsPastTheEndAreRefusedAndHarmless(t *testing.T) {
	onEachTarget(t, func(t *testing.T, device *peer.Device) {
		client := dialNBD(t, device)
		block := bytes.Repeat([]byte{0xab}, 4096)
		require.NoError(t, client.Write(block, client.Size-4096, false))
		require.Error(t, client.Write(make([]byte, 8192), client.Size-4096, false))
		require.Error(t, client.Read(make([]byte, 4096), client.Size))
		require.Error(t, client.WriteZeroes(client.Size-4096, 8192))
		require.Error(t, client.Trim(1<<63, 4096))
		got := make([]byte, 4096)
		require.NoError(t, client.Read(got, client.Size-4096))
		require.Equal(t, block, got)
	})
}
