#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# A worker that dies between any two steps of the data path: the guest gets one
# answer to each request, none of them an error, and no byte is wrong.  Once
# each in make check; with XENDISK_CRASH=full each place, for each operation on
# each kind of disk, or on those that XENDISK_CRASH_DISKS names.  Then the same guest
# against what is broken on purpose, to show that it would have noticed.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
export XENDISK_FAULTS=$tmp/faults XENDISKD=$top_builddir/tests/faults/xendiskd
fault() { "$top_builddir/tests/faults/fault" "$tmp/faults" "$@"; }
# Where git is built; NAME WHERE a line.
git_disk=
[ ! -e "$top_builddir/tests/faults/.libs/git.so" ] || git_disk=yes
points()
{
	if [ -n "$git_disk" ]; then fault points; else
		fault points | grep -v ' git/'
	fi
}

declare -A disks=(
	[raw]="raw($tmp/raw.img)"
	[raw_cached]="raw($tmp/raw.img, cache=writeback)"
	[mem]="mem(160M)"
	[cow]="cow($tmp/gold.img, mem)"
	[cow_raw]="cow($tmp/gold.img, raw($tmp/top.img))"
	[git]="git($tmp/disks.git, cache=4K)"
)
# What a guest does: options of simguest verify.
declare -A deeds=(
	[read]="--ops read=100"
	[write]="--ops write=100 --bs 512-16K"
	[flush]="--ops write=50,flush=50"
	[discard]="--ops write=50,discard=50 --bs 4K-128K"
	[barrier]="--ops write=50,barrier=50 --bs 512-16K"
	[indirect]="--ops write=50,read=50 --bs 64K-512K"
	[overlap]="--ops write=90,read=10 --bs 4K-16K --size 64K"
)
# That, and snapshots meanwhile, of a disk that can.
while_snapped="--ops write=60,flush=20,read=20"
# Those that are no verify: a script of operations with their answers.
script_of()
{
	case $1 in
	long_discard)
		printf '%s\n' 'write 1M 4K 0x5a' 'discard 0 160M' 'read 1M 4K' \
			'write 1M 4K 0x5b' 'read 1M 4K' ;;
	bad_flush)
		printf '%s\n' 'write 0 4K 0x11' 'flush expect=-3' \
			'write 0 4K 0x22 expect=-1' 'flush expect=-3' 'read 0 4K' ;;
	esac
}

# --- A disk and its guest ---------------------------------------------------------
# Deaths one after the other make the broker wait longer and longer: a disk is
# good for a few.
dom="" on="" deaths=0 size=1M
# On a busy machine the broker now and then does not notice a disk that is attached
# right after another was detached: that is tried once more, and told.
attach_again()
{
	echo "# $1 was not attached at once" >&2
	toolstack detach "$dom" xvdb || :
	toolstack attach "$dom" xvdb "${disks[$1]}"
}
# attach DISK [SIZE]: of the part of it that a guest uses.
attach()
{
	[ -z "$on" ] || toolstack detach "$dom" xvdb
	on=$1 deaths=0 size=${2:-1M}
	fault orders
	toolstack attach "$dom" xvdb "${disks[$1]}" || attach_again "$1" || return
	rm -f "$tmp/model"
	guest "$dom" xvdb verify --persist "$tmp/model" --size "$size" --requests 1
}
ready() { [ "$on" = "$1" ] && [ $deaths -lt 4 ] || attach "$1" > "$tmp/out" 2>&1; }

# Snapshots that are committed; one may meet a worker's death, or no guest just now.
snap_twice()
{
	local n=0
	for _ in {1..300}; do
		timeout 60 "$top_builddir/xendisk" --run-dir "$tmp/run" \
			snapshot "$dom" xvdb -m "$n" --wait && n=$((n + 1))
		[ $n -lt 2 ] || return 0
		sleep 0.05
	done
	return 1
}
snapshots()
{
	local snaps
	snap_twice > "$tmp/snaps" 2>&1 &
	snaps=$!
	while :; do
		# shellcheck disable=SC2086
		verify 200 $while_snapped || return
		kill -0 $snaps 2> /dev/null || break
	done
	wait $snaps || { tail -5 "$tmp/snaps"; return 1; }
}

# verify REQUESTS OPTION...
verify()
{
	local out
	out=$(guest "$dom" xvdb verify --persist "$tmp/model" --size "$size" \
		--queues 2 --depth 8 --requests "$1" --timeout 60 --seconds 60 \
		--seed $RANDOM "${@:2}" 2>&1) || {
		echo "$out"
		return 1
	}
	grep ' 0 errors' <<< "$out"
}

# does DEED: what its guest says must be right.
does()
{
	case $1 in
	long_discard | bad_flush)
		guest "$dom" xvdb script --timeout 60 < <(script_of "$1") || return
		[ "$1" = long_discard ] ||
			xendisk resume "$dom" xvdb --accept-loss ;;
	snapshots) snapshots ;;
	*)
		# shellcheck disable=SC2086
		verify 30 ${deeds[$1]} ;;
	esac
}

