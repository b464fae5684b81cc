#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# Storage that fails: what a guest hears of it, and what is remembered.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
requires fusermount3
failfs=$top_builddir/tests/fuse-failfs
if [ ! -x "$failfs" ] || [ ! -w /dev/fuse ]; then skip_all "FUSE is not there"; fi

# A file that fails on command: fate OPERATION ERRNO [COUNT].
mkdir "$tmp/fs"
truncate -s 16M "$tmp/backing"
background "$failfs" "$tmp/backing" "$tmp/fs"
ok "the file system is there" eventually 5 [ -e "$tmp/fs/control" ]
fate() { echo "$*" > "$tmp/fs/control"; }
# Lines of operations with the statuses that are expected.
guest_does() { printf '%s\n' "${@:2}" | guest "$1" xvdb script; }
# (Or step by step, since raw tries an fdatasync() of its own before.)
condition_is() { says "\"$1\"" xendisk --json list; }
no_condition() { says '"conditions": *\[\]' xendisk --json list; }
marks() { find "$tmp/state" -type f | grep -c . || :; }

sim_start
daemon_start
d=$(domain)
image="raw($tmp/fs/image, cache=writeback)"
again() { toolstack detach "$d" xvdb; toolstack attach "$d" xvdb "$1"; }

# --- A flush that fails ---------------------------------------------------------
ok "attach" toolstack attach "$d" xvdb "$image"
ok "writes and flushes" guest_does "$d" "write 0 4096 0x11" "flush"
meet "$d"
fate fsync 5 1
tell "write 0 4096 0x22" "flush expect=-3" "flush expect=-3" \
	"write 0 4096 0x33 expect=-1" "discard 0 4096 expect=-1" \
	"flush 0 4096 0x33 expect=-3" "read 0 4096"
ended_well "a failed flush is answered -3, and so is each one after it"
ok "it is known" condition_is poisoned
ok "there is a mark" [ "$(marks)" != 0 ]
worker() { xendisk --json list | sed -n 's/.*"worker_pid": \([1-9][0-9]*\).*/\1/p'; }
old=$(worker)
another_worker() { [ -n "$(worker)" ] && [ "$(worker)" != "$old" ]; }
ok "its worker is killed" kill -9 "$old"
ok "... and replaced" eventually 5 another_worker
ok "which knows it, too" eventually 5 condition_is poisoned
ok "it survives a detach" again "$image"
ok "... and is known" condition_is poisoned
ok "... and felt" guest_does "$d" "write 0 4096 expect=-1" "flush expect=-3" \
	"read 0 4096"
nbd_uri() { echo "nbd+unix:///?socket=$tmp/run/nbd/$d-51728.sock"; }
if command -v qemu-io > /dev/null; then
	ok "an NBD client hears of it" fails 1 'Input/output error' \
		timeout 20 qemu-io -f raw -c "write 0 4k" "$(nbd_uri)"
	ok "... also who flushes" fails 1 '' \
		timeout 20 qemu-io -f raw -c "flush" "$(nbd_uri)"
	ok "... and may read" timeout 20 qemu-io -f raw -r -c "read 0 4k" "$(nbd_uri)"
fi
toolstack detach "$d" xvdb
daemon_stop
daemon_start
ok "it survives the daemon" toolstack attach "$d" xvdb "$image"
ok "... and is felt" guest_does "$d" "write 0 4096 expect=-1" "flush expect=-3"
ok "the log says what to do" \
	grep -q "checked: xendisk resume $d 51728 --accept-loss" "$tmp/log"
ok "resume alone is refused" fails 5 'poisoned.*; check the data, then --accept-loss' xendisk resume "$d" xvdb
ok "... and changes nothing" guest_does "$d" "flush expect=-3"
ok "the operator accepts it" xendisk resume "$d" xvdb --accept-loss
ok "the disk works again" guest_does "$d" "write 0 4096 0x44" "flush" \
	"read 0 4096"
ok "nothing is left of it" no_condition
ok "... nor of the mark" [ "$(marks)" = 0 ]

# --- ... while the guest stays connected -----------------------------------------
meet "$d"
fate fsync 5 1
tell "write 0 4096" "flush expect=-3"
ok "a failed flush" eventually 5 condition_is poisoned
ok "is accepted" xendisk resume "$d" xvdb --accept-loss
tell "write 0 4096" "flush"
ended_well "and the same guest goes on"

