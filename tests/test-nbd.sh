#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# Disks on NBD servers: nbdkit and qemu-nbd, and what happens when they die.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
. "$top_srcdir/tests/nbd-functions.sh"
requires qemu-nbd

# How often the server is killed under load.
kills=${XENDISK_NBD_KILLS:-10}

qemu_serves()
{
	serve qemu-nbd -f raw -t -e 4 -k "$sock" --discard=unmap "$@" \
		"$tmp/image"
}

sim_start
daemon_start
d=$(domain)
worker() { xendisk --json list | sed -n 's/.*"worker_pid": \([1-9][0-9]*\).*/\1/p'; }
in_image() { cmp -s <(head -c 4096 /dev/zero | tr '\0' "$1") \
	<(dd if="$tmp/image" bs=4096 skip="$2" count=1 status=none); }

# --- Two servers, one disk ---------------------------------------------------------
qemu_serves
ok "attach" attach "$uri"
ok "it shows how it is served" shows "$sock"
ok "verified load" guest "$d" xvdb verify --seconds 2 --depth 16 --size 16M
ok "writes, flush, discard" does "write 0 4096 0x41" "flush" \
	"discard 65536 65536" "write 8192 4096 0x42" "flush"
ok "the server has the first" in_image A 0
ok "... and the second" in_image B 2
ok "what is not written there is noticed" fails 1 "" in_image A 2
ok "detach" detach

nbdkit_serves file "$tmp/image"
ok "attach the same" attach "$uri"
ok "what was written to the other is there" does "read 0 4096 0x41"
ok "several queues" guest "$d" xvdb verify --seconds 1 --queues 2 --size 16M

# --- It goes away -----------------------------------------------------------------------
end_server
rm -f "$sock"
does "write 0 4096 0x43" "flush" > "$tmp/out" 2>&1 & waiting=$!
cleanup_pids+=("$waiting")
ok "a server that is away shows" eventually 10 condition_is paused
ok "... with the reason" reason_is "$sock is away: No such file"
sleep 0.5
ok "a request waits meanwhile" kill -0 "$waiting"
nbdkit_serves file "$tmp/image"
ok "it comes back, and the request is done" request_done
ok "... as the server knows" in_image C 0
ok "... and nothing shows any more" eventually 5 no_condition
ok "detach it" detach

# --- It is killed, again and again ---------------------------------------------------------
attach "nbd(\"$uri\", fence=0s)"
touch "$tmp/go"
load_goes_on()
{
	while [ -e "$tmp/go" ]; do
		guest "$d" xvdb verify --seconds 2 --depth 32 --size 16M || {
			echo "a round has failed"
			return
		}
	done
}
load_goes_on > "$tmp/out" 2>&1 & load=$!
cleanup_pids+=("$load")
for ((i = 0; i < kills; i++)); do
	sleep 0.3
	nbdkit_serves file "$tmp/image"
done
ok "the load has not ended by itself" kill -0 "$load"
rm "$tmp/go"
all_rounds_ended() { load_ended && ! grep "has failed" "$tmp/out"; }
ok "a server killed $kills times under verified load" all_rounds_ended

# The worker and the server at the same time.
guest "$d" xvdb verify --seconds 5 --depth 32 --size 16M > "$tmp/out" 2>&1 & load=$!
cleanup_pids+=("$load")
for _ in 1 2 3; do
	sleep 0.5
	old=$(worker)
	[ -z "$old" ] || kill -9 "$old"
	nbdkit_serves file "$tmp/image"
	another_worker() { [ -n "$(worker)" ] && [ "$(worker)" != "$old" ]; }
	eventually 10 another_worker
done
ok "... and with its worker" load_ended
ok "detach after that" detach

# --- Servers that answer errors, or slowly ------------------------------------------------------
nbdkit_serves --filter=error file "$tmp/image" error-pwrite=EIO \
	error-pwrite-rate=100%
attach "$uri"
ok "an error is the guest's" does "write 0 4096 0x44 expect=-1" "read 0 4096"
detach
nbdkit_serves --filter=error file "$tmp/image" error-pwrite=ENOSPC \
	error-pwrite-rate=100% error-pwrite-file="$tmp/full"
touch "$tmp/full"
attach "$uri"
does "write 0 4096 0x45" "read 0 4096 0x45" > "$tmp/out" 2>&1 & waiting=$!
cleanup_pids+=("$waiting")
ok "a full server pauses the disk" eventually 10 reason_is ENOSPC
rm "$tmp/full"
xendisk resume "$d" xvdb >/dev/null || :
ok "... until there is room" request_done
detach
nbdkit_serves --filter=delay file "$tmp/image" delay-read=100ms \
	delay-write=100ms
attach "$uri"
ok "a slow server" guest "$d" xvdb verify --seconds 1 --depth 16 --size 16M
detach

# --- By vsock, where the kernel has its loopback (tests/xen has it, too) ---------------------
vsock_port=$((20000 + RANDOM % 12000))
end_server
nbdkit -f --vsock -p $vsock_port file "$tmp/image" >> "$tmp/server.log" 2>&1 &
server=$!
cleanup_pids+=("$server")
vsock_uri=nbd+vsock://1:$vsock_port/
if [ -e /dev/vsock ] && eventually 3 timeout 5 nbdinfo "$vsock_uri" 2>/dev/null >&2; then
	ok "nbd+vsock" attach "$vsock_uri"
	ok "... works" guest "$d" xvdb verify --seconds 1 --size 8M
	detach
else
	skipped "nbd+vsock" "there is no vsock_loopback here"
fi

# --- In a stack, and what is refused --------------------------------------------------------------
nbdkit_serves -r file "$tmp/image"
ok "a read-only export under cow" attach "cow($uri, mem)"
ok "... is written to" guest "$d" xvdb verify --seconds 1 --size 8M
ok "... and goes" detach
end_server
rm -f "$sock"
ok "no server, no disk" fails 1 "No such file" attach "$uri"
ok "a URI's fault is named" \
	fails 1 "not a port" xendisk check "nbd://h:99999/"
ok "credentials in a URI are refused" \
	fails 1 "configuration file" xendisk check "nbds://h/?tls-psk-file=/p"
