package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/internal/transcript"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// world is a fake Env, Observer, Stream and Completer: it writes down what the
// session does, one line each.
type world struct {
	Uninterested
	t       *testing.T
	s       *Session
	now     int64
	timer   int64
	h       loop.Handler
	aborted error
	closing error
	hold    bool // the socket takes nothing
	lines   []string
	cmds    map[string]*Command
	jitter  *float64 // default: 1
}

func (w *world) logf(format string, a ...any) { w.lines = append(w.lines, fmt.Sprintf(format, a...)) }

func (w *world) Now() int64 { return w.now }
func (w *world) Jitter() float64 {
	if w.jitter != nil {
		return *w.jitter
	}
	return 1
}
func (w *world) CancelDial(loop.Handler) { w.logf("cancel dial"); w.h = nil }
func (w *world) SetTimer(at int64) {
	w.timer = at
}

func (w *world) Dial(portal string, timeout time.Duration, h loop.Handler) {
	w.logf("dial %s timeout=%v", portal, timeout)
	w.h, w.aborted, w.closing = h, nil, nil
}

func (w *world) Flush()               {}
func (w *world) ResumeReading()       {}
func (w *world) Close(reason error)   { w.closing = reason }
func (w *world) Abort(reason error)   { w.aborted = reason; w.logf("abort") }
func (w *world) LocalAddr() net.Addr  { return nil }
func (w *world) RemoteAddr() net.Addr { return nil }

func (w *world) SessionUp(_ *Session, up Up) {
	w.logf("up first=%v reinstated=%v tsih=%d tpgt=%d", up.First, up.Reinstated, up.TSIH, up.TPGT)
}

func (w *world) SessionDown(_ *Session, err *Error, retryAt int64) {
	w.logf("down: %v", err)
	w.logf("retry in %v", time.Duration(retryAt-w.now))
}
func (w *world) SessionSilent(*Session)  { w.logf("silent") }
func (w *world) SessionAlive(*Session)   { w.logf("alive") }
func (w *world) SessionChanged(*Session) { w.logf("changed") }
func (w *world) SessionClosed(*Session)  { w.logf("closed") }

func (w *world) CommandLate(_ *Session, took int64, bytes int) {
	w.logf("late after %v: bytes=%d", time.Duration(took), bytes)
}

func (w *world) CommandDone(c *Command) {
	switch {
	case c.Err != nil:
		w.logf("done %v: sent=%v %v", c.User, c.Err.Sent, c.Err)
	default:
		w.logf("done %v: %v received=%d sense=%x resid=%d under=%v", c.User, c.Status, c.Received, c.Sense, c.Residual, c.Underflow)
	}
}

// settle does what the loop would do at the end of a round.
func (w *world) settle() string {
	for range 100 {
		w.drainOutput()
		h := w.h
		switch {
		case h != nil && w.aborted != nil:
			w.h = nil
			h.Closed(w.aborted)
		case h != nil && w.closing != nil:
			w.h = nil
			h.Closed(w.closing)
		default:
			out := strings.Join(w.lines, "\n")
			w.lines = w.lines[:0]
			return out
		}
	}
	w.t.Fatal("the session never settles")
	return ""
}

// drainOutput takes everything the session has to send and writes it down.
func (w *world) drainOutput() {
	if w.h == nil || w.hold || w.s.conn == nil || w.s.conn.stream == nil {
		return
	}
	var raw []byte
	for {
		n := 0
		for _, b := range w.h.WriteBuffers(make([][]byte, 0, 4)) {
			raw = append(raw, b...)
			n += len(b)
		}
		if n == 0 {
			break
		}
		w.h.DidWrite(n)
	}
	w.showSent(raw)
}

func (w *world) showSent(raw []byte) {
	d := w.s.conn.digests
	if len(raw) > 0 && raw[0]&0x3f == byte(pdu.OpLogin) {
		d = pdu.Digests{}
	}
	r := strings.NewReader(string(raw))
	for r.Len() > 0 {
		p, err := pdu.ReadPDU(r, nil, d, pdu.Limits{MaxAHS: 1020, MaxData: 1 << 24})
		require.NoError(w.t, err)
		w.logf("%s", pdu.AppendTrace(nil, true, p.BHS))
		if op := p.BHS.Opcode(); op == pdu.OpLogin || op == pdu.OpText {
			for kv := range strings.SplitSeq(strings.TrimRight(string(p.Data), "\x00"), "\x00") {
				if kv != "" {
					w.logf("    %s", kv)
				}
			}
		}
	}
}

