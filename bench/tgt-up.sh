#!/bin/bash
# Start a private tgtd on loopback: target 1, LUN 1 = a RAM file, LUN 2 = tgtd's null store (no data, 1 TiB).
# usage: tgt-up.sh -d RUNDIR [-P "HOST:PORT …"] [-f BACKING_FILE] [-m SIZE_MIB] [-i IQN] [-t IOTHREADS]
# Writes RUNDIR/tgtd.pid and prints the portal URLs of LUN 1. An existing backing file of the right size is left alone; a new one is filled with random data.
# Portals (default 127.0.0.1:13260) must be free: a tgtd that cannot bind its portal does not fail, but listens on port 3260 of every interface.
set -eu
. "$(dirname "$0")/lib.sh"
dir= portals=127.0.0.1:13260 file= mib=1024 iqn=iqn.2026-01.io.github.iscsimp:bench threads=16
while getopts d:P:f:m:i:t: o; do case $o in
	d) dir=$OPTARG ;; P) portals=$OPTARG ;; f) file=$OPTARG ;;
	m) mib=$OPTARG ;; i) iqn=$OPTARG ;; t) threads=$OPTARG ;; *) exit 2 ;;
esac; done
[ -n "$dir" ] || die "give a run folder with -d"
need tgtd tgt; need tgtadm tgt
mkdir -p "$dir"
file=${file:-$dir/lun.img}
if [ ! -f "$file" ] || [ "$(stat -c %s "$file")" != $(( mib << 20 )) ]; then
	dd if=/dev/urandom of="$file" bs=1M count="$mib" status=none
fi
args=()
for p in $portals; do
	! port_in_use "$p" || die "portal $p is in use; give others with -P"
	args+=(--iscsi "portal=$p")
done
export TGT_IPC_SOCKET=$dir/tgtd.sock
tgtd -f -C 1 -t "$threads" "${args[@]}" >"$dir/tgtd.log" 2>&1 </dev/null &
pid=$!
echo $pid >"$dir/tgtd.pid"
fail() { kill -KILL $pid; rm -f "$dir/tgtd.pid"; die "$1: $(tail -3 "$dir/tgtd.log")"; }
adm() { tgtadm -C 1 --lld iscsi "$@"; }
wait_for 5 adm --mode sys --op show || fail "tgtd did not start"
for p in $portals; do
	adm --mode portal --op show | grep -qF "$p," || fail "tgtd did not bind portal $p"
done
{
	adm --mode target --op new --tid 1 -T "$iqn"
	adm --mode target --op update --tid 1 -n MaxRecvDataSegmentLength -v 262144 # the default of 8192 cuts every larger write into small PDUs
	adm --mode logicalunit --op new --tid 1 --lun 1 -b "$file"
	adm --mode logicalunit --op new --tid 1 --lun 2 -b null --bstype null
	adm --mode target --op bind --tid 1 -I ALL
} || fail "tgtadm failed"
for p in $portals; do echo "iscsi://$p/$iqn/1"; done
