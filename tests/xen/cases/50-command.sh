# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# The xendisk command beside xl, and the daemon's own end.

t 'xendisk attach, list, show, detach' aB xendisk command_trip
t 'xendisk attach --direct' Ab xendisk command_direct
t 'a daemon that starts late finds the nodes' AB xendisk late_daemon
t 'the end: nothing left behind, no complaint in any log' AB any the_end

command_trip() {
	local vdev json
	guest pv
	image /srv/d.img 96M
	vdev=$(xendisk attach pv /srv/d.img)
	has "what attach prints" "$vdev" '^xvd[a-p]$'
	gx -t 90 pv "disk wait $vdev"
	json=$(xendisk list --json)
	is "domid" "$(jq .disks[0].domid <<<"$json")" "$(domid pv)"
	is "domain" "$(jq -r .disks[0].domain <<<"$json")" pv
	is "vdev" "$(jq -r .disks[0].vdev <<<"$json")" "$vdev"
	is "kind" "$(jq -r .disks[0].kind <<<"$json")" vbd
	is "size" "$(jq .disks[0].size <<<"$json")" $((96 << 20))
	within 10 connected
	xendisk show pv "$vdev"
	has "block-list" "$(xl block-list pv)" "^$(devid "$vdev") "
	gx -t 300 pv "disk fill $vdev && disk check $vdev"
	xendisk detach pv "$vdev"
	no_keys "$(domid pv)" "$vdev"
	image_is_good /srv/d.img
	rm /srv/d.img
}

connected() {
	[ "$(xendisk list --json | jq -r .disks[0].state)" = connected ]
}

command_direct() {
	guest pv
	image /srv/d.img 96M
	xendisk attach pv /srv/d.img --vdev xvdc --direct
	gx -t 90 pv 'disk wait xvdc'
	is "kind" "$(xendisk list --json | jq -r .disks[0].kind)" xendisk
	gx -t 300 pv 'disk fio xvdc'
	xendisk detach pv xvdc
	no_keys "$(domid pv)" xvdc
	rm /srv/d.img
}

# In mode B xl waits 10 s for the backend, in mode A the hotplug script does so
# for the daemon: xen-blkback has answered xl.
late_daemon() {
	local pid status=0
	guest pv
	image /srv/d.img 96M
	stop_daemon
	patient xl block-attach pv "$(spec xvdb /srv/d.img)" &
	pid=$!
	sleep 3
	start_daemon
	wait $pid || status=$?
	is "xl's status" $status 0
	gx -t 90 pv 'disk wait xvdb && disk fio xvdb'
	detach pv xvdb
	rm /srv/d.img
}

the_end() {
	local name
	for name in $(xl list | awk 'NR > 1 && $2 > 0 {print $1}'); do
		patient xl destroy "$name"
	done
	is "backend directories left" \
		"$(xenstore-ls -f /local/domain/0/backend 2>/dev/null |
			grep -cE '/(vbd|vbd3|xendisk)/[0-9]+/' || :)" 0
	refuse grep -E 'BUG|WARNING|Oops|general protection|blocked for more' \
		<(dmesg)
	[ "$BACKEND" = xendisk ] || return 0
	within 10 no_workers
	is "disks listed" "$(xendisk list --json | jq '.disks | length')" 0
	refuse grep -E 'AddressSanitizer|runtime error|Assertion' "$LOG"
	is "files left in /dev/shm/xendiskd" \
		"$(find /dev/shm/xendiskd -type f 2>/dev/null | wc -l)" 0
	stop_daemon
	is "processes left" "$(pgrep -c xendiskd || :)" 0
	start_daemon
}
