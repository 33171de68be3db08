package yaml

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// show writes a node in one line.
func show(n *Node) string {
	var parts []string
	switch n.Kind {
	case Empty:
		return "~"
	case Scalar:
		return fmt.Sprintf("%q", n.Value)
	case List:
		for _, i := range n.Items {
			parts = append(parts, show(i))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case Map:
	}
	for _, e := range n.Entries {
		parts = append(parts, fmt.Sprintf("%s@%d=%s", e.Key, e.Line, show(e.Node)))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "~",
		"# nothing\n\n  # more\n---\n":       "~",
		"a: b":                               `{a@1="b"}`,
		"\ufeffa: b\r\nc:   d  # e\r\n":      `{a@1="b" c@2="d"}`,
		"---\na:\n":                          "{a@2=~}",
		"a: ~\nb: null\nc: \"null\"\n":       `{a@1=~ b@2=~ c@3="null"}`,
		"a: b#c\nd: http://x:1/#y\n":         `{a@1="b#c" d@2="http://x:1/#y"}`,
		"10.0.0.1:3260: x\n\"[::1]:1\" : y":  `{10.0.0.1:3260@1="x" [::1]:1@2="y"}`,
		"node.conn[0].x: 5":                  `{node.conn[0].x@1="5"}`,
		"a:\n  b: 1\n  c:\n    d: 2\ne: 3\n": `{a@1={b@2="1" c@3={d@4="2"}} e@5="3"}`,
		"a:\n- b\n- c\nd: e":                 `{a@1=["b" "c"] d@4="e"}`,
		"a:\n  - b\n  -\n  - 'c''d'\n":       `{a@1=["b" ~ "c'd"]}`,
		"a:\n  - b: 1\n    c: 2\n  - d: 3":   `{a@1=[{b@2="1" c@3="2"} {d@4="3"}]}`,
		"a:\n  -\n    b: 1\n":                `{a@1=[{b@3="1"}]}`,
		"a: [b, \"c, d\", 'e', [f], {g: h}]": `{a@1=["b" "c, d" "e" ["f"] {g@1="h"}]}`,
		"a: [ ]\nb: {}\nc: [x, ]":            `{a@1=[] b@2={} c@3=["x"]}`,
		"a: {b: 1, \"c d\": [2], e: , f: 3}": `{a@1={b@1="1" c d@1=["2"] e@1=~ f@1="3"}}`,
		`a: "\"\\\x41\u00e9\U0001f600\n\t"`:  "{a@1=\"\\\"\\\\Aé😀\\n\\t\"}",
		"a: -1\nb: -x\nc: ?x\nd: :x":         `{a@1="-1" b@2="-x" c@3="?x" d@4=":x"}`,
		"a:\n    - x\nb:\n - y":              `{a@1=["x"] b@3=["y"]}`,
		"a: 'it is # not a comment' # this":  `{a@1="it is # not a comment"}`,
		"a: b c  d":                          `{a@1="b c  d"}`,
		"a:\n  - 'x: y'\n":                   `{a@1=["x: y"]}`,
		"a:\n  - [x, y]\n":                   `{a@1=[["x" "y"]]}`,
		"a:\n  'b': c\n  \"d\":e: f":         "",
	} {
		n, err := Parse([]byte(text))
		if want == "" {
			assert.Error(t, err, text)
			continue
		}
		if assert.NoError(t, err, text) {
			assert.Equal(t, want, show(n), text)
		}
	}
}

// refused are texts that are not read, and what the error says.
var refused = map[string]string{
	"a":                      "line 1: the line is not `key: value`",
	"- a":                    "line 1: a list stands where",
	"a: 1\n- b":              "line 2: a list item stands where",
	"a: b\n  c: d":           "line 2: the line is not indented like the others",
	"a:\n   b: 1\n  c: 2":    "line 3: the line is not indented like the others",
	"a: b\n  c":              "line 2: the line is not indented",
	"a:\n  b":                "line 2: the line is not `key: value`",
	"a:\n\tb: c":             "line 2: there is a tab",
	"a: 1\nb: 2\na: 3":       "line 3: \"a\" is there twice, first on line 1",
	"a: {b: 1, b: 2}":        "line 1: \"b\" is there twice",
	"a: &x b":                "anchors",
	"a: *x":                  "aliases",
	"a: !!str b":             "tags",
	"a: |\n  b":              "over several lines",
	"a: >-\n  b":             "over several lines",
	"a: @b":                  "begins with @",
	"a: %b":                  "begins with %",
	"%YAML 1.2\n---\na: b":   "directives",
	"a: b\n---\nc: d":        "line 2: only one document",
	"a: b\n...":              "only one document",
	"? a\n: b":               "is not `key: value`",
	"<<: a":                  "merging",
	"a: b: c":                "in quotes",
	"a: \"b":                 "not closed",
	"a: 'b":                  "not closed",
	"a: \"b\\":               "not closed",
	"a: \"b\" c":             "after the closing quote",
	"a: \"b\"#c":             "a blank must stand before a comment",
	"a: [b]#c":               "a blank must stand before a comment",
	`a: "\q"`:                `\q is not an escape`,
	`a: "\x4"`:               "2 hexadecimal digits",
	`a: "\ud800"`:            "that are a character",
	"a: [b":                  "the [ is not closed",
	"a: [b # c":              "the [ is not closed",
	"a: {b: c":               "the { is not closed",
	"a: [b} ":                "a comma or ] is expected",
	"a: [b [c]]":             "in quotes",
	"a: [, b]":               "comma",
	"a: [b: c]":              "in quotes",
	"a: [-]":                 "in quotes",
	"a: [\"b\": c]":          "a key stands where a value is expected",
	"a: {b}":                 "is not `key: value`",
	"a: ]":                   "without a [",
	"[::1]:3260: x":          "line 1: put a key that begins with [ in quotes",
	"a: - b":                 "in quotes",
	"a:\n  - - b":            "a list directly in a list",
	"a:\n  -\n    - b":       "a list directly in a list",
	"a:\n  -\tb":             "there is a tab",
	"a: \"b\" : c":           "after the closing quote",
	": b":                    "the key is empty",
	"a: b\x00":               "U+0000",
	"a: \xff":                "UTF-8",
	"a: b\u2028c":            "U+2028",
	"\"a\"b: c":              "no colon",
	"a: #b\n c: d\n  e: f":   "line 3: the line is not indented",
	"x:\n  - a: 1\n      b:": "line 3: the line is not indented",
}

func TestRefused(t *testing.T) {
	for text, says := range refused {
		n, err := Parse([]byte(text))
		if !assert.Error(t, err, "%q is read as %v", text, n) {
			continue
		}
		assert.IsType(t, &Error{}, err)
		assert.Contains(t, err.Error(), says, text)
	}
	deep := strings.Repeat("[", maxDepth+2)
	_, err := Parse([]byte("a: " + deep))
	require.ErrorContains(t, err, "nested more than")
	var b strings.Builder
	for i := range maxDepth + 2 {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	_, err = Parse([]byte(b.String()))
	require.ErrorContains(t, err, "nested more than")
	_, err = Parse(make([]byte, MaxSize+1))
	require.ErrorContains(t, err, "longer than")
}

// TestManyKeys: the time to read a text grows like its length.
func TestManyKeys(t *testing.T) {
	var b strings.Builder
	for i := range 80_000 {
		fmt.Fprintf(&b, "k%d: v\n", i)
	}
	n, err := Parse([]byte(b.String()))
	require.NoError(t, err)
	require.Len(t, n.Entries, 80_000)
	require.Equal(t, 80_000, n.Entries[79_999].Line)
}

// TestErrorsHoldNoValue: a secret with a mistake in it is not shown.
func TestErrorsHoldNoValue(t *testing.T) {
	for _, text := range []string{
		"password: hush: x", "password: \"hush", "password: 'hush", "password: \"x\" hush", "password: [hush", "password: [a: hush]", "password: [hush{]",
		"password: x\n  hush", "password:\n  hush", "password: |\n  hush", "password: &hush", "password: \"\\qhush\"", "password: {hush}", "password: {a: -hush}", "- hush",
		"password: \"hush\"\n\"hush\" x", "...hush", "%hush",
	} {
		_, err := Parse([]byte(text))
		require.Error(t, err, text)
		assert.NotContains(t, err.Error(), "hush")
	}
}

func TestGet(t *testing.T) {
	n, err := Parse([]byte("a:\n  b: c"))
	require.NoError(t, err)
	assert.Equal(t, "c", n.Get("a").Get("b").Value)
	assert.Nil(t, n.Get("x").Get("y"))
	assert.Equal(t, "a map", n.Kind.String())
}

func TestQuote(t *testing.T) {
	for s, want := range map[string]string{
		"disk1-0": "disk1-0", "iqn.2026-01.x:disk": "iqn.2026-01.x:disk",
		"": `""`, "yes": `"yes"`, "Null": `"Null"`, "1": `"1"`, "10.0.0.1:3260": `"10.0.0.1:3260"`, "a:": `"a:"`,
		"[::1]:3260": `"[::1]:3260"`, "a\"\\\n\t": `"a\"\\\n\t"`, "\x00\u2028\ufeff": `"\U00000000\U00002028\U0000feff"`, "é": `"é"`,
	} {
		assert.Equal(t, want, Quote(s))
	}
}

// Seeds are of interest to every fuzzer of this package.
func seeds(f *testing.F) {
	for text := range refused {
		f.Add(text)
	}
	f.Add("defaults:\n  policy: latency # c\n  portals: [a, \"b:1\"]\ntargets:\n  iqn.x:\n    chap_user: 'a''b'\n  - c\n")
	f.Add("a:\n  - b: 1\n    c: 2\n  - d\n")
}

// FuzzParse: no text makes it panic, hang or answer with something that is
// neither a tree nor an error with a line of the text.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse([]byte(text))
		lines := strings.Count(text, "\n") + 1
		if err != nil {
			e, ok := err.(*Error) //nolint:errorlint // it is never wrapped
			require.True(t, ok)
			require.True(t, e.Line >= 1 && e.Line <= lines, "line %d of %d", e.Line, lines)
			require.NotContains(t, e.Msg, "\n")
			return
		}
		check(t, n, lines, 0)
	})
}

// check walks a tree.
func check(t *testing.T, n *Node, lines, depth int) {
	require.LessOrEqual(t, depth, maxDepth+1)
	require.True(t, n.Line >= 1 && n.Line <= lines)
	for _, i := range n.Items {
		check(t, i, lines, depth+1)
	}
	for _, e := range n.Entries {
		require.Same(t, e.Node, n.Get(e.Key), "no key is there twice")
		check(t, e.Node, lines, depth+1)
	}
}

// FuzzQuote: what is written is read back.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", "yes", "a: b", "#", "\"", "\\", "é\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "?")
		n, err := Parse([]byte(Quote(s) + ": [" + Quote(s) + "]"))
		require.NoError(t, err)
		require.Equal(t, s, n.Entries[0].Key)
		require.Equal(t, &Node{Kind: Scalar, Line: 1, Value: s}, n.Entries[0].Node.Items[0])
	})
}
