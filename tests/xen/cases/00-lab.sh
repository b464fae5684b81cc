# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# The lab itself: what the other cases stand on, and that they can fail.

t 'lab: blkback and the daemon are as the mode says' AB xendisk lab_mode
t 'lab: a PV guest runs' AB any lab_pv
t 'lab: a corrupted file is caught by dom0 and by the guest' A any lab_corrupt
t 'lab: a key left in xenstore is caught' A any lab_keys
t 'lab: a load notices what changes behind its back' b xendisk lab_load
t 'lab: dm-flakey fails fdatasync and not the write' A any lab_flakey

blkback_queues=/sys/module/xen_blkback/parameters/max_queues

lab_mode() {
	daemon_runs || fail "xendiskd does not run"
	if [ "$MODE" = A ]; then
		[ -d /sys/module/xen_blkback ] || fail "no xen-blkback"
		# As many as a disk of ours may have, whoever has loaded it.
		is "its queues" "$(cat $blkback_queues)" 4
		echo 20 >$blkback_queues
		stop_daemon
		start_daemon
		is "its queues" "$(cat $blkback_queues)" 16
	else
		[ ! -d /sys/module/xen_blkback ] || fail "xen-blkback is loaded"
		refuse modprobe xen-blkback
	fi
}

lab_pv() {
	guest pv
	alive pv
}

# One byte of one file changes behind the file system's back. The kernel's own
# backend serves the disk: the case is about the checks.
lab_corrupt() {
	local block
	guest pv
	cp /srv/gold.img /srv/bad.img
	image_is_good /srv/bad.img
	block=$(debugfs -R 'bmap file-aac 0' /srv/bad.img 2>/dev/null)
	printf 'X' | dd of=/srv/bad.img bs=1 seek=$((block * 4096 + 17)) \
		conv=notrunc status=none
	refuse image_is_good /srv/bad.img
	has "the complaint" "$output" 'file-aac: FAILED'
	BACKEND=blkback attach pv xvdb /srv/bad.img
	refuse gx -t 60 pv 'disk check xvdb'
	has "the complaint" "$output" 'file-aac: FAILED'
	BACKEND=blkback detach pv xvdb
	rm /srv/bad.img
}

lab_keys() {
	local id
	guest pv
	id=$(domid pv)
	xenstore-write "/local/domain/0/backend/vbd/$id/$(devid xvdk)/state" 6
	refuse no_keys "$id" xvdk
	has "the complaint" "$output" 'left behind: /local/domain/0/backend/vbd'
	xenstore-rm "/local/domain/0/backend/vbd/$id/$(devid xvdk)"
	no_keys "$id" xvdk
}

# What the part "once" of "disk load" has written.
lose_once() {
	dd if=/dev/zero of=/srv/d.img bs=1M seek=12 count=8 \
		conv=notrunc,fsync status=none
}

once_has_come() {
	[ "$(dd if=/srv/d.img bs=1M skip=12 count=8 status=none |
		tr -d '\0' | wc -c)" -gt 65536 ]
}

# A lost write, and a torn one.
lab_load() {
	guest pv
	image /srv/d.img 24M
	attach pv xvdb /srv/d.img
	load_start pv xvdb 4
	load_end pv xvdb
	gx pv 'disk whole xvdb'
	printf X | dd of=/srv/d.img bs=1 seek=$(((8 << 20) + 70000)) \
		conv=notrunc,fsync status=none
	refuse gx pv 'disk whole xvdb'
	has "the complaint" "$output" 'verify failed'
	lose_once
	load_start pv xvdb 6
	within 60 once_has_come
	lose_once
	refuse load_end pv xvdb
	has "the complaint" "$output" 'verify'
	detach pv xvdb
	rm /srv/d.img
}

lab_flakey() {
	flakey_new /srv/flaky.img
	dd if=/dev/zero of=/dev/mapper/flaky bs=4096 count=4 conv=fdatasync \
		status=none
	flakey_down
	dd if=/dev/zero of=/dev/mapper/flaky bs=4096 count=4 status=none
	refuse dd if=/dev/zero of=/dev/mapper/flaky bs=4096 count=4 \
		conv=fdatasync status=none
	has "dd's complaint" "$output" 'Input/output error'
	flakey_up
	dd if=/dev/zero of=/dev/mapper/flaky bs=4096 count=4 conv=fdatasync \
		status=none
	flakey_gone /srv/flaky.img
}
