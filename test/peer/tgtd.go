package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iscsimp/iscsimp/internal/shortdir"
)

// Account is a CHAP name and secret.
type Account struct{ User, Secret string }

// TgtdLUN is one logical unit; the first of a target has number 1 (LUN 0 of tgtd is always its controller device).
type TgtdLUN struct {
	File      string // backing file; empty: tgtd's null store, which forgets writes and reads as anything
	BlockSize int    // 512 (0) or 4096
	SCSIID    string // T10 identifier of VPD page 0x83; default TESTLUN<number>
	Serial    string // VPD page 0x80; default SN000<number>
	ReadOnly  bool
}

// Tgtd describes one tgtd process with one target. Two processes that stand for two controllers of one disk have equal IQN, TID and LUNs (the NAA designators
// of tgtd are made from TID and LUN number alone, so that different disks need different TIDs) and different portals.
type Tgtd struct {
	Portals    []string // host:port; required
	IQN        string   // default iqn.2026-01.io.github.iscsimp:tgtd
	TID        int      // default 1
	LUNs       []TgtdLUN
	Options    map[string]string // target parameters: MaxConnections, InitialR2T, HeaderDigest, …
	CHAP       *Account          // the initiator proves itself with this
	MutualCHAP *Account          // and the target with this
	Threads    int               // I/O threads per LUN; default 4
	// NOP-In every NOPInterval seconds, connection dropped after NOPCount unanswered; 0 is none.
	NOPInterval, NOPCount int
}

// TgtdTarget is a running tgtd.
type TgtdTarget struct {
	*process
	Tgtd
	runDir  string // holds the control socket
	control int    // tgtd's -C; need only differ within runDir
	admin   string // path of tgtadm
}

var controlPorts atomic.Int32

// StartTgtd starts a private tgtd with its control socket in runDir. It refuses portals that are in use, since a tgtd that cannot bind its portal does not
// fail: it listens on port 3260 of every interface instead.
func StartTgtd(ctx context.Context, config Tgtd, runDir string) (*TgtdTarget, error) {
	admin, err := FindTool("tgtadm")
	if err != nil {
		return nil, err
	}
	if len(config.Portals) == 0 {
		return nil, errors.New("tgtd: no portal given")
	}
	if config.IQN == "" {
		config.IQN = "iqn.2026-01.io.github.iscsimp:tgtd"
	}
	config.TID = max(config.TID, 1)
	if config.Threads == 0 {
		config.Threads = 4
	}
	t := &TgtdTarget{Tgtd: config, runDir: runDir, admin: admin, control: int(controlPorts.Add(1))%30000 + 1}
	return t, t.Restart(ctx)
}

// Restart starts the daemon again after Kill, with the same configuration; sessions and reservations of before are gone, the file stays.
func (t *TgtdTarget) Restart(ctx context.Context) error {
	daemon, err := FindTool("tgtd")
	if err != nil {
		return err
	}
	// The port may still be leaving the dead daemon, or somebody's connection.
	if err := WaitFor(ctx, portsFreeLimit, func() error { return portsFree(t.Portals) }); err != nil {
		return fmt.Errorf("tgtd: portal in use: %w", err)
	}
	portal := "portal=" + t.Portals[0]
	if t.NOPInterval > 0 {
		portal += fmt.Sprintf(",nop_interval=%d,nop_count=%d", t.NOPInterval, t.NOPCount)
	}
	cmd := exec.Command(daemon, "-f", "-C", strconv.Itoa(t.control), "-t", strconv.Itoa(t.Threads), "--iscsi", portal)
	cmd.Env = append(os.Environ(), "TGT_IPC_SOCKET="+t.socket())
	if t.process, err = start(cmd); err != nil {
		return err
	}
	if err := t.configure(ctx); err != nil {
		t.Kill()
		return fmt.Errorf("tgtd: %w; its output:\n%s", err, t.Output())
	}
	return nil
}

func (t *TgtdTarget) socket() string {
	return filepath.Join(t.runDir, fmt.Sprintf("tgtd%d.sock", t.control))
}

func (t *TgtdTarget) configure(ctx context.Context) error {
	if err := WaitFor(ctx, Patience, func() error {
		if t.Exited() {
			return nil
		}
		_, err := t.Admin("--op", "show", "--mode", "sys")
		return err
	}); err != nil {
		return err
	}
	if t.Exited() {
		return fmt.Errorf("ended at once: %s", t.ending())
	}
	for _, step := range t.setupSteps() {
		if _, err := t.Admin(step...); err != nil {
			return err
		}
	}
	listening, err := t.Admin("--op", "show", "--mode", "portal")
	if err != nil {
		return err
	}
	for _, portal := range t.Portals {
		if !strings.Contains(listening, portal+",") {
			return fmt.Errorf("portal %s was not bound, tgtd listens on:\n%s", portal, listening)
		}
	}
	// Last: this opens the target to initiators.
	_, err = t.Admin("--op", "bind", "--mode", "target", "--tid", strconv.Itoa(t.TID), "-I", "ALL")
	return err
}

