package scsi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	groupsBody = "80 cf 00 01 00 02 00 02  00 00 00 01 00 00 00 02" +
		"0f 8f 00 07 00 01 00 01  00 00 00 09"
	groupsGolden         = "00 00 00 1c" + groupsBody
	groupsExtendedGolden = "00 00 00 20 10 1e 00 00" + groupsBody
)

var groupsWant = []PortGroupState{
	{Group: 1, State: AccessOptimized, Preferred: true, Supported: 0xcf, Status: 2, Ports: []uint16{1, 2}},
	{Group: 7, State: AccessTransitioning, Supported: 0x8f, Status: 1, Ports: []uint16{9}},
}

func TestParseTargetPortGroups(t *testing.T) {
	good := unhex(t, groupsGolden)
	got, err := ParseTargetPortGroups(good)
	require.NoError(t, err)
	assert.Equal(t, PortGroups{Groups: groupsWant}, got)
	assert.Equal(t, good, got.AppendTo(nil, false))
	requireFromPrefixes(t, good, len(good), func(b []byte) error { _, err := ParseTargetPortGroups(b); return err })
	_, err = ParseTargetPortGroups(good[:4])
	requireNeed(t, err, 32)

	g, ok := got.Find(7)
	assert.True(t, ok)
	assert.Equal(t, groupsWant[1], g)
	_, ok = got.Find(2)
	assert.False(t, ok)
	g, ok = got.FindPort(9)
	assert.True(t, ok)
	assert.Equal(t, groupsWant[1], g)
	_, ok = got.FindPort(7)
	assert.False(t, ok)

	extended := unhex(t, groupsExtendedGolden)
	got, err = ParseTargetPortGroups(extended)
	require.NoError(t, err)
	assert.Equal(t, PortGroups{TransitionSeconds: 30, Groups: groupsWant}, got)
	assert.Equal(t, extended, got.AppendTo([]byte("before"), true)[6:])

	got, err = ParseTargetPortGroups(make([]byte, 4))
	require.NoError(t, err)
	assert.Empty(t, got.Groups)
}

func TestPortGroupsThatPassTheEnd(t *testing.T) {
	for name, bytes := range map[string]string{
		"ports":       "00 00 00 08 00 cf 00 01 00 00 00 02",
		"half":        "00 00 00 04 00 cf 00 01",
		"second half": "00 00 00 0a 00 cf 00 01 00 00 00 00 00 cf",
	} {
		_, err := ParseTargetPortGroups(unhex(t, bytes))
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
	many := PortGroups{Groups: []PortGroupState{{Ports: make([]uint16, 300)}}}
	got, err := ParseTargetPortGroups(many.AppendTo(nil, false))
	require.NoError(t, err)
	assert.Len(t, got.Groups[0].Ports, 255)
}

// What Linux 6.1 sends: the return data length lacks the extended header, and the
// last four bytes are missing.
func TestExtendedHeaderOfLIO(t *testing.T) {
	whole := unhex(t, groupsExtendedGolden)
	lio := whole[:len(whole)-4]
	lio[3] -= 4
	got, err := ParseTargetPortGroups(lio)
	require.NoError(t, err)
	require.Len(t, got.Groups, 2)
	assert.Equal(t, groupsWant[0], got.Groups[0])
	assert.Equal(t, AccessTransitioning, got.Groups[1].State)
	assert.Empty(t, got.Groups[1].Ports, "the one it had is lost")
	assert.EqualValues(t, 30, got.TransitionSeconds)

	noPorts := PortGroups{Groups: []PortGroupState{{Group: 1, Ports: []uint16{1}}, {Group: 2, State: AccessStandby, Supported: 7}}}
	b := noPorts.AppendTo(nil, true)
	b[3] -= 4
	got, err = ParseTargetPortGroups(b[:len(b)-4])
	require.NoError(t, err)
	assert.Equal(t, AccessStandby, got.Groups[1].State)

	b[3] -= 4
	_, err = ParseTargetPortGroups(b[:len(b)-8])
	assert.NoError(t, err, "one group, whole")
	b[3]--
	_, err = ParseTargetPortGroups(b[:len(b)-9])
	assert.ErrorIs(t, err, ErrMalformed)
}

func TestSetTargetPortGroupsList(t *testing.T) {
	assert.Equal(t, unhex(t, "00 00 00 00 00 00 00 01 0f 00 00 07"), AppendSetTargetPortGroups(nil, groupsWant))
}

func TestParseSetTargetPortGroups(t *testing.T) {
	list := AppendSetTargetPortGroups(nil, groupsWant)
	got, err := ParseSetTargetPortGroups(list)
	require.NoError(t, err)
	assert.Equal(t, []PortGroupState{{Group: 1, State: AccessOptimized}, {Group: 7, State: AccessTransitioning}}, got)
	got, err = ParseSetTargetPortGroups(list[:4])
	require.NoError(t, err)
	assert.Empty(t, got)
	_, err = ParseSetTargetPortGroups(list[:3])
	requireNeed(t, err, 4)
	for _, n := range []int{5, 7, 9, 11} {
		_, err = ParseSetTargetPortGroups(list[:n])
		assert.ErrorIs(t, err, ErrMalformed, n)
	}
}

func TestCanBecome(t *testing.T) {
	for s, bit := range map[AccessState]uint8{
		AccessOptimized: 0, AccessNonOptimized: 1, AccessStandby: 2, AccessUnavailable: 3,
		AccessLBADependent: 4, AccessOffline: 6, AccessTransitioning: 7,
	} {
		assert.True(t, PortGroupState{}.CanBecome(s), "nothing said")
		assert.True(t, PortGroupState{Supported: 1 << bit}.CanBecome(s), s)
		assert.False(t, PortGroupState{Supported: ^uint8(1 << bit)}.CanBecome(s), s)
	}
	assert.False(t, PortGroupState{Supported: 0xff}.CanBecome(9))
}

func TestAccessStates(t *testing.T) {
	usable := map[AccessState]bool{AccessOptimized: true, AccessNonOptimized: true, AccessLBADependent: true}
	names := map[string]bool{}
	for s := range AccessTransitioning + 1 {
		assert.Equal(t, usable[s], s.Usable(), s)
		names[s.String()] = true
	}
	assert.Len(t, names, 16)
	assert.Equal(t, "active/non-optimized", AccessNonOptimized.String())
}

func FuzzParseTargetPortGroups(f *testing.F) {
	f.Add(unhex(f, groupsGolden))
	f.Add(unhex(f, groupsExtendedGolden))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseTargetPortGroups(b)
		if err != nil {
			return
		}
		// With the extended header always, for a transition time of 0 is none.
		again, err := ParseTargetPortGroups(p.AppendTo(nil, true))
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}

func FuzzParseSetTargetPortGroups(f *testing.F) {
	f.Add(AppendSetTargetPortGroups(nil, groupsWant))
	f.Add([]byte{0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		groups, err := ParseSetTargetPortGroups(b)
		if err != nil {
			return
		}
		again, err := ParseSetTargetPortGroups(AppendSetTargetPortGroups(nil, groups))
		require.NoError(t, err)
		require.Equal(t, groups, again)
	})
}
