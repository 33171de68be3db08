package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session"
	"github.com/iscsimp/iscsimp/session/chap"
	"github.com/iscsimp/iscsimp/test/peer"
	"github.com/iscsimp/iscsimp/test/tcpproxy"
	"github.com/iscsimp/iscsimp/test/wire"
)

// Rows that a target may have no way to show.
const (
	rowTinyBursts   = "bursts of 512 bytes"
	rowSegments512  = "MaxRecvDataSegmentLength 512"
	rowSegments8K   = "MaxRecvDataSegmentLength 8192"
	rowInitialR2TNo = "InitialR2T=No"
	rowMCS2         = "MC/S, 2 connections"
	rowMCS4         = "MC/S, 4 connections"
	rowMCSLoss      = "MC/S, one of 4 connections cut"
	rowNOPIn        = "NOP-In by the target"
	rowWindow       = "command window of 4, 64 submitters"
	rowRedirect     = "redirect"
	rowAbort        = "task management: ABORT TASK"
	rowReset        = "task management: LOGICAL UNIT RESET, under load"
)

var (
	interopUser   = &peer.Account{User: "alice", Secret: "secret-of-alice-1"}
	interopTarget = &peer.Account{User: "tgtuser", Secret: "reverse-secret-2"}
)

func features() []feature {
	mcs := func(n int) demand { return demand{connections: n} }
	both := demand{headerDigest: true, dataDigest: true}
	return []feature{
		{name: "discovery (SendTargets)", lab: "login", run: runDiscovery},
		{name: "login, I/O, logout", lab: "login", run: runPlain(nil, nil)},
		{name: "CHAP, one-way", lab: "chap", needs: demand{chap: interopUser}, run: runCHAP(false)},
		{name: "CHAP, mutual", lab: "chap-mutual", needs: demand{chap: interopUser, mutual: interopTarget}, run: runCHAP(true)},
		{name: "CHAP, SHA-256 only", lab: "chap", needs: demand{chap: interopUser}, run: runCHAP(false, chap.SHA256)},
		{name: "CHAP, SHA3-256 only", lab: "chap", needs: demand{chap: interopUser}, run: runCHAP(false, chap.SHA3256)},
		{name: "header digest", lab: "digests", needs: demand{headerDigest: true}, run: runDigests(true, false)},
		{name: "data digest", lab: "digests", needs: demand{dataDigest: true}, run: runDigests(false, true)},
		{name: "both digests", lab: "digests", needs: both, run: runDigests(true, true)},
		{name: rowInitialR2TNo, lab: "bursts-big", needs: demand{unsolicited: true}, run: runPlain(nil, func(p session.Params) string {
			return unless(!p.InitialR2T, "answers Yes")
		})},
		{name: "ImmediateData=No", lab: "bursts-tiny", needs: demand{noImmediate: true}, run: runPlain(
			func(c *session.Config) { c.NoImmediateData = true }, func(p session.Params) string { return unless(!p.ImmediateData, "answers Yes") })},
		{name: rowTinyBursts, lab: "bursts-tiny", run: runPlain(
			func(c *session.Config) { c.MaxBurstLength, c.FirstBurstLength = 512, 512 },
			func(p session.Params) string { return unless(p.MaxBurstLength == 512, "insists on more") })},
		{name: "bursts of 8 MiB", lab: "bursts-big", needs: demand{burst: 8 << 20}, run: runPlain(
			func(c *session.Config) { c.MaxBurstLength, c.FirstBurstLength = 8<<20, 8<<20 },
			func(p session.Params) string { return unless(p.MaxBurstLength == 8<<20, "insists on less") })},
		{name: rowSegments512, lab: "bursts-tiny", run: runSegments(512)},
		{name: rowSegments8K, lab: "segments", run: runSegments(8192)},
		{name: "MaxRecvDataSegmentLength 256 KiB", lab: "segments", run: runSegments(256 << 10)},
		{name: "MaxRecvDataSegmentLength 16 MiB", lab: "segments", run: runSegments(1<<24 - 512)},
		{name: rowMCS2, lab: "mcs-2", needs: mcs(2), run: runConnections(2, false)},
		{name: rowMCS4, lab: "mcs-4", needs: mcs(4), run: runConnections(4, false)},
		{name: rowMCSLoss, lab: "mcs-loss", needs: mcs(4), run: runConnections(4, true)},
		{name: "session reinstatement", lab: "reset", run: runReinstatement},
		{name: rowNOPIn, lab: "nop-in", needs: demand{pings: true}, run: runNOPIn},
		{name: rowWindow, lab: "window", needs: demand{window: 4}, run: runWindow},
		{name: rowRedirect, needs: demand{redirect: true}, run: runRedirect},
		{name: rowAbort, lab: "aborts", run: runAbortTask},
		{name: rowReset, lab: "lun-reset", run: runLUNReset},
	}
}

