package main

import "fmt"

// column is one column of a table of T. A new one is a line in a list of these.
type column[T any] struct {
	head string
	cell func(T) string
	// when says whether the column is worth its place for these rows; nil: always.
	when func(T) bool
	// keep says how long `top` keeps the column when there is little room: the
	// least goes first. The last column is never left out, but shortened.
	keep int
}

// tableOf makes a table of the columns that have something to say for any row.
func tableOf[T any](columns []column[T], rows []T) *table {
	t := &table{}
	var shown []column[T]
	for _, c := range columns {
		if c.when == nil || anyOf(rows, c.when) {
			shown = append(shown, c)
			t.header = append(t.header, c.head)
		}
	}
	for _, r := range rows {
		cells := make([]string, len(shown))
		for i, c := range shown {
			cells[i] = c.cell(r)
		}
		t.add(cells...)
	}
	return t
}

func anyOf[T any](rows []T, is func(T) bool) bool {
	for _, r := range rows {
		if is(r) {
			return true
		}
	}
	return false
}

// pathColumns are those of `paths` and `top`. Those with a condition appear only
// where they say something, so that a healthy device fits 80 columns.
var pathColumns = []column[pathStatus]{
	{head: "PATH", cell: func(p pathStatus) string { return p.ID }, keep: 9},
	{head: "STATE", cell: func(p pathStatus) string { return p.State }, keep: 9},
	{head: "SINCE", cell: func(p pathStatus) string { return formatAge(p.SinceSeconds) }, keep: 5},
	{head: "PRIO", cell: func(p pathStatus) string { return fmt.Sprint(p.Priority) }, keep: 3},
	{head: "WEIGHT", cell: func(p pathStatus) string { return fmt.Sprint(p.Weight) }, when: func(p pathStatus) bool { return p.Weight > 1 }},
	{head: "PORTAL", cell: func(p pathStatus) string { return p.Portal }, keep: 8},
	{head: "ALUA", cell: aluaCell, when: func(p pathStatus) bool { return p.ALUAState != "" }, keep: 6},
	{head: "SHARE", cell: func(p pathStatus) string { return formatShare(p.Share) }, keep: 8},
	{head: "IOPS", cell: func(p pathStatus) string { return formatRate(p.IOPS) }, keep: 7},
	{head: "MB/S", cell: func(p pathStatus) string { return formatRate(p.MBps) }, keep: 6},
	{head: "P50", cell: func(p pathStatus) string { return formatLatency(p.P50Seconds) }, keep: 5},
	{head: "P99", cell: func(p pathStatus) string { return formatLatency(p.P99Seconds) }, keep: 7},
	{head: "INFLIGHT", cell: func(p pathStatus) string { return fmt.Sprint(p.InFlight) }, keep: 4},
	{head: "RETRIES", cell: func(p pathStatus) string { return fmt.Sprint(p.Retries) }, keep: 2},
	{head: "TIMEOUTS", cell: func(p pathStatus) string { return fmt.Sprint(p.Timeouts) }, when: func(p pathStatus) bool { return p.Timeouts > 0 }, keep: 1},
	{head: "ABORTS", cell: func(p pathStatus) string { return fmt.Sprint(p.Aborts) }, when: func(p pathStatus) bool { return p.Aborts > 0 }, keep: 1},
	{head: "RESETS", cell: func(p pathStatus) string { return fmt.Sprint(p.Resets) }, when: func(p pathStatus) bool { return p.Resets > 0 }, keep: 1},
	{head: "CONNS", cell: connectionsCell, when: func(p pathStatus) bool { return p.Connections > 1 || len(p.ConnectionList) > 1 }},
	{head: "REASON", cell: reasonCell},
}

// connectionsCell tells how many of the connections of a session are there.
func connectionsCell(p pathStatus) string {
	if n := len(p.ConnectionList); n > p.Connections {
		return fmt.Sprintf("%d/%d", p.Connections, n)
	}
	return fmt.Sprint(p.Connections)
}

// reasonCell is why the path is in its state, and when that may change.
func reasonCell(p pathStatus) string {
	if p.RetrySeconds > 0 {
		return fmt.Sprintf("%s (logs in again in %s)", p.Reason, formatSoon(p.RetrySeconds))
	}
	return p.Reason
}
