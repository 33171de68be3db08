package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/iscsimp/iscsimp/test/nbdload"
	"github.com/iscsimp/iscsimp/test/peer"
	"github.com/iscsimp/iscsimp/test/tcpproxy"
)

// fenceTimeout is how long iscsimp waits until it takes an unanswered write of a dead path for settled, when nothing better can prove it.
//
// The usual proof is that the target reinstated the session: from then on it cannot carry out commands of the old one. gotgt gives every session the handle
// (TSIH) 0 and never ends an old session, so its reinstatement proves nothing, and every overlapping write waits for this timeout. Behind these proxies nothing
// can be held back for longer than a moment, so the demo may choose a short one.
const fenceTimeout = 2 * time.Second

const (
	slowPath = 1 // index of the path made slow: path 2
	cutPath  = 2 // index of the path cut: path 3
)

type demo struct {
	plan
	out     io.Writer
	started time.Time

	target  *peer.GotgtTarget
	proxies []*tcpproxy.Proxy
	device  *peer.Device

	runner     *nbdload.Runner
	stats      nbdload.Stats
	shed, back time.Duration // 0: not measured
}

// run does everything; the measurements are in d afterwards, also when it fails.
func (d *demo) run(ctx context.Context) (err error) {
	if err := d.startTarget(ctx); err != nil {
		return err
	}
	defer func() {
		for _, p := range d.proxies {
			err = errors.Join(err, p.Close())
		}
		err = errors.Join(err, d.target.Stop())
	}()
	if err := d.login(ctx); err != nil {
		return err
	}
	defer func() {
		d.say("SIGTERM: iscsimp drains, logs out and leaves.")
		err = errors.Join(err, d.device.Stop())
	}()
	if err := d.startLoad(ctx); err != nil {
		return err
	}
	err = d.faults(ctx)
	d.stats = d.runner.Stop()
	if err != nil {
		return err
	}
	d.say("The load has stopped; reading every block once more.")
	err = d.runner.Verify()
	d.stats = d.runner.Stats()
	return err
}

// startTarget starts gotgt with three portals and a proxy in front of each.
func (d *demo) startTarget(ctx context.Context) (err error) {
	d.say("Building, then starting the target gotgt with three portals (seed %d).", d.seed)
	if _, err := peer.BuildIscsimp(); err != nil {
		return err
	}
	d.target, err = peer.StartGotgt(ctx, peer.Gotgt{Portals: 3, IQN: "iqn.2026-01.io.github.iscsimp:demo"})
	if err != nil {
		return err
	}
	for _, portal := range d.target.Portals {
		host, _, _ := net.SplitHostPort(portal)
		proxy, err := tcpproxy.Open(net.JoinHostPort(host, "0"), portal)
		if err != nil {
			return errors.Join(err, d.target.Stop())
		}
		d.proxies = append(d.proxies, proxy)
	}
	output, err := d.show(ctx, "discover", "-p", d.target.Portals[0])
	if err != nil {
		return errors.Join(err, d.target.Stop())
	}
	if !strings.Contains(output, d.target.IQN) {
		return errors.Join(fmt.Errorf("discover did not find %s", d.target.IQN), d.target.Stop())
	}
	return nil
}

func (d *demo) login(ctx context.Context) (err error) {
	d.say("Logging in to all three, each through a proxy whose line can go bad.\n"+
		"gotgt cannot prove that an old session is dead (it answers TSIH 0), so writes that overlap one lost with a path wait for --fence-timeout %v.", fenceTimeout)
	login := peer.Login{IQN: d.target.IQN, LUN: d.target.LUN, Name: "demo", Args: []string{"--fence-timeout", fenceTimeout.String()}}
	for _, proxy := range d.proxies {
		login.Portals = append(login.Portals, proxy.Addr())
	}
	d.command("login -p %s --only-given --export unix:… --fence-timeout %v --name demo %s", strings.Join(login.Portals, " -p "), fenceTimeout, login.IQN)
	if d.device, err = peer.StartLogin(ctx, login); err != nil {
		return err
	}
	if _, err = d.device.WaitUp(ctx, len(d.proxies)); err != nil {
		err = errors.Join(err, d.device.Stop())
	}
	return err
}

// startLoad fills the disk and starts the load through the NBD socket.
func (d *demo) startLoad(ctx context.Context) error {
	client, err := nbdload.Dial(ctx, "unix", d.device.Socket, "")
	if err != nil {
		return err
	}
	if d.runner, err = nbdload.NewRunner(nbdload.Load{Clients: []*nbdload.Client{client}, Seed: d.seed}); err != nil {
		return err
	}
	if err := d.runner.Fill(); err != nil {
		return err
	}
	d.say("Load through the NBD socket: 32 requests in flight, half of them writes, 4 to 64 KiB; every block says which version it is.")
	d.runner.Start()
	return nil
}

// faults lets the line of path 2 get slow and heal, then cuts path 3 and heals it.
func (d *demo) faults(ctx context.Context) error {
	if err := pause(ctx, d.warmUp); err != nil {
		return err
	}
	if err := d.showPaths(ctx, "before"); err != nil {
		return err
	}
	if err := d.slowDown(ctx); err != nil {
		return err
	}
	return d.cut(ctx)
}

func (d *demo) slowDown(ctx context.Context) error {
	proxy := d.proxies[slowPath]
	status, err := d.device.Status(ctx)
	if err != nil {
		return err
	}
	base := seconds(status.Path(proxy.Addr()).P50Seconds)
	if base <= 0 {
		return fmt.Errorf("path 2 reports a median latency of %v under load", base)
	}
	added := base * time.Duration(d.slowFactor-1)
	d.say("Path 2 gets slow: ×%d, from %s to %s.", d.slowFactor, round(base), round(base+added))
	if err := proxy.Delay(added / 2); err != nil {
		return err
	}
	if d.shed, err = d.timeUntilShed(ctx, proxy.Addr()); err != nil {
		return err
	}
	d.say("Path 2 carries less than %.0f %% of the I/O after %s.", d.shedShare*100, round(d.shed))
	if err := d.waitShown(ctx, proxy.Addr()); err != nil {
		return err
	}
	if err := d.showPaths(ctx, "while path 2 is slow"); err != nil {
		return err
	}
	d.say("Path 2 is well again.")
	return errors.Join(proxy.Go(), pause(ctx, 2*time.Second))
}

func (d *demo) cut(ctx context.Context) error {
	proxy := d.proxies[cutPath]
	d.say("Path 3 is cut for %v: connections reset, new ones refused.", d.cutFor)
	if err := proxy.Cut(); err != nil {
		return err
	}
	if err := pause(ctx, d.cutFor-500*time.Millisecond); err != nil {
		return err
	}
	if err := d.showPaths(ctx, "while path 3 is cut"); err != nil {
		return err
	}
	if status, err := d.device.Status(ctx); err != nil {
		return err
	} else if state := status.Path(proxy.Addr()).State; state == "up" {
		return errors.New("iscsimp reports path 3 as up while it is cut")
	}
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	healed := time.Now()
	if err := proxy.Go(); err != nil {
		return err
	}
	_, err := d.device.WaitPaths(ctx, d.backLimit, "path 3 up", func(s peer.DeviceStatus) bool { return s.Path(proxy.Addr()).State == "up" })
	if err != nil {
		return err
	}
	d.back = time.Since(healed)
	d.say("Path 3 is back by itself %s after the line was.", round(d.back))
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	return d.showPaths(ctx, "after all of it")
}