# Orders that lead to a death there: the first ones make it possible.
orders_for()
{
	case $2,$1 in
	# Memory answers while it is asked: begun and not done is a request just before.
	again,begun_again) echo "kill:begun:6 kill:$1:$3" ;;
	again,*) echo "kill:answer_noted:6 kill:$1:$3" ;;
	reopen,*) echo "kill:submitted:6 kill:$1:$3" ;;
	bad_flush,*) echo "fail:sys_fdatasync:1:EIO kill:$1:$3" ;;
	*) echo "kill:$1:$3" ;;
	esac
}
deed_of() { case $1 in again | reopen) echo write ;; *) echo "$1" ;; esac; }
is_script() { [ -n "$(script_of "$1")" ]; }

# dies PLACE DEED NTH, on the disk that is attached.
dies()
{
	local orders
	orders=$(orders_for "$1" "$2" "$3")
	# shellcheck disable=SC2086
	fault orders $orders
	does "$(deed_of "$2")" || return
	if [ "$(fault "done")" != "$(wc -w <<< "$orders")" ]; then
		echo "nobody came to $1 for the ${3}th time"
		return 2
	fi
}
# What exists already is not made again: what makes it is met on a new disk, or, as a
# git disk's layer outlives a detach, on more of it.  And a deed is one of chance: a
# place that it seldom passes often is met another time.
dies_at_last()
{
	local rc=0 more
	dies "${@:2}" || rc=$?
	for more in 2M 4M 8M; do
		[ $rc = 2 ] || break
		attach "$1" "$more" || return
		rc=0
		dies "${@:2}" || rc=$?
	done
	return $rc
}
attach_failed() { cat "$tmp/out"; return 1; }
# try DISK PLACE DEED NTH
try()
{
	ready "$1" || { ok "attach $1" attach_failed; on=""; return; }
	ok "$1, $3: killed at $2${4:+, pass $4}" dies_at_last "$1" "$2" "$3" "${4:-1}"
	deaths=$((deaths + 1))
	! is_script "$3" || on_another # the model knows nothing of it
}
on_another() { deaths=99; }

fault new
sim_start
truncate -s 160M "$tmp/raw.img" "$tmp/gold.img" "$tmp/top.img"
export XENDISK_LIBEXEC_DIR=$top_builddir HOME=$tmp GIT_CONFIG_NOSYSTEM=1
if [ -n "$git_disk" ]; then
	xendisk git init "$tmp/disks.git" > /dev/null
	xendisk git create "$tmp/disks.git" main --size 160M > /dev/null
fi
daemon_start --backend-dir "$top_builddir/tests/faults/.libs"
dom=$(domain)

# --- Each place once -----------------------------------------------------------------
sample()
{
	local place where
	while read -r where place; do
		try "${where%/*}" "$place" "${where#*/}"
	done < <(points | awk '{ print $2, $1 }' | sort -s -k1,1)
}

# --- Each place, operation and disk ---------------------------------------------------
# Which places an operation passes is what a run without a death shows.
passed_since() { fault passed | paste "$1" - | awk '$4 > $2 { print $1, $4 - $2 }'; }
is_place() { points | grep -q "^$1 "; }
sweep()
{
	local disk deed place n
	for disk in ${XENDISK_CRASH_DISKS:-raw raw_cached mem cow cow_raw ${git_disk:+git}}; do
		for deed in "${!deeds[@]}" again snapshots; do
			[ "$deed" != snapshots ] || [ "$disk" = git ] || continue
			ready "$disk" || continue
			fault passed > "$tmp/before"
			case $deed in
			again) fault orders kill:answer_noted:6 ;;
			*) fault orders ;;
			esac
			ok "$disk, $deed: alive" does "$(deed_of "$deed")"
			passed_since "$tmp/before" > "$tmp/passed"
			while read -r place n; do
				is_place "$place" || continue
				is_for "$place" "$deed" || continue
				try "$disk" "$place" "$deed" 1
				[ "$n" -lt 8 ] || [ "$deed" = again ] ||
					try "$disk" "$place" "$deed" $((n / 4))
			done < "$tmp/passed"
		done
	done
	try raw piece_done long_discard # the others are the mapped kinds' alone
	for place in piece_done discard_marked discard_freed blocks_marked; do
		try mem $place long_discard
	done
	for place in failure_noted mark_made mark_noted; do
		try raw $place bad_flush
		try raw_cached $place bad_flush
	done
}
# A worker that starts after the death before may do so in the middle of any deed:
# its places are swept where a worker surely starts.
is_for()
{
	if [ "$2" = again ]; then
		points | grep -qE "^$1 [a-z_]+/(again|reopen)"
	else
		[ "$(points | grep -cE "^$1 [a-z_]+/reopen")" = 0 ]
	fi
}

