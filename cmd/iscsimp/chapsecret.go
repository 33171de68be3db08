package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
)

func chapSecretCommand() *cli.Command {
	return &cli.Command{
		Name:      "chap-secret",
		Usage:     "make a random secret for CHAP",
		ArgsUsage: "[FILE]",
		Description: "Prints a secret of 26 capital letters and digits with 128 random bits, or writes it to\n" +
			"FILE, which only its owner can read and which must not be there yet; --" + flagCHAPSecretFile + "\n" +
			"takes it from there. Each account needs one of its own: for this host at each target, and\n" +
			"with mutual CHAP another one for the target.",
		Flags:        flags(),
		OnUsageError: onUsageError,
		Action:       runCHAPSecret,
	}
}

// secretReport has a secret, or where it is.
type secretReport struct {
	Version int    `json:"version"`
	Secret  string `json:"secret,omitempty"`
	File    string `json:"file,omitempty"`
}

func runCHAPSecret(c *cli.Context) error {
	report := secretReport{Version: schemaVersion}
	switch c.NArg() {
	case 0:
		report.Secret = initiator.GenerateSecret()
	case 1:
		path, err := filepath.Abs(c.Args().First())
		if err == nil {
			err = initiator.CreateSecretFile(path)
		}
		if err != nil {
			return err
		}
		report.File = path
	default:
		return usagef("chap-secret makes one secret; give one FILE, or none to print it")
	}
	if c.Bool(flagJSON) {
		return writeJSON(c.App.Writer, report, false)
	}
	text := report.Secret
	if report.File != "" {
		text = "wrote a new secret to " + report.File
	}
	_, err := fmt.Fprintln(c.App.Writer, text)
	return err
}
