# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Several disks, several queues, and the ends a guest can come to.

t 'a phy disk on blkback beside ours: untouched, and works' A xendisk beside_phy
t 'disk=[...] at create, block-list' Ab xendisk at_create
t 'block-attach to a PVH guest' Ab any pvh_trip
t 'a queue for each CPU, at create and by block-attach' Ab xendisk all_queues
t 'blkfront loaded anew: fewer queues, another ring order' Ab xendisk reload 400
t 'block-detach --force, then xl destroy, with I/O in flight' Ab xendisk destroy_busy
t 'detach while mounted' aB any detach_mounted
t 'block-detach --force' Ab any detach_force
t 'the guest reads no params' Ab xendisk params_hidden
t 'a disk in dom0 itself, as pygrub has it' Ab xendisk dom0_disk
t 'a guest that reboots finds its disk' Ab any reboot
t 'save and restore with the disk mounted and at work' aB any save_restore

# The phy disk comes first and stays; ours comes and goes beside it.
beside_phy() {
	local dir state
	guest pv
	image /srv/phy.img 96M
	image /srv/d.img 96M
	BACKEND=blkback round_trip pv xvdc /srv/phy.img
	dir=/local/domain/0/backend/vbd/$(domid pv)/$(devid xvdc)
	state=$(xenstore-ls -p "$dir")
	attach pv xvdb /srv/d.img
	# While ours works, so does the other, and nobody touched its keys.
	gx -t 300 pv 'disk fio xvdb & disk check xvdc; wait $!'
	is "the phy disk's keys" "$(xenstore-ls -p "$dir")" "$state"
	has "blkback's devices" "$(ls /sys/bus/xen-backend/drivers/vbd)" \
		"vbd-$(domid pv)-$(devid xvdc)"
	refuse grep -q "vbd-$(domid pv)-$(devid xvdb)" \
		<(ls /sys/bus/xen-backend/drivers/vbd)
	detach pv xvdb
	gx -t 120 pv 'disk check xvdc'
	BACKEND=blkback detach pv xvdc
	image_is_good /srv/phy.img
	rm /srv/phy.img /srv/d.img
}

queues() {
	gx "$1" "ls /sys/block/$2/mq | wc -l"
}

# All spellings at once, in the guest that is PVH.
at_create() {
	local dev lines
	image /srv/d.img 96M
	image /srv/phy.img 96M
	settings 'disk "web1" { expr = "mem(64M)" }'
	lines="'$(spec xvdb /srv/d.img)', '$(spec xvdc @web1)'"
	lines+=", '$(spec xvdd 'cow(/srv/gold.img, mem)')'"
	lines+=", '$(spec xvde 'readonly(/srv/gold.img)' access=ro)'"
	[ "$MODE" = B ] ||
		lines+=", '$(BACKEND=blkback spec xvdf /srv/phy.img)'"
	guest pvh "disk = [ $lines ]"
	for dev in xvdb xvdc xvdd xvde; do
		gx -t 90 pvh "disk wait $dev"
	done
	is "the number of disks" "$(xl block-list pvh | grep -c '^5[0-9]* ')" \
		"$([ "$MODE" = A ] && echo 5 || echo 4)"
	has "block-list" "$(xl block-list pvh)" \
		"^$(devid xvdb) .* 4 .*/local/domain/0/backend/"
	gx -t 300 pvh 'disk fill xvdb && disk check xvdb && disk fio xvdc'
	gx -t 300 pvh 'disk check xvdd'
	is "the first file by xvde" "$(gx pvh 'mount -o ro /dev/xvde /mnt && cd /mnt && head -1 SHA256SUMS | sha256sum -c; cd /; umount /mnt')" \
		'file-aaa: OK'
	for dev in xvdb xvdc xvdd xvde; do
		detach pvh $dev
	done
	[ "$MODE" = B ] || BACKEND=blkback detach pvh xvdf
	image_is_good /srv/d.img
	settings ''
	rm /srv/d.img /srv/phy.img
}

# The guest that at_create has made; there it had a file system.
pvh_trip() {
	guest pvh
	image /srv/d.img 32M
	attach pvh xvdb /srv/d.img
	gx -t 300 pvh 'disk fio xvdb'
	detach pvh xvdb
	rm /srv/d.img
}

# At create, when the guest has not looked yet, and by hot-plug, when in mode A
# it has read what xen-blkback offered. A job on each CPU uses all of them.
all_queues() {
	image /srv/d.img 96M
	guest smp "disk = [ '$(spec xvdb /srv/d.img)' ]"
	attach smp xvdc 'mem(64M)'
	for dev in xvdb xvdc; do
		gx -t 90 smp "disk wait $dev"
		is "$dev's queues" "$(queues smp $dev)" "$CPUS"
	done
	gx -t 300 smp "disk fio xvdb $CPUS"
	gx -t 300 smp "disk fio xvdc $CPUS"
	detach smp xvdb
	detach smp xvdc
	rm /srv/d.img
}

