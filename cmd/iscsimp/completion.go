package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print what makes a shell complete this program's command lines",
		ArgsUsage: "bash|zsh|fish",
		Description: "bash: iscsimp completion bash > /etc/bash_completion.d/iscsimp\n" +
			"zsh:  iscsimp completion zsh > /usr/local/share/zsh/site-functions/_iscsimp\n" +
			"fish: iscsimp completion fish > ~/.config/fish/completions/iscsimp.fish",
		Flags:        flags(),
		OnUsageError: onUsageError,
		Action:       runCompletion,
	}
}

func runCompletion(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("completion needs the name of a shell: bash, zsh or fish")
	}
	var script string
	switch shell := c.Args().First(); shell {
	case "bash":
		script = bashCompletion(c.App)
	case "zsh":
		script = zshCompletion(c.App)
	case "fish":
		script = fishCompletion(c.App)
	default:
		return usagef("%q is none of the shells bash, zsh and fish", shell)
	}
	_, err := fmt.Fprint(c.App.Writer, script)
	return err
}

// listDevices prints the names of the devices that run, in every shell.
const listDevices = `iscsimp ls 2>/dev/null | awk 'NR > 1 { print $1 }'`

// pathActions follow NAME PATH.
const pathActions = "up down priority weight"

// argumentWords are what the arguments of a command can be besides names of devices.
func argumentWords(cmd *cli.Command) string {
	switch cmd.Name {
	case "completion":
		return "bash zsh fish"
	case "path":
		return pathActions + " " + flagPolicy + " " + flagFailback
	case "reserve":
		return reserveWords
	}
	return ""
}

func commandNames(app *cli.App) []string {
	var names []string
	for _, cmd := range app.Commands {
		names = append(names, cmd.Name)
	}
	return names
}

// optionWords are the options of a command as they are typed.
func optionWords(cmd *cli.Command) []string {
	words := []string{"--help"}
	for _, o := range optionsOf(cmd) {
		for _, n := range o.names {
			if len(n) > 1 {
				words = append(words, "--"+n)
			} else {
				words = append(words, "-"+n)
			}
		}
	}
	return words
}

// eachValue calls f for every option of any command that takes a value, once.
func eachValue(app *cli.App, f func(o option)) {
	seen := map[string]bool{}
	for _, cmd := range app.Commands {
		for _, o := range optionsOf(cmd) {
			if o.value != "" && !seen[o.names[0]] {
				seen[o.names[0]] = true
				f(o)
			}
		}
	}
}

// pattern joins the ways to type an option for a shell's case.
func pattern(o option) string {
	var words []string
	for _, n := range o.names {
		if len(n) > 1 {
			words = append(words, "--"+n)
		} else {
			words = append(words, "-"+n)
		}
	}
	return strings.Join(words, "|")
}

func bashCompletion(app *cli.App) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# bash completion for iscsimp, made by `iscsimp completion bash`")
	line("_iscsimp() {")
	line(`	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd= i`)
	line(`	COMPREPLY=()`)
	line(`	for ((i = 1; i < COMP_CWORD; i++)); do`)
	line(`		case ${COMP_WORDS[i]} in`)
	line(`		%s) cmd=${COMP_WORDS[i]}; break ;;`, strings.Join(commandNames(app), "|"))
	line(`		esac`)
	line(`	done`)
	line(`	case $prev in`)
	eachValue(app, func(o option) {
		from := fmt.Sprintf(`-W "%s"`, strings.Join(valuesOf(o.names[0]), " "))
		switch kindOfValue(o.names[0]) {
		case completeFile:
			from = "-f"
		case completeFolder:
			from = "-d"
		}
		line(`	%s) COMPREPLY=($(compgen %s -- "$cur")); return ;;`, pattern(o), from)
	})
	line(`	esac`)
	line(`	case $cmd in`)
	line(`	'') COMPREPLY=($(compgen -W "%s help --help --version" -- "$cur")) ;;`, strings.Join(commandNames(app), " "))
	for _, cmd := range app.Commands {
		words := strings.Join(optionWords(cmd), " ")
		if more := argumentWords(cmd); more != "" {
			words += " " + more
		}
		if takesDevices(cmd) {
			words += " $(" + listDevices + ")"
		}
		line(`	%s) COMPREPLY=($(compgen -W "%s" -- "$cur")) ;;`, cmd.Name, strings.ReplaceAll(words, `"`, `\"`))
	}
	line(`	esac`)
	line("}")
	line("complete -F _iscsimp iscsimp")
	return b.String()
}

