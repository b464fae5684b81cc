#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# xendisk connect: a disk until Ctrl-C, with real signals; what it prints at
# the end is what the guest has done.
. "$(dirname "$0")/functions.sh"
requires env

sim_start
daemon_start
dom=$(domain --name web1)
truncate -s 32M "$tmp/a \"b.img"
said=$tmp/said

# connect ARG...: in the background, with SIGINT as on a terminal.
connect()
{
	: > "$said"
	env --default-signal=INT "$top_builddir/xendisk" --run-dir "$tmp/run" \
		connect "$@" > "$said" 2> "$tmp/err" &
	connect_pid=$!
	cleanup_pids+=("$connect_pid")
}
saying() { eventually 15 grep -qe "$1" "$said"; }
interrupt() { kill -INT "$connect_pid"; }
# To be called before `ends`: only this shell can ask for the status.
await()
{
	eventually 20 is_gone "$connect_pid" || kill -9 "$connect_pid"
	wait "$connect_pid" 2>/dev/null
	status=$?
}
# ends STATUS PATTERN: it has ended so, and has said so.
ends()
{
	[ "$status" = "$1" ] && grep -qe "$2" "$said" "$tmp/err" && return 0
	echo "status $status instead of $1, or no \"$2\" in:"
	cat "$said" "$tmp/err"
	return 1
}
is_running() { ! is_gone "$connect_pid"; }
# histogram TITLE: "KEY COUNT" lines.
histogram()
{
	awk -v title="$1" '$0 == "" { on = 0 }
		on { print $1, $2 }
		index($0, title) == 1 { on = 1 }' "$said"
}
sums_to() { [ "$(histogram "$2" | awk '{ n += $2 } END { print n + 0 }')" = "$1" ]; }
detached() { says '"disks": \[\]' xendisk --json list; }
no_nodes()
{
	! xenstore-exists "/local/domain/$dom/device/vbd/51728" &&
		! xenstore-exists "/local/domain/0/backend/xendisk/$dom/51728"
}

# --- Wrong use -----------------------------------------------------------------

ok "neither file nor expression" fails 2 'either --path FILE or EXPR' \
	xendisk connect web1
ok "both" fails 2 'either' xendisk connect web1 'mem(1M)' --path /a
ok "an expression that is wrong" fails 1 'connect: at ' \
	xendisk connect web1 'mem('
ok "no such domain" fails 4 'connect: there is no domain' \
	xendisk connect web9 'mem(1M)'
ok "a vdev that is none" fails 2 'connect: "q" is no virtual disk' \
	xendisk connect web1 'mem(1M)' --vdev q
ok "a file that is not there" fails 1 'connect: .*No such file' \
	xendisk connect web1 --path /nonexistent

# --- Each request known; the guest has let go ------------------------------------

cat > "$tmp/script" <<END
write 0 8192
write 8192 4096
read 0 4096
read 0 4096
indirect read 0 131072
flush
discard 0 1048576
read 33554432 4096 expect=-1
END
cd "$tmp" || exit 1
connect web1 --path 'a "b.img' --vdev xvdb
ok "it attaches, and says so" saying 'attached to domain'
ok "it stays" is_running
ok "a guest" guest "$dom" xvdb script < "$tmp/script"
ok "it says that the guest was there" saying 'xvdb: connected'
ok "and that it has closed the disk" saying 'xvdb: closed'
ok "but stays" is_running
interrupt
await
ok "Ctrl-C: ends well" ends 0 'xvdb: detached$'
ok "it said what it was going to do" grep -q 'asking the guest' "$said"
ok "totals" grep -q '^requests 8, OK 7, errors 1$' "$said"
ok "segments: one of 1, one of 2, two of 1, one of 32" test \
	"$(histogram 'segments per' | tr '\n' ' ')" = '1 3 2 1 32 1 '
ok "occupancy: never more than one" test \
	"$(histogram 'ring occupancy')" = '1 8'
ok "it is detached" detached
ok "nothing is left in xenstore" no_nodes

# --- Under load; SIGTERM asks a guest that is busy -------------------------------------

connect web1 'mem(32M)' --vdev xvdb
ok "again" saying 'attached'
guest "$dom" xvdb load --rw randread --depth 8 --seconds 30 --queues 2 --json \
	> "$tmp/load" 2>&1 &
load=$!
ok "the guest is connected" saying 'connected'
sleep 1
kill -TERM "$connect_pid"
await
ok "SIGTERM: ends well" ends 0 'xvdb: detached$'
wait $load
ok "the guest has let go of it" test $? = 0
count=$(sed -n 's/.*"requests":\([0-9]*\).*/\1/p' "$tmp/load")
ok "each of its $count requests is in the totals" \
	grep -q "^requests $count, OK $count, errors 0\$" "$said"
ok "and in the histogram of segments" sums_to "$count" 'segments per'
ok "bursts of more than one" test \
	"$(histogram 'ring occupancy' | awk '$1 > 1 { n += $2 } END { print (n > 0) }')" = 1

# --- A guest that holds on to it -------------------------------------------------------