// feed gives the session bytes as a driver would, piece by piece.
func (w *world) feed(p []byte, piece int) {
	h := w.h
	require.NotNil(w.t, h, "no connection to receive on")
	for len(p) > 0 && w.aborted == nil {
		direct, scratch := h.ReadBuffers()
		n := min(piece, len(p), len(direct)+len(scratch))
		require.Positive(w.t, n, "the session offers no room to read into")
		k := copy(direct, p[:n])
		copy(scratch, p[k:n])
		p = p[n:]
		if err := h.DidRead(n); err != nil {
			w.aborted = err
		}
	}
}

func (w *world) step(t *testing.T, c transcript.Cmd) string {
	w.t = t
	switch c.Name {
	case "config":
		w.configure(c)
	case "up":
		w.quickLogin(c)
	case "start":
		w.s.Start()
	case "connected":
		w.s.Connected(w.h, w)
	case "dial-failed":
		w.s.DialFailed(w.h, errors.New("connection refused"))
	case "recv":
		p := w.build(c)
		piece := len(p)
		if v, ok := c.Args["piece"]; ok {
			piece = w.num(v)
		}
		w.feed(p, piece)
	case "raw":
		w.feed([]byte(strings.Join(c.Input, "\n")), 1<<20)
	case "peer-closes":
		h := w.h
		w.h = nil
		h.Closed(io.EOF)
	case "advance":
		w.advance(c)
	case "submit":
		w.submit(c)
	case "detach":
		w.logf("detached=%v", w.s.Detach(w.cmds[c.Flags[0]]))
	case "abort":
		if !w.s.AbortTask(w.cmds[c.Flags[0]], w.tmfDone) {
			w.logf("not possible")
		}
	case "abort-task-set", "clear-task-set", "reset-lun", "warm-reset", "cold-reset":
		if !w.multiTask(c.Name) {
			w.logf("not possible")
		}
	case "hold":
		w.hold = true
	case "release":
		w.hold = false
	case "drop":
		w.s.Drop(w.s.err(KindTimeout, "dropped by hand"))
	case "retry-now":
		w.s.RetryNow()
	case "close":
		w.s.Close()
	case "send-targets":
		w.s.SendTargets(func(ts []TargetInfo, err *Error) { w.logf("targets %+v err=%v", ts, err) })
	case "state":
		w.logf("%v room=%d oldest=%v params=%+v", w.s.State(), w.s.Room(), w.s.Oldest(), w.s.params)
	case "room":
		w.logf("%v room=%d", w.s.State(), w.s.Room())
	default:
		t.Fatalf("%s: unknown command %q", c.Pos, c.Name)
	}
	return w.settle()
}

func (w *world) configure(c transcript.Cmd) {
	cfg := Config{
		InitiatorName: "iqn.2026-01.test:host", TargetName: "iqn.2026-01.test:disk", Portal: "127.0.0.1:3260",
		TPGT: -1, ISID: [6]byte{0x80, 1, 2, 3, 4, 5},
		Discovery: c.Has("discovery"), HeaderDigest: c.Has("header-digest"), DataDigest: c.Has("data-digest"),
		InitialR2T: c.Has("initial-r2t"), NoImmediateData: c.Has("no-immediate"),
		NoTaskReporting: c.Has("no-reporting"),
		AnyPDUOrder:     c.Has("any-pdu-order"), AnySequenceOrder: c.Has("any-sequence-order"),
		CHAP: chapConfig(w.t, c),
	}
	if v, ok := c.Args["cmds"]; ok {
		cfg.CmdsMax = w.num(v)
	}
	if v, ok := c.Args["connections"]; ok {
		cfg.Connections = w.num(v)
	}
	if v, ok := c.Args["level"]; ok {
		cfg.ErrorRecoveryLevel = uint8(w.num(v))
	}
	if v, ok := c.Args["tpgt"]; ok {
		cfg.TPGT = w.num(v)
	}
	if c.Has("patient") { // nothing but the timers of tasks
		cfg.NoopInterval, cfg.NoopTimeout, cfg.SuspectAfter = -1, time.Hour, time.Hour
	}
	s, err := New(cfg, w, w)
	require.NoError(w.t, err)
	w.s, w.cmds = s, map[string]*Command{}
}

