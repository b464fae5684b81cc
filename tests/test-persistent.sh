#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# Persistent grants: the guest's data is right and its pages are its own again
# afterwards, whoever dies meanwhile, and no guest has them that was not offered them.
# simguest says so: a page that is mapped when it may not be is a fault of its own.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"

# sum COUNTER: over all rings.
sum()
{
	xendisk --json stats "$d" xvdb |
		sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" | awk '{ n += $1 } END { print n + 0 }'
}
grew() { [ "$(sum "$1")" -gt "$2" ]; }
worker_of()
{
	xendisk --json show "$d" xvdb |
		sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p' | head -1
}
serves() { local pid; pid=$(worker_of); [ "${pid:-0}" -gt 1 ]; }
another() { local pid; pid=$(worker_of); [ "${pid:-0}" -gt 1 ] && [ "$pid" != "$worker" ]; }
verify()
{
	guest "$d" xvdb verify --seconds 60 --size 8M --no-final-check "$@" \
		> "$tmp/verify" 2>&1 || { cat "$tmp/verify"; return 1; }
	grep ' 0 errors' "$tmp/verify" || { cat "$tmp/verify"; return 1; }
}
offers() { says "^feature-persistent=$1" guest "$d" xvdb info; }
# A guest works; is its memory used as it stands there, or copied?
works_by() # COUNTER OTHER OPTION...
{
	local one other
	one=$(sum "$1") other=$(sum "$2")
	guest "$d" xvdb script "${@:3}" <<< $'write 0 8192 0x31\nread 0 8192' || return
	grew "$1" "$one" && [ "$(sum "$2")" = "$other" ]
}
by_memory() { works_by kept_copies grant_copies "$@"; }
by_call() { works_by grant_copies kept_copies "$@"; }
# The worker dies, and the guest that is there goes on.
replaced()
{
	eventually 20 serves || return
	worker=$(worker_of)
	kill -9 "$worker"
	eventually 20 another
}

echo 'persistent-grants = yes' > "$tmp/xendiskd.conf"
sim_start
truncate -s 16M "$tmp/raw.img"
d=$(domain)
daemon_start
ok "attach" toolstack attach "$d" xvdb "$tmp/raw.img"
ok "they are offered" offers 1
ok "a guest without them" by_call
ok "a guest with them" by_memory --persistent
ok "large requests, with lists, on four rings: more pages than are kept" \
	verify --persistent --queues 4 --depth 8 --bs 512-1M --requests 40
ok "what is not kept is copied" grew grant_copies 1000
ok "small ones, as a 32-bit guest" \
	verify --persistent --abi x86_32 --order 2 --bs 512-16K --requests 400

# --- A worker dies -------------------------------------------------------------
kill_soon()
{
	eventually 20 connected "$d" || return
	sleep 0.2
	replaced
}
guest "$d" xvdb verify --persistent --seconds 1 --size 8M --queues 2 --no-final-check \
	> "$tmp/out" 2>&1 & script=$!
ok "its worker is killed" kill_soon
ended_well "the guest has noticed nothing"

# --- The daemon is told otherwise, and the guest is there ----------------------
# One that is killed leaves its worker to the next; then that dies, too.
told_otherwise() # yes or no
{
	worker=$(worker_of)
	kill -9 "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null || :
	echo "persistent-grants = $1" > "$tmp/xendiskd.conf"
	daemon_start 8>&-
}
same() { [ "$(worker_of)" = "$worker" ]; }
for now in yes no; do
	then=no counter=kept_copies
	[ $now = yes ] || { then=yes counter=grant_copies; }
	meet "$d" --persistent
	tell "write 0 4096 0x22"
	told_otherwise $then
	ok "another daemon with another configuration, the same worker" \
		eventually 20 same
	tell "write 4096 4096 0x22"
	ok "another worker" replaced
	before=$(sum $counter)
	tell "read 0 8192"
	ended_well "the guest has noticed nothing"
	ok "it was what it was before, which is $now" grew $counter "$before"
