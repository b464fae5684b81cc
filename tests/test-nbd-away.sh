#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2016  # called by ok; by nbdkit's shell
# NBD servers that are away when the guest goes, that come back without what
# they had answered, or that do not flush.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
. "$top_srcdir/tests/nbd-functions.sh"

sim_start
daemon_start
d=$(domain)
again() { detach && attach "$1"; }
# What the guest was told to write has been answered.
has_written() { eventually 20 grep -q "$1" "$tmp/out"; }
was_killed() { grep -q "did not disconnect" "$tmp/log"; }
not_killed() { ! was_killed; }
worker() { xendisk --json list | sed -n 's/.*"worker_pid": \([1-9][0-9]*\).*/\1/p'; }
in_image() { cmp -s <(head -c 4096 /dev/zero | tr '\0' "$1") \
	<(dd if="$tmp/image" bs=4096 skip="$2" count=1 status=none); }

# --- The guest goes while the server is away ----------------------------------------------
file_serves() { nbdkit_serves file "$tmp/image"; }
gone() { end_server && rm -f "$sock"; }
file_serves
attach "$uri"
meet "$d"
tell "write 0 4096 0x41" "flush"
ok "a guest has written, and flushed" has_written flush
gone
tell "read 0 4096" # waits
ok "the server is away" eventually 20 condition_is paused
ok "a forced detach" toolstack detach "$d" xvdb --force
ok "... ends the worker in good order" not_killed
exec 8>&-
kill "$script" 2>/dev/null || :
wait "$script" 2>/dev/null || :

d=$(domain)
file_serves
attach "$uri"
meet "$d"
tell "write 0 4096 0x42" "flush"
ok "another guest has flushed" has_written flush
gone
ok "its server is away" eventually 20 condition_is paused
ended_well "it goes"
ok "... nothing was lost" eventually 20 no_guest "$d"
ok "... and nothing is poisoned" fails 1 "" condition_is poisoned
file_serves
ok "the disk is good" does "read 0 4096 0x42"

meet "$d"
tell "write 0 4096 0x43"
ok "one has not flushed" has_written write
gone
ok "the server is away again" eventually 20 condition_is paused
ended_well "it goes, too"
ok "... which poisons the disk" eventually 20 condition_is poisoned
ok "... and ends in good order" not_killed
file_serves
ok "the mark outlives the disk" again "$uri"
ok "... and is felt" does "write 0 4096 expect=-1" "flush expect=-3"
ok "... until the operator accepts it" xendisk resume "$d" xvdb --accept-loss
ok "the disk can be used again" does "write 0 4096 0x44" "flush"

# --- A server that loses what was not flushed --------------------------------------------------
cache_serves() { nbdkit_serves --filter=cache file "$tmp/image" cache=writeback; }
# ... and enforces its blocks, which are smaller than what is read back at a time.
small_serves()
{
	nbdkit_serves --filter=blocksize-policy --filter=cache file \
		"$tmp/image" cache=writeback blocksize-minimum=512 \
		blocksize-preferred=512 blocksize-maximum=1024 \
		blocksize-error-policy=error
}
lose() { # HOW BYTE [SERVER]: the guest has written a block, and its server dies with it
	again "nbd(\"$uri\", fence=0s, unflushed=$1)"
	meet "$d"
	tell "write 8192 4096 0x$2"
	ok "$1: a block is written" has_written write
	"${3:-cache_serves}"
}
cache_serves
lose trust 45
tell "flush" "read 8192 4096 0x00"
ended_well "trust: it is lost, and nobody says so"
ok "... really" fails 1 "" in_image E 2
lose check 46
tell "flush expect=-3" "write 0 4096 expect=-1"
ended_well "check: the flush fails"
ok "... and the disk is poisoned" condition_is poisoned
xendisk resume "$d" xvdb --accept-loss >/dev/null
lose check 49 small_serves
tell "flush expect=-3"
ended_well "... also if the next server takes 1024 bytes at a time"
xendisk resume "$d" xvdb --accept-loss >/dev/null
cache_serves
lose keep 47
tell "read 8192 4096 0x47"
ok "keep: it is there" has_written "read.*0x47"
cache_serves
tell "flush"
ended_well "... and again, and is flushed"
ok "... really" in_image G 2
lose keep 48
old=$(worker)
kill -9 "$old"
cache_serves
another_worker() { [ -n "$(worker)" ] && [ "$(worker)" != "$old" ]; }
ok "the worker is killed as well" eventually 20 another_worker
tell "read 8192 4096 0x48" "flush"
ended_well "keep: it is there"
ok "... and on storage" in_image H 2

# --- Servers that fail, or stay away -------------------------------------------------------------
nbdkit_serves eval get_size='echo 1M' can_write='exit 0' can_flush='exit 0' \
	pread='head -c $3 /dev/zero' pwrite='cat >/dev/null' \
	flush='echo EIO no >&2; exit 1'
again "nbd(\"nbd+unix:///other?socket=$sock\")"
ok "a flush that fails" does "write 0 4096" "flush expect=-3" "flush expect=-3"
ok "... poisons the disk" condition_is poisoned
xendisk resume "$d" xvdb --accept-loss >/dev/null
file_serves
again "disk(nbd(\"$uri\", give-up=200ms), on-error=report)"
meet "$d"
tell "read 0 4096"
ok "a guest that is to hear of it" has_written read
gone
tell "read 0 4096 expect=-1"
ended_well "give-up and on-error=report: it does"
