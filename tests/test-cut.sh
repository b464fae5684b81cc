#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# A client that is cut off with writes under way and comes back at once: what it
# writes then stays, and does not wait for all that it had sent before.
. "$(dirname "$0")/functions.sh"
requires nbdkit qemu-io
[ -e "$top_builddir/backends/.libs/nbd.so" ] || skip_all "built without nbd"

# Each write takes half a second, and reads some time as well.
nbdkit -f -U "$tmp/slow" --filter=delay memory 1M \
	delay-write=500ms delay-read=50ms 2> /dev/null &
cleanup_pids+=("$!")
eventually 20 listens "$tmp/slow"
slow="nbd(\"nbd+unix:///?socket=$tmp/slow\")"
# returns NTH URI
returns() { timeout 100 "$top_builddir/tests/nbd-cut" 2000 "$@"; }

touch "$tmp/none.conf"
start()
{
	: > "$tmp/uri"
	timeout 200 "$top_builddir/xendisk" serve --config "$tmp/none.conf" \
		--backend-dir "$top_builddir/backends/.libs" "$slow" "$@" \
		> "$tmp/uri" 2> "$tmp/err" & server=$!
	cleanup_pids+=("$server")
	eventually 10 test -s "$tmp/uri"
}
start --socket "$tmp/sock"
ok "xendisk serve" returns 0 "$(cat "$tmp/uri")"
end_process "$server"
port=$(free_port)
start --tcp "$port"
ok "... on TCP, where nobody says that he has gone" returns 0 "nbd://127.0.0.1:$port"
# Two writes at one place, a goodbye, and the end of the connection at once.
write512() { printf '\x25\x60\x95\x13\0\0\0\1%s\0\0\0\0\0\0\0\0\0\0\2\0' "a-cookie"; printf "%0512d" "$1"; }
ends()
{
	exec 7<> "/dev/tcp/127.0.0.1/$port"
	printf '\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\0' >&7
	timeout 20 head -c 28 <&7 > /dev/null
	write512 1 >&7
	write512 2 >&7
	printf '\x25\x60\x95\x13\0\0\0\2%s\0\0\0\0\0\0\0\0\0\0\0\0' goodbye. >&7
	exec 7>&-
}
last_is() { says "$1\.*$" timeout 20 qemu-io -f raw -c "read -v 511 1" "nbd://127.0.0.1:$port"; }
ok "who says goodbye and goes" ends
ok "... has all done that he had asked for" eventually 10 last_is 2
end_process "$server"

sim_start
daemon_start
ok "export" says '^nbd+unix:' xendisk export "$slow" --name slow
# The first of those that are more than a lane begins (CLIENT_IOS_MAX).
ok "an export of the daemon" returns 64 "nbd+unix:///slow?socket=$tmp/run/nbd/slow.sock"
