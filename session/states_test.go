package session

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/transcript"
	"github.com/iscsimp/iscsimp/pdu"
)

// stations are the points of a session's life at which things can happen to it.
var stations = []struct {
	name  string
	reach func(w *world)
	state State
}{
	{"free", func(*world) {}, StateFree},
	{"dialing", func(w *world) { w.s.Start() }, StateLogin},
	{"login", func(w *world) { w.s.Start(); w.s.Connected(w.h, w) }, StateLogin},
	{"login given up", func(w *world) { w.s.Start(); w.s.Connected(w.h, w); w.drainOutput(); w.now = w.timer; w.s.Tick() }, StateLogin},
	{"logged-in", func(w *world) { w.quick() }, StateLoggedIn},
	{"given up", func(w *world) { w.quick(); w.s.Drop(nil) }, StateLoggedIn},
	{"leaving", func(w *world) { w.quick(); w.askLogout() }, StateLoggedIn},
	{"recovering", func(w *world) { w.s.Start(); w.s.DialFailed(w.h, io.EOF) }, StateRecovering},
	{"closing", func(w *world) { w.quick(); w.s.Close() }, StateClosing},
	{"closed", func(w *world) { w.s.Close() }, StateClosed},
}

// calls are all that can happen from outside.
var calls = []struct {
	name string
	do   func(w *world)
}{
	{"Start", func(w *world) { w.s.Start() }},
	{"Connected", func(w *world) { w.s.Connected(w.h, w) }},
	{"DialFailed", func(w *world) { w.s.DialFailed(w.h, errors.New("x")) }},
	{"the connection ends", func(w *world) {
		if h := w.handler(); h != nil {
			h.Closed(io.EOF)
		}
	}},
	{"garbage", func(w *world) {
		if w.s.conn != nil && w.s.conn.stream != nil {
			w.feed([]byte{0x1c}, 1)
			w.settleAll()
		}
	}},
	{"Tick in time", func(w *world) { w.now = max(w.now, w.timer); w.s.Tick() }},
	{"Tick unasked", func(w *world) { w.s.Tick() }},
	{"Drop", func(w *world) { w.s.Drop(nil); w.settleAll() }},
	{"RetryNow", func(w *world) { w.s.RetryNow() }},
	{"Close", func(w *world) { w.s.Close(); w.settleAll() }},
	{"Close and its time", func(w *world) {
		w.s.Close()
		w.settleAll()
		for w.s.State() == StateClosing {
			w.now = w.timer
			w.s.Tick()
			w.settleAll()
		}
	}},
	{"Submit", func(w *world) {
		cmd := &Command{Owner: w}
		if !w.s.Submit(cmd) {
			w.logf("refused")
		}
		if w.s.Detach(&Command{}) {
			w.logf("detached what was never submitted")
		}
	}},
	{"SendTargets", func(w *world) {
		w.s.SendTargets(func(_ []TargetInfo, err *Error) { w.logf("refused: %v", err != nil) })
	}},
	{"Stats", func(w *world) { w.s.Stats(); w.s.Room(); w.s.Oldest() }},
}

// handler is that of the connection in use, as a driver would call it.
func (w *world) handler() interface{ Closed(error) } {
	if w.s.conn == nil || w.s.conn.stream == nil {
		return nil
	}
	h := w.h
	w.h = nil
	return h
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: int64(time.Hour)}
	w.configure(transcript.Cmd{})
	return w
}

// quick logs in.
func (w *world) quick() { w.quickLogin(transcript.Cmd{}) }

func (w *world) askLogout() {
	p := pdu.Async{AsyncEvent: pdu.AsyncLogoutRequest, Param3: 1, StatSN: 102, ExpCmdSN: 1, MaxCmdSN: 32}
	w.feed(p.AppendTo(nil), 48)
}

// TestStates writes down the table of states, and what each call does at each
// point of a session's life. Nothing panics, and nothing but the table moves the state.
func TestStates(t *testing.T) {
	var out strings.Builder
	fmt.Fprintf(&out, "# The table: state, event, next state.\n\n")
	for s := range numStates {
		for e := range numEvents {
			next := "impossible"
			if n := transitions[s][e]; n != none {
				next = n.String()
			}
			fmt.Fprintf(&out, "%-12s %-12s %s\n", s, e, next)
		}
	}
	fmt.Fprintf(&out, "\n# Where a session stands, what happens, where that leads and whom it tells.\n\n")
	for _, st := range stations {
		for _, c := range calls {
			w := newWorld(t)
			st.reach(w)
			require.Equal(t, st.state, w.s.State(), st.name)
			w.settleOutput()
			w.lines = nil
			c.do(w)
			w.settleOutput()
			fmt.Fprintf(&out, "%-14s + %-20s = %-11s %s\n", st.name, c.name, w.s.State(), w.told())
			require.True(t, reachable(st.state, w.s.State()), "%s + %s", st.name, c.name)
			w.checkRest(st.name + " + " + c.name)
		}
	}
	golden(t, "../testdata/session/states.golden", out.String())
}

