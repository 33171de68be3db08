package initiator_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestDiscoverMergesPortals(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		a := target(t, iscsitest.Config{Name: "iqn.2026-01.test:a", Portals: []iscsitest.Portal{{TPGT: 1}, {TPGT: 7}}})
		b := target(t, iscsitest.Config{Name: "iqn.2026-01.test:b"})
		dead := closedPort(t)
		got, err := initiator.Discover(t.Context(), initiator.DiscoverConfig{
			Portals: []string{b.Addr(0), dead, a.Addr(1), a.Addr(0), b.Addr(0)}, InitiatorName: me, Portable: portable,
		})
		require.NoError(t, err)
		require.Len(t, got.Targets, 2)
		assert.Equal(t, "iqn.2026-01.test:a", got.Targets[0].Name)
		require.Len(t, got.Targets[0].Portals, 2)
		for _, p := range got.Targets[0].Portals {
			assert.Equal(t, []string{a.Addr(1), a.Addr(0)}, p.Via, "in the order given")
			assert.Equal(t, map[string]int{a.Addr(0): 1, a.Addr(1): 7}[p.Address], p.TPGT)
		}
		assert.Equal(t, []initiator.TargetPortal{{Address: b.Addr(0), TPGT: 1, Via: []string{b.Addr(0)}}}, got.Targets[1].Portals)
		require.Len(t, got.Portals, 4, "the duplicate is asked once")
		assert.Equal(t, dead, got.Portals[1].Portal)
		require.Error(t, got.Portals[1].Err)
		assert.Contains(t, got.Portals[1].Err.Error(), dead)
		assert.NoError(t, got.Portals[0].Err)
		assert.Equal(t, 1, got.Portals[0].Found)
	})
}

func TestDiscoverLeavesOutAddressesNobodyCanDial(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{Portals: []iscsitest.Portal{{}, {Advertise: "0.0.0.0:3260"}, {Advertise: "[::]:3260"}}})
	got, err := initiator.Discover(t.Context(), initiator.DiscoverConfig{Portals: []string{tgt.Addr(0)}, InitiatorName: me})
	require.NoError(t, err)
	require.Len(t, got.Targets, 1)
	require.Len(t, got.Targets[0].Portals, 1)
	assert.Equal(t, tgt.Addr(0), got.Targets[0].Portals[0].Address)
}

func TestDiscoverFailuresAreClassed(t *testing.T) {
	garbage := func(c net.Conn) {
		_, _ = io.WriteString(c, "220 mail.example.com ESMTP, who is there? Say HELO, and mind that this line is long enough\r\n")
		_, _ = io.Copy(io.Discard, c)
	}
	for name, c := range map[string]struct {
		portal func(t *testing.T) string
		kind   initiator.ErrorKind
	}{
		"nobody listens": {closedPort, initiator.KindConnect},
		"garbage":        {func(t *testing.T) string { return server(t, garbage) }, initiator.KindConnect},
		"hangs up":       {func(t *testing.T) string { return server(t, func(net.Conn) {}) }, initiator.KindConnect},
		"says nothing":   {func(t *testing.T) string { return server(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) }, initiator.KindTimeout},
		"refuses": {func(t *testing.T) string {
			tgt := target(t, iscsitest.Config{})
			tgt.Inject(iscsitest.Op(pdu.OpLogin), iscsitest.FailLogin(pdu.LoginServiceUnavailable))
			return tgt.Addr(0)
		}, initiator.KindLogin},
		"does not know us": {func(t *testing.T) string {
			tgt := target(t, iscsitest.Config{})
			tgt.Inject(iscsitest.Op(pdu.OpLogin), iscsitest.FailLogin(pdu.LoginForbidden))
			return tgt.Addr(0)
		}, initiator.KindAuth},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			portal := c.portal(t)
			cfg := initiator.DiscoverConfig{Portals: []string{portal}, InitiatorName: me, LoginTimeout: time.Minute}
			if c.kind == initiator.KindTimeout {
				cfg.LoginTimeout = 300 * time.Millisecond
			}
			got, err := initiator.Discover(t.Context(), cfg)
			require.Error(t, err)
			assert.Equal(t, c.kind, initiator.KindOf(err), "%v", err)
			assert.Contains(t, err.Error(), portal)
			require.Len(t, got.Portals, 1, "the report is there all the same")
			assert.Error(t, got.Portals[0].Err)
		})
	}
}

