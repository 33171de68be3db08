package initiator_test

import (
	"context"
	"errors"
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

func TestOpenUsesEveryPortal(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{Portals: portals(3)})
		cfg := config(tgt)
		cfg.Wait, cfg.Portable = initiator.WaitAll, portable
		dev := open(t, cfg)
		s, err := dev.Snapshot(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 3, s.PathsUp, "discovered ones too")
		assert.Equal(t, "up", s.State)
		assert.Len(t, tgt.Sessions(), 3)
		require.NoError(t, dev.Close(t.Context()))
		assert.Empty(t, tgt.Sessions(), "every session must be logged out")
	})
}

func TestOpenWithOnlyTheGivenPortals(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{Portals: portals(3)})
	cfg := config(tgt, 0, 2)
	cfg.OnlyGiven, cfg.Wait = true, initiator.WaitAll
	dev := open(t, cfg)
	s, err := dev.Snapshot(t.Context())
	require.NoError(t, err)
	require.Len(t, s.Paths, 2)
	assert.Equal(t, []string{tgt.Addr(0), tgt.Addr(2)}, []string{s.Paths[0].Portal, s.Paths[1].Portal})
}

// TestOpenWaitsForMorePathsThanThereAre: all that are known came up.
func TestOpenWaitsForMorePathsThanThereAre(t *testing.T) {
	leak.Check(t)
	cfg := config(target(t, iscsitest.Config{Portals: portals(2)}))
	cfg.Wait = 3
	_, err := initiator.Open(t.Context(), cfg)
	require.ErrorContains(t, err, "cannot wait for 3 paths: the target has 2")
	require.ErrorContains(t, err, "give more portals")
}

func TestOpenAsksEachGivenPortalForMore(t *testing.T) {
	leak.Check(t)
	// Like tgtd: each portal tells of itself only.
	memory := iscsitest.NewMemory(1 << 20)
	lun := []iscsitest.LUN{{Medium: memory, Serial: "one"}}
	a := target(t, iscsitest.Config{LUNs: lun})
	b := target(t, iscsitest.Config{LUNs: lun, Portals: portals(2)})
	cfg := config(a)
	cfg.Portals, cfg.Wait = []string{a.Addr(0), b.Addr(1)}, initiator.WaitAll
	dev := open(t, cfg)
	s, err := dev.Snapshot(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 3, s.PathsUp)
}

func TestOpenMakesOnePathOfTwoWaysToWriteAPortal(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{})
	_, port, err := net.SplitHostPort(tgt.Addr(0))
	require.NoError(t, err)
	cfg := config(tgt)
	cfg.Portals, cfg.Wait = []string{"localhost:" + port, tgt.Addr(0)}, initiator.WaitAll
	dev := open(t, cfg)
	s, err := dev.Snapshot(t.Context())
	require.NoError(t, err)
	assert.Len(t, s.Paths, 1)
}

func TestOpenDoesNotWaitForADeadPortal(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{Portals: portals(2)})
		silent := server(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		cfg := config(tgt)
		cfg.Portals, cfg.LoginTimeout, cfg.Portable = []string{silent, tgt.Addr(0)}, time.Minute, portable
		began := time.Now()
		dev := open(t, cfg)
		assert.Less(t, time.Since(began), cfg.LoginTimeout)
		s := snapshotUntil(t, dev, "both live paths", func(s initiator.Snapshot) bool { return s.PathsUp == 2 })
		assert.Len(t, s.Paths, 3, "the dead one is shown")
		require.NoError(t, dev.Close(t.Context()), "and does not hold up the end")
	})
}

// openCase prepares an Open that fails.
type openCase func(t *testing.T) initiator.Config

// refusedWith is a target whose two portals refuse every login.
func refusedWith(status pdu.LoginStatus) openCase {
	return func(t *testing.T) initiator.Config {
		tgt := target(t, iscsitest.Config{Portals: portals(2)})
		tgt.Inject(iscsitest.Op(pdu.OpLogin), iscsitest.FailLogin(status))
		return config(tgt, 0, 1)
	}
}

// lun is a target with this LUN only, or none, behind two portals.
func lun(luns ...iscsitest.LUN) openCase {
	return func(t *testing.T) initiator.Config {
		return config(target(t, iscsitest.Config{Portals: portals(2), LUNs: append([]iscsitest.LUN{}, luns...)}), 0, 1)
	}
}

func nobodyListens(t *testing.T) initiator.Config {
	cfg := config(target(t, iscsitest.Config{}))
	cfg.Portals = []string{closedPort(t), closedPort(t)}
	return cfg
}

