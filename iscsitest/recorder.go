package iscsitest

import (
	"sync"

	"github.com/iscsimp/iscsimp/pdu"
)

// Recorder keeps the PDUs that passed a Target or FaultProxy.
type Recorder struct {
	mu sync.Mutex
}

func (r *Recorder) record(dir Direction, portal, conn int, bhs pdu.BHS, data []byte) {}
