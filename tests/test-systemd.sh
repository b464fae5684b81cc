#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2329  # called by ok
# The installed service under a real systemd (tests/systemd/boot), on the
# simulator: restarted, stopped and started, killed and hung under a guest that
# checks every answer and every byte, and may notice nothing but a delay.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"

# --- Outside: install, boot, and run this file again, inside -------------------------
if [ -z "${XENDISK_INSIDE:-}" ]; then
	[ "$(id -u)" = 0 ] || skip_all "only root can start systemd in a container"
	[ -e "$top_builddir/scripts/xendiskd.service" ] ||
		skip_all "built without systemd"
	! grep -q __asan_init "$top_builddir/xendiskd" ||
		skip_all "the unit forbids what the sanitizers do"
	say=$("$top_srcdir/tests/systemd/boot" -t 60 true 2>&1) ||
		skip_all "no systemd in a container: ${say##*$'\n'}"
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -C "$top_builddir" install \
		DESTDIR="$tmp/tree" > "$tmp/install.log" 2>&1 ||
		{ tail -5 "$tmp/install.log"; exit 1; }
	# installed NAME: where that is in the tree, and so inside.
	installed() { (cd "$tmp/tree" && find . -path "*/$1") | sed 's/^\.//'; }
	export XENDISK_SCRIPT XENDISK_UNIT
	XENDISK_SCRIPT=$(installed xen/scripts/block-xendisk)
	XENDISK_UNIT=$(installed system/xendiskd.service)
	case $XENDISK_UNIT in
	/etc/*|/lib/*|/usr/lib/*|/usr/local/lib/*) ;;
	*) skip_all "installed where systemd does not look: $XENDISK_UNIT" ;;
	esac
	rc=0
	XENDISK_INSIDE=1 "$top_srcdir/tests/systemd/boot" -o "$tmp/tree" \
		-b "$top_srcdir" -b "$top_builddir" \
		/bin/bash "$top_srcdir/tests/test-systemd.sh" || rc=$?
	exit $rc
fi

# --- Inside --------------------------------------------------------------------------
hotplug_script=$XENDISK_SCRIPT
# The installed command, in its usual run directory.
xendisk() { command xendisk "$@"; }
show() { systemctl show -P "$1" xendiskd; }
is() { [ "$2" = "$1" ] || { echo "'$2' is not '$1'"; return 1; }; }
quiet() { local out; out=$("$@" 2>&1) && is '' "$out"; }

# adjust LINE...: a drop-in with these lines of [Service].
adjust()
{
	mkdir -p /etc/systemd/system/xendiskd.service.d
	{ echo '[Service]'; printf '%s\n' "$@"; } \
		> /etc/systemd/system/xendiskd.service.d/test.conf
	systemctl daemon-reload
}

ok "systemd-analyze verify is silent" quiet systemd-analyze verify --man=no "$XENDISK_UNIT"
ok "no Xen: systemd does not start it" systemctl start xendiskd
ok "... for want of its device" is no "$(show ConditionResult)"

# The simulator takes the place of Xen; the rest is as installed, only that a
# loop that hangs is noticed sooner.
systemctl log-target journal
sim_start
mkdir /etc/systemd/system/xendiskd.service.d
printf '[Unit]\nConditionPathExists=\n' \
	> /etc/systemd/system/xendiskd.service.d/simulator.conf
for word in LD_LIBRARY_PATH XENSIM_DIR XENSTORED_PATH XENSTORED_RUNDIR; do
	environment+=("Environment=$word=${!word}")
done
adjust "${environment[@]}" WatchdogSec=5s
ok "it starts" systemctl start xendiskd
ok "... and answers once systemd says so" xendisk version
ok "... and is what systemd believes it to be" \
	is "$(cat /run/xendiskd/xendiskd.pid)" "$(show MainPID)"

# A mount that comes after the service is there for it, too.
mount -t tmpfs late /mnt
truncate -s 32M /mnt/raw.img
d=$(domain)
m=$(domain)
ok "attach an image, by xl's script" toolstack attach "$d" xvdb /mnt/raw.img
ok "attach a memory disk" toolstack attach "$m" xvdc 'mem(16M)'
ok "write to it" guest "$m" xvdc script <<< "write 0 4096 0x5a"

# --- What it may --------------------------------------------------------------------
worker() { pgrep -f "^xendiskd --worker $1/"; }
field() { awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"; }
mask() { printf '%d\n' $((0x$(field "$1" CapBnd) >> $2 & 1)); }
ok "no capability to administer, or to load modules" \
	is "0 0 1" "$(mask "$(show MainPID)" 21) $(mask "$(show MainPID)" 16) $(mask "$(show MainPID)" 7)"
ok "a worker has no capability at all" \
	is 0000000000000000 "$(field "$(worker "$d")" CapEff)"
ok "... and a user of its own" test "$(field "$(worker "$d")" Uid)" -ge $((0x7d150000))

# --- A disk of a git repository -----------------------------------------------------
# What is beside its worker has what the unit leaves: it becomes the owner of the
# repository, locks itself down, and makes the commits.
git_disk()
{
	local repo=/mnt/vm.git g
	g=$(domain)
	xendisk git init "$repo"
	xendisk git create "$repo" web --size 16M > /dev/null
	chown -R nobody: "$repo"
	ok "attach a git disk" toolstack attach "$g" xvdb "git:$repo?branch=web"
	meet "$g"
	tell "write 0 4096 0x5a" flush
	ok "a snapshot becomes a commit" says '^[0-9a-f]\{40\}$' \
		xendisk snapshot "$g" xvdb -m one --wait
	ended_well "its guest goes"
	ok "... of the repository's owner" is nobody "$(stat -c %U "$repo/refs/heads/web")"
	ok "detach it" toolstack detach "$g" xvdb
}
[ ! -e "$top_builddir/backends/.libs/git.so" ] || git_disk

# --- Under load -----------------------------------------------------------------------
load()
{
	guest "$d" xvdb verify --seconds 4 --size 8M --depth 16 --queues 3 "$@" \
		> "$tmp/out" 2>&1 & verify=$!
	sleep 1
	before=$(show MainPID)
}
survived()
{
	local rc=0
	wait "$verify" || rc=$?
	cat "$tmp/out"
	[ $rc = 0 ] && grep -q ' 0 errors' "$tmp/out"
}
# The points below run in this shell, so that wait knows the guest.
noticed_nothing()
{
	local out=0
	survived > "$tmp/said" || out=$?
	ok "$1: the guest has noticed nothing" said $out
	ok "$1: another process serves" replaced
}
said() { cat "$tmp/said"; [ "$1" = 0 ]; }
replaced()
{
	local now
	eventually 30 xendisk version || return
	now=$(show MainPID)
	[ "$now" != 0 ] && [ "$now" != "$before" ]
}
restarts() { is "$1" "$(show NRestarts)"; }
hung() { grep 'Watchdog timeout' <(journalctl -u xendiskd); }

load
ok "systemctl restart" systemctl restart xendiskd
noticed_nothing restart

load
ok "systemctl stop" systemctl stop xendiskd
ok "... ends the workers" fails 1 '' worker "$d"
sleep 1
ok "systemctl start" systemctl start xendiskd
noticed_nothing "stop and start"
ok "systemd had nothing to mend so far" restarts 0

load
ok "the broker is killed" systemctl kill --kill-who=main --signal=KILL xendiskd
noticed_nothing kill
ok "systemd has started it again" restarts 1
ok "no loop has hung so far" fails 1 '' hung

load --seconds 10
ok "the broker hangs" kill -STOP "$before"
ok "the watchdog notices" eventually 40 hung
noticed_nothing watchdog
ok "systemd has started it again, once" restarts 2

load
ok "all processes are killed" systemctl kill --signal=KILL xendiskd
noticed_nothing "all killed"

kept() { says '= 0x5a' guest "$m" xvdc script <<< "read 0 4096"; }
ok "the memory disk has kept what was written" kept

# --- The journal ----------------------------------------------------------------------
# journal FIELD=VALUE...: the messages that have them.
journal() { journalctl -u xendiskd -o json --no-pager "$@"; }
ok "messages of a disk have fields: a guest's" \
	says '"XENDISK_VDEV":"xvdb"' journal "XENDISK_DOMID=$d"
ok "... and only that guest's" \
	fails 1 '' grep -q xvdc <(journal "XENDISK_DOMID=$d")
ok "... also those of a worker that is locked down" \
	says "goes on after a worker died.*" journal "XENDISK_DOMID=$d" XENDISK_DEVID=51728
ok "... and of the service: its start" says 'is ready in /run/xendiskd' journal PRIORITY=6

ok "detach" toolstack detach "$m" xvdc

# --- What all this stands on -------------------------------------------------------------
# Without what the run directory keeps nobody knows what was in flight: shows that
# the guest above would have noticed.
adjust "${environment[@]}" 'ExecStartPre=/bin/rm -rf /run/xendiskd/keep'
# What was answered in order is found again by luck, so more than one load.
rc=1
for ((i = 0; i < 96 && rc != 0; i++)); do
	[ $((i % 8)) != 0 ] || load --timeout 3
	systemctl kill --signal=KILL xendiskd
	sleep 0.4
	[ $((i % 8)) = 7 ] || continue
	survived > "$tmp/said" 2>&1 || rc=0
done
ok "with an empty run directory the guest notices" said $rc

# --- Wrong use -------------------------------------------------------------------------
systemctl stop xendiskd
adjust "${environment[@]}" ExecStart= \
	"ExecStart=$(command -v xendiskd) --foreground --nonsense"
ok "wrong use fails at once, and is not tried again" fails 1 '' systemctl start xendiskd
ok "... with status 2" is 2 "$(show ExecMainStatus)"
ok "... and the reason in the journal" says 'nonsense' journal
