package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/yaml"
)

// What `path --save` keeps stands in a file of its own in the state folder, in the
// form of the configuration file. The configuration file itself is never written
// to: it may belong to somebody else, and its comments to whoever wrote them.

const flagSave = "save"

const steeringHeader = `# Written by "iscsimp path ... --save" and read by "iscsimp login", before the
# configuration file, which it goes before. It may be edited, or removed.
`

// steeringFile is where it is, "" if there is no folder for it.
func steeringFile() string {
	dir := stateDir()
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "steering.yaml")
}

// readSteering gives what was saved, nil if nothing was.
func readSteering() (*config, error) {
	path := steeringFile()
	if path == "" {
		return nil, nil
	}
	saved, err := loadSteering(path)
	if err != nil {
		return nil, fmt.Errorf("%w; mend or remove the file, which holds what `iscsimp path --save` kept", err)
	}
	return saved, nil
}

func loadSteering(path string) (*config, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, failf(exitError, "saved steering: %v", err)
	}
	return parseConfig(path, text)
}

// saveSteering notes a command that was carried out, for later logins. portal is
// that of the path it is about, "" if it is about the device. It returns the file.
func saveSteering(name, portal string, cmd pathCommand) (string, error) {
	path := steeringFile()
	if path == "" {
		return "", failf(exitError, "there is no folder to save it in; set XDG_STATE_HOME")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	lock, _, err := lockFile(path+lockSuffix, claim{PID: os.Getpid()}, lockPatience)
	if err != nil {
		return "", err
	}
	if lock == nil {
		return "", failf(exitError, "another process is just writing %s; try again", path)
	}
	defer lock.Close()
	saved, err := loadSteering(path)
	if err != nil {
		return "", err
	}
	if saved == nil {
		saved = &config{devices: map[string]*section{}}
	}
	d := saved.devices[name]
	if d == nil {
		d = &section{}
		saved.devices[name] = d
	}
	d.steer(portal, cmd)
	return path, writeAtomically(path, saved.steeringText())
}

// steer notes one command.
func (d *section) steer(portal string, cmd pathCommand) {
	if isDeviceAction(cmd.Action) {
		if d.settings == nil {
			d.settings = map[string]setting{}
		}
		d.settings[cmd.Action] = setting{values: []string{cmd.Value}}
		return
	}
	i := slices.IndexFunc(d.paths, func(s steeredPath) bool { return s.Portal == portal })
	if i < 0 {
		i = len(d.paths)
		d.paths = append(d.paths, steeredPath{PathSetting: initiator.PathSetting{Portal: portal}})
	}
	set := &d.paths[i]
	op, err := cmd.op()
	if err != nil { // the device has carried it out, so this cannot be
		return
	}
	switch op.Kind {
	case initiator.PathDown:
		set.Down, set.stated = true, true
	case initiator.PathUp:
		set.Down, set.stated = false, true
	case initiator.PathPriority:
		set.Priority = op.Value
	case initiator.PathWeight:
		set.Weight = op.Value
	}
}

// steeringText writes what parseConfig reads.
func (cfg *config) steeringText() []byte {
	var b bytes.Buffer
	b.WriteString(steeringHeader)
	b.WriteString("devices:\n")
	for _, name := range sortedKeys(cfg.devices) {
		d := cfg.devices[name]
		fmt.Fprintf(&b, "  %s:\n", yaml.Quote(name))
		for _, flag := range sortedKeys(d.settings) {
			fmt.Fprintf(&b, "    %s: %s\n", flag, yaml.Quote(d.settings[flag].values[0]))
		}
		if len(d.paths) > 0 {
			b.WriteString("    paths:\n")
		}
		for _, p := range d.paths {
			fmt.Fprintf(&b, "      %s:\n", yaml.Quote(p.Portal))
			switch {
			case p.Down:
				b.WriteString("        state: down\n")
			case p.stated:
				b.WriteString("        state: up\n")
			}
			if p.Priority > 0 {
				fmt.Fprintf(&b, "        priority: %d\n", p.Priority)
			}
			if p.Weight > 0 {
				fmt.Fprintf(&b, "        weight: %d\n", p.Weight)
			}
		}
	}
	return b.Bytes()
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// writeAtomically replaces a file: after a crash it holds the old text or the new one.
func writeAtomically(path string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	_ = dir.Sync() // not every file system can; the file itself is safe
	return nil
}
