package nbd

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
)

// ErrClosed is the outcome of Serve on a closed server, and the reason why
// connections end when Close is called.
var ErrClosed = errors.New("nbd: the server is closed")

// closeGrace bounds how long Close waits for loops to confirm that aborted
// connections are gone.
const closeGrace = 2 * time.Second

// Server exports block devices to any number of NBD clients. Its methods may
// be called from any goroutine, but never on a device's loop.
type Server struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // done once Close began
	cancel context.CancelFunc
	wg     sync.WaitGroup // Serve calls, handshakes, log lines of closed connections

	mu         sync.Mutex // guards what follows; never held across I/O or a callback
	closing    bool
	listeners  map[net.Listener]struct{}
	handshakes list.List // of *handshake, oldest first
	shards     map[loop.Loop]*shard
	conns      map[*conn]struct{} // until no request of theirs is at a device
	open       int                // of those: not closed yet
	lastID     uint64
	accepted   uint64
	refused    uint64
	past       Counters // of connections no longer in conns
	idle       chan struct{}
	idleOnce   sync.Once
}

// handshake is a client that has not chosen an export yet.
type handshake struct {
	conn    net.Conn
	remote  string
	element *list.Element
	evicted bool
}

// New makes a server. Nothing is served before Serve.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:       cfg,
		log:       cfg.Logger,
		listeners: make(map[net.Listener]struct{}),
		shards:    make(map[loop.Loop]*shard),
		conns:     make(map[*conn]struct{}),
		idle:      make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve accepts clients from ln until Close is called, which also closes ln
// and makes Serve return nil, or until ln fails. It may be called for several
// listeners at once. On a closed server it closes ln and returns ErrClosed.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		_ = ln.Close()
		return ErrClosed
	}
	s.listeners[ln] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
		_ = ln.Close()
	}()
	return s.acceptAll(ln)
}

func (s *Server) acceptAll(ln net.Listener) error {
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			s.welcome(nc)
			continue
		}
		if s.ctx.Err() != nil {
			return nil
		}
		if !worthRetrying(err) {
			return fmt.Errorf("nbd: cannot accept clients on %v any more: %w", ln.Addr(), err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Warn("nbd: cannot accept a client for now", "listener", ln.Addr(), "error", err, "retry_in", pause)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return nil
		}
	}
}

// worthRetrying tells a shortage of resources, which passes, from a listener
// that is of no use any more.
func worthRetrying(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// welcome starts the handshake with a new client, at the expense of the oldest
// unfinished one if there are too many.
func (s *Server) welcome(nc net.Conn) {
	_ = nc.SetDeadline(time.Now().Add(s.cfg.HandshakeTimeout))
	h := &handshake{conn: nc, remote: peerName(nc)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		_ = nc.Close()
		return
	}
	s.accepted++
	if s.handshakes.Len() >= s.cfg.MaxHandshakes {
		oldest := s.handshakes.Remove(s.handshakes.Front()).(*handshake)
		oldest.element, oldest.evicted = nil, true
		expire(oldest.conn)
	}
	h.element = s.handshakes.PushBack(h)
	s.wg.Go(func() { s.shakeHands(h) })
}

// expire makes whatever blocks on nc fail at once.
func expire(nc net.Conn) { _ = nc.SetDeadline(time.Unix(1, 0)) }

// shakeHands runs a client's handshake to its end and, if an export was
// chosen, hands the connection to the loop of the export's device.
func (s *Server) shakeHands(h *handshake) {
	n := negotiation{srv: s, conn: h.conn, remote: h.remote}
	err := n.run()
	evicted := s.leaveHandshakes(h, err != nil)
	if err != nil {
		_ = h.conn.Close()
		if n.chosen != nil {
			s.abandon(n.chosen, err)
		}
		s.log.Debug("nbd: a client left before it chose an export",
			"remote", h.remote, "error", err, "evicted", evicted)
		return
	}
	c := n.chosen
	_ = h.conn.SetDeadline(time.Time{})
	if !c.dev.Loop().Post(func() { c.attach(h.conn) }) {
		_ = h.conn.Close()
		s.abandon(c, loop.ErrClosed)
		return
	}
	s.log.Info("nbd: client connected", "remote", h.remote, "export", c.export.Name, "id", c.id)
}

// leaveHandshakes takes h off the list. From then on nobody expires its
// connection.
func (s *Server) leaveHandshakes(h *handshake, refused bool) (evicted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.element != nil {
		s.handshakes.Remove(h.element)
		h.element = nil
	}
	if refused {
		s.refused++
	}
	return h.evicted
}

// reserve makes a connection to an export, if there is room for one more. It
// counts from now on, although the client does not know yet.
func (s *Server) reserve(e *Export, l limits, remote string) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrClosed
	}
	// Those that were lost count, too, while the device has requests of theirs: else clients
	// that come again and again while no path is left would take memory without end.
	if len(s.conns) >= s.cfg.MaxConnections {
		left := ""
		if n := len(s.conns) - s.open; n > 0 {
			left = fmt.Sprintf(" (%d of them are gone but for requests that the device has not finished)", n)
		}
		return nil, fmt.Errorf("all %d connections of this server are in use%s: disconnect a client or raise the limit", s.cfg.MaxConnections, left)
	}
	lp := e.Device.Loop()
	sh := s.shards[lp]
	if sh == nil {
		sh = newShard()
		s.shards[lp] = sh
	}
	s.lastID++
	c := &conn{
		id: s.lastID, srv: s, shard: sh,
		export: e, dev: e.Device, limits: l,
		remote:      remote,
		since:       time.Now(),
		maxRequests: s.cfg.MaxInflightRequests,
		maxBytes:    s.cfg.MaxInflightBytes,
		window:      windowFull,
		gone:        make(chan struct{}),
	}
	s.conns[c] = struct{}{}
	s.open++
	return c, nil
}

