#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Guests that are not honest: each case of `simguest hostile` against the daemon,
# beside a guest that is.  The daemon and all workers live, the neighbour's data
# is right, nothing grows.  XENDISK_HOSTILE_SECONDS: how long each case lasts.
. "$(dirname "$0")/functions.sh"

seconds=${XENDISK_HOSTILE_SECONDS:-0} # 0: 0.3 s
seed=${XENDISK_HOSTILE_SEED:-1}
echo "# $seconds s each, seed $seed"
began=$SECONDS
sim_start
daemon_start --log-level info
truncate -s 16M "$tmp/a.img" "$tmp/b.img"
domain 5 > /dev/null
domain 6 > /dev/null
ok "attach the hostile guest's disk" toolstack attach 5 xvdb "$tmp/a.img"
ok "attach its neighbour's" toolstack attach 6 xvdb "$tmp/b.img"

# --- What is looked at ------------------------------------------------------------

worker_of() # DOMID
{
	xendisk --json show "$1" xvdb |
		sed -n 's/.*"worker_pid": \([1-9][0-9]*\).*/\1/p' | head -1
}
a_worker_died() { xendisk --json list | grep '"restarts":' | grep -vq ': 0'; }
all_live() { daemon_answers && ! a_worker_died; }

# The neighbour works all the time.
neighbour()
{
	while [ ! -e "$tmp/enough" ]; do
		guest 6 xvdb verify --seconds 1 --queues 2 --seed "$seed" ||
			touch "$tmp/harmed"
	done > "$tmp/neighbour" 2>&1
}

meet() # CASE
{
	timeout $((seconds * 2 + 60)) "$simguest" 5 xvdb hostile "$1" \
		--seconds "$seconds" --seed "$seed" > "$tmp/case" 2>&1 ||
		echo "status $?" >> "$tmp/case"
	cat "$tmp/case"
	grep -q "^hostile: $1: ok" "$tmp/case" || return 1
	[ ! -e "$tmp/harmed" ] || { echo "its neighbour:"; cat "$tmp/neighbour"; return 1; }
}

# Without a limit it is a million in a second.
flood_is_slow()
{
	local n
	n=$(sed -n 's/^hostile: flood: ok, \([0-9]*\) .*/\1/p' "$tmp/case")
	[ "${n:-0}" -ge 1 ] && [ "$n" -le $((10000 + seconds * 1000)) ]
}

# KiB of its own.  Not the PSS: when a process of another test ends, with which
# it shared its program and libraries, that becomes larger without its doing.  A
# sanitizer's are no measure.
sanitized() { grep -q __asan_init "$(readlink "/proc/$daemon_pid/exe")"; }
memory() { awk '/^Anonymous:/ { print $2 }' "/proc/$1/smaps_rollup"; }
grew_by_at_most() # KIB WHO BEFORE AFTER
{
	[ $(($4 - $3)) -le "$1" ] || { echo "$2 grew from $3 to $4 KiB"; return 1; }
}
# A lane gives its memory back when it has had nothing to do for 2 s.
idle() { sleep 3; }

# --- The cases ---------------------------------------------------------------------

# The first connection of each is what they are compared to.
ok "the neighbour, alone" guest 6 xvdb verify --seconds 1 --queues 2
ok "the guest, before its worst" meet requests
hostile=$(worker_of 5)
neighbour=$(worker_of 6)
idle
before=("$(memory "$daemon_pid")" "$(memory "$hostile")" "$(memory "$neighbour")")
neighbour &
neighbours=$!
cases=$("$simguest" --list | cut -d' ' -f1)
for case in $cases; do
	[ "$case" != destroyed ] || continue
	ok "$case" meet "$case"
	sed -n 's/^hostile: /# /p' "$tmp/case"
	ok "all live" all_live
	[ "$case" != flood ] ||
		ok "refused requests are looked at less and less often" \
			flood_is_slow
done
ok "the hostile guest's neighbour was at work" \
	eventually 5 grep -q "verify: ok" "$tmp/neighbour"
touch "$tmp/enough"
wait $neighbours
ok "and is unharmed" test ! -e "$tmp/harmed"
idle
after=("$(memory "$daemon_pid")" "$(memory "$hostile")" "$(memory "$neighbour")")
who=("the broker" "the hostile guest's worker" "its neighbour's worker")
bounds=(1024 1024 1024)
for i in 0 1 2; do
	echo "# Memory of ${who[i]}: ${before[i]} KiB before, ${after[i]} KiB after"
	if ! sanitized; then
		ok "${who[i]} has not grown by over ${bounds[i]} KiB" \
			grew_by_at_most "${bounds[i]}" "${who[i]}" \
			"${before[i]}" "${after[i]}"
	fi
done
peak=$(awk '/^VmHWM/ { print $2 }' "/proc/$hostile/status")
echo "# at most, its worker had $peak KiB in memory"
sanitized ||
	ok "nor was it ever over 40 MiB" test "$peak" -lt 40960
# It is told what it does, at most ten times a second.
not_flooded()
{
	local lines most=$(((SECONDS - began + 1) * 10))
	lines=$(grep -c 'd5/' "$tmp/log")
	echo "# $lines lines in $((SECONDS - began)) s"
	[ "$lines" -le "$most" ]
}
ok "the log is not flooded" not_flooded

# --- An event storm, from inside ------------------------------------------------------

# Millions of events; without the throttle (storm.h) each wakes the lane.
events_in()
{
	xendisk --json stats 5 xvdb |
		sed -n 's/.*"events_in": \([0-9]*\).*/\1/p' | head -1
}
background "$simguest" 5 xvdb hostile events --seconds 4 > "$tmp/storm" 2>&1
rings() { [ "$(events_in)" -ge 10 ]; }
few_wakes()
{
	local first second
	eventually 5 rings || return 1
	sleep 1
	first=$(events_in)
	sleep 1
	second=$(events_in)
	echo "$first, a second later $second"
	[ "$second" -ge "$first" ] && [ $((second - first)) -le 30 ]
}
ok "a storm of events wakes its lane ten times a second" few_wakes
wait "${cleanup_pids[-1]}" || :
ok "and afterwards it serves" grep -q "events: ok" "$tmp/storm"

# --- A guest that does not answer ------------------------------------------------------

background "$simguest" 5 xvdb hostile deaf --seconds 60 > /dev/null 2>&1
busy() { [ "$(state_of 5 xvdb)" = connected ]; }
ok "a guest that takes no answers is connected" eventually 5 busy
ok "its disk can be taken away by force" \
	toolstack detach 5 xvdb --force
ok "its worker is gone" eventually 35 is_gone "$hostile"
end_process "${cleanup_pids[-1]}"
ok "and attached again" toolstack attach 5 xvdb "$tmp/a.img"
hostile=$(worker_of 5)

# --- The end ---------------------------------------------------------------------------

ok "destroyed at work" meet destroyed
"$xensim" domain destroy 5 > /dev/null 2>&1 || :
one_left() { [ "$(xendisk --json list | grep -c '"domid"')" = 1 ]; }
ok "its disk is gone" eventually 10 one_left
ok "its worker too" eventually 10 is_gone "$hostile"
domain 5 > /dev/null
ok "a new domain of that number has its disk" \
	toolstack attach 5 xvdb "$tmp/a.img"
ok "and works" guest 5 xvdb verify --seconds 1
ok "a worker's death would have been seen" eval '
	kill -9 "$neighbour" && eventually 10 a_worker_died'
ok "it can be detached" toolstack detach 5 xvdb
ok "and the neighbour's" toolstack detach 6 xvdb
ok "the daemon ends" daemon_stop