func unless(ok bool, refused string) string {
	if ok {
		return ""
	}
	return refused
}

// exchange writes random data in transfers of many sizes, reads them back in others, and compares.
func exchange(ctx context.Context, w *wire.Session, lun int) error {
	data := make([]byte, 12<<20)
	rng := rand.NewChaCha8([32]byte{byte(time.Now().UnixNano())})
	_, _ = rng.Read(data)
	sizes := []int{512, 4096, 8192, 65536, 512 * 3, 262144, 512, 262144 + 512, 1 << 20, 8 << 20}
	at := 0
	for _, size := range sizes {
		if err := w.Write(ctx, lun, data[at:at+size], uint64(at/wire.BlockSize)); err != nil {
			return fmt.Errorf("write of %d bytes: %w", size, err)
		}
		at += size
	}
	got := make([]byte, at)
	slices.Reverse(sizes)
	at = 0
	for _, size := range sizes {
		if err := w.Read(ctx, lun, got[at:at+size], uint64(at/wire.BlockSize)); err != nil {
			return fmt.Errorf("read of %d bytes: %w", size, err)
		}
		at += size
	}
	if !bytes.Equal(got, data[:at]) {
		return errors.New("what was read is not what was written")
	}
	return nil
}

// again repeats what was lost with a connection, once no old copy of it can come later: at once if the session says that it is settled, else after the login
// that ends the session it was sent in.
func again(ctx context.Context, w *wire.Session, f func() error) error {
	for range 20 {
		logins := w.Logins()
		err := f()
		lost, ok := errors.AsType[*session.Error](err)
		if !ok {
			return err
		}
		if lost.Sent && !lost.Settled {
			up, err := w.WaitUp(ctx, logins+1)
			if err != nil {
				return fmt.Errorf("a command was lost, and neither settled nor its session ended: %w", errors.Join(lost, err))
			}
			if !up.Reinstated {
				return fmt.Errorf("a command was lost, and the next login does not settle it: %w", lost)
			}
		}
	}
	return errors.New("twenty attempts of one command were lost")
}

// crowd has n submitters write blocks of their own and read them back.
func crowd(ctx context.Context, w *wire.Session, lun, n, rounds int) error {
	work := func(i int) error {
		out, in := make([]byte, 16384), make([]byte, 16384)
		for round := range rounds {
			for j := range out {
				out[j] = byte(i*7 + round*13 + j)
			}
			lba := uint64(i * len(out) / wire.BlockSize)
			if err := again(ctx, w, func() error { return w.Write(ctx, lun, out, lba) }); err != nil {
				return err
			}
			if err := again(ctx, w, func() error { return w.Read(ctx, lun, in, lba) }); err != nil {
				return err
			}
			if !bytes.Equal(in, out) {
				return fmt.Errorf("submitter %d, round %d: other data came back", i, round)
			}
		}
		return nil
	}
	failed := make(chan error, n)
	for i := range n {
		go func() { failed <- work(i) }()
	}
	var errs []error
	for range n {
		errs = append(errs, <-failed)
	}
	return errors.Join(errs...)
}

