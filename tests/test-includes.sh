#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Include arrows point one way: common <- nbd, broker, command; nbd <- worker; nbd
# and worker <- serve; a backend sees the public header only; Xen's ring protocol
# and each library of Xen have one place.
. "$(dirname "$0")/functions.sh"

# arrows FOLDER PATTERN: every quoted or <xen...> include matches the pattern.
arrows()
{
	local wrong
	wrong=$(cd "$1" && grep -nHE '^#include ("|<xen)' -r . \
		--include='*.[ch]' | grep -vE "$2")
	[ -z "$wrong" ] || { echo "$wrong"; return 1; }
}

# only FILES PATTERN: no other file under src includes it.
only()
{
	local wrong
	wrong=$(cd "$top_srcdir/src" && grep -lE "^#include <($2)" -r . |
		grep -vE "^\./($1)$")
	[ -z "$wrong" ] || { echo "$wrong"; return 1; }
}

# lone WORD FILE FOLDER...: no other file in these folders has the word.
lone()
{
	local found
	found=$(cd "$top_srcdir" && grep -lrw "$1" "${@:3}" --include='*.[ch]' |
		grep -v '\.h$')
	[ "$found" = "$2" ] || { echo "$found"; return 1; }
}

src=$top_srcdir/src
ok "common includes only common" \
	arrows "$src/common" '"(common/|config\.h|xendisk-backend\.h)'
ok "worker includes nbd, no broker and no command" \
	arrows "$src/worker" '"(common/|nbd/|worker/|config\.h|xendisk-backend\.h)|<xen'
ok "nbd includes only common and itself" \
	arrows "$src/nbd" '"(common/|nbd/|config\.h)'
ok "serve includes nbd and the worker, no broker and no command" \
	arrows "$src/serve" '"(common/|nbd/|serve/|worker/|config\.h|xendisk-backend\.h)'
ok "broker includes no worker and no command" \
	arrows "$src/broker" '"(common/|broker/|config\.h|xendisk-backend\.h)|<xen'
ok "command includes no worker and no broker" \
	arrows "$src/command" '"(common/|command/|config\.h)|<xen'
ok "backends: the public header, their own, and a few of common" \
	arrows "$top_srcdir/backends" \
	'"(common/(confine|crash|fds|pidfd|server|tcp|util)\.h|config\.h|[a-z0-9-]+\.h)"|^\./git/git-[a-z]+\.[ch]:.*"(command/(tables|verbs)|common/suggest)\.h"'
ok "examples include only the installed header" \
	arrows "$top_srcdir/examples" '<xendisk-backend\.h>'
ok "blkif.h and ring.h are the worker's ring's and blkif's business" \
	only 'worker/(ring|blkif)\.[ch]' 'xen/io/(ring|blkif|protocols)'
ok "grants: worker only" only 'worker/[a-z]+\.[ch]' 'xengnttab'
ok "event channels: worker only" only 'worker/[a-z]+\.[ch]' 'xenevtchn'
ok "xenstore: the broker's store and the command" \
	only '(broker/store(-[a-z]+)?\.[ch]|command/[a-z]+\.[ch])' 'xenstore'
ok "GnuTLS: one file" only 'nbd/tls\.c' 'gnutls'
ok "descriptors over a socket: one file" \
	lone SCM_RIGHTS src/common/fds.c src backends
ok "libxenctrl: one file of the command" only 'command/domain\.c' 'xenctrl'

# The guest's side of a ring may be looked at in one file only: who has a pointer
# into it could read what has been judged a second time.
ring_pointers()
{
	local wrong
	wrong=$(cd "$1" && grep -nE 'sring|\bring(->|\.)shared\b' -r . \
		--include='*.[ch]' | grep -vE '^\./ring\.[ch]:')
	[ -z "$wrong" ] || { echo "$wrong"; return 1; }
}

ok "pointers into a ring: ring.c only" ring_pointers "$src/worker"

# Shown to catch: a pointer into the ring, a wrong arrow, in a copy.
echo 'x = ring->shared;' > "$tmp/io.c"
ok "a pointer into a ring is noticed" fails 1 io.c:1 ring_pointers "$tmp"
mkdir -p "$tmp/common"
echo '#include "worker/ring.h"' > "$tmp/common/bad.c"
ok "a wrong arrow is noticed" \
	fails 1 worker/ring arrows "$tmp/common" '"(common/|config\.h)'
