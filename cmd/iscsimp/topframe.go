package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// topView is what `top` shows, without how it gets onto a screen.
type topView struct {
	devices  []deviceStatus
	problem  string    // why there is nothing to show, or nothing new
	asOf     time.Time // when the devices answered
	now      time.Time
	interval time.Duration
	explain  bool
	color    bool
	scroll   int // lines that have gone off the top
}

// Colors of states (ECMA-48 SGR). Those that are not here have none.
var stateColors = map[string]string{
	"up": "32", "degraded": "33", "suspect": "33", "marginal": "33", "connecting": "36", "checking": "36", "starting": "36",
	"down": "31", "no-path": "31", "quarantined": "31", stateNotAnswering: "31", "offline": "35", "standby": "34",
}

// paint colors a text like the state it names.
func (v *topView) paint(text, state string) string {
	if code := stateColors[state]; v.color && code != "" {
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	return text
}

// frame gives the lines that fit a screen; with height 0 all of them, and with
// width 0 as wide as they are.
func (v *topView) frame(width, height int) []string {
	body := v.body(width)
	head := []string{cut(v.headline(), width)}
	if height <= 0 {
		return append(head, body...)
	}
	room := max(height-1, 0)
	v.scroll = max(0, min(v.scroll, len(body)-room))
	body = body[v.scroll:]
	if len(body) > room {
		body = body[:room]
		if room > 0 {
			body[room-1] = cut("-- more below: down or space goes there --", width)
		}
	}
	return append(head, body...)[:min(height, 1+len(body))]
}

// headline is the first line.
func (v *topView) headline() string {
	trouble := 0
	for _, d := range v.devices {
		if d.State != "up" {
			trouble++
		}
	}
	s := fmt.Sprintf("iscsimp %s  %s", v.now.Format("15:04:05"), plural(uint64(len(v.devices)), "device", "devices"))
	if trouble > 0 {
		s += fmt.Sprintf(", %d not as it should be", trouble)
	}
	if age := v.now.Sub(v.asOf); !v.asOf.IsZero() && age > 2*v.interval+time.Second {
		s += fmt.Sprintf("  NO NEWS FOR %s", formatAge(age.Seconds()))
	}
	return s + "  q quit, e explain"
}

// body is everything below the first line.
func (v *topView) body(width int) []string {
	var lines []string
	if v.problem != "" {
		lines = append(lines, wrap(v.problem, "", "", width)...)
	}
	for _, d := range v.devices {
		lines = append(lines, "", v.paint(cut(plainCells(deviceHeading(d)), width), d.State))
		if len(d.Paths) > 0 {
			lines = append(lines, v.pathLines(d.Paths, width)...)
		}
	}
	if !v.explain {
		return lines
	}
	for _, d := range v.devices {
		lines = append(lines, "", cut(plainCells(d.Name)+":", width))
		for _, sentence := range explainStatus(d) {
			lines = append(lines, wrap(plainCells(sentence), "  ", "    ", width)...)
		}
	}
	return lines
}

// pathLines is the table of paths, without the columns that have no room.
func (v *topView) pathLines(paths []pathStatus, width int) []string {
	columns := fittingColumns(pathColumns, paths, width)
	t := tableOf(columns, paths)
	widths := t.widths()
	lines := []string{v.bold(cut(strings.TrimRight(layOut(t.header, widths), " "), width))}
	for i, row := range t.rows {
		line := cut(strings.TrimRight(layOut(row, widths), " "), width)
		state := paths[i].State
		if at := strings.Index(line, " "+state+" "); at >= 0 {
			line = line[:at+1] + v.paint(state, state) + line[at+1+len(state):]
		}
		lines = append(lines, line)
	}
	return lines
}

func (v *topView) bold(s string) string {
	if v.color {
		return "\x1b[1m" + s + "\x1b[0m"
	}
	return s
}

// leastReason is what the last column may be cut to before other columns go.
const leastReason = 16

// fittingColumns leaves out columns, those kept least first, until the table fits.
func fittingColumns[T any](columns []column[T], rows []T, width int) []column[T] {
	var shown []column[T]
	for _, c := range columns {
		if c.when == nil || anyOf(rows, c.when) {
			c.when = nil
			shown = append(shown, c)
		}
	}
	for width > 0 && len(shown) > 2 {
		total := 0
		widths := tableOf(shown, rows).widths()
		for _, w := range widths {
			total += w + len(columnGap)
		}
		last := widths[len(widths)-1]
		if total-len(columnGap)-last+min(last, leastReason) <= width {
			break
		}
		drop := 0
		for i := range shown[:len(shown)-1] {
			if shown[i].keep <= shown[drop].keep {
				drop = i
			}
		}
		shown = append(shown[:drop:drop], shown[drop+1:]...)
	}
	return shown
}

const columnGap = "  "

// widths are those of the columns, in characters.
func (t *table) widths() []int {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cellText(c)))
		}
	}
	return widths
}

func cellText(s string) string {
	if s == "" {
		return "-"
	}
	return plainCells(s)
}

func layOut(cells []string, widths []int) string {
	var b strings.Builder
	for i, c := range cells {
		if i > 0 {
			b.WriteString(columnGap)
		}
		text := cellText(c)
		b.WriteString(text)
		b.WriteString(strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(text))))
	}
	return b.String()
}

// plainCells replaces what does not take exactly one place on a terminal.
func plainCells(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xad || r >= 0x300 && r != '…' && r != '→' {
			return '?'
		}
		return r
	}, s)
}

// cut shortens a line to a width, 0 for any.
func cut(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	r := []rune(s)
	return string(r[:width-1]) + "…"
}

// wrap breaks a text into lines; first and next begin them.
func wrap(s, first, next string, width int) []string {
	if width <= 0 {
		return []string{first + s}
	}
	var lines []string
	line, used := first, false
	for word := range strings.FieldsSeq(s) {
		if used && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, cut(line, width))
			line, used = next, false
		}
		if used {
			line += " "
		}
		line += word
		used = true
	}
	return append(lines, cut(line, width))
}
