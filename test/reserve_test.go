package test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/nbdload"
	"github.com/iscsimp/iscsimp/test/peer"
)

// reserveState is what `iscsimp reserve … --json` prints, as far as it counts here.
type reserveState struct {
	Registered  bool     `json:"registered"`
	Preempted   string   `json:"preempted"`
	Keys        []string `json:"keys"`
	Reservation *struct {
		Type   string `json:"type"`
		Holder string `json:"holder"`
		Ours   bool   `json:"ours"`
	} `json:"reservation"`
}

// reserve runs `iscsimp reserve` and demands that it succeeds.
func reserve(t *testing.T, device *peer.Device, args ...string) reserveState {
	t.Helper()
	output, err := device.Command(t.Context(), append([]string{"reserve", device.Name, "--json"}, args...)...)
	require.NoError(t, err, "%s", device.Output())
	var state reserveState
	require.NoError(t, json.Unmarshal([]byte(output), &state))
	return state
}

const (
	keyA = "0x00000000000000a1"
	keyB = "0x00000000000000b2"
)

// twoHosts starts a tgtd with two portals and two hosts that use its disk.
func twoHosts(t *testing.T) (target *peer.TgtdTarget, a, b *peer.Device) {
	t.Helper()
	target = peer.NeedTgtd(t, 2, peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, 2*loadBytes>>20)}}})
	host := func(name string) *peer.Device {
		device := peer.NeedLogin(t, peer.Login{
			Portals: target.Portals, IQN: target.IQN, LUN: 1, Name: name,
			Args: []string{"--initiator-name", "iqn.2026-01.io.github.iscsimp:" + name},
		})
		waitPaths(t, device, "all paths up", allUp(2))
		return device
	}
	return target, host("a"), host("b")
}

// write writes a block behind what the load uses.
func write(t *testing.T, device *peer.Device) error {
	t.Helper()
	return dialNBD(t, device).Write(make([]byte, nbdload.BlockSize), loadBytes, false)
}

// TestTgtdReservationsOverFlappingPaths: tgtd forgets a registration with its session. The load of the host that holds the reservation never meets a conflict;
// a host that is not registered always does.
func TestTgtdReservationsOverFlappingPaths(t *testing.T) {
	target, a, b := twoHosts(t)
	reserve(t, a, "register", "--key", "0xa1")
	state := reserve(t, a, "reserve", "--type", "earo")
	require.NotNil(t, state.Reservation)
	assert.Equal(t, keyA, state.Reservation.Holder)
	require.Error(t, write(t, b))
	waitPaths(t, b, "the holder is named", func(s peer.DeviceStatus) bool { return strings.Contains(s.LastError, keyA) })
	load := startLoad(t, a)
	for range 2 {
		runFor(t, 300*time.Millisecond)
		sessions, err := target.Sessions()
		require.NoError(t, err)
		for _, id := range sessions { // of both hosts
			require.NoError(t, target.DropConnection(id))
			runFor(t, 100*time.Millisecond)
		}
		waitPaths(t, a, "all paths in use again", usable(2))
		require.Error(t, write(t, b))
	}
	load.finish()
	state = reserve(t, a, "read")
	assert.True(t, state.Registered)
	require.NotNil(t, state.Reservation)
	reserve(t, a, "release")
	state = reserve(t, a, "unregister")
	assert.Empty(t, state.Keys, "what dead sessions left goes, too")
	assert.Nil(t, state.Reservation)
	require.NoError(t, write(t, b))
}

// usable: paths on probation count, too.
func usable(n int) func(peer.DeviceStatus) bool {
	return func(s peer.DeviceStatus) bool {
		for _, p := range s.Paths {
			if p.State == "up" || p.State == "marginal" {
				n--
			}
		}
		return n == 0
	}
}

// TestTgtdFencedHostStaysOut: host b fences host a off in the middle of its load.
func TestTgtdFencedHostStaysOut(t *testing.T) {
	target, a, b := twoHosts(t)
	reserve(t, a, "register", "--key", "0xa1")
	reserve(t, a, "reserve")
	reserve(t, b, "register", "--key", "0xb2")
	require.NoError(t, write(t, b), "registrants may write")
	load := startLoad(t, a)
	runFor(t, 300*time.Millisecond)
	_, err := b.Command(t.Context(), "reserve", b.Name, "preempt", "--key", keyA, "--abort")
	require.Error(t, err, "tgtd has no PREEMPT AND ABORT")
	assert.ErrorContains(t, err, "preempt without that")
	assert.Contains(t, reserve(t, b, "read").Keys, keyA, "and did not do it by half")
	state := reserve(t, b, "preempt", "--key", keyA)
	assert.NotContains(t, state.Keys, keyA)
	require.NotNil(t, state.Reservation)
	assert.True(t, state.Reservation.Ours, "b holds it now")
	require.Error(t, write(t, a))
	assert.Positive(t, load.Stop().Errors, "its load got errors")

	sessions, err := target.Sessions()
	require.NoError(t, err)
	for _, id := range sessions {
		require.NoError(t, target.DropConnection(id))
	}
	waitPaths(t, a, "all paths back", usable(2))
	waitPaths(t, b, "all paths back", usable(2))
	require.Error(t, write(t, a), "it does not register by itself")
	state = reserve(t, a, "read")
	assert.False(t, state.Registered)
	assert.NotEmpty(t, state.Preempted)
	assert.NotContains(t, state.Keys, keyA)
	load = startLoad(t, b)
	runFor(t, 300*time.Millisecond)
	load.finish()

	_, err = a.Command(t.Context(), "reserve", a.Name, "reserve")
	assert.Equal(t, 1, exitStatus(err))
	reserve(t, a, "register", "--key", "0xa1")
	require.NoError(t, write(t, a), "until told to")
}
