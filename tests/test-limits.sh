#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the configuration allows: image-roots and mem-limit; and that a path
# means the file that it named when the disk was attached.
. "$(dirname "$0")/functions.sh"

mkdir "$tmp/images" "$tmp/private"
truncate -s 16M "$tmp/images/a.img" "$tmp/private/b.img"
ln -s a.img "$tmp/images/link"
ln -s ../private/b.img "$tmp/images/out"
cat > "$tmp/xendiskd.conf" <<END
image-roots = {"$tmp/images"}
mem-limit = "8M"
END
sim_start
daemon_start --log-level info
domain 5 > /dev/null

attach() { toolstack attach 5 "$@"; }
script() { local vdev=$1; shift; printf '%s\n' "$@" | guest 5 "$vdev" script; }
refused()
{
	fails 1 "$2" attach xvdb "$1" && toolstack detach 5 xvdb
}

# --- image-roots -----------------------------------------------------------------
ok "an image below a root" attach xvdb "$tmp/images/a.img"
ok "detach" toolstack detach 5 xvdb
ok "a link that stays below it" attach xvdb "$tmp/images/link"
ok "detach" toolstack detach 5 xvdb
ok "an image elsewhere" refused "$tmp/private/b.img" 'b.img.*image-roots'
ok "a link that leaves" refused "$tmp/images/out" 'out.*image-roots'
ok "dots that leave" \
	refused "$tmp/images/../private/b.img" 'b.img.*image-roots'
ok "the base of a stack, too" \
	refused "cow($tmp/private/b.img, mem)" 'b.img.*image-roots'

# --- A path's file ---------------------------------------------------------------
worker() { xendisk --json list | sed -n 's/.*"worker_pid": \([1-9][0-9]*\).*/\1/p'; }
another_worker() { [ -n "$(worker)" ] && [ "$(worker)" != "$old" ]; }
ok "attach" attach xvdb "$tmp/images/a.img"
ok "write" script xvdb 'write 0 4096 0x5a'
mv "$tmp/images/a.img" "$tmp/images/moved.img"
truncate -s 16M "$tmp/images/a.img"
old=$(worker)
ok "its image is renamed and replaced, and its worker killed" \
	kill -9 "${old:?}"
ok "another worker" eventually 5 another_worker
ok "serves the same image" says '= 0x5a' script xvdb 'read 0 4096'
ok "detach" toolstack detach 5 xvdb

# --- mem-limit -------------------------------------------------------------------
conditions() { xendisk --json list | tr -d ' \n' | grep -o '"conditions":[^]]*]'; }
paused() { conditions | grep -q paused; }
nobody_paused() { ! paused; }
ok "a memory disk larger than the limit" attach xvdb 'mem(64M)'
ok "another one" attach xvdc 'mem(64M)'
ok "writes within the limit" script xvdb \
	'write 0 1M 1' 'write 1M 1M 1' 'write 2M 1M 1' 'write 8M 1M 2' \
	'write 9M 1M 2' 'write 10M 1M 2' 'write 30M 1M 2'
printf '%s\n' 'write 0 1M 3' 'write 1M 1M 4' 'write 2M 1M 5' 'read 2M 1M' |
	guest 5 xvdc script --timeout 30 > "$tmp/out" 2>&1 &
script=$!
cleanup_pids+=("$script")
ok "beyond it the writer waits" eventually 5 paused
ok "its neighbour reads" says '= 0x02' \
	script xvdb 'read 9M 4096'
ok "and frees memory" toolstack detach 5 xvdb
ok "that lets the writer go on" eventually 10 nobody_paused
wait "$script" && status=0 || status=$?
ok "with the right data" says '= 0x05' cat "$tmp/out"
ok "to its end" test "$status" = 0
ok "detach" toolstack detach 5 xvdc
