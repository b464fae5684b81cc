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
requires perl

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

# --- Workers of a daemon that died, which hang -----------------------------------
# What a server has begun with cannot be interrupted: not even SIGKILL ends who waits
# for it.  This one answers only that the mount is ready (FUSE_INIT).
daemon_stop
mkdir "$tmp/busy"
cat > "$tmp/server.pl" <<'END'
open(my $fuse, "+<&=", 8) or die;
while (sysread($fuse, my $request, 1 << 20)) {
	my (undef, $opcode, $unique) = unpack("LLQ", $request);
	syswrite($fuse, pack("LlQ L4 S2 L x40", 80, 0, $unique, 7, 31, 0, 0,
			     0, 0, 4096)) if $opcode == 26;
}
END
exec 8<> /dev/fuse
mount -i -t fuse -o fd=8,rootmode=40000,user_id=0,group_id=0 busy "$tmp/busy"
perl "$tmp/server.pl" & server=$!
cleanup_pids+=("$server")
exec 8<&-
strays=()
for i in 1 2 3 4; do
	cat "$tmp/busy/$i" 2> /dev/null & strays+=("$!")
done
sleep 0.5
mkdir -p "$tmp/run/workers"
for pid in "${strays[@]}"; do
	cut -d' ' -f22 "/proc/$pid/stat" > "$tmp/run/workers/$pid"
done
# Each may take two seconds, by itself.
begin=$SECONDS
daemon_start
took=$((SECONDS - begin))
ok "four that hang do not hold up the next daemon one after the other" \
	test "$took" -le 5
hang() { for pid in "${strays[@]}"; do ! is_gone "$pid" || return 1; done; }
ok "... which they would have done" hang
gone() { for pid in "${strays[@]}"; do is_gone "$pid" || return 1; done; }
kill "$server"
ok "they end when what they wait for does" eventually 5 gone
umount -l "$tmp/busy"
ok "the daemon ends" daemon_stop