// abandon undoes reserve for a connection that never reached its loop.
func (s *Server) abandon(c *conn, err error) {
	s.connClosed(c, err)
	s.finished(c)
}

// connClosed notes that a connection's stream has ended. Usually on a loop.
func (s *Server) connClosed(c *conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	defer close(c.gone)
	s.wg.Go(func() { // a log line may block, a loop must not
		counters := c.stats.counters()
		attrs := []any{"remote", c.remote, "export", c.export.Name, "id", c.id, "requests", counters.Ops(), "errors", counters.Errors}
		if errors.Is(err, io.EOF) || errors.Is(err, ErrClosed) {
			s.log.Info("nbd: client disconnected", attrs...)
			return
		}
		s.log.Warn("nbd: connection lost", append(attrs, "error", err)...)
	})
}

// finished notes that nothing of a closed connection is at a device any more.
func (s *Server) finished(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.past.add(c.stats.counters())
	s.tellIfIdle()
}

// tellIfIdle wakes Close when its work is done. Needs s.mu.
func (s *Server) tellIfIdle() {
	if s.closing && len(s.conns) == 0 {
		s.idleOnce.Do(func() { close(s.idle) })
	}
}

// Close stops accepting, ends handshakes, answers new requests with ESHUTDOWN
// and waits until those at the devices have been answered. When ctx ends first
// the remaining connections are reset and Close returns ctx's error; their
// requests may still be at the devices then, which keep the buffers they need.
// The devices and their loops must still be running. Close may be called again.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.cancel()
	listeners := slices.Collect(maps.Keys(s.listeners))
	for e := s.handshakes.Front(); e != nil; e = e.Next() {
		expire(e.Value.(*handshake).conn)
	}
	conns := s.connList()
	s.tellIfIdle()
	s.mu.Unlock()

	for _, ln := range listeners {
		_ = ln.Close()
	}
	for _, c := range conns {
		c.dev.Loop().Post(c.shutDown)
	}
	var err error
	select {
	case <-s.idle:
	case <-ctx.Done():
		err = s.abortAll(ctx)
	}
	s.wg.Wait()
	return err
}

// abortAll resets what is left and waits until the loops have done so.
func (s *Server) abortAll(ctx context.Context) error {
	s.mu.Lock()
	conns := s.connList()
	s.mu.Unlock()
	inflight := int64(0)
	for _, c := range conns {
		inflight += c.stats.inflight.Load()
		c.dev.Loop().Post(func() { c.abort(ErrClosed) })
	}
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	for _, c := range conns {
		select {
		case <-c.gone:
		case <-grace.C:
			return fmt.Errorf("nbd: closed with connections that do not react: %w", ctx.Err())
		}
	}
	return fmt.Errorf("nbd: closed with %d requests unanswered on %d connections: %w", inflight, len(conns), ctx.Err())
}

// connList returns the connections by age. Needs s.mu.
func (s *Server) connList() []*conn {
	l := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		l = append(l, c)
	}
	slices.SortFunc(l, func(a, b *conn) int { return cmp.Compare(a.id, b.id) })
	return l
}

// Snapshot tells who is connected and what they did. It never waits for I/O.
func (s *Server) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := Snapshot{
		Handshakes: s.handshakes.Len(),
		Accepted:   s.accepted,
		Refused:    s.refused,
		Total:      s.past,
	}
	for _, c := range s.connList() {
		counters := c.stats.counters()
		snap.Total.add(counters)
		select {
		case <-c.gone:
			continue
		default:
		}
		snap.Connections = append(snap.Connections, ConnInfo{
			ID:       c.id,
			Remote:   c.remote,
			Export:   c.export.Name,
			Since:    c.since,
			InFlight: int(c.stats.inflight.Load()),
			Buffered: int(c.stats.buffered.Load()),
			Counters: counters,
		})
	}
	return snap
}
