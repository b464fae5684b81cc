#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest's disk of each kind, from attach to detach, on the simulator.
. "$(dirname "$0")/functions.sh"
requires xenstore-exists

cat > "$tmp/xendiskd.conf" <<END
disk "web1" { expr = "$tmp/named.img" }
disk "scratch" {
	expr = "cow($tmp/gold.img, mem)"
	on-error = "report"
}
END
truncate -s 32M "$tmp/raw.img" "$tmp/named.img" "$tmp/top.img"
head -c 32M /dev/urandom > "$tmp/gold.img"
gold=$(sha256sum < "$tmp/gold.img")

sim_start
daemon_start
dom=$(domain --name web1)

# Nothing is left of a disk, on either side.
no_keys()
{
	local d
	for d in "/local/domain/$dom/device/vbd/$1" "/libxl/$dom/device/vbd/$1" \
		 /local/domain/0/backend/{vbd,vbd3,xendisk}/"$dom/$1"; do
		! xenstore-exists "$d" || { echo "left: $d"; return 1; }
	done
}

# round EXPR [VERIFY-OPTION...]: as xl would attach it.
round()
{
	toolstack attach "$dom" xvdb "$1" &&
		guest "$dom" xvdb verify --seconds 1 --depth 16 "${@:2}" &&
		toolstack detach "$dom" xvdb && no_keys 51728
}

unchanged() { [ "$(sha256sum < "$tmp/gold.img")" = "$gold" ]; }
has_gold()
{
	guest "$dom" xvdb read 0 1M > "$tmp/read" &&
		cmp -n 1048576 "$tmp/gold.img" "$tmp/read"
}
holds_nothing() { [ -z "$(find "$(readlink "$tmp/run/pages")" -name "*$dom-*")" ]; }

ok "raw" round "$tmp/raw.img"
ok "raw, page cache" round "raw($tmp/raw.img, cache=writeback)"
ok "raw, written through" round "raw($tmp/raw.img, cache=writethrough)"
ok "mem" round "mem(32M)"
ok "mem, the short form" round mem:32M
ok "mem leaves nothing behind" holds_nothing
ok "@name" round @web1
utf8=$tmp/$'caf\xc3\xa9.img'
ln "$tmp/raw.img" "$utf8"
listed()
{
	toolstack attach "$dom" xvdb "$utf8" &&
		LC_ALL=C.UTF-8 xendisk list | grep -F "raw($utf8)" &&
		toolstack detach "$dom" xvdb
}
ok "a name in UTF-8 is listed as it is" listed
ok "cow on mem" round "cow($tmp/gold.img, mem)"
ok "the gold image is unchanged" unchanged
ok "cow on a scratch file" round "cow($tmp/gold.img, $tmp/top.img)"
ok "the gold image is unchanged still" unchanged
ok "backend/vbd3" eval \
	'toolstack attach "$dom" xvdb "$tmp/raw.img" --kind vbd3 &&
	guest "$dom" xvdb verify --seconds 1 && toolstack detach "$dom" xvdb'

ok "cow starts from the gold image" eval \
	'toolstack attach "$dom" xvdb @scratch && has_gold &&
	head -c 4096 /dev/zero | guest "$dom" xvdb write 0 4096 &&
	! has_gold && toolstack detach "$dom" xvdb'
ok "and is back at it" eval \
	'toolstack attach "$dom" xvdb @scratch && has_gold &&
	toolstack detach "$dom" xvdb'

ok "readonly(...) reads" eval \
	'toolstack attach "$dom" xvdb "readonly($tmp/gold.img)" && has_gold'
ok "and refuses to write" fails 3 "" eval \
	'head -c 4096 /dev/zero | guest "$dom" xvdb write 0 4096'
