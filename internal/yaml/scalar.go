package yaml

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// hasKey reports whether a line is meant as `key: value`.
func hasKey(s string) bool {
	if s[0] == '[' || s[0] == '{' {
		return false
	}
	_, rest, err := splitKey(0, s, false)
	_ = rest
	return err == nil
}

// splitKey splits `key: value`; in flow says that it stands between braces.
func splitKey(num int, s string, flow bool) (key, rest string, err error) {
	if s[0] == '"' || s[0] == '\'' {
		if key, rest, err = quoted(num, s); err != nil {
			return "", "", err
		}
		after := strings.TrimLeft(rest, " ")
		if after == "" || after[0] != ':' || len(after) > 1 && after[1] != ' ' {
			return "", "", errorf(num, "after a text in quotes comes no colon and blank; write key: value")
		}
		return key, after[1:], nil
	}
	end := keyEnd(s, flow)
	if end < 0 {
		return "", "", errorf(num, "the line is not `key: value`; a colon and a blank stand between them")
	}
	key = strings.TrimRight(s[:end], " ")
	if err := checkPlain(num, key, "key"); err != nil {
		return "", "", err
	}
	if flow && needsQuotes(key) {
		return "", "", errorf(num, "put the key in quotes")
	}
	if key == "<<" {
		return "", "", errorf(num, "merging with << is not supported; write the keys out")
	}
	return key, s[end+1:], nil
}

// keyEnd is where the colon after a plain key is, or -1.
func keyEnd(s string, flow bool) int {
	for i := range len(s) {
		switch {
		case s[i] == ':' && (i+1 == len(s) || s[i+1] == ' '):
			return i
		case s[i] == '#' && i > 0 && s[i-1] == ' ':
			return -1 // a comment begins
		case flow && strings.IndexByte(",[]{}", s[i]) >= 0:
			return -1
		}
	}
	return -1
}

// inline reads what stands on the rest of a line: a value, or a list or map on
// one line; Empty if there is nothing but a comment.
func inline(num int, rest string, depth int) (*Node, error) {
	s := strings.TrimLeft(rest, " ")
	if isBlank(s) {
		if s != "" && s[0] == '#' && rest == s {
			return nil, errorf(num, "a blank must stand before a comment")
		}
		return &Node{Line: num}, nil
	}
	var n *Node
	var after string
	var err error
	switch s[0] {
	case '[', '{':
		n, after, err = flow(num, s, depth+1)
	case '"', '\'':
		n = &Node{Kind: Scalar, Line: num}
		n.Value, after, err = quoted(num, s)
	default:
		return plainLine(num, s)
	}
	if err != nil {
		return nil, err
	}
	if !isBlank(after) {
		return nil, errorf(num, "something comes after the closing quote or bracket; put the whole value in quotes")
	}
	if after != "" && after[0] == '#' {
		return nil, errorf(num, "a blank must stand before a comment")
	}
	return n, nil
}

// plainLine reads a value without quotes up to the end of the line.
func plainLine(num int, s string) (*Node, error) {
	for i := range len(s) {
		if s[i] == '#' && i > 0 && s[i-1] == ' ' {
			s = s[:i]
			break
		}
	}
	s = strings.TrimRight(s, " ")
	if err := checkPlain(num, s, "value"); err != nil {
		return nil, err
	}
	if keyEnd(s, false) >= 0 {
		return nil, errorf(num, "the value holds a colon and a blank, which would make it a key; put it in quotes")
	}
	return plain(num, s), nil
}

// plain is the node of a plain scalar.
func plain(num int, s string) *Node {
	if s == "~" || s == "null" || s == "Null" || s == "NULL" {
		return &Node{Line: num}
	}
	return &Node{Kind: Scalar, Line: num, Value: s}
}

// notSupported are the characters that a plain scalar may not begin with, since
// they mean something else in YAML.
var notSupported = map[byte]string{
	'&': "anchors (&) are not supported; write the value out, or put it in quotes",
	'*': "aliases (*) are not supported; write the value out, or put it in quotes",
	'!': "tags (!) are not supported; leave it out, or put the value in quotes",
	'|': "values over several lines (|) are not supported; write it on one line in double quotes, with \\n",
	'>': "values over several lines (>) are not supported; write it on one line in double quotes",
	'%': "put what begins with % in quotes",
	'@': "put what begins with @ in quotes",
	'`': "put what begins with ` in quotes",
	'[': "put a key that begins with [ in quotes",
	'{': "put a key that begins with { in quotes",
	']': "there is a ] without a [",
	'}': "there is a } without a {",
	',': "put what begins with a comma in quotes",
	'#': "put what begins with # in quotes",
	'"': "put it in quotes as a whole",
}

// checkPlain refuses a plain scalar that would mean something else to YAML.
func checkPlain(num int, s, what string) error {
	if s == "" {
		return errorf(num, "the %s is empty; write \"\" if that is meant", what)
	}
	if why := notSupported[s[0]]; why != "" {
		return errorf(num, "%s", why)
	}
	if strings.IndexByte("-?:", s[0]) >= 0 && (len(s) == 1 || s[1] == ' ') {
		return errorf(num, "put what begins with %c and a blank in quotes", s[0])
	}
	return nil
}

// quoted reads a scalar in quotes, and gives what follows it.
func quoted(num int, s string) (value, rest string, err error) {
	if s[0] == '\'' {
		return singleQuoted(num, s)
	}
	var b strings.Builder
	for i := 1; i < len(s); {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			r, n, err := escape(num, s[i:])
			if err != nil {
				return "", "", err
			}
			b.WriteRune(r)
			i += n
		default:
			b.WriteByte(c)
			i++
		}
	}
	return "", "", errorf(num, "the double quotes are not closed on this line")
}

func singleQuoted(num int, s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '\'':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\'': // '' stands for '
			b.WriteByte('\'')
			i++
		default:
			return b.String(), s[i+1:], nil
		}
	}
	return "", "", errorf(num, "the single quotes are not closed on this line")
}

var escapes = map[byte]rune{
	'0': 0, 'a': '\a', 'b': '\b', 't': '\t', 'n': '\n', 'v': '\v', 'f': '\f', 'r': '\r', 'e': 0x1b,
	' ': ' ', '"': '"', '/': '/', '\\': '\\', 'N': 0x85, '_': 0xa0, 'L': 0x2028, 'P': 0x2029,
}

// escape reads an escape of double quotes, s[0] being the backslash.
func escape(num int, s string) (r rune, length int, err error) {
	if len(s) < 2 {
		return 0, 0, errorf(num, "the double quotes are not closed on this line")
	}
	if r, ok := escapes[s[1]]; ok {
		return r, 2, nil
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]
	if digits == 0 {
		return 0, 0, errorf(num, `\%c is not an escape; write \\ for a backslash, or use single quotes`, firstRune(s[1:]))
	}
	if len(s) < 2+digits {
		return 0, 0, errorf(num, `\%c must be followed by %d hexadecimal digits`, s[1], digits)
	}
	v, perr := strconv.ParseUint(s[2:2+digits], 16, 32)
	if perr != nil || !utf8.ValidRune(rune(v)) || v > utf8.MaxRune {
		return 0, 0, errorf(num, `\%c must be followed by %d hexadecimal digits that are a character`, s[1], digits)
	}
	return rune(v), 2 + digits, nil
}

func firstRune(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}

// shorten keeps messages readable.
func shorten(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
