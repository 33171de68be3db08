#!/bin/bash
# Check the model of the write fence with spin, exhaustively within its bounds,
# and that each mutant of it is found wrong.
#   check.sh [short]     short: small bounds, and two of the mutants
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)/fence.pml
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cp "$source" fence.pml
model=fence.pml

# run DEFINES...: 0 if the invariant holds in every state, 1 if it is violated.
run() {
	spin -a "$@" "$model" >spin.log || { cat spin.log; exit 2; }
	gcc -O2 -w -DSAFETY -DMEMLIM=4096 -DVECTORSZ=2048 -o pan pan.c
	./pan -m200000 -w25 >pan.log 2>&1 || :
	if grep -q 'Search not completed' pan.log && ! grep -q 'errors: 1' pan.log || ! grep -q 'errors:' pan.log; then
		cat pan.log
		echo "$*: the search is not complete: lower the bounds" >&2
		exit 2
	fi
	! grep -q 'errors: 1' pan.log
}

holds() {
	if ! run "$@"; then
		spin -t -g -u10000 "$@" "$model" | grep -v "= 0$" | tail -n 100
		echo "model: VIOLATED: ${*:-as it is}" >&2
		exit 1
	fi
	echo "model holds: ${*:-as it is}: $(awk '/states, stored/ {print $1 " states"}' pan.log), $(sed -n 's/^pan: elapsed time //p' pan.log)"
}

mutant() {
	if run "$@"; then
		echo "model: the mutant is not found wrong: $*" >&2
		exit 1
	fi
	echo "mutant found wrong, as it should be: $*: $(grep -o 'at depth [0-9]*' pan.log)"
}

if [ "${1:-}" = short ]; then
	holds -DW=2
	mutant -DW=2 -DNOFENCE
	mutant -DW=2 -DNONOTE
	exit
fi
holds
holds -DOTHER
holds -DCRASHES=2
holds -DW=2 -DG=4
for m in NOFENCE ACKLIFTS ANYLOGIN NOORDER NONOTE; do mutant -D$m; done
mutant -DNOCHAIN -DW=2 -DG=4 -DCRASHES=0
mutant -DOTHER -DNOSHARE
