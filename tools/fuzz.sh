#!/bin/bash
# Run every fuzz target of the module for a while.   fuzz.sh [TIME]   (default 10s)
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | grep -v '^./test/' | xargs -n1 dirname | sort -u); do
	for f in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | sed 's/func //' | sort -u); do
		echo "fuzz $dir $f"
		go test "$dir" -run '^$' -fuzz "^$f\$" -fuzztime "$time" -parallel 4 | tail -n 2
	done
done