ok "info says so" says 'info=4' guest "$dom" xvdb info
ok "detach" toolstack detach "$dom" xvdb
ok "mode=r" eval 'toolstack attach "$dom" xvdb "$tmp/gold.img" --readonly &&
	! head -c 4096 /dev/zero | guest "$dom" xvdb write 0 4096 &&
	toolstack detach "$dom" xvdb && unchanged'

# --- The command ----------------------------------------------------------------

ok "xendisk attach prints the vdev" says '^xvda$' \
	xendisk attach web1 "$tmp/raw.img"
ok "the next gets the next" says '^xvdb$' xendisk attach "$dom" 'mem(16M)'
ok "a vdev in use is refused" fails 5 'xvdb is in use' \
	xendisk attach web1 'mem(16M)' --vdev xvdb
ok "an image in use is refused" fails 5 'in use by domain' \
	xendisk attach "$(domain --name web2)" "$tmp/raw.img"
ok "... also by the same guest" fails 5 'raw.img) is in use by domain .* (xvda)' \
	xendisk attach web1 "$tmp/raw.img"
ok "... who may read it twice" eval 'xendisk attach web1 "$tmp/raw.img" --readonly --vdev xvdc &&
	xendisk detach web1 xvdc'
ok "list" says 'mem(16M)' xendisk list web1
ok "list --json" says '"size": 33554432' xendisk --json list
ok "show has the stack" says 'raw' xendisk show web1 xvda
ok "show --json has both sides" says '"ring-ref"\|"frontend"' \
	xendisk show web1 xvda --json
hostile() (
	eval "$("$xensim" env "$dom")"
	xenstore-write "/local/domain/$dom/device/vbd/51712/protocol" \
		$'\e[31mx86\u009b\n'
)
ok "a guest cannot command the terminal" eval '
	hostile && says "protocol = ?\[31mx86??\$" xendisk show web1 xvda &&
	xenstore-rm "/local/domain/$dom/device/vbd/51712/protocol"'

# completes CANDIDATES WORD...: what the shell offers for the last word.
completes()
{
	local offered
	offered=$(xendisk complete -- "${@:2}" | tr '\n' ' ')
	[ "$offered" = "$1" ] || { echo "$offered"; return 1; }
}
ok "completion: verbs" completes 'show stats serve snapshot status ' s
ok "completion: verbs behind an option" completes 'show stats serve snapshot status ' --json s
ok "completion: domains" completes 'web1 web2 ' show w
ok "completion: a domain's disks" completes 'xvda xvdb ' detach web1 x
ok "completion: no other's" completes '' detach web2 x
ok "completion: not an option's argument" \
	completes 'raw readonly ' attach --vdev xvdb web1 r
ok "completion: options" completes '--force ' detach web1 xvdb --f
ok "completion: what is behind a letter is no argument" completes 'xvda xvdb ' snapshot -m what web1 x
ok "completion: the daemon that was named" \
	completes '' --run-dir /nonexistent detach web1 x
ok "what is empty is not shown" fails 1 '' \
	grep -q conditions <(xendisk show web1 xvdb)
ok "the guest uses it" guest "$dom" xvda verify --seconds 1
ok "a wrong vdev: which there are" \
	fails 4 "^xendisk: show: domain $dom (web1) has no disk xvdq of xendiskd's; it has xvda, xvdb\$" \
	xendisk show web1 xvdq
ok "... also where xenstore is asked" \
	fails 4 "^xendisk: detach: domain $dom (web1) has no disk xvdq; it has xvd[ab], xvd[ab]\$" \
	xendisk detach "$dom" xvdq
ok "detach" xendisk detach web1 xvdb
ok "detach the other" xendisk detach web1 xvda
ok "nothing is left" eval 'no_keys 51712 && no_keys 51728'
ok "nothing is listed" says '"disks": \[\]' xendisk --json list

# --- A guest that keeps it ----------------------------------------------------------

