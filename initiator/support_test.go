package initiator_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/heldport"
	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/iscsitest"
)

const me = "iqn.2026-01.test.iscsimp:host"

// target starts a target that must be found without fault at the end.
func target(t *testing.T, cfg iscsitest.Config) *iscsitest.Target {
	t.Helper()
	tgt, err := iscsitest.NewTarget(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		tgt.Close()
		for _, v := range tgt.Violations() {
			t.Errorf("the initiator broke a rule: %v", v)
		}
	})
	return tgt
}

// portals makes n portals.
func portals(n int) []iscsitest.Portal { return make([]iscsitest.Portal, n) }

// open opens the target's LUN 0 through its first portal and closes it at the end.
func open(t *testing.T, cfg initiator.Config) *initiator.Device {
	t.Helper()
	dev, err := initiator.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(dev.Abort)
	return dev
}

// config is a configuration for tgt through the given portals, or the first.
func config(tgt *iscsitest.Target, given ...int) initiator.Config {
	cfg := initiator.Config{
		Target: tgt.Name(), InitiatorName: me,
		// A busy machine can keep a target in it from answering for long.
		LoginTimeout: time.Minute, NoopTimeout: time.Minute, SuspectAfter: time.Minute,
	}
	for _, i := range given {
		cfg.Portals = append(cfg.Portals, tgt.Addr(i))
	}
	if len(given) == 0 {
		cfg.Portals = []string{tgt.Addr(0)}
	}
	return cfg
}

// bothLoops runs a test over either loop and looks for leaked goroutines.
func bothLoops(t *testing.T, test func(t *testing.T, portable bool)) {
	for name, portable := range map[string]bool{"best": false, "portable": true} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			test(t, portable)
		})
	}
}

// closedPort is an address where nobody listens before the test has ended.
func closedPort(t *testing.T) string {
	t.Helper()
	p, err := heldport.Hold("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(p.Release)
	return p.Addr()
}

// server listens and hands each connection to serve, until the test ends.
func server(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { c.Close() })
			serve(c)
			stop()
			c.Close()
		}
	}()
	t.Cleanup(func() {
		cancel()
		l.Close()
		<-ended
	})
	return l.Addr().String()
}

// snapshotUntil polls until the snapshot fits.
func snapshotUntil(t *testing.T, dev *initiator.Device, what string, fits func(initiator.Snapshot) bool) initiator.Snapshot {
	t.Helper()
	var s initiator.Snapshot
	require.Eventually(t, func() bool {
		var err error
		s, err = dev.Snapshot(t.Context())
		require.NoError(t, err)
		return fits(s)
	}, time.Minute, 5*time.Millisecond, what)
	return s
}
