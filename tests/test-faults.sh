#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# A worker whose calls fail, one at a time: storage, memory, Xen, the broker.
# Its guest may get an error, but no wrong byte, no answer too many or too few,
# and no flush that did not happen; the worker does not die, and has as many
# open files afterwards as before.  In make check some kinds of failure once;
# with XENDISK_FAULT=full each at its 1st to 50th call, or only those whose names
# XENDISK_FAULT_ONLY, a regular expression, matches.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
export XENDISK_FAULTS=$tmp/faults XENDISKD=$top_builddir/tests/faults/xendiskd
fault() { "$top_builddir/tests/faults/fault" "$tmp/faults" "$@"; }

declare -A disks=(
	[raw]="raw($tmp/raw.img, cache=none)"
	[raw_cached]="raw($tmp/raw.img, cache=writeback)"
	[mem]="mem(32M)"
	[cow]="cow($tmp/gold.img, mem)"
	[cow_raw]="cow($tmp/gold.img, raw($tmp/top.img))"
)

dom="" on="" fds=0 # of its worker, when no guest is there
attach()
{
	fault orders
	if [ -n "$on" ]; then
		on=""
		toolstack detach "$dom" xvdb || return
	fi
	toolstack attach "$dom" xvdb "${disks[$1]}" || attach_again "$1"
}
# On a busy machine the broker now and then does not notice a disk that is attached
# right after another was detached: that is tried once more, and told.
attach_again()
{
	echo "# $1 was not attached at once" >&2
	toolstack detach "$dom" xvdb || :
	toolstack attach "$dom" xvdb "${disks[$1]}"
}
ready()
{
	[ "$on" != "$1" ] || return 0
	attach "$1" > "$tmp/out" 2>&1 || return
	on=$1
	fds=$(nr_fds)
}

attach_failed() { cat "$tmp/out"; return 1; }

