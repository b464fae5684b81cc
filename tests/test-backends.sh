#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every backend and filter, from a guest's ring to the storage.
. "$(dirname "$0")/functions.sh"
requires qemu-io

sim_start
mkdir "$tmp/backends"
ln -s "$top_builddir"/backends/.libs/*.so \
	"$top_builddir/examples/.libs/pattern.so" "$tmp/backends/"
echo nothing > "$tmp/backends/junk.so"
daemon_start --backend-dir "$tmp/backends"
dom=$(domain --name web1)
dev=51728

# --- Tables and man pages ------------------------------------------------------

parameters()
{
	xendisk --json backends "$1" | grep -o '"name": "[a-z-]*"' |
		cut -d'"' -f4 | grep -vx "$1" | sort -u
}

documented()
{
	sed -n '/^=head1 OPTIONS/,/^=head1 EXAMPLES/s/^=item B<\([a-z-]*\).*/\1/p' \
		"$top_srcdir/man/xendisk-$1.7.pod" | sort -u
}

pages_match() { diff <(parameters "$1") <(documented "$1"); }

optional=
for backend in nbd git gitfs; do
	[ ! -e "$top_builddir/backends/.libs/$backend.so" ] ||
		optional+=" $backend"
done
for backend in raw mem null cow readonly $optional; do
	ok "$backend and its man page name the same options" \
		pages_match $backend
done

ok "one that cannot be loaded says why" fails 1 'junk: .*too short' \
	xendisk backends junk
ok "... also where it is used" \
	fails 1 'backend "junk" cannot be loaded: .*too short' xendisk check 'cow(junk(1), mem)'
ok "none of that scheme: which there are" fails 1 'no backend takes "ftp://"; known: .*\bnbd\b' \
	xendisk check ftp://a

# --- Data ----------------------------------------------------------------------

truncate -s 32M "$tmp/image" "$tmp/top"
head -c 8M /dev/urandom > "$tmp/gold"
gold=$(md5sum < "$tmp/gold")

# serves EXPR VERIFY-OPTION...: attached, written and read, detached.
serves()
{
	toolstack attach "$dom" $dev "$1" || return 1
	guest "$dom" $dev verify --seconds 1 --depth 16 --size 8M "${@:2}" ||
		return 1
	toolstack detach "$dom" $dev
}

used() { [ "$(stat -c %b "$1")" -gt 0 ]; }
unused() { [ "$(stat -c %b "$1")" = 0 ]; }
nothing_kept()
{
	[ -z "$(find "$tmp/run/keep" "$tmp/run/pages/" -type f)" ]
}

ok "raw" serves "$tmp/image" --queues 2
ok "raw, page cache" serves "raw($tmp/image, cache=writeback)" --queues 2
ok "raw, written through" serves "raw($tmp/image, cache=writethrough)"
ok "raw, sectors of 4096" serves "raw($tmp/image, sector-size=4096)"
ok "mem" serves "mem(32M)" --queues 4 --order 2
ok "cow in memory" serves "cow($tmp/gold, mem)" --queues 4 --discard-zeroes
ok "cow in a file" serves "cow($tmp/gold, $tmp/top)" --discard-zeroes
ok "the base is as it was" test "$(md5sum < "$tmp/gold")" = "$gold"
ok "nothing is kept when it is detached" eventually 5 nothing_kept

# --- A file on top is scratch --------------------------------------------------

ok "the top is empty after detach" eventually 5 unused "$tmp/top"
head -c 8M /dev/urandom > "$tmp/top"
too_small() { toolstack attach "$dom" $dev "cow($tmp/image, $tmp/top)"; }
ok "a top that is too small is refused" fails 1 "smaller than the base" \
	too_small
toolstack detach "$dom" $dev
unconnected()
{
	toolstack attach "$dom" $dev "cow($tmp/gold, $tmp/top)" &&
		toolstack detach "$dom" $dev
}
ok "a disk that no guest has used" unconnected
sleep 1.5
ok "neither has emptied the file" used "$tmp/top"

# A guest is refused what QEMU has, and nothing of it goes at detach.
mkfifo "$tmp/orders"
qemu-io -f raw "$tmp/top" < "$tmp/orders" > /dev/null &
qemu=$!
exec 7> "$tmp/orders"
ok "QEMU has the file" eventually 10 \
	grep -q ":$(stat -c %i "$tmp/top") " /proc/locks
waits() { xendisk show "$dom" $dev | grep -q "QEMU or another"; }
in_use()
{
	local front
	toolstack attach "$dom" $dev "cow($tmp/gold, $tmp/top)" || return 1
	guest "$dom" $dev flush & front=$!
	eventually 10 waits || return 1
	toolstack detach "$dom" $dev
	end_process $front
}
ok "a disk with that on top has its guest wait" in_use
sleep 1.5
ok "... and leaves it as it is" used "$tmp/top"
exec 7>&-
wait $qemu

# A file's other name is the same file.
ln "$tmp/gold" "$tmp/gold2"
for second in gold gold2; do
	twice() { toolstack attach "$dom" $dev "cow($tmp/gold, $tmp/$second)"; }
	ok "a top that is its own base is refused" \
		fails 1 "$second is used twice" twice
	toolstack detach "$dom" $dev
done
ok "the base is as it was, still" test "$(md5sum < "$tmp/gold")" = "$gold"
ok "the second use sees the base, not the first" \
	serves "cow($tmp/gold, $tmp/top)" --discard-zeroes

# --- Read-only, and made up ----------------------------------------------------

reads()
{
	toolstack attach "$dom" $dev "$1" || return 1
	guest "$dom" $dev read "$2" "$3" > "$tmp/read" || return 1
	toolstack detach "$dom" $dev
}
same() { cmp <(head -c 1M "$tmp/gold") "$tmp/read"; }
ok "readonly" reads "readonly($tmp/gold)" 0 1M
ok "reads what is there" same
toolstack attach "$dom" $dev "readonly($tmp/gold)"
write_to_it() { guest "$dom" $dev write 0 < "$tmp/read"; }
ok "readonly is not written to" fails 3 . write_to_it
toolstack detach "$dom" $dev
ok "pattern" reads "pattern(1T)" 512G 512
ok "states its sector" grep -aqx "This is sector 1073741824." "$tmp/read"
ok "null" reads "null" 0 64K
ok "is zeroes" cmp -n 65536 "$tmp/read" /dev/zero
