#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2016,SC2317,SC2119  # $uri is the command's; called by ok
# What xendisk-nbd-server(7) promises, with the clients that people have: where
# data is, copies that leave out holes, sockets that are passed, the limits.
. "$(dirname "$0")/functions.sh"
requires nbdinfo nbdcopy qemu-img qemu-io nbdkit ss

touch "$tmp/none.conf"
words=("$top_builddir/xendisk" serve --config "$tmp/none.conf"
	--backend-dir "$top_builddir/backends/.libs")
serve() { timeout 120 "${words[@]}" "$@"; }
# with COMMAND EXPR...: the command runs against it.
with() { serve --run "$1" "${@:2}"; }
export tmp

# 1 MiB of data at 4 MiB, the rest of 32 MiB a hole.
truncate -s 32M "$tmp/raw.img"
head -c 1M /dev/urandom > "$tmp/data"
dd if="$tmp/data" of="$tmp/raw.img" bs=1M seek=4 conv=notrunc status=none
raw="raw($tmp/raw.img, cache=writeback)"

# --- Where data is -------------------------------------------------------------------
# map EXPR: as nbdinfo tells it, in one line.
map() { with 'nbdinfo --map "$uri"' "$@" | tr -s ' \n' ' '; }
sparse=' 0 4194304 3 hole,zero 4194304 1048576 0 data 5242880 28311552 3 hole,zero '
maps() { local got; got=$(map "${@:2}"); test "$got" = "$1" || { echo "$got"; return 1; }; }
ok "the map of a sparse file" maps "$sparse" "$raw"
ok "... read-only" maps "$sparse" "$tmp/raw.img" --readonly
ok "... under a filter" maps "$sparse" "readonly($tmp/raw.img)"
ok "... under cow" maps "$sparse" "cow($tmp/raw.img, mem)"
ok "mem is a hole" maps ' 0 33554432 3 hole,zero ' 'mem(32M)'
ok "null is a hole of terabytes" says 'hole,zero' with 'nbdinfo --map "$uri"' 'null(1T)'
wrong() { ! maps "$sparse" 'mem(32M)'; }
ok "a map that is another is noticed" wrong
written=' 0 65536 0 data 65536 4128768 3 hole,zero 4194304 1048576 0 data 5242880 28311552 3 hole,zero '
write_to_top()
{
	local got
	got=$(with 'qemu-io -f raw -c "write 0 64k" "$uri" > $tmp/qemu-io &&
		nbdinfo --map "$uri"' "cow($tmp/raw.img, mem)" | tr -s ' \n' ' ')
	test "$got" = "$written" || { echo "$got"; return 1; }
}
ok "what is written to cow's top is data" write_to_top
ok "qemu-img map" says '"start": 4194304, "length": 1048576.*"data": true' \
	with 'qemu-img map --output=json "$uri"' "$raw"
ok "qemu-img info" says 'virtual size: 32 MiB' with 'qemu-img info "$uri"' "$raw"
if [ -e "$top_builddir/backends/.libs/nbd.so" ]; then
	nbdkit -f -U "$tmp/kit" file "$tmp/raw.img" 2> /dev/null &
	cleanup_pids+=("$!")
	eventually 20 listens "$tmp/kit"
	ok "the map that another server tells" maps "$sparse" \
		"nbd(\"nbd+unix:///?socket=$tmp/kit\")"
fi

# --- Copies ----------------------------------------------------------------------------
# Through nbdkit's nbd plugin, which counts what is read of us.
reads_only_data()
{
	with 'nbdkit -U - --filter=stats nbd uri="$uri" statsfile=$tmp/stats \
		--run "nbdcopy --connections=1 \"\$uri\" $tmp/copy"' "$raw" || return
	cmp "$tmp/copy" "$tmp/raw.img" && grep '^read:.* s, 1\.00 MiB,' "$tmp/stats"
}
ok "nbdcopy reads what is data, and no more" reads_only_data
both_ways()
{
	with 'nbdcopy --connections=4 --requests=64 $tmp/raw.img "$uri" &&
		nbdcopy --connections=4 --requests=64 "$uri" $tmp/back &&
		nbdinfo --map "$uri"' "$1" | tr -s ' \n' ' ' > "$tmp/map" &&
		cmp "$tmp/back" "$tmp/raw.img"
}
truncate -s 32M "$tmp/to.img"
for expr in "raw($tmp/to.img, cache=writeback)" 'mem(32M)' "cow($tmp/to.img, mem)"; do
	ok "nbdcopy both ways: ${expr%%(*}" both_ways "$expr"
	ok "... what was zero has stayed without space" \
		test "$(cat "$tmp/map")" = "$sparse"
done
ok "qemu-img convert, out and in" with 'qemu-img convert -f raw -O raw "$uri" $tmp/out &&
	cmp $tmp/out $tmp/raw.img && qemu-img convert -n -f raw -O raw $tmp/out "$uri"' "$raw"
ok "qemu-img compare" says identical \
	with 'qemu-img compare -f raw -F raw "$uri" $tmp/raw.img' "$raw"
ok "... notices" fails 1 'Content mismatch' \
	with 'qemu-img compare -f raw -F raw "$uri" $tmp/raw.img' 'mem(32M)'
ok "32 MiB in a request" with 'qemu-io -f raw -c "write -P 9 0 32M" -c flush \
	-c "read -P 9 0 32M" "$uri" > $tmp/qemu-io &&
	! grep -i "failed" $tmp/qemu-io' 'mem(32M)'

# --- Sockets ------------------------------------------------------------------------------
ok "a socket that is passed" says '"export-size": 1048576' \
	timeout 60 nbdinfo --json -- [ "${words[@]}" 'mem(1M)' ]
# As of a shell that was started with sockets, and starts us.
ok "one that was passed to another process" fails 1 "no socket was passed to this" \
	env LISTEN_FDS=1 LISTEN_PID=1 timeout 10 "${words[@]}" 'mem(1M)'
# passed FDS COMMAND...: to this process itself, whatever 3 is.
passed() { LISTEN_FDS=$1 bash -c 'LISTEN_PID=$$ exec "$@" 3< /dev/null' - "${@:2}"; }
ok "no socket" fails 1 "descriptor 3 is no socket" passed 1 "${words[@]}" 'mem(1M)' --run true
ok "too many" fails 1 "LISTEN_FDS=17: no number up to 16" \
	passed 17 "${words[@]}" 'mem(1M)' --run true
start()
{
	: > "$tmp/uri"
	"${words[@]}" "$@" > "$tmp/uri" 2> "$tmp/err" & server=$!
	cleanup_pids+=("$server")
	eventually 20 test -s "$tmp/uri"
}
# Some port that is free.
for port in $(shuf -i 20000-29999 -n 10); do
	start 'mem(1M)' "cow(null(1M), mem)" --tcp "$port" && break
done 2> /dev/null
ok "on TCP" nbdinfo "nbd://127.0.0.1:$port"
connect() { exec {fd}<> "/dev/tcp/127.0.0.1/$port"; }
# A client that chooses the first export, and stays.
stay()
{
	connect
	printf '\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\0' >&"$fd"
	timeout 20 head -c 28 <&"$fd" > /dev/null
}
stay
first=$fd
keepalive() { ss -tno state established "( sport = :$port )" | grep keepalive; }
ok "those that vanish are noticed: keep-alive" eventually 20 keepalive

# Fewer descriptors than clients.  Later on this shell, and so its server, has many.
for other in $(shuf -i 20000-29999 -n 10); do
	start_short() { ulimit -n 64; exec "${words[@]}" 'mem(1M)' --tcp "$other"; }
	: > "$tmp/uri"
	start_short > "$tmp/uri" 2> "$tmp/err" & short=$!
	cleanup_pids+=("$short")
	eventually 20 test -s "$tmp/uri" && break
done 2> /dev/null
fds=()
for ((i = 0; i < 60; i++)); do
	exec {fd}<> "/dev/tcp/127.0.0.1/$other"
	fds+=("$fd")
done
ok "no descriptor for a client: that is said" \
	eventually 20 grep -q 'accept: Too many open' "$tmp/err"
sleep 1
ok "... once" test "$(grep -c 'accept: ' "$tmp/err")" = 1
for fd in "${fds[@]}"; do exec {fd}>&-; done
ok "... and the next ones are served, when others have gone" \
	eventually 30 timeout 20 nbdinfo "nbd://127.0.0.1:$other"
end_process "$short"

# --- Limits ---------------------------------------------------------------------------------
for ((i = 1; i < 256; i++)); do stay; done
timeout 60 nbdinfo --size "nbd://127.0.0.1:$port" > "$tmp/size" 2>&1 & waiting=$!
cleanup_pids+=("$waiting")
sleep 1
ok "256 clients: one more waits" kill -0 "$waiting"
# DISC: to close it here would not do, the one that waits has inherited it.
printf '\x25\x60\x95\x13\0\0\0\2%s\0\0\0\0\0\0\0\0\0\0\0\0' goodbye. >&"$first"
ok "... until one leaves" eventually 30 grep -qx 1048576 "$tmp/size"
end_process "$server"

# One in each lane (a lane a processor, at most 8) that asks for more than it takes.
for port in $(shuf -i 20000-29999 -n 10); do
	start 'mem(64M)' --tcp "$port" && break
done 2> /dev/null
for ((i = 0; i < 8; i++)); do
	stay
	for ((n = 0; n < 4; n++)); do
		printf '\x25\x60\x95\x13\0\0\0\0%s\0\0\0\0\0\0\0\0\1\0\0\0' sixteenM >&"$fd"
	done
done
sleep 1
began=${EPOCHREALTIME/./}
kill -TERM "$server"
rc=0; wait "$server" || rc=$?
took=$(((${EPOCHREALTIME/./} - began) / 1000))
ok "SIGTERM while clients do not read: well" test "$rc" = 0
ok "... after the five seconds that they have" test "$took" -ge 4500
ok "... all of them at the same time ($took ms)" test "$took" -le 9000

# What is written at one place is not written there by two at a time; a backend may
# count on it.
if [ -e "$top_builddir/backends/.libs/nbd.so" ]; then
	nbdkit -f -U "$tmp/logged" --filter=log --filter=delay memory 1M \
		logfile="$tmp/log" delay-write=300ms delay-zero=300ms 2> /dev/null &
	cleanup_pids+=("$!")
	eventually 20 listens "$tmp/logged"
	start "nbd(\"nbd+unix:///?socket=$tmp/logged\")" --socket "$tmp/nbd.sock"
	io() { timeout 60 qemu-io -t writeback -f raw "${@/#/-c}" "$(cat "$tmp/uri")" > /dev/null; }
	# How many were under way at once, at most.
	together()
	{
		awk '/ (Write|Zero|Trim) id=/ { if (++n > most) most = n }
			/ \.\.\.(Write|Zero|Trim) id=/ { n-- }
			END { print most }' "$tmp/log"
	}
	# each COMMAND...: a connection for each.
	each()
	{
		local command pids=()
		: > "$tmp/log"
		for command; do io "$command" & pids+=("$!"); done
		wait "${pids[@]}"
		together
	}
	one() { : > "$tmp/log"; io "$@"; together; }
	ok "two clients who write at one place take turns" \
		says '^1$' each 'write -P 1 0 64k' 'write -P 2 32k 64k'
	ok "... four, and zeroes" says '^1$' each 'write -P 1 0 64k' 'write -z 60k 8k' \
		'write -P 3 0 128k' 'write -z 0 64k'
	ok "... at two places they need not" \
		says '^2$' each 'write -P 1 0 64k' 'write -P 2 64k 64k'
	ok "one client, too" says '^1$' one 'aio_write -P 1 0 64k' 'aio_write -P 2 0 64k' \
		aio_flush
	ok "... of which the last is what is there" io 'read -P 2 0 64k'
	# At three places, so that there is always one under way; then zeroes over all of
	# them.  How many writes begin before those do?
	writes() { local i c=(); for i in {1..12}; do c+=("write -P $i $1 64k"); done; io "${c[@]}"; }
	overtaken()
	{
		local at pids=()
		: > "$tmp/log"
		for at in 0 256k 512k; do
			writes "$at" & pids+=("$!")
			sleep 0.1
		done
		sleep 0.5
		io 'read 960k 4k' 'write -z 0 1M'
		wait "${pids[@]}"
		awk '/ Read id=.* offset=0xf0000 / { asked = 1 }
			asked && / Zero id=/ { print n + 0; exit }
			asked && / Write id=/ { n++ }' "$tmp/log"
	}
	ok "who waits for others is not overtaken by those that come later" \
		says '^[0-6]$' overtaken
	end_process "$server"
fi

# Flushes: one at a time, whatever lanes they come to.
if [ -e "$top_builddir/backends/.libs/nbd.so" ]; then
	# slow_kit FLUSH WRITE: a server that does these by shell.
	slow_kit()
	{
		rm -f "$tmp/evals"
		nbdkit -f -U "$tmp/evals" --filter=log eval logfile="$tmp/log" \
			get_size='echo 4G' pread='head -c $3 /dev/zero' \
			can_write='exit 0' can_flush='exit 0' can_multi_conn='exit 0' \
			can_zero='exit 0' zero='sleep 1' \
			thread_model='echo parallel' flush="$1" pwrite="cat > /dev/null; $2" \
			2> /dev/null & kit=$!
		cleanup_pids+=("$kit")
		eventually 20 listens "$tmp/evals"
	}
	slow_kit 'sleep 0.5' 'exit 0'
	start "nbd(\"nbd+unix:///?socket=$tmp/evals\")" --socket "$tmp/nbd.sock"
	flushes()
	{
		local i pids=()
		: > "$tmp/log"
		for i in 1 2 3 4; do
			io "write ${i}k 512" flush & pids+=("$!")
		done
		wait "${pids[@]}" || return
		awk '/ Flush id=/ { all++; if (++n > most) most = n }
			/ \.\.\.Flush id=/ { n-- }
			END { print most, (all >= 2) }' "$tmp/log"
	}
	ok "four clients' flushes: one at a time" says '^1 1$' flushes
	end_process "$server"
	end_process "$kit"
	# All are under way when the lanes end: the flush for longer than the write, which
	# needs one then, and zeroes in 48 pieces.
	slow_kit "[ -e $tmp/slept ] || { touch $tmp/slept; sleep 7; }" 'sleep 6'
	for port in $(shuf -i 20000-29999 -n 10); do
		start "nbd(\"nbd+unix:///?socket=$tmp/evals\")" --tcp "$port" && break
	done 2> /dev/null
	stay
	printf '\x25\x60\x95\x13\0\0\0\3%s\0\0\0\0\0\0\0\0\0\0\0\0' flushing >&"$fd"
	stay
	printf '\x25\x60\x95\x13\0\1\0\1%s\0\0\0\0\0\0\0\0\0\0\2\0' writing. >&"$fd"
	head -c 512 /dev/zero >&"$fd"
	stay
	printf '\x25\x60\x95\x13\0\0\0\6%s\0\0\0\0\0\0\x10\0\xc0\0\0\0' zeroing. >&"$fd"
	eventually 20 test -e "$tmp/slept"
	sleep 0.5
	kill -TERM "$server"
	ok "SIGTERM while a write waits for another lane's flush, and zeroes are written" \
		eventually 20 is_gone "$server"
	kill -9 "$server" 2> /dev/null || :
	end_process "$kit"
fi

# The slow one was asked first, and answers last.
if [ -e "$top_builddir/backends/.libs/nbd.so" ]; then
	nbdkit -f -U "$tmp/slow" --filter=delay memory 1M delay-read=1 2> /dev/null &
	cleanup_pids+=("$!")
	eventually 20 listens "$tmp/slow"
	for port in $(shuf -i 20000-29999 -n 10); do
		start "cow(nbd(\"nbd+unix:///?socket=$tmp/slow\"), mem)" \
			--tcp "$port" && break
	done 2> /dev/null
	began=$EPOCHSECONDS
	connect
	silent=$fd
	qemu-io -f raw -c 'write -P 65 0 4k' "nbd://127.0.0.1:$port" > /dev/null
	out_of_order()
	{
		stay
		printf '\x25\x60\x95\x13\0\0\0\0%s\0\0\0\0\0\0\x20\0\0\0\2\0' slow-one >&"$fd"
		printf '\x25\x60\x95\x13\0\0\0\0%s\0\0\0\0\0\0\0\0\0\0\2\0' fast-one >&"$fd"
		timeout 30 head -c 1056 <&"$fd" | tr -cd '[:print:]' |
			grep -o '[a-z]*-one' | paste -sd ' '
	}
	ok "replies come in the order in which they are done" \
		says 'fast-one .*slow-one$' out_of_order
	# It has said nothing since the beginning.
	ended() { timeout 60 cat <&"$silent" | wc -c; }
	ok "10 s for the handshake: the greeting, and the end" says '^18$' ended
	ok "... not at once" test $((EPOCHSECONDS - began)) -ge 9
	end_process "$server"
fi

# --- A write that is lost --------------------------------------------------------------
# The kernel tells once; who heard of it, with FUA, need not be who wrote it.
failfs=$top_builddir/tests/fuse-failfs
if command -v fusermount3 > /dev/null && [ -x "$failfs" ] && [ -w /dev/fuse ]; then
	mkdir "$tmp/fs"
	truncate -s 16M "$tmp/backing"
	background "$failfs" "$tmp/backing" "$tmp/fs"
	ok "a file system that fails" eventually 5 [ -e "$tmp/fs/control" ]
	ok "FUA that fails is a flush that has failed: nothing is written any more" \
		fails 1 'Input/output error' with 'echo fsync 5 1 > $tmp/fs/control
		qemu-io -f raw -c "write -f 0 4k" "$uri" > $tmp/qemu-io && exit 9
		exec qemu-io -f raw -c "write 8k 4k" "$uri"' \
		"raw($tmp/fs/image, cache=writeback)"
else
	skipped "a write that is lost" "FUSE is not there"
fi