func TestDiscoverEndsWithItsContext(t *testing.T) {
	leak.Check(t)
	asked := make(chan struct{})
	portal := server(t, func(c net.Conn) {
		close(asked)
		_, _ = io.Copy(io.Discard, c)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	began := time.Now()
	_, err := initiator.Discover(ctx, initiator.DiscoverConfig{Portals: []string{portal}, InitiatorName: me, LoginTimeout: time.Minute})
	require.ErrorIs(t, err, context.Canceled)
	assert.Less(t, time.Since(began), time.Minute)
}

func TestDiscoverWithTargetsThatCloseOnUnknownKeys(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{Quirks: iscsitest.Quirks{CloseOnUnknownKey: true, SilentFailure: true}})
	got, err := initiator.Discover(t.Context(), initiator.DiscoverConfig{Portals: []string{tgt.Addr(0)}, InitiatorName: me})
	require.NoError(t, err, "the second attempt offers fewer keys")
	assert.Len(t, got.Targets, 1)
}

func TestDiscoverChecksItsConfiguration(t *testing.T) {
	for name, cfg := range map[string]initiator.DiscoverConfig{
		"no portal":          {InitiatorName: me},
		"bad portal":         {Portals: []string{"a b"}, InitiatorName: me},
		"no initiator name":  {Portals: []string{"x"}},
		"bad initiator name": {Portals: []string{"x"}, InitiatorName: "me"},
		"negative timeout":   {Portals: []string{"x"}, InitiatorName: me, LoginTimeout: -1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := initiator.Discover(t.Context(), cfg)
			assert.Equal(t, initiator.KindInvalid, initiator.KindOf(err), "%v", err)
		})
	}
}

func TestLuns(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{Portals: portals(2), LUNs: []iscsitest.LUN{
			{Number: 0, DeviceType: scsi.TypeController},
			{Number: 3, Size: 1 << 20, BlockSize: 4096, Serial: "S3", Vendor: "ACME", PowerOnUA: true},
			{Number: 300, Size: 2 << 20, ReadOnly: true, NoUnmap: true, NoDesignators: true},
		}})
		got, err := initiator.Luns(t.Context(), tgt.Name(), initiator.DiscoverConfig{
			Portals: tgt.Addrs(), InitiatorName: me, Portable: portable,
		})
		require.NoError(t, err)
		require.Len(t, got.LUNs, 3)
		controller, small, far := got.LUNs[0], got.LUNs[1], got.LUNs[2]
		assert.Equal(t, scsi.TypeController, controller.Type)
		assert.False(t, controller.Openable())
		assert.Equal(t, scsi.MakeLUN(3), small.LUN)
		assert.Equal(t, uint64(1<<20), small.SizeBytes)
		assert.Equal(t, uint32(4096), small.BlockSize)
		assert.Equal(t, "S3", small.Serial)
		assert.Equal(t, "ACME", small.Vendor)
		assert.NotEmpty(t, small.Identity)
		assert.True(t, small.Openable() && small.Thin && !small.ReadOnly)
		assert.Equal(t, tgt.Addrs(), small.Portals)
		assert.Equal(t, scsi.MakeLUN(300), far.LUN)
		assert.True(t, far.ReadOnly && !far.Thin)
	})
}

func TestLunsShowsPortalsThatLeadToDifferentUnits(t *testing.T) {
	leak.Check(t)
	a := target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "A"}}})
	b := target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "B"}}})
	got, err := initiator.Luns(t.Context(), a.Name(), initiator.DiscoverConfig{Portals: []string{a.Addr(0), b.Addr(0)}, InitiatorName: me})
	require.NoError(t, err)
	require.Len(t, got.LUNs, 2)
	assert.Equal(t, []string{a.Addr(0)}, got.LUNs[0].Portals)
	assert.Equal(t, []string{b.Addr(0)}, got.LUNs[1].Portals)
}

func TestLunsOfATargetWithMany(t *testing.T) {
	leak.Check(t)
	var luns []iscsitest.LUN
	for n := range uint16(600) { // more than fit into the first answer
		luns = append(luns, iscsitest.LUN{Number: n, Size: 1 << 16})
	}
	tgt := target(t, iscsitest.Config{LUNs: luns})
	got, err := initiator.Luns(t.Context(), tgt.Name(), initiator.DiscoverConfig{Portals: []string{tgt.Addr(0)}, InitiatorName: me})
	require.NoError(t, err)
	assert.Len(t, got.LUNs, 600)
}

func TestLunsOfATargetThatIsNotThere(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{})
	_, err := initiator.Luns(t.Context(), "iqn.2026-01.test:other", initiator.DiscoverConfig{Portals: []string{tgt.Addr(0)}, InitiatorName: me})
	assert.Equal(t, initiator.KindLogin, initiator.KindOf(err), "%v", err)
}
