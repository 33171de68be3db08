# Sourced first by every test in guest/tests. Gives it iscsimp and fio, and sees to it that a test
# passes only by reaching its last line, `pass`: whatever fails before ends it as a failure, with
# iscsimp's log. What check.sh reads are the lines "verdict: ...", "metric: ..." and the exit
# status: 0 passed, 77 not yet in iscsimp, anything else failed.
set -Eeuo pipefail
TARGET=iqn.2026-01.lab:t1                    # lio-up's default
INITIATOR=iqn.2026-01.lab:iscsimp
SECRET=fourteen-chars TARGET_SECRET=another-secret    # CHAP, both ways
W=/tmp/w; mkdir -p $W
install -m755 /lab/iscsimp /usr/bin/iscsimp
OUTCOME=

say() { printf '[%6.2f] %s\n' "$(now)" "$*"; }
now() { local t; read -r t _ </proc/uptime; echo "$t"; }
calc() { awk "BEGIN { printf \"%.${2:-3}f\", $1 }"; }
die() { echo "FAILED: $*" >&2; OUTCOME=fail; exit 1; }
pass() { kernel_fine; OUTCOME=pass; echo "verdict: pass: $*"; exit 0; }
not_yet() { OUTCOME=not-yet; echo "verdict: not yet: $*"; exit 77; }
metric() { echo "metric: $1 $2 ${3:-}"; }    # NAME VALUE [UNIT]

# A kernel (LIO) that complains is a failure, whoever is to blame. oops=panic ends the guest anyway.
kernel_fine() { ! dmesg | grep -E 'BUG:|Oops|list_(add|del) corruption|general protection|hung task|blocked for more than' >&2 || die "the kernel complained (above)"; }

ended() {
    local st=$?
    [ -n "$OUTCOME" ] && [ "$OUTCOME" != fail ] && return
    echo "verdict: fail: ${FAILED_AT:-exit status $st}"
    for f in "$W"/*.log; do [ -e "$f" ] && { echo "--- ${f##*/}"; tail -40 "$f"; }; done
    echo "--- kernel"; dmesg | tail -15
    [ $st != 0 ] && [ $st != 77 ] || exit 1
}
trap ended EXIT
trap 'FAILED_AT="line $LINENO of ${BASH_SOURCE##*/}: $BASH_COMMAND"' ERR

wait_for() { # SECONDS COMMAND...: until it succeeds
    local end; end=$(calc "$(now) + $1" 2); shift
    until "$@" >/dev/null 2>&1; do
        [ "$(calc "$(now) < $end" 0)" = 1 ] || return 1
        sleep .05
    done
}

# ---- iscsimp

HELP=$(iscsimp login --help)
login_has() { grep -qE -- "$1([ ,=]|$)" <<<"$HELP"; }
need_flag() { login_has "$1" || not_yet "$2 (login has no $1)"; }

