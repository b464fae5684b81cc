#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# Commits of a git disk: a stand-in for the worker (tests/git/commit-rig) has them
# made, while the committer is killed at each of its steps, the repository is full,
# plain git collects garbage beside it or moves the branch.  Afterwards git fsck is
# content, the disk is what the model says, nothing is there twice or left over.
#
#	XENDISK_COMMIT_SWEEP=all	each write of a full repository, not a sample
room=$(df --output=avail /dev/shm 2>/dev/null | tail -1)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 1000000 ]; then
	export TMPDIR=/dev/shm
fi
. "$(dirname "$0")/functions.sh"
git_tool=$top_builddir/xendisk-git
[ -x "$git_tool" ] || skip_all "built without libgit2"
requires git pgrep
rig=$top_builddir/tests/git/commit-rig
faulty=$top_builddir/tests/faults/xendisk-git
full=$top_builddir/tests/git/preload-full.so
export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 LC_ALL=C
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.org
git config --global core.fsync none
repo=$tmp/r.git
state=$tmp/state
model=$tmp/model

# A new repository with a disk "web".
begin()
{
	rm -rf "$repo" "$state" "$model"
	mkdir "$state"
	"$git_tool" init "$repo" > /dev/null &&
		"$git_tool" create "$repo" web --size "${1:-8M}" > "$tmp/first"
}
# rig COMMAND...: what it says is in $tmp/said.
worker()
{
	timeout 240 "$rig" "${program:-$git_tool}" "$repo" "$state" web \
		"$model" "$@" > "$tmp/said" 2>&1 || { cat "$tmp/said"; return 1; }
}
sound()
{
	local out
	out=$(git -C "$repo" fsck --full --strict 2>&1) || { echo "$out"; return 1; }
	# Nobody's objects, unfinished files, marks or locks.
	! find "$repo" \( -name '*.keep' -o -name '*tmp*' -o -name '*.lock' \) |
		grep . || return 1
}
# unused: objects that no reference leads to.
unused() { git -C "$repo" fsck --full --unreachable 2>&1 | grep unreachable; }
# is REV FILE: the disk at that revision has these bytes.
is()
{
	"$git_tool" export "$repo" "$1" --force -o "$tmp/out" > /dev/null &&
		cmp "$tmp/out" "$2"
}
refs() { git -C "$repo" for-each-ref --format='%(refname)' "refs/$1"; }
counts() { [ "$(refs "$1" | wc -l)" = "$2" ] || { refs ""; return 1; }; }
# commits N: so many on the branch, and no layer in two of them.
commits()
{
	local twice
	[ "$(git -C "$repo" rev-list --count web)" = "$1" ] || return 1
	twice=$(git -C "$repo" log --all --format='%(trailers:key=Xendisk-Layer)' |
		grep . | sort | uniq -d)
	[ -z "$twice" ] || { echo "twice: $twice"; return 1; }
}
# The commit that was made last.
last() { sed -n 's/^committed [0-9]* \([0-9a-f]*\) .*/\1/p' "$tmp/said" | tail -1; }
said() { grep -q "$1" "$tmp/said" || { cat "$tmp/said"; return 1; }; }

# --- Snapshots ------------------------------------------------------------------
begin
ok "random writes become a commit" worker write:1:30 freeze:branch:first commit \
	release
ok "... which is what was written" is web "$model"
ok "... and git fsck is content" sound
cp "$model" "$tmp/first.img"
ok "an interval snapshot, another one, and zeroes" worker write:2:5 freeze:auto \
	commit zero:3:20 freeze:branch:third commit release
ok "... the branch" is web "$model"
ok "... its history" is web~1 "$tmp/first.img"
ok "... a leaf beside it" counts xendisk/auto/web 1
leaf_parent() { [ "$(git -C "$repo" rev-parse "$(refs xendisk/auto/web)^")" = "$(git -C "$repo" rev-parse web~1)" ]; }
ok "... whose parent is the branch" leaf_parent
ok "... one pin" counts xendisk/base/web 1
ok "... nothing that is not used" fails 1 '' unused
sed 's/\x00/\x01/' "$model" > "$tmp/other.img"
ok "a model that differs is noticed" fails 1 differ is web "$tmp/other.img"
message() { git -C "$repo" log -1 --format=%B web~1 | grep -qx "$1"; }
ok "the message" message first
ok "... a trailer" message 'Xendisk-Consistency: crash'
ok "four layers at a time" worker write:4:3 freeze:auto write:5:3 freeze:branch \
	write:6:3 freeze:auto write:7:3 freeze:branch commit release
