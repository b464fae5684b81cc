#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# simguest against minibackend: an honest backend passes in every shape of the
# ring, and each fault that a backend can commit is caught.
set -euo pipefail

sim=${top_builddir:-.}/tests/sim
if ! compgen -G '/usr/lib/xen-*/bin/xenstored' >/dev/null; then
	echo '1..0 # SKIP xenstored (package xen-utils) is missing'
	exit 0
fi
if [ -z "${XENSIM_DIR:-}" ]; then
	exec "$sim/xensim" run -- "$0"
fi

dir=$(mktemp -d)
backend=
count=0
stop_backend() {
	[ -z "$backend" ] || { kill "$backend"; wait "$backend" || true; } 2>/dev/null
	backend=
}
trap 'stop_backend; rm -rf "$dir"' EXIT

# start_backend [OPTION...]: on a disk of 16 MiB, returns when it offers it.
start_backend() {
	stop_backend
	: >"$dir/ready"
	[ -e "$dir/disk" ] || truncate -s 16M "$dir/disk"
	"$sim/minibackend" "$dir/disk" "$domain" 51728 "$@" >"$dir/ready" &
	backend=$!
	until grep -q ready "$dir/ready"; do sleep 0.01; done
}

guest() { "$sim/simguest" "$domain" xvdb "$@"; }
verify() { guest verify --seconds 20 --requests 1000 "$@"; }

# check NAME STATUS PATTERN COMMAND...: its exit status, and what it says.
check() {
	local name=$1 status=$2 pattern=$3 output code=0 verdict=ok
	shift 3
	output=$("$@" 2>&1) || code=$?
	count=$((count + 1))
	[ "$code" = "$status" ] && grep -q -e "$pattern" <<<"$output" || verdict="not ok"
	echo "$verdict $count - $name"
	[ "$verdict" = ok ] || printf '# exit %s: %s\n' "$code" "${output//$'\n'/$'\n'# }"
}

domain=$("$sim/xensim" domain create)
start_backend

check "a missing disk is refused" 1 "has no disk" "$sim/simguest" "$domain" xvdz info
check "wrong use" 2 "no such verb" guest frobnicate
check "info" 0 "^sectors=32768" guest info
head -c 300000 /dev/urandom | head -c 299520 >"$dir/data"
check "write" 0 "wrote 299520 bytes at 4096" guest write 4096 299520 <"$dir/data"
read_back() { guest read 4096 299520 | cmp - "$dir/data"; }
check "read what was written" 0 "" read_back
check "flush" 0 flushed guest flush
check "discard" 0 discarded guest discard 4096 8192
check "beyond the end" 2 "beyond the disk" guest read 16M 512
check "the status of each operation" 3 "^-2 barrier" guest script <<-'END'
	write 0 8192 0x5a
	indirect read 0 8192
	read 16M 512 expect=-1
	op 77 expect=-2
	reconnect queues=2 order=1 abi=x86_32
	read 512 512
	barrier 0 512
END
check "an answer that was not expected" 1 "status 0, not -1" guest script <<<"flush expect=-1"

for abi in native x86_32 x86_64; do
	for order in 0 2 4; do
		check "verify, $abi, order $order" 0 "verify: ok" \
			verify --abi $abi --order $order --queues $((order + 1)) --size 4M
	done
done
check "verify, num-ring-pages" 0 "verify: ok" verify --ring-key pages --order 3
check "verify, no indirect requests" 0 "verify: ok" verify --no-indirect
check "verify, five connections" 0 "verify: ok" verify --queues 4 --order 3 --reconnect 4
check "a guest that just stops" 0 "verify: ok" verify --queues 2 --stay
check "the next one takes the disk over" 0 "verify: ok" verify
check "load" 0 '"errors":0' guest load --seconds 1 --depth 32 --json

start_detach() { (sleep 0.5; xenstore-write "/local/domain/0/backend/minibackend/$domain/51728/state" 5) & }
if command -v xenstore-write >/dev/null; then
	start_detach
	check "closed by the toolstack" 0 "closed by the backend" verify --requests 0
	start_backend
fi

if command -v nbdcopy >/dev/null; then
	# shellcheck disable=SC2016 # $uri is simguest's
	check "a program in the guest" 0 "" guest nbd --socket "$dir/nbd" \
		--run "nbdcopy $dir/data \$uri && nbdcopy \$uri - | cmp -n 299520 - $dir/data"
fi

caught() { # FAULT STATUS PATTERN [OPTION...]
	start_backend --fault "$1"
	check "caught: $1" "$2" "$3" verify "${@:4}"
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
caught keep-ring 1 "still maps our pages"
caught never-answer 1 "no answer" --timeout 2
caught fail-write 3 "status -1"

# A power cut: what was flushed must be there, other writes may be.
power_cut() { # NAME STATUS PATTERN BACKEND-OPTION...
	rm -f "$dir/model"
	start_backend --volatile "${@:4}"
	verify --persist "$dir/model" --volatile >/dev/null
	start_backend
	check "$1" "$2" "$3" verify --persist "$dir/model" --power-cut
}
power_cut "a power cut loses nothing that was flushed" 0 "verify: ok"
power_cut "caught: early-flush" 1 "wrong data" --fault early-flush

start_backend
(sleep 0.5; "$sim/xensim" domain destroy "$domain") &
check "the domain is destroyed" 0 "closed by the backend" verify --requests 0

echo "1..$count"
