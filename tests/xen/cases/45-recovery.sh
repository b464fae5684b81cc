# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Processes die under a guest at work: it may notice nothing but a delay.

t 'kill -9 of worker, daemon and both, under load: no error' aB xendisk kills 600
t 'the daemon is stopped: detach waits for the next one' Ab xendisk stopped_detach

worker_is_new() {
	local now
	now=$(worker)
	[ -n "$now" ] && [ "$now" != "$1" ]
}

# kill_one WORD: the worker, the daemon (which is started again) or both. While
# there is a daemon the image has another name: a worker gets the file that was
# attached. A new daemon looks for the name.
kill_one() {
	local old
	within 30 worker_is_new none
	old=$(worker)
	case $1 in
	worker)
		mv /srv/slow/d.img /srv/slow/moved.img
		kill -KILL "$old"
		within 30 worker_is_new "$old"
		mv /srv/slow/moved.img /srv/slow/d.img
		;;
	daemon)
		kill_daemon
		start_daemon
		;;
	both)
		kill_daemon
		kill -KILL "$old"
		start_daemon
		within 30 worker_is_new "$old"
		;;
	esac
}

# What was in flight when workers died, as their successors say.
in_flight() {
	tail -n +"$1" "$LOG" | sed -n \
		's/.*goes on after a worker died: \([0-9]*\) requests.*/\1/p'
}

# A load that has begun.
has_come() {
	[ "$(stat -c %b "$1")" -gt 0 ]
}

flying() {
	in_flight "$1" | awk '{n += $1} END {print n + 0}'
}

# Four, or as many as it takes: a load has moments with nothing in flight.
kills() {
	local i=0 before n=4 words=(worker daemon worker both)
	[ -z "${XENLAB_ALL:-}" ] || n=20
	guest pv
	slow_new /srv/slow.img
	image /srv/slow/d.img 24M
	attach pv xvdb /srv/slow/d.img
	before=$(wc -l <"$LOG")
	# The guest has seen disks that failed, in cases before this one.
	gx pv 'dmesg -c >/dev/null'
	load_start pv xvdb
	within 60 has_come /srv/slow/d.img
	until [ $i -ge $n ] && {
		[ $i -ge 20 ] || [ "$(flying "$before")" -ge $((n / 2)) ]
	}; do
		kill_one "${words[i % 4]}"
		i=$((i + 1))
		sleep "0.$((RANDOM % 9 + 1))"
	done
	load_end pv xvdb
	refuse gx pv 'dmesg | grep -E "I/O error|wrong operation|further use"'
	[ "$(in_flight "$before" | wc -l)" -ge $((n * 3 / 4)) ] ||
		fail "fewer workers have gone on than were killed"
	echo "$(flying "$before") requests were in flight when workers died"
	[ "$(flying "$before")" -ge $((n / 2)) ] ||
		fail "too few to show anything"
	detach pv xvdb
	rm /srv/slow/d.img
	slow_gone /srv/slow.img
}

# may_administer PID: does it have CAP_SYS_ADMIN?
may_administer() {
	[ $((0x$(awk '/^CapBnd/ {print $2}' "/proc/$1/status") >> 21 & 1)) = 1 ]
}

# xl waits 10 s for the backend to close; nobody answers before there is a
# daemon again. In between the guest's writes wait in the ring.
stopped_detach() {
	local pid status=0
	guest pv
	image /srv/d.img 96M
	attach pv xvdb /srv/d.img
	gx -t 300 pv 'disk fill xvdb'
	stop_daemon
	start_daemon
	refuse may_administer "$(cat "$PIDFILE")"
	may_administer $$
	gx -t 120 pv 'disk check xvdb'
	stop_daemon
	patient xl block-detach pv xvdb &
	pid=$!
	sleep 2
	start_daemon
	wait $pid || status=$?
	is "xl's status" $status 0
	no_keys "$(domid pv)" xvdb
	gx -t 90 pv 'disk gone xvdb'
	image_is_good /srv/d.img
	rm /srv/d.img
}
