#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The example backend, built as its readers will: from what is installed.
. "$(dirname "$0")/functions.sh"
requires make pkg-config

[ -x "$top_builddir/tests/unit/serve-pattern" ] ||
	skip_all "serve-pattern is not built"

install_header()
{
	make -s -C "$top_builddir" DESTDIR="$tmp/root" \
		install-includeHEADERS install-pkgconfigDATA
}

pc()
{
	PKG_CONFIG_SYSROOT_DIR=$tmp/root \
		PKG_CONFIG_PATH=$(dirname "$(find "$tmp/root" -name '*.pc')") \
		pkg-config "$@" xendisk-backend
}

build()
{
	local flags
	read -ra flags <<< "$(pc --cflags)"
	mkdir -p "$tmp/backends"
	"${CC:-cc}" -Wall -Wextra -Werror -O2 -shared -fPIC "${flags[@]}" \
		-o "$tmp/backends/pattern.so" "$top_srcdir/examples/pattern.c"
}

short() { [ "$(wc -l < "$top_srcdir/examples/pattern.c")" -lt 100 ]; }
exports() { nm -D --defined-only "$tmp/backends/pattern.so" | grep -c ' [A-Z] '; }

ok "the header is installed" install_header
ok "pkg-config knows it" pc --exists
ok "pkg-config knows where backends go" \
	grep -q '/xendisk$' <<< "$(pc --variable=backenddir)"
ok "the example is built from it" build
ok "it is under 100 lines" short
ok "it exports one symbol" test "$(exports)" = 1
ok "it is served" "$top_builddir/tests/unit/serve-pattern" "$tmp/backends"
