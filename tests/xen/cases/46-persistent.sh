# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Pages of a guest that stay mapped, as Linux's blkfront has them.

t 'persistent grants: verified, a worker dies, no page stays mapped' aB xendisk persistent

# How many segments were copied so: grant, by call, or kept, in mapped pages.
copies() {
	xendisk --json stats pv xvdb |
		sed -n "s/.*\"$1_copies\": \([0-9]*\).*/\1/p" |
		awk '{n += $1} END {print n + 0}'
}

# Of the guest's pages; each by itself, but for the ring.
mapped() {
	grep -c gntdev "/proc/$(worker)/maps" || :
}

another_worker() {
	local now
	now=$(worker)
	[ -n "$now" ] && [ "$now" != "$1" ]
}

is_closed() {
	[ "$(backend_key pv xvdb state)" = 6 ]
}

# The guest lets go of the disk; xl, which also ends the worker, comes later.
close_disk() {
	local dir
	dir=$(xenstore-read "/libxl/$(domid pv)/device/vbd/$(devid xvdb)/backend")
	xenstore-write "$dir/online" 0 "$dir/state" 5
	within 60 is_closed
}

persistent() {
	local kept old
	guest pv
	settings 'persistent-grants = yes'
	gx pv 'dmesg -c >/dev/null'
	attach pv xvdb 'mem(16M)'
	is "what is offered" "$(backend_key pv xvdb feature-persistent)" 1
	gx -t 120 pv 'disk fio xvdb'
	kept=$(copies kept)
	[ "$kept" -gt 1000 ] || fail "$kept segments were in pages that stay mapped"
	# The next daemon's setting is not what the guest was told: that counts.
	: >"$CONFIG"
	kill_daemon
	old=$(worker)
	kill -KILL "$old"
	start_daemon
	within 30 another_worker "$old"
	gx -t 120 pv 'disk fio xvdb'
	[ "$(copies kept)" -gt $((kept + 1000)) ] ||
		fail "$(copies kept) in the end, $kept before the worker died"
	[ "$(mapped)" -gt 100 ] || fail "$(mapped) mappings"
	echo "$(copies kept) segments in mapped pages, $(copies grant) by calls"
	close_disk
	is "what is mapped when the guest has closed the disk" "$(mapped)" 0
	detach pv xvdb
	refuse gx pv 'dmesg | grep -E "still in use|further use|I/O error"'
}
