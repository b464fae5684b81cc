#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the house rules say that a machine can check.
. "$(dirname "$0")/functions.sh"

[ "${XENDISK_TESTS:-}" != built ] ||
	skip_all "the sources are those of another build, which has looked at them"
cd "$top_srcdir" || exit 1
sources=$(find src backends include examples tests -name '*.[ch]' | sort)

longest_file()
{
	local f
	for f in $sources; do
		[ "$(wc -l < "$f")" -le 800 ] || echo "$f: over 800 lines"
	done
}

longest_function()
{
	local f
	for f in $sources; do
		awk -v f="$f" '/^[a-z_].*[)]$/ { name = $0 }
			/^\{/ { start = NR }
			/^\}/ { if (start && NR - start > 80)
					print f ":" start ": " NR - start " lines"
				start = 0 }' "$f"
	done
}

without_licence()
{
	find . \( -name .git -o -name build\* -o -name autom4te.cache \) -prune \
		-o \( -name '*.[ch]' -o -name '*.sh' -o -name '*.am' \
		-o -name '*.pod' -o -name '*.def' \) -print |
		grep -vE '^\./(build-aux|m4)/' | xargs grep -L SPDX-License-Identifier
}

promises()
{
	grep -nE '\b(TODO|FIXME|XXX|HACK)\b' -r src backends include examples \
		scripts man
}

none() { local out; out=$("$@"); [ -z "$out" ] || { echo "$out"; return 1; }; }

ok "no file over 800 lines" none longest_file
ok "no function over 80 lines" none longest_function
ok "every file has its licence line" none without_licence
ok "no promises in the code" none promises
if command -v clang-format >/dev/null; then
	# shellcheck disable=SC2086
	ok "clang-format has nothing to say" \
		clang-format --dry-run --Werror $sources
fi
if command -v shellcheck >/dev/null; then
	# shellcheck disable=SC2046
	ok "shellcheck has nothing to say" shellcheck -x -S warning \
		$(grep -lE '^#!/bin/(ba)?sh|^# shellcheck shell' -r scripts tests \
			.ci contrib src --include='*' | grep -vE '\.(c|h|am|pod|md)$')
fi
