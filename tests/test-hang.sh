#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A file system that never answers holds up the disk that lies on it, and
# nothing else.  It is a FUSE mount whose server has not even begun to read.
if [ "${1:-}" != unshared ] && [ "${XENDISK_TESTS:-}" != unit ]; then
	unshare -m true 2>/dev/null || {
		echo "1..0 # SKIP no mount namespace can be made"
		exit 0
	}
	exec unshare -m --propagation private "$0" unshared
fi
. "$(dirname "$0")/functions.sh"

mkdir "$tmp/hung"
{ exec 9<> /dev/fuse && mount -i -t fuse \
	-o fd=9,rootmode=40000,user_id=0,group_id=0 hung "$tmp/hung"; } \
	2>/dev/null || skip_all "FUSE cannot be mounted"
# Nobody else may hold on to descriptor 9: the mount ends when it is closed.
lost_server()
{
	exec 9<&-
	umount -l "$tmp/hung"
}

sim_start 9<&-
daemon_start --log-level debug 9<&-
domain 5 > /dev/null
truncate -s 16M "$tmp/good.img"

"$xensim" toolstack attach 5 xvdb "$tmp/hung/disk.img" \
	--script "$hotplug_script" > "$tmp/attach" 2>&1 9<&- &
hung=$!
cleanup_pids+=("$hung")
is_opening() { [ "$(state_of 5 xvdb)" = opening ]; }
ok "a disk that does not open is opening" eventually 5 is_opening

neighbour()
{
	local begin=$SECONDS
	toolstack attach 5 xvdc "$tmp/good.img" 9<&- &&
		guest 5 xvdc verify --seconds 1 9<&- &&
		toolstack detach 5 xvdc 9<&- &&
		[ $((SECONDS - begin)) -le 15 ]
}
ok "its neighbour is attached, used and detached meanwhile" neighbour
ok "and the control socket answers" xendisk list
ok "it is still opening" is_opening

lost_server
wait "$hung" && status=0 || status=$?
ok "without its server it fails" test "$status" = 1
ok "and xl says why" grep -q "hung/disk.img: .*" "$tmp/attach"
ok "it can be detached" toolstack detach 5 xvdb
