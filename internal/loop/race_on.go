//go:build linux && race

package loop

import (
	"runtime"
	"unsafe"
)

// The race detector cannot see what the kernel reads and writes on behalf of a
// raw system call; these tell it.

func raceKernelReads(b []byte) {
	if len(b) > 0 {
		runtime.RaceReadRange(unsafe.Pointer(unsafe.SliceData(b)), len(b))
	}
}

func raceKernelWrites(b []byte) {
	if len(b) > 0 {
		runtime.RaceWriteRange(unsafe.Pointer(unsafe.SliceData(b)), len(b))
	}
}
