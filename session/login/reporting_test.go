package login

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const fullReporting = "TaskReporting=FastAbort,ResponseFence,RFC3720"

func reportingConfig() Config {
	cfg := testConfig()
	cfg.TaskReporting = true
	return cfg
}

// TestTaskReporting: what becomes of the answers to our offer, and of the target's.
func TestTaskReporting(t *testing.T) {
	for value, want := range map[string]TaskReporting{
		"RFC3720": ReportRFC3720, "ResponseFence": ReportResponseFence, "FastAbort": ReportFastAbort,
		"NotUnderstood": ReportRFC3720, "Reject": ReportRFC3720, "Irrelevant": ReportRFC3720,
	} {
		res, err := settle(t, reportingConfig(), "TaskReporting="+value, "TaskReporting="+value)
		require.NoError(t, err, value)
		assert.Equal(t, want, res.TaskReporting, value)
	}
	for _, value := range []string{"", "fastabort", "FastAbort,RFC3720", "Other"} {
		_, err := settle(t, reportingConfig(), "TaskReporting="+value)
		broken(t, err, "TaskReporting")
	}
	_, err := settle(t, reportingConfig(), "TaskReporting=RFC3720", "TaskReporting=FastAbort")
	broken(t, err, "twice")

	for offer, want := range map[string]string{
		"FastAbort,RFC3720,ResponseFence": "FastAbort", "Other,ResponseFence": "ResponseFence",
		"RFC3720,FastAbort": "RFC3720", "Other": "Reject",
	} {
		m := New(reportingConfig())
		m.First()
		req, err := m.Step(toOperational, kv("TaskReporting="+offer))
		require.NoError(t, err)
		assert.Contains(t, items(t, req.Text), "TaskReporting="+want)
		assert.NotContains(t, items(t, req.Text), fullReporting, "offered besides")
		require.False(t, m.OfferedTaskReporting())
		_, err = m.Step(toFull, nil)
		require.NoError(t, err)
		if want == "Reject" {
			want = "RFC3720"
		}
		assert.Equal(t, want, m.Result().TaskReporting.String())
	}
}

// TestTaskReportingIsOffered only where it can do no harm.
func TestTaskReportingIsOffered(t *testing.T) {
	offered := func(cfg Config, keys ...string) bool {
		m := New(cfg)
		m.First()
		req, err := m.Step(toOperational, kv(keys...))
		require.NoError(t, err)
		require.Equal(t, m.OfferedTaskReporting(), slices.Contains(items(t, req.Text), fullReporting))
		return m.OfferedTaskReporting()
	}
	const answer = "AuthMethod=None"
	assert.True(t, offered(reportingConfig(), answer))
	assert.False(t, offered(reportingConfig()), "the target does not answer keys")
	assert.False(t, offered(testConfig(), answer), "not wanted")
	for name, change := range map[string]func(*Config){
		"minimal":              func(c *Config) { c.Minimal = true },
		"discovery":            func(c *Config) { c.Discovery = true },
		"a further connection": func(c *Config) { c.TSIH = 7 },
	} {
		cfg := reportingConfig()
		change(&cfg)
		assert.False(t, offered(cfg, answer), name)
	}
	cfg := reportingConfig()
	cfg.Discovery = true
	m, _ := operational(t, cfg)
	req, err := m.Step(stay, kv("TaskReporting=FastAbort"))
	require.NoError(t, err)
	require.Equal(t, []string{"TaskReporting=Irrelevant"}, items(t, req.Text))
}
