# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# A flush that fails. Linux takes a flush answered with ERROR or EOPNOTSUPP for
# a disk without a cache: fsync says 0. So neither is ever sent, the image is
# marked, and stays so until the operator clears it. This guest's blkfront (6.1)
# sends no flush after a failed one, whatever the answer: from then on xendiskd
# flushes after every write.

t 'failed fdatasync: EIO, nothing is believed, the mark stays' aB xendisk poison

conditions() {
	xendisk list --json pv | jq -r '.disks[0].conditions[]'
}

says_fsync() {
	gx -t 60 pv 'disk fsync xvdb' 2>&1
}

fsync_fails() {
	local said
	said=$(says_fsync)
	has "$1" "$said" '^fsync failed'
	has "$1" "$said" 'Input/output error'
}

guest_writes() {
	gx pv 'dd if=/dev/urandom of=/dev/xvdb bs=4096 count=1 oflag=direct conv=notrunc 2>&1'
}

poison() {
	local expr='raw(/dev/mapper/flaky, cache=writeback)'
	guest pv
	flakey_new /srv/flaky.img
	attach pv xvdb "$expr"
	has "a healthy disk" "$(says_fsync)" '^fsync ok'

	flakey_down
	fsync_fails "the first fsync"
	flakey_up
	# The kernel has dropped the pages: no later success can be believed.
	fsync_fails "fsync after the device recovered"
	has "list" "$(conditions)" poisoned

	detach pv xvdb
	stop_daemon
	start_daemon
	attach pv xvdb "$expr"
	has "list after a restart" "$(conditions)" poisoned
	fsync_fails "fsync after detach and restart"

	xendisk resume pv xvdb --accept-loss
	is "conditions" "$(conditions)" ''
	has "fsync after resume" "$(says_fsync)" '^fsync ok'
	detach pv xvdb

	# A guest that has stopped flushing loses nothing unnoticed either.
	attach pv xvdb "$expr"
	flakey_down
	fsync_fails "the second failure"
	flakey_up
	xendisk resume pv xvdb --accept-loss
	is "the guest's cache mode" \
		"$(gx pv 'cat /sys/block/xvdb/queue/write_cache')" 'write through'
	guest_writes
	flakey_down
	refuse guest_writes
	flakey_up
	xendisk resume pv xvdb --accept-loss
	detach pv xvdb

	attach pv xvdb "$expr"
	is "conditions of a new attach" "$(conditions)" ''
	has "fsync of a new attach" "$(says_fsync)" '^fsync ok'
	detach pv xvdb
	flakey_gone /srv/flaky.img
}