// setupSteps are the tgtadm calls that build the target.
func (t *TgtdTarget) setupSteps() [][]string {
	tid := strconv.Itoa(t.TID)
	var steps [][]string
	add := func(args ...string) { steps = append(steps, args) }
	for _, portal := range t.Portals[1:] {
		add("--op", "new", "--mode", "portal", "--param", "portal="+portal)
	}
	add("--op", "new", "--mode", "target", "--tid", tid, "-T", t.IQN)
	// The default of 8192 bytes makes every larger write a train of small PDUs.
	options := map[string]string{"MaxRecvDataSegmentLength": "262144"}
	for name, value := range t.Options {
		options[name] = value
	}
	for name, value := range options {
		add("--op", "update", "--mode", "target", "--tid", tid, "-n", name, "-v", value)
	}
	for i, lun := range t.LUNs {
		add(lun.newArgs(tid, i+1)...)
		add("--op", "update", "--mode", "logicalunit", "--tid", tid, "--lun", strconv.Itoa(i+1), "--params", lun.params(i+1))
	}
	for _, account := range []struct {
		*Account
		extra []string
	}{{t.CHAP, nil}, {t.MutualCHAP, []string{"--outgoing"}}} {
		if account.Account != nil {
			add("--op", "new", "--mode", "account", "--user", account.User, "--password", account.Secret)
			add(append([]string{"--op", "bind", "--mode", "account", "--tid", tid, "--user", account.User}, account.extra...)...)
		}
	}
	return steps
}

func (l TgtdLUN) newArgs(tid string, number int) []string {
	args := []string{"--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", strconv.Itoa(number)}
	if l.File == "" {
		return append(args, "--bstype", "null", "-b", "null")
	}
	if l.BlockSize != 0 {
		args = append(args, "--blocksize", strconv.Itoa(l.BlockSize))
	}
	return append(args, "-b", l.File)
}

func (l TgtdLUN) params(number int) string {
	id, serial := l.SCSIID, l.Serial
	if id == "" {
		id = fmt.Sprintf("TESTLUN%d", number)
	}
	if serial == "" {
		serial = fmt.Sprintf("SN000%d", number)
	}
	params := []string{"vendor_id=TESTVEND", "product_id=DISK", "product_rev=0001", "scsi_id=" + id, "scsi_sn=" + serial}
	if l.File != "" {
		params = append(params, "thin_provisioning=1")
	}
	if l.ReadOnly {
		params = append(params, "readonly=1")
	}
	return strings.Join(params, ",")
}

// Admin runs tgtadm against this daemon and returns what it printed.
func (t *TgtdTarget) Admin(args ...string) (string, error) {
	cmd := exec.Command(t.admin, append([]string{"-C", strconv.Itoa(t.control), "--lld", "iscsi"}, args...)...)
	cmd.Env = append(os.Environ(), "TGT_IPC_SOCKET="+t.socket())
	output, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("tgtadm %s: %w: %s", strings.Join(args, " "), err, output)
	}
	return string(output), nil
}

// Sessions returns the session ids of the target.
func (t *TgtdTarget) Sessions() ([]string, error) {
	shown, err := t.Admin("--op", "show", "--mode", "conn", "--tid", strconv.Itoa(t.TID))
	if err != nil {
		return nil, err
	}
	var ids []string
	for line := range strings.Lines(shown) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "Session: "); ok {
			ids = append(ids, id)
		}
	}
	return slices.Compact(ids), nil
}

// DropConnection closes the TCP connection with id 0 of a session at once.
func (t *TgtdTarget) DropConnection(session string) error {
	_, err := t.Admin("--op", "delete", "--mode", "conn", "--tid", strconv.Itoa(t.TID), "--sid", session, "--cid", "0")
	return err
}

// Stop ends the daemon in order; SIGTERM alone would be ignored as long as a target exists.
func (t *TgtdTarget) Stop() error {
	if t.Exited() {
		return fmt.Errorf("tgtd died by itself: %s\n%s", t.ending(), t.Output())
	}
	defer t.Kill()
	if _, err := t.Admin("--op", "delete", "--force", "--mode", "target", "--tid", strconv.Itoa(t.TID)); err != nil {
		return err
	}
	if _, err := t.Admin("--op", "delete", "--mode", "system"); err != nil {
		return err
	}
	select {
	case <-t.done:
		return nil
	case <-time.After(Patience):
		return fmt.Errorf("tgtd did not end within %v and was killed", Patience)
	}
}

// NeedTgtd is StartTgtd for tests, on free ports of 127.0.0.2, 127.0.0.3, … when config names no portals (portals of them). A daemon that the test has not
// killed is stopped at its end.
func NeedTgtd(t testing.TB, portals int, config Tgtd) *TgtdTarget {
	t.Helper()
	NeedTool(t, "tgtd")
	if len(config.Portals) == 0 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		config.Portals = Portals(max(portals, 1), port)
	}
	target, err := StartTgtd(context.Background(), config, shortdir.New(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if target.Exited() {
			return
		}
		if err := target.Stop(); err != nil {
			t.Error(err)
		}
	})
	return target
}

// RAMFile creates a file of zeros in memory (/dev/shm, else the temporary folder) and removes it at the end of the test.
func RAMFile(t testing.TB, mebibytes int) string {
	t.Helper()
	dir := "/dev/shm"
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = ""
	}
	f, err := os.CreateTemp(dir, "iscsimp-test-*.img")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	if err := errors.Join(f.Truncate(int64(mebibytes)<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
