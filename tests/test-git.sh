#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2016,SC2317,SC2119  # $uri is the command's; called by ok
# git: a guest's disk in a repository.  Snapshots while it writes, another guest on
# an older one, a fork, git gc beside it: what the guest has read is what a clone of
# the repository holds, byte by byte.  Death at any moment is test-git-kill.sh.
set -euo pipefail
# A file system that fills up is mounted in a namespace of our own.
if [ "${1:-}" != unshared ] && [ "${XENDISK_TESTS:-}" != unit ] &&
	unshare -m true 2> /dev/null; then
	exec unshare -m --propagation private "$0" unshared
fi
. "${top_srcdir:-.}/tests/functions.sh"
[ -e "$top_builddir/backends/.libs/git.so" ] ||
	skip_all "built without libgit2"
requires git nbdcopy nbdinfo xenstore-read xenstore-write
RANDOM=${XENDISK_SEED:-1}

export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 XENDISK_LIBEXEC_DIR=$top_builddir
git config --global core.fsync none
repo=$tmp/vm.git
size=16M
export tmp repo size

sim_start
daemon_start
xendisk git init "$repo"
xendisk git create "$repo" web --size $size > /dev/null
dom=$(domain)
other=$(domain)

# whole DOM FILE: all of its disk.
whole() { guest "$1" xvdb read 0 $size > "$2"; }
# held REV FILE: that commit, by way of a clone, is that file.
held()
{
	rm -rf "$tmp/clone.git"
	git clone -q --bare --no-local "$repo" "$tmp/clone.git" &&
		xendisk git export "$tmp/clone.git" "$1" --force \
			-o "$tmp/held" && cmp "$tmp/held" "$2"
}
# Nothing is wrong but what was given up on the way: packs without a reference.
sound() { git -C "$repo" fsck --full --strict --no-dangling; }
snap() { xendisk snapshot "$dom" xvdb -m "$1" --wait "${@:2}"; }
# The guest's part of --fsfreeze, as in examples/fsfreeze.
at_rest()
{
	local key=/local/domain/0/backend/vbd/$dom/51728/xendisk-freeze
	eventually 10 xenstore-read "$key"
	xenstore-write "/local/domain/$dom/device/vbd/51728/xendisk-frozen" \
		"$(xenstore-read "$key")"
}
load()
{
	guest "$dom" xvdb verify --persist "$tmp/model" --size $size \
		--queues 2 --depth 8 --bs 512-64K --timeout 30 \
		--ops read=30,write=45,flush=10,discard=15 \
		--seed $((RANDOM + 1)) "$@"
}
# clean LOAD-OPTION...: no answer and no byte was wrong.
clean()
{
	load "$@" > "$tmp/load" 2>&1 && grep -q ' 0 errors' "$tmp/load" && return
	cat "$tmp/load"
	return 1
}
# says_status KEY VALUE
says_status() { xendisk status "$dom" xvdb | grep -qE "^$1:? +$2\$"; }

# status_is KEY PATTERN DOM: the same, of another guest's, whoever is there.
status_is() { xendisk status "$3" xvdb > "$tmp/status" && grep -qE "^$1:? +$2\$" "$tmp/status" || { cat "$tmp/status"; return 1; }; }

# --- A disk, and its first snapshot -------------------------------------------------
ok "a disk of a branch" toolstack attach "$dom" xvdb "git:$repo?branch=web"
ok "a guest writes, and reads what it wrote" clean --seconds 1
whole "$dom" "$tmp/one"
# A snapshot needs somebody to whom it matters: the guest stays.
meet "$dom"
ok "a snapshot" says '^[0-9a-f]\{40\}$' snap one
ok "its status: nothing is pending" says_status pending 0
ended_well "the guest goes"
ok "it is what the guest has, in a clone of the repository" held web "$tmp/one"
ok "git finds nothing wrong" sound
ok "the message is git's" says '^one$' git -C "$repo" log -1 --format=%s web
ok "a guest that comes again finds it" clean --seconds 1
differs() { whole "$dom" "$tmp/now"; fails 1 differ cmp "$tmp/now" "$tmp/one"; }
ok "... and writes on" differs

# --- Snapshots under load, git gc beside it ---------------------------------------------
gc_loop()
{
	while [ ! -e "$tmp/stop" ]; do
		git -C "$repo" gc -q --prune=now 2> /dev/null || :
		sleep 0.1
	done
}
snapshots()
{
	local i rc=0
	rm -f "$tmp/stop"
	gc_loop & gc=$!
	clean --seconds 6 & verify=$!
	eventually 10 connected "$dom"
	for i in 1 2 3 4; do
		snap "under load $i" || { rc=1; break; }
	done
	wait "$verify" || rc=1
	touch "$tmp/stop"
	wait "$gc"
	return $rc
}
ok "snapshots under load, git gc --prune=now in a loop" snapshots
whole "$dom" "$tmp/two"
meet "$dom"
at_rest & agent=$!
ok "one more, with its file system at rest" says '^[0-9a-f]\{40\}$' \
	snap two --fsfreeze
