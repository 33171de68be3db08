package test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/session"
	"github.com/iscsimp/iscsimp/test/peer"
)

var rewrite = flag.Bool("rewrite", false, "write docs/interop.md from this run; review the difference")

// The words a cell of the table starts with.
const (
	cellRun     = "run"
	cellRefused = "refused"
	cellFailing = "failing"
	cellNotRun  = "not run"
)

// refusal is a feature that the target does not agree to; the session went on without it, or did not come up in good order.
type refusal string

func (r refusal) Error() string { return string(r) }

// demand is what a target must be set up for.
type demand struct {
	chap, mutual             *peer.Account
	headerDigest, dataDigest bool
	unsolicited              bool // InitialR2T=No
	noImmediate              bool
	burst                    uint32 // MaxBurstLength and FirstBurstLength; 0: the target's default
	connections              int
	window                   int // commands; 0: the target's default
	pings                    bool
	redirect                 bool
}

// party is a target that is ready for one cell.
type party struct {
	portal, iqn string
	lun         int
	ping        func()       // has the target send NOP-Ins now; nil: it does so every second, or never
	verdict     func() error // what the target thinks in the end; nil: it has no opinion
	moved       func() bool  // says whether the session went where the redirect leads
}

func (p party) config() session.Config {
	// A busy machine may keep a target from answering for longer than the default of 2 s.
	return session.Config{TargetName: p.iqn, Portal: p.portal, ReconnectMin: 10 * time.Millisecond, NoopTimeout: 15 * time.Second}
}

// contestant is a column of the table.
type contestant struct {
	name   string
	cannot map[string]string // features that this target has no way to show, and why
	faults map[string]string // features that this target is known to break, and how
	moody  map[string]bool   // features that this target breaks now and then when the machine is busy: it has several tries
	start  func(t *testing.T, d demand) party
}

// feature is a row.
type feature struct {
	name  string
	lab   string // the test of the lab that shows it with LIO; empty: lioCannot says why there is none
	needs demand
	run   func(ctx context.Context, p party) error
}

// judge turns the outcome of a cell into its text, which must be the same in each run.
func judge(err error) string {
	var refused refusal
	switch {
	case err == nil:
		return cellRun
	case errors.As(err, &refused):
		return cellRefused + " (" + refused.Error() + ")"
	}
	if failed, ok := errors.AsType[*session.Error](err); ok && failed.Kind == session.KindLogin {
		return fmt.Sprintf("%s (login status %04x)", cellRefused, uint16(failed.Login))
	}
	return cellFailing
}

// TestInteropTable runs each feature against each target and compares the outcome with docs/interop.md, or writes that file with -rewrite. The column of LIO is
// that of the last run of lab/check.sh.
func TestInteropTable(t *testing.T) {
	targets, list := contestants(), features()
	cells := map[string]map[string]string{}
	for _, f := range list {
		cells[f.name] = map[string]string{}
	}
	var mu sync.Mutex
	t.Run("cells", func(t *testing.T) {
		for _, c := range targets {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				for _, f := range list {
					cell := ""
					t.Run(f.name, func(t *testing.T) { cell = playCell(t, c, f) })
					mu.Lock()
					cells[f.name][c.name] = cell
					mu.Unlock()
				}
			})
		}
	})
	path := filepath.Join(peer.RepositoryRoot(), "docs", "interop.md")
	before := readTable(path)
	if *rewrite {
		labColumn(list, cells, before)
		require.NoError(t, os.WriteFile(path, []byte(document(targets, list, cells)), 0o644))
		return
	}
	for _, f := range list {
		for _, c := range targets {
			if cell := cells[f.name][c.name]; cell != "" { // empty: the program is not installed, and that was allowed
				assert.Equal(t, before[f.name][c.name], cell, "%s with %s: docs/interop.md does not say what happened (-rewrite writes it anew)", f.name, c.name)
			}
		}
	}
}

func playCell(t *testing.T, c contestant, f feature) string {
	if why := c.cannot[f.name]; why != "" {
		return cellNotRun + " (" + why + ")"
	}
	if f.run == nil {
		return cellNotRun + " (not in iscsimp)"
	}
	var err error
	cell := cellFailing
	for try := 0; cell == cellFailing && (try == 0 || try < 6 && c.moody[f.name]); try++ {
		if err != nil {
			t.Logf("again, for %s now and then fails here: %v", c.name, err)
		}
		err = playOnce(t, c, f)
		cell = judge(err)
	}
	if err != nil {
		t.Logf("%s: %v", cell, err)
	}
	switch why := c.faults[f.name]; {
	case cell != cellFailing:
	case why != "":
		cell += " (the target " + why + ")"
	default:
		t.Errorf("%s with %s: %v", f.name, c.name, err)
	}
	return cell
}

