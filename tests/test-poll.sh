#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# poll-max-us: how long a disk's thread looks for the next request before it sleeps.
# Who finds it asleep has to notify it, and the guest tells how often it did.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"

# notifies VDEV: of a hundred requests that are made one at a time.
notifies()
{
	guest "$d" "$1" load --rw randread --bs 4K --depth 1 --seconds 1 --json \
		> "$tmp/load" || return
	sed -n 's/.*"notifies_per_request":\([0-9.]*\).*/\1/p' "$tmp/load" |
		awk '{ print int($1 * 100) }'
}
# Some find it awake by chance: it is about to fall asleep.  (As long as others want
# the CPU, a disk that nothing is said of is hardly looked at.)
fewer_notify()
{
	local still looked
	still=$(notifies xvdb) && looked=$(notifies xvdc) || return
	echo "$looked of 100, of one that is not looked at $still"
	[ "$still" -gt 3 ] && [ $((looked * 2)) -lt "$still" ]
}

sim_start
d=$(domain)
cat > "$tmp/xendiskd.conf" <<- END
	disk "still" { expr = "mem(16M)" poll-max-us = 0 }
	disk "hasty" { expr = "mem(16M)" poll-max-us = 10001 }
END
daemon_start
ok "a setting that cannot be: the daemon starts, and says where" \
	says 'xendiskd.conf:2: .*"10001" is not a number up to 10000' cat "$tmp/log"
ok "a disk that is not looked at" xendisk attach "$d" @still --vdev xvdb --direct
ok "one that is looked at for long" \
	xendisk attach "$d" 'disk(mem(16M), poll-max-us=10000)' --vdev xvdc --direct
ok "fewer of its requests notify" eventually 60 fewer_notify
ok "such a guest's data is right" guest "$d" xvdc verify --requests 2000 --depth 1
ok "what is no number is refused, with the limit" fails 1 "not a number up to 10000" \
	xendisk attach "$d" 'disk(mem(16M), poll-max-us=1h)' --vdev xvdd --direct
finish
