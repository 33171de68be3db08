package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/mpio"
)

// Lines that have as much to carry as they can get no second copies on top; a
// path that stalls has its reads rescued by some.
func TestHedgesOnBusyLines(t *testing.T) {
	set, err := find("lines-2/qd128,lines-2/open90,stall-2/qd8")
	require.NoError(t, err)
	o := options{policies: []string{mpio.PolicyLatency}, seed: 1, warmUp: time.Second, measure: time.Second, jobs: 2, whole: true}
	tables, err := runAll(set, o)
	require.NoError(t, err)
	for _, table := range tables[:2] {
		r := table.results[0]
		assert.LessOrEqual(t, float64(r.Hedges), float64(r.Requests)/1000, table.Name)
	}
	assert.NotZero(t, tables[2].results[0].Wins)
}
