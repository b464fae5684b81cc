#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Where io_uring is forbidden, threads make the calls: the same disks, isolated
# as ever, and a worker killed under load is replaced.
. "$(dirname "$0")/functions.sh"

truncate -s 16M "$tmp/raw.img" "$tmp/gold.img"
sim_start
dom=$(domain)

worker() { xendisk --json list | sed -n 's/.*"worker_pid": \([1-9][0-9]*\).*/\1/p'; }
has_ring() { find "/proc/$(worker)/fd" -lname '*io_uring*' | grep -q .; }

round()
{
	toolstack attach "$dom" xvdb "$1" &&
		guest "$dom" xvdb verify --seconds 1 --depth 16 --queues 2 &&
		toolstack detach "$dom" xvdb
}

killed_under_load()
{
	toolstack attach "$dom" xvdb "$tmp/raw.img" || return
	guest "$dom" xvdb verify --seconds 3 --depth 16 &
	local load=$!
	sleep 1
	kill -9 "$(worker)"
	wait "$load" && toolstack detach "$dom" xvdb
}

XENDISK_ENGINE=threads daemon_start
ok "attached" toolstack attach "$dom" xvdb "$tmp/raw.img"
ok "there is no ring" eval '! has_ring'
ok "and it says so" grep -q 'without io_uring' "$tmp/log"
ok "detached" toolstack detach "$dom" xvdb
ok "raw" round "$tmp/raw.img"
ok "raw, page cache" round "raw($tmp/raw.img, cache=writeback)"
ok "cow on mem" round "cow($tmp/gold.img, mem)"
ok "a worker is killed" killed_under_load
daemon_stop

# Shown to catch: with io_uring there is one, where the kernel lets us.
XENDISK_ENGINE=uring daemon_start
ok "attached" toolstack attach "$dom" xvdb "$tmp/raw.img"
ok "now there is a ring" has_ring
ok "detached" toolstack detach "$dom" xvdb
