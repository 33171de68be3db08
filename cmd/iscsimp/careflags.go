package main

import (
	"strconv"

	"github.com/urfave/cli/v2"
)

// Flag names of what is done about slow and flaky paths. Those that begin with
// marginal-path are multipath.conf's.
const (
	flagHedge           = "hedge"
	flagHedgeBudget     = "hedge-budget"
	flagPolling         = "polling-interval"
	flagMarginal        = "marginal"
	flagMarginalFailed  = "marginal-path-double-failed-time"
	flagMarginalErrRate = "marginal-path-err-rate-threshold"
	flagMarginalSample  = "marginal-path-err-sample-time"
	flagMarginalRecheck = "marginal-path-err-recheck-gap-time"
)

func careFlags() []cli.Flag {
	return inCategory("Slow and flaky paths",
		&cli.StringFlag{Name: flagHedge, Value: "on", Usage: "`on|off`: send a read over a second path too when it is older than what that one takes"},
		&cli.StringFlag{Name: flagHedgeBudget, Value: "2", Usage: "at most `PERCENT` of the reads are sent over a second path too, up to 50"},
		&cli.StringFlag{Name: flagPolling, Value: "5", Usage: "send TEST UNIT READY over paths that were idle for `TIME`; 0: never"},
		&cli.StringFlag{Name: flagMarginal, Value: "on", Usage: "`on|off`: use a path that fails, flaps or stalls where the others do not only if no path is up"},
		&cli.StringFlag{Name: flagMarginalFailed, Value: "60", Usage: "a path that is lost twice within `TIME` is marginal"},
		&cli.IntFlag{Name: flagMarginalErrRate, Value: 10, Usage: "a path is marginal when more than `N` in 1000 of its commands fail"},
		&cli.StringFlag{Name: flagMarginalSample, Value: "5", Usage: "probe a marginal path for `TIME` before it is used again"},
		&cli.StringFlag{Name: flagMarginalRecheck, Value: "300", Usage: "let a marginal path rest for at most `TIME` before that; a sixtieth of it at first, twice as long each time"},
	)
}

// readCare reads the options of careFlags.
func (o *loginOptions) readCare(c *cli.Context) error {
	hedge, err := onOff(c, flagHedge)
	if err != nil {
		return err
	}
	percent, err := strconv.ParseFloat(c.String(flagHedgeBudget), 64)
	if err != nil || !(percent > 0 && percent <= 50) { // also NaN
		return usagef("--%s %q: write a number of percent above 0, up to 50; --%s off switches it off", flagHedgeBudget, c.String(flagHedgeBudget), flagHedge)
	}
	if o.cfg.HedgeBudget = percent / 100; !hedge {
		o.cfg.HedgeBudget = -1
	}
	if o.cfg.PollingInterval, err = parseTime(flagPolling, c.String(flagPolling)); err != nil {
		return err
	}
	if o.cfg.PollingInterval == 0 {
		o.cfg.PollingInterval = -1
	}
	m := &o.cfg.Marginal
	on, err := onOff(c, flagMarginal)
	if err != nil {
		return err
	}
	m.Off = !on
	if m.ErrRateThreshold = c.Int(flagMarginalErrRate); m.ErrRateThreshold < 1 || m.ErrRateThreshold > 1000 {
		return usagef("--%s %d: use 1 to 1000", flagMarginalErrRate, m.ErrRateThreshold)
	}
	if m.DoubleFailedTime, err = timeOf(c, flagMarginalFailed); err != nil {
		return err
	}
	if m.ErrSampleTime, err = timeOf(c, flagMarginalSample); err != nil {
		return err
	}
	m.ErrRecheckGapTime, err = timeOf(c, flagMarginalRecheck)
	return err
}

// onOff reads an option that is on or off.
func onOff(c *cli.Context, flag string) (bool, error) {
	switch s := c.String(flag); s {
	case "on", "true", "yes":
		return true, nil
	case "off", "false", "no":
		return false, nil
	default:
		return false, usagef("--%s %q: use on or off", flag, s)
	}
}
