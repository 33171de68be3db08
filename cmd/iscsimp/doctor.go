package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "say what would hold a login back here, and what to do about it",
		ArgsUsage: "[TARGET]",
		Description: "Looks at this host, and at each PORTAL given: can it be reached, does it speak iSCSI,\n" +
			"does it list TARGET, and with CHAP, does TARGET let this host in. Ends with 0 unless a\n" +
			"login would fail.",
		Flags:        flags(sessionFlags(), authFlags(), digestFlags()),
		OnUsageError: onUsageError,
		Action:       runDoctor,
	}
}

// verdict is how a check went.
type verdict string

const (
	verdictOK   verdict = "ok"
	verdictNote verdict = "note" // worth knowing
	verdictWarn verdict = "warn" // works, but not as well as it could
	verdictFail verdict = "fail" // a login would fail
)

// finding is one line of the report.
type finding struct {
	Check   string  `json:"check"`
	Status  verdict `json:"status"`
	Detail  string  `json:"detail"`
	Remedy  string  `json:"remedy,omitempty"`
	Seconds float64 `json:"seconds,omitempty"` // how long it took, if that matters
	code    int     // exit code, for verdictFail
}

type doctorReport struct {
	Version int       `json:"version"`
	OK      bool      `json:"ok"`
	Checks  []finding `json:"checks"`
}

func runDoctor(c *cli.Context) error {
	a, portals, err := doctorSubject(c)
	if err != nil {
		return err
	}
	findings := checkHost(c)
	if len(portals) > 0 {
		found, err := checkPortals(c, a, portals)
		if err != nil {
			return err
		}
		findings = append(findings, found...)
	}
	worst := exitOK
	for _, f := range findings {
		if f.Status == verdictFail {
			worst = max(worst, f.code, exitError)
		}
	}
	if c.Bool(flagJSON) {
		err = writeJSON(c.App.Writer, doctorReport{schemaVersion, worst == exitOK, findings}, false)
	} else {
		err = findingsTable(findings).writeTo(c.App.Writer)
	}
	if err == nil && worst != exitOK {
		err = silentExit(worst)
	}
	return err
}

// doctorSubject is addressOf with everything optional.
func doctorSubject(c *cli.Context) (a initiator.Address, portals []string, err error) {
	if c.NArg() > 0 {
		return addressOf(c)
	}
	portals, err = portalsOf(c)
	return a, portals, err
}

func findingsTable(findings []finding) *table {
	t := &table{header: []string{"STATUS", "CHECK", "DETAIL"}}
	for _, f := range findings {
		t.add(string(f.Status), f.Check, f.Detail)
		if f.Remedy != "" {
			t.add("", "", "→ "+f.Remedy)
		}
	}
	t.blank = true
	return t
}

// checkHost looks at this host.
func checkHost(c *cli.Context) []finding {
	name := checkInitiatorName(defaultNameFinder(), c.String(flagInitiatorName))
	if origin := settingsOf(c).origin[flagInitiatorName]; origin != "" {
		name.Detail = strings.Replace(name.Detail, "(command line)", "("+origin+")", 1)
	}
	findings := []finding{checkConfig(settingsOf(c)), name}
	findings = append(findings, checkSecrets(settingsOf(c))...)
	findings = append(findings, checkRuntime(c)...)
	findings = append(findings, checkState(stateDir()))
	findings = append(findings, checkOpenFiles(openFileLimit()))
	if runtime.GOOS == "linux" {
		findings = append(findings, checkKernelNBD("/sys/module/nbd"))
	}
	return findings
}

// checkConfig tells which files say what this call did not. One with a mistake in
// it does not come as far as here.
func checkConfig(s *settings) finding {
	f := finding{Check: "configuration", Status: verdictOK, Detail: cmp.Or(s.file, "none")}
	if _, err := os.Stat(systemConfigFile); err == nil && s.file != systemConfigFile && !readable(systemConfigFile) {
		f.Status = verdictNote
		f.Detail += "; " + systemConfigFile + " is there, but not for this user"
		f.Remedy = "keep a file of your own, or let this user read it; secrets can be kept in files of their own"
	}
	if path := steeringFile(); path != "" {
		if _, err := os.Stat(path); err == nil {
			f.Detail += ", and " + path + " from `path --save`"
		}
	}
	return f
}

