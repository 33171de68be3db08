package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Istgt describes one istgt process with one target of one disk, number 0.
type Istgt struct {
	Portals    []string          // host:port, all in one portal group; required
	File       string            // backing file; required, its size is the disk's
	Options    map[string]string // of the [Global] section: MaxConnections, MaxBurstLength, NopInInterval, …
	Unit       map[string]string // of the [LogicalUnit1] section: UseDigest, QueueDepth, …
	CHAP       *Account          // the initiator proves itself with this
	MutualCHAP *Account          // and the target with this
}

// IstgtTarget is a running istgt.
type IstgtTarget struct {
	*process
	Istgt
	IQN    string
	LUN    int
	runDir string

	controlPort int
}

const istgtNodeBase = "iqn.2026-01.io.github.iscsimp"

// StartIstgt starts a private istgt with its files in runDir, which must be empty, and waits until its portals answer.
func StartIstgt(ctx context.Context, config Istgt, runDir string) (*IstgtTarget, error) {
	daemon, err := FindTool("istgt")
	if err != nil {
		return nil, err
	}
	if len(config.Portals) == 0 || config.File == "" {
		return nil, errors.New("istgt: needs a portal and a file")
	}
	// It would go on without a portal that it cannot bind.
	if err := WaitFor(ctx, portsFreeLimit, func() error { return portsFree(config.Portals) }); err != nil {
		return nil, fmt.Errorf("istgt: portal in use: %w", err)
	}
	t := &IstgtTarget{Istgt: config, IQN: istgtNodeBase + ":istgt", runDir: runDir}
	if t.controlPort, err = FreePort(); err != nil {
		return nil, err
	}
	conf := filepath.Join(runDir, "istgt.conf")
	err = errors.Join(os.WriteFile(conf, []byte(t.configuration()), 0o600), os.WriteFile(t.authFile(), []byte(t.accounts()), 0o600))
	if err != nil {
		return nil, err
	}
	if t.process, err = start(exec.Command(daemon, "-c", conf, "-D")); err != nil {
		return nil, err
	}
	if err := t.waitReady(ctx); err != nil {
		t.Kill()
		return nil, fmt.Errorf("istgt: %w; its output:\n%s", err, t.Output())
	}
	return t, nil
}

func (t *IstgtTarget) waitReady(ctx context.Context) error {
	err := WaitFor(ctx, Patience, func() error {
		if t.Exited() {
			return nil
		}
		return WaitReachable(ctx, time.Second, "tcp", t.Portals...)
	})
	if t.Exited() {
		return fmt.Errorf("ended at once: %s", t.ending())
	}
	return err
}

func (t *IstgtTarget) authFile() string { return filepath.Join(t.runDir, "auth.conf") }

func (t *IstgtTarget) configuration() string {
	global := map[string]string{
		"NodeBase": `"` + istgtNodeBase + `"`, "PidFile": filepath.Join(t.runDir, "istgt.pid"), "AuthFile": t.authFile(), "MediaDirectory": t.runDir,
		"LogFacility": `"local7"`, "Timeout": "30", "NopInInterval": "20", "DiscoveryAuthMethod": "None", "MaxSessions": "64", "MaxConnections": "4",
		"MaxR2T": "32", "MaxOutstandingR2T": "16", "FirstBurstLength": "262144", "MaxBurstLength": "1048576", "MaxRecvDataSegmentLength": "262144",
		"InitialR2T": "Yes", "ImmediateData": "Yes",
	}
	unit := map[string]string{
		"TargetName": "istgt", "Mapping": "PortalGroup1 InitiatorGroup1", "AuthMethod": "None", "AuthGroup": "AuthGroup1", "UseDigest": "Auto",
		"UnitType": "Disk", "UnitInquiry": `"TESTVEND" "iSCSI Disk" "0123" "10000001"`, "QueueDepth": "32", "LUN0": "Storage " + t.File + " Auto",
	}
	if t.CHAP != nil {
		unit["AuthMethod"] = "CHAP"
	}
	if t.MutualCHAP != nil {
		unit["AuthMethod"] = "CHAP Mutual"
	}
	maps.Copy(global, t.Options)
	maps.Copy(unit, t.Unit)
	var b strings.Builder
	section := func(name string, keys map[string]string) {
		fmt.Fprintf(&b, "[%s]\n", name)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			fmt.Fprintf(&b, "  %s %s\n", key, keys[key])
		}
	}
	section("Global", global)
	// Required, though nothing here uses it.
	fmt.Fprintf(&b, "[UnitControl]\n  AuthMethod None\n  AuthGroup AuthGroup1\n  Portal UC1 127.0.0.1:%d\n  Netmask 127.0.0.1\n", t.controlPort)
	b.WriteString("[PortalGroup1]\n")
	for i, portal := range t.Portals {
		fmt.Fprintf(&b, "  Portal P%d %s\n", i, portal)
	}
	b.WriteString("[InitiatorGroup1]\n  InitiatorName \"ALL\"\n  Netmask 127.0.0.0/8\n")
	section("LogicalUnit1", unit)
	return b.String()
}

func (t *IstgtTarget) accounts() string {
	text := "[AuthGroup1]\n"
	if t.CHAP == nil {
		return text
	}
	text += fmt.Sprintf("  Auth %q %q", t.CHAP.User, t.CHAP.Secret)
	if t.MutualCHAP != nil {
		text += fmt.Sprintf(" %q %q", t.MutualCHAP.User, t.MutualCHAP.Secret)
	}
	return text + "\n"
}

// Stop ends the daemon; one that had died before is an error.
func (t *IstgtTarget) Stop() error {
	if t.Exited() {
		return fmt.Errorf("istgt died by itself: %s\n%s", t.ending(), t.Output())
	}
	t.Kill()
	return nil
}

// NeedIstgt is StartIstgt for tests, on a free port of 127.0.0.2, 127.0.0.3, … and a file of 64 MiB unless config names others.
func NeedIstgt(t testing.TB, portals int, config Istgt) *IstgtTarget {
	t.Helper()
	NeedTool(t, "istgt")
	if len(config.Portals) == 0 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		config.Portals = Portals(max(portals, 1), port)
	}
	if config.File == "" {
		config.File = RAMFile(t, 64)
	}
	target, err := StartIstgt(context.Background(), config, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Stop(); err != nil {
			t.Error(err)
		}
	})
	return target
}