done
ok "they are offered again" offers 1

# --- A guest that is not honest -----------------------------------------------
hostile() { guest "$d" xvdb hostile "$1" --persistent --seconds 0; }
for case in requests random; do
	ok "hostile: $case" hostile $case
done
ok "all it did to its worker" by_memory --persistent

# --- Another kernel ------------------------------------------------------------
ok "what the guest before has said is forgotten" by_call
ok "detach" toolstack detach "$d" xvdb

# --- A guest that does nothing ---------------------------------------------------
# In the program of the tests what takes a minute takes a second (grant-keep.c).
daemon_stop
XENDISKD=$top_builddir/tests/faults/xendiskd daemon_start
mapped() { "$xensim" domain list | awk -v d="$d" '$1 == d { print $6 }'; }
no_more() { [ "$(mapped)" = "$rings" ]; } # and what xenstored has of it
switches() { cat "/proc/$1/task"/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }'; }
ticks() { cat "/proc/$1/task"/*/stat | awk '{ n += $14 + $15 } END { print n }'; }
# Its main thread may look after the disk's size.
sleeps()
{
	local pid s t
	pid=$(worker_of)
	s=$(switches "$pid") t=$(ticks "$pid")
	sleep 3
	echo "$(($(switches "$pid") - s)) switches, $(($(ticks "$pid") - t)) ticks"
	[ $(($(switches "$pid") - s)) -le 3 ] && [ $(($(ticks "$pid") - t)) -le 1 ]
}
ok "attach" toolstack attach "$d" xvdb "$tmp/raw.img"
meet "$d" --persistent
rings=$(mapped)
for i in 1 2; do
	before=$(sum kept_copies)
	tell "write 0 1M 0x4$i" "read 0 1M"
	ok "a guest works" eventually 10 grew kept_copies $((before + 511))
	ok "it stops, and its pages are unmapped" eventually 20 no_more
	ok "... and its worker sleeps" sleeps
done
ended_well "the guest has noticed nothing"
ok "... and has what it has written" says "read 0 1M = 0x42" cat "$tmp/out"
ok "detach" toolstack detach "$d" xvdb

# --- ... because its request waits -----------------------------------------------
waits() # NAME; the guest has read, and was told something that waits
{
	ok "$1" eventually 20 says '"paused"' xendisk --json list
	ok "... and pages that it does not use are unmapped" eventually 30 no_more
	ok "a forced detach" toolstack detach "$d" xvdb --force
	exec 8>&-
	kill "$script" 2>/dev/null || :
	wait "$script" 2>/dev/null || :
}
works()
{
	meet "$d" --persistent
	rings=$(mapped)
	tell "write 0 1M 0x43" "read 0 1M"
	ok "a guest works" eventually 10 grep -q 'read 0 1M' "$tmp/out"
}
daemon_stop
printf 'persistent-grants = yes\nmem-limit = "4M"\n' > "$tmp/xendiskd.conf"
XENDISKD=$top_builddir/tests/faults/xendiskd daemon_start
ok "attach memory" toolstack attach "$d" xvdb 'mem(64M)'
works
for i in 1 2 3 4; do tell "write ${i}6M 1M 0x44"; done
waits "there is no more of it: the lane holds a request"

if command -v nbdkit > /dev/null && [ -e "$top_builddir/backends/.libs/nbd.so" ]; then
	nbdkit -f -U "$tmp/sock" memory 8M & server=$!
	cleanup_pids+=("$server")
	eventually 20 listens "$tmp/sock"
	ok "attach a server" toolstack attach "$d" xvdb "nbd(\"nbd+unix:///?socket=$tmp/sock\")"
	works
	kill -9 "$server"
	wait "$server" 2>/dev/null || :
	tell "read 0 4096"
	waits "it is away: the backend has a request"
else
	skipped "a server that is away" "nbdkit is not there"
fi
