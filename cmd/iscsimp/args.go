package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// optionsFirst puts the options of a command line before its arguments, since
// the library stops looking for options at the first argument, and people
// write `login -p host TARGET --lun 1`. Options that stand before the command
// are taken for the command's: `iscsimp --json ls`. `help` is made an option.
func optionsFirst(app *cli.App, args []string) ([]string, error) {
	var any []cli.Flag
	for _, c := range app.Commands {
		any = append(any, c.Flags...)
	}
	lead, rest := takeOptions(any, args)
	if len(rest) == 0 {
		return args, nil
	}
	if rest[0] == "help" { // `help COMMAND` is `COMMAND --help`
		if rest = rest[1:]; len(rest) == 0 {
			return []string{"--help"}, nil
		}
		lead = append(lead, "--help")
	}
	cmd := app.Command(rest[0])
	if cmd == nil {
		return nil, usagef("there is no command %q%s; `iscsimp --help` lists them", rest[0], didYouMean(rest[0], commandNames(app)))
	}
	if err := checkOptions(cmd, lead); err != nil {
		return nil, err
	}
	out := append([]string{cmd.Name}, lead...)
	var operands []string
	for rest = rest[1:]; len(rest) > 0; {
		var options []string
		options, rest = takeOptions(cmd.Flags, rest)
		if err := checkOptions(cmd, options); err != nil {
			return nil, err
		}
		out = append(out, options...)
		if len(rest) == 0 {
			break
		}
		if rest[0] == "--" { // everything after it is an argument, whatever it looks like
			operands = append(operands, rest[1:]...)
			break
		}
		operands = append(operands, rest[0])
		rest = rest[1:]
	}
	if len(operands) > 0 {
		out = append(append(out, "--"), operands...)
	}
	return out, nil
}

// takeOptions splits off the options, with their values, that args begins with.
func takeOptions(flags []cli.Flag, args []string) (options, rest []string) {
	i := 0
	for i < len(args) && isOption(args[i]) {
		if wantsValue(flags, args[i]) && i+1 < len(args) {
			i++
		}
		i++
	}
	return args[:i:i], args[i:]
}

// checkOptions says which of the options a command does not have, or which lacks
// its value. The words of options may be among them.
func checkOptions(cmd *cli.Command, options []string) error {
	for i := 0; i < len(options); i++ {
		name := optionName(options[i])
		f := findFlag(cmd.Flags, name)
		switch {
		case f == nil && (name == "help" || name == "h"):
		case f == nil:
			var known []string
			for _, f := range cmd.Flags {
				for _, n := range f.Names() {
					known = append(known, "--"+n)
				}
			}
			return usagef("%s has no option %s%s; see `iscsimp %s --help`", cmd.Name, options[i], didYouMean("--"+name, known), cmd.Name)
		case wantsValue(cmd.Flags, options[i]):
			if i++; i == len(options) {
				return usagef("option %s needs a value; see `iscsimp %s --help`", options[i-1], cmd.Name)
			}
			if err := checkNumber(f, name, options[i]); err != nil {
				return err
			}
		default:
			if _, value, given := strings.Cut(options[i], "="); given {
				if err := checkNumber(f, name, value); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// checkNumber refuses what is no number for an option that takes one.
func checkNumber(f cli.Flag, name, value string) error {
	if _, number := f.(*cli.IntFlag); !number {
		return nil
	}
	if _, err := strconv.Atoi(value); err != nil {
		return usagef("--%s %q: write a whole number, without a unit", name, value)
	}
	return nil
}

// optionName is an option without hyphens and value.
func optionName(option string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(option, "-"), "-"), "=")
	return name
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func isOption(s string) bool { return len(s) > 1 && s[0] == '-' && s != "--" }

// wantsValue reports whether option takes the next word as its value.
func wantsValue(flags []cli.Flag, option string) bool {
	if strings.Contains(option, "=") {
		return false
	}
	d, ok := findFlag(flags, optionName(option)).(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
