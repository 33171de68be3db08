package session

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/transcript"
	"github.com/iscsimp/iscsimp/pdu"
)

// TestLongText: an answer longer than the read buffer, in pieces of any size.
func TestLongText(t *testing.T) {
	for _, piece := range []int{211, 7919, 1 << 20} {
		w := newWorld(t)
		w.s.cfg.MaxRecvDataSegmentLength, w.s.cfg.Discovery = 1<<20, true
		w.quick()
		var got []TargetInfo
		w.s.SendTargets(func(ts []TargetInfo, err *Error) {
			require.Nil(t, err)
			got = ts
		})
		var text []byte
		for i := range 6000 {
			text = fmt.Appendf(text, "TargetName=iqn.2026-01.test:a-rather-long-name-of-a-target-%d\x00", i)
		}
		require.Greater(t, len(text), 2*scratchSize)
		r := pdu.TextResponse{Final: true, ITT: w.s.text.itt, TTT: pdu.ReservedTag, StatSN: 102, ExpCmdSN: 2, MaxCmdSN: 9}
		raw := pdu.AppendPDU(nil, r.AppendTo(nil), nil, text, pdu.Digests{})
		ping := pdu.NOPIn{ITT: pdu.ReservedTag, TTT: 5, StatSN: 103, ExpCmdSN: 2, MaxCmdSN: 9}
		w.feed(ping.AppendTo(raw), piece)
		require.Nil(t, w.aborted)
		require.Len(t, got, 6000)
		w.lines = nil
		w.drainOutput()
		require.Contains(t, w.lines[len(w.lines)-1], "NOP-Out", "what follows is read too")
	}
}

// TestTextWithoutEnd: an answer of many parts is given up when it is too long.
func TestTextWithoutEnd(t *testing.T) {
	w := newWorld(t)
	w.s.cfg.MaxRecvDataSegmentLength, w.s.cfg.Discovery = 1<<20, true
	w.quick()
	var failed *Error
	w.s.SendTargets(func(_ []TargetInfo, err *Error) { failed = err })
	part := make([]byte, 1<<20)
	for i := range 5 {
		if w.aborted != nil {
			break
		}
		r := pdu.TextResponse{Continue: true, ITT: w.s.text.itt, TTT: 9, StatSN: uint32(102 + i), ExpCmdSN: 2, MaxCmdSN: 99}
		w.feed(pdu.AppendPDU(nil, r.AppendTo(nil), nil, part, pdu.Digests{}), 1<<20)
		w.drainOutput()
	}
	require.ErrorContains(t, w.aborted, "more than 4194304 bytes")
	w.h.Closed(w.aborted)
	require.NotNil(t, failed)
}

// TestPingFlood: a target that asks and never reads is not answered without end.
func TestPingFlood(t *testing.T) {
	w := newWorld(t)
	w.quick()
	w.hold = true
	ping := pdu.NOPIn{ITT: pdu.ReservedTag, TTT: 5, StatSN: 103, ExpCmdSN: 1, MaxCmdSN: 9}
	raw := ping.AppendTo(nil)
	for n := 0; w.aborted == nil; n++ {
		require.LessOrEqual(t, n, maxReplies)
		w.feed(raw, 48)
	}
	require.ErrorContains(t, w.aborted, "reads no answers")
	require.Less(t, w.s.conn.out.pending(), 1<<20)

	w = newWorld(t)
	w.quick()
	for range 3 * maxReplies { // one that reads may ask for ever
		w.feed(raw, 48)
		w.drainOutput()
		w.lines = w.lines[:0]
	}
	require.Nil(t, w.aborted)
}

// TestWindowModel: random ExpCmdSN and MaxCmdSN, around the point where numbers
// begin anew, against the rules of RFC 7143 §4.2.2.1 in 64 bits.
func TestWindowModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		w := newWorld(t)
		w.quick()
		base := uint64(1<<32) - uint64(rng.IntN(60)) // 64-bit numbers; the wire has the low half
		next, exp, limit := base, base, base+uint64(rng.IntN(20))
		w.s.cmdSN, w.s.expCmdSN, w.s.maxCmdSN = uint32(next), uint32(exp), uint32(limit)
		for range 200 {
			room := 0
			if limit >= next {
				room = min(int(limit-next)+1, w.s.cfg.CmdsMax-w.s.tasks.scsi)
			}
			require.Equal(t, room, w.s.Room())
			if rng.IntN(2) == 0 {
				require.Equal(t, room > 0, w.s.Submit(&Command{Owner: w}))
				if room > 0 {
					next++
				}
				require.Equal(t, uint32(next), w.s.cmdSN)
				continue
			}
			e, m := exp+uint64(rng.IntN(9))-3, limit+uint64(rng.IntN(9))-3
			n := pdu.NOPIn{ITT: pdu.ReservedTag, TTT: pdu.ReservedTag, ExpCmdSN: uint32(e), MaxCmdSN: uint32(m)}
			w.feed(n.AppendTo(nil), 48)
			if m+1 >= e { // else both are ignored
				exp, limit = max(exp, e), max(limit, m)
			}
		}
		var last uint32
		w.drainOutput()
		first := true
		for _, l := range w.lines {
			if i := strings.Index(l, " cmdsn="); i >= 0 && strings.HasPrefix(l, "> SCSI") {
				var sn uint32
				_, err := fmt.Sscanf(l[i:], " cmdsn=%d", &sn)
				require.NoError(t, err)
				require.True(t, first || sn == last+1, "CmdSN rises by one")
				last, first = sn, false
			}
		}
	}
}

