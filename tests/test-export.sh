#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# A disk's NBD socket, beside its guest's ring: one disk, not two.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
requires perl nbdinfo nbdcopy qemu-io qemu-img ss

MiB=1048576
head -c 16M /dev/urandom > "$tmp/a.img"
cp "$tmp/a.img" "$tmp/before"

show() { xendisk --json show "$d" xvdb | sed -n "s/.*\"$1\": \"*\([a-z0-9]*\).*/\1/p" | head -1; }
worker_of() { show worker_pid; }
connected() { [ "$(show state)" = connected ]; }
no_guest() { ! connected; }
is_exported() { nbdinfo --size "$uri"; }
size_is() { [ "$(timeout 20 nbdinfo --size "$uri")" = "$1" ]; }
is_writable() { fails 2 '' timeout 20 nbdinfo --is read-only "$uri"; }
is_readonly() { timeout 20 nbdinfo --is read-only "$uri"; }
copy_out() { timeout 60 nbdcopy "$uri" "$tmp/copy"; }
# io COMMAND...: qemu-io, each of its commands having worked.
io()
{
	local words=() c
	for c; do words+=(-c "$c"); done
	timeout 60 qemu-io -f raw "${words[@]}" "$uri" > "$tmp/io" 2>&1 &&
		cat "$tmp/io" && ! grep -qi 'fail' "$tmp/io"
}
# Is anybody using the image?
is_free() { flock -n "$tmp/a.img" true; }
is_held() { ! is_free; }

