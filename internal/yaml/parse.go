package yaml

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what is read.
const (
	MaxSize  = 1 << 20 // bytes of a text
	maxDepth = 16      // maps and lists in each other
)

// Parse reads a text. The result is a Map, or Empty if the text holds nothing. The
// error is an *Error.
func Parse(text []byte) (*Node, error) {
	p := &parser{}
	if err := p.split(text); err != nil {
		return nil, err
	}
	if len(p.lines) == 0 {
		return &Node{Line: 1}, nil
	}
	first := p.lines[0]
	if first.isItem() {
		return nil, errorf(first.num, "a list stands where `key: value` is expected")
	}
	n, err := p.block(first.indent, 1)
	if err == nil && len(p.lines) > 0 {
		err = p.misplaced()
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

func errorf(line int, format string, args ...any) *Error {
	return &Error{line, fmt.Sprintf(format, args...)}
}

// line is a line that holds something.
type line struct {
	num    int
	indent int
	text   string // without indentation
}

// isItem reports whether the line is an item of a list.
func (l line) isItem() bool { return isDash(l.text) }

// isDash reports whether s begins with the dash of a list's item.
func isDash(s string) bool {
	return s == "-" || strings.HasPrefix(s, "- ")
}

// parser holds the lines that were not read yet.
type parser struct{ lines []line }

// split takes the text apart, and refuses what concerns lines as a whole.
func (p *parser) split(text []byte) error {
	if len(text) > MaxSize {
		return errorf(1, "the text is longer than %d bytes", MaxSize)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	started, num := false, 0
	for raw := range bytes.Lines(text) {
		num++
		s := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
		if err := checkCharacters(num, s); err != nil {
			return err
		}
		body := strings.TrimLeft(s, " ")
		l := line{num, len(s) - len(body), strings.TrimRight(body, " ")}
		switch {
		case body != "" && body[0] == '#':
			continue
		case strings.Contains(body, "\t"):
			return errorf(num, "there is a tab; use spaces, and \\t in double quotes for one that belongs to a value")
		case body == "":
			continue
		case l.indent == 0 && l.text == "---" && !started:
			started = true
			continue
		case l.indent == 0 && (l.text == "---" || l.text == "..." || strings.HasPrefix(l.text, "--- ") || strings.HasPrefix(l.text, "... ")):
			return errorf(num, "only one document is read, from the first line to the last; remove the line")
		case l.text[0] == '%' && l.indent == 0:
			return errorf(num, "directives (%%) are not supported; remove the line")
		}
		started = true
		p.lines = append(p.lines, l)
	}
	return nil
}

func checkCharacters(num int, s string) error {
	if !utf8.ValidString(s) {
		return errorf(num, "the text is not valid UTF-8")
	}
	for _, r := range s {
		if !allowed(r) || r == '\u0085' || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
			return errorf(num, "there is a character %U that no editor shows; remove it, or write it as an escape in double quotes", r)
		}
	}
	return nil
}

// allowed reports whether r may stand in a text (YAML 1.2 §5.1, and no DEL).
func allowed(r rune) bool {
	switch {
	case r == '\t': // the caller judges it
		return true
	case r < ' ', r >= 0x7f && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
		return false
	}
	return true
}

// misplaced says what is wrong with the next line where nothing fits.
func (p *parser) misplaced() *Error {
	l := p.lines[0]
	if l.isItem() {
		return errorf(l.num, "a list item stands where `key: value` is expected")
	}
	return errorf(l.num, "the line is not indented like the others of its map or list, and a value cannot go on over several lines")
}

// block reads the map or list whose lines are indented by indent.
func (p *parser) block(indent, depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, errorf(p.lines[0].num, "maps and lists are nested more than %d deep", maxDepth)
	}
	if p.lines[0].isItem() {
		return p.list(indent, depth)
	}
	return p.mapping(indent, depth)
}

func (p *parser) mapping(indent, depth int) (*Node, error) {
	m := &Node{Kind: Map, Line: p.lines[0].num}
	for len(p.lines) > 0 && p.lines[0].indent == indent && !p.lines[0].isItem() {
		l := p.lines[0]
		key, rest, err := splitKey(l.num, l.text, false)
		if err != nil {
			return nil, err
		}
		p.lines = p.lines[1:]
		n, err := p.value(l, rest, indent, depth)
		if err != nil {
			return nil, err
		}
		if err := m.add(Entry{key, l.num, n}); err != nil {
			return nil, err
		}
	}
	if len(p.lines) > 0 && p.lines[0].indent >= indent {
		return nil, p.misplaced()
	}
	return m, nil
}

// value reads what follows a key: something on the same line, or a block on the
// next ones. A list may be indented like its key.
func (p *parser) value(l line, rest string, indent, depth int) (*Node, error) {
	n, err := inline(l.num, rest, depth)
	if err != nil || n.Kind != Empty || !isBlank(rest) || len(p.lines) == 0 {
		return n, err
	}
	next := p.lines[0]
	if next.indent > indent || next.indent == indent && next.isItem() {
		return p.block(next.indent, depth+1)
	}
	return n, nil
}

// isBlank reports whether a rest of a line holds nothing but a comment.
func isBlank(rest string) bool {
	rest = strings.TrimLeft(rest, " ")
	return rest == "" || rest[0] == '#'
}

func (p *parser) list(indent, depth int) (*Node, error) {
	list := &Node{Kind: List, Line: p.lines[0].num}
	for len(p.lines) > 0 && p.lines[0].indent == indent && p.lines[0].isItem() {
		n, err := p.item(indent, depth)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, n)
	}
	if len(p.lines) > 0 && p.lines[0].indent > indent {
		return nil, p.misplaced()
	}
	return list, nil
}

// item reads one item of a list.
func (p *parser) item(indent, depth int) (*Node, error) {
	l := p.lines[0]
	rest := strings.TrimPrefix(l.text, "-")
	body := strings.TrimLeft(rest, " ")
	switch {
	case isBlank(rest):
		p.lines = p.lines[1:]
		if len(p.lines) > 0 && p.lines[0].indent > indent {
			if p.lines[0].isItem() {
				return nil, errorf(p.lines[0].num, "a list directly in a list is only supported on one line: - [a, b]")
			}
			return p.block(p.lines[0].indent, depth+1)
		}
		return &Node{Line: l.num}, nil
	case isDash(body):
		return nil, errorf(l.num, "a list directly in a list is only supported on one line: - [a, b]")
	case hasKey(body):
		// The map begins behind the dash: its lines are indented like its first key.
		inner := indent + 1 + len(rest) - len(body)
		p.lines[0] = line{l.num, inner, body}
		return p.block(inner, depth+1)
	}
	p.lines = p.lines[1:]
	return inline(l.num, rest, depth)
}
