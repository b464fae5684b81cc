#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The file system of the run directory is full, which is memory that others fill as
# well.  What a worker has mapped of it is there: a guest that is served is served on,
# and one that comes is told why it is not.
if [ "${1:-}" != unshared ] && [ "${XENDISK_TESTS:-}" != unit ]; then
	unshare -m true 2>/dev/null || {
		echo "1..0 # SKIP no mount namespace can be made"
		exit 0
	}
	exec unshare -m --propagation private "$0" unshared
fi
. "$(dirname "$0")/functions.sh"

mkdir "$tmp/run"
mount -t tmpfs -o size=8m,mode=755 none "$tmp/run" 2>/dev/null ||
	skip_all "tmpfs cannot be mounted"
sim_start
daemon_start --log-level debug
domain 5 > /dev/null
domain 6 > /dev/null
truncate -s 16M "$tmp/a.img" "$tmp/b.img"

fill()
{
	! dd if=/dev/zero of="$tmp/run/ballast" bs=64k 2> /dev/null &&
		! dd if=/dev/zero of="$tmp/run/rest" bs=1k 2> /dev/null
}
worker_of() { xendisk --json show "$1" xvdb | sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p'; }
workers() { xendisk --json list | grep -o '"worker_pid": [0-9]*'; }
same_workers() { [ "$(workers)" = "$before" ]; }
answered() { [ "$(grep -c '^0 ' "$tmp/out")" = "$1" ]; }
one_write() { echo 'write 0 4096 1' | guest 6 xvdb script; }

ok "attach" toolstack attach 5 xvdb "$tmp/a.img"
ok "attach another one" toolstack attach 6 xvdb "$tmp/b.img"
meet 5 --order 4
tell 'write 0 4096 1'
ok "it writes" eventually 10 answered 1
before=$(workers)
ok "the file system is full" fill
tell 'flush' 'discard 0 1M' 'indirect read 1M 256K' 'read 0 4096'
ok "it is served on" eventually 20 answered 5
ok "by the same worker" same_workers

# As after an upgrade: the counters in the kept state are not what this worker counts.
printf '\377' | dd of="$tmp/run/keep/5-51728.disk.stats" bs=1 seek=8 conv=notrunc 2> /dev/null
kill -9 "$(worker_of 5)"
tell 'read 0 4096'
ok "and by the next one, whose counters are others" eventually 20 answered 6
ok "none has died of what is not there" fails 1 '' grep 'Bus error' "$tmp/log"
ended_well "and nothing has failed"
before=$(workers)
ok "the file system is full again" fill

ok "one that comes is refused" fails 1 '' one_write
ok "and hears why" grep -q 'No space left' "$tmp/log"
ok "its worker lives" same_workers
rm "$tmp/run/ballast" "$tmp/run/rest"
ok "there is room again, and it is served" eventually 20 one_write
daemon_stop
umount "$tmp/run"