// greetedWith is a port where something else speaks.
func greetedWith(greeting string) openCase {
	return func(t *testing.T) initiator.Config {
		cfg := config(target(t, iscsitest.Config{}))
		if greeting == "" {
			cfg.LoginTimeout = 200 * time.Millisecond
		}
		cfg.Portals = []string{server(t, func(c net.Conn) {
			_, _ = io.WriteString(c, greeting)
			_, _ = io.Copy(io.Discard, c)
		})}
		return cfg
	}
}

func noSuchTarget(t *testing.T) initiator.Config {
	cfg := config(target(t, iscsitest.Config{}))
	cfg.Target = "iqn.2026-01.test:other"
	return cfg
}

// failingUnit answers, but no command that asks what it is.
func failingUnit(t *testing.T) initiator.Config {
	tgt := target(t, iscsitest.Config{})
	tgt.Inject(iscsitest.SCSI(scsi.OpInquiry), iscsitest.FailSense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure))
	return config(tgt)
}

func TestOpenFailures(t *testing.T) {
	const http = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
	for name, c := range map[string]struct {
		cfg  openCase
		kind initiator.ErrorKind
		says string
	}{
		"nobody listens":         {nobodyListens, initiator.KindConnect, "refused"},
		"something else listens": {greetedWith(http), initiator.KindConnect, "protocol"},
		"says nothing":           {greetedWith(""), initiator.KindTimeout, "no answer"},
		"no such target":         {noSuchTarget, initiator.KindLogin, "they list " + iscsitest.DefaultName},
		"login refused":          {refusedWith(pdu.LoginOutOfResources), initiator.KindLogin, "0x0302"},
		"not authorized":         {refusedWith(pdu.LoginForbidden), initiator.KindAuth, "0x0202"},
		"not authenticated":      {refusedWith(pdu.LoginAuthFailure), initiator.KindAuth, "0x0201"},
		"no such LUN":            {lun(iscsitest.LUN{Number: 5}), initiator.KindNotFound, "no such LUN"},
		"target without LUN":     {lun(), initiator.KindNotFound, "no such LUN"},
		"a controller":           {lun(iscsitest.LUN{DeviceType: scsi.TypeController}), initiator.KindUnusable, "controller"},
		"a tape":                 {lun(iscsitest.LUN{DeviceType: 1}), initiator.KindUnusable, "not a disk"},
		"a unit that fails":      {failingUnit, initiator.KindOther, "INQUIRY"},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := c.cfg(t)
			began := time.Now()
			_, err := initiator.Open(t.Context(), cfg)
			require.Error(t, err)
			assert.Equal(t, c.kind, initiator.KindOf(err), "%v", err)
			assert.Contains(t, err.Error(), c.says)
			for _, p := range cfg.Portals {
				assert.Contains(t, err.Error(), p, "each portal has its reason")
			}
			assert.Less(t, time.Since(began), time.Minute, "nothing waits for the next attempt, or for more portals")
		})
	}
}

func TestOpenWithTargetsThatCloseOnUnknownKeys(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{Portals: portals(2), Quirks: iscsitest.Quirks{CloseOnUnknownKey: true, SilentFailure: true}})
	cfg := config(tgt)
	cfg.Wait = initiator.WaitAll
	open(t, cfg)
}

func TestOpenWaitAllFailsForOneMissingPath(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{Portals: portals(2)})
	tgt.StopPortal(1)
	cfg := config(tgt)
	cfg.Wait = initiator.WaitAll
	_, err := initiator.Open(t.Context(), cfg)
	require.Error(t, err)
	assert.Contains(t, err.Error(), "only 1 of 2 paths")
	assert.Equal(t, initiator.KindConnect, initiator.KindOf(err))
	assert.Empty(t, tgt.Sessions(), "what did come up must be logged out")

	cfg.Wait = 2
	_, err = initiator.Open(t.Context(), cfg)
	require.Error(t, err)
	cfg.Wait = 1
	open(t, cfg)
}

