# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Disks that live on NBD servers in dom0.

t 'nbd://127.0.0.1/vol on nbdkit: file system, fio, detach' AB xendisk nbd_nbdkit
t 'nbd+unix: on qemu-nbd' A xendisk nbd_qemu
t 'nbd: the server is killed 5 times under load' A xendisk nbd_killed 600

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
	nbd_server nbdkit -f -i 127.0.0.1 --filter=exportname file /srv/n.img \
		exportname=vol exportname-strict=true
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
	within 60 test -S /run/n.sock
	round_trip pv xvdb 'nbd+unix:///?socket=/run/n.sock'
	detach pv xvdb
	nbd_server_end
	image_is_good /srv/n.img
	rm /srv/n.img
}

# The guest sees a delay, and its data is what it wrote.
nbd_killed() {
	guest pv
	image /srv/n.img 96M
	kit
	attach pv xvdb nbd://127.0.0.1/vol
	load_start pv xvdb
	for _ in 1 2 3 4 5; do
		sleep 4
		nbd_server_end
		kit
	done
	load_end pv xvdb
	gx -t 300 pv 'disk fill xvdb && disk check xvdb'
	detach pv xvdb
	nbd_server_end
	image_is_good /srv/n.img
	rm /srv/n.img
}
