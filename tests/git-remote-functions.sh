# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2034,SC2154,SC2317
# Sourced: two hosts' repositories and a plain bare one between them.  xgit() and
# git_tool are the test's.
a=$tmp/a.git
b=$tmp/b.git
hub=$tmp/hub.git

# worker REPO COMMAND...: a guest writes, a snapshot is made.
export RIG_FOLLOW=1
worker()
{
	mkdir -p "$1.state"
	xgit export "$1" web --force -o "$1.model" > /dev/null
	timeout 120 "$top_builddir/tests/git/commit-rig" "$git_tool" "$1" \
		"$1.state" web "$1.model" "${@:2}" > "$tmp/said" 2>&1 ||
		{ cat "$tmp/said"; return 1; }
}
# is REPO FILE: the disk there.
is() { xgit export "$1" web --force -o "$tmp/out" > /dev/null && cmp "$tmp/out" "$2"; }
head_of() { git -C "$1" rev-parse "refs/heads/web"; }
same() { [ "$(head_of "$1")" = "$(head_of "$2")" ]; }
lease() { git -C "$hub" cat-file blob refs/xendisk/lease/web; }
sound() { git -C "$1" fsck --full --strict; }

git init -q --bare "$hub"
xgit init "$a"
xgit init "$b"
git -C "$a" config core.fsync none
git -C "$b" config core.fsync none
