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
