#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# simguest against minibackend: an honest backend passes in every shape of the
# ring, and each fault that a backend can commit is caught.
. "$(dirname "$0")/../functions.sh"

compgen -G '/usr/lib/xen-*/bin/xenstored' >/dev/null ||
	skip_all "xenstored (package xen-utils) is missing"
sim_start
truncate -s 16M "$tmp/disk"

# start_backend [OPTION...]: returns when it offers the disk.
start_backend()
{
	[ -z "${backend:-}" ] || end_process "$backend"
	: > "$tmp/ready"
	background "$top_builddir/tests/sim/minibackend" "$tmp/disk" "$dom" \
		51728 "$@" > "$tmp/ready"
	backend=$!
	eventually 10 grep -q ready "$tmp/ready"
}

disk() { "$simguest" "$dom" xvdb "$@"; }
verify() { disk verify --seconds 20 --requests 1000 "$@"; }

dom=$(domain)
start_backend

ok "a missing disk is refused" fails 1 "has no disk" guest "$dom" xvdz info
ok "wrong use" fails 2 "no such verb" disk frobnicate
ok "info" says "^sectors=32768" disk info
head -c 300000 /dev/urandom | head -c 299520 >"$tmp/data"
ok "write" says "wrote 299520 bytes at 4096" disk write 4096 299520 <"$tmp/data"
read_back() { disk read 4096 299520 | cmp - "$tmp/data"; }
ok "read what was written" read_back
ok "flush" says flushed disk flush
ok "discard" says discarded disk discard 4096 8192
ok "beyond the end" fails 2 "beyond the disk" disk read 16M 512
ok "the status of each operation" fails 3 "^-2 barrier" disk script <<-'END'
	write 0 8192 0x5a
	indirect read 0 8192
	read 16M 512 expect=-1
	op 77 expect=-2
	reconnect queues=2 order=1 abi=x86_32
	read 512 512
	barrier 0 512
END
ok "an answer that was not expected" fails 1 "status 0, not -1" disk script <<<"flush expect=-1"

for abi in native x86_32 x86_64; do
	for order in 0 2 4; do
		ok "verify, $abi, order $order" says "verify: ok" \
			verify --abi $abi --order $order --queues $((order + 1)) --size 4M
	done
done
ok "verify, num-ring-pages" says "verify: ok" verify --ring-key pages --order 3
ok "verify, no indirect requests" says "verify: ok" verify --no-indirect
ok "verify, five connections" says "verify: ok" verify --queues 4 --order 3 --reconnect 4
ok "a guest that just stops" says "verify: ok" verify --queues 2 --stay
ok "the next one takes the disk over" says "verify: ok" verify
ok "load" says '"errors":0' disk load --seconds 1 --depth 32 --json
# Of no seconds, it would be over at once.
waits_and_works()
{
	mkfifo "$tmp/gate" && exec 9<> "$tmp/gate" || return
	disk load --seconds 0 --gate --json < "$tmp/gate" > "$tmp/load" 9>&- &
	eventually 10 grep -q ready "$tmp/load" && sleep 0.3 &&
		! grep iops "$tmp/load" || return
	exec 9>&-
	wait $! && grep '"errors":0' "$tmp/load"
}
ok "load that waits until it is let go" waits_and_works

start_detach() { (sleep 0.5; xenstore-write "/local/domain/0/backend/minibackend/$dom/51728/state" 5) & }
if command -v xenstore-write >/dev/null; then
	start_detach
	ok "closed by the toolstack" says "closed by the backend" verify --requests 0
	start_backend
fi

if command -v nbdcopy >/dev/null; then
	# shellcheck disable=SC2016 # $uri is simguest's
	ok "a program in the guest" disk nbd --socket "$tmp/nbd" \
		--run "nbdcopy $tmp/data \$uri && nbdcopy \$uri - | cmp -n 299520 - $tmp/data"
fi

caught() { # FAULT STATUS PATTERN [OPTION...]
	start_backend --fault "$1"
	ok "caught: $1" fails "$2" "$3" verify "${@:4}"
}
caught answer-twice 1 "disk disabled"
caught wrong-id 1 "an id that was never given out"
caught wrong-operation 1 "an operation that is not the request's"
caught dirty-padding 1 "padding with bytes"
caught run-ahead 1 "beyond req_prod"
caught lose-write 1 "wrong data"
caught stale-read 1 "wrong data"
caught misplace-write 1 "wrong data"
caught ghost-write 1 "wrong data"
caught overrun-read 1 "bytes outside of the segments"
caught stay-mapped 1 "still mapped"
caught stay-mapped 1 "still mapped" --persistent # which is not offered
caught keep-ring 1 "still maps our pages"
caught keep-page 1 "still maps our pages" --persistent
caught never-answer 1 "no answer" --timeout 2
start_backend --fault never-answer
ok "caught: never-answer, under load" fails 1 "no answer" disk load --timeout 1
caught fail-write 3 "status -1"

start_backend
ok "caught: a request that should be refused" \
	fails 1 "read of no segment: status 0, not -1" disk hostile requests
ok "the hostile cases are listed" says "^overrun " "$simguest" --list

# A power cut: what was flushed must be there, other writes may be.
power_cut() { # NAME STATUS PATTERN BACKEND-OPTION...
	rm -f "$tmp/model"
	start_backend --volatile "${@:4}"
	verify --persist "$tmp/model" --volatile >/dev/null
	start_backend
	ok "$1" fails "$2" "$3" verify --persist "$tmp/model" --power-cut
}
power_cut "a power cut loses nothing that was flushed" 0 "verify: ok"
power_cut "caught: early-flush" 1 "wrong data" --fault early-flush

start_backend
(sleep 0.5; "$xensim" domain destroy "$dom") &
ok "the domain is destroyed" says "closed by the backend" verify --requests 0