// with logs in, calls f, and logs out.
func with(ctx context.Context, cfg session.Config, f func(w *wire.Session) error) error {
	w, err := wire.LogIn(ctx, cfg)
	if err != nil {
		return err
	}
	err = f(w)
	return errors.Join(err, w.Close())
}

// runPlain changes the configuration, does I/O, and asks refused what the target did not agree to; a session that had to be made twice is an error.
func runPlain(change func(*session.Config), refused func(session.Params) string) func(context.Context, party) error {
	return func(ctx context.Context, p party) error {
		cfg := p.config()
		if change != nil {
			change(&cfg)
		}
		return with(ctx, cfg, func(w *wire.Session) error {
			params := w.Stats().Params
			if err := exchange(ctx, w, p.lun); err != nil {
				return err
			}
			if w.Downs() > 0 {
				return fmt.Errorf("the session was lost: %s", w.Loss())
			}
			if refused != nil {
				if what := refused(params); what != "" {
					return refusal(what)
				}
			}
			return nil
		})
	}
}

func runSegments(length uint32) func(context.Context, party) error {
	return runPlain(func(c *session.Config) { c.MaxRecvDataSegmentLength = length }, nil)
}

func runDigests(header, data bool) func(context.Context, party) error {
	return runPlain(func(c *session.Config) { c.HeaderDigest, c.DataDigest = header, data }, func(p session.Params) string {
		return unless(p.HeaderDigest == header && p.DataDigest == data, "answers None")
	})
}

func runDiscovery(ctx context.Context, p party) error {
	return with(ctx, session.Config{Discovery: true, Portal: p.portal}, func(w *wire.Session) error {
		list, err := w.SendTargets(ctx)
		if err != nil {
			return err
		}
		for _, target := range list {
			if target.Name == p.iqn && slices.ContainsFunc(target.Portals, func(i session.PortalInfo) bool { return i.Address == p.portal }) {
				return nil
			}
		}
		return fmt.Errorf("%s at %s is not in the answer %v", p.iqn, p.portal, list)
	})
}

// runCHAP logs in with the right secrets, and must be refused, or refuse, with wrong ones.
func runCHAP(mutual bool, algorithms ...chap.Algorithm) func(context.Context, party) error {
	return func(ctx context.Context, p party) error {
		right, err := chapConfig(interopUser.Secret, mutual, interopTarget.Secret, algorithms)
		if err != nil {
			return err
		}
		if err := runPlain(func(c *session.Config) { c.CHAP = right }, nil)(ctx, p); err != nil {
			if failed, ok := errors.AsType[*session.Error](err); ok && failed.Kind != session.KindLogin {
				if free := runPlain(nil, nil)(ctx, p); free == nil {
					return refusal("wants no authentication")
				}
			}
			return err
		}
		wrong := [][2]string{{"not-that-of-alice", interopTarget.Secret}}
		if mutual {
			wrong = append(wrong, [2]string{interopUser.Secret, "not-the-reverse-one"})
		}
		for _, secrets := range wrong {
			config, err := chapConfig(secrets[0], mutual, secrets[1], algorithms)
			if err != nil {
				return err
			}
			cfg := p.config()
			cfg.CHAP = config
			if w, err := wire.LogIn(ctx, cfg); err == nil {
				if free := runPlain(nil, nil)(ctx, p); free == nil {
					return errors.Join(refusal("wants no authentication"), w.Close())
				}
				return errors.Join(errors.New("a wrong secret was good enough"), w.Close())
			}
		}
		return nil
	}
}

func chapConfig(own string, mutual bool, theirs string, algorithms []chap.Algorithm) (*chap.Config, error) {
	secret, err := chap.NewSecret(own)
	if err != nil {
		return nil, err
	}
	config := &chap.Config{User: interopUser.User, Secret: secret, Algorithms: algorithms, Registry: chap.NewRegistry()}
	if mutual {
		config.MutualUser = interopTarget.User
		config.MutualSecret, err = chap.NewSecret(theirs)
	}
	return config, err
}

