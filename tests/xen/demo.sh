#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The demonstration on real Xen: runs in the lab's dom0 (scripts/demo --xen).
set -euo pipefail
. /lab/lib.sh

step() {
	printf '\n%s\n' "$*"
}

# show COMMAND...: print it as one would type it, and run it.
show() {
	printf '  # %s\n' "$*"
	"$@" 2>&1 | sed 's/^/    /'
}

# in_guest COMMAND: the same in the guest.
in_guest() {
	printf '  web1# %s\n' "$1"
	gx -t 120 web1 "$1" | sed 's/^/    /'
}

install_script
step "1. A Xen host: this is dom0, where the administrator works"
xl info | grep -E '^(release|xen_version|xen_caps) ' | sed 's/^/    /'

step "2. The daemon that serves disks, and a guest without any"
show start_daemon
show xendisk version
mkguest web1
show xl list
in_guest 'ls /sys/block'

step "3. An empty image of 96 MiB becomes the guest's disk xvdb, by plain xl"
show truncate -s 96M /srv/web1.img
show xl block-attach web1 script=block-xendisk,vdev=xvdb,target=/srv/web1.img
gx -t 60 web1 'disk wait xvdb' >/dev/null
show xendisk list

step "4. The guest makes a file system on it, writes, and reads back"
in_guest 'mkfs.ext4 -q -U 6e646b73-0000-4000-8000-000000000001 /dev/xvdb'
in_guest 'mount /dev/xvdb /mnt'
in_guest 'echo "written by the guest" >/mnt/hello; cat /mnt/hello'
in_guest 'umount /mnt'

step "5. Any disk expression will do: the same image, writes kept in memory"
show xl block-detach web1 xvdb
show xendisk attach web1 'cow(/srv/web1.img, mem)' --vdev xvdb
gx -t 60 web1 'disk wait xvdb' >/dev/null
show xendisk show web1 xvdb
in_guest 'mount /dev/xvdb /mnt; cat /mnt/hello; echo scribble >/mnt/hello; umount /mnt'
show xendisk detach web1 xvdb

step "6. Both are detached. The image in dom0 is sound, and has the first text"
show e2fsck -fn /srv/web1.img
show debugfs -R 'cat hello' /srv/web1.img
show xl destroy web1
stop_daemon
