# shellcheck shell=bash disable=SC2154,SC2034  # from and for others
# SPDX-License-Identifier: LGPL-2.1-or-later
# nbd-functions.sh - what the tests of the nbd backend share (sourced after
# functions.sh): one server at a time, and one disk, $d's xvdb.

requires nbdkit
[ -e "$top_builddir/backends/.libs/nbd.so" ] || skip_all "built without nbd"

sock=$tmp/sock
uri="nbd+unix:///?socket=$sock"
truncate -s 32M "$tmp/image"

# serve COMMAND...: in place of the last one; ready when its socket is there.
server=
serve()
{
	[ -z "$server" ] || end_server
	rm -f "$sock"
	# Not with the end of a guest that is being told what to do (meet).
	"$@" >> "$tmp/server.log" 2>&1 8>&- &
	server=$!
	cleanup_pids+=("$server")
	eventually 20 listens "$sock"
}
end_server()
{
	kill -9 "$server" 2>/dev/null || :
	wait "$server" 2>/dev/null || :
	server=
}
nbdkit_serves() { serve nbdkit -f -U "$sock" "$@"; }

attach() { toolstack attach "$d" xvdb "$1"; }
detach() { toolstack detach "$d" xvdb; }
does() { printf '%s\n' "$@" | guest "$d" xvdb script; }
condition_is() { says "\"$1\"" xendisk --json list; }
no_condition() { says '"conditions": *\[\]' xendisk --json list; }
reason_is() { says "$1" xendisk --json list; }
shows() { says "$1" xendisk show "$d" xvdb; }

# $waiting, a guest's script in the background, has written.
request_done()
{
	eventually 20 is_gone "$waiting" && grep -q "write 0" "$tmp/out" &&
		! grep -q simguest "$tmp/out"
}

# $load, verified load in the background, has ended well.
load_ended()
{
	eventually 60 is_gone "$load" && cat "$tmp/out" &&
		grep -q "verify: ok" "$tmp/out"
}