func checkInitiatorName(n nameFinder, given string) finding {
	f := finding{Check: "initiator name", Status: verdictOK}
	own, ownErr := readInitiatorName(n.ownFile())
	name, source, err := n.existing(given)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Status, f.Detail = verdictNote, "none yet; the first login makes one and keeps it in "+n.ownFile()
		f.Remedy = "if the target has an access list, give it the name afterwards"
		if !writable(n.stateDir) {
			f.Status, f.code = verdictFail, exitError
			f.Detail = "none, and no folder to keep one in"
			if n.stateDir != "" {
				f.Detail = "none, and " + n.stateDir + " cannot be written to keep one"
			}
			f.Remedy = "write InitiatorName=… into " + n.systemFile + ", or give --" + flagInitiatorName
		}
	case err != nil:
		f.Status, f.code, f.Detail = verdictFail, exitError, err.Error()
		f.Remedy = "mend the file, or give --" + flagInitiatorName
	case ownErr == nil && own != name:
		f.Status = verdictNote
		f.Detail = fmt.Sprintf("%s (%s); %s in %s is not used", name, source, own, n.ownFile())
		f.Remedy = "remove the file that is not used, lest the host change its name when the other one goes"
	default:
		f.Detail = fmt.Sprintf("%s (%s)", name, source)
	}
	return f
}

func checkRuntime(c *cli.Context) []finding {
	f := finding{Check: "runtime folder", Status: verdictOK}
	dir, err := runtimeDir(c)
	if err == nil {
		f.Detail = dir
		if err = checkRuntimeDir(dir); errors.Is(err, fs.ErrNotExist) {
			err = nil
			if !writable(dir) {
				err = fmt.Errorf("%s cannot be created", dir)
			}
		}
	}
	if err != nil {
		f.Status, f.code, f.Detail = verdictFail, exitError, err.Error()
		f.Remedy = "give a folder of your own with --" + flagRuntimeDir
		return []finding{f}
	}
	findings := []finding{f}
	devices, err := runningDevices(c.Context, dir)
	if err != nil {
		return append(findings, finding{Check: "running devices", Status: verdictWarn, Detail: err.Error()})
	}
	for _, d := range devices {
		findings = append(findings, checkDevice(d))
	}
	return findings
}

// checkDevice tells how a device does that runs here.
func checkDevice(d deviceStatus) finding {
	f := finding{
		Check: "device " + d.Name, Status: verdictOK,
		Detail: fmt.Sprintf("%s, %d of %s up", d.State, d.PathsUp, plural(uint64(max(d.PathsTotal, 0)), "path", "paths")),
	}
	switch d.State {
	case "up", "starting", "closing":
	case stateNotAnswering:
		f.Status, f.Detail = verdictWarn, fmt.Sprintf("process %d runs it but does not answer", d.PID)
		f.Remedy = fmt.Sprintf("look at its log; kill -QUIT %d makes it tell where it hangs", d.PID)
	default:
		f.Status, f.Remedy = verdictWarn, fmt.Sprintf("`iscsimp explain %s` says why", d.Name)
	}
	return f
}

// checkState tells whether a login can note its sessions, without which it is not
// let write.
func checkState(dir string) finding {
	f := finding{Check: "state folder", Status: verdictOK, Detail: dir}
	switch {
	case dir == "":
		f.Status, f.Detail = verdictWarn, "there is none, since there is no home folder: a login would fail"
		f.Remedy = "set XDG_STATE_HOME, or give one with --" + flagStateDir
	case !writable(dir):
		f.Status, f.Detail = verdictWarn, dir+" cannot be written to: a login would fail, since it notes its sessions there for a restart"
		f.Remedy = "make it writable, or give another with --" + flagStateDir
	}
	return f
}

// enoughFiles is what a device with many paths and clients needs.
const enoughFiles = 1024

func checkOpenFiles(limit uint64, known bool) finding {
	f := finding{Check: "open files", Status: verdictOK, Detail: fmt.Sprintf("limit %d", limit)}
	switch {
	case !known:
		f.Status, f.Detail = verdictNote, "the limit is not known on this system"
	case limit < enoughFiles:
		f.Status = verdictWarn
		f.Remedy = fmt.Sprintf("every path and every NBD client needs one: ulimit -n %d", enoughFiles)
	}
	return f
}

func checkKernelNBD(module string) finding {
	if _, err := os.Stat(module); err == nil {
		return finding{Check: "kernel NBD client", Status: verdictOK, Detail: "module nbd is loaded"}
	}
	return finding{
		Check: "kernel NBD client", Status: verdictNote, Detail: "module nbd is not loaded",
		Remedy: "only needed to use an export as /dev/nbdN of this host: modprobe nbd",
	}
}

