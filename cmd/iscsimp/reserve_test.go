package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestReserveCommandLine(t *testing.T) {
	leak.Check(t)
	dir := shortdir.New(t)
	dev := &fakeDevice{}
	runFake(t, dir, "disk1-0", dev)
	for _, c := range []struct {
		args []string
		want reserveCommand
		says string
	}{
		{[]string{"register", "--key", "0xAB"}, reserveCommand{Action: "register", Key: "0xAB"}, "registered"},
		{[]string{"register", "--key", "ab", "--per-path", "--volatile"}, reserveCommand{Action: "register", Key: "ab", PerPath: true, Volatile: true}, "registered"},
		{[]string{"register", "--key", "0"}, reserveCommand{Action: "unregister"}, "unregistered"},
		{[]string{"unregister"}, reserveCommand{Action: "unregister"}, "unregistered"},
		{[]string{"reserve"}, reserveCommand{Action: "reserve"}, "reserved (write exclusive, registrants only)"},
		{[]string{"reserve", "--type", "earo"}, reserveCommand{Action: "reserve", Type: "earo"}, "reserved (exclusive access, registrants only)"},
		{[]string{"release"}, reserveCommand{Action: "release"}, "released"},
		{[]string{"preempt", "--key", "0xb", "--abort"}, reserveCommand{Action: "preempt", Key: "0xb", Abort: true}, "its commands are ended"},
		{[]string{"preempt", "--key", "0xb"}, reserveCommand{Action: "preempt", Key: "0xb"}, "may still be carried out"},
		{[]string{"clear", "--other-hosts"}, reserveCommand{Action: "clear", OtherHosts: true}, "cleared"},
	} {
		dev.reserves = nil
		r := runCLI(t, append([]string{"reserve", "disk1-0", "--runtime-dir", dir}, c.args...)...)
		require.Zero(t, r.code, "%v: %s", c.args, r.stderr)
		assert.Equal(t, []reserveCommand{c.want}, dev.reserves)
		assert.Contains(t, r.stdout, "disk1-0: ")
		assert.Contains(t, r.stdout, c.says)
	}
	dev.reserves = nil
	t.Setenv("ISCSIMP_OTHER_HOSTS", "yes")
	require.Zero(t, runCLI(t, "reserve", "disk1-0", "clear", "--runtime-dir", dir).code)
	assert.False(t, dev.reserves[0].OtherHosts, "nothing that harms other hosts comes from the environment")
	dev.reserves = nil
	for _, args := range [][]string{
		{},
		{"register"},
		{"preempt"},
		{"preempt", "--key", "0"},
		{"register", "--key", "xyz"},
		{"register", "--key", "12345678901234567"},
		{"reserve", "--type", "all"},
		{"reserve", "--key", "1"},
		{"release", "--abort"},
		{"clear", "--type", "wero"},
		{"reed"},
		{"read", "more"},
	} {
		r := runCLI(t, append([]string{"reserve", "disk1-0", "--runtime-dir", dir}, args...)...)
		assert.Equal(t, exitInvalid, r.code, "%v", args)
		assert.NotEmpty(t, r.stderr)
	}
	assert.Contains(t, runCLI(t, "reserve", "disk1-0", "reed", "--runtime-dir", dir).stderr, "did you mean read?")
	assert.Empty(t, dev.reserves)
	assert.Equal(t, exitNoDevice, runCLI(t, "reserve", "other", "read", "--runtime-dir", dir).code)

	dev.err = &mpio.ConflictError{Held: true, Holder: 0xbeef, Type: scsi.WriteExclusiveRegistrantsOnly}
	r := runCLI(t, "reserve", "disk1-0", "reserve", "--runtime-dir", dir)
	assert.Equal(t, exitError, r.code)
	assert.Contains(t, r.stderr, "0x000000000000beef", "the holder is named")
}

func TestReserveReport(t *testing.T) {
	id := scsi.AppendISCSITransportID(nil, "iqn.2026-01.com.example:host1", [6]byte{0x80, 0, 0, 0, 0, 1})
	full := initiator.Reservations{
		Registered: true, Key: 0xa1, Generation: 7, Keys: []uint64{0xa1, 0xb2},
		Held: true, Type: scsi.WriteExclusiveRegistrantsOnly, Holder: 0xa1, Ours: true,
		Nexuses:      []scsi.Registration{{Key: 0xa1, Holder: true, Port: 1, TransportID: id}, {Key: 0xb2, Port: 2}},
		Capabilities: &scsi.ReserveCapabilities{PersistCapable: true, Types: scsi.ReservationTypes()},
		Paths:        []mpio.PathRegistration{{ID: "1", Portal: "10.0.0.1:3260", State: mpio.StateUp, Key: 0xa1}, {ID: "2", Portal: "10.0.0.2:3260", State: mpio.StateDown}},
	}
	theirs := initiator.Reservations{Keys: []uint64{0xb2}, Held: true, Type: scsi.ExclusiveAccess, Holder: 0xb2}
	all := initiator.Reservations{Registered: true, Key: 0xa1, PerPath: true, Keys: []uint64{0xa1, 0xa2}, Held: true, Type: scsi.ExclusiveAllRegistrants, Ours: true}
	out := initiator.Reservations{Key: 0xa1, Lost: initiator.ErrPreempted}
	var text, lines bytes.Buffer
	for _, s := range []initiator.Reservations{full, theirs, all, out} {
		r := newReserveReport("disk1-0", actRead, s)
		require.NoError(t, r.write(&text))
		text.WriteByte('\n')
		require.NoError(t, writeJSON(&lines, r, false))
	}
	golden(t, "reservations.txt", text.String())
	golden(t, "reservations.json", lines.String())
}

func TestReserveARunningDevice(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{Portals: make([]iscsitest.Portal, 2)})
	p := login(t, tgt)
	reserve := func(args ...string) result {
		return runCLI(t, append([]string{"reserve", p.ready.Name, "--runtime-dir", p.dir}, args...)...)
	}
	r := reserve("read")
	require.Zero(t, r.code, r.stderr)
	assert.Equal(t, "this host:   not registered\nreservation: none\n", r.stdout)
	r = reserve("reserve")
	assert.Equal(t, exitError, r.code)
	assert.Contains(t, r.stderr, "register a key first")

	r = reserve("register", "--key", "0xa1", "--json")
	require.Zero(t, r.code, r.stderr)
	var report reserveReport
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	assert.True(t, report.Registered)
	require.Zero(t, reserve("reserve", "--type", "earo").code)
	assert.Equal(t, scsi.ExclusiveRegistrantsOnly, tgt.Reservations(0).State().Type)
	assert.Equal(t, exitInvalid, reserve("preempt", "--key", "0xa1").code, "its own key")
	assert.Contains(t, runCLI(t, "explain", "--runtime-dir", p.dir).stdout, "0x00000000000000a1")
	r = reserve("read")
	assert.Contains(t, r.stdout, "held by this host, key 0x00000000000000a1")
	assert.Contains(t, r.stdout, "iqn.")
	require.Zero(t, reserve("release").code)
	require.Zero(t, reserve("register", "--key", "0").code)
	assert.Empty(t, tgt.Reservations(0).State().Keys)
	require.Zero(t, runCLI(t, "logout", "--all", "--runtime-dir", p.dir).code)
	require.Zero(t, p.wait())
}
