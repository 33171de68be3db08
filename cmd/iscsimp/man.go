package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func manCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print the manual page",
		ArgsUsage: " ",
		Description: "Prints iscsimp(1) for man(1): `iscsimp man | man -l -`, or into a file of a folder\n" +
			"that man(1) searches: iscsimp man > /usr/local/share/man/man1/iscsimp.1",
		Flags:        flags(),
		OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			_, err := fmt.Fprint(c.App.Writer, manual(c.App))
			return err
		},
	}
}

// manual writes the whole page from the definitions of commands and options.
func manual(app *cli.App) string {
	m := &roff{}
	m.line(".TH ISCSIMP 1 \"\" \"iscsimp %s\" \"User Commands\"", quoteRoff(app.Version))
	m.line(".nh\n.ad l") // names of options are not to be hyphenated
	m.section("NAME")
	m.line("iscsimp \\- %s", escapeRoff(app.Usage)) // whatis(1) wants nothing else here
	m.section("SYNOPSIS")
	m.text(app.UsageText)
	m.section("DESCRIPTION")
	m.text(app.Description)
	m.section("COMMANDS")
	for _, cmd := range app.Commands {
		m.command(cmd)
	}
	m.section("COMMON OPTIONS")
	m.text("These stand at every command.")
	for _, o := range optionsOf(&cli.Command{Flags: commonFlags()}) {
		m.option(o)
	}
	m.configuration()
	m.surroundings()
	return m.b.String()
}

// roff is a text for man(1).
type roff struct {
	b      strings.Builder
	inside bool // there is text in the section
}

// line writes a line as it is.
func (m *roff) line(format string, args ...any) { fmt.Fprintf(&m.b, format+"\n", args...) }

func (m *roff) section(name string) {
	m.line(".SH %s", name)
	m.inside = false
}

// text writes paragraphs; an empty line is between two. A line that ends a sentence,
// or with a colon, ends on the page too; others are filled.
func (m *roff) text(s string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if i > 0 || m.inside {
			m.line(".PP")
		}
		lines := strings.Split(paragraph, "\n")
		for j, l := range lines {
			m.line("%s", escapeRoff(l))
			if j+1 < len(lines) && (strings.HasSuffix(l, ".") || strings.HasSuffix(l, ":")) {
				m.line(".br")
			}
		}
		m.inside = true
	}
}

// verbatim writes lines as they are.
func (m *roff) verbatim(s string) {
	m.line(".PP\n.nf")
	for l := range strings.SplitSeq(s, "\n") {
		m.line("%s", escapeRoff(l))
	}
	m.line(".fi")
}

// item writes a term and what it means.
func (m *roff) item(term, meaning string) {
	m.line(".TP\n.B %s\n%s", escapeRoff(term), escapeRoff(meaning))
}

func (m *roff) command(cmd *cli.Command) {
	m.line(".SS %s", escapeRoff(strings.TrimSpace(cmd.Name+" "+cmd.ArgsUsage)))
	m.line("%s.", escapeRoff(strings.ToUpper(cmd.Usage[:1])+cmd.Usage[1:]))
	m.inside = true
	if cmd.Description != "" {
		m.text(cmd.Description)
	}
	last := ""
	for _, o := range optionsOf(cmd) {
		if o.category == categoryCommon {
			continue
		}
		if o.category != last && o.category != "" {
			m.line(".PP\n.I %s", escapeRoff(o.category))
		}
		last = o.category
		m.option(o)
	}
}

func (m *roff) option(o option) {
	var names []string
	for _, n := range o.names {
		hyphens := "--"
		if len(n) == 1 {
			hyphens = "-"
		}
		if n = hyphens + n; o.value != "" {
			n += " " + o.value
		}
		names = append(names, n)
	}
	usage := o.usage
	if o.defaultIs != "" {
		usage += " (default: " + o.defaultIs + ")"
	}
	m.item(strings.Join(names, ", "), usage)
}

// configuration lists what a configuration file may say.
func (m *roff) configuration() {
	m.section("CONFIGURATION FILE")
	m.text("The file is YAML, as far as it needs to be: maps by indentation, lists, quotes, comments.\n" +
		"It has three parts, defaults for every device, targets by name, and devices by name.\n" +
		"What is said of a device goes before what is said of its target, and that before the\n" +
		"defaults; options and environment go before the file. Example:")
	m.verbatim("defaults:\n  portals: [192.0.2.10, 192.0.2.11]\n  no_path_timeout: 300\ntargets:\n  iqn.2026-01.example:disk:\n" +
		"    chap_user: alice\n    chap_secret_file: /etc/iscsimp/alice.secret\ndevices:\n  db:\n    target: iqn.2026-01.example:disk\n    lun: 1\n" +
		"    paths:\n      192.0.2.11:\n        priority: 2\n        weight: 1\n        state: up")
	m.text("After that, `iscsimp login db` logs in to it. A device takes target, lun and paths besides\n" +
		"the keys below, which are the options of login. A file with a secret in it must be\n" +
		"accessible to its owner only.")
	keys := newConfigKeys()
	for _, flag := range sortedKeys(keys.flags) {
		key := strings.ReplaceAll(flag, "-", "_")
		var also []string
		for _, name := range sortedKeys(keys.names) {
			if keys.names[name].flag == flag && name != key {
				also = append(also, name)
			}
		}
		meaning := "as --" + flag
		if len(also) > 0 {
			meaning += "; also " + strings.Join(also, ", ")
		}
		m.item(key, meaning)
	}
	for _, key := range sortedKeys(secretKeys) {
		m.item(key, "the secret itself, in the place of --"+secretKeys[key])
	}
}

// surroundings lists what is there besides commands and options.
func (m *roff) surroundings() {
	m.section("ENVIRONMENT")
	m.item(variablePrefix+"OPTION", "sets an option of login or of every command, whose name stands in capitals and with _ for -, as "+variable(flagLogLevel)+" for --"+flagLogLevel)
	for _, name := range secretVariables {
		m.item(name, "a secret, which login takes out of its environment when it starts")
	}
	m.section("FILES")
	m.item("/etc/iscsimp/config.yaml", "the configuration, else $XDG_CONFIG_HOME/iscsimp/config.yaml")
	m.item("/etc/iscsi/initiatorname.iscsi", "this host's iSCSI name, as open-iscsi keeps it; else one is made and kept in the state folder")
	m.item("/run/iscsimp", "sockets, locks and logs of running devices, else $XDG_RUNTIME_DIR/iscsimp")
	m.item("/var/lib/iscsimp", "the state folder of root, else $XDG_STATE_HOME/iscsimp: initiatorname.iscsi, and steering.yaml of `iscsimp path --save`")
	m.section("EXIT STATUS")
	m.text(exitCodeHelp())
	m.section("SEE ALSO")
	m.text("nbd-client(8), nbdcopy(1), qemu-img(1), iscsiadm(8)")
}

// escapeRoff writes a text so that troff shows it as it is.
func escapeRoff(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case i == 0 && (r == '.' || r == '\''):
			b.WriteString(`\&`)
			b.WriteRune(r)
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '`':
			b.WriteString(`\(ga`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// quoteRoff makes a text fit between the double quotes of a macro's argument.
func quoteRoff(s string) string { return strings.ReplaceAll(escapeRoff(s), `"`, `\(dq`) }
