#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# The daemon is killed, and the next one takes its workers over: whatever they,
# their guests and the storage do meanwhile.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
RANDOM=${XENDISK_SEED:-1}
rounds=${XENDISK_ROUNDS:-6}

show() { xendisk --json show "$d" xvdb | sed -n "s/.*\"$1\": \"*\([a-z0-9]*\).*/\1/p" | head -1; }
worker_of() { show worker_pid; }
state_is() { [ "$(show state)" = "$1" ]; }
is_served() { local pid; pid=$(worker_of); [ "${pid:-0}" -gt 1 ] && state_is connected; }
same() { [ "$(worker_of)" = "$worker" ] && [ "$(show restarts)" = "$restarts" ]; }
replaced() { local pid; pid=$(worker_of); [ "${pid:-0}" -gt 1 ] && [ "$pid" != "$worker" ]; }
remember() { worker=$(worker_of) restarts=$(show restarts); }
# From the subshell of ok, too: who it is stands in its file.
kill_daemon()
{
	local pid
	pid=$(cat "$tmp/run/xendiskd.pid")
	kill -9 "$pid"
	eventually 5 is_gone "$pid"
}
# In this shell, so that its end is no news; and without the end of the pipe to
# the guest.
dies() { kill_daemon; wait "$daemon_pid" 2>/dev/null || :; }
start() { daemon_start 8>&-; }
load()
{
	guest "$d" xvdb verify --seconds 3 --size 8M --depth 16 \
		--gaps "$tmp/gaps" "$@" > "$tmp/out" 2>&1 & verify=$!
	ok "a guest" eventually 10 is_served
}
survived() { local rc=0; wait "$verify" || rc=$?; ok "$1" said "$rc"; }
said() { cat "$tmp/out"; [ "$1" = 0 ] && grep -q ' 0 errors' "$tmp/out"; }
pause() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; }

# A guest that does one thing after the other: talk OPTION..., tell LINE..., ended_well.
talk()
{
	rm -f "$tmp/in"
	mkfifo "$tmp/in"
	guest "$d" xvdb script "$@" < "$tmp/in" > "$tmp/out" 2>&1 & script=$!
	exec 8> "$tmp/in"
	ok "a guest" eventually 10 is_served
	remember
}
tell() { printf '%s\n' "$@" >&8; }
ended_well()
{
	local rc=0
	exec 8>&-
	wait "$script" || rc=$?
	ok "$1" answered "$rc"
}
answered() { cat "$tmp/out"; [ "$1" = 0 ]; }

sim_start
daemon_start
truncate -s 32M "$tmp/raw.img"
d=$(domain)

# --- Nothing happens meanwhile ---------------------------------------------------
ok "attach" toolstack attach "$d" xvdb "raw($tmp/raw.img)"
load --queues 4 --seconds 8
remember
dies
start
ok "the same process, not restarted" eventually 5 same
ok "... connected" state_is connected
survived "the guest has noticed nothing"
echo "# gaps over 10 ms: $(wc -l < "$tmp/gaps"), longest $(sort -rn "$tmp/gaps" | head -1) ms"
ok "counters go on" says '"read"' xendisk --json stats "$d" xvdb

# --- Killed while it takes over --------------------------------------------------
load --queues 2 --abi x86_32
remember
killed_early()
{
	"${XENDISKD:-$top_builddir/xendiskd}" --foreground --run-dir "$tmp/run" \
		--state-dir "$tmp/state" --config "$tmp/xendiskd.conf" \
		--backend-dir "$top_builddir/backends/.libs" \
		>> "$tmp/log" 2>&1 &
	pause 60
	kill -9 $!
	wait $! 2>/dev/null || :
}
dies
for ((i = 0; i < rounds; i++)); do killed_early; done
start
ok "killed $rounds times while it started: the same process" eventually 5 same
survived "the guest has noticed nothing"

# --- One that cannot start -------------------------------------------------------
load --queues 2 --seconds 5
remember
dies
in_vain()
{
	fails 1 "cannot start: $1" timeout 20 "${XENDISKD:-$top_builddir/xendiskd}" \
		--foreground --run-dir "$tmp/run" --state-dir "$tmp/state" \
		--config "$tmp/xendiskd.conf" \
		--backend-dir "$top_builddir/backends/.libs"
}
without_xenstored() { XENSTORED_PATH=$tmp/none in_vain xenstore; }
ok "without xenstored it cannot start" without_xenstored
rm -f "$tmp/run/control.sock"
mkdir "$tmp/run/control.sock"
ok "nor without its socket" in_vain "control socket"
rmdir "$tmp/run/control.sock"
start
ok "the same process, not restarted" eventually 5 same
survived "the guest has noticed nothing"

# --- Killed while the guest comes and goes ---------------------------------------
guest "$d" xvdb verify --seconds 5 --size 8M --reconnect 8 --queues 3 \
	--timeout 30 > "$tmp/out" 2>&1 & verify=$!