// settleOutput takes what the session sends but ends no connection.
func (w *world) settleOutput() {
	if w.h != nil && w.aborted == nil && w.closing == nil {
		w.drainOutput()
	}
}

// settleAll is settle that keeps the lines.
func (w *world) settleAll() {
	before := w.lines
	w.lines = nil
	text := w.settle()
	if w.lines = before; text != "" {
		w.lines = append(before, strings.Split(text, "\n")...)
	}
}

// told is what the observer, the environment and the peer learned since.
func (w *world) told() string {
	var words []string
	for _, l := range w.lines {
		head, _, _ := strings.Cut(strings.TrimPrefix(l, "> "), " ")
		head = strings.TrimSuffix(head, ":")
		if strings.HasPrefix(l, "    ") || head == "retry" {
			continue
		}
		words = append(words, head)
	}
	if len(words) == 0 {
		return "-"
	}
	w.lines = nil
	return strings.Join(words, ", ")
}

// checkRest looks at what must hold whenever the session is not at work.
func (w *world) checkRest(where string) {
	s := w.s
	switch s.State() {
	case StateFree, StateClosed:
		require.Zero(w.t, w.timer, where)
		require.Nil(w.t, s.conn, where)
	case StateRecovering:
		require.NotZero(w.t, w.timer, where)
		require.GreaterOrEqual(w.t, w.timer, w.now, where)
		require.Nil(w.t, s.conn, where)
	case StateLogin, StateClosing:
		require.NotZero(w.t, w.timer, "something must end it: "+where)
		require.NotNil(w.t, s.conn, where)
	case StateLoggedIn:
		require.NotNil(w.t, s.conn, where)
		require.True(w.t, w.timer != 0 || s.conn.dead, where)
	}
}

// reachable reports whether the table leads from a to b.
func reachable(a, b State) bool {
	seen := map[State]bool{a: true}
	for grown := true; grown; {
		grown = false
		for s := range seen {
			for _, n := range transitions[s] {
				if n != none && !seen[n] {
					seen[n], grown = true, true
				}
			}
		}
	}
	return seen[b]
}

// golden compares text with a file, or with -rewrite writes the file.
func golden(t *testing.T, file, got string) {
	if f := flag.Lookup("rewrite"); f != nil && f.Value.String() == "true" {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// TestImpossibleEvents: only our own mistakes could lead there, and they are loud.
func TestImpossibleEvents(t *testing.T) {
	for s := range numStates {
		for e := range numEvents {
			w := &Session{state: s}
			if transitions[s][e] == none {
				assert.PanicsWithValue(t, fmt.Sprintf("session: event %v in state %v", e, s), func() { w.to(e) })
				assert.Equal(t, s, w.state)
				continue
			}
			w.to(e)
			assert.Equal(t, transitions[s][e], w.state)
		}
	}
}

// TestCallsFromCompletions: what is completed with a lost connection may close
// the session, or want it back at once. The order of calls stays: completions
// first, then the news.
func TestCallsFromCompletions(t *testing.T) {
	for name, tt := range map[string]struct {
		call func(s *Session)
		last []string
		end  State
	}{
		"close":           {func(s *Session) { s.Close() }, []string{"closed"}, StateClosed},
		"retry":           {func(s *Session) { s.RetryNow() }, []string{"down", "retry in 0s"}, StateRecovering},
		"retry and close": {func(s *Session) { s.RetryNow(); s.Close() }, []string{"closed"}, StateClosed},
		"drop":            {func(s *Session) { s.Drop(nil) }, []string{"down", "retry in 100ms"}, StateRecovering},
		"submit":          {func(s *Session) { s.Submit(&Command{}) }, []string{"down", "retry in 100ms"}, StateRecovering},
		"start":           {func(s *Session) { s.Start() }, []string{"down", "retry in 100ms"}, StateRecovering},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.quick()
			for range 3 {
				require.True(t, w.s.Submit(&Command{Owner: caller{w, tt.call}}))
			}
			w.drainOutput()
			w.lines = nil
			w.h.Closed(io.EOF)
			require.Equal(t, []string{"done", "done", "done"}, w.lines[:3])
			require.Len(t, w.lines, 3+len(tt.last))
			for i, l := range tt.last {
				require.Contains(t, w.lines[3+i], l)
			}
			require.Equal(t, tt.end, w.s.State())
			if name == "retry" {
				require.Equal(t, w.now, w.timer)
				w.s.Tick()
				require.Equal(t, StateLogin, w.s.State())
			}
		})
	}
}

// caller does something with the session when a command of its is completed.
type caller struct {
	w    *world
	call func(s *Session)
}

func (c caller) CommandDone(*Command) {
	c.w.logf("done")
	c.call(c.w.s)
}
