package main

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/mpio"
)

func TestStatusFromASnapshot(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var st deviceStatus
	fillStatus(&st, initiator.Snapshot{
		State: "no-path", NoPathFor: 3, NoPathLeft: 117, FencedCount: 70,
		Fenced: []mpio.Fence{{Path: "2", Op: "WRITE", Offset: 512, Length: 1024, Age: 3, Left: 57}},
		Paths: []initiator.PathSnapshot{
			{ID: "1", Portal: "10.0.0.1:3260", State: mpio.StateOffline, Since: 60},
			{ID: "2", Portal: "10.0.0.2:3260", State: mpio.StateDown, Since: 1.5, Reason: "10.0.0.2:3260: connection lost"},
		},
	}, now)
	require.NotNil(t, st.NoPathSecondsLeft)
	assert.InDelta(t, 117, *st.NoPathSecondsLeft, 0)
	assert.Equal(t, 70, st.FencedTotal)
	assert.Equal(t, "10.0.0.2:3260", st.Fenced[0].Portal)
	assert.Equal(t, "offline", st.Paths[0].State)
	assert.Equal(t, "2026-11-22T11:59:58.500Z", st.Paths[1].Since)
	assert.Equal(t, "connection lost", st.Paths[1].Reason, "the portal has a column of its own")
	assert.Equal(t, 2, st.PathsTotal)

	st = deviceStatus{}
	fillStatus(&st, initiator.Snapshot{NoPathFor: 3, NoPathLeft: -1}, now)
	assert.Nil(t, st.NoPathSecondsLeft, "there is no limit")
	fillStatus(&st, initiator.Snapshot{}, now)
	assert.Nil(t, st.NoPathSecondsLeft, "there is a path")
}

func TestLinkInStatus(t *testing.T) {
	p := initiator.PathSnapshot{Aborts: 2, Resets: 1}
	p.Link.RetryIn, p.Link.RejectAge, p.Link.AsyncAge = 1.5, 3, 4
	p.Session.Conns = []initiator.ConnStats{{CID: 1, State: "up", LocalAddr: "a:1", Outstanding: 5, Latency: 0.25, Silent: true, RetryIn: 9}}
	p.Session.LastReject = initiator.Notice{Text: "invalid-field", Count: 2}
	st := newPathStatus(p, time.Now())
	assert.Equal(t, []connectionStatus{{1, "up", "a:1", 5, 0.25, true, 9}}, st.ConnectionList)
	assert.InDelta(t, 1.5, st.RetrySeconds, 0)
	assert.Equal(t, uint64(2), st.Aborts)
	assert.Equal(t, uint64(1), st.Resets)
	assert.Equal(t, &targetNotice{"invalid-field", 2, 3}, st.LastReject)
	assert.Nil(t, st.LastAsync, "there was none")
}

func TestLimitsInStatus(t *testing.T) {
	cfg := initiator.Config{CommandTimeout: time.Second, FenceTimeout: 2 * time.Second, NoPathTimeout: initiator.Forever, LUNReset: true}
	assert.Equal(t, deviceLimits{1, true, 2, -1}, limitsOf(&cfg))
	cfg = initiator.Config{CommandTimeout: time.Second, FenceTimeout: 2 * time.Second, FailFast: true, LUNReset: true, Shared: true}
	assert.Equal(t, deviceLimits{1, false, 2, 0}, limitsOf(&cfg), "a shared LUN is never reset")
}

func TestControlBeforeTheDeviceIsReady(t *testing.T) {
	ends := newEnding(t.Context(), slog.New(slog.DiscardHandler))
	defer ends.stop()
	r := newRunner(loginOptions{name: "x", cfg: initiator.Config{Target: someIQN, Logger: slog.New(slog.DiscardHandler)}}, ends)
	st, err := r.status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "starting", st.State)
	assert.NotNil(t, st.Paths)
	assert.Error(t, r.steer(t.Context(), pathCommand{Path: "1", Action: "up"}))
	assert.Equal(t, exitInvalid, exitCode(r.steer(t.Context(), pathCommand{Path: "1", Action: "sideways"})))
	assert.Equal(t, exitInvalid, exitCode(r.steer(t.Context(), pathCommand{Action: "failback", Value: "never"})))
	assert.Equal(t, exitInvalid, exitCode(r.steer(t.Context(), pathCommand{Action: "policy", Value: "fastest"})))
}

func TestEnding(t *testing.T) {
	e := newEnding(t.Context(), slog.New(slog.DiscardHandler))
	defer e.stop()
	assert.NoError(t, e.soft.Err())
	e.end("asked", false)
	assert.Error(t, e.soft.Err())
	require.NoError(t, e.hard.Err(), "once is not by force")
	e.end("asked again", true)
	assert.Error(t, e.hard.Err())
	require.NoError(t, e.failure())
	first := errors.New("broken")
	e.fail(first)
	e.fail(errors.New("more broken"))
	assert.Equal(t, first, e.failure())
}
