package hostile

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHostileTargets is the short form of cmd/hostile; ISCSIMP_SEED repeats a run's decisions, though not its timing.
func TestHostileTargets(t *testing.T) {
	seed := rand.Uint64()
	if given := os.Getenv("ISCSIMP_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 0, 64)
		require.NoError(t, err)
	}
	t.Logf("seed: ISCSIMP_SEED=%d", seed)
	report, err := Run(t.Context(), time.Minute, seed)
	t.Logf("%+v", report)
	require.NoError(t, err)
	assert.Greater(t, report.Connections, int64(100))
	assert.Greater(t, report.Good, int64(100), "the target lies so much that nothing is tested behind the login")
	assert.Greater(t, report.Failed, int64(100))
}
