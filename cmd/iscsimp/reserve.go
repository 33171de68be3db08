package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/scsi"
)

// The options of reserve.
const (
	flagKey        = "key"
	flagType       = "type"
	flagAbort      = "abort"
	flagPerPath    = "per-path"
	flagVolatile   = "volatile"
	flagOtherHosts = "other-hosts"
)

// reserveTimeout is how long an operation on reservations may take: it may have to
// wait several times for what the fence waits for.
const reserveTimeout = 5 * time.Minute

func reserveSubcommand() *cli.Command {
	return &cli.Command{
		Name:      "reserve",
		Usage:     "persistent reservations over all paths, to keep other hosts out",
		ArgsUsage: "NAME register|unregister|reserve|release|preempt|clear|read",
		Description: "register --key KEY: register this host, over every path now and to come. KEY must be\n" +
			"this host's alone. --key 0 is unregister: registrations and reservation of this host go.\n" +
			"reserve: let none but registered hosts write (--type). release: take that back.\n" +
			"preempt --key KEY: fence off the host that registered KEY; with --abort its commands end,\n" +
			"too. As long as the unit is reserved it cannot write until it registers again.\n" +
			"clear: remove every registration and the reservation. read: show them.\n\n" +
			"TYPE is wero (others may read), earo (others may not even read), or wear, eaar: the same,\n" +
			"but held by all who are registered, so that it outlives the host that reserved. we and ea\n" +
			"let a single path in and are for devices with one path.",
		Flags: flags(inCategory("Reservations",
			&cli.StringFlag{Name: flagKey, Usage: "`KEY`, in hexadecimal: with register this host's, with preempt that of the host to fence off"},
			&cli.StringFlag{Name: flagType, Usage: "reservation `TYPE`: wero, earo, wear, eaar, we or ea; default wero, with preempt the type as it is"},
			&cli.BoolFlag{Name: flagAbort, DisableDefaultText: true, Usage: "preempt: end that host's commands, too"},
			&cli.BoolFlag{Name: flagPerPath, DisableDefaultText: true, Usage: "register: a key for each path, KEY, KEY+1, …"},
			&cli.BoolFlag{Name: flagVolatile, DisableDefaultText: true, Usage: "register: the target may forget it when it loses power"},
			&cli.BoolFlag{Name: flagOtherHosts, DisableDefaultText: true, Usage: "clear: even if other hosts are registered"},
		)),
		OnUsageError: onUsageError,
		Action:       runReserve,
	}
}

// reserveCommand is the body of POST /v1/reserve.
type reserveCommand struct {
	Action     string `json:"action"`
	Key        string `json:"key,omitempty"`  // hexadecimal: a JSON number has no room for it
	Type       string `json:"type,omitempty"` // as --type
	Abort      bool   `json:"abort,omitempty"`
	PerPath    bool   `json:"per_path,omitempty"`
	Volatile   bool   `json:"volatile,omitempty"`
	OtherHosts bool   `json:"other_hosts,omitempty"`
}

// The actions of reserve.
const (
	actRegister   = "register"
	actUnregister = "unregister"
	actReserve    = "reserve"
	actRelease    = "release"
	actPreempt    = "preempt"
	actClear      = "clear"
	actRead       = "read"
)

// reserveOptions are the options that each action takes.
var reserveOptions = map[string][]string{
	actRegister:   {flagKey, flagPerPath, flagVolatile},
	actUnregister: {},
	actReserve:    {flagType},
	actRelease:    {},
	actPreempt:    {flagKey, flagType, flagAbort},
	actClear:      {flagOtherHosts},
	actRead:       {},
}

// reserveWords follow NAME, for completion.
const reserveWords = "register unregister reserve release preempt clear read"

// reserveActions lists them for people.
const reserveActions = "register, unregister, reserve, release, preempt, clear or read"

