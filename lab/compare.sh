#!/bin/bash
# iscsimp beside open-iscsi with dm-multipath, on LIO, in guests that run in virtual time (run.sh -V).
#   compare.sh [options] [spread|outage]...     default: both
#   -j N   so many guests at a time (default 3)   -r N   rounds (default 1; medians are printed,
#   -s S   only these scenarios or events                of stalls the worst)
#   -c C   only these contestants                 -n S   seconds of each job of spread (default 5)
#   -k     keep what earlier runs measured, and measure only what is missing
# Scenarios, events and contestants: the heads of guest/measure/spread, outage, contest.sh.
# Prints tables (Markdown); logs and results are in ${VMLAB_CACHE:-./cache}/results/compare.
# Exit status 1 if something could not be measured.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd); C=${VMLAB_CACHE:-$here/cache}; R=$C/results/compare
jobs=3 rounds=1 only='' who='' seconds=5 keep=''
while getopts j:r:s:c:n:k f; do case $f in
    j) jobs=$OPTARG;; r) rounds=$OPTARG;; s) only=$OPTARG;; c) who=$OPTARG;; n) seconds=$OPTARG;; k) keep=1;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2;; esac; done
shift $((OPTIND - 1))
kinds=${*:-spread outage}
declare -A events=([spread]='even2 even2x4 slow2 slow4 rates2 evenrates2 stall2 flaky2 flaky2x4' [outage]='silent rst tpgoff nodel killed hung store silent-busy')
declare -A contestants=([spread]='iscsimp:latency iscsimp:round-robin iscsimp:queue-depth iscsimp:service-time dm:round-robin dm:queue-length dm:service-time'
                        [outage]='iscsimp dm:stock dm:tuned dm:best')

[ -n "${LAB_NOBUILD:-}" ] || "$here/build.sh" || exit 1
mkdir -p "$R"; [ -n "$keep" ] || rm -f "$R"/*
share=$(mktemp -d); trap 'rm -rf "$share"' EXIT; trap 'exit 143' TERM INT HUP
if [ -n "${ISCSIMP_BINARY:-}" ]; then cp "$ISCSIMP_BINARY" "$share/iscsimp" || exit 1
else (cd "$here/.." && CGO_ENABLED=0 "${GO:-go}" build -trimpath -o "$share/iscsimp" ./cmd/iscsimp) || exit 1; fi
"$here/run.sh" -V -m 1G -t 600 -- true || { echo "lab/compare.sh: the guest does not start" >&2; exit 1; }

one() { # KIND EVENT CONTESTANT ROUND: one guest
    local log=$R/$1.$2.${3//:/-}.$4.log more=$seconds
    [ "$1" = spread ] || more=$(( ($4 - 1) * 13 % 10 )).$(( $4 * 3 % 10 ))    # another phase of everyone's timers
    [ -n "$keep" ] && grep -q '^verdict: pass' "$log" 2>/dev/null && return
    "$here/run.sh" -V -m 1G -s "$share" -t 1800 -- "/vmlab/measure/$1 $2 $3 $more" >"$log" 2>&1
    grep -q '^verdict: pass' "$log" || echo "not measured: $1 $2 $3, round $4 ($log): $(grep -m1 -E '^FAILED|time limit' "$log" || tail -1 "$log")" >&2
}
total=0
for ((round = 1; round <= rounds; round++)); do for kind in $kinds; do for event in ${only:-${events[$kind]}}; do for c in ${who:-${contestants[$kind]}}; do
    [[ " ${events[$kind]} " == *" $event "* ]] || continue
    while (( $(jobs -rp | wc -l) >= jobs )); do wait -n || true; done
    one "$kind" "$event" "$c" $round &
    total=$((total + 1))
done; done; done; done
wait
missing=$((total - $(grep -l '^verdict: pass' "$R"/*.log | wc -l)))
for kind in $kinds; do
    grep -h '^result: ' "$R/$kind".*.log | cut -d' ' -f2- >"$R/$kind.txt"
    echo; "$here/compare-table.sh" "$kind" <"$R/$kind.txt"
done
[ $missing -le 0 ]