// checkPortals looks at all portals at once. One that fails would not stop a
// login if another works.
func checkPortals(c *cli.Context, a initiator.Address, portals []string) ([]finding, error) {
	cfg, done, err := discoverConfig(c, portals, a.User)
	if err != nil {
		return nil, err
	}
	defer done()
	// Discovery authenticates as that of login does.
	forDiscovery := cfg.CHAP
	forDiscovery.MutualUser, forDiscovery.MutualSecret = "", initiator.Secret{}
	if forDiscovery, err = discoveryCHAPOr(c, forDiscovery); err != nil {
		return nil, err
	}
	findings := make([][]finding, len(portals))
	var wg sync.WaitGroup
	for i, portal := range portals {
		one := cfg
		one.Portals = []string{portal}
		wg.Go(func() { findings[i] = checkPortal(c.Context, one, forDiscovery, portal, a.Target) })
	}
	wg.Wait()
	works := func(f []finding) bool {
		return !slices.ContainsFunc(f, func(f finding) bool { return f.Status == verdictFail })
	}
	if slices.ContainsFunc(findings, works) {
		for _, list := range findings {
			for i := range list {
				if list[i].Status == verdictFail {
					list[i].Status = verdictWarn
				}
			}
		}
	}
	return append([]finding{checkAuthentication(cfg.CHAP)}, slices.Concat(findings...)...), nil
}

func checkPortal(ctx context.Context, cfg initiator.DiscoverConfig, forDiscovery initiator.CHAP, portal, target string) []finding {
	reach := finding{Check: "portal " + portal, Status: verdictOK}
	began := time.Now()
	dialCtx, cancel := context.WithTimeout(ctx, cfg.LoginTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(dialCtx, "tcp", portal)
	reach.Seconds = time.Since(began).Seconds()
	if err != nil {
		reach.Status, reach.code, reach.Detail = verdictFail, exitConnect, err.Error()
		reach.Remedy = "check address and port, the network, firewalls, and whether the target runs"
		return []finding{reach}
	}
	conn.Close()
	reach.Detail = "TCP connection in " + formatLatency(reach.Seconds)
	speaks := finding{Check: "discovery at " + portal, Status: verdictOK}
	ask := cfg
	ask.CHAP = forDiscovery
	found, err := initiator.Discover(ctx, ask)
	if err != nil {
		speaks.Status, speaks.code, speaks.Detail = verdictFail, exitCode(err), err.Error()
		speaks.Remedy = "check that this is an iSCSI portal, and the target's access list"
		if len(found.Portals) == 1 {
			speaks.Detail = strings.TrimPrefix(found.Portals[0].Err.Error(), portal+": ")
		}
		return []finding{reach, speaks}
	}
	speaks.Seconds = found.Portals[0].Elapsed.Seconds()
	speaks.Detail = fmt.Sprintf("%s in %s", plural(uint64(len(found.Targets)), "target", "targets"), formatLatency(speaks.Seconds))
	if target != "" && !slices.ContainsFunc(found.Targets, func(t initiator.Target) bool { return t.Name == target }) {
		speaks.Status, speaks.code = verdictFail, exitNothing
		speaks.Detail += ", but not " + target
		speaks.Remedy = "check the name, and the target's access list for " + cfg.InitiatorName
	} else if len(found.Targets) == 0 {
		speaks.Status = verdictWarn
		speaks.Remedy = "check the target's access list for " + cfg.InitiatorName
	}
	if target == "" || speaks.Status == verdictFail {
		return []finding{reach, speaks}
	}
	return []finding{reach, speaks, checkLogin(ctx, cfg, portal, target)}
}

// checkLogin logs in to the target, with CHAP if there is a user for it.
func checkLogin(ctx context.Context, cfg initiator.DiscoverConfig, portal, target string) finding {
	f := finding{Check: "login at " + portal, Status: verdictOK, Detail: "the target lets " + cfg.InitiatorName + " in, without CHAP"}
	if cfg.CHAP.User != "" {
		f.Check, f.Detail = "CHAP at "+portal, "the target lets "+cfg.CHAP.User+" in"
	}
	if _, err := initiator.Luns(ctx, target, cfg); err != nil {
		f.Status, f.code, f.Detail = verdictFail, exitCode(err), err.Error()
		f.Detail, _, _ = strings.Cut(f.Detail, "; `iscsimp doctor") // that is here
		switch {
		case f.code != exitAuth:
			f.Remedy = "check that this portal serves the target, and its access list for " + cfg.InitiatorName
		case cfg.CHAP.User == "":
			f.Remedy = "if the target demands CHAP, give --" + flagCHAPUser + " and --" + flagCHAPSecretFile + "; else check its access list for " + cfg.InitiatorName
		default:
			f.Remedy = "compare users and secrets with those of the target, for each direction"
		}
	}
	return f
}

// writable reports whether dir, or the nearest folder above it that exists, can
// be written to.
func writable(dir string) bool {
	for dir != "" {
		_, err := os.Stat(dir)
		if err == nil {
			return mayWrite(dir)
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return false
		}
		dir = up
	}
	return false
}
