package session

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/transcript"
	"github.com/iscsimp/iscsimp/pdu"
)

// ticks lets d pass and counts how often the session asked to be woken; after
// each time react plays the rest of the world.
func (w *world) ticks(d time.Duration, react func()) int {
	n := 0
	end := w.now + int64(d)
	for w.timer != 0 && w.timer <= end {
		require.Greater(w.t, w.timer, int64(0))
		w.now = max(w.now, w.timer)
		w.timer = 0
		w.s.Tick()
		n++
		require.Less(w.t, n, 100000, "a timer without rest")
		if react != nil {
			react()
		}
	}
	w.now = max(w.now, end)
	return n
}

// answerPings answers what the session asked last.
func (w *world) answerPings() {
	w.settleOutput()
	if p := w.s.conn.ping; p != nil && w.s.conn != nil && !w.s.conn.dead {
		r := pdu.NOPIn{ITT: p.itt, TTT: pdu.ReservedTag, StatSN: w.s.conn.expStatSN, ExpCmdSN: 1, MaxCmdSN: 32}
		w.feed(r.AppendTo(nil), 48)
	}
}

// TestNoBusyTimer: wherever a session stands, it is woken a few times a second
// at most.
func TestNoBusyTimer(t *testing.T) {
	for name, tt := range map[string]struct {
		reach  func(w *world)
		react  func(w *world)
		d      time.Duration
		atMost int
	}{
		"dialing in vain":     {func(w *world) { w.s.Start() }, nil, 9 * time.Second, 0},
		"no answer to logins": {func(w *world) { w.s.Start(); w.s.Connected(w.h, w) }, nil, 60 * time.Second, 6}, // the driver never ends it
		"refused for ever": {func(w *world) { w.s.Start(); w.s.DialFailed(w.h, io.EOF) }, func(w *world) {
			if w.s.State() == StateLogin {
				w.s.DialFailed(w.h, io.EOF)
			}
		}, 60 * time.Second, 18},
		"idle, answered": {func(w *world) { w.quick() }, (*world).answerPings, 60 * time.Second, 122}, // the ping, and a look whether it was answered
		"idle, silent":   {func(w *world) { w.quick() }, (*world).settleOutput, 60 * time.Second, 6},
		"idle, silent, given up but never told so": {func(w *world) { w.quick(); w.s.Drop(nil) }, nil, 60 * time.Second, 1},
		"a slow command": {func(w *world) {
			w.quick()
			require.True(w.t, w.s.Submit(&Command{Owner: w}))
		}, (*world).answerPings, 60 * time.Second, 660},
		"leaving": {func(w *world) {
			w.quick()
			require.True(w.t, w.s.Submit(&Command{Owner: w}))
			w.askLogout()
		}, (*world).answerPings, 60 * time.Second, 25},
		"left":              {func(w *world) { w.quick(); w.askLogout() }, (*world).answerPings, 900 * time.Millisecond, 1},
		"closing, silent":   {func(w *world) { w.quick(); w.s.Close() }, nil, 60 * time.Second, 12},
		"closed":            {func(w *world) { w.s.Close() }, nil, 60 * time.Second, 0},
		"text, no answer":   {func(w *world) { w.s.cfg.Discovery = true; w.quick(); w.s.SendTargets(func([]TargetInfo, *Error) {}) }, (*world).answerPings, 60 * time.Second, 660},
		"pings unwelcome":   {func(w *world) { w.s.cfg.NoopInterval = -1; w.quick() }, nil, time.Hour, 1},
		"impatient":         {func(w *world) { w.s.cfg.SuspectAfter = 1; w.quick() }, (*world).answerPings, 10 * time.Second, 22},
		"impatient, silent": {func(w *world) { w.s.cfg.SuspectAfter, w.s.cfg.NoopTimeout = 1, 1; w.quick() }, nil, 10 * time.Second, 6},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.reach(w)
			var react func()
			if tt.react != nil {
				react = func() { tt.react(w) }
			}
			n := w.ticks(tt.d, react)
			assert.LessOrEqual(t, n, tt.atMost)
			t.Logf("%d times in %v", n, tt.d)
		})
	}
}

