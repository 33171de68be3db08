#!/bin/bash
# iscsimp beside qemu-nbd with libiscsi: the same tgtd, the same LUN, one path each, the same fio jobs, in turns. Prints Markdown tables.
#
# usage: bench/run.sh [-l "null ram"] [-j "JOB JOB…"] [-n ROUNDS] [-t SECONDS] [-q PERCENT[:WAIT]] [-s RAM_MIB] [-p "HOST:PORT"] [-b ISCSIMP] [-o RAWDIR] [-a ARG]…
#   -l  which LUNs: null (tgtd's store without data: the initiator shows) and ram (a file in memory: the target takes its share); default both
#   -j  as in nbd-fio.sh; default: 4 KiB random reads at depth 1, 32 and 128, random writes at 32, 128 KiB and 1 MiB sequential at depth 8
#   -n  rounds (default 3), -t seconds a job (default 4), -q see nbd-compare.sh
#   -b  the binary to measure; default: built from this tree into a temporary folder
#   -o  keep the raw lines there, as null.tsv and ram.tsv
#   -a  one more argument for `iscsimp login` (repeatable)
# A table takes jobs × rounds × 2 × seconds and a little more. Needs tgt, qemu-utils, qemu-block-extra, fio, jq.
set -eu
here=$(cd "$(dirname "$0")" && pwd); . "$here/lib.sh"
luns="null ram" rounds=3 secs=4 quiet=20:60 mib=1024 portal=127.0.0.1:13260 binary= rawdir= extra=()
jobs="randread:4k:1 randread:4k:32 randread:4k:128 randwrite:4k:32 read:128k:8 write:128k:8 read:1m:8 write:1m:8"
while getopts l:j:n:t:q:s:p:b:o:a: o; do case $o in
	l) luns=$OPTARG ;; j) jobs=$OPTARG ;; n) rounds=$OPTARG ;; t) secs=$OPTARG ;; q) quiet=$OPTARG ;; s) mib=$OPTARG ;;
	p) portal=$OPTARG ;; b) binary=$OPTARG ;; o) rawdir=$OPTARG ;; a) extra+=("$OPTARG") ;; *) exit 2 ;;
esac; done
need tgtd tgt; need qemu-nbd qemu-utils; need fio fio; need jq jq
! qemu-img info iscsi:// 2>&1 | grep -q 'Unknown protocol' || die "qemu has no iSCSI driver; run: apt-get install qemu-block-extra"

# In memory, or the file would be a disk's business.
run=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" iscsimp-bench.XXXXXX)
pids=()
cleanup() {
	for p in ${pids[@]+"${pids[@]}"}; do stop_pid "$p"; done
	"$here/tgt-down.sh" "$run" || :
	rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ -z "$binary" ]; then
	binary=$run/iscsimp
	(cd "$here/.." && go build -o "$binary" ./cmd/iscsimp) || die "iscsimp does not build"
fi
"$here/tgt-up.sh" -d "$run" -P "$portal" -m "$mib" -i "iqn.2026-01.io.github.iscsimp:bench" >"$run/urls"
tgtd=$(<"$run/tgtd.pid")
IFS=/ read -r _ _ _ iqn _ <"$run/urls"

# start NAME COMMAND…: in the background; its id goes to $started, its output to NAME.out and NAME.log.
start() {
	local name=$1; shift
	"$@" >"$run/$name.out" 2>"$run/$name.log" </dev/null &
	started=$!
	pids+=("$started")
}
serving() { [ -S "$run/$1.sock" ]; }
ready() { [ -s "$run/$1.out" ]; } # iscsimp prints a line when the device is ready

contenders() { # LUN number: starts both servers and sets $list
	start "qemu$1" qemu-nbd -t -e 16 -f raw -k "$run/qemu$1.sock" "iscsi://$portal/$iqn/$1"
	local qemu=$started
	start "iscsimp$1" "$binary" login --only-given -p "$portal" --lun "$1" --name "bench$1" --runtime-dir "$run/runtime" \
		--initiator-name iqn.2026-01.io.github.iscsimp:bench-initiator --export "unix:$run/iscsimp$1.sock" ${extra[@]+"${extra[@]}"} "$iqn"
	local iscsimp=$started
	wait_for 10 serving "qemu$1" || die "qemu-nbd: $(tail -5 "$run/qemu$1.log")"
	wait_for 20 ready "iscsimp$1" || die "iscsimp: $(tail -5 "$run/iscsimp$1.log")"
	list=("qemu@$run/qemu$1.sock@init:$qemu,tgtd:$tgtd" "iscsimp@$run/iscsimp$1.sock@init:$iscsimp,tgtd:$tgtd")
}

echo "$(date -u +%F), $(nproc) processors ($(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo)), Linux $(uname -r), $(qemu-nbd --version | head -1), tgtd $(tgtd -V 2>/dev/null | head -1), $(fio --version)."
echo "Load average at the start: $(cut -d' ' -f1-3 /proc/loadavg); the column \"other\" says what else ran, in percent of one core. Figures of a busy machine are worth nothing."
echo "Medians of $rounds rounds of $secs s; cpu_* in µs per I/O; x columns: ratio to qemu-nbd with libiscsi in the same round."
for lun in $luns; do
	case $lun in ram) number=1 what="RAM file behind tgtd" ;; null) number=2 what="tgtd's null store" ;; *) die "-l $lun: give null or ram" ;; esac
	contenders $number
	printf '\n### %s\n\n' "$what"
	raw=()
	if [ -n "$rawdir" ]; then mkdir -p "$rawdir"; raw=(-o "$rawdir/$lun.tsv"); fi
	"$here/nbd-compare.sh" -j "$jobs" -n "$rounds" -t "$secs" -q "$quiet" -z "${mib}m" ${raw[@]+"${raw[@]}"} "${list[@]}"
	for p in "${pids[@]}"; do stop_pid "$p"; done
	pids=()
done
