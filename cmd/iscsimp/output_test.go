package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// writes counts how often it is written to.
type writes int

func (w *writes) Write(b []byte) (int, error) {
	*w++
	return len(b), nil
}

// TestTablesAreWrittenInOnePiece: a reader that takes the first line and leaves, as
// head does, must not end the program by a signal, which scripts take for a failure.
func TestTablesAreWrittenInOnePiece(t *testing.T) {
	var n writes
	require.NoError(t, writePaths(&n, explainSamples()))
	assert.Equal(t, writes(1), n)
	require.NoError(t, devicesTable(explainSamples()).writeTo(&n))
	assert.Equal(t, writes(2), n)
	require.NoError(t, writeExplained(&n, explainSamples()))
	assert.Equal(t, writes(3), n)
}