# --- Broken on purpose ------------------------------------------------------------------
# fresh DISK: a domain with a disk of its own on an IMAGE of its own:
# the one before may have been left in the middle.
fresh()
{
	fault orders
	fault switch
	fresh=$(domain)
	truncate -s 1M "$tmp/fresh.$fresh"
	toolstack attach "$fresh" xvdb "${1/IMAGE/$tmp/fresh.$fresh}"
}
# A guest on the fresh disk; it gives up soon where an answer may never come.
patience=3
watches() { guest "$fresh" xvdb verify --size 64K --queues 2 --timeout $patience "$@"; }
# noticed VERIFY-OPTION...: exit status 1 is wrong data or a broken protocol.
noticed()
{
	local rc=0
	watches "$@" > "$tmp/out" 2>&1 || rc=$?
	cat "$tmp/out"
	[ $rc = 1 ]
}
# Not every run of chance meets the fault: one of a few must.
noticed_in()
{
	local try
	for ((try = 0; try < $1; try++)); do "${@:2}" && return; done
	return 1
}

no_log()
{
	fresh "mem(1M)"
	fault switch "$@"
	fault orders kill:response_written:40
	noticed --depth 8 --requests 100 --ops read=50,write=50
}
# Written, killed before its answer, while others see the write and send theirs.
no_interlock()
{
	fresh "mem(1M)"
	fault switch "$@"
	fault orders pass:lanes_started:1 kill:answer_noted:$((50 + RANDOM % 100)):300
	noticed --depth 12 --requests 3000 --bs 4K --ops read=50,write=50 \
		--seed $RANDOM
}
# The old write lands when the guest has an answer to the next one.
ghost()
{
	fresh "$1"
	fault orders ghost:pwritev2:1:700
	says '= 0x22' guest "$fresh" xvdb script --timeout 20 <<-END
		write 0 4096 0x11
		write 0 4096 0x22
		sleep 1200
		read 0 4096
	END
}
answer_twice()
{
	fresh "mem(1M)"
	fault switch "$@"
	noticed --depth 8 --requests 300
}
write_lies()
{
	fresh "raw(IMAGE, cache=none)"
	fault switch "$@"
	noticed --depth 2 --requests 100 --bs 4K-16K
}
unnoticed() { patience=30 "$@" > "$tmp/out2" 2>&1 || { grep ' 0 errors' "$tmp/out2"; return; }; cat "$tmp/out2"; return 1; }
# control NAME COMMAND...: with the fault it is noticed, without it is not.
control()
{
	ok "$1: noticed" noticed_in 10 "$2" "$1"
	ok "$1: and nothing is, when it is whole" unnoticed "$2"
}
controls()
{
	control no_log no_log
	[ "$(nproc)" -lt 2 ] || control no_interlock no_interlock
	control answer_twice answer_twice
	control write_lies write_lies
	daemon_stop
	export XENDISK_FAULTS_GHOST=1
	daemon_start --backend-dir "$top_builddir/tests/faults/.libs"
	ok "no fence (lock=no): noticed" \
		fails 1 '= 0x11' ghost "raw(IMAGE, cache=writeback, lock=no)"
	ok "with the fence the old write lands first" \
		ghost "raw(IMAGE, cache=writeback)"
}

# Snapshots that death has met are whole or not there; what is left of all layers is
# no more than the one that is written to.
space_is_free()
{
	[ "$(du -ck "$tmp"/state/git/*/data* | tail -1 | cut -f1)" -le 1200 ]
}
nothing_left_over()
{
	attach git && fault orders && does snapshots &&
		eventually 20 space_is_free && return
	du -k "$tmp"/state/git/*/*
	return 1
}

sample
[ "${XENDISK_CRASH:-}" != full ] || sweep
if [ -n "$git_disk" ]; then
	ok "git: no space is left over" nothing_left_over
	! command -v git > /dev/null ||
		ok "git: the repository is sound" git -C "$tmp/disks.git" \
			fsck --full --strict --no-dangling
fi

ok "the last disk is detached" toolstack detach "$dom" xvdb

# --- Is each place there, and only in the program of the tests? -------------------------
all_passed()
{
	local never
	never=$(fault passed | awk 'NR == FNR { place[$1] = 1; next }
		place[$1] && !$2 { print $1 }' <(points) -)
	[ -z "$never" ] || { echo "never passed: $never"; return 1; }
}
has_points() { [ "$(nm "$1" | grep -c crash_point)" -gt 0 ]; }
has_none() { ! has_points "$1"; }
ok "each place was passed" all_passed
ok "the program of the tests has them" has_points "$XENDISKD"
ok "the one that is installed has none" has_none "$top_builddir/xendiskd"
controls