ok "flush-error=hold" again "disk($image, flush-error=hold)"
meet "$d"
fate fsync 5 1
tell "flush" "write 0 4096"
ok "it is known" eventually 5 condition_is poisoned
sleep 1
ok "leaves the flush unanswered" kill -0 "$script"
ok "accepted" xendisk resume "$d" xvdb --accept-loss
ended_well "it is answered when it has succeeded"

# --- ... that nobody has asked for before its worker ends ------------------------
# The kernel tells once: the guest's flush, and nobody else.
is_written() { says "= $1" cat "$tmp/out"; }
ok "attach" again "$image"
meet "$d"
tell "write 0 4096 0x45" "read 0 4096"
ok "it writes" eventually 5 is_written 0x45
fate fsync 5 1
old=$(worker)
ok "its worker is killed" kill -9 "$old"
ok "... and replaced" eventually 5 another_worker
tell "flush expect=-3"
ended_well "its flush fails"
ok "it is known" condition_is poisoned
ok "the operator accepts it" xendisk resume "$d" xvdb --accept-loss
meet "$d"
tell "write 0 4096 0x46" "read 0 4096"
ok "it writes" eventually 5 is_written 0x46
fate fsync 5 1
daemon_stop
daemon_start 8>&-
tell "flush expect=-3"
ended_well "its flush fails after a stop of the daemon, too"
ok "it is known" condition_is poisoned
ok "the operator accepts it" xendisk resume "$d" xvdb --accept-loss

# --- Errors that pass --------------------------------------------------------------
ok "attach" again "$image"
fate write 28
meet "$d"
tell "write 4096 4096 0x55" "read 4096 4096"
ok "a write that finds no space waits" eventually 5 condition_is paused
ok "... and the reason is told" says "no space" xendisk show "$d" xvdb
sleep 1
ok "... still" kill -0 "$script"
fate write 0
ended_well "it is written when there is space"
ok "... correctly" says "0 read 4096 4096 = 0x55" cat "$tmp/out"
ok "nobody waits" eventually 5 no_condition

fate write 28
meet "$d"
tell "write 4096 4096 0x66"
ok "paused" eventually 5 condition_is paused
sleep 7 # the next try is more than 5 s away
fate write 0
before=$SECONDS
ok "resume" xendisk resume "$d" xvdb
ended_well "tries at once"
ok "... not when it is time" [ $((SECONDS - before)) -lt 4 ]

# A worker that is told to end has not been killed by what waits in it: else, after five
# of them, the guest would have an error.
recoveries() { grep -c 'goes on after a worker died: 1 requests' "$tmp/log" || :; }
stops_and_starts()
{
	local i
	for ((i = 0; i < 6; i++)); do
		daemon_stop
		daemon_start 8>&-
		eventually 20 condition_is paused || return
	done
}
fate write 28
meet "$d"
tell "write 4096 4096 0x77" "read 4096 4096"
ok "paused" eventually 5 condition_is paused
before=$(recoveries)
rc=0 # not in a subshell, as ok has it: the last daemon is to be ended, too
stops_and_starts || rc=$?
ok "the daemon is stopped and started, six times" [ $rc = 0 ]
ok "... each time another worker has tried" [ "$(recoveries)" = $((before + 6)) ]
fate write 0
ok "resume" xendisk resume "$d" xvdb
ended_well "it is written when there is space"
ok "... correctly" says "read 4096 4096 = 0x77" cat "$tmp/out"

ok "on-error=report" again "disk($image, on-error=report)"
fate write 28 1
ok "... reports" guest_does "$d" "write 0 4096 expect=-1" "write 0 4096"
ok "no condition" no_condition

ok "attach" again "$image"
fate write 5 1
ok "other errors are reported" guest_does "$d" "write 0 4096 expect=-1" \
	"write 0 4096" "flush"
ok "attach" again "raw($tmp/fs/image, cache=none)"
fate read 5 1
ok "... of reads too" guest_does "$d" "read 8192 4096 expect=-1" \
	"read 8192 4096"
ok "detach" toolstack detach "$d" xvdb