mkfifo "$tmp/fifo"
# A guest that does not look whether it should let go.
hold()
{
	: > "$tmp/guest" # before the guest that runs beside us does it
	guest "$dom" xvdb script < "$tmp/fifo" > "$tmp/guest" 2>&1 &
	holder=$!
	cleanup_pids+=("$holder")
	exec 9> "$tmp/fifo"
	echo "write 0 4096 7" >&9
	eventually 30 grep -q '^0 write' "$tmp/guest"
}
let_go() { exec 9>&-; }
connect web1 'mem(32M)' --vdev xvdb
saying 'attached'
hold
interrupt
ok "the first one asks" saying 'asking the guest'
ok "the guest holds it: it waits" eventually 5 test "$(sleep 1; state_of web1 xvdb)" = closing
ok "and the disk is served on" eval '
	echo "read 0 4096" >&9
	eventually 10 grep -q "^0 read.*0x07" "$tmp/guest"'
ok "still there" is_running
interrupt
await
ok "the second one takes it away" ends 0 'xvdb: taken away'
ok "the figures are complete" grep -q '^requests 2, OK 2, errors 0$' "$said"
ok "it is detached" detached
let_go
wait "$holder"

# The same guest, which lets go after the first one.
connect web1 'mem(32M)' --vdev xvdb
saying 'attached'
hold
interrupt
saying 'asking the guest'
let_go
await
ok "a guest that lets go in the end" ends 0 'xvdb: detached$'
figures() { grep -q "^$1\$" "$said" || { cat "$said" "$tmp/guest"; return 1; }; }
ok "and its figures" figures 'requests 1, OK 1, errors 0'

# --- Not by us --------------------------------------------------------------------------

connect web1 'mem(32M)' --vdev xvdb
saying 'attached'
ok "a guest" guest "$dom" xvdb script < <(echo "write 0 4096 1")
ok "somebody detaches it" xendisk detach web1 xvdb
await
ok "it ends, and says so" ends 0 'detached by somebody else'
ok "with all figures" grep -q '^requests 1, OK 1, errors 0$' "$said"

other=$(domain --name web2)
connect web2 'mem(32M)' --vdev xvdb --readonly
saying 'attached.*read-only'
ok "read-only" fails 3 'status -1' guest "$other" xvdb write 0 4096 < /dev/zero
guest "$other" xvdb load --rw randread --seconds 60 > "$tmp/load" 2>&1 &
load=$!
saying 'connected'
ok "the domain dies" "$xensim" domain destroy "$other"
wait $load
await
ok "it ends, and says so" ends 0 "domain $other is gone"
ok "with figures" grep -q '^requests [1-9][0-9]*, OK' "$said"

# --- Nobody reads what it says ------------------------------------------------------------

mkfifo "$tmp/pipe"
: > "$said" # what the one before has said is not for the next
cat "$tmp/pipe" > "$said" & reader=$!
env --default-signal=INT,PIPE "$top_builddir/xendisk" --run-dir "$tmp/run" \
	connect web1 'mem(32M)' --vdev xvdb > "$tmp/pipe" 2> "$tmp/err" &
connect_pid=$!
cleanup_pids+=("$connect_pid")
saying 'attached'
end_process "$reader"
ok "a guest" guest "$dom" xvdb script < <(echo "write 0 4096 1")
ok "the closed pipe does not end it" is_running
interrupt
await
ok "Ctrl-C does" ends 1 'xendisk: stdout: '
ok "it is detached" detached
ok "nothing is left in xenstore" no_nodes

# --- JSON; refused -----------------------------------------------------------------------

connect web1 'mem(1M)' --vdev xvdb --json
eventually 10 grep -q attached "$tmp/err"
ok "a guest" guest "$dom" xvdb script < <(echo "write 0 8192 1")
interrupt
await
ok "with --json what it says is on stderr" ends 0 'detached'
ok "and JSON alone on stdout" eval '
	[ "$(head -c 1 "$said")" = "{" ] && ! grep -q attached "$said" &&
		grep -q "\"bytes\": 8192" "$said"'

ok "a disk is there" xendisk attach web1 'mem(1M)' --vdev xvdb --direct
ok "the vdev is in use" fails 5 'connect: xvdb is in use' \
	xendisk connect web1 'mem(1M)' --vdev xvdb
xendisk detach web1 xvdb

# --- Without a daemon -----------------------------------------------------------------------

connect web1 'mem(32M)' --vdev xvdb
saying 'attached'
ok "a guest" guest "$dom" xvdb script < <(echo "write 0 4096 1")
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null
ok "the daemon is gone: it says so" saying 'xendiskd.*served on'
ok "and stays" is_running
daemon_start
ok "the next one serves the disk" eventually 15 guest "$dom" xvdb script \
	< <(echo "read 0 4096")
interrupt
await
ok "and knows the figures" ends 0 'xvdb: detached$'
ok "of both" grep -q '^requests [12], OK [12], errors 0$' "$said"

connect web1 'mem(32M)' --vdev xvdb
saying 'attached'
worker=$(xendisk --json show web1 xvdb | sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p')
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null
saying 'xendiskd.*served on'
interrupt
saying 'asking the guest'
ok "nobody is there to ask: it waits" is_running
interrupt
await
ok "by force, without figures" ends 3 'the figures are lost'
ok "nothing is left in xenstore" no_nodes
ok "no daemon at the start" fails 3 'cannot reach' xendisk connect web1 'mem(1M)'
ok "its worker waits for the next daemon" fails 1 '' is_gone "$worker"
daemon_start
ok "... which ends it" eventually 15 is_gone "$worker"
