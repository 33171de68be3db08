#!/bin/bash
# Stop the tgtd that tgt-up.sh started. usage: tgt-down.sh RUNDIR
set -eu
. "$(dirname "$0")/lib.sh"
dir=${1:?give the run folder}
[ -f "$dir/tgtd.pid" ] || exit 0
TGT_IPC_SOCKET=$dir/tgtd.sock tgtadm -C 1 --lld iscsi --op delete --force --mode target --tid 1 2>/dev/null || : # SIGTERM is ignored as long as a target exists
stop_pid "$(<"$dir/tgtd.pid")"
rm -f "$dir/tgtd.pid"
