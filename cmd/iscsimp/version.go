package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is set by the linker for releases.
var version = ""

type versionReport struct {
	Version        int    `json:"version"` // of the JSON, as everywhere
	Program        string `json:"program"`
	ProgramVersion string `json:"program_version"`
	Go             string `json:"go"`
	OS             string `json:"os"`
	Arch           string `json:"arch"`
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:         "version",
		Usage:        "print the version of this program",
		ArgsUsage:    " ",
		Flags:        flags(),
		OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Bool(flagJSON) {
				return writeJSON(c.App.Writer, versionReport{schemaVersion, "iscsimp", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH}, false)
			}
			_, err := fmt.Fprintf(c.App.Writer, "iscsimp %s (%s %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// buildVersion is the release, else what the build recorded, else "devel".
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