// quickLogin is a whole login in one command, of which only the outcome is shown.
// The lines that follow it are keys of the target's last response.
func (w *world) quickLogin(c transcript.Cmd) {
	switch {
	case w.s == nil || w.s.State() == StateClosed:
		w.configure(c)
		w.s.Start()
	case w.s.State() == StateFree:
		w.s.Start()
	case w.s.State() == StateRecovering:
		w.now = max(w.now, w.timer)
		w.s.Tick()
	}
	w.s.Connected(w.h, w)
	recv := transcript.Cmd{
		Name: "recv", Flags: []string{"login", "T"}, Pos: c.Pos,
		Args:  map[string]string{"csg": "0", "nsg": "1", "statsn": "100"},
		Input: []string{"TargetPortalGroupTag=1", "AuthMethod=None"},
	}
	w.feed(w.build(recv), 1<<20)
	w.drainOutput()
	w.lines = w.lines[:0]
	recv.Args = map[string]string{"csg": "1", "nsg": "3", "statsn": "101", "tsih": "7", "max": "32"}
	for _, k := range []string{"tsih", "max"} {
		if v, ok := c.Args[k]; ok {
			recv.Args[k] = v
		}
	}
	recv.Input = append([]string{"DefaultTime2Wait=0"}, c.Input...)
	w.feed(w.build(recv), 1<<20)
}

// advance moves the clock, with the ticks that fall due on the way.
func (w *world) advance(c transcript.Cmd) {
	d, err := time.ParseDuration(c.Flags[0])
	require.NoError(w.t, err)
	end := w.now + int64(d)
	for w.timer != 0 && w.timer <= end {
		require.GreaterOrEqual(w.t, w.timer, w.now, "a timer in the past")
		w.now, w.timer = w.timer, 0
		before := len(w.lines)
		w.s.Tick()
		w.drainOutput()
		if len(w.lines) > before {
			w.lines = append(w.lines[:before:before], append([]string{fmt.Sprintf("at %v:", time.Duration(w.now))}, w.lines[before:]...)...)
		}
		if w.aborted != nil {
			break
		}
	}
	w.now = max(w.now, end)
}

func (w *world) submit(c transcript.Cmd) {
	cmd := &Command{User: c.Flags[0], Owner: w, LUN: scsi.MakeLUN(1)}
	n := 0
	if v, ok := c.Args["len"]; ok {
		n = w.num(v)
	}
	cmd.Data = make([]byte, n)
	for i := range cmd.Data {
		cmd.Data[i] = byte(i >> 8)
	}
	switch {
	case c.Has("read"):
		cmd.Dir, cmd.CDB = DirRead, scsi.Read10(8, uint32(n/512), 0)
	case c.Has("write"):
		cmd.Dir, cmd.CDB = DirWrite, scsi.Write10(8, uint32(n/512), 0)
	default:
		cmd.CDB = scsi.TestUnitReady()
	}
	w.cmds[c.Flags[0]] = cmd
	if !w.s.Submit(cmd) {
		w.logf("no room")
	}
}

func (w *world) tmfDone(r TMFResult) { w.logf("%v ended=%v", r, r.Ended()) }

func (w *world) multiTask(name string) bool {
	switch name {
	case "abort-task-set":
		return w.s.AbortTaskSet(scsi.MakeLUN(1), w.tmfDone)
	case "clear-task-set":
		return w.s.ClearTaskSet(scsi.MakeLUN(1), w.tmfDone)
	case "reset-lun":
		return w.s.ResetLUN(scsi.MakeLUN(1), w.tmfDone)
	case "warm-reset":
		return w.s.TargetWarmReset(w.tmfDone)
	}
	return w.s.TargetColdReset(w.tmfDone)
}

func (w *world) num(v string) int {
	n, err := strconv.ParseInt(v, 0, 64)
	require.NoError(w.t, err)
	return int(n)
}

func TestTranscripts(t *testing.T) {
	transcript.Dir(t, "../testdata/session", func(t *testing.T) func(*testing.T, transcript.Cmd) string {
		w := &world{t: t, now: int64(time.Hour)}
		return w.step
	})
}