// TestNoWindowAtLogin: a target may open its window later.
func TestNoWindowAtLogin(t *testing.T) {
	w := newWorld(t)
	w.quickLogin(transcript.Cmd{Args: map[string]string{"max": "-5"}})
	require.Equal(t, StateLoggedIn, w.s.State())
	require.Zero(t, w.s.Room())
	n := pdu.NOPIn{ITT: pdu.ReservedTag, TTT: pdu.ReservedTag, ExpCmdSN: 1, MaxCmdSN: 3}
	w.feed(n.AppendTo(nil), 48)
	require.Equal(t, 3, w.s.Room())
}

// TestOldest: the time of the oldest command that its owner still waits for.
func TestOldest(t *testing.T) {
	w := newWorld(t)
	require.Zero(t, w.s.Oldest())
	w.quick()
	w.now += 1e9
	w.s.Tick() // a ping is no command
	require.Zero(t, w.s.Oldest())
	a := &Command{Owner: w, Dir: DirRead, Data: make([]byte, 512)}
	b := &Command{Owner: w, Dir: DirRead, Data: make([]byte, 512)}
	require.True(t, w.s.Submit(a))
	at := w.now
	w.now += 5
	require.True(t, w.s.Submit(b))
	require.Equal(t, at, w.s.Oldest())
	require.Equal(t, at, a.SubmittedAt)
	require.True(t, w.s.Detach(a))
	require.Equal(t, at+5, w.s.Oldest())
	require.Equal(t, 2, w.s.Stats().InFlight, "the target still works on both")
	require.Equal(t, 30, w.s.Room())
	w.settleOutput()
	w.feed(answerRead(w, b, 512), 4096)
	require.Zero(t, w.s.Oldest())
}

// TestStrangeStream: a connection that comes too late is given up, and its end
// is nobody's business.
func TestStrangeStream(t *testing.T) {
	w := newWorld(t)
	w.s.Start()
	late := w.h
	w.s.Close()
	w.s.Connected(w.h, w)
	late.Closed(io.EOF)
	require.Equal(t, StateClosed, w.s.State())
	require.Equal(t, []string{"closed", "abort"}, w.lines[len(w.lines)-2:])
}

// TestStatsOfLife: what a snapshot tells at the stages of a session.
func TestStatsOfLife(t *testing.T) {
	w := newWorld(t)
	var log strings.Builder
	w.s.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.quick()
	st := w.s.Stats()
	assert.Equal(t, StateLoggedIn, st.State)
	assert.Equal(t, "127.0.0.1:3260", st.Portal)
	assert.EqualValues(t, 7, st.TSIH)
	assert.Equal(t, 1, st.TPGT)
	assert.EqualValues(t, 1, st.Logins)
	assert.Equal(t, 32, st.Room)
	assert.Equal(t, w.now, st.LastReceived)
	assert.Positive(t, st.BytesSent)
	assert.Positive(t, st.BytesReceived)
	assert.Empty(t, st.LastError)
	w.h.Closed(io.EOF)
	st = w.s.Stats()
	assert.Equal(t, StateRecovering, st.State)
	assert.EqualValues(t, 1, st.Losses)
	assert.Equal(t, w.timer, st.RetryAt)
	assert.Contains(t, st.LastError, "closed by the target")
	w.s.Close()
	st = w.s.Stats()
	assert.Equal(t, StateClosed, st.State)
	assert.Zero(t, st.RetryAt)
	assert.Contains(t, log.String(), "logged in")
	assert.Contains(t, log.String(), "session down")
}

// TestReplyToTargetFailure: a response code other than "completed" is an error
// of the command alone.
func TestReplyToTargetFailure(t *testing.T) {
	w := newWorld(t)
	w.quick()
	c := &Command{Owner: w, Dir: DirRead, Data: make([]byte, 512)}
	require.True(t, w.s.Submit(c))
	r := pdu.SCSIResponse{Response: 1, ITT: w.s.tasks.first().itt, StatSN: 102, ExpCmdSN: 2, MaxCmdSN: 9}
	w.feed(r.AppendTo(nil), 48)
	require.NotNil(t, c.Err)
	assert.Equal(t, KindResponse, c.Err.Kind)
	assert.True(t, c.Sent())
	assert.Contains(t, c.Err.Error(), "response 01")
	assert.Equal(t, StateLoggedIn, w.s.State())
}
