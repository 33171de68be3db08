package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// Flag names of what a login negotiates; RFC 7143 §13 and open-iscsi call the
// keys the same.
const (
	flagConnections       = "connections"
	flagRecoveryLevel     = "error-recovery-level"
	flagInitialR2T        = "initial-r2t"
	flagImmediateData     = "immediate-data"
	flagPDUInOrder        = "data-pdu-in-order"
	flagSequenceInOrder   = "data-sequence-in-order"
	flagFirstBurst        = "first-burst-length"
	flagMaxBurst          = "max-burst-length"
	flagMaxRecv           = "max-recv-data-segment-length"
	flagMaxOutstandingR2T = "max-outstanding-r2t"
)

const (
	minLength = 512 // bytes, of all lengths here (RFC 7143 §13.12 to §13.14)
	maxLength = 1<<24 - 1
)

func keyFlags() []cli.Flag {
	lengths := fmt.Sprintf("`BYTES`, %d to %d", minLength, maxLength)
	return inCategory("Negotiation",
		&cli.IntFlag{Name: flagConnections, Value: 1, Usage: "make `N` TCP connections per path, 1 to 16, as far as the target allows (MC/S)"},
		&cli.IntFlag{Name: flagRecoveryLevel, Value: 0, Usage: "`LEVEL` 0: a path is lost with any of its connections; 2: the others carry on. LIO (Linux) gets one connection at 0, and may crash at 2"},
		&cli.BoolFlag{Name: flagInitialR2T, DisableDefaultText: true, Usage: "have the target ask for all data of a write but immediate data"},
		&cli.StringFlag{Name: flagImmediateData, Value: "yes", Usage: "`yes` or no: send data along with a write command"},
		&cli.StringFlag{Name: flagPDUInOrder, Value: "yes", Usage: "`yes` or no: the PDUs of a sequence come in order"},
		&cli.StringFlag{Name: flagSequenceInOrder, Value: "yes", Usage: "`yes` or no: the sequences of a transfer come in order"},
		&cli.IntFlag{Name: flagFirstBurst, Value: 262144, Usage: "send at most so much of a write unasked: " + lengths},
		&cli.IntFlag{Name: flagMaxBurst, Value: 16776192, Usage: "transfer at most so much in one sequence: " + lengths},
		&cli.IntFlag{Name: flagMaxRecv, Value: 262144, Usage: "take at most so much in one PDU: " + lengths},
		&cli.IntFlag{Name: flagMaxOutstandingR2T, Value: 8, Usage: "let the target ask for at most `N` parts of a write at a time, 1 to 65535; 1 at --" + flagRecoveryLevel + " 2"},
	)
}

// readKeys reads keyFlags.
func (o *loginOptions) readKeys(c *cli.Context) error {
	for _, k := range []struct {
		flag   string
		lo, hi int
		set    func(int)
	}{
		{flagConnections, 1, 16, func(n int) { o.cfg.Connections = n }},
		{flagRecoveryLevel, 0, 2, func(n int) { o.cfg.ErrorRecoveryLevel = uint8(n) }},
		{flagCommandsMax, 1, 4096, func(n int) { o.cfg.CommandsMax = n }},
		{flagMaxTransfer, 64 << 10, 4 << 20, func(n int) { o.cfg.MaxTransfer = uint32(n) }},
		{flagFirstBurst, minLength, maxLength, func(n int) { o.cfg.FirstBurstLength = uint32(n) }},
		{flagMaxBurst, minLength, maxLength, func(n int) { o.cfg.MaxBurstLength = uint32(n) }},
		{flagMaxRecv, minLength, maxLength, func(n int) { o.cfg.MaxRecvDataSegmentLength = uint32(n) }},
		{flagMaxOutstandingR2T, 1, 65535, func(n int) { o.cfg.MaxOutstandingR2T = uint16(n) }},
	} {
		n := c.Int(k.flag)
		if n < k.lo || n > k.hi {
			return usagef("--%s %d: must be from %d to %d", k.flag, n, k.lo, k.hi)
		}
		k.set(n)
	}
	if o.cfg.FirstBurstLength > o.cfg.MaxBurstLength {
		if c.IsSet(flagFirstBurst) {
			return usagef("--%s %d is more than --%s %d; lower the one or raise the other", flagFirstBurst, o.cfg.FirstBurstLength, flagMaxBurst, o.cfg.MaxBurstLength)
		}
		o.cfg.FirstBurstLength = o.cfg.MaxBurstLength
	}
	switch level := o.cfg.ErrorRecoveryLevel; {
	case level == 1:
		return usagef("--%s 1: only 0 and 2 are offered", flagRecoveryLevel)
	case level == 2 && o.cfg.Connections == 1:
		return usagef("--%s 2 is of use only with several connections: add --%s N", flagRecoveryLevel, flagConnections)
	}
	o.cfg.InitialR2T = c.Bool(flagInitialR2T)
	return readDeclined(c, map[string]*bool{
		flagImmediateData: &o.cfg.NoImmediateData, flagPDUInOrder: &o.cfg.AnyPDUOrder, flagSequenceInOrder: &o.cfg.AnySequenceOrder,
	})
}

// readDeclined reads options that are yes or no, and sets what stands for no.
func readDeclined(c *cli.Context, options map[string]*bool) error {
	for flag, declined := range options {
		switch value := c.String(flag); strings.ToLower(value) {
		case "yes":
		case "no":
			*declined = true
		default:
			return usagef("--%s %q: use yes or no", flag, value)
		}
	}
	return nil
}
