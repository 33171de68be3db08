#!/bin/bash
# Runs Debian's iscsi-test-cu (package libiscsi-bin) against the kit's Target, so
# that what our own tests believe about iSCSI is checked by somebody else's code.
#
# Every test the tool knows is claimed unless it is listed below with a reason.
# Exit status: 0 all claimed tests ran and passed; 1 one failed or was skipped;
# 2 the check itself could not run.
set -u -o pipefail
cd "$(dirname "$0")" || exit 2

# Not claimed: a pattern of SUITE.TEST, and why.
unclaimed=(
  'ExtendedCopy.*|EXTENDED COPY is not implemented'
  'ReceiveCopyResults.*|RECEIVE COPY RESULTS is not implemented'
  'Reserve6.*|RESERVE(6) is not implemented'
  'Sanitize.*|SANITIZE is not implemented'
  'PreventAllow.*|the medium is not removable'
  'StartStopUnit.*|the medium is not removable'
  'NoMedia.*|the medium is not removable'
  'ReadDefectData*.*|READ DEFECT DATA is not implemented'
  'WriteAtomic16.*|WRITE ATOMIC is not implemented'
  'WriteSame10.UnmapUntilEnd|expects WRITE SAME with UNMAP of other data than zeros to read back as zeros; SBC-3 has that data written'
)

# Tests that need a target of another shape.
shape_of() {
  case $1 in
    ReadOnly.*) echo read-only ;;
    *.UnmapUnaligned | *.InvalidDataOutSize) echo physical ;;
    *) echo plain ;;
  esac
}

why_unclaimed() {
  local entry
  for entry in "${unclaimed[@]}"; do
    # shellcheck disable=SC2053 # a pattern is meant
    [[ $1 == ${entry%%|*} ]] && { echo "${entry#*|}"; return 0; }
  done
  return 1
}

command -v iscsi-test-cu >/dev/null || { echo "target-check: iscsi-test-cu is missing; install libiscsi-bin" >&2; exit 2; }
dir=$(mktemp -d) || exit 2
pids=()
cleanup() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null
  rm -rf "$dir"
}
trap cleanup EXIT
go build -o "$dir/iscsitarget" ./cmd/iscsitarget || exit 2

# start SHAPE FLAGS…: sets url[SHAPE] and url2[SHAPE], the second portal.
declare -A url url2
start() {
  local shape=$1 line portals=() out
  shift
  exec {out}< <(exec "$dir/iscsitarget" -portals 127.0.0.1:0,127.0.0.1:0 "$@")
  pids+=($!)
  while read -r -t 10 -u "$out" line; do
    case $line in
      portal\ *) portals+=("${line#portal }") ;;
      ready) break ;;
    esac
  done
  [ ${#portals[@]} -eq 2 ] || { echo "target-check: the target did not start" >&2; exit 2; }
  url[$shape]=iscsi://${portals[0]}/iqn.2026-01.test.iscsimp:disk/0
  url2[$shape]=iscsi://${portals[1]}/iqn.2026-01.test.iscsimp:disk/0
}
start plain
start read-only -read-only
start physical -physical-exponent 3

# verdict FILE: pass, fail or skip.
verdict() {
  if grep -qF '[SKIPPED]' "$1"; then
    echo skip
  elif awk '$1 == "tests" { ran = $3; ok = $4 } END { exit !(ran > 0 && ran == ok) }' "$1"; then
    echo pass
  else
    echo fail
  fi
}

passed=0 failed=0 not_claimed=0
# run NAME COUNT: one test or a whole suite of COUNT tests.
run() {
  local shape urls result
  shape=$(shape_of "$1")
  urls=("${url[$shape]}")
  [[ $1 == MultipathIO* ]] && urls+=("${url2[$shape]}")
  timeout 60 iscsi-test-cu --dataloss --normal --test="ALL.$1" "${urls[@]}" >"$dir/out" 2>&1
  result=$(verdict "$dir/out")
  if [ "$result" = pass ]; then
    passed=$((passed + $2))
  else
    failed=$((failed + 1))
    printf '%-12s %s\n' "$result" "$1"
    sed 's/^/    | /' "$dir/out"
  fi
}

tests=$(iscsi-test-cu -l 2>/dev/null | sed -n 's/^ALL\.\([^.]*\.[^.]*\)$/\1/p')
[ -n "$tests" ] || { echo "target-check: iscsi-test-cu lists no tests" >&2; exit 2; }
for suite in $(sed 's/\..*//' <<<"$tests" | uniq); do
  claimed=() whole=yes
  for t in $(grep "^$suite\." <<<"$tests"); do
    if why=$(why_unclaimed "$t"); then
      printf 'not claimed  %-40s %s\n' "$t" "$why"
      not_claimed=$((not_claimed + 1))
      whole=no
    else
      claimed+=("$t")
      [ "$(shape_of "$t")" = plain ] || whole=no
    fi
  done
  # A suite in one go where possible: some tests rely on those before them.
  if [ $whole = yes ]; then
    run "$suite" ${#claimed[@]}
  else
    for t in "${claimed[@]}"; do run "$t" 1; done
  fi
done
echo "target-check: $passed passed, $failed failed or skipped, $not_claimed not claimed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
