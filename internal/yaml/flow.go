package yaml

import "strings"

// flow reads a list or map on one line, s[0] being its bracket, and gives what
// follows it.
func flow(num int, s string, depth int) (n *Node, rest string, err error) {
	if depth > maxDepth {
		return nil, "", errorf(num, "maps and lists are nested more than %d deep", maxDepth)
	}
	closing := byte(']')
	n = &Node{Kind: List, Line: num}
	if s[0] == '{' {
		closing, n.Kind = '}', Map
	}
	rest = strings.TrimLeft(s[1:], " ")
	for {
		if rest == "" || rest[0] == '#' {
			return nil, "", errorf(num, "the %c is not closed on this line", s[0])
		}
		if rest[0] == closing {
			return n, rest[1:], nil
		}
		if n.Kind == Map {
			rest, err = n.flowEntry(num, rest, depth)
		} else {
			var item *Node
			if item, rest, err = flowValue(num, rest, depth); err == nil {
				n.Items = append(n.Items, item)
			}
		}
		if err != nil {
			return nil, "", err
		}
		rest = strings.TrimLeft(rest, " ")
		switch {
		case rest == "" || rest[0] == '#':
		case rest[0] == ',':
			rest = strings.TrimLeft(rest[1:], " ")
		case rest[0] != closing:
			return nil, "", errorf(num, "a comma or %c is expected after each value", closing)
		}
	}
}

// flowEntry reads one `key: value` of a map on one line.
func (n *Node) flowEntry(num int, s string, depth int) (rest string, err error) {
	key, rest, err := splitKey(num, s, true)
	if err != nil {
		return "", err
	}
	rest = strings.TrimLeft(rest, " ")
	v := &Node{Line: num}
	if rest != "" && rest[0] != ',' && rest[0] != '}' {
		if v, rest, err = flowValue(num, rest, depth); err != nil {
			return "", err
		}
	}
	return rest, n.add(Entry{key, num, v})
}

// flowValue reads one value between brackets.
func flowValue(num int, s string, depth int) (n *Node, rest string, err error) {
	switch s[0] {
	case ',':
		return nil, "", errorf(num, "nothing stands before the comma")
	case '[', '{':
		return flow(num, s, depth+1)
	case '"', '\'':
		n = &Node{Kind: Scalar, Line: num}
		n.Value, rest, err = quoted(num, s)
		if err == nil && strings.HasPrefix(strings.TrimLeft(rest, " "), ":") {
			err = errorf(num, "a key stands where a value is expected")
		}
		return n, rest, err
	}
	end := len(s)
	for i := range len(s) {
		if strings.IndexByte(",[]{}", s[i]) >= 0 || s[i] == '#' && i > 0 && s[i-1] == ' ' {
			end = i
			break
		}
	}
	text := strings.TrimRight(s[:end], " ")
	if err := checkPlain(num, text, "value"); err != nil {
		return nil, "", err
	}
	if end < len(s) && (s[end] == '[' || s[end] == '{') {
		return nil, "", errorf(num, "put a value that holds %c in quotes", s[end])
	}
	if keyEnd(text, false) >= 0 || needsQuotes(text) {
		return nil, "", errorf(num, "put a value that holds a question mark or colon in quotes")
	}
	return plain(num, text), s[end:], nil
}

// needsQuotes reports whether a plain scalar between brackets is read in different
// ways by different parsers.
func needsQuotes(s string) bool {
	return strings.IndexByte("-:", s[0]) >= 0 || strings.Contains(s, "?")
}