ok "attach" xendisk attach web1 "$tmp/raw.img" --vdev xvdb
meet "$dom"
ok "a guest that does not let go, and what may be done" \
	fails 5 'not let go of the disk within 1 s, .* mounted there; xendisk detach --force' \
	xendisk detach web1 xvdb --timeout 1
exec 8>&-
wait "$script"
ok "... does when it has ended" xendisk detach web1 xvdb
ok "attach" xendisk attach web1 "$tmp/raw.img" --vdev xvdb
daemon_stop
ok "no daemon: what becomes of it" \
	fails 3 'detach: the disk is closed when xendiskd runs again: cannot reach .*running?$' \
	xendisk detach web1 xvdb --timeout 1
daemon_start
ok "... is done" eventually 10 says closed xendisk list
ok "... and it can be taken away" xendisk detach web1 xvdb

# --- Mistakes ---------------------------------------------------------------------

ok "no such file, by xl" fails 1 'No such file or directory' \
	toolstack attach "$dom" xvdb /nonexistent
ok "what is not open has no size and no mode" \
	says '^ *[0-9]* web1  *xvdb failed  *-  *-  *raw(/nonexistent)$' xendisk list
ok "detach works then" toolstack detach "$dom" xvdb
ok "ill-typed, by xl" fails 1 'no backend "memm"; did you mean "mem"?' \
	toolstack attach "$dom" xvdb 'memm(1M)'
ok "detach works then, too" toolstack detach "$dom" xvdb
ok "unknown name, by xl" fails 1 'no disk "nobody" is configured; known: web1, scratch' \
	toolstack attach "$dom" xvdb @nobody
