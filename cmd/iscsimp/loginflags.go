package main

import (
	"cmp"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/scsi"
)

// Flag names of login.
const (
	flagLUN            = "lun"
	flagName           = "name"
	flagExport         = "export"
	flagPolicy         = "policy"
	flagFailback       = "failback"
	flagOnlyGiven      = "only-given"
	flagReadOnly       = "read-only"
	flagShared         = "shared"
	flagOneNode        = "one-node"
	flagNoPathTimeout  = "no-path-timeout"
	flagFenceTimeout   = "fence-timeout"
	flagCommandTimeout = "command-timeout"
	flagLogoutTimeout  = "logout-timeout"
	flagDrainTimeout   = "drain-timeout"
	flagNoopInterval   = "noop-interval"
	flagNoopTimeout    = "noop-timeout"
	flagCommandsMax    = "cmds-max"
	flagLUNReset       = "lun-reset"
	flagAbortTimeout   = "abort-timeout"
	flagResetTimeout   = "lu-reset-timeout"
	flagRetryTimeout   = "retry-timeout"
	flagNotReadyLimit  = "not-ready-timeout"
	flagCheckTimeout   = "identify-timeout"
	flagSuspectAfter   = "suspect-after"
	flagReconnectMin   = "reconnect-min"
	flagReconnectMax   = "reconnect-max"
	flagMaxTransfer    = "max-transfer"
	flagStateDir       = "state-dir"
)

// loginFlags are those of login alone. One that is added here can be set in the
// environment and in the configuration file, too, and is in help, man page and
// completion.
func loginFlags() []cli.Flag {
	return slices.Concat(deviceFlags(), pathFlags(), careFlags(), timeFlags())
}

func deviceFlags() []cli.Flag {
	return inCategory("Device",
		&cli.StringFlag{Name: flagLUN, Usage: "use LUN `N` of the target; default 0, or what the address says"},
		&cli.StringFlag{Name: flagName, Usage: "call the device `NAME`; default: made from target and LUN"},
		&cli.StringSliceFlag{Name: flagExport, Usage: "serve NBD at `ADDRESS`, unix:PATH or tcp:HOST:PORT; may be given more than once; default: a socket in the runtime folder"},
		&cli.StringFlag{Name: flagWait, Value: "any", Usage: "be ready when `any` path, all paths, or N paths are up"},
		&cli.BoolFlag{Name: flagReadOnly, DisableDefaultText: true, Usage: "refuse writes"},
		&cli.BoolFlag{Name: flagShared, DisableDefaultText: true, Usage: "other hosts write to this LUN too: never answer a write while an old copy of it could still land"},
		&cli.BoolFlag{Name: flagOneNode, DisableDefaultText: true, Usage: "the given portals belong to one machine, even if discovery does not say so: a session whose portal stays dead may be ended through another portal; never for independent hosts that serve one disk"},
		&cli.StringFlag{Name: flagStateDir, Usage: "note in `DIR` which sessions a crash may leave behind with writes in them, so that the next login waits with its own until they have ended; none: do not; default: the state folder"},
		&cli.BoolFlag{Name: flagBackground, DisableDefaultText: true, Usage: "return when the device is ready, and leave a process in the background that logs to NAME.log in the runtime folder"},
	)
}

func pathFlags() []cli.Flag {
	return inCategory("Paths",
		&cli.StringFlag{Name: flagPolicy, Value: initiator.Policies()[0], Usage: "spread I/O by `POLICY`: " + strings.Join(initiator.Policies(), ", ")},
		&cli.StringFlag{Name: flagFailback, Value: "immediate", Usage: "I/O returns to a better path that is back `WHEN`: immediate, manual, or after it has been back for a TIME"},
		&cli.BoolFlag{Name: flagOnlyGiven, DisableDefaultText: true, Usage: "use the portals given and do not look for more"},
		&cli.IntFlag{Name: flagCommandsMax, Value: 128, Usage: "at most `N` commands in flight per path, 1 to 4096"},
		&cli.IntFlag{Name: flagMaxTransfer, Value: 4194304, Usage: "at most `BYTES` in one command, 65536 to 4194304, and never more than the target allows"},
		&cli.BoolFlag{Name: flagLUNReset, DisableDefaultText: true, Usage: "reset the LUN when it does not abort a command that is too old, which ends the commands of all hosts; never with --" + flagShared},
	)
}

