// Command iscsimp logs in to every portal of an iSCSI target, spreads the I/O
// of one LUN over all paths by latency, and exports it as a block device over NBD.
//
// This package holds what a person or a script sees: sub-commands (one file
// each), tables, JSON, exit codes, the control socket of a running device. It
// is the only importer of the command-line library. Everything about iSCSI is
// behind package initiator, everything about NBD behind package nbd.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// metadataArgs is where commands find the command line as it was given.
const metadataArgs = "args"

// run is the whole program but for the process around it. args does not hold
// the program's name. The result is the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	app.Metadata = map[string]any{metadataArgs: args}
	args, err := optionsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, append([]string{app.Name}, args...))
	}
	if err != nil && !errors.As(err, new(silentExit)) {
		fmt.Fprintf(stderr, "iscsimp: %s\n", strings.TrimSpace(err.Error()))
	}
	return exitCode(err)
}

// newApp describes the command line.
func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:      "iscsimp",
		Usage:     "iSCSI over every path at once, exported as a block device",
		UsageText: "iscsimp COMMAND [options] [arguments]",
		Description: "PORTAL is host, host:port or [v6]:port; the default port is 3260.\n" +
			"TARGET is an iqn., eui. or naa. name, or iscsi://host[:port]/TARGET/LUN.\n" +
			"NAME is a device's short name, as `iscsimp ls` shows it.\n" +
			"Options may stand before or after the arguments. Those of login, and those of every\n" +
			"command, can also be set in the configuration file (--config), which `iscsimp man`\n" +
			"describes, and in the environment: --log-level as ISCSIMP_LOG_LEVEL.\n\n" +
			"Exit codes: " + exitCodeHelp(),
		Version:              buildVersion(),
		Writer:               stdout,
		ErrWriter:            stderr,
		HideHelpCommand:      true,
		EnableBashCompletion: false,
		Suggest:              false,
		// A value such as --portal may hold commas for its own purposes.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // run decides
		OnUsageError:              onUsageError,
		CommandNotFound:           nil,
		Action:                    unknownCommand,
		Commands: []*cli.Command{
			discoverCommand(),
			lunsCommand(),
			loginCommand(),
			logoutCommand(),
			lsCommand(),
			pathsCommand(),
			pathSubcommand(),
			reserveSubcommand(),
			explainCommand(),
			topCommand(),
			doctorCommand(),
			chapSecretCommand(),
			manCommand(),
			completionCommand(),
			versionCommand(),
		},
	}
	for _, cmd := range app.Commands {
		if !slices.Contains(needsNoSettings, cmd.Name) {
			cmd.Action = withSettings(cmd.Action)
		}
	}
	return app
}

// unknownCommand is what runs without a known command.
func unknownCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("there is no command %q%s; `iscsimp --help` lists them", c.Args().First(), didYouMean(c.Args().First(), commandNames(c.App)))
	}
	return cli.ShowAppHelp(c)
}

func onUsageError(_ *cli.Context, err error, _ bool) error {
	return usagef("%v; see --help", err)
}
