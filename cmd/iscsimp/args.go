package main

import (
	"slices"
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
		return nil, usagef("there is no command %q; `iscsimp --help` lists them", rest[0])
	}
	out := append([]string{cmd.Name}, lead...)
	var operands []string
	for rest = rest[1:]; len(rest) > 0; {
		var options []string
		options, rest = takeOptions(cmd.Flags, rest)
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

func isOption(s string) bool { return len(s) > 1 && s[0] == '-' && s != "--" }

// wantsValue reports whether option takes the next word as its value.
func wantsValue(flags []cli.Flag, option string) bool {
	if strings.Contains(option, "=") {
		return false
	}
	name := strings.TrimPrefix(strings.TrimPrefix(option, "-"), "-")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			d, ok := f.(cli.DocGenerationFlag)
			return ok && d.TakesValue()
		}
	}
	return false
}
