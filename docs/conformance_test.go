package docs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "count the rows of conformance.md anew")

const (
	conformanceFile = "conformance.md"
	countsBegin     = "<!-- counts: begin -->\n"
	countsEnd       = "<!-- counts: end -->"
	tableHead       = "| § | rule | where | proof | status |"
	blank           = "—"
)

var (
	rowID      = regexp.MustCompile(`^R(\d+(\.\d+)*|C)-[1-9]\d*$`)
	quoted     = regexp.MustCompile("`([^`]+)`")
	codeRef    = regexp.MustCompile(`^([a-z_/]+\.go):([A-Za-z]\w*)$`)
	testRef    = regexp.MustCompile(`^([a-z/]+)\.((?:Test|Fuzz)\w+)$`)
	transcript = regexp.MustCompile(`^testdata/session/[\w-]+\.txt$`)
	statuses   = []string{"done", "otherwise", "n/a", "open"}
)

// row is one rule of the RFC.
type row struct {
	line                          int
	section                       string
	id, rule, where, proof, state string
	why                           string // what follows the status
}

// parseConformance reads the tables. Anything that begins like a row but is none
// is an error: a rule must not get lost by a slip of the pen.
func parseConformance(text string) (rows []row, err error) {
	section, inTable := "", false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			section, inTable = strings.TrimPrefix(line, "## "), false
			continue
		case line == tableHead:
			inTable = true
			continue
		case !strings.HasPrefix(line, "|"), strings.HasPrefix(line, "|---"):
			continue
		case !inTable:
			if section == "Summary" {
				continue
			}
			return nil, fmt.Errorf("line %d: a row outside of a table with the head %q", i+1, tableHead)
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
		if len(cells) != 5 {
			return nil, fmt.Errorf("line %d: %d cells instead of 5", i+1, len(cells))
		}
		for j := range cells {
			if cells[j] = strings.TrimSpace(cells[j]); cells[j] == "" {
				return nil, fmt.Errorf("line %d: cell %d is blank", i+1, j+1)
			}
		}
		state, why, _ := strings.Cut(cells[4], ": ")
		rows = append(rows, row{i + 1, section, cells[0], cells[1], cells[2], cells[3], state, why})
	}
	return rows, nil
}

// counts is the summary: how many rows of each status a section has.
func counts(rows []row) string {
	var b strings.Builder
	b.WriteString("| section | " + strings.Join(statuses, " | ") + " | all |\n|---|" + strings.Repeat("---|", len(statuses)+1) + "\n")
	var sections []string
	n := map[string]map[string]int{"all": {}}
	for _, r := range rows {
		if n[r.section] == nil {
			n[r.section] = map[string]int{}
			sections = append(sections, r.section)
		}
		n[r.section][r.state]++
		n["all"][r.state]++
	}
	for _, s := range append(sections, "all") {
		fmt.Fprintf(&b, "| %s |", s)
		all := 0
		for _, state := range statuses {
			fmt.Fprintf(&b, " %d |", n[s][state])
			all += n[s][state]
		}
		fmt.Fprintf(&b, " %d |\n", all)
	}
	return b.String()
}

// TestConformance checks the document against itself and against the source.
func TestConformance(t *testing.T) {
	raw, err := os.ReadFile(conformanceFile)
	require.NoError(t, err)
	text := string(raw)
	rows, err := parseConformance(text)
	require.NoError(t, err)
	require.Greater(t, len(rows), 300, "the tables are not all there")

	ids := map[string]int{}
	for _, r := range rows {
		where := fmt.Sprintf("%s:%d: %s", conformanceFile, r.line, r.id)
		assert.Regexp(t, rowID, r.id, where)
		assert.Zero(t, ids[r.id], "%s: the id is taken by line %d", where, ids[r.id])
		ids[r.id] = r.line
		for _, problem := range r.problems() {
			t.Errorf("%s: %s", where, problem)
		}
	}

	before, rest, ok := strings.Cut(text, countsBegin)
	require.True(t, ok, "no %s", countsBegin)
	old, after, ok := strings.Cut(rest, countsEnd)
	require.True(t, ok, "no %s", countsEnd)
	want := counts(rows)
	t.Logf("\n%s", want)
	if *rewrite {
		require.NoError(t, os.WriteFile(conformanceFile, []byte(before+countsBegin+want+countsEnd+after), 0o644))
		return
	}
	assert.Equal(t, want, old, "the summary is out of date: go test ./docs -rewrite")
}

