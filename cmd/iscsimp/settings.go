package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/scsi"
)

// Where an option's value comes from: the command line, else the environment, else
// what was saved with `path --save`, else the configuration file (there: the
// device, else the target, else the defaults), else the default.

// variablePrefix begins the name of the variable that sets an option.
const variablePrefix = "ISCSIMP_"

// variable is the environment variable of an option.
func variable(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// inEnvironment reports whether the environment may set an option: those that a
// configuration file may, and a few that say how to talk. What is to be done, and
// to what, stands on the command line alone.
func inEnvironment(flag string) bool {
	_, configurable := newConfigKeys().flags[flag]
	return configurable || slices.Contains([]string{flagConfig, flagJSON, flagTrace, flagInterval}, flag)
}

const metadataSettings = "settings"

// settings is what is known of the options of this call besides the command line.
type settings struct {
	file   string            // the configuration file, "" if there is none
	config *config           // what it says; nil if there is none
	origin map[string]string // by option: where its value is from, if not the command line
	// sections apply, the first one first.
	sections []*section
	device   string // the name of the device, "" if it is not known
	target   string // of the device, if the configuration tells
	lun      string
	paths    []steeredPath
}

// settingsOf gives the settings of a call; never nil.
func settingsOf(c *cli.Context) *settings {
	if s, ok := c.App.Metadata[metadataSettings].(*settings); ok {
		return s
	}
	return &settings{}
}

// needsNoSettings are commands that must work whatever the configuration says:
// what is wrong with it may send people to them.
var needsNoSettings = []string{"man", "completion", "version", "chap-secret"}

// withSettings has an action run with the options that the environment and the
// configuration file set.
func withSettings(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		s := &settings{origin: map[string]string{}}
		c.App.Metadata[metadataSettings] = s
		if err := s.apply(c); err != nil {
			return err
		}
		if _, err := newLogger(c, io.Discard); err != nil { // also where nothing will be logged
			return s.attribute(err)
		}
		return s.attribute(action(c))
	}
}

// apply sets the options that the command line does not.
func (s *settings) apply(c *cli.Context) error {
	if err := s.applyEnvironment(c); err != nil {
		return err
	}
	path, err := configPath(c.String(flagConfig))
	if err != nil {
		return err
	}
	cfg := &config{defaults: &section{}}
	if path != "" {
		if cfg, err = readConfig(path); err != nil {
			return err
		}
		s.file, s.config = path, cfg
	}
	saved, err := readSteering()
	if err != nil {
		return err
	}
	s.choose(c, cfg, saved)
	return s.applySections(c)
}

// originOf is the origin of an option that the environment sets.
func originOf(flag string) string { return variable(flag) + " in the environment" }

func (s *settings) applyEnvironment(c *cli.Context) error {
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if c.IsSet(name) || !inEnvironment(name) {
			continue
		}
		for _, n := range f.Names() {
			value, found := os.LookupEnv(variable(n))
			if !found || len(n) == 1 {
				continue
			}
			if err := setFrom(c, f, value); err != nil {
				return usagef("%s in the environment: %w", variable(n), err)
			}
			s.origin[name] = originOf(n)
			break
		}
	}
	return nil
}

// setFrom sets an option to a value from the environment.
func setFrom(c *cli.Context, f cli.Flag, value string) error {
	name := f.Names()[0]
	if _, is := f.(*cli.BoolFlag); is {
		b, ok := truth(value)
		if !ok {
			return fmt.Errorf("%q is neither yes nor no", value)
		}
		value = fmt.Sprint(b)
	}
	if err := c.Set(name, value); err != nil {
		return fmt.Errorf("%q is no value for --%s", value, name)
	}
	return nil
}

// choose finds the sections that are about what the command line names.
func (s *settings) choose(c *cli.Context, cfg, saved *config) {
	s.sections = []*section{cfg.defaults}
	if !hasFlag(c.Command, flagPortal) {
		return
	}
	target, lun := "", ""
	arg := c.Args().First()
	if a, err := initiator.ParseURL(arg); err == nil {
		target = a.Target
		if a.HasLUN {
			lun = a.LUN.String()
		}
	} else if initiator.CheckName(arg) == nil {
		target = arg
	} else if d := cfg.devices[arg]; d != nil && d.target != "" && c.NArg() == 1 {
		s.device, s.target, s.lun = arg, d.target, d.lun
		target = d.target
	}
	if l := c.String(flagLUN); l != "" {
		lun = l
	}
	if name := c.String(flagName); name != "" {
		s.device = name
	}
	if s.device == "" && target != "" {
		s.device = cfg.deviceFor(target, lun)
	}
	if t := cfg.targets[target]; t != nil {
		s.sections = append([]*section{t}, s.sections...)
	}
	s.takeDevice(cfg.devices[s.device], target)
	if saved != nil {
		s.takeDevice(saved.devices[s.device], target)
	}
}

