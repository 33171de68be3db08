package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/yaml"
)

const flagConfig = "config"

// systemConfigFile is read unless --config names another. Tests change it.
var systemConfigFile = "/etc/iscsimp/config.yaml"

// configPath says which file is the configuration, "" if there is none. given is
// the value of --config. Of the usual places the first one with a file counts.
func configPath(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	places := []string{systemConfigFile}
	if dir, err := os.UserConfigDir(); err == nil && filepath.IsAbs(dir) {
		places = append(places, filepath.Join(dir, "iscsimp", "config.yaml"))
	}
	for i, place := range places {
		_, err := os.Stat(place)
		// The system's folder may be closed to us; then its file is not meant for us.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || i == 0 && errors.Is(err, fs.ErrPermission) {
			continue
		}
		if i == 0 && !readable(place) {
			continue
		}
		return place, nil
	}
	return "", nil
}

// readable reports whether this process may read a file.
func readable(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		f.Close()
	}
	return !errors.Is(err, fs.ErrPermission)
}

// config is what a file says.
type config struct {
	file     string
	defaults *section
	targets  map[string]*section
	devices  map[string]*section
	hasKey   int // the line of a secret, 0 if there is none
}

// section is what a file says of a target, of a device, or in general.
type section struct {
	file     string
	line     int
	settings map[string]setting       // by the option's long name
	secrets  map[string]secretSetting // by the option that names a file instead
	target   string                   // of a device
	lun      string                   // of a device
	paths    []steeredPath            // of a device
}

// setting is the value of one option.
type setting struct {
	values []string
	key    string // as written
	line   int
}

// secretSetting is a secret that stands in the file.
type secretSetting struct {
	secret initiator.Secret
	line   int
}

// readConfig reads and judges a configuration file.
func readConfig(path string) (*config, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a named pipe must not hang
	if err != nil {
		return nil, usagef("configuration: %v; give another file with --%s, or /dev/null for none", err, flagConfig)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, usagef("configuration: %v", err)
	}
	if info.IsDir() {
		return nil, usagef("configuration: %s is a folder; --%s takes a file", path, flagConfig)
	}
	text, err := io.ReadAll(io.LimitReader(f, yaml.MaxSize+1))
	if err != nil {
		return nil, usagef("configuration: %v", err)
	}
	cfg, err := parseConfig(path, text)
	if err != nil {
		return nil, err
	}
	return cfg, cfg.checkMode(info)
}

// checkMode refuses a file that others could have changed, or whose secrets they
// can read.
func (cfg *config) checkMode(info fs.FileInfo) error {
	mode := info.Mode().Perm()
	switch {
	case !hasFileModes || !info.Mode().IsRegular():
		return nil
	case mode&0o002 != 0:
		return usagef("configuration: every user may write to %s (mode %04o); run: chmod o-w %s", cfg.file, mode, cfg.file)
	case cfg.hasKey > 0 && mode&0o077 != 0:
		return usagef("configuration: there is a secret in %s line %d, and others than the owner may access the file (mode %04o); run: chmod 600 %s, or keep the secret in a file of its own",
			cfg.file, cfg.hasKey, mode, cfg.file)
	}
	return nil
}

// parseConfig judges the text of a configuration file.
func parseConfig(path string, text []byte) (*config, error) {
	root, err := yaml.Parse(text)
	if err != nil {
		return nil, usagef("configuration: %s %v", path, err)
	}
	r := configReader{keys: newConfigKeys(), cfg: &config{
		file: path, defaults: &section{file: path}, targets: map[string]*section{}, devices: map[string]*section{},
	}}
	for _, e := range root.Entries {
		if err := r.top(e); err != nil {
			return nil, err
		}
	}
	return r.cfg, r.checkDevices()
}

// checkDevices refuses two names for one LUN: a login could not tell which is meant.
func (r *configReader) checkDevices() error {
	seen := map[string]string{}
	for _, name := range sortedKeys(r.cfg.devices) {
		d := r.cfg.devices[name]
		if d.target == "" {
			continue
		}
		unit := d.target + " LUN " + parsedLUN(d.lun).String()
		if other, twice := seen[unit]; twice {
			return r.wrong(d.line, "devices %s and %s are both %s; keep one", other, name, unit)
		}
		seen[unit] = name
	}
	return nil
}

// configReader fills in a config.
type configReader struct {
	keys configKeys
	cfg  *config
}

// wrong is an error about a line of the file.
func (r *configReader) wrong(line int, format string, args ...any) error {
	return usagef("configuration: %s line %d: %s", r.cfg.file, line, fmt.Sprintf(format, args...))
}

