#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2016,SC2317,SC2119  # $uri is the command's; called by ok
# xendisk serve against the NBD clients that people have: what they write is what
# is there, and what is wrong gets a sentence.
. "$(dirname "$0")/functions.sh"
requires nbdinfo nbdcopy qemu-img qemu-io fio nbdkit psktool certtool

touch "$tmp/none.conf"
# serve ARGUMENT...: in the foreground.
words=("$top_builddir/xendisk" serve --config "$tmp/none.conf"
	--backend-dir "$top_builddir/backends/.libs")
serve() { timeout 60 "${words[@]}" "$@"; }
# with COMMAND EXPR...: the command runs against it.
with() { serve --run "$1" "${@:2}"; }

truncate -s 32M "$tmp/raw.img" "$tmp/gold.img"
head -c 8M /dev/urandom > "$tmp/data"
truncate -s 32M "$tmp/data"
raw="raw($tmp/raw.img, cache=writeback)"
export tmp

# --- What it says of itself ------------------------------------------------------
ok "nbdinfo: the size" says '"export-size": 33554432' \
	with 'nbdinfo --json "$uri"' "$raw"
ok "nbdinfo: all exports" says 'export="second"' \
	with 'nbdinfo --list "$uri"' "$raw" 'second=mem(1M)'
ok "nbdinfo: one of them by its name" says '^1048576$' \
	with 'nbdinfo --size "nbd+unix:///second?socket=$socket"' \
	"$raw" 'second=mem(1M)'
ok "nbdinfo: the map of a sparse file" says '^ *0 *33554432 *3 *hole,zero$' \
	with 'nbdinfo --map "$uri"' "$raw"
for can in multi-conn flush fua trim zero fast-zero cache df; do
	ok "nbdinfo: can $can" with "nbdinfo --can $can \"\$uri\"" "$raw"
done
ok "nbdinfo: writable" fails 2 '' with 'nbdinfo --is read-only "$uri"' "$raw"
ok "nbdinfo: read-only" with 'nbdinfo --is read-only "$uri"' "$raw" --readonly

# What stands in the configuration may be a secret: a key of nbdkit(S3, ...).
echo 'disk "named" { expr = "nbdkit(memory, \"4M\")" }' > "$tmp/named.conf"
described() { timeout 60 "${words[@]/none.conf/named.conf}" "$@" --run 'nbdinfo --list "$uri"'; }
ok "nbdinfo: what it is" says 'description: mem(1M)' described 'mem(1M)'
ok "... what it is called in the configuration" says 'description: @named' described @named
no_more() { ! described @named | grep memory; }
ok "... and no more" no_more

# --- Data ---------------------------------------------------------------------------
copies() { with 'nbdcopy --connections=4 $tmp/data "$uri"' "$raw"; }
ok "nbdcopy in, with four connections" copies
ok "... is in the image" cmp "$tmp/data" "$tmp/raw.img"
ok "nbdcopy out" with 'nbdcopy "$uri" - | cmp - $tmp/data' "$raw"
ok "qemu-img compare" with 'qemu-img compare -f raw -F raw "$uri" $tmp/data' "$raw"
ok "qemu-img convert" with 'qemu-img convert -n -f raw -O raw $tmp/data "$uri" &&
	nbdcopy "$uri" - | cmp - $tmp/data' 'mem(32M)'
ok "qemu-io: zeroes, discard, flush" with 'qemu-io -f raw -c "write -P 7 0 1M" \
	-c "write -z -u 64k 64k" -c "discard 128k 64k" -c flush \
	-c "read -P 7 0 64k" -c "read -P 0 64k 64k" -c "read -P 7 192k 64k" \
	"$uri" > $tmp/qemu-io && ! grep -i "verification failed" $tmp/qemu-io' \
	"$raw"
for expr in "$raw" 'mem(32M)' "cow($tmp/gold.img, mem)"; do
	ok "fio, verified: ${expr%%(*}" with 'fio --name=v --ioengine=nbd \
		--uri="$uri" --rw=randwrite --bsrange=512-64k --iodepth=32 \
		--size=16M --verify=crc32c --randrepeat=1 --fsync=64' "$expr"
done
ok "the gold image is as it was" cmp -n 33554432 "$tmp/gold.img" /dev/zero
ok "a client that caches: nbdkit over us" with 'nbdkit -U - nbd uri="$uri" \
	--run "nbdinfo \$uri"' "$raw"

