// Command iscsitarget serves the test kit's Target over TCP, so that foreign
// initiators can be run against it. It is a tool for tests: without -chap everybody may log in.
//
// It prints one line "portal HOST:PORT" for each portal when it is ready, then
// "ready", and serves until SIGINT, SIGTERM or the end of standard input (with
// -stdin).
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/session/chap"
)

type options struct {
	portals   string
	name      string
	size      int64
	blockSize uint
	luns      int
	physical  uint
	stdin     bool
	verbose   bool
	trace     bool
	readOnly  bool
	tpgts     bool
	conns     uint
	erl       uint
	chap      chapFlags
	params    iscsitest.Params
	quirks    iscsitest.Quirks
}

func main() {
	log.SetFlags(log.Lmicroseconds)
	o := parseFlags()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func parseFlags() options {
	var o options
	flag.StringVar(&o.portals, "portals", "127.0.0.1:0", "comma-separated `addresses` to listen on")
	flag.StringVar(&o.name, "name", iscsitest.DefaultName, "iSCSI `name` of the target")
	flag.Int64Var(&o.size, "size", 64<<20, "size of each LUN in `bytes`")
	flag.UintVar(&o.blockSize, "block-size", 512, "logical block size in `bytes`")
	flag.UintVar(&o.physical, "physical-exponent", 0, "2^`n` logical blocks make a physical block")
	flag.IntVar(&o.luns, "luns", 1, "`number` of LUNs, from 0")
	flag.BoolVar(&o.stdin, "stdin", false, "end when standard input ends")
	flag.BoolVar(&o.verbose, "v", false, "log logins, losses and violations")
	flag.BoolVar(&o.trace, "trace", false, "print every PDU")
	flag.BoolVar(&o.readOnly, "read-only", false, "refuse writes")
	flag.BoolVar(&o.tpgts, "tpgt-per-portal", false, "give each portal a portal group of its own")
	flag.BoolVar(&o.params.InitialR2T, "initial-r2t", false, "insist on InitialR2T=Yes")
	flag.BoolVar(&o.params.NoImmediateData, "no-immediate-data", false, "insist on ImmediateData=No")
	flag.BoolVar(&o.params.SeparateStatus, "separate-status", false, "send read status in a SCSI Response of its own")
	flag.BoolVar(&o.quirks.TSIHZero, "tsih-zero", false, "quirk: answer logins with TSIH 0")
	flag.BoolVar(&o.quirks.NoReinstatement, "no-reinstatement", false, "quirk: keep the old session on reinstatement")
	flag.BoolVar(&o.quirks.JoinNeedsSecurity, "join-needs-security", false, "quirk: connections join a session through the security stage only")
	flag.BoolVar(&o.quirks.DropSessionWithConnection, "drop-session-with-connection", false, "quirk: a lost connection ends its session below ErrorRecoveryLevel 2")
	flag.UintVar(&o.conns, "max-connections", 1, "most `connections` per session")
	flag.UintVar(&o.erl, "erl", 0, "highest ErrorRecoveryLevel, `0..2`")
	flag.BoolFunc("fast-abort", "agree to TaskReporting=FastAbort", func(string) error {
		o.params.TaskReporting = iscsitest.ReportFastAbort
		return nil
	})
	flag.Func("time2wait", "DefaultTime2Wait in `seconds`", seconds(&o.params.DefaultTime2Wait))
	flag.Func("time2retain", "DefaultTime2Retain in `seconds`", seconds(&o.params.DefaultTime2Retain))
	flag.Func("chap", "let `USER:FILE` log in, with the secret in FILE, and nobody without CHAP; may be repeated", o.chap.user)
	flag.Func("chap-mutual", "prove the target to be `USER:FILE`, with the secret in FILE", o.chap.mutual)
	flag.Parse()
	o.params.MaxConnections = uint16(min(o.conns, 65535))
	o.params.ErrorRecoveryLevel = uint8(min(o.erl, 255))
	return o
}

// seconds parses a flag; the target checks the range.
func seconds(v *uint16) func(string) error {
	return func(text string) error {
		n, err := strconv.ParseUint(text, 10, 16)
		*v = uint16(n)
		return err
	}
}

// chapFlags are the users known by flags.
type chapFlags struct{ iscsitest.CHAP }

func (c *chapFlags) user(text string) error {
	name, secret, err := userAndSecret(text)
	if err != nil {
		return err
	}
	if c.Users == nil {
		c.Users = make(map[string]chap.Secret)
	}
	c.Users[name] = secret
	return nil
}

func (c *chapFlags) mutual(text string) (err error) {
	c.MutualUser, c.MutualSecret, err = userAndSecret(text)
	return err
}

func userAndSecret(text string) (string, chap.Secret, error) {
	user, file, ok := strings.Cut(text, ":")
	if !ok || user == "" {
		return "", chap.Secret{}, errors.New("want USER:FILE")
	}
	secret, err := chap.LoadSecretFile(file)
	return user, secret, err
}

func config(o options) iscsitest.Config {
	cfg := iscsitest.Config{Name: o.name, Params: o.params, Quirks: o.quirks, LUNs: []iscsitest.LUN{}}
	for i, addr := range strings.Split(o.portals, ",") {
		p := iscsitest.Portal{Addr: strings.TrimSpace(addr)}
		if o.tpgts {
			p.TPGT = uint16(i + 1)
		}
		cfg.Portals = append(cfg.Portals, p)
	}
	for i := range o.luns {
		cfg.LUNs = append(cfg.LUNs, iscsitest.LUN{
			Number: uint16(i), Size: o.size, BlockSize: uint32(o.blockSize), ReadOnly: o.readOnly,
			PhysicalExponent: uint8(min(o.physical, 15)),
		})
	}
	if len(o.chap.Users) > 0 || o.chap.MutualUser != "" {
		cfg.CHAP = &o.chap.CHAP
	}
	if o.trace {
		cfg.Recorder = &iscsitest.Recorder{Live: os.Stderr, Limit: 1000}
	}
	if o.verbose {
		cfg.Logf = log.Printf
	}
	return cfg
}

func run(o options) error {
	t, err := iscsitest.NewTarget(config(o))
	if err != nil {
		return err
	}
	defer t.Close()
	for _, addr := range t.Addrs() {
		fmt.Println("portal", addr)
	}
	fmt.Println("ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	if o.stdin {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			stop <- os.Interrupt
		}()
	}
	<-stop
	return nil
}
