package peer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	firstPort = 10000
	// The system's own range of ports for outgoing connections starts here when it does not say (Linux's default).
	defaultEphemeralPort = 32768
	ephemeralRangeFile   = "/proc/sys/net/ipv4/ip_local_port_range"
)

// FreePort returns a TCP port that nothing uses on any address, IPv4 or IPv6, and that this process did not get before. It is not reserved: use it soon.
// It lies below the ports that the system gives to outgoing connections, so that none of these takes it before the target listens, or while a target is
// being started again.
func FreePort() (int, error) {
	end := ephemeralPort()
	if end-firstPort < 1000 {
		return 0, fmt.Errorf("too few ports between %d and those for outgoing connections (%s)", firstPort, ephemeralRangeFile)
	}
	for range 1000 {
		port := firstPort + rand.IntN(end-firstPort)
		if portsFree([]string{":" + strconv.Itoa(port)}) == nil && !recentlyGiven(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free TCP port found in 1000 attempts")
}

// ephemeralPort is the lowest port that the system gives to outgoing connections.
func ephemeralPort() int {
	text, err := os.ReadFile(ephemeralRangeFile)
	if err != nil {
		return defaultEphemeralPort
	}
	var low, high int
	if n, _ := fmt.Sscan(string(text), &low, &high); n != 2 {
		return defaultEphemeralPort
	}
	return low
}

// portsFreeLimit is how long a target that is started waits for its ports, which the one before may just be leaving.
const portsFreeLimit = 5 * time.Second

// portsFree returns nil when all addresses can be listened on, or why one of them cannot.
func portsFree(addresses []string) error {
	for _, address := range addresses {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}

var givenPorts struct {
	sync.Mutex // guards ports
	ports      map[int]bool
}

// recentlyGiven says whether this process got the port before, and notes it: two targets started side by side must not get the same one.
func recentlyGiven(port int) bool {
	givenPorts.Lock()
	defer givenPorts.Unlock()
	if givenPorts.ports == nil {
		givenPorts.ports = map[int]bool{}
	}
	given := givenPorts.ports[port]
	givenPorts.ports[port] = true
	return given
}
