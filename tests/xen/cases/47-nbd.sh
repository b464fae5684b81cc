# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Disks that live on NBD servers in dom0.

t 'nbd://127.0.0.1/vol on nbdkit: file system, fio, detach' B xendisk nbd_nbdkit
t 'nbd+unix: on qemu-nbd' A xendisk nbd_qemu
t 'nbd: the server is killed time and again under load' a xendisk nbd_killed 600
t 'nbds: keys that both sides have, by @name and in disk=[...]' B xendisk nbd_tls 600
t 'nbd+vsock' B xendisk nbd_vsock 400
t 'nbd: a root file system, whose server is killed' B xendisk nbd_root 600
t 'nbd: the server is away when the disk is detached' B xendisk nbd_away

# nbd_server COMMAND...: until nbd_server_end; has_port says when it answers.
nbd_server() {
	"$@" >>/tmp/nbd-server.log 2>&1 &
	nbd_pid=$!
}
nbd_server_end() {
	kill -9 "$nbd_pid"
	wait "$nbd_pid" 2>/dev/null || :
}
# 10809 is 2A39.
has_port() { grep -q ':2A39 .* 0A ' /proc/net/tcp; }
kit() {
	nbd_server nbdkit -f -i 127.0.0.1 --filter=exportname "$@" \
		file /srv/n.img exportname=vol exportname-strict=true
	within 30 has_port
}

nbd_nbdkit() {
	guest pv
	image /srv/n.img 96M
	kit
	round_trip pv xvdb nbd://127.0.0.1/vol
	detach pv xvdb
	nbd_server_end
	image_is_good /srv/n.img
	rm /srv/n.img
}

nbd_qemu() {
	guest pv
	image /srv/n.img 96M
	rm -f /run/n.sock
	nbd_server qemu-nbd -f raw -t -k /run/n.sock --cache=none /srv/n.img
	within 60 grep -q ' 00010000 .* /run/n.sock$' /proc/net/unix
	round_trip pv xvdb 'nbd+unix:///?socket=/run/n.sock'
	detach pv xvdb
	nbd_server_end
	image_is_good /srv/n.img
	rm /srv/n.img
}

# The guest sees a delay, and its data is what it wrote.
nbd_killed() {
	local n=2
	[ -z "${XENLAB_ALL:-}" ] || n=5
	guest pv
	image /srv/n.img 24M
	kit
	attach pv xvdb nbd://127.0.0.1/vol
	load_start pv xvdb
	for ((; n > 0; n--)); do
		sleep 4
		nbd_server_end
		kit
	done
	load_end pv xvdb
	detach pv xvdb
	nbd_server_end
	rm /srv/n.img
}

# In the guest's configuration, and by xl block-attach.
nbd_tls() {
	local keys=/run/lab/keys.psk
	printf 'web1:%s\n' "$(sha256sum /proc/sys/kernel/random/uuid |
		cut -c 1-64)" >$keys
	settings "credentials \"a\" { psk = \"$keys\" user = \"web1\" }
		disk \"vol\" { expr = \"nbd(\\\"nbds://127.0.0.1/vol\\\", credentials=a)\" }"
	image /srv/n.img 96M
	kit --tls=require --tls-psk=$keys
	mkguest tls "disk = [ '$(spec xvdb @vol)' ]"
	gx -t 90 tls 'disk wait xvdb'
	has 'how it is served' "$(xendisk show tls xvdb)" TLS
	gx -t 300 tls 'disk fill xvdb && disk check xvdb'
	xl destroy tls
	image_is_good /srv/n.img
	guest pv
	attach pv xvdb @vol
	# A server that has lost its keys is not talked to in clear.
	nbd_server_end
	kit
	within 30 is_paused TLS
	nbd_server_end
	kit --tls=require --tls-psk=$keys
	gx -t 120 pv 'disk check xvdb'
	detach pv xvdb
	nbd_server_end
	image_is_good /srv/n.img
	settings ''
	rm /srv/n.img
}

# With that in the reason.
is_paused() {
	xendisk list --json >/run/lab/list &&
		grep -q '"paused"' /run/lab/list && grep -q "$1" /run/lab/list
}

# The peer is dom0 itself.
nbd_vsock() {
	modprobe vsock_loopback || exit 77
	guest pv
	image /srv/n.img 96M
	nbd_server nbdkit -f --vsock file /srv/n.img
	round_trip pv xvdb nbd+vsock://1/
	detach pv xvdb
	nbd_server_end
	image_is_good /srv/n.img
	rm /srv/n.img
}

# The guest's own files, on a disk; then it has no other root.
nbd_root() {
	local sum
	root_image /srv/n.img
	kit
	EXTRA=lab.root=xvda mkguest root \
		"disk = [ '$(spec xvda nbd://127.0.0.1/vol)' ]"
	has "the guest's root" "$(gx root 'cat /proc/mounts')" '^/dev/xvda / ext4'
	sum=$(gx -t 60 root 'dd if=/dev/urandom of=/root/x bs=64k count=64 2>/dev/null; sync; sha256sum </root/x')
	nbd_server_end
	gx root '(cp /root/x /root/y; sync; touch /tmp/copied) >/dev/null 2>&1 &'
	sleep 1
	kit
	within 120 gx root 'test -e /tmp/copied'
	gx root 'echo 3 >/proc/sys/vm/drop_caches'
	is 'what it has written' "$(gx -t 60 root 'sha256sum </root/y')" "$sum"
	xl shutdown -w root
	nbd_server_end
	e2fsck -fp /srv/n.img || [ $? -le 1 ]
	is 'what the server has' "$(debugfs -R 'cat /root/y' /srv/n.img \
		2>/dev/null | sha256sum)" "$sum"
	rm /srv/n.img
}

# Requests that wait for it are given up; xl does not wait half a minute.
nbd_away() {
	mkguest away
	image /srv/n.img 96M
	kit
	attach away xvdb nbd://127.0.0.1/vol
	gx -t 60 away 'dd if=/dev/xvdb of=/dev/null bs=64k count=1'
	nbd_server_end
	gx away '(dd if=/dev/xvdb of=/dev/null bs=64k count=64 iflag=direct) >/dev/null 2>&1 &'
	within 30 is_paused away
	patient xl block-detach away xvdb --force
	no_keys "$(domid away)" xvdb
	refuse grep 'did not disconnect' "$LOG"
	xl destroy away
	rm /srv/n.img
}
