package initiator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/internal/filelock"
	"github.com/iscsimp/iscsimp/mpio"
)

// What must outlive the process: the sessions in which the target may hold writes
// when the process ends without Close. There is a small file for each device while it
// may be written to; an orderly close removes it. See mpio.Config.Remember.

// stateVersion is the version of the file's form.
const stateVersion = 1

// saveTimeout bounds how long noting may take, so that a hung disk under StateDir
// keeps paths down rather than the process.
const saveTimeout = 5 * time.Second

// lockPatience is how long the lock of a state file may be held by a process that is
// about to end.
const lockPatience = time.Second

// maxStateSize is more than a file of 64 paths takes.
const maxStateSize = 1 << 20

// stateFile is the file of one device.
type stateFile struct {
	path   string
	device uncleanDevice // without sessions
	issued uint64        // numbers given to saves; loop only
	lock   *os.File      // nil: there is none
	mu     sync.Mutex    // guards saved, closed, and the file
	saved  uint64        // the newest save: one that hung must not replace it
	closed bool          // nothing is saved any more: the file may be another's
}

// uncleanDevice is the content of the file.
type uncleanDevice struct {
	Version       int              `json:"version"`
	Target        string           `json:"target"`
	LUN           string           `json:"lun"`
	InitiatorName string           `json:"initiator_name"`
	Since         string           `json:"since"` // RFC 3339: when this run began
	PID           int              `json:"pid"`
	Sessions      []uncleanSession `json:"sessions"`
}

type uncleanSession struct {
	Portal   string `json:"portal"`
	Target   string `json:"target"`
	ISID     string `json:"isid"` // hex
	TPGT     int    `json:"tpgt"` // -1: not told
	Provable bool   `json:"provable"`
}

// newStateFile names the file of the device that c describes; it is not touched.
func newStateFile(c Config) *stateFile {
	h := sha256.Sum256([]byte(c.Target + "\x00" + c.LUN.String()))
	return &stateFile{
		path: filepath.Join(c.StateDir, "unclean-"+hex.EncodeToString(h[:8])+".json"),
		device: uncleanDevice{
			Version: stateVersion, Target: c.Target, LUN: c.LUN.String(), InitiatorName: c.InitiatorName,
			Since: time.Now().UTC().Format(time.RFC3339), PID: os.Getpid(),
		},
	}
}

// claim keeps other processes, and other devices of this one, from using the file: they
// would take living sessions for left behind, end them, for the ISIDs are the same, and
// take off the list what this device relies on.
func (f *stateFile) claim() error {
	_ = makeDir(filepath.Dir(f.path)) // if it cannot be made, saving will say so
	lock, err := filelock.Take(f.path+".lock", lockPatience)
	if err == nil && lock == nil {
		return &Error{
			Kind: KindOther, Msg: "target " + f.device.Target + " LUN " + f.device.LUN + " is in use with the state folder " + filepath.Dir(f.path) + " already",
			Hint: "close it there first; a second use at the same time needs another initiator name and another state folder",
		}
	}
	f.lock = lock // nil on a file system without locks, or in a folder that cannot be written to: it does without
	return nil
}

// release ends claim. A save that hangs keeps it until it is over, so that what it does to
// the file then is not done to another's.
func (f *stateFile) release() {
	if f.lock == nil {
		return
	}
	end := func() {
		defer f.mu.Unlock()
		f.closed = true
		_ = os.Remove(f.lock.Name()) // while it is locked: see filelock.Names
		_ = f.lock.Close()
	}
	if f.mu.TryLock() {
		end()
		return
	}
	go func() {
		f.mu.Lock()
		end()
	}()
}

// load tells what an earlier process left. A file that cannot be understood stands
// for a session of which nothing is known. The error is about the folder.
func (f *stateFile) load() ([]mpio.SessionRecord, error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var b []byte
	if err == nil && info.Size() <= maxStateSize {
		b, err = os.ReadFile(f.path)
	}
	if err != nil {
		return nil, f.failed(err)
	}
	return f.parse(b), nil
}

