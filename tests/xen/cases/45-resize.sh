# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# A disk that grows under a guest that has it mounted.

t 'resize: a file that grows, and xendisk resize, while mounted' B xendisk \
	resize_mounted 400

# guest_size DOM DEV BYTES: what the guest's kernel takes it for.
guest_size() {
	[ "$(gx -t 60 "$1" "blockdev --getsize64 /dev/$2")" = "$3" ]
}

# What the guest writes at that MiB comes back past its page cache; dom0 has it.
new_part_is_good() {
	local put="dd if=/tmp/r of=/dev/xvdb bs=1M seek=$1 conv=notrunc,fsync"
	local get="dd if=/dev/xvdb of=/tmp/s bs=1M skip=$1 count=1"
	gx -t 60 pv 'head -c 1048576 /dev/urandom >/tmp/r'
	gx -t 120 pv "$put && echo 3 >/proc/sys/vm/drop_caches && $get"
	gx -t 60 pv 'cmp /tmp/r /tmp/s'
	is "what the file has" \
		"$(dd if=/srv/d.img bs=1M skip="$1" count=1 2>/dev/null | digest -)" \
		"$(gx -t 60 pv 'sha256sum /tmp/r' | cut -d' ' -f1)"
}

resize_mounted() {
	local connects
	guest pv
	image /srv/d.img 96M
	attach pv xvdb /srv/d.img
	connects=$(grep -c 'connected: rings' "$LOG")
	gx -t 60 pv 'disk format xvdb && echo hello >/mnt/hello && sync'
	guest_size pv xvdb $((96 << 20))

	truncate -s 128M /srv/d.img
	within 120 guest_size pv xvdb $((128 << 20))
	new_part_is_good 127

	is "what resize prints" "$(xendisk resize pv xvdb 160M)" 160M
	is "the file" "$(stat -c %s /srv/d.img)" $((160 << 20))
	within 60 guest_size pv xvdb $((160 << 20))
	new_part_is_good 159
	refuse xendisk resize pv xvdb 96M
	has "what it says" "$output" 'would shrink'
	is "sectors" "$(backend_key pv xvdb sectors)" $((160 << 11))
	is "the backend's state" "$(backend_key pv xvdb state)" 4
	is "connects" "$(grep -c 'connected: rings' "$LOG")" "$connects"

	# It is still mounted, and was all the time.
	is "the old file" "$(gx -t 60 pv 'cat /mnt/hello')" hello
	gx -t 60 pv 'echo more >/mnt/more && sync && umount /mnt'
	detach pv xvdb
	e2fsck -fn /srv/d.img >/dev/null
	rm /srv/d.img
}
