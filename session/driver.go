package session

import (
	"context"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
)

// DialFunc makes a connection; net.Dialer.DialContext is one.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Driver runs one session over a loop: it is the session's Env. Dialing, which
// may have to ask a name server, is done in a goroutine of its own that ends
// with the dial.
type Driver struct {
	loop    loop.Loop
	dialFn  DialFunc
	session *Session
	timer   loop.Timer
	dials   map[loop.Handler]*attempt // under way
}

// attempt is one dial.
type attempt struct{ cancel context.CancelFunc }

// NewDriver makes a driver over l; a nil dial means a net.Dialer.
func NewDriver(l loop.Loop, dial DialFunc) *Driver {
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	d := &Driver{loop: l, dialFn: dial, dials: map[loop.Handler]*attempt{}}
	d.timer.Fn = func() { d.session.Tick() }
	return d
}

// Bind names the session the driver serves; once, before Start.
func (d *Driver) Bind(s *Session) { d.session = s }

// Now implements Env.
func (d *Driver) Now() int64 { return d.loop.Now() }

// Jitter implements Env.
func (d *Driver) Jitter() float64 { return rand.Float64() }

// SetTimer implements Env.
func (d *Driver) SetTimer(at int64) {
	if at == 0 {
		d.loop.StopTimer(&d.timer)
		return
	}
	d.loop.SetTimer(&d.timer, at)
}

// Dial implements Env.
func (d *Driver) Dial(portal string, timeout time.Duration, h loop.Handler) {
	d.CancelDial(h)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	a := &attempt{cancel}
	d.dials[h] = a
	go func() {
		c, err := d.dialFn(ctx, "tcp", portal)
		if err == nil && isOwnEnd(c) {
			c.Close()
			c, err = nil, &net.OpError{Op: "dial", Net: "tcp", Addr: c.RemoteAddr(), Err: syscall.ECONNREFUSED}
		}
		if !d.loop.Post(func() { d.dialed(a, c, err, h) }) && c != nil {
			c.Close()
		}
	}()
}

// isOwnEnd reports whether a connection leads to itself: TCP opens one where nobody
// listens when the system gives the dialing side the very port it dials (RFC 9293
// §3.5, simultaneous open). It would keep the target's port taken, too.
func isOwnEnd(c net.Conn) bool {
	here, ok := c.LocalAddr().(*net.TCPAddr)
	there, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return ok && ok2 && here.Port == there.Port && here.IP.Equal(there.IP) && here.Zone == there.Zone
}

// CancelDial implements Env.
func (d *Driver) CancelDial(h loop.Handler) {
	if a := d.dials[h]; a != nil {
		a.cancel()
		delete(d.dials, h)
	}
}

// dialed hands a connection over to the loop.
func (d *Driver) dialed(a *attempt, c net.Conn, err error, h loop.Handler) {
	if d.dials[h] != a { // canceled meanwhile
		if c != nil {
			c.Close()
		}
		return
	}
	a.cancel()
	delete(d.dials, h)
	if err != nil {
		d.session.DialFailed(h, err)
		return
	}
	st, err := d.loop.Attach(c, h)
	if err != nil {
		d.session.DialFailed(h, err)
		return
	}
	d.session.Connected(h, st)
}