func playOnce(t *testing.T, c contestant, f feature) error {
	p := c.start(t, f.needs)
	ctx, cancel := context.WithTimeout(t.Context(), 2*peer.Patience)
	defer cancel()
	if err := f.run(ctx, p); err != nil || p.verdict == nil {
		return err
	}
	return p.verdict()
}

const (
	lioColumn   = "LIO"
	tableBegin  = "<!-- table: begin -->"
	tableEnd    = "<!-- table: end -->"
	interopHead = `# Interoperation

What each feature of the session layer does with each target. The table is the outcome of a test run, not of reading: TestInteropTable
(` + "`test/interop_test.go`" + `) plays every cell, with data written, read back and compared, and fails when this file says something else.
` + "`go test . -run TestInteropTable -rewrite`" + ` in test/ writes it. The column of LIO is what ` + "`lab/check.sh`" + ` found in its virtual machine,
where iscsimp's command line is what logs in; it is taken over by -rewrite.

- **run**: negotiated, used, and the data were right.
- **refused**: the target does not agree to it, and the session got along without, or the login failed in good order.
- **failing**: it should work and does not. Where the fault is the target's, the cell says so; the session is then lost in good order, with no wrong data.
- **not run**: this target, or iscsimp, has no way to show it.

iscsitest is the test kit's own target, which also objects to every breach of RFC 7143 by the initiator. gotgt is v0.2.2, tgtd and istgt are Debian's.
LIO is that of Debian's kernel 6.1; its MC/S is played at ErrorRecoveryLevel 2, where the loss of a connection can crash its kernel (lab/README.md).

`
)

func document(targets []contestant, list []feature, cells map[string]map[string]string) string {
	var b strings.Builder
	b.WriteString(interopHead + tableBegin + "\n| feature |")
	for _, c := range targets {
		b.WriteString(" " + c.name + " |")
	}
	b.WriteString(" " + lioColumn + " |\n|---" + strings.Repeat("|---", len(targets)+1) + "|\n")
	for _, f := range list {
		b.WriteString("| " + f.name + " |")
		for _, c := range targets {
			b.WriteString(" " + cells[f.name][c.name] + " |")
		}
		b.WriteString(" " + cells[f.name][lioColumn] + " |\n")
	}
	b.WriteString(tableEnd + "\n")
	return b.String()
}

// readTable reads the cells of docs/interop.md: feature, then target. A file that is not there has none.
func readTable(path string) map[string]map[string]string {
	cells := map[string]map[string]string{}
	text, err := os.ReadFile(path)
	if err != nil {
		return cells
	}
	_, table, _ := strings.Cut(string(text), tableBegin+"\n")
	var head []string
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		fields := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if head == nil {
			head = fields
			continue
		}
		row := map[string]string{}
		for i := 1; i < min(len(fields), len(head)); i++ {
			row[head[i]] = fields[i]
		}
		cells[fields[0]] = row
	}
	return cells
}

// lioCannot is what LIO has no way to show, and why.
var lioCannot = map[string]string{rowRedirect: "it has none"}

// labColumn fills in the column of LIO: from the results of the lab, if there are some, else as it stood.
func labColumn(list []feature, cells, before map[string]map[string]string) {
	verdicts := labVerdicts()
	for _, f := range list {
		cell := before[f.name][lioColumn]
		switch verdict := verdicts[f.lab]; {
		case f.lab == "":
			cell = cellNotRun + " (" + lioCannot[f.name] + ")"
		case verdict == "pass":
			cell = cellRun
		case verdict == "fail":
			cell = cellFailing
		case verdict != "" || cell == "":
			cell = cellNotRun + " (not yet)"
		}
		cells[f.name][lioColumn] = cell
	}
}

// labVerdicts is what the last run of lab/check.sh said of each of its tests: pass, fail or not-yet.
func labVerdicts() map[string]string {
	folder := os.Getenv("LAB_RESULTS")
	if folder == "" {
		folder = filepath.Join(cmp.Or(os.Getenv("VMLAB_CACHE"), filepath.Join(peer.RepositoryRoot(), "lab", "cache")), "results")
	}
	verdicts := map[string]string{}
	text, _ := os.ReadFile(filepath.Join(folder, "results.tsv"))
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(line, "\t"); len(fields) > 1 {
			verdicts[fields[0]] = fields[1]
		}
	}
	return verdicts
}

// TestLabKnowsItsRows: each row is shown with LIO by a test that the lab has, or says why not.
func TestLabKnowsItsRows(t *testing.T) {
	for _, f := range features() {
		if f.lab == "" {
			assert.NotEmpty(t, lioCannot[f.name], "%s: no test of the lab, and no reason", f.name)
			continue
		}
		assert.Empty(t, lioCannot[f.name], "%s: a reason, and a test of the lab", f.name)
		assert.FileExists(t, filepath.Join(peer.RepositoryRoot(), "lab", "guest", "tests", f.lab), f.name)
	}
}