func timeFlags() []cli.Flag {
	return inCategory("Time limits",
		&cli.StringFlag{Name: flagNoPathTimeout, Aliases: []string{"replacement-timeout"}, Value: "120", Usage: "without a path, I/O waits for `TIME` and then fails; fail: at once; forever: no limit"},
		&cli.StringFlag{Name: flagFenceTimeout, Value: "60", Usage: "hold back writes over one of unknown outcome for at most `TIME` after its session was lost"},
		&cli.StringFlag{Name: flagCommandTimeout, Value: "30", Usage: "a command older than `TIME` on a live path is aborted; if the target does not do that, the LUN is reset (--" + flagLUNReset + "), and at last the session dropped and made anew"},
		&cli.StringFlag{Name: flagAbortTimeout, Value: "15", Usage: "wait at most `TIME` for the answer to an abort"},
		&cli.StringFlag{Name: flagResetTimeout, Value: "30", Usage: "wait at most `TIME` for the answer to a reset of the LUN"},
		&cli.StringFlag{Name: flagRetryTimeout, Value: "30", Usage: "repeat for at most `TIME` what the target turns away because it is busy"},
		&cli.StringFlag{Name: flagNotReadyLimit, Value: "60", Usage: "wait at most `TIME` for a LUN that says it is becoming ready"},
		&cli.StringFlag{Name: flagCheckTimeout, Value: "10", Usage: "give the check of a path up when one of its commands takes longer than `TIME`"},
		&cli.StringFlag{Name: flagSuspectAfter, Value: "0.2", Usage: "avoid a connection that is silent for `TIME` with commands in flight"},
		&cli.StringFlag{Name: flagNoopInterval, Aliases: []string{"noop-out-interval"}, Value: "1", Usage: "ask idle connections every `TIME` whether they live; 0: never"},
		&cli.StringFlag{Name: flagNoopTimeout, Aliases: []string{"noop-out-timeout"}, Value: "2", Usage: "give a connection up that stays silent for `TIME` when asked"},
		&cli.StringFlag{Name: flagReconnectMin, Value: "0.1", Usage: "log in again to a lost portal after `TIME` at first, then after twice as long each time"},
		&cli.StringFlag{Name: flagReconnectMax, Value: "5", Usage: "the pause between two tries to log in to a lost portal grows to at most `TIME`"},
		&cli.StringFlag{Name: flagLogoutTimeout, Value: "5", Usage: "wait at most `TIME` for the answer to a logout"},
		&cli.StringFlag{Name: flagDrainTimeout, Value: "30", Usage: "when told to end, wait at most `TIME` for I/O under way"},
	)
}

// loginOptions is what the command line of login says.
type loginOptions struct {
	cfg     initiator.Config // without logger and trace
	name    string
	exports []exportAddress
	drain   time.Duration
}

// loginOptionsOf reads the command line of login. dir is the runtime folder.
func loginOptionsOf(c *cli.Context, dir string) (o loginOptions, err error) {
	a, portals, err := addressOf(c)
	if err != nil {
		return o, err
	}
	o.cfg = initiator.Config{
		Target: a.Target, Portals: portals, LUN: a.LUN, OnlyGiven: c.Bool(flagOnlyGiven),
		Policy: c.String(flagPolicy), ReadOnly: c.Bool(flagReadOnly), Shared: c.Bool(flagShared), OneNode: c.Bool(flagOneNode),
		HeaderDigest: c.Bool(flagHeaderDigest), DataDigest: c.Bool(flagDataDigest),
		LUNReset: c.Bool(flagLUNReset),
	}
	if err := o.readKeys(c); err != nil {
		return o, err
	}
	if o.cfg.Failback, err = parseFailback(c.String(flagFailback)); err != nil {
		return o, err
	}
	if o.cfg.CHAP, err = chapOf(c, a.User); err != nil {
		return o, err
	}
	if o.cfg.DiscoveryCHAP, err = discoveryCHAPOf(c); err != nil {
		return o, err
	}
	if o.cfg.LUN, err = lunOf(c, a); err != nil {
		return o, err
	}
	if o.cfg.Wait, err = parseWait(c.String(flagWait)); err != nil {
		return o, err
	}
	if err := o.readTimes(c); err != nil {
		return o, err
	}
	if err := o.readCare(c); err != nil {
		return o, err
	}
	known := settingsOf(c)
	o.cfg.Paths = pathSettings(known.paths)
	if o.name = cmp.Or(c.String(flagName), known.device); o.name == "" {
		o.name = deriveDeviceName(a.Target, o.cfg.LUN)
	} else if err := checkDeviceName(o.name); err != nil {
		return o, err
	}
	o.cfg.Name = o.name
	if o.cfg.InitiatorName, _, err = defaultNameFinder().find(c.String(flagInitiatorName)); err != nil {
		return o, err
	}
	if o.cfg.StateDir, err = stateDirOf(c); err != nil {
		return o, err
	}
	return o, o.readExports(c, dir)
}

// stateDirOf is the folder for what must outlive a crash; empty: none.
func stateDirOf(c *cli.Context) (string, error) {
	switch given := c.String(flagStateDir); given {
	case "none":
		return "", nil
	case "":
		dir := stateDir()
		if dir == "" && !c.Bool(flagReadOnly) {
			return "", failf(exitError, "there is no folder to note sessions in; give one with --%s DIR, or --%s none", flagStateDir, flagStateDir)
		}
		return dir, nil
	default:
		return filepath.Abs(given)
	}
}