# --- Sockets -------------------------------------------------------------------------
# SIGHUP as from a terminal, also where nohup(1) runs all the tests.
hangup=--default-signal=HUP
start()
{
	: > "$tmp/uri"
	env "$hangup" "${words[@]}" "$@" > "$tmp/uri" 2> "$tmp/err" & server=$!
	cleanup_pids+=("$server")
	eventually 10 test -s "$tmp/uri"
}
# Not within ok, whose subshell cannot wait for it.
stop() { rc=0; kill -TERM "$server" && wait "$server" || rc=$?; }
start "$raw" --socket "$tmp/sock"
ok "a unix socket: for its owner only" test "$(stat -c %a "$tmp/sock")" = 600
ok "another server there is refused" fails 1 "sock: Address already in use" \
	serve 'mem(1M)' --socket "$tmp/sock"
ok "the image is in use" fails 5 "raw.img" with true "raw($tmp/raw.img)"
stop
ok "SIGTERM ends it well" test $rc = 0
ok "... and the socket is gone" test ! -e "$tmp/sock"
start 'mem(1M)' --socket "$tmp/sock"
kill -9 "$server" && wait "$server" 2>/dev/null
start 'mem(1M)' --socket "$tmp/sock"
ok "a dead server's socket is replaced" nbdinfo "$(cat "$tmp/uri")"
end_process "$server"
start 'mem(1M)' --socket "$tmp/a b%41&c"
ok "a path that is no word of a URI" says '^1048576$' nbdinfo --size "$(cat "$tmp/uri")"
stop
start 'mem(1M)' --socket "$tmp/sock"
rc=0; kill -HUP "$server" && wait "$server" || rc=$?
ok "its terminal goes: it ends well" test $rc = 0
ok "... and the socket is gone" test ! -e "$tmp/sock"
hangup=--ignore-signal=HUP
start 'mem(1M)' --socket "$tmp/sock"
hangup=--default-signal=HUP
kill -HUP "$server"
ok "under nohup that is no matter" nbdinfo "$(cat "$tmp/uri")"
stop
port=$(free_port)
start 'mem(1M)' --tcp "$port"
ok "TCP" nbdinfo "nbd://127.0.0.1:$port"
ok "... on this machine only" says "127.0.0.1:$port" cat "$tmp/uri"
# A client that says nothing, one that talks nonsense, one that hangs up.
exec 7<>"/dev/tcp/127.0.0.1/$port"
nonsense() { head -c 100000 /dev/urandom > "/dev/tcp/127.0.0.1/$port" || :; }
ok "nonsense" nonsense
ok "... does not keep it from others" nbdinfo "nbd://127.0.0.1:$port"
# Each would keep one of 256 places for the ten seconds that a handshake may take.
come_and_go()
{
	for _ in {1..300}; do : > "/dev/tcp/127.0.0.1/$port"; done
	timeout 5 nbdinfo --size "nbd://127.0.0.1:$port"
}
ok "300 clients that have left take nobody's place" says 1048576 come_and_go
# By hand, since no client does it: EXPORT_NAME, then READ of 512 bytes, FUA.
read_with_fua()
{
	exec 8<> "/dev/tcp/127.0.0.1/$port"
	timeout 5 head -c 18 <&8 > /dev/null
	printf '\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\0' >&8
	timeout 5 head -c 10 <&8 > /dev/null
	printf '\x25\x60\x95\x13\0\1\0\0acookie.\0\0\0\0\0\0\0\0\0\0\2\0' >&8
	timeout 5 head -c 528 <&8 | wc -c
}
ok "FUA on a read" says '^528$' read_with_fua
exec 7>&-
stop
ok "it ends well" test $rc = 0

# --- TLS ------------------------------------------------------------------------------
# secured URI-END OPTION...: nbdinfo within TLS.
secured() { serve 'mem(1M)' "${@:2}" --run "nbdinfo --json \"nbds+unix://$1socket=\$socket\""; }
psk=$tmp/keys.psk
psktool -u alice -p "$psk" > /dev/null 2>&1
psktool -u alice -p "$tmp/wrong.psk" > /dev/null 2>&1
ok "TLS with a key" says '"TLS": true' \
	secured "alice@/?tls-psk-file=$psk&" --tls-psk "$psk"
ok "... a wrong one is refused" fails 1 nbdinfo \
	secured "alice@/?tls-psk-file=$tmp/wrong.psk&" --tls-psk "$psk"
ok "... and so is a client without" fails 1 TLS \
	serve 'mem(1M)' --tls-psk "$psk" --run 'nbdinfo "nbd+unix:///?socket=$socket"'
: > "$tmp/empty.psk"
echo 'alice:xyz' > "$tmp/bad.psk"
for file in empty bad; do
	ok "a file without a key: $file" fails 1 "$file.psk: there is no key" \
		serve 'mem(1M)' --run true --tls-psk "$tmp/$file.psk"
