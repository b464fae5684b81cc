#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# kill -9 of workers, of the broker and of both, at random moments, under a
# guest that checks every answer and every byte: it may notice nothing but a
# delay.  XENDISK_KILLS=1000 (make check-long) makes it long.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
kills=${XENDISK_KILLS:-24}
seconds=$((kills > 100 ? 20 : 3)) # of a guest's life
RANDOM=${XENDISK_SEED:-1}

workers() { find "$tmp/run/workers" -type f -name '[0-9]*' -printf '%f\n' | tail -1; }
other_worker() { [ -n "$(workers)" ] && [ "$(workers)" != "$1" ]; }
pause() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; }

kill_worker()
{
	local old
	old=$(workers)
	[ -n "$old" ] || return 0
	kill -9 "$old" 2>/dev/null || return 0
	# Now and then the next one before it has done much.
	if [ $((RANDOM % 8)) = 0 ]; then
		eventually 10 other_worker "$old"
		pause 50
		old=$(workers)
		[ -z "$old" ] || kill -9 "$old" 2>/dev/null || :
	fi
	eventually 10 other_worker "$old"
}

served_by() { xendisk --json list | grep -q "\"worker_pid\": $1\b"; }

# ok runs in a subshell: which daemon it is stands in its file.
kill_broker()
{
	local old
	old=$(workers)
	kill -9 "$(cat "$tmp/run/xendiskd.pid")"
	pause 300 # its workers serve on
	[ "$1" != both ] || [ -z "$old" ] || kill -9 "$old" 2>/dev/null || :
	daemon_start 2>/dev/null
	if [ "$1" = both ]; then
		eventually 10 other_worker "$old"
	else
		eventually 10 served_by "$old"
	fi
}

# rounds WHO EXPRESSION GUEST-OPTION...: guest after guest, until there were
# enough kills; the image is renamed back and forth meanwhile.
rounds()
{
	local who=$1 expr=$2 d verify rc n=0
	d=$(domain)
	toolstack attach "$d" xvdb "$expr" || return
	while [ $n -lt "$share" ]; do
		guest "$d" xvdb verify --seconds $seconds --depth 12 \
			--gaps "$tmp/gaps.$who" \
			--seed $((RANDOM + 1)) "${@:3}" > "$tmp/out" 2>&1 &
		verify=$!
		cleanup_pids+=("$verify")
		sleep 0.4
		while kill -0 "$verify" 2>/dev/null && [ $n -lt "$share" ]; do
			if [ "$who" = worker ]; then
				kill_worker || break
			else
				kill_broker "$who" || break
			fi
			n=$((n + 1))
			mv "$tmp"/moving* "$tmp/moving.$n"
			pause 400
		done
		rc=0
		wait "$verify" || rc=$?
		cat "$tmp/out"
		if [ $rc != 0 ] || ! grep -q ' 0 errors' "$tmp/out"; then
			# What is logged later would bury what has happened.
			tail -200 "$tmp/log" | sed 's/^/# /'
			toolstack detach "$d" xvdb
			return 1
		fi
	done
	toolstack detach "$d" xvdb
}

# p99 of the outages: of as many gaps as there were kills, the longest.
outages()
{
	sort -rn "$tmp/gaps.$1" | awk -v who="$1" -v most="$2" '
		NR <= most { t[++n] = $1 } # to the end, or sort would fail
		END {
			if (!n) { print who ": no gap over 10 ms"; exit }
			print who ": " n " outages, median " t[int((n + 1) / 2)] \
			      " ms, p99 " t[int(n / 100) + 1] " ms, longest " t[1] " ms"
		}'
}

end_last_broker() { kill "$(cat "$tmp/run/xendiskd.pid")" && sleep 0.5; }

sim_start
daemon_start
truncate -s 32M "$tmp/moving.0" "$tmp/raw.img" "$tmp/gold.img" "$tmp/top.img"
: > "$tmp/gaps.worker"

share=$(((kills + 3) / 4))
ok "raw, renamed meanwhile: the worker is killed" rounds worker \
	"raw($tmp/moving.0)" --queues 4 --order 2 --abi x86_32 --size 8M
ok "raw, small: overlapping writes" rounds worker \
	"raw($tmp/raw.img, cache=writeback)" --queues 4 --size 256K --bs 512-16K
ok "mem: the worker is killed" rounds worker "mem(32M)" --queues 2 --size 4M \
	--ops read=30,write=40,flush=5,discard=25
ok "cow on mem: the worker is killed" rounds worker \
	"cow($tmp/gold.img, mem)" --queues 2 --size 4M \
	--ops read=30,write=40,flush=5,discard=25
outages worker $((4 * share)) | sed 's/^/# /'

share=$(((kills + 11) / 12))
for who in broker both; do
	: > "$tmp/gaps.$who"
	ok "raw: $who killed" rounds $who "raw($tmp/raw.img)" --queues 3
	ok "cow on raw: $who killed" rounds $who \
		"cow($tmp/gold.img, raw($tmp/top.img))" --queues 2 --size 8M
	outages $who $((2 * share)) | sed 's/^/# /'
done
ok "the last broker is told to end" end_last_broker