func TestOpenQuarantinesAPathToAnotherUnit(t *testing.T) {
	leak.Check(t)
	a := target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "A", Size: 1 << 20}}})
	b := target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Serial: "B", Size: 2 << 20}}})
	cfg := config(a)
	cfg.OnlyGiven, cfg.Portals = true, []string{a.Addr(0), b.Addr(0)}
	dev := open(t, cfg)
	s := snapshotUntil(t, dev, "one path quarantined", func(s initiator.Snapshot) bool {
		return s.Paths[0].State.String() == "quarantined" || s.Paths[1].State.String() == "quarantined"
	})
	assert.Equal(t, 1, s.PathsUp)
	_, err := dev.ReadAt(make([]byte, 512), 0)
	require.NoError(t, err)
	dev.Abort()

	cfg.Wait = initiator.WaitAll
	_, err = initiator.Open(t.Context(), cfg)
	assert.Equal(t, initiator.KindIdentity, initiator.KindOf(err), "%v", err)
}

func TestOpenEndsWithItsContext(t *testing.T) {
	leak.Check(t)
	asked := make(chan struct{}, 8)
	portal := server(t, func(c net.Conn) {
		asked <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("changed my mind")
	go func() {
		<-asked
		cancel(reason)
	}()
	cfg := initiator.Config{Target: iscsitest.DefaultName, InitiatorName: me, Portals: []string{portal}, LoginTimeout: time.Minute}
	_, err := initiator.Open(ctx, cfg)
	require.ErrorIs(t, err, reason)

	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	_, err = initiator.Open(ctx, cfg)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, initiator.KindTimeout, initiator.KindOf(err), "%v", err)
}

func TestOpenChecksItsConfiguration(t *testing.T) {
	good := initiator.Config{Target: "iqn.2026-01.test:x", Portals: []string{"127.0.0.1"}, InitiatorName: me}
	for name, spoil := range map[string]func(*initiator.Config){
		"no target":            func(c *initiator.Config) { c.Target = "" },
		"bad target":           func(c *initiator.Config) { c.Target = "x" },
		"no portal":            func(c *initiator.Config) { c.Portals = nil },
		"bad portal":           func(c *initiator.Config) { c.Portals = []string{"x:y"} },
		"no initiator":         func(c *initiator.Config) { c.InitiatorName = "" },
		"policy":               func(c *initiator.Config) { c.Policy = "fastest" },
		"failback":             func(c *initiator.Config) { c.Failback = -7 },
		"hedge budget":         func(c *initiator.Config) { c.HedgeBudget = 0.7 },
		"marginal":             func(c *initiator.Config) { c.Marginal.ErrRateThreshold = -1 },
		"wait":                 func(c *initiator.Config) { c.Wait = -2 },
		"wait for too many":    func(c *initiator.Config) { c.OnlyGiven, c.Wait = true, 2 },
		"two answers":          func(c *initiator.Config) { c.FailFast, c.NoPathTimeout = true, time.Second },
		"negative fence":       func(c *initiator.Config) { c.FenceTimeout = -1 },
		"negative login":       func(c *initiator.Config) { c.LoginTimeout = -1 },
		"negative logout":      func(c *initiator.Config) { c.LogoutTimeout = -1 },
		"too many commands":    func(c *initiator.Config) { c.CommandsMax = 1 << 20 },
		"tiny data segment":    func(c *initiator.Config) { c.MaxRecvDataSegmentLength = 1 },
		"too many connections": func(c *initiator.Config) { c.Connections = 17 },
		"negative connections": func(c *initiator.Config) { c.Connections = -1 },
		"bursts that disagree": func(c *initiator.Config) { c.MaxBurstLength, c.FirstBurstLength = 4096, 8192 },
		"enormous burst":       func(c *initiator.Config) { c.MaxBurstLength = 1 << 30 },
		"negative reconnects":  func(c *initiator.Config) { c.ReconnectMax = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := good
			spoil(&cfg)
			_, err := initiator.Open(t.Context(), cfg)
			require.Error(t, err)
			assert.Equal(t, initiator.KindInvalid, initiator.KindOf(err), "%v", err)
		})
	}
}

func TestISIDsAreDistinctAndOutliveARestart(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{Portals: portals(3), LUNs: []iscsitest.LUN{{Number: 0}, {Number: 1}}})
	isids := func(number uint16) map[[6]byte]bool {
		cfg := config(tgt)
		cfg.Wait, cfg.LUN = initiator.WaitAll, scsi.MakeLUN(number)
		dev := open(t, cfg)
		defer dev.Abort()
		seen := map[[6]byte]bool{}
		for _, s := range tgt.Sessions() {
			seen[s.ISID] = true
		}
		return seen
	}
	first, again, other := isids(0), isids(0), isids(1)
	assert.Len(t, first, 3, "one for each session")
	assert.Equal(t, first, again)
	for isid := range other {
		assert.NotContains(t, first, isid, "devices must not throw each other out")
	}
}