// parse reads the file's content.
func (f *stateFile) parse(b []byte) []mpio.SessionRecord {
	unknown := mpio.SessionRecord{Portal: "unknown", Target: f.device.Target, TPGT: -1}
	var u uncleanDevice
	if err := json.Unmarshal(b, &u); err != nil || u.Version != stateVersion ||
		u.Target != f.device.Target || u.LUN != f.device.LUN || len(u.Sessions) == 0 {
		return []mpio.SessionRecord{unknown}
	}
	var list []mpio.SessionRecord
	for _, s := range u.Sessions {
		r := mpio.SessionRecord{Portal: s.Portal, Target: s.Target, TPGT: s.TPGT, Provable: s.Provable}
		isid, err := hex.DecodeString(s.ISID)
		if copy(r.ISID[:], isid) != len(r.ISID) || err != nil || s.Portal == "" || s.Target == "" || s.TPGT < 0 {
			r.Provable = false
		}
		// Under another name it was another session, whatever its ISID.
		if u.InitiatorName != f.device.InitiatorName {
			r.Provable = false
		}
		list = append(list, r)
	}
	return list
}

// save replaces the file, durably; an empty list removes it.
func (f *stateFile) save(number uint64, list []mpio.SessionRecord) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if number <= f.saved || f.closed {
		return nil
	}
	f.saved = number
	if len(list) == 0 {
		err := os.Remove(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = syncDir(filepath.Dir(f.path))
		}
		return f.failed(err)
	}
	u := f.device
	for _, r := range list {
		u.Sessions = append(u.Sessions, uncleanSession{
			Portal: r.Portal, Target: r.Target, ISID: hex.EncodeToString(r.ISID[:]), TPGT: r.TPGT, Provable: r.Provable,
		})
	}
	b, err := json.MarshalIndent(u, "", "  ")
	if err == nil {
		err = replaceFile(f.path, append(b, '\n'))
	}
	return f.failed(err)
}

// failed says what to do about err.
func (f *stateFile) failed(err error) error {
	if err == nil {
		return nil
	}
	return &Error{
		Kind: KindOther, Msg: "the state folder " + filepath.Dir(f.path), Err: err,
		Hint: "writes that a crash leaves behind are remembered there; make it writable and see that it has room, or choose another folder",
	}
}

// openState reads what an earlier process left, and gives mpio the way to note
// what this one will.
func (d *Device) openState() ([]mpio.SessionRecord, func([]mpio.SessionRecord, func(error)), error) {
	if d.cfg.StateDir == "" || d.cfg.ReadOnly {
		return nil, nil, nil
	}
	d.state = newStateFile(d.cfg)
	if err := d.state.claim(); err != nil {
		return nil, nil, err
	}
	list, err := d.state.load()
	if len(list) > 0 {
		d.log.Warn("an earlier process ended without logging out: writes wait until its sessions have ended", "sessions", len(list), "noted_in", d.state.path)
	}
	return list, d.remember, err
}

// remember is mpio's way to have a list of sessions noted. It runs on the loop.
func (d *Device) remember(list []mpio.SessionRecord, done func(error)) {
	saved := make(chan error, 1)
	d.state.issued++
	number := d.state.issued
	go func() { saved <- d.state.save(number, list) }() // ends when the disk answers
	d.helpers.Go(func() {
		timeout := time.NewTimer(saveTimeout)
		defer timeout.Stop()
		var err error
		select {
		case err = <-saved:
		case <-timeout.C:
			err = d.state.failed(fmt.Errorf("no answer of the file system for %v", saveTimeout))
		}
		d.loop.Post(func() { done(err) })
	})
}

// replaceFile writes b to path so that after a power loss either the old content
// or the new is there.
func replaceFile(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	tmp, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		os.Remove(tmp.Name())
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDir is os.MkdirAll, durably.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if runtime.GOOS == "windows" { // where folders cannot be flushed
		err = nil
	}
	return errors.Join(err, d.Close())
}
