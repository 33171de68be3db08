package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
)

// option is what help, manual and completion say of a flag.
type option struct {
	names      []string // the long one first, without hyphens
	value      string   // what stands for its value, "" if it takes none
	usage      string   // without quotes around the value
	defaultIs  string   // "" if there is none worth telling
	category   string
	repeatable bool
}

// optionsOf describes the flags of a command by category, in order, as its help does.
func optionsOf(cmd *cli.Command) []option {
	var list []option
	for _, f := range cmd.Flags {
		list = append(list, optionOf(f))
	}
	slices.SortStableFunc(list, func(a, b option) int {
		if c := strings.Compare(a.category, b.category); c != 0 {
			return c
		}
		return strings.Compare(a.names[0], b.names[0])
	})
	return list
}

func optionOf(f cli.Flag) option {
	o := option{names: f.Names()}
	var usage string
	switch f := f.(type) {
	case *cli.BoolFlag:
		usage, o.category = f.Usage, f.Category
	case *cli.IntFlag:
		usage, o.category, o.value, o.defaultIs = f.Usage, f.Category, "N", fmt.Sprint(f.Value)
	case *cli.StringFlag:
		usage, o.category, o.value, o.defaultIs = f.Usage, f.Category, "VALUE", f.Value
	case *cli.StringSliceFlag:
		usage, o.category, o.value, o.repeatable = f.Usage, f.Category, "VALUE", true
	}
	before, rest, quoted := strings.Cut(usage, "`")
	o.usage = usage
	if value, after, ok := strings.Cut(rest, "`"); quoted && ok {
		o.value, o.usage = strings.ToUpper(value), before+value+after
	}
	return o
}

// valuesOf are the words an option takes, nil if it takes any.
func valuesOf(option string) []string {
	switch option {
	case flagPolicy:
		return initiator.Policies()
	case flagLogLevel:
		return []string{"debug", "info", "warn", "error"}
	case flagLogFormat:
		return []string{"text", "json"}
	case flagWait:
		return []string{"any", "all"}
	case flagFailback:
		return []string{"immediate", "manual"}
	case flagHedge, flagMarginal:
		return []string{"on", "off"}
	case flagImmediateData:
		return []string{"yes", "no"}
	case flagType:
		return []string{"wero", "earo", "wear", "eaar", "we", "ea"}
	case flagNoPathTimeout:
		return []string{"fail", "forever"}
	}
	return nil
}

// What else a value or argument can be, for completion.
const (
	completeNothing = iota
	completeFile
	completeFolder
)

func kindOfValue(option string) int {
	switch {
	case option == flagRuntimeDir:
		return completeFolder
	case option == flagConfig, option == flagTrace, strings.HasSuffix(option, "-file"):
		return completeFile
	}
	return completeNothing
}

// takesDevices reports whether the arguments of a command are devices that run.
func takesDevices(cmd *cli.Command) bool { return strings.Contains(cmd.ArgsUsage, "NAME") }