// problems lists what is wrong with a row, looking at the source for what it names.
func (r row) problems() (out []string) {
	settled := r.state == "done" || r.state == "otherwise"
	switch {
	case !slices.Contains(statuses, r.state):
		out = append(out, fmt.Sprintf("status %q, must be one of %v", r.state, statuses))
	case r.state != "done" && r.why == "":
		out = append(out, r.state+" without a reason")
	case settled && r.where == blank:
		out = append(out, r.state+", but nothing says where")
	case settled && r.proof == blank:
		out = append(out, r.state+" without proof")
	}
	out = append(out, checkCell("where", r.where, checkCode)...)
	out = append(out, checkCell("proof", r.proof, checkProof)...)
	// Tests named in passing must exist as well.
	for _, m := range quoted.FindAllStringSubmatch(r.why, -1) {
		if err := checkProof(m[1]); err != nil {
			out = append(out, err.Error())
		}
	}
	return out
}

// checkCell checks each of the references of a cell, which holds nothing else.
func checkCell(name, cell string, check func(string) error) (out []string) {
	if cell == blank {
		return nil
	}
	for item := range strings.SplitSeq(cell, "; ") {
		ref, ok := strings.CutPrefix(item, "`")
		ref, ok2 := strings.CutSuffix(ref, "`")
		if !ok || !ok2 {
			out = append(out, fmt.Sprintf("%s: %q is not a reference in backquotes", name, item))
			continue
		}
		if err := check(ref); err != nil {
			out = append(out, fmt.Sprintf("%s: %v", name, err))
		}
	}
	return out
}

// checkCode finds file:function, a function or a method.
func checkCode(ref string) error {
	m := codeRef.FindStringSubmatch(ref)
	if m == nil {
		return fmt.Errorf("%q is not file.go:function", ref)
	}
	src, err := os.ReadFile(filepath.Join("..", m[1]))
	if err != nil {
		return err
	}
	if !declares(string(src), m[2]) {
		return fmt.Errorf("%s has no function %s", m[1], m[2])
	}
	return nil
}

func declares(src, name string) bool {
	return regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + regexp.QuoteMeta(name) + `[\[(]`).MatchString(src)
}

// checkProof finds a test function in the test files of its folder, or a transcript.
func checkProof(ref string) error {
	if transcript.MatchString(ref) {
		_, err := os.Stat(filepath.Join("..", ref))
		return err
	}
	m := testRef.FindStringSubmatch(ref)
	if m == nil {
		return fmt.Errorf("%q is neither folder.TestName nor a transcript", ref)
	}
	files, err := filepath.Glob(filepath.Join("..", m[1], "*_test.go"))
	if err != nil {
		return err
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if declares(string(src), m[2]) {
			return nil
		}
	}
	return fmt.Errorf("no function %s in the tests of %s", m[2], m[1])
}

// TestChecks: the checks above find what they are for.
func TestChecks(t *testing.T) {
	good := row{id: "R1-1", rule: "x", where: "`docs/conformance_test.go:counts`; `docs/conformance_test.go:problems`", proof: "`docs.TestChecks`", state: "done"}
	require.Empty(t, good.problems())
	for name, change := range map[string]func(r *row){
		"unknown status":    func(r *row) { r.state = "nearly" },
		"no proof":          func(r *row) { r.proof = blank },
		"no place":          func(r *row) { r.where = blank },
		"open without why":  func(r *row) { r.state = "open" },
		"why otherwise":     func(r *row) { r.state = "otherwise" },
		"otherwise, where?": func(r *row) { r.state, r.why, r.where = "otherwise", "because", blank },
		"untested purpose":  func(r *row) { r.state, r.why, r.proof = "otherwise", "because", blank },
		"no such file":      func(r *row) { r.where = "`docs/gone.go:x`" },
		"no such function":  func(r *row) { r.where = "`docs/conformance_test.go:gone`" },
		"no reference":      func(r *row) { r.where = "somewhere" },
		"no such test":      func(r *row) { r.proof = "`docs.TestGone`" },
		"no such folder":    func(r *row) { r.proof = "`gone.TestChecks`" },
		"no such recording": func(r *row) { r.proof = "`testdata/session/gone.txt`" },
		"not a test":        func(r *row) { r.proof = "`docs.counts`" },
		"test gone in text": func(r *row) { r.state, r.why = "open", "see `docs.TestGone`" },
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			change(&r)
			assert.Len(t, r.problems(), 1)
		})
	}
	for name, text := range map[string]string{
		"cells":   "## A\n" + tableHead + "\n| R1-1 | a | b | c |",
		"blank":   "## A\n" + tableHead + "\n| R1-1 | a |  | c | done |",
		"outside": "## A\n| R1-1 | a | b | c | done |",
	} {
		_, err := parseConformance(text)
		assert.Error(t, err, name)
	}
}