size_of() { timeout 20 nbdinfo --size "$1"; }
# The worker of an expression that is exported.
no_worker_of_it()
{
	local note
	for note in "$tmp"/run/workers/*; do
		! tr '\0' ' ' < "/proc/$(basename "$note" | tr -dc 0-9)/cmdline" |
			grep -q ' 32756/1 ' || return 1
	done
}

# A guest that does one thing after the other: meet, tell LINE..., ended_well NAME.
meet()
{
	eventually 20 no_guest
	rm -f "$tmp/in" "$tmp/out"
	mkfifo "$tmp/in"
	guest "$d" xvdb script --timeout 30 "$@" < "$tmp/in" > "$tmp/out" 2>&1 &
	script=$!
	cleanup_pids+=("$script")
	exec 8> "$tmp/in"
	ok "a guest connects" eventually 20 connected
}
tell() { printf '%s\n' "$@" >&8; }
does() { tell "$1"; eventually 30 guest_said "$2"; }
guest_said() { grep -qse "$1" "$tmp/out"; }
ended_well()
{
	local rc=0
	exec 8>&-
	wait "$script" || rc=$?
	ok "$1" said "$rc"
}
said() { cat "$tmp/out"; [ "$1" = 0 ]; }
# An NBD client that does so, too: client_begin [-r],
# client_does COMMAND PATTERN.
client_begin()
{
	rm -f "$tmp/cin" "$tmp/cout"
	mkfifo "$tmp/cin"
	qemu-io "$@" -f raw "$uri" < "$tmp/cin" > "$tmp/cout" 2>&1 &
	client=$!
	cleanup_pids+=("$client")
	exec 7> "$tmp/cin"
}
client_does() { echo "$1" >&7; eventually 30 client_said "$2"; }
client_said() { grep -qse "$1" "$tmp/cout"; }
client_end() { exec 7>&-; wait "$client" || :; }

sim_start
daemon_start
d=$(domain)
sock=$tmp/run/nbd/$d-51728.sock
uri="nbd+unix:///?socket=$sock"
ok "attach" toolstack attach "$d" xvdb "raw($tmp/a.img)"

# --- Before there is a guest -----------------------------------------------------
ok "there is a socket, for root only" test "$(stat -c '%F %a' "$sock")" = "socket 600"
ok "its size" size_is $((16 * MiB))
ok "it may be written" is_writable
for can in multi-conn flush fua trim zero cache; do
	ok "it can $can" timeout 20 nbdinfo --can "$can" "$uri"
done
ok "nbdcopy" copy_out
ok "... has what is in the image" cmp "$tmp/copy" "$tmp/before"
ok "a client writes" io "write -P 0x21 1M 64k" "write -z 2M 64k" \
	"discard 3M 64k" "write -f -P 0x22 4M 4k" "flush" \
	"read -P 0x21 1M 64k" "read -P 0 2M 64k"
ok "... the image" io "read -P 0x22 4M 4k"
ok "where there are holes" says '65536 *[23] .*zero' nbdinfo --map "$uri"
ok "once it has gone nobody holds the image" eventually 20 is_free
client_begin
ok "another one" client_does "read 0 512" "read 512/512"
ok "... holds it" is_held

# --- A guest comes, and a client is there ------------------------------------------
meet --queues 2
ok "the client is served on" client_does "read -P 0x21 1M 4k" "read 4096/4096"
ok "the guest reads what it wrote" does "read $MiB 512" '^0 read 1048576 512 = 0x21'
ok "the guest writes" does "write $((5 * MiB)) 4096 0x31" '^0 write 5242880'
ok "... and the client reads it" client_does "read -P 0x31 5M 4k" \
	"4096/4096 bytes at offset 5242880"
ok "the client may write still" client_does "write -P 0x32 6M 4k" \
	"wrote 4096/4096 bytes at offset 6291456"
ok "... and the guest reads it" does "read $((6 * MiB)) 512" \
	'^0 read 6291456 512 = 0x32'
ok "nothing was wrong" fails 1 '' grep -i fail "$tmp/cout"
ok "who comes now reads only" is_readonly
ok "... and cannot write" fails 1 'read-only\|Permission' \
	timeout 20 qemu-io -f raw -c "write 0 4k" "$uri"
ok "another guest's write" does "write 0 65536 0x41" '^0 write 0 65536'
ok "... flushed" does "flush" '^0 flush'
ok "is what a copy has" copy_out
has_flushed() { [ "$(head -c 65536 "$tmp/copy" | tr -d 'A' | wc -c)" = 0 ]; }
ok "... has it all" has_flushed

# --- A disk that grows ---------------------------------------------------------------
ok "resize" says '^20M$' xendisk resize "$d" xvdb 20M
ok "a new client sees it" size_is $((20 * MiB))

# --- Two who write the same place ------------------------------------------------------
# Each write is of one byte's value, and no two that overlap are ever under way: so
# in the end each block has one value, whoever was last.
both=$(xendisk export "$d" xvdb --name both --force)
words=()
for i in {1..60}; do
	words+=(-c "write -q -P $i 8M 64k" -c "write -q -P $i $((8 * MiB + 32768)) 64k")
done
timeout 60 qemu-io -f raw "${words[@]}" "$both" > "$tmp/both" 2>&1 & writer=$!
cleanup_pids+=("$writer")
for i in {1..60}; do
	echo "indirect write $((8 * MiB)) 65536 $((i + 128))"
	echo "indirect write $((8 * MiB + 65536)) 65536 $((i + 128))"
done >&8
rc=0
wait "$writer" || rc=$?
ok "one has written" test "$rc$(cat "$tmp/both")" = 0
ok "... and the guest" does "read $((9 * MiB)) 512" '^0 read 9437184 512'
values() { od -An -v -tu1 -w1 -j "$1" -N "$2" "$tmp/copy" | sort -u | wc -l; }
uniform() { [ "$(values "$1" "$2")" = 1 ]; }
ok "a copy of it" copy_out
ok "no block is torn" uniform $((8 * MiB)) 32768
ok "... nor this one" uniform $((8 * MiB + 32768)) 32768
ok "... nor this" uniform $((8 * MiB + 65536)) 32768
ok "shown to catch: a block of two values" fails 1 '' uniform $((8 * MiB - 4096)) 8192

# --- Other people's programs, beside the guest --------------------------------------------
# fio_on URI OPTION...: 4 MiB that nobody else writes to, with sums in them.
fio_on()
{
	timeout 120 fio --name=export --verify_state_save=0 --ioengine=nbd --uri="$1" --offset=12m \
		--size=4m --bs=16k --rw=randwrite --iodepth=8 --randseed=1 \
		--verify=crc32c --verify_fatal=1 --verify_state_save=0 "${@:2}"
}
if fio --enghelp 2> /dev/null | grep -q nbd; then
	ok "fio writes by force, and verifies" fio_on "$both" --do_verify=1
	ok "... verifies read-only" fio_on "$uri" --verify_only
	ok "... and cannot write there" fails 1 '' fio_on "$uri"
	ok "the guest writes there" does "write $((13 * MiB)) 4096 0x61" \
		'^0 write 13631488 4096'
	ok "... which fio notices" fails 1 'verify: bad' fio_on "$uri" --verify_only
else
	skipped "fio, with verify" "fio has no engine nbd"
fi
ok "qemu-img info" says 'virtual size: 20 MiB' timeout 60 qemu-img info -f raw "$uri"
covers() { timeout 60 qemu-img map -f raw "$uri" && timeout 60 qemu-img map -f raw --output=json "$uri" | grep -q '"start": 16777216, "length": 4194304.*"data": false'; }
ok "qemu-img map: what was added is a hole" covers
ok "qemu-img convert" timeout 60 qemu-img convert -f raw -O raw "$uri" "$tmp/converted"
ok "qemu-img compare" says identical timeout 60 qemu-img compare -f raw -F raw "$uri" "$tmp/converted"
# The opposite of what is there, which may be any byte.
byte=$(od -An -tu1 -j 5000000 -N 1 "$tmp/converted")
printf '%b' "\\x$(printf %02x $((byte ^ 255)))" |
	dd of="$tmp/converted" bs=1 seek=5000000 conv=notrunc status=none
ok "... of another one" fails 1 'mismatch at offset' timeout 60 qemu-img compare -f raw -F raw "$uri" "$tmp/converted"

# --- The guest goes, and the client stays ------------------------------------------------
ended_well "the guest ends"
ok "it is gone" eventually 20 no_guest
ok "the client is served on" client_does "write -P 0x51 10M 4k" \
	"wrote 4096/4096 bytes at offset 10485760"
client_end
ok "nothing was wrong for the client" fails 1 '' grep -i fail "$tmp/cout"
ok "it may be written again" is_writable
ok "and what was written is in the image" eventually 20 is_free
in_image() { [ "$(tail -c "+$((10 * MiB + 1))" "$tmp/a.img" | head -c 4096 | tr -d 'Q' | wc -c)" = 0 ]; }
ok "... is" in_image

# --- The worker dies -----------------------------------------------------------------------
guest "$d" xvdb verify --seconds 6 --size 8M --depth 16 --queues 2 \
	> "$tmp/verify" 2>&1 & verify=$!
ok "a guest under load" eventually 20 connected
# Or it is through with its six seconds, on a slow machine.
is_served() { connected || is_gone "$verify"; }
for _ in 1 2 3; do
	client_begin -r
	ok "a client" client_does "read 0 512" "read 512/512"
	old=$(worker_of)
	kill -9 "$old"
	hears() { echo "read 0 512" >&7; client_said "read failed"; }
	ok "its connection closes with the worker" eventually 20 hears
	client_end
	ok "the socket is back" eventually 20 is_exported
	ok "... with the guest connected" eventually 20 is_served
done
rc=0
wait "$verify" || rc=$?
verified() { cat "$tmp/verify"; [ "$1" = 0 ] && grep -q ' 0 errors' "$tmp/verify"; }
ok "the guest has noticed nothing" verified "$rc"

# --- Clients all the time, while workers die ------------------------------------------------
guest "$d" xvdb verify --seconds 6 --size 8M --depth 16 > "$tmp/verify" 2>&1 &
verify=$!
ok "a guest under load" eventually 20 connected
knock() { while kill -0 "$verify" 2>/dev/null; do timeout 10 nbdinfo --size "$uri" || :; done > "$tmp/knocked" 2>&1; }
knock & knocker=$!
cleanup_pids+=("$knocker")
for _ in 1 2 3 4; do
	sleep 0.7
	pid=$(worker_of)
	[ "${pid:-0}" -le 1 ] || kill -9 "$pid" 2>/dev/null || :
done
rc=0
wait "$verify" || rc=$?
wait "$knocker" || :
ok "a client that comes first does not take the guest's requests from it" verified "$rc"
ok "... which were served" grep -q "$((20 * MiB))" "$tmp/knocked"

# --- The broker dies, or is ended ---------------------------------------------------------------
meet
client_begin -r
ok "a client" client_does "read 0 512" "read 512/512"
old=$(worker_of)
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null || :
ok "is served without a broker" client_does "read 1024 512" "at offset 1024"
daemon_start 7>&- 8>&-
ok "the next one keeps the worker" eventually 20 connected
ok "... the same" test "$(worker_of)" = "$old"
ok "... and the client" client_does "read 2048 512" "at offset 2048"
ok "new ones come in" eventually 20 size_is $((20 * MiB))
client_end
ended_well "and the guest has noticed nothing"
daemon_stop
ok "a daemon that ends takes its sockets with it" test ! -e "$sock"
daemon_start
ok "and brings them back" eventually 20 size_is $((20 * MiB))

# --- Exports by name -------------------------------------------------------------------------
exported() { says "\"name\": \"$1\"" xendisk --json exports; }
field() { xendisk --json exports | sed -n "/\"name\": \"$1\"/,/}/s/.*\"$2\": \"\{0,1\}\([^\",]*\).*/\1/p" | head -1; }
port=$(free_port)
ok "no export yet but one" says '"name": "both"' xendisk --json exports
ok "unexport" xendisk unexport both
ok "... once" fails 4 'unexport: there is no export "both"' xendisk unexport both
ok "its socket has gone" test ! -e "$tmp/run/nbd/both.sock"
ok "a disk, on TCP" says "^nbd://127.0.0.1:$port/web1$" \
	xendisk export "$d" xvdb --name web1 --tcp "$port" --readonly
ok "... is there" size_of "nbd://127.0.0.1:$port/web1"
exec 6<> "/dev/tcp/127.0.0.1/$port"
keepalive() { ss -tno state established "( sport = :$port )" | grep keepalive; }
ok "one that vanishes is noticed: keep-alive" eventually 20 keepalive
exec 6>&-
ok "... by no name, too" nbdinfo --size "nbd://127.0.0.1:$port"
ok "... by no other" fails 1 '' nbdinfo --size "nbd://127.0.0.1:$port/web2"
ok "... as a socket" nbdinfo --size "nbd+unix:///web1?socket=$tmp/run/nbd/web1.sock"
ok "... read-only" nbdinfo --is read-only "nbd://127.0.0.1:$port/web1"
ok "JSON: where" test "$(field web1 tcp)" = "127.0.0.1:$port"
ok "JSON: which disk" test "$(field web1 domid) $(field web1 vdev)" = "$d xvdb"
ok "JSON: its state" test "$(field web1 state) $(field web1 readonly)" = "open true"
ok "the table" says "web1 .*xvdb .*20M  *ro  *nbd://127.0.0.1:$port/web1" xendisk exports
ok "an expression" says "^nbd+unix:///scratch?socket=$tmp/run/nbd/scratch.sock$" \
	xendisk export 'mem(8M)' --name scratch
scratch="nbd+unix:///scratch?socket=$tmp/run/nbd/scratch.sock"
ok "... is written" timeout 20 qemu-io -f raw -c "write -P 7 1M 4k" "$scratch"
ok "... and keeps it" says '4096/4096' timeout 20 qemu-io -f raw -c "read -P 7 1M 4k" "$scratch"
ok "one without a name" says '///export-1?' xendisk export 'null(1M)'
ok "completion knows them" says '^scratch$' xendisk complete unexport scr

# What the protocol says, case by case; and data by what people have.
conforms()
{
	timeout 120 "$top_builddir/tests/nbd-conformance" --timeout 60 "$1" \
		> "$tmp/tap" 2>&1 && return
	grep -A 3 '^not ok' "$tmp/tap" || tail -20 "$tmp/tap"
	return 1
}
ok "conformance: a guest's disk" conforms "$uri"
ok "conformance: an expression" conforms "$scratch"
head -c 8M "$tmp/before" > "$tmp/data"
ok "nbdcopy in, four connections" timeout 60 nbdcopy --connections=4 "$tmp/data" "$scratch"
same_data() { timeout 60 nbdcopy "$scratch" - | cmp - "$tmp/data"; }
ok "... has arrived" same_data
ok "it is written again" timeout 20 qemu-io -f raw -c "write -P 7 1M 4k" "$scratch"

# Wrong use.
ok "no name" fails 2 'export: --name: "a/b" is no name of an export' \
	xendisk export 'null' --name a/b
ok "a domain without its disk" fails 1 "export: there is no backend \"web1\"; a guest's disk is DOM VDEV\$" \
	xendisk export web1
ok "no text" fails 2 'unexport: EXPORT: not UTF-8 text' xendisk unexport $'\xff'
ok "a number's name" fails 2 'export: --name: "5-1" is no name' \
	xendisk export 'null' --name 5-1
ok "a name that is taken" fails 5 'export: there is an export "web1" already' \
	xendisk export 'null' --name web1
ok "no port" fails 2 'export: --tcp: "host:x" is no ADDR:PORT in numbers' \
	xendisk export 'null' --tcp host:x
ok "a port that is taken" fails 1 "export: 127.0.0.1:$port: Address already in use" \
	xendisk export 'null' --tcp "$port" --name two
ok "... leaves nothing" fails 1 '' exported two
ok "read-only by force" fails 2 'export: --force: ' \
	xendisk export "$d" xvdb --force --readonly
ok "force without a guest" fails 2 'export: --force: an expression has no guest' \
	xendisk export 'null' --force
ok "no such disk" fails 4 'has no disk xvdq' xendisk export "$d" xvdq
ok "a wrong expression" fails 1 'export: .*nonsense' xendisk export 'nonsense(1)'
ok "... leaves nothing" fails 1 '' exported export-2
ok "a file that is not there" fails 1 "export: .*No such file" \
	xendisk export /nowhere/a.img --name nowhere
ok "... leaves nothing" fails 1 '' exported nowhere

# With TLS, by a process in front of it.
if command -v psktool > /dev/null; then
	psktool -u alice -p "$tmp/keys.psk" > /dev/null 2>&1
	# A sanitizer's build is not kept from opening them by name, as another user.
	sanitized() { grep -q __asan_init "$(readlink "/proc/$daemon_pid/exe")"; }
	! sanitized || chmod o+rx "$tmp" "$tmp/keys.psk"
	tls=$(free_port)
	secret() { timeout 20 nbdinfo "$@" "nbds://alice@127.0.0.1:$tls/secret?tls-psk-file=$tmp/keys.psk"; }
	ok "keys that are not there" fails 1 "export: .*no.psk: No such file" \
		xendisk export "$d" xvdb --name secret --tcp $tls --tls-psk "$tmp/no.psk"
	ok "... leave nothing" fails 1 '' exported secret
	{ cat "$tmp/keys.psk"; head -c 65536 /dev/zero; } > "$tmp/large.psk"
	ok "too many of them" fails 1 'export: .*large.psk: File too large' \
		xendisk export "$d" xvdb --name secret --tcp $tls --tls-psk "$tmp/large.psk"
	ok "TLS without TCP" fails 2 'export: --tls-psk: only with --tcp' \
		xendisk export "$d" xvdb --tls-psk "$tmp/keys.psk"
	ok "keys and certificates" fails 2 'export: --tls-certs or --tls-psk, not both' \
		xendisk export "$d" xvdb --tcp $tls --tls-psk "$tmp/keys.psk" --tls-certs "$tmp"
	ok "a disk with TLS" says "^nbds://127.0.0.1:$tls/secret$" \
		xendisk export "$d" xvdb --name secret --tcp $tls --tls-psk "$tmp/keys.psk"
	ok "... with the key" says "^$((20 * MiB))$" secret --size
	ok "... and nothing without" fails 1 '' timeout 20 nbdinfo "nbd://127.0.0.1:$tls"
	ok "... read-only, unless by force" secret --is read-only
	same_secret() { timeout 60 nbdcopy "nbds://alice@127.0.0.1:$tls/secret?tls-psk-file=$tmp/keys.psk" - | cmp - "$tmp/a.img"; }
	ok "... is the disk" same_secret
	exec 6<> "/dev/tcp/127.0.0.1/$tls"
	printf '\0\0\0\1IHAVEOPT\0\0\0\5\0\0\0\0' >&6
	head -c 38 <&6 > /dev/null # the greeting, and that TLS may begin
	echo "in the clear all the same, and long enough for a record of TLS" >&6
	exec 6>&-
	ok "who does not speak TLS is refused, and it is said" eventually 20 \
		grep -q 'd[0-9/]*: export secret: .*a client was refused' "$tmp/log"
	front=$(pgrep -P "$daemon_pid" -f -- '--serve' | head -1)
	is() { says "^$1:[[:space:]]*$2\$" cat "/proc/$front/status"; }
	if [ "$(id -u)" = 0 ]; then
		ok "... by a process that is nobody's" is Uid '\(2[0-9]\{9\}[[:space:]]*\)\{4\}'
		ok "... in no group of ours" is Groups '[[:space:]]*'
	fi
	ok "... without a capability" is CapEff 0000000000000000
	ok "... for good" is NoNewPrivs 1
	ok "... and with a filter of system calls" is Seccomp 2
	threads_too() { test "$(cat "/proc/$front/task/"*"/status" | grep -c '^Seccomp:.*2$')" = \
		"$(find "/proc/$front/task" -mindepth 1 -maxdepth 1 | wc -l)"; }
	ok "... in all its threads" threads_too
	exec 6<> "/dev/tcp/127.0.0.1/$tls"
	tls_keepalive() { ss -tno state established "( sport = :$tls )" | grep keepalive; }
	ok "... whose clients have keep-alive" eventually 20 tls_keepalive
	exec 6>&-
	# Should somebody take it over: it says what it likes, without end.
	if (: > "/proc/$front/fd/1") 2> /dev/null; then
		yes > "/proc/$front/fd/1" 2> /dev/null &
		flood=$!
		cleanup_pids+=("$flood")
		sleep 0.5
		ok "... and do not keep the daemon from its work, whatever it says" \
			says '"name": "secret"' timeout 20 "$top_builddir/xendisk" --run-dir "$tmp/run" --json exports
		end_process "$flood"
	fi
	kill -9 "$(pgrep -P "$front")"
	others_front() { [ "$(pgrep -P "$daemon_pid" -f -- '--serve' | head -1)" != "$front" ] && secret --size; }
	ok "who calls the disk for it has ended: both are replaced" eventually 30 others_front
	front=$(pgrep -P "$daemon_pid" -f -- '--serve' | head -1)
	kill -9 "$front"
	ok "its process is replaced" eventually 20 secret --size
	one_reason() { test "$(grep 'export secret: .*; starting it again' "$tmp/log" | grep -vc 'its TLS server has ended;')" = 0; }
	ok "... and not for what it had said, of that client or before" one_reason

	# What another client has written is nothing that the disk has lost: not even
	# when the worker dies, and the process in front calls the next one.
	shared=$(free_port)
	ok "an expression with TLS" says '^nbds://' xendisk export 'mem(1M)' \
		--name shared --tcp $shared --tls-psk "$tmp/keys.psk"
	head -c 4096 /dev/urandom > "$tmp/block"
	shared_write() { timeout 20 nbdcopy "$@" "$tmp/block" "nbds://alice@127.0.0.1:$shared/shared?tls-psk-file=$tmp/keys.psk"; }
	ok "a client writes" shared_write
	ok "... and another one, to the same place" timeout 20 qemu-io -f raw \
		-c "write -P 7 0 4k" "nbd+unix:///shared?socket=$tmp/run/nbd/shared.sock"
	kill -9 "$(pgrep -P "$daemon_pid" -f -- '--worker 32756/2')"
	ok "the worker dies: a write and a flush, within TLS" shared_write --flush
	ok "unexport" xendisk unexport shared
fi
if command -v certtool > /dev/null; then
	certs=$tmp/certs
	mkdir "$certs" "$certs/other"
	certificate ca self $'ca\ncert_signing_key'
	certificate server ca $'tls_www_server\ndns_name = localhost\nsigning_key'
	certificate client ca $'tls_www_client\nsigning_key'
	cp "$certs/ca-cert.pem" "$certs/other/ca-cert.pem"
	certificate other/client self $'tls_www_client\nsigning_key'
	signed=$(free_port)
	by() { timeout 20 nbdinfo --size "nbds://localhost:$signed/signed?tls-certificates=$1"; }
	ok "with certificates" says '^nbds://' xendisk export 'mem(1M)' \
		--name signed --tcp "$signed" --tls-certs "$certs"
	ok "... for who has one" says '^1048576$' by "$certs"
	ok "... and not for a stranger" fails 1 '' by "$certs/other"
	ok "unexport" xendisk unexport signed
fi

# Another daemon, while another program has a port.
busy=$(free_port)
ok "an expression, on TCP" xendisk export 'mem(1M)' --name busy --tcp "$busy"
ok "... is written" timeout 20 qemu-io -f raw -c "write -P 9 0 4k" "nbd://127.0.0.1:$busy/busy"
gone=$(free_port)
ok "another one" xendisk export 'null(1M)' --name gone --tcp "$gone"
daemon_stop
perl -MIO::Socket::INET -e '
	my @s = map { IO::Socket::INET->new(Listen => 1, ReuseAddr => 1,
					    LocalAddr => "127.0.0.1:$_") or die } @ARGV;
	sleep 120;' "$busy" "$gone" & other=$!
cleanup_pids+=("$other")
eventually 10 eval '(: > "/dev/tcp/127.0.0.1/$gone") 2> /dev/null'
daemon_start
ok "what cannot listen is not there" fails 1 '' exported busy
ok "... which is said" grep -q "export busy: 127.0.0.1:$busy: Address already in use" "$tmp/log"
ok "... nor wanted any more" xendisk unexport gone
ok "... once" fails 4 'there is no export "gone"' xendisk unexport gone
ok "... and nothing else is removed so" fails 4 'no export' xendisk unexport ../exports/busy
end_process "$other"
daemon_stop
daemon_start
ok "the next daemon has it" eventually 20 exported busy
ok "... and not the other one" fails 1 '' exported gone
ok "... with what was written" says '4096/4096' \
	timeout 20 qemu-io -f raw -c "read -P 9 0 4k" "nbd://127.0.0.1:$busy/busy"
ok "unexport" xendisk unexport busy

# The others.
ok "the next daemon has them" eventually 20 timeout 5 nbdinfo --size "nbd://127.0.0.1:$port/web1"
ok "... and the expression" eventually 20 timeout 5 nbdinfo --size "$scratch"
ok "... with what was written" says '4096/4096' \
	timeout 20 qemu-io -f raw -c "read -P 7 1M 4k" "$scratch"
[ -z "${tls:-}" ] || ok "... and TLS" eventually 20 secret --size
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null || :
daemon_start
ok "also after one that was killed" eventually 20 timeout 5 nbdinfo --size "$scratch"
ok "... with what was written" says '4096/4096' \
	timeout 20 qemu-io -f raw -c "read -P 7 1M 4k" "$scratch"
if [ -n "${tls:-}" ]; then
	ok "... and TLS" eventually 20 secret --size
	ok "unexport ends it" xendisk unexport secret
	nobody_listens() { ! (: > "/dev/tcp/127.0.0.1/$tls") 2> /dev/null; }
	ok "... and its process" eventually 20 nobody_listens
fi
ok "unexport ends it" xendisk unexport scratch
ok "... its worker, too" eventually 20 no_worker_of_it

# --- Clients that are not honest ------------------------------------------------------------
tcp=/dev/tcp/127.0.0.1/$port
nonsense() { head -c 100000 /dev/urandom > "$tcp" || :; }
eventually 20 timeout 5 nbdinfo --size "nbd://127.0.0.1:$port/web1"
old=$(worker_of)
for _ in 1 2 3; do nonsense 2>/dev/null; done
for _ in {1..100}; do : > "$tcp"; done
exec 6<> "$tcp" # says nothing
ok "nonsense, and a hundred that come and go, keep nobody out" \
	eventually 20 timeout 5 nbdinfo --size "nbd://127.0.0.1:$port/web1"
# EXPORT_NAME, then reads of 1 MiB without end, and nothing of the answers is read.
greedy()
{
	exec 5<> "$tcp"
	printf '\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\0' >&5
	for _ in {1..300}; do
		printf '\x25\x60\x95\x13\0\0\0\0acookie.\0\0\0\0\0\0\0\0\0\x10\0\0'
	done >&5
	sleep 1
}
memory_of() { sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"; }
ok "one that reads no answer" greedy
is_modest() { [ "$(memory_of "$old")" -lt 150000 ]; }
ok "... does not fill the worker's memory" is_modest
many=()
for _ in {1..20}; do exec {fd}<> "$tcp"; many+=("$fd"); done
ok "more than may come are sent away, and said so" \
	eventually 20 grep -q 'an NBD client was sent away: it has 16' "$tmp/log"
guest_works() { printf '%s\n' "write 0 4096 0x61" flush "read 0 4096" | guest "$d" xvdb script; }
ok "a guest is served all the same" says '^0 read 0 4096 = 0x61' guest_works
for fd in "${many[@]}" 6; do exec {fd}>&-; done
ok "they leave, and others come" \
	eventually 30 timeout 5 nbdinfo --size "nbd://127.0.0.1:$port/web1"
ok "the worker is the same" test "$(worker_of)" = "$old"

# --- The end ------------------------------------------------------------------------------
ok "detach" toolstack detach "$d" xvdb
ok "... ends its socket" test ! -e "$sock"
ok "... and its exports" fails 1 '' exported web1
