#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2016,SC2317  # $uri is the command's; called by ok
# nbd-conformance against our server, which fails no case; against others, which
# fail what is written down; and against one with faults, each of which it finds.
. "$(dirname "$0")/functions.sh"

tool=$top_builddir/tests/nbd-conformance
broken=$top_builddir/tests/conformance/nbd-broken
expected=$top_srcdir/tests/conformance/expected
sock=$tmp/sock
uri="nbd+unix:///?socket=$sock"
touch "$tmp/none.conf"
export tool

# --- Ours ------------------------------------------------------------------------
ours()
{
	timeout 120 "$top_builddir/xendisk" serve --config "$tmp/none.conf" \
		--backend-dir "$top_builddir/backends/.libs" \
		--run '"$tool" --timeout 60 "$uri"' "$@" > "$tmp/tap" 2>&1 &&
		return
	grep -A 3 '^not ok' "$tmp/tap" || tail -20 "$tmp/tap"
	return 1
}
truncate -s 64M "$tmp/image"
ok "xendisk serve: raw" ours "raw($tmp/image, cache=writeback)"
ok "... nothing is skipped that it has" \
	test "$(grep -c 'ok .* # SKIP' "$tmp/tap")" -le 16
ok "xendisk serve: sectors of 4096" ours "raw($tmp/image, sector-size=4096)"
ok "xendisk serve: mem" ours 'mem(64M)'
ok "xendisk serve: two exports" ours 'mem(1M)' 'other=mem(2M)'
ok "xendisk serve: cow" ours "cow($tmp/image, mem)"
ok "xendisk serve: read-only" ours "$tmp/image" --readonly
if command -v psktool > /dev/null; then
	psktool -u alice -p "$tmp/keys.psk" > /dev/null 2>&1
	ok "xendisk serve: TLS is wanted first" ours 'mem(1M)' \
		--tls-psk "$tmp/keys.psk"
	ok "... and those cases are run" test \
		"$(grep -c '^ok .* - forcedtls-[a-z-]*$' "$tmp/tap")" = 4
fi

# --- Faults ------------------------------------------------------------------------
# with_server COMMAND...: in the background, until the next one.
server=
with_server()
{
	[ -z "$server" ] || end_process "$server"
	rm -f "$sock"
	"$@" > "$tmp/server" 2>&1 & server=$!
	cleanup_pids+=("$server")
	eventually 20 listens "$sock"
}
with_server "$broken" "$sock"
ok "the server without a fault" "$tool" --timeout 60 "$uri"
notices() { fails 1 "^not ok 1 - $1$" "$tool" --timeout 2 --only "$1" "$uri"; }
while read -r fault test; do
	with_server "$broken" "$sock" "$fault"
	ok "fault \"$fault\": case $test" notices "$test"
done < <("$broken" --list)

# --- Others ------------------------------------------------------------------------
differences()
{
	"$tool" --timeout 60 --expect "$expected/$1" "$uri" > "$tmp/tap" && return
	grep -A 3 '^not ok' "$tmp/tap"
	return 1
}
# other NAME-VERSION: what is written down, or it is skipped.
other()
{
	if [ ! -e "$expected/$1" ]; then
		ok "$1 # SKIP nothing is written down of this version" true
		return
	fi
	ok "$1: the differences that are written down" differences "$1"
}
version() { sed -n 's/^[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p;q'; }
if command -v nbdkit > /dev/null; then
	with_server nbdkit -f -U "$sock" memory 64M
	other "nbdkit-$(nbdkit --version | version)"
fi
if command -v qemu-nbd > /dev/null; then
	with_server qemu-nbd -f raw -t -e 8 -k "$sock" --discard=unmap "$tmp/image"
	other "qemu-nbd-$(qemu-nbd --version | version)"
fi

# --- The program itself --------------------------------------------------------------
with_server "$broken" "$sock"
ok "a case for each name" test -z "$("$tool" --list | cut -f1 | sort | uniq -d)"
ok "no such case" fails 1 "no such case" "$tool" --only nothing "$uri"
echo "nothing at all" > "$tmp/table"
ok "a table with an unknown case" fails 2 'no case "nothing"' \
	"$tool" --expect "$tmp/table" "$uri"
echo "abort is fine" > "$tmp/table"
ok "a difference that has gone is noticed" fails 1 "was expected to fail" \
	"$tool" --only abort --expect "$tmp/table" "$uri"
ok "no server" fails 1 "cannot connect" "$tool" --only greeting \
	"nbd+unix:///?socket=$tmp/nobody"
ok "no URI" fails 2 "usage" "$tool"
