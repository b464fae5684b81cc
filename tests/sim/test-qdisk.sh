#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Debian's QEMU, unmodified, serves a guest of the simulated machine (qdisk).
. "${top_srcdir:-.}/tests/functions.sh"
requires "${XENSIM_QEMU:=/usr/libexec/xen-qemu-system-i386}" xenstore-read
export XENSIM_QEMU

node=/local/domain/0/backend/qdisk/5/51728
counter() { "$xensim" counters | sed -n "s/^$1 //p"; }
state_is() { [ "$(xenstore-read "$node/state")" = "$1" ]; }
mapped() { "$xensim" domain list | awk '$1 == 5 { print $6 }'; }

sim_start
truncate -s 32M "$tmp/image"
domain 5 >/dev/null
"$xensim" toolstack attach 5 xvdb "aio:$tmp/image" --kind qdisk
background "$xensim" qemu 5 2>"$tmp/log"

ok "QEMU takes the disk" eventually 10 state_is 2
ok "reads and writes are right" guest 5 xvdb verify --seconds 2 --size 16M --order 2
ok "over a second connection, too" guest 5 xvdb verify --seconds 1 --size 16M --order 2
ok "data went by grant copy" test "$(counter copy_bytes)" -gt 1000000
ok "no grant copy failed" test "$(counter copy_failures)" = 0
ok "nothing was refused" test "$(counter refusals)" = 0
background "$simguest" 5 xvdb hold --order 2 >"$tmp/hold"
ok "a third, that stays" eventually 10 state_is 4
ok "detach" toolstack detach 5 xvdb
ok "only xenstored still maps a page" test "$(mapped)" = 1