// top reads one of the three parts of the file.
func (r *configReader) top(e yaml.Entry) error {
	var put func(name string, s *section) error
	switch e.Key {
	case "defaults":
		if e.Node.Kind == yaml.Empty {
			return nil
		}
		s, err := r.section(e.Node, e.Key, false)
		r.cfg.defaults = s
		return err
	case "targets":
		put = func(name string, s *section) error {
			r.cfg.targets[name] = s
			return initiator.CheckName(name)
		}
	case "devices":
		put = func(name string, s *section) error {
			r.cfg.devices[name] = s
			return checkDeviceName(name)
		}
	default:
		parts := []string{"defaults", "targets", "devices"}
		hint := didYouMean(e.Key, parts)
		if hint == "" && slices.Contains(r.keys.words(), e.Key) {
			hint = "; put it under defaults:"
		}
		return r.wrong(e.Line, "%q is none of defaults, targets and devices%s", e.Key, hint)
	}
	switch e.Node.Kind {
	case yaml.Empty:
		return nil
	case yaml.Map:
	default:
		return r.wrong(e.Line, "%s must hold names, each with settings below it, not %v", e.Key, e.Node.Kind)
	}
	for _, sub := range e.Node.Entries {
		s := &section{file: r.cfg.file, line: sub.Line}
		if sub.Node.Kind != yaml.Empty {
			var err error
			if s, err = r.section(sub.Node, sub.Key, e.Key == "devices"); err != nil {
				return err
			}
		}
		if err := put(sub.Key, s); err != nil {
			return r.wrong(sub.Line, "%v", err)
		}
	}
	return nil
}

// section reads the settings of a target, a device or the defaults.
func (r *configReader) section(n *yaml.Node, name string, device bool) (*section, error) {
	s := &section{file: r.cfg.file, line: n.Line, settings: map[string]setting{}, secrets: map[string]secretSetting{}}
	if n.Kind != yaml.Map {
		return nil, r.wrong(n.Line, "%s must hold settings, each as key: value, not %v", name, n.Kind)
	}
	for _, e := range n.Entries {
		var err error
		known, isSetting := r.keys.names[e.Key]
		switch secret := secretKeys[e.Key]; {
		case secret != "":
			err = r.secret(s, secret, e)
		case isSetting:
			err = r.setting(s, known, e)
		case device && e.Key == "target":
			if s.target, err = r.scalar(e); err == nil {
				err = r.located(e, initiator.CheckName(s.target))
			}
		case device && e.Key == "lun":
			if s.lun, err = r.scalar(e); err == nil {
				_, lerr := initiator.ParseLUN(s.lun)
				err = r.located(e, lerr)
			}
		case device && e.Key == "paths":
			s.paths, err = r.paths(e.Node)
		default:
			words := r.keys.words()
			if device {
				words = r.keys.words("target", "lun", "paths")
			}
			err = r.wrong(e.Line, "there is no setting %q%s; `iscsimp man` lists them", e.Key, didYouMean(e.Key, words))
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (r *configReader) located(e yaml.Entry, err error) error {
	if err == nil {
		return nil
	}
	return r.wrong(e.Line, "%s: %v", e.Key, err)
}

// scalar gives the value of a key that takes one.
func (r *configReader) scalar(e yaml.Entry) (string, error) {
	if e.Node.Kind != yaml.Scalar || e.Node.Value == "" {
		return "", r.wrong(e.Line, "%s needs a value, not %v", e.Key, e.Node.Kind)
	}
	return e.Node.Value, nil
}

// setting reads the value of an option.
func (r *configReader) setting(s *section, known synonym, e yaml.Entry) error {
	if other, twice := s.settings[known.flag]; twice {
		return r.wrong(e.Line, "%s means the same as %s on line %d; keep one", e.Key, other.key, other.line)
	}
	set := setting{key: e.Key, line: e.Line}
	_, many := r.keys.flags[known.flag].(*cli.StringSliceFlag)
	if many && e.Node.Kind == yaml.List {
		for _, item := range e.Node.Items {
			value, err := r.scalar(yaml.Entry{Key: e.Key, Line: item.Line, Node: item})
			if err != nil {
				return err
			}
			set.values = append(set.values, value)
		}
	} else {
		value, err := r.scalar(e)
		if err != nil {
			return err
		}
		set.values = []string{value}
	}
	for i, v := range set.values {
		var err error
		if set.values[i], err = convert(r.keys.flags[known.flag], known, v); err != nil {
			return r.located(e, err)
		}
	}
	s.settings[known.flag] = set
	return nil
}

// convert judges one value as far as the kind of the option tells.
func convert(f cli.Flag, known synonym, v string) (string, error) {
	if known.convert != nil {
		return known.convert(v)
	}
	switch f.(type) {
	case *cli.BoolFlag:
		b, ok := truth(v)
		if !ok {
			return "", fmt.Errorf("%q is neither yes nor no", v)
		}
		return fmt.Sprint(b), nil
	case *cli.IntFlag:
		for i := range len(v) {
			if v[i] < '0' || v[i] > '9' {
				return "", fmt.Errorf("%q is not a whole number", v)
			}
		}
	}
	return v, nil
}

// secret reads a secret. No error shows it.
func (r *configReader) secret(s *section, flag string, e yaml.Entry) error {
	value, err := r.scalar(e)
	if err != nil {
		return err
	}
	if _, twice := s.secrets[flag]; twice {
		return r.wrong(e.Line, "%s is there twice, under two names; keep one", e.Key)
	}
	secret, err := initiator.NewSecret(value)
	if err != nil {
		return r.located(e, err)
	}
	s.secrets[flag] = secretSetting{secret, e.Line}
	if r.cfg.hasKey == 0 {
		r.cfg.hasKey = e.Line
	}
	return nil
}
