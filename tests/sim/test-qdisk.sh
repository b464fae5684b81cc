#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Debian's QEMU, unmodified, serves a guest of the simulated machine (qdisk).
set -euo pipefail

here=$(cd "${top_builddir:-.}" && pwd)/tests/sim
qemu=${XENSIM_QEMU:-/usr/libexec/xen-qemu-system-i386}

skip() {
	echo "1..0 # SKIP $1 is missing"
	exit 0
}
[[ -x $qemu ]] || skip "$qemu (package qemu-system-xen)"
compgen -G '/usr/lib/xen-*/bin/xenstored' >/dev/null || skip 'xenstored (package xen-utils)'
[[ -n ${XENSIM_DIR:-} ]] || exec "$here/xensim" run -- "$0"

count=0
check() { # NAME COMMAND...
	count=$((count + 1))
	if "${@:2}" >/dev/null; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
	fi
}
node=/local/domain/0/backend/qdisk/5/51728
counter() { "$here/xensim" counters | sed -n "s/^$1 //p"; }
state_is() { [[ $(xenstore-read "$node/state") = "$1" ]]; }
wait_state() {
	for _ in {1..100}; do
		state_is "$1" && return 0
		sleep 0.1
	done
	return 1
}

truncate -s 32M "$XENSIM_DIR/image"
"$here/xensim" domain create 5 >/dev/null
"$here/xensim" toolstack attach 5 xvdb "aio:$XENSIM_DIR/image" --kind qdisk
"$here/xensim" qemu 5 2>"$XENSIM_DIR/qemu.log" &
qemu_pid=$!
trap 'kill $qemu_pid' EXIT

check 'QEMU takes the disk' wait_state 2
check 'reads and writes are right' \
	"$here/simguest" 5 xvdb verify --seconds 2 --size 16M --order 2
check 'a second connection, too' \
	"$here/simguest" 5 xvdb verify --seconds 1 --size 16M --order 2
check 'data went by grant copy' test "$(counter copy_bytes)" -gt 1000000
check 'no grant copy failed' test "$(counter copy_failures)" = 0
check 'nothing was refused' test "$(counter refusals)" = 0
"$here/simguest" 5 xvdb hold --order 2 &
check 'a third, that stays' wait_state 4
check 'detach' "$here/xensim" toolstack detach 5 xvdb
check 'nothing is mapped' test "$("$here/xensim" domain list | awk '$1 == 5 { print $6 }')" = 1
echo "1..$count"
