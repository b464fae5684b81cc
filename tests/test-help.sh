#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What --help says and what the man pages say is the same, both ways.
. "$(dirname "$0")/functions.sh"

command=$top_builddir/xendisk
daemon=$top_builddir/xendiskd

# Long options of a text, sorted.
options() { grep -oE -- '--[a-z][a-z-]*' | sort -u; }
same() { diff <(printf '%s\n' "$1") <(printf '%s\n' "$2"); }

man_options() { grep -E '^=item ' "$1" | options; }
verbs() { "$command" --help | sed -n 's/^  \([a-z]\+\) .*/\1/p'; }
man_verbs() { sed -n 's/^=head2 \([a-z]*\).*/\1/p' "$1" | sort; }
help_options()
{
	local v
	{
		"$command" --help
		for v in $(verbs); do "$command" "$v" --help; done
	} | options
}

page=$top_srcdir/man/xendisk.1.pod
ok "xendisk: the verbs" same "$(verbs | sort)" "$(man_verbs "$page")"
ok "xendisk: the options" same "$(help_options)" "$(man_options "$page")"
ok "xendisk: the synopsis has every verb's options" \
	same "$(help_options | grep -vE -- '--(json|help|version)$')" \
	"$(sed -n '/^=head1 SYNOPSIS/,/^=head1 DESC/p' "$page" | options)"
ok "-h is --help" says '^usage: xendisk list \[DOM\]$' xendisk list -h
ok "... before the verb, too" says '^  list ' xendisk -h
ok "help is --help" same "$("$command" help)" "$("$command" --help)"
ok "... of a verb, too" same "$("$command" help attach)" "$("$command" attach --help)"
ok "a verb that is none: which is near" \
	fails 2 'lst: there is no such verb; did you mean "list"?' xendisk lst
ok "... also after help" fails 2 '^xendisk: lst: there is no such verb' xendisk help lst
ok "... where none is near, where they are" \
	fails 2 'frobnicate: there is no such verb; see xendisk --help' xendisk frobnicate
ok "an option that is none: which is near" \
	fails 2 'attach: --read-only: there is no such option; did you mean "--readonly"?' \
	xendisk attach --read-only 1 /a
ok "... before the verb" fails 2 '^xendisk: --rundir=/a: .* did you mean "--run-dir"?' \
	xendisk --rundir=/a list
ok "... where none is near, where they are" \
	fails 2 'list: --colour: there is no such option; see xendisk list --help' \
	xendisk list --colour
ok "... before the verb, too" fails 2 '^xendisk: -q: .*; see xendisk --help' xendisk -q list
ok "... of the daemon" fails 2 'xendiskd: --backend-dri: no such option; did you mean "--backend-dir"?' \
	"$daemon" --backend-dri /a
# The last column begins where it does in the line before, and ends in time.
in_columns()
{
	"$@" | awk 'length($0) > 80 { print; bad = 1 }
		/^  [-a-z]/ && !/^  --(json|help|version|run-dir)/ {
			at = 3
			while (match(substr($0, at), /[^ ]  +[^ ]/))
				at += RSTART + RLENGTH - 2
			if (last && at != last) { print; bad = 1 }
			last = at
		}
		END { exit bad || !last }'
}
ok "the verbs stand in columns" in_columns "$command" --help
if [ -e "$top_builddir/xendisk-git" ]; then
	ok "those of git, too" in_columns "$command" git --help
else
	ok "built without git, which it says" fails 1 'built without git' xendisk git --help
fi
ok "and options" in_columns "$command" serve --help
# Who reads about expressions finds each backend from there.
pages() { (cd "$top_srcdir/man" && ls xendisk-*.7.pod) | sed 's/\.7\.pod$//;/-spec$/d'; }
ok "xendisk-spec names all the pages" same "$(pages | sort)" "$(
	sed -n '/^=head1 SEE ALSO/,$p' "$top_srcdir/man/xendisk-spec.7.pod" |
		grep -o 'xendisk-[a-z0-9-]*(7)' | sed 's/(7)//' | sort)"
# Also those that share one.
without_page()
{
	local so name
	for so in "$top_builddir"/backends/.libs/*.so; do
		name=$(basename "$so" .so)
		[ -s "$top_builddir/man/xendisk-$name.7" ] || echo "$name"
	done | grep .
}
ok "each backend has a page" fails 1 '' without_page
ok "xendiskd: the options" same "$("$daemon" --help | options)" \
	"$(man_options "$top_srcdir/man/xendiskd.8.pod")"