func runReserve(c *cli.Context) error {
	name, cmd, err := parseReserveCommand(c)
	if err != nil {
		return err
	}
	dir, err := runtimeDir(c)
	if err != nil {
		return err
	}
	if _, ok := statusOf(c.Context, dir, name); !ok {
		return noSuchDevice(dir, name)
	}
	var report reserveReport
	if err := controlCallWithin(c.Context, reserveTimeout+controlTimeout, dir, name, http.MethodPost, "/v1/reserve", cmd, &report); err != nil {
		return err
	}
	switch {
	case c.Bool(flagJSON):
		return writeJSON(c.App.Writer, report, false)
	case cmd.Action == actRead:
		return report.write(c.App.Writer)
	}
	if cmd.Action == actPreempt && report.Reservation == nil && report.Generation != nil {
		fmt.Fprintln(c.App.ErrWriter, "iscsimp: warning: the unit is not reserved, so that nothing keeps that host from writing: reserve it")
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: %s\n", name, cmd.done())
	return err
}

func parseReserveCommand(c *cli.Context) (name string, cmd reserveCommand, err error) {
	if c.NArg() != 2 {
		return "", cmd, usagef("reserve needs NAME and what to do: %s", reserveActions)
	}
	name = c.Args().First()
	if err := checkDeviceName(name); err != nil {
		return "", cmd, err
	}
	cmd = reserveCommand{
		Action: c.Args().Get(1), Key: c.String(flagKey), Type: c.String(flagType), Abort: c.Bool(flagAbort),
		PerPath: c.Bool(flagPerPath), Volatile: c.Bool(flagVolatile), OtherHosts: c.Bool(flagOtherHosts),
	}
	options, ok := reserveOptions[cmd.Action]
	if !ok {
		words := make([]string, 0, len(reserveOptions))
		for a := range reserveOptions {
			words = append(words, a)
		}
		return "", cmd, usagef("%q is nothing that can be done about reservations: use %s%s", cmd.Action, reserveActions, didYouMean(cmd.Action, words))
	}
	for _, f := range []string{flagKey, flagType, flagAbort, flagPerPath, flagVolatile, flagOtherHosts} {
		if c.IsSet(f) && !slices.Contains(options, f) {
			return "", cmd, usagef("reserve … %s takes no --%s", cmd.Action, f)
		}
	}
	return name, cmd, cmd.check()
}

// check says what is wrong with the command.
func (r *reserveCommand) check() error {
	if _, ok := reserveOptions[r.Action]; !ok {
		return usagef("%q is nothing that can be done about reservations: use %s", r.Action, reserveActions)
	}
	if slices.Contains(reserveOptions[r.Action], flagKey) {
		key, err := parseKey(r.Key)
		switch {
		case r.Key == "":
			return usagef("reserve … %s needs --%s", r.Action, flagKey)
		case err != nil:
			return err
		case key == 0 && r.Action == actRegister:
			r.Action, r.Key = actUnregister, ""
		case key == 0:
			return usagef("--%s 0: nobody is registered with that", flagKey)
		}
	}
	if r.Type != "" {
		if _, err := scsi.ParseReservationType(r.Type); err != nil {
			return usagef("--%s %q: use wero, earo, wear, eaar, we or ea", flagType, r.Type)
		}
	}
	return nil
}

// parseKey reads a key: hexadecimal, with or without 0x.
func parseKey(s string) (uint64, error) {
	key, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0x"), 16, 64)
	if err != nil {
		return 0, usagef("--%s %q is no hexadecimal number of at most 16 digits, such as 0x1a2b", flagKey, s)
	}
	return key, nil
}

// kind is the type of reservation wanted, else that.
func (r *reserveCommand) kind(otherwise scsi.ReservationType) scsi.ReservationType {
	if t, err := scsi.ParseReservationType(r.Type); err == nil {
		return t
	}
	return otherwise
}

// done says in words what was done.
func (r *reserveCommand) done() string {
	switch r.Action {
	case actRegister:
		return "registered"
	case actUnregister:
		return "unregistered"
	case actReserve:
		return fmt.Sprintf("reserved (%v)", r.kind(initiator.WriteExclusiveRegistrantsOnly))
	case actRelease:
		return "released"
	case actPreempt:
		if r.Abort {
			return "the other host is fenced off, and its commands are ended"
		}
		return "the other host is fenced off; commands it had under way may still be carried out"
	}
	return "cleared"
}

// reserveReport is the answer to POST /v1/reserve: how things stand afterwards.
type reserveReport struct {
	Version    int    `json:"version"`
	Name       string `json:"name"`
	Action     string `json:"action"`
	Registered bool   `json:"registered"` // this host
	Key        string `json:"key,omitempty"`
	PerPath    bool   `json:"per_path"`
	Preempted  string `json:"preempted,omitempty"` // why every request fails
	// How things stand at the target; absent if it could not be asked any more.
	Generation  *uint32             `json:"generation,omitempty"`
	Keys        []string            `json:"keys"`
	Reservation *reservationReport  `json:"reservation,omitempty"`
	Nexuses     []nexusReport       `json:"nexuses,omitempty"`
	Paths       []pathReserveReport `json:"paths"`
	// Types the target has, and whether registrations can outlive a loss of power
	// there; absent if it does not tell.
	Types   []string `json:"types,omitempty"`
	Persist *bool    `json:"persist,omitempty"`
}

type reservationReport struct {
	Type   string `json:"type"`
	Name   string `json:"type_name"`
	Holder string `json:"holder,omitempty"` // key; absent if all registered hosts hold it
	Ours   bool   `json:"ours"`
}

type nexusReport struct {
	Key       string `json:"key"`
	Initiator string `json:"initiator,omitempty"`
	ISID      string `json:"isid,omitempty"`
	Port      uint16 `json:"target_port"`
	Holder    bool   `json:"holder"`
}

type pathReserveReport struct {
	ID     string `json:"id"`
	Portal string `json:"portal"`
	State  string `json:"state"`
	Key    string `json:"key,omitempty"`
}

func newReserveReport(name, action string, s initiator.Reservations) reserveReport {
	r := reserveReport{
		Version: schemaVersion, Name: name, Action: action, Registered: s.Registered, PerPath: s.PerPath,
		Generation: &s.Generation, Keys: []string{}, Paths: []pathReserveReport{},
	}
	if s.Key != 0 {
		r.Key = initiator.KeyText(s.Key)
	}
	if s.Lost != nil {
		r.Preempted = s.Lost.Error()
	}
	for _, k := range s.Keys {
		r.Keys = append(r.Keys, initiator.KeyText(k))
	}
	if s.Held {
		r.Reservation = &reservationReport{Type: s.Type.Short(), Name: s.Type.String(), Ours: s.Ours}
		if !s.Type.AllHold() {
			r.Reservation.Holder = initiator.KeyText(s.Holder)
		}
	}
	for _, n := range s.Nexuses {
		who := nexusReport{Key: initiator.KeyText(n.Key), Port: n.Port, Holder: n.Holder}
		if name, isid, port, err := scsi.ParseISCSITransportID(n.TransportID); err == nil {
			who.Initiator = name
			if port {
				who.ISID = hex.EncodeToString(isid[:])
			}
		}
		r.Nexuses = append(r.Nexuses, who)
	}
	for _, p := range s.Paths {
		row := pathReserveReport{ID: p.ID, Portal: p.Portal, State: p.State.String()}
		if p.Key != 0 {
			row.Key = initiator.KeyText(p.Key)
		}
		r.Paths = append(r.Paths, row)
	}
	if c := s.Capabilities; c != nil {
		r.Persist = &c.PersistCapable
		for _, t := range c.Types {
			r.Types = append(r.Types, t.Short())
		}
	}
	return r
}

// write prints the report for people.
func (r *reserveReport) write(w io.Writer) error {
	var b strings.Builder
	switch {
	case r.Preempted != "":
		fmt.Fprintln(&b, "this host:   fenced off: "+printable(r.Preempted))
	case r.Registered && r.PerPath:
		fmt.Fprintln(&b, "this host:   registered, key "+r.Key+" and following, one for each path")
	case r.Registered:
		fmt.Fprintln(&b, "this host:   registered, key "+r.Key)
	default:
		fmt.Fprintln(&b, "this host:   not registered")
	}
	switch v := r.Reservation; {
	case v == nil:
		fmt.Fprintln(&b, "reservation: none")
	case v.Holder == "":
		fmt.Fprintf(&b, "reservation: %s (%s), held by all who are registered\n", v.Name, v.Type)
	case v.Ours:
		fmt.Fprintf(&b, "reservation: %s (%s), held by this host, key %s\n", v.Name, v.Type, v.Holder)
	default:
		fmt.Fprintf(&b, "reservation: %s (%s), held by another host, key %s\n", v.Name, v.Type, v.Holder)
	}
	t := &table{header: []string{"KEY", "INITIATOR", "ISID", "PORT", "HOLDS"}}
	for _, n := range r.Nexuses {
		holds := ""
		if n.Holder {
			holds = "yes"
		}
		t.add(n.Key, n.Initiator, n.ISID, strconv.Itoa(int(n.Port)), holds)
	}
	if len(r.Nexuses) == 0 { // the target does not tell who it is
		t = &table{header: []string{"KEY"}}
		for _, k := range r.Keys {
			t.add(k)
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil || len(t.rows) == 0 {
		return err
	}
	return t.writeTo(w)
}

// reserve implements controlled.
func (r *runner) reserve(ctx context.Context, cmd reserveCommand) (reserveReport, error) {
	if err := cmd.check(); err != nil {
		return reserveReport{}, err
	}
	r.mu.Lock()
	dev := r.dev
	r.mu.Unlock()
	name := r.options.name
	if dev == nil {
		return reserveReport{}, failf(exitError, "device %s is not running yet, or not any more; try again", name)
	}
	if err := cmd.run(ctx, dev); err != nil {
		return reserveReport{}, err
	}
	if cmd.Action != actRead {
		r.log.Info("reservations changed by hand", "action", cmd.Action, "key", cmd.Key, "type", cmd.Type)
	}
	s, err := dev.Reservations(ctx)
	if err != nil && cmd.Action == actRead {
		return reserveReport{}, err
	}
	report := newReserveReport(name, cmd.Action, s)
	if err != nil {
		report.Generation = nil
	}
	return report, nil
}

// run does what the command says; read does nothing.
func (r *reserveCommand) run(ctx context.Context, dev *initiator.Device) error {
	key, _ := parseKey(r.Key) // checked
	switch r.Action {
	case actRegister:
		return dev.Register(ctx, initiator.Registration{Key: key, PerPath: r.PerPath, Volatile: r.Volatile})
	case actUnregister:
		return dev.Unregister(ctx)
	case actReserve:
		return dev.Reserve(ctx, r.kind(initiator.WriteExclusiveRegistrantsOnly))
	case actRelease:
		return dev.Release(ctx)
	case actPreempt:
		return dev.Preempt(ctx, initiator.Preemption{Key: key, Abort: r.Abort, Type: r.kind(0)})
	case actClear:
		return dev.ClearReservations(ctx, r.OtherHosts)
	}
	return nil
}

// handleReserve answers POST /v1/reserve. Unlike all others it may wait for I/O.
func handleReserve(dev controlled) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var cmd reserveCommand
		var report reserveReport
		err := readBody(w, r, &cmd)
		if err == nil {
			until := time.Now().Add(reserveTimeout + controlTimeout)
			rc := http.NewResponseController(w)
			if err = rc.SetReadDeadline(until); err == nil {
				err = rc.SetWriteDeadline(until)
			}
		}
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), reserveTimeout)
			defer cancel()
			report, err = dev.reserve(ctx, cmd)
		}
		answer(w, report, err)
	}
}

// reservationFact is what explain says about reservations.
func reservationFact(d deviceStatus) []string {
	switch {
	case d.Preempted != "":
		return []string{fmt.Sprintf("Every request fails: %s. First make sure that no other host relies on this one being out; `iscsimp reserve %s register` then lets it in again.", d.Preempted, d.Name)}
	case d.Key == "":
		return nil
	}
	said := []string{fmt.Sprintf("This host is registered with key %s; a path registers before it carries I/O.", d.Key)}
	if t, err := scsi.ParseReservationType(d.Reserved); err == nil {
		said[0] += fmt.Sprintf(" It has reserved the unit: %v.", t)
	}
	return said
}