for ((i = 0; i < rounds; i++)); do
	pause 900
	dies
	pause 100
	start
done
survived "a guest that connects and disconnects all the time"

# --- A worker that does not answer -----------------------------------------------
load --queues 2
remember
ok "its worker is stopped" kill -STOP "$worker"
dies
start
ok "another worker recovers the disk" eventually 10 replaced
survived "the guest sees a delay"
ok "the stopped one is gone" is_gone "$worker"

# --- A daemon that has not its backend -------------------------------------------
load --queues 2 --timeout 60
remember
dies
mkdir "$tmp/backends"
ln -s "$top_builddir/backends/.libs/mem.so" "$tmp/backends"
daemon_start --backend-dir "$tmp/backends"
ok "without its backend the disk fails" eventually 10 state_is failed
ok "... for that reason" says 'there is no backend .*raw' xendisk show "$d" xvdb
daemon_stop
start
ok "the next daemon, which has it, recovers the disk" eventually 10 replaced
survived "the guest sees a delay"

# --- A guest that closes the disk ------------------------------------------------
talk --timeout 30
tell "write 0 4096 0x11" "flush"
sleep 0.2
dies
exec 8>&-
sleep 0.3
start
ended_well "a guest has closed the disk meanwhile, and gets its pages back"
ok "the same process" eventually 5 same

# --- Another guest kernel --------------------------------------------------------
talk
tell "write 0 4096 0x11"
sleep 0.2
dies
exec 8>&-
kill -9 "$script" 2>/dev/null || :
wait "$script" 2>/dev/null || :
guest "$d" xvdb script --queues 2 --order 1 --timeout 30 \
	> "$tmp/out" 2>&1 <<< "read 0 4096" & script=$!
sleep 0.3
start
ended_well "a guest that was started anew meanwhile connects"
ok "... and finds its data" grep -q '= 0x11' "$tmp/out"

# --- Removed meanwhile -----------------------------------------------------------
talk
dies
exec 8>&-
kill -9 "$script" 2>/dev/null || :
wait "$script" 2>/dev/null || :
ok "the domain is destroyed" "$xensim" domain destroy "$d"
"$xensim" toolstack detach "$d" xvdb --force >/dev/null 2>&1 || :
start
ok "its worker is ended" eventually 15 is_gone "$worker"
d=$(domain)

# --- Memory that has to be asked for ---------------------------------------------
daemon_stop
echo 'mem-limit = "8M"' > "$tmp/xendiskd.conf"
start
ok "attach memory" toolstack attach "$d" xvdb 'mem(32M)'
talk
tell "write 0 4096 0x21"
sleep 0.2
dies
tell "write 16M 4096 0x22" "read 16M 4096" "read 0 4096"
sleep 0.5
ok "a write that needs memory waits" [ "$(grep -c '0x22' "$tmp/out" || :)" = 0 ]
start
ended_well "and is answered when there is a daemon again"
ok "with what was written" grep -q '= 0x21' "$tmp/out"
ok "nothing is held any more" says '"conditions": *\[\]' xendisk --json list
daemon_stop
: > "$tmp/xendiskd.conf"
start
ok "detach" toolstack detach "$d" xvdb

# --- A flush that fails ----------------------------------------------------------
failfs=$top_builddir/tests/fuse-failfs
if [ -x "$failfs" ] && [ -w /dev/fuse ] && command -v fusermount3 >/dev/null; then
	mkdir "$tmp/fs"
	truncate -s 16M "$tmp/backing"
	background "$failfs" "$tmp/backing" "$tmp/fs"
	eventually 5 [ -e "$tmp/fs/control" ]
	marks() { find "$tmp/state" -type f | grep -c . || :; }
	marked() { [ "$(marks)" != 0 ]; }
	ok "attach" toolstack attach "$d" xvdb "raw($tmp/fs/image, cache=writeback)"
	talk
	tell "write 0 4096 0x31"
	sleep 0.2
	dies
	echo "fsync 5 1" > "$tmp/fs/control"
	tell "flush expect=-3"
	sleep 0.5
	ok "nobody can make a mark" [ "$(marks)" = 0 ]
	start
	ended_well "the flush is answered when there is a daemon again: -3"
	ok "the same process" eventually 5 same
	ok "it is marked" marked
	ok "and known" says '"poisoned"' xendisk --json list
	ok "the operator accepts it" xendisk resume "$d" xvdb --accept-loss
	ok "no mark is left" [ "$(marks)" = 0 ]

	# The guest is closed before there is anybody to tell.
	talk
	tell "write 0 4096 0x32"
	sleep 0.2
	dies
	echo "fsync 5 1" > "$tmp/fs/control"
	tell "flush expect=-3"
	sleep 0.5
	start
	ended_well "once more"
	ok "it is marked again" marked
	ok "detach" toolstack detach "$d" xvdb
fi