ok "... the last one" is web "$model"
ok "... in sequence" commits 5
ok "a layer that changes nothing writes no chunk" worker freeze:branch commit
ok "... it says so" said 'committed .* 0 0$'
chunk() { git -C "$repo" rev-parse web:data/00/00/00; }
ok "an object, by its id" worker "object:$(chunk)"
ok "... a blob of 64 KiB" said '^object 3 65536$'
ok "packs, as descriptors" worker packs
ok "... all there are" said "^packs $(find "$repo" -name '*.pack' | wc -l)\$"
ok "a clone is the same disk" git clone -q --bare "$repo" "$tmp/clone.git"
clone_is() { "$git_tool" export "$tmp/clone.git" web --force -o "$tmp/out" && cmp "$tmp/out" "$model"; }
ok "... byte for byte" clone_is

# --- For reading, beside it -------------------------------------------------------------
# reader REV COMMAND...: until $tmp/reading, a FIFO, is closed.
reader() { RIG_REV=$1 worker "${@:2}"; }
old=$(git -C "$repo" rev-parse web~2)
ok "an older commit, for reading" reader web~2 packs "object:$(chunk)"
ok "... that one" said "^opened $old\$"
ok "... its pin is gone with it" counts xendisk/open 0
mkfifo "$tmp/reading"
(RIG_REV=web~2 exec timeout 240 "$rig" "$git_tool" "$repo" "$state" web "$model" \
	wait < "$tmp/reading" > "$tmp/reader" 2>&1) &
reader=$!
exec 8> "$tmp/reading"
eventually 30 grep -q opened "$tmp/reader"
ok "while it is open there is a pin" counts xendisk/open 1
pinned() { [ "$(git -C "$repo" rev-parse "$(refs xendisk/open)")" = "$old" ]; }
ok "... of that commit" pinned
ok "another one beside it" reader web packs
ok "... leaves that pin alone" pinned
parent=$(pgrep -P "$(pgrep -P $reader)")
child=$(pgrep -P "$parent")
kill -9 "$parent" "$child"
exec 8>&-
wait $reader
ok "killed: the pin stays" counts xendisk/open 1
ok "... until another one comes" reader web packs
ok "... that clears it away" counts xendisk/open 0
nothing() { RIG_REV=nothing fails 1 "nothing" worker packs; }
ok "no such revision" nothing

# --- A disk that grows --------------------------------------------------------------
begin 100352
ok "a disk whose last chunk is short grows" worker write:1:5 freeze:branch \
	commit grow:400384 write:2:5 freeze:branch commit release
ok "... it is what was written" is web "$model"
ok "... before, too" eval '[ "$("$git_tool" export "$repo" web~1 --force -o "$tmp/out" >/dev/null; stat -c %s "$tmp/out")" = 100352 ]'
ok "... git fsck" sound

# --- Somebody else moves the branch --------------------------------------------------
begin
move() { git -C "$repo" update-ref refs/heads/web "$(git -C "$repo" commit-tree -m theirs -p web "web^{tree}")"; }
ok "a snapshot" worker write:1:3 freeze:branch commit release
ok "somebody else commits" move
theirs=$(git -C "$repo" rev-parse web)
ok "the next snapshot is beside the branch" worker write:2:3 freeze:branch commit \
	release
ok "... which is told" said 'refs/xendisk/diverged/web/.* 1 '
ok "... it is whole" is "$(refs xendisk/diverged/web)" "$model"
unmoved() { [ "$(git -C "$repo" rev-parse web)" = "$theirs" ]; }
ok "... theirs is not touched" unmoved
ok "... and one more" worker write:3:3 freeze:branch commit release
ok "... on top of ours" eval '[ "$(refs xendisk/diverged/web | xargs git -C "$repo" rev-list --no-walk | xargs -n1 git -C "$repo" rev-list --count | sort -n | tr "\n" " ")" = "3 4 " ]'
newest=$(refs xendisk/diverged/web | tail -1)
ok "they take ours" git -C "$repo" branch -qf web "$newest"
ok "... then snapshots are on the branch again" worker write:4:3 freeze:branch \
	commit release
ok "... it is said" said ' refs/heads/web 0 '
ok "... git fsck" sound