// runConnections uses several connections at once; with cut, one of them is reset under load, again and again.
func runConnections(n int, cut bool) func(context.Context, party) error {
	return func(ctx context.Context, p party) error {
		proxy, err := tcpproxy.Open("127.0.0.1:0", p.portal)
		if err != nil {
			return err
		}
		defer proxy.Close()
		cfg := p.config()
		cfg.Connections, cfg.ErrorRecoveryLevel, cfg.Portal = n, 2, proxy.Addr()
		return with(ctx, cfg, func(w *wire.Session) error {
			if got := w.Stats().Params.MaxConnections; int(got) < n {
				return refusal(fmt.Sprintf("MaxConnections=%d", got))
			}
			if err := w.WaitConnections(ctx, n); err != nil {
				return err
			}
			load := make(chan error, 1)
			go func() { load <- crowd(ctx, w, p.lun, 64, 40) }()
			for i := range 3 {
				if !cut {
					break
				}
				time.Sleep(20 * time.Millisecond)
				proxy.ResetOne(i + 1)
				if err := w.WaitConnections(ctx, n); err != nil {
					return errors.Join(err, <-load)
				}
			}
			err := <-load
			switch level := w.Stats().Params.ErrorRecoveryLevel; {
			case err == nil && w.Logins() > 1 && cut && level < 2:
				return refusal(fmt.Sprintf("ErrorRecoveryLevel=%d: the session is reinstated, and no data are lost", level))
			case err == nil && w.Logins() > 1:
				return fmt.Errorf("the session was lost: %s", w.Loss())
			}
			return err
		})
	}
}

func runReinstatement(ctx context.Context, p party) error {
	proxy, err := tcpproxy.Open("127.0.0.1:0", p.portal)
	if err != nil {
		return err
	}
	defer proxy.Close()
	cfg := p.config()
	cfg.Portal = proxy.Addr()
	return with(ctx, cfg, func(w *wire.Session) error {
		for i := range 3 {
			proxy.Reset()
			w.RetryNow()
			up, err := w.WaitUp(ctx, i+2)
			if err != nil {
				return err
			}
			if err := exchange(ctx, w, p.lun); err != nil {
				return err
			}
			if !up.Reinstated {
				return refusal("a new login does not prove the old session dead")
			}
		}
		return nil
	})
}

func runNOPIn(ctx context.Context, p party) error {
	cfg := p.config()
	cfg.NoopInterval = -1 // what comes is the target's own idea
	return with(ctx, cfg, func(w *wire.Session) error {
		if err := exchange(ctx, w, p.lun); err != nil {
			return err
		}
		for range 3 {
			if p.ping != nil {
				p.ping()
			}
			if err := peer.WaitFor(ctx, peer.Patience, func() error { return unlessErr(w.Received(pdu.OpNOPIn) > 0, "no NOP-In came") }); err != nil {
				return err
			}
		}
		if p.ping == nil { // longer than an initiator that does not answer may live
			time.Sleep(4 * time.Second)
		}
		if w.Downs() > 0 {
			return fmt.Errorf("the session was lost: %s", w.Loss())
		}
		return exchange(ctx, w, p.lun)
	})
}

func unlessErr(ok bool, text string) error {
	if ok {
		return nil
	}
	return errors.New(text)
}

func runWindow(ctx context.Context, p party) error {
	return with(ctx, p.config(), func(w *wire.Session) error {
		room := w.Stats().Room
		if err := crowd(ctx, w, p.lun, 64, 30); err != nil {
			return err
		}
		if w.Downs() > 0 {
			return fmt.Errorf("the session was lost: %s", w.Loss())
		}
		return unlessErr(room > 0 && room < 10, fmt.Sprintf("the window is %d commands", room))
	})
}

func runRedirect(ctx context.Context, p party) error {
	return with(ctx, p.config(), func(w *wire.Session) error {
		if !p.moved() {
			return errors.New("the session is not where the redirect leads")
		}
		return exchange(ctx, w, p.lun)
	})
}
