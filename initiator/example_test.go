package initiator_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// exampleTarget stands for the storage array.
func exampleTarget() *iscsitest.Target {
	tgt, err := iscsitest.NewTarget(iscsitest.Config{
		Name:    "iqn.2026-01.com.example:disk1",
		Portals: make([]iscsitest.Portal, 2),
		LUNs:    []iscsitest.LUN{{Size: 1 << 20, BlockSize: 4096}},
	})
	if err != nil {
		log.Fatal(err)
	}
	return tgt
}

func ExampleDiscover() {
	tgt := exampleTarget()
	defer tgt.Close()

	found, err := initiator.Discover(context.Background(), initiator.DiscoverConfig{
		Portals:       []string{tgt.Addr(0)},
		InitiatorName: "iqn.2026-01.com.example:host1",
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range found.Targets {
		fmt.Println(t.Name, "has", len(t.Portals), "portals")
	}
	// Output: iqn.2026-01.com.example:disk1 has 2 portals
}

func ExampleLuns() {
	tgt := exampleTarget()
	defer tgt.Close()

	found, err := initiator.Luns(context.Background(), "iqn.2026-01.com.example:disk1", initiator.DiscoverConfig{
		Portals:       []string{tgt.Addr(0)},
		InitiatorName: "iqn.2026-01.com.example:host1",
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, lun := range found.LUNs {
		fmt.Println("LUN", lun.LUN, "has", lun.SizeBytes, "bytes in blocks of", lun.BlockSize)
	}
	// Output: LUN 0 has 1048576 bytes in blocks of 4096
}

func ExampleOpen() {
	tgt := exampleTarget()
	defer tgt.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dev, err := initiator.Open(ctx, initiator.Config{
		Target:        "iqn.2026-01.com.example:disk1",
		Portals:       []string{tgt.Addr(0)}, // the others are discovered
		InitiatorName: "iqn.2026-01.com.example:host1",
		Wait:          initiator.WaitAll,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Abort() // does nothing after Close

	block := make([]byte, dev.BlockSize())
	copy(block, "hello")
	if _, err := dev.WriteAt(block, 8192); err != nil {
		log.Fatal(err)
	}
	if err := dev.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	word := make([]byte, 5)
	if _, err := dev.ReadAt(word, 8192); err != nil {
		log.Fatal(err)
	}
	state, err := dev.Snapshot(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s over %d paths\n", word, state.PathsUp)
	if err := dev.Close(ctx); err != nil { // drains, flushes, logs out
		log.Fatal(err)
	}
	// Output: hello over 2 paths
}

// A cluster's hosts register a key each and reserve the LUN for those who are
// registered. A host that is to be shut out is preempted by its key.
func ExampleDevice_Reserve() {
	tgt := exampleTarget()
	defer tgt.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	open := func(host string) *initiator.Device {
		dev, err := initiator.Open(ctx, initiator.Config{
			Target:        "iqn.2026-01.com.example:disk1",
			Portals:       []string{tgt.Addr(0)},
			InitiatorName: "iqn.2026-01.com.example:" + host,
			Wait:          initiator.WaitAll,
		})
		if err != nil {
			log.Fatal(err)
		}
		return dev
	}
	one, two := open("host1"), open("host2")
	defer one.Abort()
	defer two.Abort()
	for key, dev := range map[uint64]*initiator.Device{1: one, 2: two} {
		if err := dev.Register(ctx, initiator.Registration{Key: key}); err != nil {
			log.Fatal(err)
		}
	}
	if err := one.Reserve(ctx, initiator.WriteExclusiveRegistrantsOnly); err != nil {
		log.Fatal(err)
	}

	// Host 1 hangs. Host 2 takes over: it shuts host 1 out, and ends its writes.
	if err := two.Preempt(ctx, initiator.Preemption{Key: 1, Abort: true}); err != nil {
		log.Fatal(err)
	}
	block := make([]byte, two.BlockSize())
	_, err := two.WriteAt(block, 0)
	fmt.Println("host 2:", err)
	_, err = one.WriteAt(block, 0)
	fmt.Println("host 1 was fenced off:", errors.Is(err, initiator.ErrPreempted))
	// Output:
	// host 2: <nil>
	// host 1 was fenced off: true
}

// reader counts the requests that are still under way.
type reader struct{ wg sync.WaitGroup }

func (r *reader) RequestDone(q *initiator.Request) {
	if q.Err != nil {
		log.Print(q.Err)
	}
	r.wg.Done()
}

func ExampleDevice_Submit() {
	tgt := exampleTarget()
	defer tgt.Close()
	ctx := context.Background()
	dev, err := initiator.Open(ctx, initiator.Config{
		Target:        "iqn.2026-01.com.example:disk1",
		Portals:       []string{tgt.Addr(0)},
		InitiatorName: "iqn.2026-01.com.example:host1",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Abort()

	// Many requests in flight, without a goroutine for each.
	var r reader
	blocks := make([]byte, dev.Size())
	size := uint64(dev.BlockSize())
	for off := uint64(0); off < dev.Size(); off += size {
		r.wg.Add(1)
		dev.Submit(&initiator.Request{
			Op: initiator.OpRead, Offset: off, Length: size, Data: blocks[off : off+size], Owner: &r,
		})
	}
	r.wg.Wait()
	fmt.Println("read", len(blocks), "bytes")
	if err := dev.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: read 1048576 bytes
}
