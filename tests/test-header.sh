#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The public header stands alone, in C11, C17 and, where there is one, C++.
. "$(dirname "$0")/functions.sh"

header() { printf '#include <xendisk-backend.h>\n' > "$tmp/h.$1"; }

header c
header cc
compiles() { "$@" -fsyntax-only -Wall -Wextra -Werror -pedantic -I"$top_srcdir/include"; }
ok "C11" compiles "${CC:-cc}" -std=c11 "$tmp/h.c"
ok "gnu17" compiles "${CC:-cc}" -std=gnu17 "$tmp/h.c"
if command -v c++ >/dev/null; then
	ok "C++17" compiles c++ -std=c++17 "$tmp/h.cc"
fi
includes() { grep '^#include' "$top_srcdir/include/xendisk-backend.h"; }
ok "it includes libc's headers only" \
	test -z "$(includes | grep -vE '<(std[a-z]+|sys/uio)\.h>')"
