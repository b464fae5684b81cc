# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# One disk of each kind, attached by xl, used by a Linux guest, detached.

t 'raw: file system, 1000 files, fio, detach, e2fsck and sums' AB any raw_trip
t 'raw: an image file grows no larger than what was written' Ab xendisk raw_sparse
t 'mem(64M)' aB xendisk mem_trip
t 'cow(gold, mem): the gold file stays as it is' ab xendisk cow_trip
t 'cow(gold, scratch file): empty again at the next attach' aB xendisk cow_file
t 'readonly(gold): reads, and refuses writes' Ab xendisk readonly_trip
t '@name: a disk of the configuration file' aB xendisk named_trip
t 'three attaches and detaches in a row' ab any again

raw_trip() {
	guest pv
	image /srv/d.img 96M
	attach pv xvdb /srv/d.img
	gx -t 300 pv 'disk fill xvdb 1000 && disk check xvdb 1000'
	detach pv xvdb
	image_is_good /srv/d.img
	rm /srv/d.img
}

# Discards become holes.
raw_sparse() {
	local full empty
	guest pv
	image /srv/d.img 64M
	attach pv xvdb /srv/d.img
	gx pv 'dd if=/dev/urandom of=/dev/xvdb bs=1M count=16 conv=fsync 2>&1'
	full=$(stat -c '%b' /srv/d.img)
	[ "$full" -ge 32768 ] || fail "16 MiB written take only $full sectors"
	gx pv 'blkdiscard /dev/xvdb && sync'
	empty=$(stat -c '%b' /srv/d.img)
	[ "$empty" -lt 4096 ] || fail "$empty sectors are left after blkdiscard"
	detach pv xvdb
	is "the size" "$(stat -c %s /srv/d.img)" $((64 << 20))
	rm /srv/d.img
}

mem_trip() {
	guest pv
	is "the size" "$(attach pv xvdb 'mem(64M)')" $((64 << 11))
	gx -t 300 pv 'disk fill xvdb && disk check xvdb'
	detach pv xvdb
	# A new one is empty, and the short spelling is the same disk.
	attach pv xvdb mem:64M
	is "the first byte" "$(gx pv 'head -c 1048576 /dev/xvdb | tr -d "\\000" | wc -c')" 0
	detach pv xvdb
	is "files in /dev/shm/xendiskd" \
		"$(find /dev/shm/xendiskd -type f 2>/dev/null | wc -l)" 0
}

cow_trip() {
	local before
	guest pv
	before=$(digest /srv/gold.img)
	attach pv xvdb 'cow(/srv/gold.img, mem)'
	gx -t 120 pv 'disk check xvdb'
	gx -t 300 pv 'disk fill xvdb && disk check xvdb'
	detach pv xvdb
	is "gold.img's sum" "$(digest /srv/gold.img)" "$before"
	# What was written is gone with the disk.
	attach pv xvdb 'cow(/srv/gold.img, mem)'
	gx -t 120 pv 'disk check xvdb'
	detach pv xvdb
	image_is_good /srv/gold.img
}

cow_file() {
	local before
	guest pv
	before=$(digest /srv/gold.img)
	image /srv/top.img 48M
	attach pv xvdb 'cow(/srv/gold.img, /srv/top.img)'
	gx -t 300 pv 'disk check xvdb && disk fill xvdb && disk check xvdb'
	detach pv xvdb
	attach pv xvdb 'cow(/srv/gold.img, /srv/top.img)'
	gx -t 120 pv 'disk check xvdb'
	detach pv xvdb
	is "gold.img's sum" "$(digest /srv/gold.img)" "$before"
	rm /srv/top.img
}

readonly_trip() {
	local before
	guest pv
	before=$(digest /srv/gold.img)
	attach pv xvdb 'readonly(/srv/gold.img)' access=ro
	is "the guest's ro" "$(gx pv 'cat /sys/block/xvdb/ro')" 1
	gx -t 120 pv 'disk check xvdb'
	refuse gx pv 'dd if=/dev/zero of=/dev/xvdb bs=4096 count=1 conv=fsync'
	detach pv xvdb
	is "gold.img's sum" "$(digest /srv/gold.img)" "$before"
}

named_trip() {
	guest pv
	image /srv/web.img 32M
	settings 'disk "web1" { expr = "/srv/web.img" }'
	attach pv xvdb @web1
	has "the list" "$(xendisk list)" 'web'
	gx -t 120 pv 'disk fio xvdb'
	refuse cmp -s -n 8388608 /srv/web.img /dev/zero
	detach pv xvdb
	settings ''
	rm /srv/web.img
}

again() {
	local i
	guest pv
	image /srv/d.img 16M
	for ((i = 0; i < 3; i++)); do
		attach pv xvdb /srv/d.img
		detach pv xvdb
	done
	rm /srv/d.img
}
