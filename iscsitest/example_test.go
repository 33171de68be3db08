package iscsitest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/iscsimp/iscsimp/iscsitest"
)

// A disk behind two portals, of which the second is reached through a proxy that
// makes it slow; the third write hangs in the target until the test lets it go.
func Example() {
	tgt, err := iscsitest.NewTarget(iscsitest.Config{
		Portals: []iscsitest.Portal{{TPGT: 1}, {TPGT: 2}},
		LUNs:    []iscsitest.LUN{{Size: 1 << 30, BlockSize: 4096}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tgt.Close()
	proxy, err := iscsitest.NewFaultProxy(iscsitest.ProxyConfig{Target: tgt.Addr(1)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer proxy.Close()
	proxy.SetDelay(20 * time.Millisecond)

	stuck := iscsitest.NewHold(iscsitest.HoldHung)
	tgt.Inject(iscsitest.And(iscsitest.Writes(), iscsitest.OnLUN(0), iscsitest.OnIndex(2)), iscsitest.HoldWrite(stuck))

	// … log in to tgt.Addr(0) and proxy.Addr(), write, and wait for the hang …
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := stuck.WaitHeld(ctx, 1); err != nil {
		fmt.Println("nobody wrote three times")
	}
	stuck.Release()
	fmt.Println(len(tgt.Violations()), "violations")
	// Output:
	// nobody wrote three times
	// 0 violations
}
