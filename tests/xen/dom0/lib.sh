# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What the cases are made of; sourced in dom0 by every case and by scripts given
# to run --script. Anything that fails ends the case (set -e); a case that only
# wants to see a failure says so with refuse.
#
# Words: DOM a guest's name, DEV a vdev such as xvdb, EXPR a disk expression.
MODE=${XENLAB_MODE:-A}           # A: xen-blkback is loaded, B: it cannot be
BACKEND=${XENLAB_BACKEND:-xendisk}
CONFIG=/etc/xen/xendiskd.conf
LOG=/lab/out/xendiskd.log
PIDFILE=/run/lab/xendiskd.pid
CPUS=2 # of the guest that has several; with four it is three times as slow as with one
[ -z "${XENLAB_ALL:-}" ] || CPUS=4
export LC_ALL=C

fail() {
	echo "$*" >&2
	exit 1
}

# is WHAT GOT WANTED
is() {
	[ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
}

# has WHAT TEXT PART: PART is an extended regular expression.
has() {
	grep -qE -- "$3" <<<"$2" || fail "$1 has no '$3': '$2'"
}

# refuse COMMAND...: it must fail; its output, both kinds, is in $output.
refuse() {
	local status=0
	output=$("$@" 2>&1) || status=$?
	[ $status -ne 0 ] || fail "succeeded, and should not: $*"
	case $status in 124 | 125 | 137) fail "hung or killed ($status): $*" ;; esac
}

# within SECONDS COMMAND...: it succeeds before that many have passed.
within() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || fail "not in time: $*"
		sleep 0.2
	done
}

### The daemon ################################################################

daemon_runs() {
	[ -e "$PIDFILE" ] && kill -0 "$(cat "$PIDFILE")" 2>/dev/null
}

daemon_answers() {
	xendisk version >/dev/null 2>&1
}

# The product may be installed with any prefix; xl looks in one place.
install_script() {
	local ours=/etc/xen/scripts/block-xendisk script
	[ ! -e $ours ] || return 0
	script=$(find / -xdev -path '*/xen/scripts/block-xendisk' | head -1)
	[ -z "$script" ] || ln -s "$script" $ours
}

# confined COMMAND...: with the capabilities that the unit leaves, and no way to
# more; except that in mode A the daemon, as if it were started by hand, loads
# xen-blkback.
confined() {
	local unit caps=/run/lab/caps
	if [ ! -e $caps ]; then
		unit=$(find / -xdev -path '*/systemd/system/xendiskd.service')
		sed -n 's/^CapabilityBoundingSet=//p' $unit | tr 'A-Z ' 'a-z\n' |
			sed 's/^cap_/,+/' | tr -d '\n' >$caps
	fi
	[ "$MODE" = B ] || [ -d /sys/module/xen_blkback ] || exec "$@"
	exec setpriv --no-new-privs --bounding-set="-all$(cat $caps)" "$@"
}

# Its exit status is left in /run/lab/xendiskd.rc.
start_daemon() {
	rm -f /run/lab/xendiskd.rc
	[ -e "$CONFIG" ] || : >"$CONFIG"
	setsid bash -c '
		. /lab/lib.sh
		confined xendiskd --foreground --config "$CONFIG" \
			--log-level debug &
		echo $! >"$PIDFILE"
		wait $!
		echo $? >/run/lab/xendiskd.rc
	' >>"$LOG" 2>&1 </dev/null &
	within 30 daemon_answers
}

stop_daemon() {
	kill -TERM "$(cat "$PIDFILE")"
	within 30 test -e /run/lab/xendiskd.rc
	is "xendiskd's exit status" "$(cat /run/lab/xendiskd.rc)" 0
}

# kill_daemon: as if it had crashed.
kill_daemon() {
	kill -KILL "$(cat "$PIDFILE")"
	within 30 test -e /run/lab/xendiskd.rc
}

# The newest worker, or nothing.
worker() {
	ls -t /run/xendiskd/workers 2>/dev/null | head -1
}

no_workers() {
	! pgrep -f 'xendiskd --worker' >/dev/null
}

### Guests ####################################################################

# guest DOM: make it unless it runs. pv and pvh have one CPU, smp has CPUS.
guest() {
	! xl domid "$1" >/dev/null 2>&1 || return 0
	case $1 in
	pv) mkguest pv ;;
	smp) VCPUS=$CPUS mkguest smp "${@:2}" ;;
	pvh) mkguest pvh 'type = "pvh"' "${@:2}" ;;
	*) fail "no such guest: $1" ;;
	esac
}

# An answer from a guest that was asked to do nothing.
alive() {
	gx -t 30 "$1" true
}

domid() {
	xl domid "$1"
}

### Disks #####################################################################