# --- The worker as it is ----------------------------------------------------------
field() { xendisk --json show "$dom" xvdb | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" | head -1; }
worker() { field worker_pid; }
nr_fds() { find "/proc/$(worker)/fd" -mindepth 1 | wc -l; }
is_poisoned() { xendisk --json show "$dom" xvdb | grep -q '"poisoned"'; }
# A map in kept state that cannot be written although its place is reserved: cow
# leaves the write to the next worker.
may_die() { [ "$on" = cow ] && [ "$failing" = pwrite ]; }
has_fds() { [ "$(nr_fds)" = "$1" ]; }
left() { [ "$(state_of "$dom" xvdb)" != connected ]; }
# unharmed RESTARTS: no new worker, and nothing left open.
unharmed()
{
	eventually 10 left || return
	if [ "$(field restarts)" != "$1" ] && ! may_die; then
		echo "the worker died"
		return 1
	fi
	eventually 5 has_fds "$fds" ||
		{ echo "$fds open files before, $(nr_fds) now"; return 1; }
}

# --- One failure ------------------------------------------------------------------
guest_runs()
{
	guest "$dom" xvdb verify --size 1M --queues 2 --depth 8 --requests 60 \
		--seconds 60 --timeout "${patience:-20}" --seed "${seed:-7}" --bs 512-64K \
		--ops read=35,write=40,flush=10,discard=15 --expect-errors \
		${grants:-}
}
# Nothing wrong; at connect it may be refused, which is no fault.
guest_is_right()
{
	local rc=0
	guest_runs > "$tmp/out" 2>&1 || rc=$?
	cat "$tmp/out"
	[ $rc = 0 ] && return
	[ "$1" != data ] && grep -q 'simguest: connect:' "$tmp/out"
}
# A flush that failed was not told to have worked.  The last one is the worker's
# own: no request waits for it, and the log and the mark have to tell.
flush_is_right()
{
	[ "$(fault lost_flushes)" -gt 0 ] || return 0
	eventually 10 left || return
	if ! grep -qE ' [1-9][0-9]* errors' "$tmp/out" &&
	   ! tail -n "+$1" "$tmp/log" | grep 'the last flush failed'; then
		echo "a flush failed, and no request got an error"
		return 1
	fi
	is_poisoned || { echo "a flush failed, and the disk is not poisoned"; return 1; }
}
forgive() { ! is_poisoned || xendisk resume "$dom" xvdb --accept-loss; }

# fails_well PHASE NAME NTH VALUE: status 2 when there was no such call.
fails_well()
{
	local failing=$2 restarts line orders=("fail:$2:$3:$4")
	restarts=$(field restarts)
	line=$(($(wc -l < "$tmp/log") + 1))
	[ "$1" != data ] || orders=(pass:lanes_started:1 "${orders[@]}")
	fault orders "${orders[@]}"
	guest_is_right "$1" || return
	flush_is_right "$line" || return
	unharmed "$restarts" || return
	forgive || return
	[ "$(fault "done")" = ${#orders[@]} ] && return
	echo "there was no such call"
	return 2
}
# A guest's requests may be such that nobody makes the call: another guest's are not.
fails_at_last()
{
	local rc seed
	for seed in 7 8 9 10 11; do
		rc=0
		fails_well "$@" || rc=$?
		[ $rc = 2 ] || break
	done
	return $rc
}
# While the disk is opened: it may be refused, with a reason, but no more.
opens_well()
{
	local rc=0
	fault orders "$1"
	toolstack attach "$dom" xvdb "$2" > "$tmp/out" 2>&1 || rc=$?
	fault orders
	cat "$tmp/out"
	if [ $rc = 0 ]; then
		guest_is_right data && forgive && toolstack detach "$dom" xvdb
		return
	fi
	toolstack detach "$dom" xvdb || return
	grep -q 'xendisk: hotplug add' "$tmp/out" || return
	! grep -q 'signal' "$tmp/out"
}

fault new
echo 'persistent-grants = yes' > "$tmp/xendiskd.conf" # for guests that want them
sim_start
truncate -s 32M "$tmp/raw.img" "$tmp/gold.img" "$tmp/top.img"
daemon_start --backend-dir "$top_builddir/tests/faults/.libs"
dom=$(domain)

# --- Each kind once ------------------------------------------------------------------
# once WHERE NAME VALUE NTH
once()
{
	local disk=${1%/*} phase=${1#*/}
	if [ "$phase" = open ]; then
		[ -z "$on" ] || toolstack detach "$dom" xvdb
		on=""
		ok "$disk, open, $2: $3, call $4" \
			opens_well "fail:$2:$4:$3" "${disks[$disk]}"
	elif ready "$disk"; then
		ok "$disk, $phase, $2: $3, call $4" \
			fails_at_last "$phase" "$2" "$4" "$3"
	else
		ok "attach $disk" attach_failed
	fi
}
each()
{
	local where name values value
	while read -r where name values; do
		# Two will do for a sample.
		[ "$1" != first ] || values=$(cut -d' ' -f1,2 <<< "$values")
		for value in $values; do "$@" "$where" "$name" "$value"; done
	done < <(fault failures | grep -E "^(${XENDISK_FAULT_ONLY:-.*}) " |
		awk '{ n = $1; $1 = $2; $2 = n; print }' | sort -s -k1,1)
}
first() { once "$@" 1; }

# --- Each at its 1st to 50th call ---------------------------------------------------------
# Until there is no such call; the count of failures that happened is told.
tried=0
up_to()
{
	local rc n
	for ((n = 1; n <= $2; n++)); do
		rc=0
		"${@:3:2}" "${@:5:1}" $n "${@:6:1}" > "$tmp/out2" 2>&1 || rc=$?
		[ $rc != 2 ] || return 0
		[ $rc = 0 ] || { echo "call $n:"; cat "$tmp/out2"; return 1; }
		echo $n > "$1"
	done
}
many()
{
	local name=$2 value=$3 disk
	for disk in raw raw_cached mem cow cow_raw; do
		for phase in data connect; do
			ready "$disk" || { ok "attach $disk" attach_failed; return; }
			echo 0 > "$tmp/n"
			ok "$disk, $phase, $name: $value" \
				up_to "$tmp/n" 50 \
				fails_well $phase "$name" "$value"
			tried=$((tried + $(cat "$tmp/n")))
		done
	done
}

each first
if [ "${XENDISK_FAULT:-}" = full ]; then
	each many
	echo "# $tried calls failed"
fi

# --- A page that cannot be mapped is copied ----------------------------------------------
maps_fail_well() # NTH
{
	local grants=--persistent
	fails_well data grant_map "$1" EINVAL && grep ' 0 errors' "$tmp/out"
}
maps=1
[ "${XENDISK_FAULT:-}" != full ] || maps=50
ready raw
for ((n = 1; n <= maps; n++)); do
	ok "raw, persistent grants, grant_map: EINVAL, call $n" maps_fail_well $n
done

# --- Would it be noticed? ----------------------------------------------------------------
fault switch flush_lies
ok "a flush that lies is noticed" fails 1 'no request got an error' \
	fails_well data sys_fdatasync 1 EIO
fault switch