func lunOf(c *cli.Context, a initiator.Address) (scsi.LUN, error) {
	given := c.String(flagLUN)
	if given == "" && a.HasLUN {
		return a.LUN, nil
	}
	if given == "" {
		given = cmp.Or(settingsOf(c).lun, "0")
	}
	lun, err := initiator.ParseLUN(given)
	if err == nil && a.HasLUN && lun != a.LUN {
		return 0, usagef("the address says LUN %v and --%s says %v; leave one out", a.LUN, flagLUN, lun)
	}
	return lun, err
}

func (o *loginOptions) readTimes(c *cli.Context) error {
	noPath := c.String(flagNoPathTimeout)
	switch noPath {
	case "fail":
		o.cfg.FailFast = true
	case "forever":
		o.cfg.NoPathTimeout = initiator.Forever
	default:
		var err error
		if o.cfg.NoPathTimeout, err = parseTime(flagNoPathTimeout, noPath); err != nil {
			return usagef("--%s %q: use fail, forever or a time: 120, 500ms or 5m", flagNoPathTimeout, noPath)
		}
		if o.cfg.NoPathTimeout == 0 {
			o.cfg.FailFast = true
		}
	}
	for _, t := range []struct {
		flag string
		v    *time.Duration
	}{
		{flagLoginTimeout, &o.cfg.LoginTimeout},
		{flagFenceTimeout, &o.cfg.FenceTimeout},
		{flagCommandTimeout, &o.cfg.CommandTimeout},
		{flagLogoutTimeout, &o.cfg.LogoutTimeout},
		{flagNoopTimeout, &o.cfg.NoopTimeout},
		{flagAbortTimeout, &o.cfg.AbortTimeout},
		{flagResetTimeout, &o.cfg.LUResetTimeout},
		{flagRetryTimeout, &o.cfg.RetryTimeout},
		{flagNotReadyLimit, &o.cfg.WaitTimeout},
		{flagCheckTimeout, &o.cfg.IdentifyTimeout},
		{flagSuspectAfter, &o.cfg.SuspectAfter},
		{flagReconnectMin, &o.cfg.ReconnectMin},
		{flagReconnectMax, &o.cfg.ReconnectMax},
	} {
		var err error
		if *t.v, err = timeOf(c, t.flag); err != nil {
			return err
		}
	}
	if o.cfg.ReconnectMin > o.cfg.ReconnectMax {
		return usagef("--%s %v is more than --%s %v; lower the one or raise the other", flagReconnectMin, o.cfg.ReconnectMin, flagReconnectMax, o.cfg.ReconnectMax)
	}
	if o.cfg.LUNReset && o.cfg.Shared {
		return usagef("--%s ends the commands of other hosts, which --%s says there are; leave one out", flagLUNReset, flagShared)
	}
	var err error
	if o.drain, err = parseTime(flagDrainTimeout, c.String(flagDrainTimeout)); err != nil {
		return err
	}
	if o.cfg.NoopInterval, err = parseTime(flagNoopInterval, c.String(flagNoopInterval)); err != nil {
		return err
	}
	if o.cfg.NoopInterval == 0 {
		o.cfg.NoopInterval = -1
	}
	return nil
}

func (o *loginOptions) readExports(c *cli.Context, dir string) error {
	given := c.StringSlice(flagExport)
	if len(given) == 0 {
		path, err := socketPath(dir, o.name+exportSuffix)
		o.exports = []exportAddress{{"unix", path}}
		return err
	}
	for _, s := range given {
		e, err := parseExport(s)
		if err != nil {
			return err
		}
		o.exports = append(o.exports, e)
	}
	return nil
}

// parseWait reads any, all or a number of paths.
func parseWait(s string) (initiator.Wait, error) {
	switch s {
	case "any":
		return initiator.WaitAny, nil
	case "all":
		return initiator.WaitAll, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, usagef("--%s %q: use any, all or a number of paths", flagWait, s)
	}
	return initiator.Wait(n), nil
}

// parseFailback reads immediate, manual or a time, as multipath.conf has it.
func parseFailback(s string) (time.Duration, error) {
	switch s {
	case "immediate":
		return 0, nil
	case "manual":
		return initiator.FailbackManual, nil
	}
	t, err := parseTime(flagFailback, strings.TrimPrefix(s, "after ")) // as status shows it
	if err != nil {
		return 0, usagef("--%s %q: use immediate, manual or a time, 30 or 5m", flagFailback, s)
	}
	return t, nil
}

// timeOf reads an option that is a time longer than nothing.
func timeOf(c *cli.Context, flag string) (time.Duration, error) {
	t, err := parseTime(flag, c.String(flag))
	if err == nil && t == 0 {
		return 0, usagef("--%s must be longer than nothing", flag)
	}
	return t, err
}

// parseTime reads a time: a number of seconds, perhaps with a fraction, or one
// with a unit such as 500ms or 2m.
func parseTime(flag, s string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		if !(seconds >= 0 && seconds <= math.MaxInt64/1e9/2) { // also NaN
			return 0, usagef("--%s %q: write a number of seconds, or a time such as 500ms or 2m", flag, s)
		}
		return time.Duration(seconds * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, usagef("--%s %q: write a number of seconds, or a time such as 500ms or 2m", flag, s)
	}
	return d, nil
}