// zshText writes a text between single quotes, and without what _arguments would
// take for its own.
func zshText(s string) string {
	return strings.NewReplacer("'", `'\''`, ":", `\:`, "[", `\[`, "]", `\]`).Replace(s)
}

func zshCompletion(app *cli.App) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("#compdef iscsimp")
	line("# zsh completion for iscsimp, made by `iscsimp completion zsh`")
	line("_iscsimp_devices() { compadd -- $(%s) }", listDevices)
	line("_iscsimp() {")
	line("	local -a commands")
	line("	commands=(")
	for _, cmd := range app.Commands {
		line("		'%s:%s'", cmd.Name, zshText(cmd.Usage))
	}
	line("	)")
	line("	if (( CURRENT == 2 )); then _describe command commands; return; fi")
	line("	local cmd=$words[2]")
	line("	shift words; (( CURRENT-- ))")
	line("	case $cmd in")
	for _, cmd := range app.Commands {
		line("	%s)", cmd.Name)
		line("		_arguments -S \\")
		for _, o := range optionsOf(cmd) {
			zshOption(line, o)
		}
		line("			'--help[show help]' \\")
		line("			'*: :%s' ;;", zshArguments(cmd))
	}
	line("	esac")
	line("}")
	line(`_iscsimp "$@"`)
	return b.String()
}

func zshOption(line func(string, ...any), o option) {
	repeat := ""
	if o.repeatable {
		repeat = "*"
	}
	for _, n := range o.names {
		word := "--" + n
		if len(n) == 1 {
			word = "-" + n
		}
		value := ""
		if o.value != "" {
			action := "( )"
			switch kindOfValue(o.names[0]) {
			case completeFile:
				action = "_files"
			case completeFolder:
				action = "_files -/"
			default:
				if words := valuesOf(o.names[0]); words != nil {
					action = "(" + strings.Join(words, " ") + ")"
				}
			}
			value = ":" + zshText(o.value) + ":" + action
		}
		line("			'%s%s[%s]%s' \\", repeat, word, zshText(o.usage), value)
	}
}

func zshArguments(cmd *cli.Command) string {
	words := argumentWords(cmd)
	switch {
	case takesDevices(cmd) && words != "":
		return "{ _iscsimp_devices; compadd -- " + words + " }"
	case takesDevices(cmd):
		return "_iscsimp_devices"
	}
	return "(" + cmp.Or(words, " ") + ")"
}

func fishCompletion(app *cli.App) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'" }
	line("# fish completion for iscsimp, made by `iscsimp completion fish`")
	line("complete -c iscsimp -f")
	for _, cmd := range app.Commands {
		line("complete -c iscsimp -n __fish_use_subcommand -a %s -d %s", cmd.Name, quote(cmd.Usage))
	}
	for _, cmd := range app.Commands {
		when := fmt.Sprintf("-n '__fish_seen_subcommand_from %s'", cmd.Name)
		for _, o := range optionsOf(cmd) {
			for _, n := range o.names {
				kind := "-l"
				if len(n) == 1 {
					kind = "-s"
				}
				line("complete -c iscsimp %s %s %s%s -d %s", when, kind, n, fishValue(o), quote(o.usage))
			}
		}
		if words := argumentWords(cmd); words != "" {
			line("complete -c iscsimp %s -a '%s'", when, words)
		}
		if takesDevices(cmd) {
			line("complete -c iscsimp %s -a %s", when, quote("("+listDevices+")"))
		}
	}
	return b.String()
}

// fishValue says what an option's value can be.
func fishValue(o option) string {
	if o.value == "" {
		return ""
	}
	switch kindOfValue(o.names[0]) {
	case completeFile:
		return " -r -F"
	case completeFolder:
		return " -x -a '(__fish_complete_directories)'"
	}
	if words := valuesOf(o.names[0]); words != nil {
		return " -x -a '" + strings.Join(words, " ") + "'"
	}
	return " -x"
}
