# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Disks whose snapshots are commits.

t 'git: snapshots under a mounted file system, an older one beside it, rollback' \
	A xendisk git_disk 900
t 'git: a guest boots from a fork' B xendisk git_fork 600

repository() {
	rm -rf /srv/vm.git
	xendisk git init /srv/vm.git
}

repository_is_sound() {
	git --git-dir=/srv/vm.git fsck --full --strict 2>&1 ||
		fail "git fsck refuses it"
	is "what is left in its pack folder" \
		"$(find /srv/vm.git/objects/pack -name '*.keep' -o -name '*tmp*')" ''
}

# exported REV FILE: a file of the file system in that commit, its journal played.
exported() {
	xendisk git export /srv/vm.git "$1" -o /srv/x.img --force >/dev/null
	e2fsck -fp /srv/x.img >/run/lab/e2fsck 2>&1 || [ $? -le 1 ] || {
		cat /run/lab/e2fsck >&2
		fail "e2fsck refuses $1"
	}
	debugfs -R "cat $2" /srv/x.img 2>/dev/null
	rm /srv/x.img
}

snapshot_of() {
	patient xendisk snapshot "$1" "$2" -m "$3" --wait
}

git_disk() {
	local one two three
	guest pv
	repository
	xendisk git create /srv/vm.git main --size 64M >/dev/null
	is "the size" "$(attach pv xvdb git:/srv/vm.git)" $((64 << 11))
	gx -t 120 pv 'disk format xvdb && echo one >/mnt/a && sync'
	one=$(snapshot_of pv xvdb one)
	gx pv '(while ! [ -e /tmp/enough ]; do dd if=/dev/urandom of=/mnt/b bs=64k count=64 conv=fsync; done; touch /tmp/ended) >/dev/null 2>&1 &'
	gx pv 'echo two >/mnt/a && sync'
	two=$(snapshot_of pv xvdb two)
	gx pv 'echo three >/mnt/a && sync'
	three=$(snapshot_of pv xvdb three)
	is "commits" "$(git --git-dir=/srv/vm.git log -3 --format=%s main)" \
		$'three\ntwo\none'
	is "the head" "$(git --git-dir=/srv/vm.git rev-parse main)" "$three"
	is "what xenstore says" "$(backend_key pv xvdb xendisk-commit)" "$three"

	gx pv 'touch /tmp/enough'
	within 60 gx pv 'test -e /tmp/ended'
	gx pv 'rm /tmp/enough /tmp/ended'

	# The first two at the same time, in another guest.
	guest pvh
	attach pvh xvdc "git:/srv/vm.git?rev=$one" access=ro
	is "its first file" "$(gx -t 60 pvh 'mount -o ro,noload /dev/xvdc /mnt && cat /mnt/a; umount /mnt')" one
	detach pvh xvdc
	attach pvh xvdc "cow(git(/srv/vm.git, rev=$two), mem)"
	gx -t 120 pvh 'e2fsck -fp /dev/xvdc >/tmp/e2fsck 2>&1 || [ $? -le 1 ] || cat /tmp/e2fsck'
	gx -t 120 pvh 'e2fsck -fn /dev/xvdc'
	is "its second file" "$(gx -t 60 pvh 'mount -o ro /dev/xvdc /mnt && cat /mnt/a; umount /mnt')" two
	detach pvh xvdc

	gx -t 60 pv 'umount /mnt; e2fsck -fn /dev/xvdb'
	detach pv xvdb
	repository_is_sound
	is "what three exports" "$(exported "$three" a)" three

	xendisk git rollback /srv/vm.git main "$one" >/dev/null
	attach pv xvdb git:/srv/vm.git
	is "the first file again" "$(gx -t 60 pv 'mount /dev/xvdb /mnt && cat /mnt/a; umount /mnt')" one
	detach pv xvdb
	repository_is_sound
	rm -r /srv/vm.git
}

git_fork() {
	local gold
	repository
	root_image /srv/n.img
	xendisk git import /srv/vm.git gold /srv/n.img >/dev/null
	rm /srv/n.img
	gold=$(git --git-dir=/srv/vm.git rev-parse gold)
	EXTRA=lab.root=xvda mkguest root \
		"disk = [ '$(spec xvda 'git:/srv/vm.git?rev=gold&fork=web')' ]"
	has "the guest's root" "$(gx root 'cat /proc/mounts')" '^/dev/xvda / ext4'
	gx -t 60 root 'echo hello >/root/hello && sync'
	snapshot_of root xvda hello >/dev/null
	xl shutdown -w root
	is "the gold" "$(git --git-dir=/srv/vm.git rev-parse gold)" "$gold"
	is "the fork's parent" "$(git --git-dir=/srv/vm.git rev-parse web~1)" "$gold"
	is "what the fork has" "$(exported web root/hello)" hello
	repository_is_sound
	rm -r /srv/vm.git
}
