package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/iscsimp/iscsimp/test/peer"
)

// say prints a line of the story with the seconds since the start.
func (d *demo) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(d.out, "\n%5.1f s  %s\n", time.Since(d.started).Seconds(), strings.ReplaceAll(text, "\n", "\n         "))
}

// command prints an iscsimp command as one would type it.
func (d *demo) command(format string, args ...any) {
	fmt.Fprintf(d.out, "    $ iscsimp %s\n", fmt.Sprintf(format, args...))
}

// show runs an iscsimp command and prints it with its output.
func (d *demo) show(ctx context.Context, args ...string) (string, error) {
	d.command("%s", strings.Join(args, " "))
	output, err := peer.RunIscsimp(ctx, args...)
	d.indented(output)
	return output, err
}

// showPaths prints the table of iscsimp and how the load is doing.
func (d *demo) showPaths(ctx context.Context, when string) error {
	d.say("The paths %s:", when)
	d.command("paths demo")
	output, err := d.device.Command(ctx, "paths", "demo")
	d.indented(output)
	load := d.runner.Stats()
	fmt.Fprintf(d.out, "    load so far: %d operations, %d errors, %d mismatches, longest operation %s\n",
		load.Operations, load.Errors, load.Mismatches, round(load.LongestStall))
	return err
}

// widest is how much of a line of output is shown, in characters.
const widest = 150

func (d *demo) indented(output string) {
	for line := range strings.Lines(output) {
		runes := []rune(strings.TrimSuffix(line, "\n"))
		if len(runes) > widest {
			runes = append(runes[:widest-1], '…')
		}
		fmt.Fprintf(d.out, "    %s\n", string(runes))
	}
}

// verdict prints the last line and says whether all went well; err is what ended the run early, if anything did.
func (d *demo) verdict(err error) bool {
	word := "ok"
	if err != nil || d.stats.Errors > 0 || d.stats.Mismatches > 0 || d.stats.Operations == 0 || d.shed == 0 || d.shed > d.shedLimit || d.back == 0 {
		word = "failed"
	}
	fmt.Fprintln(d.out)
	if err != nil {
		fmt.Fprintf(d.out, "error: %v\n", err)
	}
	for _, problem := range d.stats.Problems {
		fmt.Fprintf(d.out, "problem: %s\n", problem)
	}
	fmt.Fprintf(d.out, "verdict: %s operations=%d errors=%d mismatches=%d longest-stall=%s slow-path-shed=%s path-back=%s\n", word,
		d.stats.Operations, d.stats.Errors, d.stats.Mismatches, milliseconds(d.stats.LongestStall), milliseconds(d.shed), milliseconds(d.back))
	return word == "ok"
}

// milliseconds is for the verdict line; "-" is what was not measured.
func milliseconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%dms", (d + time.Millisecond - 1).Milliseconds())
}

// round shortens a duration for people to three digits or so.
func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	default:
		return d.Round(10 * time.Microsecond)
	}
}
