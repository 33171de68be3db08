package nbd

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iscsimp/iscsimp/internal/block"
)

// Defaults of Config.
const (
	DefaultHandshakeTimeout    = 10 * time.Second
	DefaultMaxHandshakes       = 64
	DefaultMaxConnections      = 256
	DefaultMaxInflightRequests = 1024
	DefaultMaxInflightBytes    = 64 << 20
)

// Export is one device under one name.
type Export struct {
	// Name is what clients ask for. Valid UTF-8 without NUL, at most 4096
	// bytes, unique within a server; may be empty.
	Name string
	// Description is shown to humans by clients that list exports. The same
	// limits; may be empty.
	Description string
	// Device is what is served. Required. Several exports may share a device.
	Device block.Device
}

// Config configures a Server. It is validated and copied by New and never
// looked at again.
type Config struct {
	// Exports are the devices served; at least one. The first is also the
	// default export, which clients find under the empty name.
	Exports []Export
	// Logger receives connections and refusals; nil discards them. It is never
	// called on a loop.
	Logger *slog.Logger
	// HandshakeTimeout is how long a client may take from connecting to the
	// choice of an export. 0 means DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
	// MaxHandshakes is how many clients may be in the handshake at once. When
	// one more comes, the oldest unfinished one is dropped: an honest client
	// needs milliseconds. 0 means DefaultMaxHandshakes.
	MaxHandshakes int
	// MaxConnections is how many clients may use exports at once; one more is
	// refused with a reason. A client that left counts until the device has
	// finished its requests. 0 means DefaultMaxConnections.
	MaxConnections int
	// MaxInflightRequests is how many requests of one connection may be
	// unanswered, that is received but their reply not yet handed to the
	// socket. Beyond it the connection is not read. 0 means
	// DefaultMaxInflightRequests.
	MaxInflightRequests int
	// MaxInflightBytes is how much buffer memory the unanswered requests of
	// one connection may hold. A single request is always let through, so a
	// connection may hold up to 32 MiB with any setting. 0 means
	// DefaultMaxInflightBytes.
	MaxInflightBytes int
}

// withDefaults returns a validated copy of c.
func (c Config) withDefaults() (Config, error) {
	if len(c.Exports) == 0 {
		return c, errors.New("nbd: nothing to export: give Config.Exports at least one device")
	}
	seen := make(map[string]bool, len(c.Exports))
	c.Exports = append([]Export(nil), c.Exports...)
	for _, e := range c.Exports {
		if err := e.validate(); err != nil {
			return c, fmt.Errorf("nbd: export %q: %w", e.Name, err)
		}
		if seen[e.Name] {
			return c, fmt.Errorf("nbd: two exports are called %q: give each a name of its own", e.Name)
		}
		seen[e.Name] = true
	}
	if c.HandshakeTimeout < 0 || c.MaxHandshakes < 0 || c.MaxConnections < 0 ||
		c.MaxInflightRequests < 0 || c.MaxInflightBytes < 0 {
		return c, errors.New("nbd: limits and timeouts must not be negative; 0 means the default")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, DefaultHandshakeTimeout)
	c.MaxHandshakes = cmp.Or(c.MaxHandshakes, DefaultMaxHandshakes)
	c.MaxConnections = cmp.Or(c.MaxConnections, DefaultMaxConnections)
	c.MaxInflightRequests = cmp.Or(c.MaxInflightRequests, DefaultMaxInflightRequests)
	c.MaxInflightBytes = cmp.Or(c.MaxInflightBytes, DefaultMaxInflightBytes)
	return c, nil
}

// find returns the export of that name; the empty name finds the default.
func (c *Config) find(name string) *Export {
	for i := range c.Exports {
		if c.Exports[i].Name == name {
			return &c.Exports[i]
		}
	}
	if name == "" {
		return &c.Exports[0]
	}
	return nil
}

func (e *Export) validate() error {
	for _, s := range []string{e.Name, e.Description} {
		if len(s) > maxString || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return fmt.Errorf("name and description must be UTF-8 without NUL and at most %d bytes long", maxString)
		}
	}
	if e.Device == nil {
		return errors.New("no device given")
	}
	_, err := e.limits()
	return err
}

// limits is what one connection was told about its export, and is held to.
type limits struct {
	size        uint64 // bytes, a multiple of minBlock
	minBlock    uint32 // power of two
	preferBlock uint32 // power of two, >= minBlock
	flags       uint16 // transmission flags
}

// limits derives what a client is told from the device's present geometry.
// A device may grow; a connection keeps what it was told.
func (e *Export) limits() (limits, error) {
	g := e.Device.Geometry()
	bs := g.BlockSize
	if bs == 0 || bs&(bs-1) != 0 || bs > maxMinBlock {
		return limits{}, fmt.Errorf("its block size of %d bytes cannot be exported: NBD needs a power of two up to %d", bs, maxMinBlock)
	}
	l := limits{
		size:        g.Size &^ uint64(bs-1),
		minBlock:    bs,
		preferBlock: preferredBlock(max(bs, g.PhysicalBlock)),
		// All connections reach the same device, which has no cache of its own
		// per connection: a FLUSH on one covers the writes of all.
		flags: flagHasFlags | flagSendFlush | flagCanMultiConn,
	}
	if g.Rotational {
		l.flags |= flagRotational
	}
	if g.ReadOnly {
		l.flags |= flagReadOnly
		return l, nil
	}
	l.flags |= flagSendFUA | flagSendWriteZeroes // the device zeroes by writing if it must
	if g.CanTrim {
		l.flags |= flagSendTrim
	}
	return l, nil
}

// preferredBlock rounds a physical block size up to what may be advertised: a
// power of two, not below the protocol's default, not above the largest payload.
func preferredBlock(physical uint32) uint32 {
	p := uint32(defaultPreferBlock)
	for p < physical && p < maxPayload {
		p <<= 1
	}
	return p
}

func (l *limits) readOnly() bool          { return l.flags&flagReadOnly != 0 }
func (l *limits) offers(flag uint16) bool { return l.flags&flag != 0 }