done
ok "no file of keys" fails 1 "none.psk: No such file" \
	serve 'mem(1M)' --run true --tls-psk "$tmp/none.psk"
certs=$tmp/certs
mkdir "$certs" "$certs/other"
certificate ca self $'ca\ncert_signing_key'
certificate server ca $'tls_www_server\ndns_name = localhost\nsigning_key'
certificate client ca $'tls_www_client\nsigning_key'
ok "TLS with certificates" says '"TLS": true' secured \
	"/?tls-verify-peer=false&tls-certificates=$certs&" --tls-certs "$certs"
# One whose client certificate nobody has signed.
cp "$certs/ca-cert.pem" "$certs/other/ca-cert.pem"
certificate other/client self $'tls_www_client\nsigning_key'
ok "... a stranger's is refused" fails 1 nbdinfo secured \
	"/?tls-verify-peer=false&tls-certificates=$certs/other&" --tls-certs "$certs"
ok "the URI says that there is TLS" says '^nbds+unix:///?socket=/' \
	serve 'mem(1M)' --run 'echo $uri' --tls-psk "$psk"
start 'mem(1M)' --tcp "$(free_port)" --tls-psk "$psk"
ok "... by TCP" says '^nbds://127.0.0.1:' cat "$tmp/uri"
stop
ok "no such folder" fails 1 "server-cert.pem: No such file" \
	serve 'mem(1M)' --run true --tls-certs "$tmp/none"
# Whatever is wrong in a folder is said, and nobody is let in unseen.
badly() { fails 1 "$1" serve 'mem(1M)' --run true --tls-certs "$tmp/bad"; }
spoil() { rm -rf "$tmp/bad"; cp -r "$certs" "$tmp/bad"; }
spoil; cp "$certs/client-key.pem" "$tmp/bad/server-key.pem"
ok "a key that is another's" badly "bad/server-cert.pem or server-key.pem: "
spoil; ln -sf nowhere "$tmp/bad/ca-cert.pem"
ok "a link to nobody who signs" badly "bad/ca-cert.pem: No such file"
spoil; ln -s nowhere "$tmp/bad/ca-crl.pem"
ok "... and to no list of who is revoked" badly "bad/ca-crl.pem: No such file"
ok "one or the other" fails 2 "not both" serve 'mem(1M)' --run true \
	--tls-certs "$certs" --tls-psk "$psk"
copies_in_tls() { serve "$raw" --tls-psk "$psk" --run "nbdcopy --connections=2 \
	$tmp/data \"nbds+unix://alice@/?tls-psk-file=$psk&socket=\$socket\""; }
: > "$tmp/raw.img"; truncate -s 32M "$tmp/raw.img"
ok "nbdcopy within TLS" copies_in_tls
ok "... is in the image" cmp "$tmp/data" "$tmp/raw.img"

# SIGTERM under load: what was answered is in the image.
start "$raw" --socket "$tmp/sock"
fio --name=w --ioengine=nbd --uri="$(cat "$tmp/uri")" --rw=randwrite --bs=4k \
	--iodepth=16 --size=16M --time_based --runtime=20 > "$tmp/fio" 2>&1 &
load=$!
sleep 0.5
stop
ok "SIGTERM under load" test $rc = 0
wait "$load" || :
ok "the image can be served again" with 'nbdcopy "$uri" null:' "$raw"

# A server behind us goes: SIGTERM would wait for it for ever, for a client's read and
# for what is not flushed.
has_client() { grep -q " 03 *[0-9]* $1\$" /proc/net/unix; }
behind_goes() # COMMAND-OF-QEMU-IO BEFORE
{
	nbdkit -f -U "$tmp/behind" memory 1M & behind=$!
	cleanup_pids+=("$behind")
	eventually 10 listens "$tmp/behind"
	start "nbd+unix:///?socket=$tmp/behind" --socket "$tmp/sock"
	[ -z "${1-}" ] || qemu-io -t writeback -f raw -c "$1" -c abort "$(cat "$tmp/uri")" \
		> "$tmp/before" 2>&1 || :
	{ kill -9 "$behind" && wait "$behind"; } 2> /dev/null || :
	rm -f "$tmp/behind"
}
# Not within ok either: the status goes to rc.
term()
{
	rc=none
	kill -TERM "$server"
	eventually 20 is_gone "$server" || kill -9 "$server"
	{ wait "$server" && rc=0; } 2> /dev/null || rc=$?
}
behind_goes
timeout 60 qemu-io -f raw -c "read 0 4k" "$(cat "$tmp/uri")" > "$tmp/waits" 2>&1 &
client=$!
cleanup_pids+=("$client")
eventually 10 has_client "$tmp/sock"
sleep 0.3 # its read
term
ok "SIGTERM while a client waits for a server that is away" test $rc = 0
wait "$client" || :
ok "... was waiting" grep -q 'read failed' "$tmp/waits"
# One has the place and waits for the server, the other one waits for the place.
behind_goes
clients=()
for i in 1 2; do
	timeout 60 qemu-io -f raw -c "write 0 4k" "$(cat "$tmp/uri")" > "$tmp/waits" 2>&1 &
	clients+=("$!")