declare -A PID
login() { # NAME ARGUMENTS...: ready, or the test fails
    local name=$1; shift
    iscsimp login --json --name "$name" --export "unix:$W/$name.sock" --initiator-name "$INITIATOR" "$@" "$TARGET" \
        >"$W/$name.ready" 2>"$W/$name.log" </dev/null &
    PID[$name]=$!
    wait_for 40 answered "$name" || die "login $name: not ready after 40 s"
    [ -s "$W/$name.ready" ] || die "login $name ended: $(tail -1 "$W/$name.log")"
    jq -e '.event == "ready"' "$W/$name.ready" >/dev/null || die "not a ready line: $(cat "$W/$name.ready")"
    say "login $name: $(jq -r '"\(.paths_up) of \(.paths_total) paths up, \(.size_bytes) bytes in blocks of \(.block_size)"' "$W/$name.ready")"
}
answered() { [ -s "$W/$1.ready" ] || ! [ -d "/proc/${PID[$1]}" ]; }
login_fails() { # EXIT-STATUS REGEX ARGUMENTS...: refused so, and in these words
    local want=$1 words=$2 st=0; shift 2
    timeout 40 iscsimp login --export "unix:$W/never.sock" --initiator-name "$INITIATOR" "$@" >"$W/never.out" 2>"$W/never.err" </dev/null || st=$?
    say "login $* -> $st: $(tail -1 "$W/never.err")"
    [[ $st =~ ^$want$ ]] || die "login $*: exit status $st, want $want: $(tail -1 "$W/never.err")"
    grep -qiE -- "$words" "$W/never.err" || die "login $*: no word of '$words' in: $(cat "$W/never.err")"
    [ ! -s "$W/never.out" ] || die "login $*: failed, but printed $(cat "$W/never.out")"
}
logout() { # NAME: in order, with exit status 0, and LIO has no session left
    local st=0
    iscsimp logout "$1"
    wait_for 35 gone "${PID[$1]}" || die "logout $1: still there after 35 s"
    wait "${PID[$1]}" || st=$?
    [ $st = 0 ] || die "login $1 ended with $st after logout: $(tail -3 "$W/$1.log")"
    wait_for 5 no_sessions || die "sessions left after logout: $(ss -Htn 'dport = :3260')"
}
gone() { ! [ -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }
no_sessions() { [ "$(established)" = 0 ]; }
status() { iscsimp paths --json "$1" | jq -r ".devices[0] | $2"; }    # NAME JQ-FILTER
uri() { echo "nbd+unix:///$1?socket=$W/$1.sock"; }
paths_up() { [ "$(status "$1" .paths_up)" = "$2" ]; }
path_up() { [ "$(status "$1" "[.paths[] | select(.portal == \"127.0.0.$2:3260\" and .state == \"up\")] | length")" -ge 1 ]; }
established() { ss -Htn state established 'dport = :3260' | wc -l; }
connections() { [ "$(established)" = "$1" ]; }
has_alua() { iscsimp paths --json "$1" | jq -e '.devices[0].paths[0] | keys | any(startswith("alua"))' >/dev/null; }
all_carry() { # NAME: every path has carried I/O
    iscsimp paths "$1"
    [ "$(status "$1" '[.paths[] | select(.ios == 0)] | length')" = 0 ] || die "a path carried nothing"
}
total() { status "$1" "[.paths[]$2] | add"; }    # NAME .FIELD, of all paths
counted() { [ "$(status "$1" "[.paths[] | select($2 >= 1)] | length")" -ge "$3" ]; }    # NAME .FIELD N: on N paths
heard_of() { grep -qF -- "$1" $W/d.log; }    # by what device d logs
no_failures() { [ "$(status "$1" .failed)" = 0 ] || die "requests failed: $(status "$1" .last_error)"; }

# What LIO answered in the logins, as seen on the wire.
listen() { tcpdump -Z root -i lo -U -s 0 -w $W/answers 'tcp src port 3260' >/dev/null 2>$W/tcpdump.log & LISTENER=$!; wait_for 10 grep -q listening $W/tcpdump.log || die 'tcpdump does not listen'; }
heard() { wait_for 5 grep -aq TargetPortalGroupTag $W/answers || die 'no login was heard'; kill "$LISTENER"; wait "$LISTENER" || true; }
answered_with() { # KEY=VALUE...: in a login after `listen`
    local kv
    for kv; do
        say "LIO answered $(grep -aoE "${kv%%=*}=[A-Za-z0-9,]+" $W/answers | sort | uniq -c | xargs)"
        grep -aqE "$kv($|[^A-Za-z0-9,])" $W/answers || die "$kv was not negotiated"
    done
}
lio() { echo -n "$2" >"/sys/kernel/config/target/iscsi/$TARGET/tpgt_1/$1"; }    # PARAMETER VALUE, in TPG 1

# ---- load

FIO=(--direct=1 --verify_fatal=1 --group_reporting=0 --output-format=json)
fio_nbd() { # NAME RESULT FIO-OPTIONS...: fio on iscsimp's socket; must end without an error
    local name=$1 out=$2; shift 2
    fio --ioengine=nbd "--uri=$(uri "$name")" "${FIO[@]}" --output="$W/$out" "$@" >"$W/$out.log" 2>&1 ||
        die "fio ($out): $(grep -E 'error|verify|fio:' "$W/$out.log" "$W/$out" | head -5)"
    [ "$(fio_get "$out" '[.jobs[].error] | add')" = 0 ] || die "fio ($out): an error"
}
fio_get() { sed -n '/^{/,$p' "$W/$1" | jq -r "$2"; }    # RESULT JQ-FILTER; fio may talk before it
fio_line() { fio_get "$1" '.jobs[] | "\(.jobname): \(.write.total_ios) writes, \(.read.total_ios) reads, error \(.error), longest \([.read.lat_ns.max, .write.lat_ns.max] | max / 1e6 | floor) ms"'; }

write_and_verify() { # NAME [SIZE]: each block is written once, read back, and read again after a flush
    local n=$1 size=${2:-8M} bs=${BS:-4k}
    fio_nbd "$n" random.json --name=random --rw=randwrite --bs="$bs" --iodepth=16 --size="$size" --verify=crc32c --verify_backlog=256 --end_fsync=1
    fio_nbd "$n" again.json --name=random --rw=randwrite --bs="$bs" --iodepth=16 --size="$size" --verify=crc32c --verify_only
    fio_nbd "$n" big.json --name=big --rw=write --bs=1M --iodepth=4 --offset="$size" --size=32M --verify=crc32c --verify_backlog=8
    fio_nbd "$n" mixed.json --name=mixed --rw=randrw --bsrange="$bs-128k" --blockalign="$bs" --iodepth=8 --offset=64M --size=16M --verify=crc32c
    local f; for f in random again big mixed; do say "$(fio_line $f.json)"; done
    no_failures "$n"
}

# ---- a store that hangs, behind device d

hanging_store() {
    modprobe brd rd_nr=1 rd_size=262144
    dmsetup create store --table "0 524288 linear /dev/ram0 0"
    lio-up -n 2 -T -b iblock:/dev/mapper/store
}
hang_store() { dmsetup suspend --noflush --nolockfs store; SINCE=$(now); say "the store hangs"; }
resume_store() { dmsetup resume store; say "the store hung for $(calc "$(now) - $SINCE" 1) s"; }
# done_again: hotload (pid $hot) goes on, sees no error and no wrong block, and met the hang.
done_again() {
    sleep 4; kill "$hot"; wait "$hot" || die "hotload: $(cat $W/hot.log)"
    iscsimp paths d; say "hot: $(cat $W/hot)"; no_failures d
    iscsimp paths --json d >$W/after.json
    [ "$(calc "$(longest_hot) >= 8" 0)" = 1 ] || die "no I/O waited for the store: the longest took $(longest_hot) s"
    metric longest-hot "$(calc "$(longest_hot)" 1)" s
}
longest_hot() { awk '{ print ($6 > $8) ? $6 : $8 }' $W/hot; }
total_was() { jq "[.devices[0].paths[].$1] | add" $W/after.json; }    # FIELD, before the logout

# ---- faults

LEAD=4 TAIL=14      # seconds of load before a fault, and after its end
# fault LABEL HOW PORTAL SECONDS: while three jobs run on device d, path PORTAL fails by
# `lio-path HOW` and comes back SECONDS later. Afterwards the path is up again, no job saw an error
# or a wrong byte, and the last state of every block is still there. The jobs: `read` (fio, random,
# depth 4), `cold` (fio, writes each block once and checks it) and `hot` (hotload: overwrites and
# checks 128 blocks again and again, so that a write that was sent again meets newer ones on its
# block). The longest I/O of each is the stall.
fault() {
    local label=$1 how=$2 n=$3 hold=$4 secs=$((LEAD + $4 + TAIL)) back=pass load hot t
    case $how in tpgoff) back=tpgon;; esac
    local cold=(--name=cold --rw=randwrite --bs=4k --iodepth=4 --rate_iops=150,150 --verify=crc32c --verify_backlog=64 --offset=16M --size=$((secs * 75 * 4))k)
    local read=(--name=read --rw=randread --bs=4k --iodepth=4 --rate_iops=300 --offset=128M --size=64M --time_based --runtime=$secs)
    say "$label: load for about $secs s"
    ( OUTCOME=quiet; fio_nbd d "$label.json" "${cold[@]}" "${read[@]}" ) & load=$!
    hotload "$W/d.sock" d $secs >"$W/$label.hot" 2>"$W/$label.hot.log" & hot=$!
    sleep $LEAD
    lio-path "$how" "$n"; say "$label: portal $n: $how"
    sleep "$hold"
    iscsimp paths d
    path_up d "$n" && die "$label: path $n is called up after $hold s of $how"
    for t in $load $hot; do kill -0 "$t" 2>/dev/null || die "$label: the load ended before the path came back"; done
    lio-path $back "$n"; t=$(now); say "$label: portal $n: $back"
    wait_for 40 path_up d "$n" || die "$label: path $n is not up 40 s after it could be: $(status d '.paths[] | "\(.portal) \(.state) \(.reason)"')"
    metric "$label-path-back" "$(calc "$(now) - $t" 1)" s
    wait $load || die "$label: fio failed (above)"
    wait $hot || die "$label: $(cat "$W/$label.hot.log")"
    say "$label: $(fio_line "$label.json" | paste -sd';'); hot: $(cat "$W/$label.hot")"
    no_failures d
    verify_again "$label" "${cold[@]}"
    stalls "$label"
}
verify_again() { # LABEL JOB-OPTIONS...: as the job left them, the blocks are still
    local l=$1 o; shift; local same=()
    for o; do case $o in --rate_iops=* | --verify_backlog=*) ;; *) same+=("$o");; esac; done
    fio_nbd d "$l-again.json" "${same[@]}" --verify_only
}
longest() { # LABEL JOB, in seconds
    [ "$2" != hot ] || { awk '{ print ($6 > $8) ? $6 : $8 }' "$W/$1.hot"; return; }
    fio_get "$1.json" ".jobs[] | select(.jobname == \"$2\") | [.read.lat_ns.max, .write.lat_ns.max] | max / 1e9"
}
stalls() { local j; for j in read cold hot; do metric "$1-longest-$j" "$(calc "$(longest "$1" $j)" 2)" s; done; }
at_most() { # LABEL JOB SECONDS: a stall longer than that is a failure
    [ "$(calc "$(longest "$1" "$2") <= $3" 0)" = 1 ] || die "$1: the longest I/O of $2 took $(longest "$1" "$2") s, more than $3 s"
}
quiet() { # the longest I/O of the same kind with nothing failing: this machine's own noise
    fio_nbd d quiet.json --name=read --rw=randread --bs=4k --iodepth=4 --rate_iops=300 --offset=128M --size=64M --time_based --runtime=4
    metric quiet-longest-read "$(calc "$(longest quiet read)" 2)" s
}