wait "$agent"
ok "... as the commit says" says '^Xendisk-Consistency: fs-frozen$' \
	git -C "$repo" log -1 --format=%b web
ended_well "the guest goes again"
ok "... is what the guest has" held web "$tmp/two"
ok "git finds nothing wrong again" sound
count() { git -C "$repo" rev-list --count --first-parent web; }
ok "all of them are there" says '^7$' count
ok "the first one is what it was" held web~5 "$tmp/one"

# --- Beside it ------------------------------------------------------------------------------
ok "an older commit, at the same time" \
	toolstack attach "$other" xvdb "git:$repo?rev=web~5"
whole "$other" "$tmp/old"
ok "... is that commit" cmp "$tmp/old" "$tmp/one"
writes() { guest "$other" xvdb script --timeout 20 <<< "write 0 4K 0x5a"; }
ok "... and takes no writes" fails 3 '' writes
toolstack detach "$other" xvdb
ok "a fork of it" \
	toolstack attach "$other" xvdb "git($repo, rev=web~5, fork=trial)"
whole "$other" "$tmp/old"
ok "... begins there" cmp "$tmp/old" "$tmp/one"
ok "... and takes writes" writes
whole "$other" "$tmp/trial"
ok "... which the disk does not have" fails 1 differ \
	cmp "$tmp/trial" "$tmp/one"
toolstack detach "$other" xvdb
ok "the branch is there for git" git -C "$repo" rev-parse --verify -q trial
touch "$tmp/none.conf"
words=("$top_builddir/xendisk" serve --config "$tmp/none.conf"
	--backend-dir "$top_builddir/backends/.libs" --state-dir)
serve() { timeout 60 "${words[@]}" "$tmp/state" "$@"; }
ok "what was written to it is there without Xen" serve \
	"git:$repo?branch=trial" --run 'nbdcopy "$uri" - | cmp - $tmp/trial'
ok "any commit over NBD" serve "git:$repo?rev=web~5" \
	--run 'nbdcopy "$uri" - | cmp - $tmp/one'
ok "a branch that is not there" fails 1 'nothing' \
	serve "git:$repo?branch=nothing" --run true
meet "$dom"
ok "one writer at a time" fails 5 'in use\|lock' \
	serve "git:$repo?branch=web" --run true
ended_well "the guest goes a third time"

# --- One after the other ------------------------------------------------------------------
# A disk that is attached, and whose guest is not there, is somebody else's in the
# meantime, whose snapshots become commits.
third=$(domain)
xendisk git create "$repo" shared --size 1M > /dev/null
head -c 1M /dev/urandom > "$tmp/x"
# at_end FILE: it is written, and that becomes a commit, which the overlay knows of.
at_end()
{
	serve "git($repo, branch=shared, on-detach=snapshot)" \
		--run "nbdcopy $1 \$uri" &&
		eventually 20 held shared "$1" &&
		serve "git:$repo?branch=shared" --run 'sleep 1'
}
ok "attached, and no guest is there yet" \
	toolstack attach "$third" xvdb "git:$repo?branch=shared"
ok "... its status: nothing was written" status_is dirty 0 "$third"
ok "... at which commit the branch is" status_is head "$(git -C "$repo" rev-parse shared)" "$third"
ok "somebody else writes, and it becomes a commit" at_end "$tmp/x"
finds() { guest "$third" xvdb read 0 1M > "$tmp/found" && cmp "$tmp/found" "$1"; }
ok "the guest that comes then finds it" finds "$tmp/x"
meet "$third"
tell "write 0 4K 0x5a"
shared() { xendisk snapshot "$third" xvdb -m shared --wait; }
ok "its snapshot" says '^[0-9a-f]\{40\}$' shared
ok "the disk grows under it" says '^2M$' xendisk resize "$third" xvdb 2M
tell "size 2097152" "write 2093056 4K 0x33"
ended_well "it has seen that, writes there, and goes"
ok "... of which its status knows" status_is dirty '[1-9][0-9]*[KM]' "$third"
ok "... and that it takes space" status_is space '[1-9][0-9]*[KM]' "$third"
ok "a snapshot of a disk whose guest has gone" says '^[0-9a-f]\{40\}$' shared
stands_on() { xendisk status "$third" xvdb | grep -q "^base *$(git -C "$repo" rev-parse "$1")\$"; }
ok "... is what status says that it stands on" stands_on shared
ok "... there is nothing else" status_is dirty 0 "$third"
ok "... nor is anything pending" status_is pending 0 "$third"
ok "... and where the branch is" status_is head "$(git -C "$repo" rev-parse shared)" "$third"
size_in() { git -C "$repo" show "$1:disk" | grep -qx "size $2"; }
ok "... has what it wrote, and the size" size_in shared 2097152
ok "... the one before has its own" size_in shared~1 1048576
reads_33() { serve "git:$repo?rev=shared" --run 'nbdcopy "$uri" - | tail -c 4096 | tr -d "\063" | cmp - /dev/null'; }
ok "... and who reads it gets that" reads_33
head -c 2M /dev/urandom > "$tmp/x"
ok "its committer does not keep others from theirs" at_end "$tmp/x"
toolstack detach "$third" xvdb

