#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2016,SC2317  # $tmp is the command's; called by ok
# The companion of a gitfs disk that may be written is killed at each of its steps,
# and hangs: what the guest has written is a commit in the end, once, or is kept.
. "$(dirname "$0")/gitfs-functions.sh"
writing
faulty=$top_builddir/tests/faults/xendisk-git
repo=$tmp/r.git
disk="gitfs($repo, rev=main, rw=yes, commit=edits, size=40M)"
g() { git -C "$repo" "$@"; }

git init -q "$tmp/w"
cd "$tmp/w" || exit 1
seq 2000 > kept.txt
seq 1000 > changed.txt
git add -A
git commit -qm base
begin() { rm -rf "$repo" "$tmp/state"; git clone -q --bare . "$repo"; }
begin
ok "the disk" look
echo more > "$tmp/more.txt"
m copy -o "$tmp/more.txt" ::changed.txt
m copy "$tmp/more.txt" ::new.txt
changes

# A companion that says who it is, and may be told where to die.
mkdir "$tmp/known"
cat > "$tmp/known/xendisk-git" << 'END'
#!/bin/sh
echo $$ > "$COMPANION"
echo $$ >> "$COMPANION.all"
exec "$REAL" "$@"
END
chmod +x "$tmp/known/xendisk-git"
# hurt POINT COMMAND...
hurt()
{
	COMPANION=$tmp/companion REAL=$faulty XENDISK_LIBEXEC_DIR=$tmp/known \
		XENDISK_COMMIT_POINT=$1 "${@:2}"
}

# --- It hangs: meanwhile, the rest ---------------------------------------------------
git clone -q --bare . "$tmp/hung.git"
hung_disk="gitfs($tmp/hung.git, rev=main, rw=yes, commit=edits, size=40M)"
(disk=$hung_disk state=$tmp/hung.state COMPANION=$tmp/hung REAL=$top_builddir/xendisk-git \
	XENDISK_LIBEXEC_DIR=$tmp/known XENDISK_FAT_SILENCE=8
export COMPANION REAL XENDISK_LIBEXEC_DIR XENDISK_FAT_SILENCE
serve "$disk" --run "$put; kill -STOP \$(cat $tmp/hung)" 2> "$tmp/hung.said"
echo "status $?" >> "$tmp/hung.said") &
hung=$!

# Another one hangs over what is left from the last time, while the disk is opened.
git clone -q --bare . "$tmp/slow.git"
slow_disk="gitfs($tmp/slow.git, rev=main, rw=yes, commit=edits, size=40M)"
(disk=$slow_disk state=$tmp/slow.state
serve "$disk" --run "$put; kill -9 \$PPID" 2> /dev/null
COMPANION=$tmp/slow REAL=$faulty XENDISK_LIBEXEC_DIR=$tmp/known XENDISK_COMMIT_POINT=trees_added:stop \
	XENDISK_FAT_SILENCE=8 serve "$disk" --run "nbdcopy \"\$uri\" $tmp/slow.img; kill -9 \$PPID" \
	2> "$tmp/slow.said") &
slow=$!

# --- Killed ---------------------------------------------------------------------------
edits=$'M\tchanged.txt\nA\tnew.txt'
is_committed()
{
	[ "$(g rev-list --count main..edits)" = 1 ] &&
		[ "$(g diff --name-status main edits)" = "$edits" ] &&
		[ "$(g show edits:new.txt)" = more ] &&
		[ -z "$(g for-each-ref refs/xendisk/diverged)" ]
}
# Nothing of the dead, once the next one has come.
is_clean()
{
	g fsck --full --strict 2>&1 | grep -v dangling | grep . && return 1
	! find "$repo" \( -name '*.keep' -o -name '*tmp*' -o -name '*.lock' \) |
		grep .
}
# died POINT [TIMES]: there, and so often.
died() { [ "$(grep -c "here it ends: $1\$" "$tmp/said")" = "${2:-1}" ]; }
# Another one takes its place.
sweep()
{
	begin && hurt "$1" put_changes && is_committed || return
	died "$1" || { echo "it lives:"; cat "$tmp/said"; return 1; }
	serve "$disk" --run true && is_committed && is_clean
}
all=$(XENDISK_COMMIT_POINT=list "$faulty")
# Those of a disk made of chunks only; and those that are passed at other times.
for point in $all; do
	case $point in
	chunks_sent | packs_sent | thinned | pack_grown | pinned | packed_locked | pins_released) ;;
	answered) ;; # the worker has heard it: the next section but one
	*) ok "killed at $point" sweep "$point" ;;
	esac
done
ok "a point that is not passed is noticed" fails 1 'it lives' sweep thinned

nothing() { ! g rev-parse -q --verify edits; }
begin
each_time() { hurt trees_added:0 put_changes; died trees_added 3; }
ok "killed each time: nobody tries for ever" each_time
ok "... the operator is told" grep -q 'has died of signal 9' "$tmp/said"
ok "... nothing is committed" nothing
ok "... the next one does" serve "$disk" --run true
ok "... all of it" is_committed

begin
no_guest_gets_it() { ! hurt pinned:0 put_changes && died pinned 3; }
ok "killed before there is a guest: the disk does not open" no_guest_gets_it
ok "... nothing was written" nothing
ok "... killed once, it does" hurt pinned put_changes
ok "... one of them has died" died pinned
ok "... and commits" is_committed
next_dies() { hurt pins_released serve "$disk" --run true 2> "$tmp/said" && died pins_released; }
ok "killed when the overlay begins anew" next_dies
ok "... nothing is there twice" is_committed
ok "... one pin" eval '[ "$(g for-each-ref refs/xendisk/base | wc -l)" = 1 ]'
begin
ok "killed once it has answered" hurt answered put_changes
ok "... which is no answer to the next question" is_committed
begin
ok "killed once it has answered that" hurt answered:2 put_changes
ok "... one of them has died" died answered
ok "... that is a commit" is_committed
ok "... and no other is made" serve "$disk" --run true
ok "... of the same" is_committed

# --- It hung ----------------------------------------------------------------------------
wait $hung
repo=$tmp/hung.git
disk=$hung_disk state=$tmp/hung.state
ok "one that hangs is not waited for for ever" grep -q 'does not answer (Connection timed out)' "$tmp/hung.said"
ok "... it does hang" grep -q '^State:.T' "/proc/$(cat "$tmp/hung")/status"
ok "... nothing is committed" nothing
kill -CONT "$(cat "$tmp/hung")"
# Whether or not anybody has waited for it.
is_dead() { ! grep -qs '^State:.[^ZX]' "/proc/$1/status"; }
gone() { is_dead "$(cat "$tmp/hung")"; }
ok "it goes on, and ends" eventually 30 gone
ok "... and commits nothing for a worker that is gone" nothing
ok "the next one does" serve "$disk" --run true
ok "... all of it" is_committed

wait $slow
repo=$tmp/slow.git
disk=$slow_disk state=$tmp/slow.state
ok "what is left from the last time hangs: the disk opens" grep -q 'here it ends: trees_added' "$tmp/slow.said"
ok "... with all of it" cmp "$img" "$tmp/slow.img"
ok "... and nothing is committed" nothing
no_group() { local p; while read -r p; do [ -z "$(pgrep -g "$p" -r R,S,D,T)" ] || return; done < "$tmp/slow.all"; }
ok "... whoever hangs is killed when nobody waits for it" eventually 60 no_group
ok "... but the next time" serve "$disk" --run true
ok "... all of it" is_committed
