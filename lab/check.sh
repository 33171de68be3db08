#!/bin/bash
# Run iscsimp against Linux's target (LIO) in the lab, each test in a fresh guest.
#   check.sh [options] [TEST...]     default: all of guest/tests
#   --short    only the few that CI runs (login, data, reset, digests)
#   --strict   a test that says "not yet" is a failure too
#   --keep     keep the results of the tests that are not run now, for results.tsv to be whole
#   --or-skip  on a machine that cannot have the lab (not Debian 12 on amd64), or with
#              LAB_SKIP set, say so in capitals and end with 0
#   --list     say what there is
# Builds the lab if need be, and iscsimp (static), unless ISCSIMP_BINARY names one.
# Prints a line a test, then what was measured, then the count. Exit status: 0 all
# passed (those "not yet in iscsimp" are counted apart), 1 a test failed, 2 wrong use.
# Logs, results.tsv and metrics.tsv: ${LAB_RESULTS:-${VMLAB_CACHE:-./cache}/results}
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd); C=${VMLAB_CACHE:-$here/cache}; R=${LAB_RESULTS:-$C/results}
die() { echo "lab/check.sh: $*" >&2; exit 2; }
tag() { sed -n "s/^# .*\b$2: *\([^ ]*\).*/\1/p" "$here/guest/tests/$1"; }    # TEST TAG
what() { sed -n 's/^# what: //p' "$here/guest/tests/$1"; }

short='' strict='' keep='' orskip='' names=()
while (( $# )); do case $1 in
    --short) short=1;; --strict) strict=1;; --or-skip) orskip=1;; --keep) keep=1;;
    --list) for f in "$here"/guest/tests/*; do n=${f##*/}; printf '%-17s %s\n' "$n" "$(what "$n")"; done; exit;;
    -*) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2;;
    *) [ -e "$here/guest/tests/$1" ] || die "no test $1; see --list"; names+=("$1");; esac; shift; done
if (( ! ${#names[@]} )); then
    for f in "$here"/guest/tests/*; do n=${f##*/}; [ -n "$short" ] && [ "$(tag "$n" short)" != yes ] || names+=("$n"); done
fi

if [ -n "$orskip" ]; then
    why=${LAB_SKIP:+LAB_SKIP is set}
    [ -n "$why" ] || { . /etc/os-release; [ "${ID:-}-${VERSION_ID:-}-$(uname -m)" = debian-12-x86_64 ]; } 2>/dev/null || why='the lab is built on Debian 12, amd64'
    if [ -n "$why" ]; then
        printf '%s\n' '' '********************************************************************' \
            "*** LAB SKIPPED: NOTHING WAS TESTED AGAINST LINUX'S TARGET (LIO):" "*** $why." \
            '********************************************************************' '' | tee /dev/stderr
        exit 0
    fi
fi
"$here/build.sh" || die "THE LAB WAS NOT BUILT (above): nothing was tested against LIO. LAB_SKIP=1 does without it"
mkdir -p "$R"
# What is kept: the lines of tests that are there still and not run now.
for f in results metrics; do
    touch "$R/$f.tsv"
    ls "$here/guest/tests" | awk -F'\t' -v keep="$keep" -v run=" ${names[*]} " 'FNR == NR { there[$1]; next } keep && $1 in there && !index(run, " " $1 " ")' - "$R/$f.tsv" >"$R/$f.new"
    mv "$R/$f.new" "$R/$f.tsv"
done
share=$(mktemp -d); trap 'rm -rf "$share"' EXIT; trap 'exit 143' TERM INT HUP
if [ -n "${ISCSIMP_BINARY:-}" ]; then cp "$ISCSIMP_BINARY" "$share/iscsimp" || exit 1
else (cd "$here/.." && CGO_ENABLED=0 "${GO:-go}" build -trimpath -o "$share/iscsimp" ./cmd/iscsimp) || die "iscsimp does not build"; fi
"$here/run.sh" -t 300 -- true ||     # makes the snapshot, if there is none
    die "THE GUEST DOES NOT START (QEMU's emulation, above): nothing was tested against LIO. LAB_SKIP=1 does without it"

declare -A count=([pass]=0 [fail]=0 [not-yet]=0)
start=$SECONDS
for n in "${names[@]}"; do
    t=$SECONDS log=$R/$n.log
    nice -n "${LAB_NICE:-10}" "$here/run.sh" -s "$share" -t "$(( $(tag "$n" limit) * ${LAB_PATIENCE:-3} ))" -l "$R/$n.console" -- "/vmlab/tests/$n" >"$log" 2>&1; st=$?
    verdict=$(sed -n 's/^verdict: //p' "$log" | tail -1)
    # Passed is only what ended well and said so.
    case $st:$verdict in
        0:pass:*) r=pass text=${verdict#pass: };;
        77:not\ yet:*) r=not-yet text=${verdict#not yet: };;
        124:*) r=fail text="time limit: $(tail -1 "$log")";;
        125:*) r=fail text="the guest's kernel died or hung: $(grep -m1 -E 'BUG|Oops|panic' "$R/$n.console" || tail -1 "$log")";;
        *) r=fail text=$(grep -m1 '^FAILED: ' "$log" || echo "${verdict:-exit status $st, no verdict}");;
    esac
    count[$r]=$((count[$r] + 1))
    shown=$r; case $r in fail) shown=FAIL;; not-yet) shown='NOT YET';; esac
    printf '%-17s %-8s %4d s  %s\n' "$n" "$shown" $((SECONDS - t)) "$text"
    printf '%s\t%s\t%d\t%s\t%s\n' "$n" "$r" $((SECONDS - t)) "$(what "$n")" "$text" >>"$R/results.tsv"
    sed -n 's/^metric: //p' "$log" | while read -r k v u; do printf '%s\t%s\t%s\t%s\n' "$n" "$k" "$v" "$u"; done >>"$R/metrics.tsv"
done

if [ -s "$R/metrics.tsv" ]; then
    echo; echo "Measured (emulated machine, so seconds, not milliseconds, mean something):"
    awk -F'\t' '{ printf "  %-17s %-28s %7s %s\n", $1, $2, $3, $4 }' "$R/metrics.tsv"
fi
echo
(( ! count[not-yet] )) || echo "NOT YET in iscsimp, so not tested: $(awk -F'\t' '$2 == "not-yet" { printf "%s%s", s, $1; s = ", " }' "$R/results.tsv")"
(( ! count[fail] )) || awk -F'\t' -v r="$R" '$2 == "fail" { printf "FAILED: %s (%s/%s.log): %s\n", $1, r, $1, $5 }' "$R/results.tsv"
echo "lab: ${#names[@]} tests: ${count[pass]} passed, ${count[fail]} failed, ${count[not-yet]} not yet; $((SECONDS - start)) s"
[ -z "$keep" ] || echo "with the results that were kept: $(awk -F'\t' '{ n[$2]++ } END { printf "%d passed, %d failed, %d not yet", n["pass"], n["fail"], n["not-yet"] }' "$R/results.tsv")"
(( ! count[fail] )) && { [ -z "$strict" ] || (( ! count[not-yet] )); }
