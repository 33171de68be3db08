package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
)

// Flag names used in more than one place.
const (
	flagJSON          = "json"
	flagLogLevel      = "log-level"
	flagLogFormat     = "log-format"
	flagTrace         = "trace"
	flagRuntimeDir    = "runtime-dir"
	flagPortal        = "portal"
	flagInitiatorName = "initiator-name"
	flagLoginTimeout  = "login-timeout"
	flagHeaderDigest  = "header-digest"
	flagDataDigest    = "data-digest"
)

// commonFlags stand at every command.
func commonFlags() []cli.Flag {
	return inCategory(categoryCommon,
		&cli.BoolFlag{Name: flagJSON, DisableDefaultText: true, Usage: "print JSON with stable field names"},
		&cli.StringFlag{Name: flagLogLevel, Value: "info", Usage: "log from `LEVEL` up: debug, info, warn or error"},
		&cli.StringFlag{Name: flagLogFormat, Value: "text", Usage: "log as `FORMAT`: text or json"},
		&cli.StringFlag{Name: flagConfig, Usage: "read settings from `FILE`; default: /etc/iscsimp/config.yaml, else iscsimp/config.yaml in $XDG_CONFIG_HOME; /dev/null for none"},
		&cli.StringFlag{Name: flagRuntimeDir, Usage: "keep sockets of running devices in `DIR`; default /run/iscsimp, else $XDG_RUNTIME_DIR/iscsimp"},
	)
}

// categoryCommon sorts after all others.
const categoryCommon = "With every command"

// inCategory groups flags under a heading of the help.
func inCategory(category string, list ...cli.Flag) []cli.Flag {
	for _, f := range list {
		switch f := f.(type) {
		case *cli.BoolFlag:
			f.Category = category
		case *cli.IntFlag:
			f.Category = category
		case *cli.StringFlag:
			f.Category = category
		case *cli.StringSliceFlag:
			f.Category = category
		default:
			panic("a kind of flag without a category")
		}
	}
	return list
}

// sessionFlags stand at every command that logs in somewhere.
func sessionFlags() []cli.Flag {
	return inCategory("Target",
		&cli.StringSliceFlag{Name: flagPortal, Aliases: []string{"p"}, Usage: "ask at `PORTAL`; may be given more than once"},
		&cli.StringFlag{Name: flagInitiatorName, Usage: "this host's iSCSI `NAME`; default: /etc/iscsi/initiatorname.iscsi, else one generated once"},
		&cli.StringFlag{Name: flagLoginTimeout, Value: "10", Usage: "give up connecting and logging in to a portal after `TIME`"},
		&cli.StringFlag{Name: flagTrace, Usage: "write one line per PDU to `FILE`"},
	)
}

// digestFlags ask for checksums over what is sent.
func digestFlags() []cli.Flag {
	return inCategory("Negotiation",
		&cli.BoolFlag{Name: flagHeaderDigest, DisableDefaultText: true, Usage: "ask for CRC32C over headers"},
		&cli.BoolFlag{Name: flagDataDigest, DisableDefaultText: true, Usage: "ask for CRC32C over data"},
	)
}

// flags joins groups, and adds the common ones.
func flags(groups ...[]cli.Flag) []cli.Flag {
	var all []cli.Flag
	for _, g := range groups {
		all = append(all, g...)
	}
	return append(all, commonFlags()...)
}

// portalsOf reads --portal: repeated, or several in one value with commas.
func portalsOf(c *cli.Context) ([]string, error) {
	var portals []string
	for _, value := range c.StringSlice(flagPortal) {
		for p := range strings.SplitSeq(value, ",") {
			parsed, err := initiator.ParsePortal(strings.TrimSpace(p))
			if err != nil {
				return nil, usagef("--%s: %w", flagPortal, err)
			}
			portals = append(portals, parsed)
		}
	}
	return portals, nil
}

// addressOf reads what says where the LUN is: TARGET with --portal, or an
// iscsi:// URI, to which --portal adds portals.
func addressOf(c *cli.Context) (a initiator.Address, portals []string, err error) {
	if portals, err = portalsOf(c); err != nil {
		return a, nil, err
	}
	if c.NArg() != 1 {
		return a, nil, usagef("%s needs one TARGET, not %d arguments; see `iscsimp %s --help`", c.Command.Name, c.NArg(), c.Command.Name)
	}
	arg := c.Args().First()
	known := settingsOf(c)
	if known.target != "" && known.device == arg {
		a.Target = known.target
		if len(portals) == 0 {
			return a, nil, usagef("no portal given: say where device %s is with -p PORTAL, or with portals: in %s", arg, known.file)
		}
		return a, portals, nil
	}
	if !initiator.IsURL(arg) {
		if err := initiator.CheckName(arg); err != nil {
			if known.file != "" && checkDeviceName(arg) == nil {
				return a, nil, usagef("%w; nor does %s say what device %s is", err, known.file, arg)
			}
			return a, nil, err
		}
		if len(portals) == 0 {
			return a, nil, usagef("no portal given: say where the target is with -p PORTAL, or write iscsi://host/TARGET/LUN")
		}
		return initiator.Address{Target: arg}, portals, nil
	}
	if a, err = initiator.ParseURL(arg); err != nil {
		return a, nil, err
	}
	return a, append([]string{a.Portal}, portals...), nil
}

// noArguments refuses arguments where none are meant.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("%s takes no argument, but %q was given", c.Command.Name, c.Args().First())
	}
	return nil
}