# --- As it is, or smaller ----------------------------------------------------------------
# written BRANCH FROM [OPTION]: numbers from there on are on the disk, and in a commit.
written()
{
	xendisk git create "$repo" "$1" --size 1M > /dev/null &&
		head -c 1M < <(seq "$2" 1000000) > "$tmp/x" &&
		serve "git($repo, branch=$1, on-detach=snapshot${3:-})" \
			--run "nbdcopy $tmp/x \$uri" &&
		eventually 20 held "$1" "$tmp/x"
}
# taken BRANCH: bytes in a pack of its first chunk.
taken()
{
	git -C "$repo" rev-parse "$1:data/00/00/00" |
		git -C "$repo" cat-file --batch-check='%(objectsize:disk)'
}
ok "compress=none" written plain 100000 ', compress=none'
ok "... stores chunks as they are" [ "$(taken plain)" -gt 65536 ]
ok "the preset" written packed 200000
ok "... deflates them" [ "$(taken packed)" -lt 32768 ]
# copied REPO SIZE: all of that disk, in requests of this size.
copied()
{
	serve "disk(git($1, rev=packed), on-error=report)" \
		--run "nbdcopy --request-size=$2 \$uri - | cmp - $tmp/x"
}
ok "... they are read as a whole" copied "$repo" 131072
ok "... and by way of the cache" copied "$repo" 4096
# A byte in the middle of a chunk, in its pack.
damage()
{
	local chunk pack size at
	cp -r "$repo" "$tmp/damaged.git"
	chunk=$(git -C "$repo" rev-parse packed:data/00/00/03)
	for pack in "$tmp/damaged.git"/objects/pack/*.pack; do
		read -r _ _ _ size at < <(git verify-pack -v "$pack" |
			grep "^$chunk blob") || continue
		chmod u+w "$pack"
		printf '\125\252' | dd of="$pack" bs=1 conv=notrunc \
			seek=$((at + size / 2)) status=none
	done
}
damage
ok "a damaged one is an error" fails 1 'Input/output' \
	copied "$tmp/damaged.git" 131072
ok "... also by way of the cache" fails 1 'Input/output' \
	copied "$tmp/damaged.git" 4096
rm -rf "$tmp/damaged.git"
ok "something else is refused" fails 1 compress \
	serve "git($repo, branch=web, compress=best)" --run true

# --- Space ------------------------------------------------------------------------------------
# Layers on a file system that fills up, and then has room again.
paused() { says '"paused"' xendisk --json list; }
fills_up()
{
	toolstack attach "$other" xvdb "git($repo, rev=web~5, fork=small)" &&
		toolstack detach "$other" xvdb || return
	local small
	small=$(echo "$tmp/state/git/small-"*)
	mount -t tmpfs -o size=3m,mode=700 small "$small" || return
	toolstack attach "$other" xvdb "git:$repo?branch=small" || return
	guest "$other" xvdb verify --size $size --ops write=70,flush=30 \
		--bs 64K --requests 300 --timeout 60 > "$tmp/full" 2>&1 &
	eventually 30 paused || { cat "$tmp/full"; return 1; }
	mount -o remount,size=64m "$small"
	xendisk resume "$other" xvdb
	wait $! && grep ' 0 errors' "$tmp/full" || { cat "$tmp/full"; return 1; }
	toolstack detach "$other" xvdb
}
if [ "${1:-}" = unshared ]; then
	ok "no space: writes wait until there is some" fills_up
	umount -l "$tmp/state/git/small-"* || :
else
	skipped "no space: writes wait until there is some" \
		"no mount namespace can be made"
fi

# --- At the end ---------------------------------------------------------------------------------
ok "detached" toolstack detach "$dom" xvdb
ok "with a snapshot at detach" toolstack attach "$dom" xvdb \
	"git($repo, branch=web, on-detach=snapshot)"
ok "... of what is written" clean --seconds 1
whole "$dom" "$tmp/four"
toolstack detach "$dom" xvdb
is_held() { held web "$tmp/four"; }
ok "... which becomes a commit by itself" eventually 20 is_held
ok "what it was like is in the commit" \
	says '^Xendisk-Consistency: clean-detach$' git -C "$repo" log -1 --format=%B web
