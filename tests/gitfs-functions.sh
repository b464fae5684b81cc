# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# gitfs-functions.sh - what the tests of gitfs share (sourced).
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
[ -e "$top_builddir/backends/.libs/gitfs.so" ] ||
	skip_all "built without libgit2"
requires git nbdcopy perl

# Nobody's settings, and file names as they are.
export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 LC_ALL=C.UTF-8 MTOOLS_SKIP_CHECK=1 tmp
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='2025-03-04T05:06:08Z'
export GIT_COMMITTER_DATE='2025-03-04T05:06:08Z'
git config --global init.defaultBranch main
git config --global gc.auto 0
git config --global core.fsync none

touch "$tmp/none.conf"
serve()
{
	timeout 120 "$top_builddir/xendisk" serve --config "$tmp/none.conf" \
		--backend-dir "$top_builddir/backends/.libs" "$@"
}
# image FILE EXPR [COMMAND]: the whole disk, after the command.
image() { serve "$2" --run "${3:-:} && nbdcopy \"\$uri\" $1"; }
# no PATTERN EXPR: it is refused, with that in the sentence.
no() { fails 1 "$1" serve "$2" --run true; }

# sound FILE: fsck.fat has nothing to say.
sound()
{
	local out
	out=$(fsck.fat -n "$1") && ! grep -vE '^fsck.fat|files, .* clusters$' <<< "$out"
}
# unpack FILE DIR: all files of a FAT, by mtools.
unpack() { rm -rf "$2"; mkdir "$2"; mcopy -s -n -Q -m -i "$1" ::/ "$2"; }
# judged ARG...: fsck.erofs has nothing to say; its status is 0 in any case.
judged()
{
	local out
	out=$(fsck.erofs "$@" 2>&1) && ! grep -vE '^$|No errors found' <<< "$out"
}
# extract FILE DIR: all files of an EROFS, by fsck.erofs.
extract() { rm -rf "$2"; judged "--extract=$2" "$1"; }