# devid DEV: the number of xvda to xvdp, as xenstore names it.
devid() {
	local letter=${1#xvd}
	printf '%d\n' $(((202 << 8) | (($(printf '%d' "'$letter") - 97) << 4)))
}

# image PATH SIZE: a new empty file.
image() {
	rm -f "$1"
	truncate -s "$2" "$1"
}

# xl may wait for 10 s, the hotplug script for 40, and a busy machine for us.
patient() {
	timeout 100 "$@"
}

# spec DEV EXPR [OPTION]: an xl disk line.
spec() {
	local script=script=block-xendisk,
	[ "$BACKEND" = xendisk ] || script=
	echo "${3:+$3,}${script}vdev=$1,target=$2"
}

# attach DOM DEV EXPR [OPTION]: by xl, and wait till the guest has the disk.
attach() {
	patient xl block-attach "$1" "$(spec "${@:2}")"
	gx -t 90 "$1" "disk wait $2"
}

# detach DOM DEV [--force]: by xl; the guest has lost it and no key is left.
detach() {
	patient xl block-detach "$1" "$2" ${3:+"$3"}
	no_keys "$(domid "$1")" "$2"
	gx -t 90 "$1" "disk gone $2"
}

# no_keys DOMID DEV: nothing of the disk is left in xenstore.
no_keys() {
	local dir n
	n=$(devid "$2")
	for dir in /local/domain/0/backend/{vbd,vbd3,xendisk}/"$1/$n" \
		"/local/domain/$1/device/vbd/$n" "/libxl/$1/device/vbd/$n"; do
		! xenstore-exists "$dir" || {
			xenstore-ls -f "$dir" >&2
			fail "left behind: $dir"
		}
	done
}

# backend_key DOM DEV KEY: of the disk's backend directory.
backend_key() {
	local dir
	dir=$(xenstore-read "/libxl/$(domid "$1")/device/vbd/$(devid "$2")/backend")
	xenstore-read "$dir/$3"
}

# image_is_good FILE: a sound ext4 whose files have the sums written with them.
image_is_good() {
	local mnt=/run/lab/mnt status=0 where
	e2fsck -fn "$1" >/run/lab/e2fsck 2>&1 || {
		cat /run/lab/e2fsck >&2
		fail "e2fsck refuses $1"
	}
	mkdir -p $mnt
	mount -o loop,ro "$1" $mnt
	where=$mnt
	[ ! -d $mnt/files ] || where=$mnt/files
	(cd $where && sha256sum -c SHA256SUMS >/run/lab/sums 2>&1) || status=1
	umount $mnt
	[ $status -eq 0 ] || {
		grep -v ': OK$' /run/lab/sums >&2 || :
		fail "the sums of $1 are wrong"
	}
}

# The whole life of a writable disk of at least 24 MiB, up to its detach.
round_trip() {
	attach "$@"
	gx -t 300 "$1" "disk fill $2"
	gx -t 120 "$1" "disk check $2"
}

# load_start DOM DEV [SECONDS]: "disk load", which goes on from here; load_end:
# how it went.
load_start() {
	gx "$1" "(disk load $2 ${3:-}; echo status \$?) >/tmp/load.$2 2>&1 &"
}

load_over() {
	gx -t 60 "$1" "grep -q '^status' /tmp/load.$2"
}

load_end() {
	local said
	gx "$1" "touch /tmp/stop.$2"
	within 240 load_over "$1" "$2"
	said=$(gx "$1" "cat /tmp/load.$2; rm /tmp/load.$2 /tmp/stop.$2")
	is "the load" "$said" "status 0"
}

digest() {
	sha256sum "$1" | cut -d' ' -f1
}

# settings TEXT: the configuration file, taken up by a new daemon.
settings() {
	printf '%s\n' "$1" >"$CONFIG"
	stop_daemon
	start_daemon
}

# root_image PATH: the guests' own files, for one that is made with lab.root=xvda.
# What was made once is copied.
root_image() {
	local made=/srv/root.img
	if [ ! -e $made ]; then
		rm -rf /srv/root
		mkdir /srv/root
		(cd /srv/root && busybox cpio -id </boot/guest.cpio)
		touch /srv/root/etc/lab-root
		image $made.new 256M
		mkfs.ext4 -q -F -U 6e646b73-0000-4000-8000-000000000003 \
			-E hash_seed=6e646b73-0000-4000-8000-000000000003 \
			-d /srv/root $made.new
		rm -rf /srv/root
		mv $made.new $made
	fi
	cp --sparse=always $made "$1"
}

### A disk that fails on command ##############################################

# There is no udev here, which dmsetup would wait for.
dm() {
	DM_DISABLE_UDEV=1 dmsetup "$@"
}

# flakey_new FILE: /dev/mapper/flaky, 64 MiB in FILE, in good health.
flakey_new() {
	image "$1" 64M
	modprobe dm-flakey
	losetup -f --show "$1" >/run/lab/flaky.loop
	dm create flaky --table "0 131072 linear $(cat /run/lab/flaky.loop) 0"
	[ -b /dev/mapper/flaky ] || dm mknodes flaky
}

flakey_table() {
	dm suspend --noflush --nolockfs flaky
	dm load flaky --table "$1"
	dm resume flaky
}

# From now on every write and flush fails; reads go through.
flakey_down() {
	flakey_table "0 131072 flakey $(cat /run/lab/flaky.loop) 0 0 86400 1 error_writes"
}

flakey_up() {
	flakey_table "0 131072 linear $(cat /run/lab/flaky.loop) 0"
}

flakey_gone() {
	dm remove --retry flaky
	losetup -d "$(cat /run/lab/flaky.loop)"
	rm "$1"
}

### A file system that is slow ################################################

# slow_new FILE: /srv/slow, in FILE: each read and write takes 20 ms longer, so
# that there are always some in flight.
slow_new() {
	local loop
	image "$1" 48M
	mkfs.ext4 -q -F -U 6e646b73-0000-4000-8000-000000000002 \
		-E hash_seed=6e646b73-0000-4000-8000-000000000002 "$1"
	modprobe dm-delay
	loop=$(losetup -f --show "$1")
	echo "$loop" >/run/lab/slow.loop
	dm create slow --table "0 98304 delay $loop 0 20"
	[ -b /dev/mapper/slow ] || dm mknodes slow
	mkdir -p /srv/slow
	mount /dev/mapper/slow /srv/slow
}

slow_gone() {
	umount /srv/slow
	dm remove --retry slow
	losetup -d "$(cat /run/lab/slow.loop)"
	rm "$1"
}
