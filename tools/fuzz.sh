#!/bin/bash
# Run every fuzz target of the module for a while.
#   fuzz.sh [HOW LONG]   a number of executions (50000x, the default) or a time (10m)
#
# A short run counts executions and not seconds: when its time runs out, Go before
# 1.27 at times fails with a bare "context deadline exceeded" although no input
# failed (go.dev/issue/75804). Longer runs are timed, and such an end is told from
# a finding: a finding always names the input it wrote.
set -euo pipefail
cd "$(dirname "$0")/.."
budget=${1:-50000x}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

run() {
	echo "fuzz $1 $2"
	if go test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$budget" -parallel 4 >"$log" 2>&1; then
		tail -n 1 "$log"
		return
	fi
	if grep -q '^ *context deadline exceeded$' "$log" && ! grep -qE 'Failing input|panic:|_test.go:' "$log"; then
		echo "fuzz $1 $2: ran out of its time while an input was under way; no input failed"
		return
	fi
	cat "$log"
	return 1
}

for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | grep -v '^./test/' | xargs -n1 dirname | sort -u); do
	for f in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | sed 's/func //' | sort -u); do
		run "$dir" "$f"
	done
done