# frontend_anew DIR ID: the frontend of a disk as a guest finds it that boots
# again in the same domain: from the beginning, with all that the last one wrote.
# Linux's blkfront does not do that itself when it is loaded again.
frontend_anew() {
	local line keys
	keys=$(xenstore-ls -f "$1")
	xenstore-rm "$1"
	gx -t 60 smp "until [ ! -e /sys/bus/xen/devices/vbd-${1##*/} ];\
		do sleep 0.2; done"
	xenstore-write "$1" ''
	xenstore-chmod "$1" "n$2" r0
	while IFS= read -r line; do
		[[ $line =~ ^($1/[^ ]+)\ =\ \"(.*)\"$ ]] ||
			fail "what is this key? $line"
		[ "${BASH_REMATCH[1]}" = "$1/state" ] ||
			xenstore-write "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
	done <<<"$keys"
	xenstore-write "$1/state" 1
}

# A command in a guest is one line.
blob="/dev/xvdb bs=64k count=16"

# reloaded QUEUES ORDER: by a driver that is content with these; the data is
# what was written before the first.
reloaded() {
	local id dir
	id=$(domid smp)
	dir=/local/domain/$id/device/vbd/$(devid xvdb)
	# A device that is bound keeps the module.
	gx -t 90 smp "cd /sys/bus/xen/drivers/vbd &&\
		for d in vbd-*; do echo \$d >unbind; done; rmmod xen_blkfront"
	frontend_anew "$dir" "$id"
	gx -t 90 smp "modprobe xen-blkfront max_queues=$1\
		max_ring_page_order=$2 && disk wait xvdb"
	is "the queues" "$(queues smp xvdb)" "$1"
	has "what xendiskd says" "$(grep 'connected: rings' "$LOG" | tail -1)" \
		"rings $1, pages in each $((1 << $2))\$"
	gx -t 60 smp "dd if=$blob of=/tmp/back skip=384 2>&1 &&\
		cmp /tmp/blob /tmp/back"
	gx -t 120 smp 'disk load xvdb 2'
}

# The old driver's keys are still there: a queue more, or two; then also a key for
# each of four pages.
reload() {
	guest smp
	image /srv/d.img 96M
	attach smp xvdb /srv/d.img
	is "the queues" "$(queues smp xvdb)" "$CPUS"
	gx -t 60 smp 'head -c 1048576 /dev/urandom >/tmp/blob'
	gx -t 60 smp "dd if=/tmp/blob of=$blob seek=384 oflag=direct 2>&1"
	if [ "$CPUS" -gt 2 ]; then
		reloaded 2 2
		reloaded 1 0
	else
		reloaded 1 2
	fi
	detach smp xvdb
	rm /srv/d.img
}

# Linux gives a mounted disk up at once: what was not yet written is lost, and
# neither side may hang.
detach_mounted() {
	guest pv
	image /srv/d.img 96M
	attach pv xvdb /srv/d.img
	gx -t 60 pv 'disk format xvdb && echo hello >/mnt/hello && sync'
	patient xl block-detach pv xvdb
	no_keys "$(domid pv)" xvdb
	gx -t 60 pv 'umount /mnt; true'
	gx -t 90 pv 'disk gone xvdb'
	alive pv
	attach pv xvdb /srv/d.img
	is "the file" "$(gx -t 60 pv 'mount /dev/xvdb /mnt && cat /mnt/hello && umount /mnt')" hello
	detach pv xvdb
	rm /srv/d.img
}

detach_force() {
	guest pv
	image /srv/d.img 96M
	attach pv xvdb /srv/d.img
	gx -t 60 pv 'disk format xvdb && echo hello >/mnt/hello && sync'
	patient xl block-detach pv xvdb --force
	no_keys "$(domid pv)" xvdb
	gx -t 60 pv 'umount /mnt; true'
	gx -t 90 pv 'disk gone xvdb'
	attach pv xvdb /srv/d.img
	gx -t 120 pv 'disk fio xvdb'
	detach pv xvdb
	rm /srv/d.img
}

# The last case of the guest with several CPUs. By force means without asking the
# guest: its own I/O may hang then, so that it is fit for nothing else.
destroy_busy() {
	local id said
	guest smp
	id=$(domid smp)
	image /srv/d.img 96M
	attach smp xvdb /srv/d.img
	attach smp xvdc mem:64M
	gx smp 'for d in b c; do while dd if=/dev/zero of=/dev/xvd$d bs=64k; do :; done >/dev/null 2>&1 & done'
	sleep 1
	patient xl block-detach smp xvdc --force
	no_keys "$id" xvdc
	alive smp
	# xl waits 10 s for a backend that does not close, and then says so.
	said=$(patient xl destroy smp 2>&1)
	is "what xl destroy said" "$said" ''
	no_keys "$id" xvdb
	no_keys "$id" xvdc
	# All its memory is given back: no grant of it is still mapped.
	within 10 domain_is_gone "$id"
	[ "$BACKEND" = blkback ] || within 10 no_workers
	rm /srv/d.img
}

domain_is_gone() {
	! xl list 2>/dev/null | awk -v id="$1" '$2 == id' | grep -q . ||
		return 1
}

# libxl writes the target where the guest can read it; it may hold a secret.
params_hidden() {
	local dir
	guest pv
	image /srv/secret-name.img 16M
	attach pv xvdb /srv/secret-name.img
	dir=/local/domain/0/backend/vbd/$(domid pv)/$(devid xvdb)
	is "params" "$(backend_key pv xvdb params)" /srv/secret-name.img
	# The guest can read its backend directory, only not that.
	gx pv "xenstore-read $dir/sectors"
	refuse gx pv "xenstore-read $dir/params"
	refuse grep -rq secret-name \
		<(gx pv "xenstore-ls $dir; xenstore-ls /local/domain/$(domid pv)")
	detach pv xvdb
	rm /srv/secret-name.img
}

rebooted() {
	local id
	id=$(xl domid pv 2>/dev/null) && [ "$id" != "$1" ]
}

# xl re-creates the domain, under a new number, with what it was attached.
reboot() {
	local old sum
	guest pv
	image /srv/d.img 96M
	attach pv xvdb /srv/d.img
	gx -t 60 pv 'disk format xvdb'
	sum=$(gx -t 60 pv 'head -c 4194304 /dev/urandom | tee /mnt/blob | sha256sum')
	gx -t 60 pv 'umount /mnt'
	old=$(domid pv)
	gx -t 10 pv 'sync; busybox reboot -f' >/dev/null 2>&1 || :
	within 60 rebooted "$old"
	rm -f /run/lab/tty.pv
	gx -t 180 pv true
	gx -t 120 pv 'disk wait xvdb && mount /dev/xvdb /mnt'
	is "the data" "$(gx -t 60 pv 'sha256sum </mnt/blob && umount /mnt')" "$sum"
	no_keys "$old" xvdb
	detach pv xvdb
	e2fsck -fn /srv/d.img
	rm /srv/d.img
}

dom0_disk() {
	modprobe xen-blkfront
	cp /srv/gold.img /srv/d.img
	patient xl block-attach 0 "$(spec xvdp /srv/d.img)"
	within 60 test -b /dev/xvdp
	cmp /dev/xvdp /srv/gold.img
	dd if=/dev/urandom of=/dev/xvdp bs=64k count=16 oflag=direct
	sync
	is "the disk" "$(digest /dev/xvdp)" "$(digest /srv/d.img)"
	patient xl block-detach 0 xvdp
	no_keys 0 xvdp
	rm /srv/d.img
}

# One disk is mounted, the other under a load that checks itself: what was in
# flight when the guest was saved is sent again by its driver.
save_restore() {
	local old
	guest pv
	image /srv/d.img 96M
	image /srv/e.img 24M
	attach pv xvdb /srv/d.img
	attach pv xvdc /srv/e.img
	gx -t 60 pv 'disk format xvdb'
	load_start pv xvdc
	gx pv '(i=0; while [ ! -e /tmp/stop ]; do i=$((i + 1)); echo $i >/mnt/n; sync /mnt/n; sleep 0.2; done; echo $i >/tmp/n) >/dev/null 2>&1 &'
	old=$(domid pv)
	patient xl save pv /srv/pv.save
	rm -f /run/lab/tty.pv
	no_keys "$old" xvdb
	patient xl restore /srv/pv.save
	rm /srv/pv.save
	gx -t 180 pv true
	sleep 1
	gx -t 60 pv 'touch /tmp/stop; until [ -s /tmp/n ]; do sleep 0.2; done'
	gx -t 60 pv 'umount /mnt; mount /dev/xvdb /mnt; cmp /mnt/n /tmp/n && umount /mnt'
	gx pv 'rm /tmp/stop /tmp/n'
	load_end pv xvdc
	detach pv xvdc
	detach pv xvdb
	e2fsck -fn /srv/d.img
	rm /srv/d.img /srv/e.img
}
