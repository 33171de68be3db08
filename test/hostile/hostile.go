// Package hostile runs real sessions, over sockets and the loop of this system, against targets that answer with well-framed PDUs of which many are lies: at
// login, with commands under way, and when nothing was asked. What a session hands over as read must be what is on the disk, every command must end, and
// neither memory nor goroutines may pile up.
//
// What does not belong here: targets that merely fail (package tcpproxy and iscsitest's FaultProxy), and bytes that are no PDUs (the fuzz tests).
package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
	"github.com/iscsimp/iscsimp/test/wire"
)

// Bounds on what the process may use, this package's own share included.
const (
	maxHeap       = 512 << 20
	maxGoroutines = 600
)

// Report is what a run did.
type Report struct {
	Connections, PDUs   int64
	Good, Failed, Short int64 // commands answered well, ended otherwise, and reads said to be shorter than asked for
	MaxHeap             uint64
	MaxGoroutines       int
}

// Content is what the disk holds: length bytes from byte offset of block lba on.
func Content(lba uint64, offset, length uint32) []byte {
	p := make([]byte, length)
	for i := 0; i+8 <= len(p); i += 8 {
		position := lba*unit + uint64(offset) + uint64(i)
		binary.LittleEndian.PutUint64(p[i:], position*0x9e3779b97f4a7c15+1) // the 1 keeps zeros from being right anywhere
	}
	return p
}

// Run plays for a time with a seed, and returns what happened and what was wrong: the first of each kind.
func Run(ctx context.Context, length time.Duration, seed uint64) (Report, error) {
	r := &run{seed: seed}
	before := runtime.NumGoroutine()
	playing, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var workers sync.WaitGroup
	for i, digests := range []pdu.Digests{{}, {Header: true, Data: true}, {Data: true}, {}} {
		workers.Go(func() {
			for round := uint64(0); playing.Err() == nil && r.failure() == nil; round++ {
				r.fail(r.round(playing, digests, rand.New(rand.NewPCG(seed+round, uint64(i)))))
			}
		})
	}
	workers.Go(func() { r.watch(playing) })
	workers.Wait()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if now := runtime.NumGoroutine(); now > before {
		stacks := make([]byte, 1<<20)
		r.fail(fmt.Errorf("%d goroutines are left, there were %d before:\n%s", now, before, stacks[:runtime.Stack(stacks, true)]))
	}
	return Report{
		Connections: r.connections.Load(), PDUs: r.pdus.Load(), Good: r.good.Load(), Failed: r.failed.Load(), Short: r.short.Load(),
		MaxHeap: r.maxHeap, MaxGoroutines: r.maxGoroutines,
	}, r.failure()
}

type run struct {
	seed                                   uint64
	connections, pdus, good, failed, short atomic.Int64

	maxHeap       uint64 // of watch
	maxGoroutines int

	mu  sync.Mutex
	err error
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

func (r *run) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// watch looks at the bounds until the end.
func (r *run) watch(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		r.maxHeap, r.maxGoroutines = max(r.maxHeap, m.HeapAlloc), max(r.maxGoroutines, runtime.NumGoroutine())
		if m.HeapAlloc > maxHeap {
			r.fail(fmt.Errorf("%d MiB of heap are in use", m.HeapAlloc>>20))
		}
		if n := runtime.NumGoroutine(); n > maxGoroutines {
			r.fail(fmt.Errorf("%d goroutines run", n))
		}
	}
}

// round has one session live through many connections.
func (r *run) round(ctx context.Context, digests pdu.Digests, rng *rand.Rand) (err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var serving sync.WaitGroup
	seed := rng.Uint64()
	serving.Go(func() { r.serve(listener, digests, seed) })
	defer serving.Wait()
	defer listener.Close()
	w, err := wire.Start(session.Config{
		TargetName: "iqn.2026-01.test:hostile", Portal: listener.Addr().String(), HeaderDigest: digests.Header, DataDigest: digests.Data,
		ReconnectMin: time.Millisecond, ReconnectMax: 2 * time.Millisecond, LoginTimeout: 500 * time.Millisecond, LogoutTimeout: 50 * time.Millisecond,
		NoopInterval: 20 * time.Millisecond, NoopTimeout: 200 * time.Millisecond, SuspectAfter: 50 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	playing, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	failures := make(chan error, 16)
	for range cap(failures) {
		own := rand.New(rand.NewPCG(rng.Uint64(), 1))
		go func() {
			var err error
			for playing.Err() == nil && err == nil {
				err = r.command(playing, w, own)
			}
			failures <- err
		}()
	}
	for range cap(failures) {
		err = errors.Join(err, <-failures)
	}
	return errors.Join(err, w.Close())
}

// serve is the target of one round.
func (r *run) serve(listener net.Listener, digests pdu.Digests, seed uint64) {
	var connections sync.WaitGroup
	defer connections.Wait()
	for number := uint64(0); ; number++ {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		r.connections.Add(1)
		rng := rand.New(rand.NewPCG(seed, number))
		t := &target{conn: conn, rng: rng, digests: digests, lies: []int{2, 10, 50, 200}[rng.IntN(4)], statSN: rng.Uint32()}
		connections.Go(func() {
			end := time.AfterFunc(time.Second, func() { _ = conn.Close() })
			defer end.Stop()
			r.pdus.Add(int64(t.serve()))
		})
	}
}

// command runs one command and judges what came back.
func (r *run) command(ctx context.Context, w *wire.Session, rng *rand.Rand) error {
	blocks := rng.IntN(64) + 1
	lba := uint64(rng.IntN(1 << 20))
	c := session.Command{LUN: scsi.MakeLUN(0), Dir: session.DirRead, Data: make([]byte, blocks*unit), CDB: scsi.Read16(lba, uint32(blocks), 0)}
	if rng.IntN(4) == 0 {
		c.Dir, c.CDB = session.DirWrite, scsi.Write16(lba, uint32(blocks), 0)
	}
	// Without the end of the run: a command under way must end by itself.
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	done, err := w.RunWithin(ctx, limit, c)
	switch {
	case errors.Is(err, wire.ErrNoRoom):
		return nil
	case err != nil:
		return err
	case done.Err != nil || done.Status != scsi.Good:
		r.failed.Add(1)
		return nil
	}
	r.good.Add(1)
	if done.Dir != session.DirRead {
		return nil
	}
	if done.Received > len(done.Data) {
		return fmt.Errorf("seed %d: %d bytes received of a read of %d", r.seed, done.Received, len(done.Data))
	}
	if done.Received < len(done.Data) {
		r.short.Add(1) // Received tells; whoever wants all of it has to look, whatever the target says about residuals
	}
	if !bytes.Equal(done.Data[:done.Received], Content(lba, 0, uint32(done.Received))) {
		return fmt.Errorf("seed %d: a read of %d bytes from block %d was handed over as good with wrong data", r.seed, done.Received, lba)
	}
	return nil
}