// TestTimerUnderLoad: commands that come and go do not move the timer each time.
func TestTimerUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.quick()
	moved := 0
	last := w.timer
	for i := range 2000 { // a command each millisecond
		require.True(t, w.s.Submit(&Command{Owner: w, User: "x"}))
		w.settleOutput()
		r := pdu.SCSIResponse{ITT: w.s.tasks.first().itt, StatSN: w.s.conn.expStatSN, ExpCmdSN: w.s.cmdSN, MaxCmdSN: w.s.cmdSN + 8}
		w.now += int64(time.Millisecond)
		w.feed(r.AppendTo(nil), 48)
		if w.timer != last {
			moved++
		}
		if w.timer != 0 && w.timer <= w.now {
			w.timer = 0
			w.s.Tick()
			moved++
		}
		last = w.timer
		require.NotZero(t, w.timer, "round %d", i)
		require.LessOrEqual(t, w.timer, w.now+int64(time.Second))
		w.lines = w.lines[:0]
	}
	assert.LessOrEqual(t, moved, 2*(2000/100)+4)
}

// TestBackoff: pauses double from the minimum to the maximum, take at least half
// of that and never more; Time2Wait and permanent refusals lengthen them.
func TestBackoff(t *testing.T) {
	for _, jitter := range []float64{0, 0.5, 1} {
		w := newWorld(t)
		w.jitter = &jitter
		w.s.cfg.ReconnectMin, w.s.cfg.ReconnectMax = 100*time.Millisecond, 5*time.Second
		w.s.Start()
		want := 100 * time.Millisecond
		for range 12 {
			w.s.DialFailed(w.h, io.EOF)
			pause := time.Duration(w.timer - w.now)
			require.Equal(t, want/2+time.Duration(jitter*float64(want)/2), pause)
			require.Equal(t, w.timer, w.s.Stats().RetryAt)
			want = min(2*want, 5*time.Second)
			w.now = w.timer
			w.s.Tick()
			require.Equal(t, StateLogin, w.s.State())
		}
		w.s.DialFailed(w.h, io.EOF)
		w.s.RetryNow()
		w.s.DialFailed(w.h, io.EOF)
		require.LessOrEqual(t, w.timer-w.now, int64(100*time.Millisecond), "RetryNow begins anew")
	}
}

// TestBackoffFloor: the target's Time2Wait is kept, once.
func TestBackoffFloor(t *testing.T) {
	w := newWorld(t)
	w.quickLogin(transcript.Cmd{Input: []string{"DefaultTime2Retain=0"}})
	w.s.params.DefaultTime2Wait = 7
	w.h.Closed(io.EOF)
	require.Equal(t, 7*time.Second, time.Duration(w.timer-w.now))
	w.now = w.timer
	w.s.Tick()
	w.s.DialFailed(w.h, io.EOF)
	require.Equal(t, 200*time.Millisecond, time.Duration(w.timer-w.now))
}

// TestBackoffAfterRefusal: what will not change soon is not asked about often.
func TestBackoffAfterRefusal(t *testing.T) {
	for _, tt := range []struct {
		status uint16
		pause  time.Duration
	}{
		{0x0201, 50 * time.Second},
		{0x0202, 50 * time.Second},
		{0x0203, 50 * time.Second},
		{0x0300, 100 * time.Millisecond},
		{0x0302, 100 * time.Millisecond},
		{0x0400, 100 * time.Millisecond},
	} {
		w := newWorld(t)
		w.s.Start()
		w.s.Connected(w.h, w)
		r := pdu.LoginResponse{StatusClass: uint8(tt.status >> 8), StatusDetail: uint8(tt.status)}
		w.feed(r.AppendTo(nil), 48)
		w.settle()
		require.Equal(t, StateRecovering, w.s.State())
		require.Equal(t, tt.pause, time.Duration(w.timer-w.now), "%04x", tt.status)
		require.Equal(t, tt.status>>8 == 2, w.s.lastErr.Permanent())
		require.EqualValues(t, tt.status, w.s.lastErr.Login)
		require.NotEmpty(t, w.s.Stats().LastError)
	}
}
