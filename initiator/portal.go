package initiator

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultPort is the port of a portal that names none (RFC 7143 §4.2.7.1, IANA "iscsi-target").
const DefaultPort = 3260

// ParsePortal reads a portal as people write it: "host", "host:port",
// "v4", "v4:port", "v6", "[v6]" or "[v6]:port". It returns the one form in
// which portals are compared and dialed: "host:port", in lower case, with the
// port always given and IPv6 in brackets. The error says what is wrong and how
// a portal is written; it is an *Error of kind KindInvalid.
func ParsePortal(s string) (string, error) {
	host, port, err := splitPortal(s)
	if err == nil {
		host, err = cleanHost(host)
	}
	if err != nil {
		return "", &Error{
			Kind: KindInvalid,
			Msg:  fmt.Sprintf("portal %q: %v", s, err),
			Hint: "write it as host, host:port or [v6]:port",
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// splitPortal takes s apart without judging the host.
func splitPortal(s string) (host string, port int, err error) {
	rest := ""
	switch {
	case s == "":
		return "", 0, fmt.Errorf("is empty")
	case s[0] == '[':
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, fmt.Errorf("has no closing bracket")
		}
		host, rest = s[1:end], s[end+1:]
		if !strings.Contains(host, ":") {
			return "", 0, fmt.Errorf("only an IPv6 address stands in brackets")
		}
	case strings.Count(s, ":") > 1: // a bare IPv6 address
		return s, DefaultPort, nil
	default:
		host = s
		if i := strings.IndexByte(s, ':'); i >= 0 {
			host, rest = s[:i], s[i:]
		}
	}
	if rest == "" {
		return host, DefaultPort, nil
	}
	if rest[0] != ':' {
		return "", 0, fmt.Errorf("%q after the bracket is not a port", rest)
	}
	port, err = parsePort(rest[1:])
	return host, port, err
}

func parsePort(s string) (int, error) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("port %q is not a number", s)
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not within 1..65535", s)
	}
	return int(n), nil
}

// cleanHost checks a host name or address and gives it its one form.
func cleanHost(host string) (string, error) {
	if strings.Contains(host, ":") {
		addr, err := netip.ParseAddr(host)
		if err != nil || !validZone(addr.Zone()) {
			return "", fmt.Errorf("%q is not an IPv6 address", host)
		}
		return addr.Unmap().String(), nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String(), nil
	}
	return cleanHostName(host)
}

// validZone reports whether s can be the name of a network interface, or is empty.
func validZone(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("[]%/:,", r)
	})
}

// cleanHostName accepts what DNS and hosts files use: letters, digits, hyphens
// and underscores in labels of at most 63 bytes.
func cleanHostName(host string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" {
		return "", fmt.Errorf("names no host")
	}
	if len(name) > 253 {
		return "", fmt.Errorf("host name is longer than 253 bytes")
	}
	onlyDigits := true
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("%q is not a host name", host)
		}
		for i := range len(label) {
			c := label[i]
			digit := c >= '0' && c <= '9'
			if !digit && (c < 'a' || c > 'z') && c != '-' && c != '_' {
				return "", fmt.Errorf("%q is not a host name", host)
			}
			onlyDigits = onlyDigits && digit
		}
	}
	if onlyDigits { // "3260", "10.0.0": a mistyped address or a lone port, never a host
		return "", fmt.Errorf("%q is neither an address nor a host name", host)
	}
	return name, nil
}