// takeDevice puts the section of the device first, unless it is about another target.
func (s *settings) takeDevice(d *section, target string) {
	if d == nil || d.target != "" && d.target != target {
		return
	}
	s.sections = append([]*section{d}, s.sections...)
	s.paths = mergePaths(d.paths, s.paths)
	if d.lun != "" {
		s.lun = d.lun
	}
}

// deviceFor gives the name under which the file knows a LUN of a target: that of a
// device that says so, else the name it would get anyway.
func (cfg *config) deviceFor(target, lun string) string {
	number := parsedLUN(lun)
	for name, d := range cfg.devices {
		if d.target == target && parsedLUN(d.lun) == number {
			return name
		}
	}
	return deriveDeviceName(target, number)
}

// parsedLUN reads a LUN; one that is missing, or wrong, which others will tell, is LUN 0.
func parsedLUN(s string) scsi.LUN {
	lun, err := initiator.ParseLUN(s)
	if err != nil {
		return 0
	}
	return lun
}

func hasFlag(cmd *cli.Command, name string) bool {
	for _, f := range cmd.Flags {
		if f.Names()[0] == name {
			return true
		}
	}
	return false
}

// applySections sets what neither command line nor environment did.
func (s *settings) applySections(c *cli.Context) error {
	inAddress := initiator.IsURL(c.Args().First())
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		set, from := s.lookup(name)
		if from == nil || c.IsSet(name) || name == flagPortal && inAddress {
			continue
		}
		origin := fmt.Sprintf("%s line %d", from.file, set.line)
		for _, v := range set.values {
			if err := c.Set(name, v); err != nil {
				return usagef("configuration: %s: %s: %q is no value for it", origin, set.key, v)
			}
		}
		s.origin[name] = origin
	}
	return nil
}

// lookup gives the setting of an option that counts, and where it stands; nil if
// there is none.
func (s *settings) lookup(flag string) (setting, *section) {
	i, set := s.nearest(flag)
	if i < 0 {
		return set, nil
	}
	return set, s.sections[i]
}

func (s *settings) nearest(flag string) (int, setting) {
	for i, sec := range s.sections {
		if set, ok := sec.settings[flag]; ok {
			return i, set
		}
	}
	return -1, setting{}
}

// secret gives the secret that the file holds in place of the file that flag
// names, for user, whose name userFlag sets. A secret of another user, or one that
// a nearer section replaces by a file, does not count.
func (s *settings) secret(flag, userFlag, user string) (initiator.Secret, bool) {
	for i, sec := range s.sections {
		if _, ok := sec.settings[flag]; ok {
			return initiator.Secret{}, false
		}
		found, ok := sec.secrets[flag]
		if !ok {
			continue
		}
		at, set := s.nearest(userFlag)
		return found.secret, at < 0 || i <= at && set.values[0] == user
	}
	return initiator.Secret{}, false
}

// isFor reports whether the setting of an option is meant for user, whose name
// userFlag sets, as secret does for secrets.
func (s *settings) isFor(userFlag, user, flag string) bool {
	at, set := s.nearest(userFlag)
	i, _ := s.nearest(flag)
	return at < 0 || i <= at && set.values[0] == user
}

// given reports whether an option stands on the command line itself.
func (s *settings) given(c *cli.Context, flag string) bool {
	return c.IsSet(flag) && s.origin[flag] == ""
}

// attribute tells with an error about an option where its value is from. The text
// of the error decides about nothing but these words.
func (s *settings) attribute(err error) error {
	if err == nil || exitCode(err) != exitInvalid {
		return err
	}
	text := err.Error()
	first, named := len(text), ""
	for flag := range s.origin {
		i := strings.Index(text, "--"+flag)
		if i >= 0 && i < first && !strings.HasPrefix(text[i+2+len(flag):], "-") {
			first, named = i, flag
		}
	}
	if named == "" {
		return err
	}
	return usagef("%w (--%s is from %s)", err, named, s.origin[named])
}
