// Command gotgtd runs the gotgt iSCSI target as a process of its own, for the demo and the interop tests: one RAM LUN behind several portals.
//
//	gotgtd -portals 127.0.0.2:3260,127.0.0.3:3260 -iqn iqn.2026-01.test:demo -size 64
//
// It prints "ready" once every portal accepts connections, and exits on SIGTERM, on SIGINT, or when its standard input closes, so that a parent that is
// killed leaves no orphan behind.
//
// It is a process and not a package because gotgt v0.2.2 cannot be embedded safely: several easy inputs make it panic in goroutines of its own, it is not
// race-clean, and closing it leaves its sessions running.
//
// gotgt binds its port on every interface of the machine, not only on the portals' addresses. A login is accepted only through the portals named here, but
// whoever must not be able to connect at all runs it in a network namespace. All portals therefore share one port.
//
// What does not belong here: other targets, fault injection, anything that hides what gotgt does on the wire.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// options are the command line, checked.
type options struct {
	portals    []string // host:port, all with the same port
	port       int
	iqn        string
	sizeBytes  int64
	storePath  string // "" is RAM, otherwise an absolute path of an existing file
	blockShift uint
	verbose    bool
}

func main() {
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotgtd:", err)
		os.Exit(1)
	}
}

// parseOptions reads the flags; help and flag errors go to usage.
func parseOptions(args []string, usage io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("gotgtd", flag.ContinueOnError)
	fs.SetOutput(usage)
	portals := fs.String("portals", "", "comma-separated host:port list, every one with the same port")
	fs.StringVar(&o.iqn, "iqn", "iqn.2026-01.io.github.iscsimp:gotgt", "target name")
	sizeMiB := fs.Int64("size", 64, "size of the LUN in MiB (1…4095)")
	store := fs.String("store", "ram", "ram, or file:/absolute/path")
	fs.UintVar(&o.blockShift, "block-shift", 9, "log2 of the block size: 9 (512 bytes) or 12 (4096 bytes)")
	// One processor is not thrift. gotgt looks initiators up in a map that logins write to without a common lock; with two processors a login during I/O
	// can end in "fatal error: concurrent map iteration and map write". The runtime never preempts a goroutine in the middle of a map write, so with one
	// processor that cannot happen.
	procs := fs.Int("procs", 1, "GOMAXPROCS; more than 1 is faster, but gotgt may then die of its own data races")
	fs.BoolVar(&o.verbose, "v", false, "log what gotgt says to standard error")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	runtime.GOMAXPROCS(*procs)
	o.sizeBytes = *sizeMiB << 20
	switch path, isFile := strings.CutPrefix(*store, "file:"); {
	case *sizeMiB < 1 || *sizeMiB > 4095:
		return o, fmt.Errorf("-size %d: give 1 to 4095 MiB (gotgt counts the bytes of an UNMAP in 32 bits)", *sizeMiB)
	case o.blockShift != 9 && o.blockShift != 12:
		return o, fmt.Errorf("-block-shift %d: give 9 (512-byte blocks) or 12 (4096-byte blocks)", o.blockShift)
	case isFile && strings.HasPrefix(path, "/"):
		o.storePath = path
	case *store != "ram":
		return o, fmt.Errorf("-store %q: give ram or file:/absolute/path", *store)
	}
	return o, o.parsePortals(*portals)
}

func (o *options) parsePortals(list string) error {
	for portal := range strings.SplitSeq(list, ",") {
		host, port, err := net.SplitHostPort(portal)
		n, errPort := strconv.Atoi(port)
		if err != nil || errPort != nil || net.ParseIP(host) == nil || n < 1 || n > 65535 {
			return fmt.Errorf("-portals: %q is not IP:PORT (example: 127.0.0.2:3260)", portal)
		}
		if o.port != 0 && n != o.port {
			return fmt.Errorf("-portals: %s has another port than %d; gotgt listens on a single one, use several addresses instead", portal, o.port)
		}
		o.port = n
		o.portals = append(o.portals, portal)
	}
	return nil
}

func run(o options) error {
	// gotgt calls os.Exit without a word when its port is taken: find out first.
	probe, err := net.Listen("tcp", ":"+strconv.Itoa(o.port))
	if err != nil {
		return fmt.Errorf("port %d is needed on all interfaces: %w; choose another one", o.port, err)
	}
	if err := probe.Close(); err != nil {
		return err
	}
	logrus.SetOutput(io.Discard)
	if o.verbose {
		logrus.SetOutput(os.Stderr)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	parentGone := make(chan struct{})
	go func() {
		defer close(parentGone)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()

	ended, err := serve(o)
	if err != nil {
		return err
	}
	if err := waitReachable(o.portals, 30*time.Second); err != nil {
		return err
	}
	fmt.Println("ready")
	select {
	case err := <-ended:
		return fmt.Errorf("gotgt stopped by itself: %w", cmp.Or(err, errors.New("it gives no reason")))
	case <-stop:
	case <-parentGone:
	}
	return nil
}

// waitReachable dials each portal until it answers.
func waitReachable(portals []string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for _, portal := range portals {
		for {
			conn, err := net.DialTimeout("tcp", portal, time.Second)
			if err == nil {
				_ = conn.Close()
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("portal %s did not open within %v: %w", portal, limit, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}
