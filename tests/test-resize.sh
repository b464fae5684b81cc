#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk that grows while its guest is connected: by xendisk resize, and because
# its file has grown.  The guest sees it without detaching, and what it writes
# into the new part is there; never does a disk shrink.
. "$(dirname "$0")/functions.sh"

MiB=1048576
# On a file system of which the worker can tell at once what became of a file.
images=$tmp
sim_start
daemon_start
dom=$(domain --name web1)

# A guest that does one thing after the other, in a background of its own.
guest_start()
{
	local name=$1
	shift
	rm -f "$tmp/in.$name"
	mkfifo "$tmp/in.$name"
	guest "$@" script --timeout 25 < "$tmp/in.$name" > "$tmp/out.$name" 2>&1 &
	guest_pid=$!
	cleanup_pids+=("$guest_pid")
	exec 9> "$tmp/in.$name"
	guest_out=$tmp/out.$name
	guest_line=0
}
# does LINE PATTERN: the guest does it, and says so.
does()
{
	echo "$1" >&9
	eventually 30 guest_said "$2"
}
lines() { wc -l < "$guest_out"; }
guest_said() { tail -n "+$((guest_line + 1))" "$guest_out" | grep -qe "$1"; }
# In the test's own shell, after each `does`.
next() { guest_line=$(lines); }
# In the test's own shell: the guest lets go of its disk; sets $status.
guest_end()
{
	exec 9>&-
	wait "$guest_pid"
	status=$?
}
size_of() { xendisk --json show "$1" "$2" | sed -n 's/.*"size": \([0-9]*\).*/\1/p'; }
is_size() { [ "$(size_of "$1" "$2")" = "$3" ]; }
pid_of() { xendisk --json list | sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p' | head -1; }
attached() { xendisk attach web1 "$1" --vdev "$2" --direct "${@:3}" > /dev/null; }
detached() { xendisk detach web1 "$1"; }

# --- Wrong use ------------------------------------------------------------------

truncate -s 32M "$images/a.img"
ok "attach" attached "$images/a.img" xvdb
ok "no size" fails 2 'resize: "much" is no size' xendisk resize web1 xvdb much
ok "size 0" fails 2 'resize: "0" is no size' xendisk resize web1 xvdb 0
ok "no such disk" fails 4 'no disk' xendisk resize web1 xvdq 1G
ok "a size that is no sector's" fails 1 'no multiple of the sector size' \
	xendisk resize web1 xvdb 67108865
ok "to shrink" fails 5 'it would shrink' xendisk resize web1 xvdb 1M
ok "nothing has changed" is_size web1 xvdb $((32 * MiB))
ok "the same size is fine" says '^32M$' xendisk resize web1 xvdb 32M

# --- raw, by command: before there is a guest, and with one ------------------------

ok "no guest yet" says '^40M$' xendisk resize web1 xvdb 40M
ok "the file has grown" test "$(stat -c %s "$images/a.img")" = $((40 * MiB))
guest_start raw "$dom" xvdb --queues 2
ok "the guest sees that" does "size $((40 * MiB))" '^0 size'
next
ok "it writes to the end" does "write $((40 * MiB - 8192)) 8192 0x11" '^0 write'
next
ok "and cannot go beyond" does "read $((40 * MiB)) 4096 expect=-1" '^-1 read'
next
ok "resize" says '^64M$' xendisk resize web1 xvdb 64M
ok "JSON" says "\"size\": $((64 * MiB))" xendisk --json resize web1 xvdb
ok "the guest sees it, and is not detached" does "size $((64 * MiB))" '^0 size'
next
ok "the state is 4 still" test "$(state_of web1 xvdb)" = connected
ok "the new part reads as zeroes" \
	does "read $((40 * MiB)) $MiB" '^0 read.* = 0x00'
next
ok "what was written is there" \
	does "read $((40 * MiB - 8192)) 8192" '^0 read.* = 0x11'
next
ok "a write to the new part" \
	does "write $((64 * MiB - 4096)) 4096 0x22" '^0 write'
next
ok "is read back" does "read $((64 * MiB - 4096)) 4096" '^0 read.* = 0x22'
next
ok "one across the old end" \
	does "write $((40 * MiB - 4096)) 8192 0x33" '^0 write'
next
ok "is read back" does "read $((40 * MiB - 4096)) 8192" '^0 read.* = 0x33'
next
in_file() { [ "$(od -An -tx1 -N1 -j "$2" "$1" | tr -d ' ')" = "$3" ]; }
ok "flush" does "flush" '^0 flush'
next
ok "it is in the file" in_file "$images/a.img" $((64 * MiB - 1)) 22

# --- raw, by itself -------------------------------------------------------------------

ok "the file grows" truncate -s 96M "$images/a.img"
ok "within a few seconds the guest sees it" does "size $((96 * MiB))" '^0 size'
next
ok "xendisk list knows" is_size web1 xvdb $((96 * MiB))
ok "by half a sector: that does not count" \
	truncate -s $((96 * MiB + 700)) "$images/a.img"
ok "but the whole one" says "^$((96 * MiB + 512))\$" xendisk resize web1 xvdb
ok "the guest sees it" does "size $((96 * MiB + 512))" '^0 size'
next
ok "and uses it" does "write $((96 * MiB)) 512 0x44" '^0 write'
next

# --- A file that shrinks ----------------------------------------------------------------

cp --sparse=always "$images/a.img" "$tmp/saved"
ok "the file shrinks" truncate -s 32M "$images/a.img"
ok "what is left can be read" does "read 0 4096" '^0 read'
next
ok "what is not cannot" does "read $((40 * MiB)) 4096 expect=-1" '^-1 read'
next
ok "nor written" does "write $((40 * MiB)) 4096 0x99 expect=-1" '^-1 write'
next
ok "nor be partly read" \
	does "read $((32 * MiB - 4096)) 8192 expect=-1" '^-1 read'
next
ok "nor discarded" does "discard $((40 * MiB)) $MiB expect=-1" '^-1 discard'
next
ok "the file is as short as before" \
	test "$(stat -c %s "$images/a.img")" = $((32 * MiB))
ok "resize tells" fails 5 'has shrunk to 33554432 bytes' \
	xendisk resize web1 xvdb
ok "it is not made larger over that" fails 5 'has shrunk' \
	xendisk resize web1 xvdb 128M
ok "the disk has not shrunk" is_size web1 xvdb $((96 * MiB + 512))
ok "nor in the guest's eyes" does "size $((96 * MiB + 512))" '^0 size'
next
kill -9 "$(pid_of)"
ok "the next worker: what is left can be read" does "read 0 4096" '^0 read'
next
ok "what is not cannot" does "read $((40 * MiB)) 4096 expect=-1" '^-1 read'
next
ok "nor written" does "write $((40 * MiB)) 4096 0x99 expect=-1" '^-1 write'
next
cat "$tmp/saved" > "$images/a.img"
ok "the file is long again" does "write $((40 * MiB)) 4096 0x33" '^0 write'
next
ok "so it was before" does "read $((64 * MiB - 4096)) 4096" '^0 read.* = 0x22'
next

# --- A worker that dies -------------------------------------------------------------

kill -9 "$(pid_of)"
ok "the next worker knows the size" \
	does "read $((96 * MiB)) 512" '^0 read.* = 0x44'
next
ok "resize after that" says '^128M$' xendisk resize web1 xvdb 128M
ok "the guest sees it" does "size $((128 * MiB))" '^0 size'
next
daemon_stop
ok "a daemon that was away" truncate -s 160M "$images/a.img"
daemon_start 9>&-
ok "finds what has grown meanwhile" does "size $((160 * MiB))" '^0 size'
next
guest_end
ok "the guest has seen no error" test $status = 0
ok "detach" detached xvdb

# --- A broker that dies leaves its workers -------------------------------------------------

truncate -s 32M "$images/left.img"
ok "attach" attached "$images/left.img" xvdb
guest_start left "$dom" xvdb
ok "a guest" does "write 0 4096 0x12" '^0 write'
next
worker=$(pid_of)
ok "resize" says '^48M$' xendisk resize web1 xvdb 48M
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null
daemon_start 9>&-
ok "the next one takes the worker over" eventually 20 is_size web1 xvdb $((48 * MiB))
ok "the very same" eventually 20 eval '[ "$(pid_of)" = "$worker" ]'
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null
ok "without a daemon the file grows" truncate -s 64M "$images/left.img"
daemon_start 9>&-
ok "the guest is told" does "size $((64 * MiB))" '^0 size'
next
ok "by the same worker" test "$(pid_of)" = "$worker"
guest_end
ok "no errors" test $status = 0
ok "detach" detached xvdb

# --- mem -------------------------------------------------------------------------------

ok "mem" attached 'mem(8M)' xvdb
guest_start mem "$dom" xvdb
ok "it is written" does "write $((8 * MiB - 4096)) 4096 0x55" '^0 write'
next
ok "resize" says '^2G$' xendisk resize web1 xvdb 2G
ok "the guest sees it" does "size $((2048 * MiB))" '^0 size'
next
ok "old data" does "read $((8 * MiB - 4096)) 4096" '^0 read.* = 0x55'
next
ok "new data" does "write $((2048 * MiB - 8192)) 8192 0x66" '^0 write'
next
kill -9 "$(pid_of)"
ok "another worker: old data" \
	does "read $((8 * MiB - 4096)) 4096" '^0 read.* = 0x55'
next
ok "new data" does "read $((2048 * MiB - 8192)) 8192" '^0 read.* = 0x66'
next
daemon_stop
daemon_start 9>&-
ok "another daemon: old data" \
	does "read $((8 * MiB - 4096)) 4096" '^0 read.* = 0x55'
next
ok "new data" does "read $((2048 * MiB - 8192)) 8192" '^0 read.* = 0x66'
next
ok "to shrink" fails 5 'it would shrink' xendisk resize web1 xvdb 8M
guest_end
ok "no errors" test $status = 0
ok "detach" detached xvdb

# --- cow, readonly, disk, null -------------------------------------------------------------

truncate -s 16M "$images/gold.img"
printf 'gold' | dd of="$images/gold.img" conv=notrunc status=none
ok "cow" attached "disk(cow($images/gold.img, mem), on-error=report)" xvdb
guest_start cow "$dom" xvdb
ok "it is written" does "write $((16 * MiB - 4096)) 4096 0x77" '^0 write'
next
ok "its base is never written to" \
	fails 5 'its size is that of the base' xendisk resize web1 xvdb 32M
ok "the base grows" truncate -s 32M "$images/gold.img"
ok "the disk follows" says '^32M$' xendisk resize web1 xvdb
ok "the guest sees it" does "size $((32 * MiB))" '^0 size'
next
ok "new data" does "write $((32 * MiB - 4096)) 4096 0x88" '^0 write'
next
ok "is not in the base" in_file "$images/gold.img" $((32 * MiB - 1)) 00
kill -9 "$(pid_of)"
ok "another worker: old data" \
	does "read $((16 * MiB - 4096)) 4096" '^0 read.* = 0x77'
next
ok "new data" does "read $((32 * MiB - 4096)) 4096" '^0 read.* = 0x88'
next
# The map of what is on top must not be taken for another disk's.
worker=$(pid_of)
kill -STOP "$worker"
ok "the base grows while the worker dies" truncate -s 48M "$images/gold.img"
kill -9 "$worker"
ok "the next one follows" does "size $((48 * MiB))" '^0 size'
next
ok "old data" does "read $((16 * MiB - 4096)) 4096" '^0 read.* = 0x77'
next
guest_end
ok "no errors" test $status = 0
ok "detach" detached xvdb

ok "readonly" attached "readonly($images/gold.img)" xvdb
ok "is not made larger" fails 5 'read-only' xendisk resize web1 xvdb 64M
ok "nothing has happened" test "$(stat -c %s "$images/gold.img")" = $((48 * MiB))
guest_start ro "$dom" xvdb
ok "but follows" truncate -s 64M "$images/gold.img"
ok "by itself" does "size $((64 * MiB))" '^0 size'
guest_end
ok "detach" detached xvdb
ok "attached read-only" attached "$images/gold.img" xvdb --readonly
ok "the same" fails 5 'read-only' xendisk resize web1 xvdb 80M
ok "detach" detached xvdb
ok "null" attached 'null(1G)' xvdb
ok "has the size of its expression" fails 5 'expression says' \
	xendisk resize web1 xvdb 2G
ok "and that can be asked for" says '^1G$' xendisk resize web1 xvdb
ok "detach" detached xvdb

# --- Under load ------------------------------------------------------------------------------

truncate -s 32M "$images/load.img"
ok "attach" attached "$images/load.img" xvdb
guest "$dom" xvdb verify --queues 4 --seconds 6 --depth 16 --ops read=50,write=50 \
	> "$tmp/load" 2>&1 &
load=$!
eventually 10 eval '[ "$(state_of web1 xvdb)" = connected ]'
grow_and_kill()
{
	local size=33
	while ! is_gone "$load" && [ $size -lt 73 ]; do
		xendisk resize web1 xvdb ${size}M > /dev/null 2>> "$tmp/resizes" &
		[ $((size % 8)) != 0 ] || kill -9 "$(pid_of)"
		wait $!
		size=$((size + 1))
		sleep 0.1
	done
	# What a worker died of may be asked for again.
	eventually 10 xendisk resize web1 xvdb 80M
}
ok "40 resizes, 5 dead workers" grow_and_kill
wait $load
ok "the guest has seen no wrong byte" test $? = 0
ok "only what the deaths have cut short has failed" eval \
	'! grep -v "worker died\|no worker" "$tmp/resizes"'
ok "the whole disk" guest "$dom" xvdb verify --seconds 1 --queues 2
ok "has its last size" is_size web1 xvdb $((80 * MiB))
ok "detach" detached xvdb
