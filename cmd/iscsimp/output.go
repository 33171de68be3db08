package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// schemaVersion is the "version" field of all JSON output. Fields are only
// ever added under one version.
const schemaVersion = 1

// writeJSON prints v as one line of JSON, or indented if a person may read it.
func writeJSON(w io.Writer, v any, indent bool) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if indent {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// table is text in columns.
type table struct {
	header []string
	rows   [][]string
	blank  bool // an empty cell is left blank, not shown as "-"
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// writeTo prints the table. Cells lose control characters, because some of
// them come from targets.
func (t *table) writeTo(w io.Writer) error {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			if c = printable(c); c == "" && !t.blank {
				c = "-"
			}
			fmt.Fprint(tw, c)
		}
		fmt.Fprint(tw, "\n")
	}
	line(t.header)
	for _, r := range t.rows {
		line(r)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	var out bytes.Buffer                    // written in one piece, so that `| head -1` does not end the program by a signal
	for l := range bytes.Lines(b.Bytes()) { // the writer pads the last column too
		fmt.Fprintln(&out, strings.TrimRight(string(l), " \n"))
	}
	_, err := w.Write(out.Bytes())
	return err
}

// printable replaces what could disturb a terminal or a table.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) || r == '\ufffd' || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
}