# --- Death ----------------------------------------------------------------------------
# Each point, killed when it is passed for the first time, and the parent has
# another one begin; then the last of two snapshots.
sweep_point()
{
	begin || return 1
	program=$faulty XENDISK_COMMIT_POINT=$1 worker write:1:12 freeze:branch \
		commit release write:2:4 freeze:auto commit release || return 1
	said '^begun$' && sound && is "$(refs xendisk/auto/web)" "$model" &&
		commits 2 && counts xendisk/auto/web 1 &&
		counts xendisk/base/web 1 && fails 1 '' unused
}
for point in $(XENDISK_COMMIT_POINT=list "$faulty"); do
	ok "killed at $point" sweep_point "$point"
done
ok "a point that is not passed is noticed" fails 1 . sweep_point none

# The worker goes right after it has asked; its successor asks again.
begin
ok "the worker has gone" worker write:1:30 freeze:branch send
ok "... the commit is made" is web "$model"
ok "its successor asks again" worker commit release
ok "... it had been made" said ' refs/heads/web 2 '
ok "... once" commits 2
ok "... git fsck" sound
ok "the committer is killed now and then" worker write:2:30 freeze:branch send kill \
	commit write:3:9 freeze:branch kill commit kill release
ok "... what it has made" is web "$model"
ok "... once" commits 4
ok "... git fsck" sound
ok "... nothing that is not used" fails 1 '' unused
# Whoever has broken into the worker may be what it has died of.
"$git_tool" create "$repo" other --size 8M > /dev/null
astray() { ! worker write:4:2 freeze:branch kill disk:other commit; }
ok "the next one is asked for another disk" astray
ok "... and refuses" said 'OPEN: it was another disk before'

# --- A full repository ------------------------------------------------------------------
# The first of two snapshots, or the second, fails once, and is asked for again.
full_at()
{
	begin || return 1
	XENDISK_FULL=$1:$repo LD_PRELOAD=$full worker write:1:9 freeze:branch \
		commit commit release write:2:4 freeze:auto commit commit \
		release release || return 1
	sound && is "$(refs xendisk/auto/web)" "$model" && commits 2 &&
		counts xendisk/base/web 1 && fails 1 '' unused
}
full_and_told() { full_at "$1" && said 'No space left'; }
if [ ! -e "$full" ]; then
	skipped "a full repository" "the sanitizers come first"
else
	step=3
	[ "${XENDISK_COMMIT_SWEEP:-}" != all ] || step=1
	# Before the ninth nothing has been opened yet; after the 34th there is
	# only what may fail without anybody hearing of it.
	for ((n = 9; n < 34; n += step)); do
		ok "full at write $n" full_and_told "$n"
	done
	ok "a repository that is never full" full_at 9999
	ok "... says nothing of it" fails 1 . said 'No space left'
	begin
	refused() { XENDISK_FULL=3:$repo LD_PRELOAD=$full fails 1 'No space left' worker packs; }
	ok "full at the beginning: it is said" refused
fi

# --- git gc beside it ---------------------------------------------------------------------
begin
collect() { while [ -d "$repo" ] && [ ! -e "$tmp/enough" ]; do git -C "$repo" gc -q --prune=now; done; }
collect > "$tmp/gc.log" 2>&1 &
collector=$!
cleanup_pids+=("$collector")
beside()
{
	local i
	for i in 1 2 3 4 5 6; do
		worker "write:$i:6" freeze:branch commit "write:1$i:2" \
			freeze:auto commit release || return 1
		last >> "$tmp/made"
		cp "$model" "$tmp/model-$i"
	done
}
rm -f "$tmp/made"
ok "snapshots while git gc --prune=now runs in a loop" beside
touch "$tmp/enough"
wait $collector
ok "... git fsck" sound
each_is()
{
	local i=0 commit
	while read -r commit; do
		i=$((i + 1))
		is "$commit" "$tmp/model-$i" || return 1
	done < "$tmp/made"
	[ $i = 6 ]
}
ok "... each of them is what was written" each_is
ok "... all there" commits 7

