#!/bin/bash
# Run the same fio jobs against several NBD servers in turn (A B A B …), then print medians and ratios.
#
# usage: nbd-compare.sh [-j "JOB JOB…"] [-n ROUNDS] [-t SECONDS] [-z SIZE] [-o RAW.tsv] [-q PERCENT[:WAIT]] [-c CPUS] CONTENDER CONTENDER…
#   CONTENDER = LABEL@SOCKET@NAME:PID[,NAME:PID…]   the same NAMEs, in the same order, for every contender
#               (a PID may be "-"; "A+B" adds two processes up). The first contender is the reference.
#   JOB as in nbd-fio.sh. Raw lines go to RAW.tsv (default: a temporary file, removed).
#   -q  quiet limit: wait before a run until the rest of the machine uses less than PERCENT of one core, WAIT seconds at most
#       (default 20:300), and repeat a run (at most twice) during which it used more. 0 switches this off.
#   -c  run fio on these processors only (pin the servers yourself: taskset -acp CPUS PID). With everything on one processor,
#       iops is the reciprocal of the CPU work of the whole chain, without the luck of wakeups between processors.
# Ratios are taken round by round against the reference of that round, then the median is printed.
#
# example:
#   nbd-compare.sh -n 5 -j "randread:4k:1 randread:4k:32" \
#     qemu@/run/q.sock@init:$QPID,target:$TPID  mine@/run/m.sock@init:$MPID,target:$TPID
set -eu
here=$(dirname "$0"); . "$here/lib.sh"
jobs="randread:4k:1 randread:4k:32 randread:4k:128 randwrite:4k:1 randwrite:4k:32 randwrite:4k:128 read:128k:8 write:128k:8 read:1m:8 write:1m:8"
rounds=5 secs=6 size=1g raw= quiet=20:300 cpus=
while getopts j:n:t:z:o:q:c: o; do case $o in
	j) jobs=$OPTARG ;; n) rounds=$OPTARG ;; t) secs=$OPTARG ;; z) size=$OPTARG ;; o) raw=$OPTARG ;; q) quiet=$OPTARG ;; c) cpus=$OPTARG ;; *) exit 2 ;;
esac; done
shift $(( OPTIND - 1 ))
IFS=: read -r quiet wait <<<"$quiet:300"; wait=${wait%%:*}
need fio fio; need jq jq
(( $# >= 1 )) || die "no contender"
if [ -z "$raw" ]; then raw=$(mktemp); trap 'rm -f "$raw"' EXIT; fi
IFS=@ read -r label sock procs <<<"$1"
printf '%s\tround\n' "$("$here/nbd-fio.sh" -H -p "$procs" -s "$sock")" >"$raw"
for job in $jobs; do
	for (( r = 0; r < rounds; r++ )); do
		for c in "$@"; do
			IFS=@ read -r label sock procs <<<"$c"
			for (( try = 0; try < 3; try++ )); do
				(( quiet == 0 )) || wait_quiet "$quiet" "$wait" || :
				line=$("$here/nbd-fio.sh" ${cpus:+-C "$cpus"} -s "$sock" -j "$job" -t "$secs" -z "$size" -p "$procs" -l "$label") ||
					{ echo "failed: $label $job" >&2; line=; break; }
				other=$(cut -f11 <<<"$line")
				(( quiet == 0 || other <= quiet )) && break
				echo "repeated: $label $job (other processes used $other %)" >&2
			done
			[ -z "$line" ] || printf '%s\t%s\n' "$line" "$r" >>"$raw"
		done
	done
done
"$here/nbd-summary.sh" "$raw"
