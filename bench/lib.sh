# Shared helpers; source this file. Needs bash, awk, jq, fio with the nbd engine.

# need PROGRAM PACKAGE: fail early, and say what to install. Debian keeps some programs out of users' PATH.
PATH=$PATH:/usr/sbin:/sbin
need() { command -v "$1" >/dev/null || die "$1 is not installed; run: apt-get install $2"; }

die() { echo "${0##*/}: $*" >&2; exit 1; }

# cpu_ticks PID: user+system clock ticks of the whole process (all threads, finished ones included).
# The command name may hold spaces and parentheses, so cut at the last ')'.
cpu_ticks() {
	local s
	s=$(<"/proc/$1/stat") || return 1
	s=${s##*) }
	set -- $s
	echo $(( ${12} + ${13} ))
}

# ctx_switches PID: voluntary + involuntary context switches, all live threads.
ctx_switches() {
	cat /proc/"$1"/task/*/status 2>/dev/null | awk '/ctxt_switches/ { n += $2 } END { print n + 0 }'
}

# busy_ticks: ticks that all processors together spent on anything but idling.
busy_ticks() { awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 + $9; exit }' /proc/stat; }

# wait_quiet PERCENT SECONDS: wait (at most SECONDS) until the machine uses less than PERCENT of one core.
wait_quiet() {
	local end=$(( SECONDS + $2 )) b
	while (( SECONDS < end )); do
		b=$(busy_ticks); sleep 0.5
		(( ($(busy_ticks) - b) * 200 / CLK_TCK < $1 )) && return 0
	done
	return 1
}

# wait_for SECONDS COMMAND...: poll until COMMAND succeeds.
wait_for() {
	local n=$(( $1 * 20 )); shift
	until "$@" >/dev/null 2>&1; do
		(( n-- > 0 )) || return 1
		sleep 0.05
	done
}

# stop_pid PID: TERM, then KILL after 5 s. Only ever that process.
stop_pid() {
	kill -TERM "$1" 2>/dev/null || return 0
	wait_for 5 not_running "$1" || kill -KILL "$1" 2>/dev/null
}
not_running() { ! [ -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }

# median: of the numbers on stdin, one a line.
median() { sort -g | awk '{ a[NR] = $1 } END { if (NR) print (NR % 2) ? a[(NR+1)/2] : (a[NR/2] + a[NR/2+1]) / 2 }'; }

CLK_TCK=$(getconf CLK_TCK)

# port_in_use HOST:PORT
port_in_use() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }
