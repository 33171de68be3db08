package yaml

import (
	"fmt"
	"strings"
)

// Kind is what a Node is.
type Kind uint8

// The kinds of Node.
const (
	Empty  Kind = iota // no value, or the plain words null and ~
	Scalar             // a value
	List
	Map
)

// String names the kind as an error message does.
func (k Kind) String() string {
	return [...]string{"nothing", "a value", "a list", "a map"}[k]
}

// Node is a value, a list or a map, and where it stands.
type Node struct {
	Kind    Kind
	Line    int     // from 1
	Value   string  // of a Scalar, without quotes
	Items   []*Node // of a List
	Entries []Entry // of a Map, in the order written

	index map[string]int // of a Map: where in Entries a key is
}

// Entry is one key of a map.
type Entry struct {
	Key  string
	Line int // of the key
	Node *Node
}

// Get gives the node of a key, or nil.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	i, ok := n.index[key]
	if !ok {
		return nil
	}
	return n.Entries[i].Node
}

// add appends an entry to a map; the error says that the key is there already.
func (n *Node) add(e Entry) error {
	if i, ok := n.index[e.Key]; ok {
		return errorf(e.Line, "%q is there twice, first on line %d; keep one", shorten(e.Key), n.Entries[i].Line)
	}
	if n.index == nil {
		n.index = make(map[string]int)
	}
	n.index[e.Key] = len(n.Entries)
	n.Entries = append(n.Entries, e)
	return nil
}

// Error is what is wrong with a text, and where. It never holds a value, which may
// be a secret.
type Error struct {
	Line int // from 1
	Msg  string
}

// Error gives "line N: message".
func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// Quote writes s as a scalar that Parse reads as s, and as no other kind of value
// by any YAML parser: in double quotes unless it is plainly a word. s must be
// valid UTF-8.
func Quote(s string) string {
	if isWord(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case !allowed(r) || r == '\u0085' || r == '\u2028' || r == '\u2029' || r == '\ufeff':
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// isWord reports whether s can stand without quotes and be nothing but a text:
// it begins with a letter and holds nothing that means something in YAML.
func isWord(s string) bool {
	switch strings.ToLower(s) {
	case "", "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' && c != ':') {
			return false
		}
	}
	return s[len(s)-1] != ':'
}
