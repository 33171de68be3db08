package main

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/test/tcpproxy"
)

func TestCommands(t *testing.T) {
	proxy, err := tcpproxy.Open("127.0.0.1:0", "127.0.0.1:1")
	require.NoError(t, err)
	defer proxy.Close()
	for _, c := range []struct {
		command string
		status  int
		answer  string
	}{
		{"/status", 200, "forwarding delay=0s open=0 accepted=0 to-target=0 to-client=0\n"},
		{"/delay?each=5ms", 200, "forwarding delay=5ms"},
		{"/delay?each=soon", 400, "say delay?each=5ms"},
		{"/stall", 200, "stalled"},
		{"/cut", 200, "cut"},
		{"/reset", 200, "cut"},
		{"/go", 200, "forwarding delay=0s"},
		{"/explode", 404, "unknown command"},
	} {
		recorder := httptest.NewRecorder()
		handler(proxy).ServeHTTP(recorder, httptest.NewRequest("GET", c.command, nil))
		assert.Equal(t, c.status, recorder.Code, c.command)
		assert.Contains(t, recorder.Body.String(), c.answer, c.command)
	}
}