done
cleanup_pids+=("${clients[@]}")
eventually 10 has_client "$tmp/sock"
sleep 0.5 # their writes
term
ok "... while two wait to write at one place" test $rc != 137
wait "${clients[@]}" || :
behind_goes "write -P 7 0 4k"
term
ok "and when what was written cannot be flushed" test $rc = 1

# A server that is far away: each connection takes longer than whoever waits for it
# may be kept from all else.
if command -v strace > /dev/null; then
	nbdkit -f -U "$tmp/far" memory 1M & far=$!
	cleanup_pids+=("$far")
	eventually 10 listens "$tmp/far"
	# Leaks cannot be looked for under strace.
	slowly() { ASAN_OPTIONS=detect_leaks=0 timeout 60 strace -f -qq -o /dev/null -e trace=connect \
		-e inject=connect:delay_enter=400000 "${words[@]}" "$@"; }
	ok "a server that is far away" says '^1048576$' slowly \
		"nbd+unix:///?socket=$tmp/far" --run 'nbdinfo --size "$uri"'
	end_process "$far"
fi

# --- What is wrong -----------------------------------------------------------------------
ok "no such port" fails 2 '"xendisk": a port' serve 'mem(1M)' --tcp xendisk
ok "a command that a signal ends" fails 137 '' with 'kill -9 $$' 'mem(1M)'
TMPDIR=$tmp "${words[@]}" 'mem(1M)' --run 'echo > $tmp/runs; exec sleep 60' & server=$!
eventually 10 test -e "$tmp/runs"
stop
ok "a command that ends with it has not done its work" test $rc = 143
left() { compgen -G "$tmp/xendisk-serve-*"; }
ok "... and its socket's folder is gone" fails 1 '' left
ok "no place for a socket: which" fails 1 'in /nonexistent: No such file' \
	env TMPDIR=/nonexistent "${words[@]}" 'mem(1M)' --run true
ok "a file in a socket's place" fails 1 'data: it is there already, and is no socket' \
	serve 'mem(1M)' --socket "$tmp/data"
ok "no place" fails 2 "serve: where" serve 'mem(1M)'
ok "no such backend" fails 1 'at byte 4: there is no backend "memm"' \
	with true "cow(memm, mem)"
ok "no folder of backends" fails 1 "backends in /nonexistent: No such" \
	"$top_builddir/xendisk" serve --config "$tmp/none.conf" \
	--backend-dir /nonexistent --run true null
ok "a configuration that is not there" fails 1 "absent.conf: No such file" \
	"$top_builddir/xendisk" serve --config "$tmp/absent.conf" \
	--backend-dir "$top_builddir/backends/.libs" --run true null
ok "an empty one" fails 2 'config: an empty path' \
	"$top_builddir/xendisk" serve --config '' --run true null
ok "no such file" fails 1 "none.img: No such file" with true "$tmp/none.img"
ok "a folder" fails 1 "Is a directory" with true "$tmp"
mkfifo "$tmp/fifo"
ok "a FIFO" fails 1 "neither a file nor a block device" with true "$tmp/fifo"
ok "no such address" fails 1 "not an address" \
	serve 'mem(1M)' --tcp "not an address:1"
ok "a port beyond the last" fails 2 '"65537": a port is' serve null --tcp 65537
ok "no port" fails 2 '"::1:": a port is' serve null --tcp '::1:'
ok "no socket" fails 2 'socket: an empty path' serve null --socket ''
ok "a place twice" fails 2 "tcp: it is given twice" \
	serve null --tcp 20001 --tcp 20002
ok "one name twice" fails 1 'a: two exports are called that' \
	with true 'a=null' 'a=mem(1M)'
ok "... also by its number" fails 1 '1: two exports' with true '1=null' 'null'
ok "the command's exit status" fails 7 '' with 'exit 7' 'mem(1M)'
ok "a writer on a read-only export" fails 1 'Permission denied' with \
	'qemu-io -f raw -c "write 0 512" "$uri"' "$raw" --readonly