# Of what is in a pack with a mark a repack keeps no other copy, and there always is
# something that was there before: the description of the disk.
marked() { ls "$repo"/objects/pack/*.keep; }
pin_lock() { echo "$(dirname "$(find "$repo/refs/xendisk/base/web" -name 0)")/1.lock"; }
# repacked_at COMMAND...: the pin of the first commit is locked, and git repack runs when
# its pack is there; COMMAND... are the worker's, from the commit on.
repacked_at()
{
	local waits
	begin && rm -f "$tmp/go" "$tmp/said" && mkfifo "$tmp/go" || return
	(exec timeout 240 "$rig" "$git_tool" "$repo" "$state" web "$model" write:1:9 \
		freeze:branch wait "$@" < "$tmp/go" > "$tmp/said" 2>&1) &
	waits=$!
	exec 8> "$tmp/go"
	eventually 30 grep -q frozen "$tmp/said"
	touch "$(pin_lock)"
	exec 8>&-
	eventually 30 marked || return
	stat -c %i "$(marked | sed 's/keep$/pack/')" > "$tmp/pack"
	git -C "$repo" repack -adq && eventually 30 grep -q failed "$tmp/said" ||
		return
	[ $# = 1 ] || rm "$(pin_lock)"
	wait $waits
}
ok "a commit that finds its pin locked" repacked_at commit
ok "... fails" said 'failed 16 .*locked by another'
ok "... git repack meanwhile has lost nothing" git -C "$repo" fsck --full
rm -f "$(pin_lock)"
ok "... the next committer makes it" worker commit release
ok "... git fsck" sound
ok "... nothing that is not used" fails 1 '' unused
ok "one whose pin is let go of" repacked_at commit commit
ok "... is made the second time" said '^committed 1 .* refs/heads/web 0 '
same_pack() { find "$repo/objects/pack" -inum "$(cat "$tmp/pack")" | grep .; }
ok "... of what is there" same_pack
ok "... released" worker release
ok "... git fsck" sound
ok "... what was written" is web "$model"
ok "... nothing that is not used" fails 1 '' unused

# --- Somebody else's repository -------------------------------------------------------------
if [ "$(id -u)" != 0 ]; then
	skipped "a repository of another user" "this is not root"
else
	begin
	chown -R 54321:54321 "$repo"
	chmod 755 "$tmp"
	git config --global safe.directory '*'
	ok "a repository of another user" worker write:1:9 freeze:branch commit \
		write:2:2 freeze:auto commit release
	foreign() { ! find "$repo" ! -user 54321 | grep . ; }
	as_root()
	{
		"$git_tool" create "$repo" a/b --size 1M &&
			"$git_tool" fork "$repo" web a/c &&
			"$git_tool" gc "$repo" --full && "$git_tool" log "$repo" web
	}
	ok "... root's commands" as_root
	# What root may read and write only, the owner may not.
	mkdir -m 700 "$tmp/root"
	images()
	{
		"$git_tool" export "$repo" web -o "$tmp/root/web.img" &&
			"$git_tool" import "$repo" a/d "$tmp/root/web.img" &&
			"$git_tool" export "$repo" a/d -o "$tmp/root/again.img" &&
			cmp "$tmp/root/web.img" "$tmp/root/again.img"
	}
	ok "... with images of root's" images
	ok "... an image that was none goes" eval '! "$git_tool" export "$repo" none -o "$tmp/root/none.img" && [ ! -e "$tmp/root/none.img" ]'
	back() { "$git_tool" rollback "$repo" web web~1 --state-dir "$tmp/root" -m back; }
	ok "... rollback" back
	ok "... whom all belongs to that was made" foreign
	ok "... git fsck" sound
	chown -R 0:0 "$repo"
	ok "... the disk" is "$(refs xendisk/auto)" "$model"
	chmod 700 "$tmp"
fi

# --- Intervals, and many packs ----------------------------------------------------------------
begin
export RIG_KEEP=2h,2d
hour=1795392000 # 23 November 2026, 00:00
intervals()
{
	local i
	for i in 0 1 2 3 4 5 6 7; do
		worker write:$i:1 "freeze:auto:x:$((hour + i * 1800))" commit \
			release || return 1
	done
}
ok "interval snapshots" intervals
kept() { [ "$(refs xendisk/auto | sed 's:.*/::' | tr '\n' ' ')" = "20261123T023000Z 20261123T033000Z " ]; }
ok "... keep=2h,2d" kept
unset RIG_KEEP
many=()
for ((i = 0; i < 100; i++)); do many+=("write:$i:1" freeze:branch commit release); done
# git cannot combine them as long as that is there.
touch "$repo/objects/pack/multi-pack-index.lock"
unlock_at()
{
	local _
	for _ in {1..6000}; do
		[ "$(grep -cs '^committed' "$tmp/said")" -lt "$1" ] || break
		sleep 0.02
	done
	rm "$repo/objects/pack/multi-pack-index.lock"
}
many_snapshots()
{
	unlock_at 60 & local unlocker=$!
	worker "${many[@]}" && wait $unlocker
}
rm -f "$tmp/said"
ok "a hundred snapshots" many_snapshots
few() { [ "$(find "$repo" -name '*.pack' | wc -l)" -lt 40 ]; }
ok "... their packs have been combined" few
ok "... git fsck" sound
ok "... the last one" is web "$model"