ok "and again" toolstack detach "$dom" xvdb
# An image that is behind a loop device, which takes no lock.
truncate -s 1M "$tmp/behind.img"
ln -s "$tmp/behind.img" "$tmp/link.img"
loop=$(losetup -f --show "$tmp/behind.img" 2> /dev/null)
if [ -n "$loop" ]; then
	ok "behind a loop device" fails 5 "behind.img is in use: .* loop device $loop" \
		xendisk attach web1 "$tmp/behind.img"
	ok "... by another name" fails 5 "link.img is in use: .* loop device $loop" \
		xendisk attach web1 "$tmp/link.img"
	ok "... that may write, and we not" fails 5 "loop device $loop" \
		xendisk attach web1 "readonly($tmp/behind.img)"
	ok "... who wants it without locks" xendisk attach web1 "raw($tmp/behind.img, lock=no)"
	ok "detach" xendisk detach web1 xvda
	mv "$tmp/behind.img" "$tmp/moved.img"
	ok "... and was moved" fails 5 "moved.img is in use: .* loop device $loop" \
		xendisk attach web1 "$tmp/moved.img"
	losetup -d "$loop"
	losetup -r "$loop" "$tmp/moved.img"
	ok "... that only reads, and we write" fails 5 "loop device $loop" \
		xendisk attach web1 "$tmp/moved.img"
	ok "a device that only reads: what to do" \
		fails 5 "$loop is a read-only device; to read it only: --readonly, or readonly(" \
		xendisk attach web1 "$loop"
	ok "... is done" xendisk attach web1 "$loop" --readonly
	ok "detach" xendisk detach web1 xvda
	ok "... both only read" xendisk attach web1 "readonly($tmp/moved.img)"
	ok "detach" xendisk detach web1 xvda
	losetup -d "$loop"
	ok "behind none any more" xendisk attach web1 "$tmp/moved.img"
	# Whoever has the disk is not stopped by one that comes later.
	losetup "$loop" "$tmp/moved.img"
	pid_of() { xendisk --json show web1 xvda | sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p'; }
	pid=$(pid_of)
	kill -9 "$pid"
	another_worker() { local now; now=$(pid_of); [ "${now:-0}" != 0 ] && [ "$now" != "$pid" ]; }
	ok "one that comes later: the next worker comes" eventually 10 another_worker
	ok "... and opens it" eventually 10 says 'waiting' xendisk show web1 xvda
	losetup -d "$loop"
	ok "detach" xendisk detach web1 xvda
else
	skipped "behind a loop device" "no loop device"
fi
ok "no such file, by the command" fails 1 'No such file' \
	xendisk attach web1 /nonexistent
ok "ill-typed, by the command" fails 1 'at byte 8: cow writes' \
	xendisk attach web1 'cow(/a, readonly(/b))'
for verb in attach connect; do
	ok "$verb: the arguments exchanged" \
		fails 2 "^xendisk: $verb: \"/srv/a\" is no domain; it is xendisk $verb DOM " \
		xendisk $verb /srv/a web1
done
ok "resize: no size" fails 2 '"2MB" is no size (digits with K, M, G or T)' \
	xendisk resize web1 xvda 2MB
ok "no such domain" fails 4 'no domain "nobody"' xendisk attach nobody 'mem(1M)'
ok "... one that is near" fails 4 'show: there is no domain "wbe1"; did you mean "web1"?' \
	xendisk show wbe1 xvda
ok "... by its number: which there are" fails 4 'no domain "999"; known: .*web1, web2' \
	xendisk list 999
ok "no such backend: which is near" fails 4 'no backend "rwa"; did you mean "raw"?' \
	xendisk backends rwa
ok "no such disk" fails 4 'no disk' xendisk detach web1 xvdq
ok "... of the daemon's" fails 4 "$dom (web1) has no disk xvdq" xendisk show web1 xvdq
ok "no such option" fails 2 '^xendisk: list: --colour: there' xendisk list --colour
ok "the daemon is not to be reached, and why" \
	fails 3 'No such file or directory; is it running' \
	xendisk --run-dir /nonexistent list
ok "a vdev that is none" fails 2 'no virtual disk (xvdb, ' xendisk show web1 q
ok "no such letter" fails 2 '^xendisk: list: -x: there' xendisk list -xy
ok "no such letter before the verb" fails 2 '^xendisk: -x: there' xendisk -xy list
ok "an option without an argument" fails 2 'json=1: it takes' xendisk list --json=1
ok "check" says 'cow(raw(/a), mem())' xendisk check 'cow(/a, mem)'
ok "check finds the mistake" fails 1 'at byte 0: mem: size is missing' \
	xendisk check mem
ok "a relative path" fails 1 'no backend "web1"; a path begins with /' \
	xendisk check web1.img
points() { xendisk check 'cow(/ü.img, memm)' 2>&1 | tail -1 | grep -x ' \{14\}^'; }
ok "it points at the character, not at the byte" points
ok "... and sends nothing to the terminal" says '/a?\[31m' eval "! xendisk check $'/a\e[31m' 2>&1"
for verb in check 'attach web1' 'connect web1' 'connect web1 --path'; do
	# shellcheck disable=SC2086  # words
	ok "$verb: no UTF-8" fails 2 'the expression is no UTF-8 text' xendisk $verb $'/\xe9'
done
ok "backends: no UTF-8" fails 2 'NAME: not UTF-8' xendisk backends $'\xe9'
# As somebody reads it who has 80 columns.
narrow()
{
	script -qec "stty cols 80; '$top_builddir/xendisk' --run-dir '$tmp/run' backends raw" \
		/dev/null < /dev/null | tr -d '\r' > "$tmp/narrow"
	grep -q '(cluster file *$' "$tmp/narrow" && grep '^ *systems) *$' "$tmp/narrow" &&
		! grep '.\{81\}' "$tmp/narrow"
}
ok "backends in 80 columns: all of it" narrow
ok "check --json" fails 1 '"position": 0' xendisk check mem --json
ok "backends" says 'readonly' xendisk backends
ok "a backend's parameters" says 'writethrough' xendisk backends raw
ok "nothing is left after all that" says '"disks": \[\]' xendisk --json list
