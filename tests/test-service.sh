#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2329  # called by ok, or by the script under test
# The files that other programs run us by: what can be said about them without
# running them.  tests/test-systemd.sh has the rest.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"

# --- systemd --------------------------------------------------------------------
unit=$tmp/xendiskd.service
sed "s|@sbindir@/xendiskd|$top_builddir/xendiskd|" \
	"$top_srcdir/scripts/xendiskd.service.in" > "$unit"
dropin=$unit.d/driver-domain.conf

# Its exit status does not tell of a key that it does not know.
quiet() { local out; out=$("$@" 2>&1) && [ -z "$out" ] || { echo "$out"; return 1; }; }
verify() { systemd-analyze verify --man=no "$unit"; }
# Exposure in tenths: the better the smaller.
exposure() { systemd-analyze security --offline=yes --no-pager --threshold="$1" "$unit"; }

if command -v systemd-analyze >/dev/null; then
	ok "systemd-analyze verify is silent" quiet verify
	ok "exposure is at most 4.0" exposure 40
	ok "... which is all there is to it" fails 1 OK exposure 36
	mkdir "$unit.d"
	cp "$top_srcdir/contrib/systemd/driver-domain.conf" "$dropin"
	ok "... and silent with the drop-in for driver domains" quiet verify
	ok "... which makes it smaller" exposure 36
	printf '[Service]\nWatchdogSecs=1\n' > "$dropin"
	ok "a wrong key is noticed" fails 1 WatchdogSecs quiet verify
	printf '[Service]\nCapabilityBoundingSet=CAP_SYS_ADMIN\n' > "$dropin"
	ok "one capability more is noticed" fails 1 OK exposure 40
fi

# What configure has found is what is used.
links() { ldd "$top_builddir/xendiskd" | grep libsystemd; }
if grep -q '^#define HAVE_SYSTEMD' "$top_builddir/config.h"; then
	ok "built with systemd" links
else
	ok "built without systemd: the daemon does not need it" fails 1 '' links
	ok "... and no unit is installed" test ! -e "$top_builddir/scripts/xendiskd.service"
fi

# --- OpenRC ----------------------------------------------------------------------
# Sourced as openrc-run does, with its words put in the place of files.
initd=$top_srcdir/contrib/openrc/xendiskd.initd
rc()
(
	for word in use need after before provide; do
		eval "$word() { printf '$word %s\n' \"\$*\"; }"
	done
	checkpath() { echo "checkpath $*"; }
	eerror() { echo "eerror $*"; }
	modprobe() { echo "modprobe $*"; return 1; }
	# shellcheck source=../contrib/openrc/xendiskd.confd
	. "$top_srcdir/contrib/openrc/xendiskd.confd"
	# shellcheck source=../contrib/openrc/xendiskd.initd
	. "$initd"
	"$@"
)
value() { rc eval "printf '%s\n' \"\$$1\""; }
# A dom0 is where this exists.
as_dom0() { sed "s|/dev/xen/xenbus|$1|" "$initd" > "$tmp/initd"; initd=$tmp/initd rc start_pre; }

ok "OpenRC: plain sh can read it" sh -n "$initd"
ok "OpenRC: guests come after us" says 'before xendomains' rc depend
ok "OpenRC: xenstored comes before us" says 'after xenstored' rc depend
ok "OpenRC: the options are the daemon's" says '  --foreground' \
	"$top_builddir/xendiskd" --help
ok "OpenRC: the daemon stays in the foreground" says '^--foreground$' \
	value command_args_foreground
ok "OpenRC: it is started again without end" says '^0$' value respawn_max
ok "OpenRC: dom0, without xen-blkback: it starts" \
	says 'checkpath --directory --mode 0755 /run/xendiskd' as_dom0 /dev/null
ok "OpenRC: elsewhere it says why not" \
	fails 1 'eerror this is no Xen' as_dom0 /nowhere
