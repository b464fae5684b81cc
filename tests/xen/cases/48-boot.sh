# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Guests whose kernel is on a disk of ours.

t 'pygrub: kernel and initrd from the disk, which the guest then has' A xendisk by_pygrub 600
t 'HVM: the BIOS boots from the disk, through QEMU' B xendisk by_bios 600

# xl attaches the disk to dom0, where pygrub reads it, and then to the guest.
by_pygrub() {
	# Dom0's own /boot: the disk is what a partition for /boot would be.
	mkdir -p /boot/grub
	cat >/boot/grub/grub.cfg <<-'END'
	set default="0"
	menuentry 'the lab' {
		linux /vmlinux lab.from=grub.cfg
		initrd /guest.cpio
	}
	END
	image /srv/d.img 192M
	mkfs.ext4 -q -F -U 6e646b73-0000-4000-8000-000000000004 \
		-E hash_seed=6e646b73-0000-4000-8000-000000000004 \
		-d /boot /srv/d.img
	modprobe xen-blkfront
	BOOTLOADER=pygrub mkguest grub "disk = [ '$(spec xvda /srv/d.img)' ]"
	has "the guest's command line" "$(gx grub 'cat /proc/cmdline')" \
		'lab.from=grub.cfg'
	no_keys 0 xvda
	gx -t 90 grub 'disk wait xvda'
	gx -t 60 grub 'mount /dev/xvda /mnt && touch /mnt/here && umount /mnt'
	xl destroy grub
	e2fsck -fp /srv/d.img || [ $? -le 1 ]
	has 'what the guest wrote' "$(debugfs -R 'ls /' /srv/d.img 2>/dev/null)" here
	# Without a kernel there, there is no guest, and dom0 keeps no disk.
	debugfs -w -R 'rm /vmlinux' /srv/d.img 2>/dev/null
	BOOTLOADER=pygrub refuse mkguest grub "disk = [ '$(spec xvda /srv/d.img)' ]"
	no_keys 0 xvda
	rm /srv/d.img
}

# A boot sector says what is in the next one, and writes it to the one after.
by_bios() {
	local id
	. /lab/boot-sector.sh
	boot_disk /srv/d.img 16M 'sector two says hello'
	cat >/run/lab/hvm.cfg <<-END
	name = "hvm"
	type = "hvm"
	memory = 32
	vnc = 0
	vga = "none"
	serial = "file:/run/lab/hvm.serial"
	on_reboot = "preserve"
	disk = [ '$(spec xvda /srv/d.img)' ]
	END
	xl create -q /run/lab/hvm.cfg || {
		cat /var/log/xen/qemu-dm-hvm.log >&2
		exit 1
	}
	within 300 grep -q 'sector two says hello' /run/lab/hvm.serial
	within 60 third_sector
	id=$(domid hvm)
	is "QEMU's file" "$(backend_key hvm xvda physical-device-path)" \
		"nbd+unix:///?socket=/run/xendiskd/nbd/$id-$(devid xvda).sock"
	xl destroy hvm
	no_keys "$id" xvda
	rm /srv/d.img
}
third_sector() {
	dd if=/srv/d.img bs=512 skip=2 count=1 status=none |
		grep -aq 'sector two says hello'
}
