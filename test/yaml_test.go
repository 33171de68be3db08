package test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	full "go.yaml.in/yaml/v3"

	"github.com/iscsimp/iscsimp/internal/yaml"
)

// TestConfigIsYAML: whatever the configuration's parser accepts means the same to
// a full YAML parser. The texts are random, of pieces that make trouble.
func TestConfigIsYAML(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	accepted := 0
	for range 300_000 {
		text := randomYAML(r)
		n, err := yaml.Parse([]byte(text))
		if err != nil {
			continue
		}
		accepted++
		var doc full.Node
		require.NoError(t, full.Unmarshal([]byte(text), &doc), "%q", text)
		require.Equal(t, describe(n), describeFull(&doc), "%q", text)
	}
	t.Logf("%d accepted", accepted)
	require.Greater(t, accepted, 10_000, "too few texts say anything")
}

var yamlPieces = []string{
	"a", "b", "key", "\"q\"", "'s'", "''", "\"\"", "\"\\n\"", "'it''s'", ": ", ":", ":\n", "- ", "-", "\n", "\n", "\n  ", "\n  ", "\n    ", "\n ",
	" ", "#", " # c", "[", "]", "{", "}", ", ", ",", "~", "null", "1", "-1", "yes", "x:y", "10.0.0.1:3260", "?", "? ", "&a", "*a", "!t", "|", ">", "%", "@", "`",
	"<<", "\t", "---\n", "...", "é", "\\", "\"", "'", "=", "+", "a b", ".", "a: b\n", "a:\n  b: c\n", "k: [a, b]\n", "- a\n", "\r\n", "2026-01-01", "0x1f", "1e3",
}

func randomYAML(r *rand.Rand) string {
	var b strings.Builder
	if r.IntN(3) > 0 {
		b.WriteString([]string{"a: ", "a:\n  b: ", "a:\n- ", "a:\n  - ", "a: [", "a: {b: "}[r.IntN(6)])
	}
	for range 1 + r.IntN(8) {
		b.WriteString(yamlPieces[r.IntN(len(yamlPieces))])
	}
	switch s := b.String(); {
	case strings.Count(s, "[") > strings.Count(s, "]") && r.IntN(4) > 0:
		b.WriteString("]")
	case strings.Count(s, "{") > strings.Count(s, "}") && r.IntN(4) > 0:
		b.WriteString("}")
	}
	return b.String()
}

func describe(n *yaml.Node) string {
	var b strings.Builder
	switch n.Kind {
	case yaml.Empty:
		return "~"
	case yaml.Scalar:
		return fmt.Sprintf("%q", n.Value)
	case yaml.List:
		for _, i := range n.Items {
			b.WriteString(describe(i) + " ")
		}
		return "[" + b.String() + "]"
	case yaml.Map:
	}
	for _, e := range n.Entries {
		fmt.Fprintf(&b, "%q@%d: %s ", e.Key, e.Line, describe(e.Node))
	}
	return "{" + b.String() + "}"
}

func describeFull(n *full.Node) string {
	var b strings.Builder
	switch n.Kind {
	case 0:
		return "~"
	case full.DocumentNode:
		return describeFull(n.Content[0])
	case full.ScalarNode:
		if n.Tag == "!!null" {
			return "~"
		}
		return fmt.Sprintf("%q", n.Value)
	case full.SequenceNode:
		for _, i := range n.Content {
			b.WriteString(describeFull(i) + " ")
		}
		return "[" + b.String() + "]"
	case full.MappingNode:
	case full.AliasNode:
		return "alias"
	}
	for i := 0; i < len(n.Content); i += 2 {
		fmt.Fprintf(&b, "%q@%d: %s ", n.Content[i].Value, n.Content[i].Line, describeFull(n.Content[i+1]))
	}
	return "{" + b.String() + "}"
}
