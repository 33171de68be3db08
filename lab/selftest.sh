#!/bin/bash
# The lab's own checks, without iscsimp, each in a fresh guest: do LIO, open-iscsi, multipath, the
# kernel's NBD, tgtd and the tools here work as the tests take for granted?
#   selftest.sh [NAME...]   names: basic options nbd tgt attrs mcs hotload (default: all)
# Logs in ${VMLAB_CACHE:-./cache}/results/self-NAME.log. Exit status 1 if one failed.
here=$(cd "$(dirname "$0")" && pwd); C=${VMLAB_CACHE:-$here/cache}; bad=0
"$here/build.sh" || exit 1
mkdir -p "$C/results"
check() { # NAME REGEX-THAT-MUST-APPEAR [ARGUMENTS]
    local t=$SECONDS log=$C/results/self-$1.log r=FAIL st
    nice -n 10 "$here/run.sh" -t 400 -- "/vmlab/selftests/$1 ${3:-}" >"$log" 2>&1; st=$?
    if [ $st = 0 ] && grep -qE "$2" "$log" && ! grep -E 'FAILED|DIFFER|fs BAD|NOT SEEN|Traceback' "$log"; then r=pass; else bad=1; fi
    printf '%-8s %s  (exit status %d, %d s)\n' "$1" $r $st $((SECONDS - t))
}
for n in ${*:-basic options nbd tgt attrs mcs hotload}; do case $n in
    basic) check basic 'left over: 0 targets, 0 disks';;
    options) check options 'digests CRC32C: /dev/mapper/mpatha ok DataDigest: CRC32C HeaderDigest: CRC32C';;
    nbd) check nbd 'qemu-nbd tcp -C2: data ok, fs clean';;
    tgt) check tgt 'randread [0-9]+ IOPS, error 0';;
    attrs) check attrs 'set MaxConnections=4 -> reads back 4';;
    mcs) check mcs 'read 4k cid 2 +\(0, 4096' '2 5';;
    hotload) check hotload 'error: as it should be';;
    *) echo "selftest.sh: no check $n" >&2; exit 2;; esac; done
exit $bad
