#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# git: very many snapshots of one disk.  What attaching, a snapshot and the log take
# when there are 10, 1,000 and 10,000 of them is told; packs, files and memory must
# not become more and more.  Then interval snapshots are thinned, and git collects.
#
#	XENDISK_SNAPSHOTS=10000		as many (make check-long)
set -euo pipefail
room=$(df --output=avail /dev/shm 2> /dev/null | tail -1)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 2000000 ]; then
	export TMPDIR=/dev/shm
fi
. "${top_srcdir:-.}/tests/functions.sh"
git_io=$top_builddir/tests/bench/git-io
rig=$top_builddir/tests/git/commit-rig
[ -x "$git_io" ] || skip_all "tests/bench/git-io is not built: make bench-git builds it"
[ -e "$top_builddir/backends/.libs/git.so" ] || skip_all "built without libgit2"
requires git
all=${XENDISK_SNAPSHOTS:-200}

export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 XENDISK_LIBEXEC_DIR=$top_builddir
git config --global core.fsync none
repo=$tmp/vm.git
size=64M
xendisk git init "$repo" > /dev/null
xendisk git create "$repo" web --size $size > /dev/null

# --- Measuring --------------------------------------------------------------------
# figure POINT NAME: the median of that figure.
figure()
{
	sed -n "s/.*\"point\":\"$1\".*\"$2\":\([0-9.e+-]*\).*/\1/p" "$tmp/runs" |
		sort -g | awk '{ t[NR] = $1 } END { print t[int((NR + 1) / 2)] }'
}
# ms COMMAND...: the best of five.
ms()
{
	local begin best=999999999 took
	for _ in 1 2 3 4 5; do
		begin=$(date +%s%N)
		"$@" > /dev/null || return
		took=$(($(date +%s%N) - begin))
		[ $took -ge "$best" ] || best=$took
	done
	awk -v n="$best" 'BEGIN { printf "%.1f", n / 1e6 }'
}
packs() { find "$repo" -name '*.pack' | wc -l; }
count() { git -C "$repo" rev-list --count web; }
# Each time another worker, and its committer; and one of the disk as it was in the
# beginning, in turn, so that whatever else the machine does meets both.
attach()
{
	for _ in 1 2 3 4 5; do
		printf '%s\n' "open attach-$1 git git($repo,branch=web)" 'close git' |
			"$git_io"
		printf '%s\n' "open young-$1 git git($tmp/young.git,branch=web)" \
			"many young-$1 git 10 $size" 'close git' | "$git_io"
		printf '%s\n' "open - git git($repo,branch=web)" \
			"many old-$1 git 10 $size" 'close git' | "$git_io"
	done >> "$tmp/runs"
	made=$((made + 50))
}
# snapshots N NAME: so many, of which the last are measured by themselves.
snapshots()
{
	local last=$(($1 < 100 ? $1 : 100))
	{
		echo "open - git git($repo,branch=web)"
		[ "$1" = $last ] || echo "many before-$2 git $(($1 - last)) $size"
		echo "many at-$2 git $last $size"
	} | "$git_io" >> "$tmp/runs"
}
tell()
{
	echo "# $1: $(packs) packs, $(du -sm "$repo" | cut -f1) MiB;" \
		"attach $(figure "attach-$1" ms) ms ($(figure "young-$1" ms) with few);" \
		"snapshot acknowledged after $(figure "at-$1" ack_ms) ms, a commit after" \
		"$(figure "old-$1" commit_ms) ms ($(figure "young-$1" commit_ms));" \
		"log -n 20 $(ms xendisk git log "$repo" web -n 20) ms," \
		"log $(ms xendisk git log "$repo" web) ms;" \
		"$(figure "at-$1" files) files and $(figure "at-$1" mib) MiB in use"
}

# --- Snapshots --------------------------------------------------------------------
: > "$tmp/runs"
made=1
stages=(10)
[ "$all" -lt 2000 ] || stages+=(1000)
stages+=("$all")
has_all() { echo "$(count) commits"; [ "$(count)" = "$1" ]; }
few_packs() { echo "$(packs) packs"; [ "$(packs)" -le 70 ]; }
few_files() { local n; n=$(figure "at-$1" files); echo "$n files"; [ "$n" -lt 1000 ]; }
for stage in "${stages[@]}"; do
	ok "$stage snapshots" snapshots $((stage - made + 1)) "$stage"
	made=$((stage + 1))
	[ -e "$tmp/young.git" ] || cp -a "$repo" "$tmp/young.git"
	attach "$stage"
	tell "$stage"
	ok "... they are all there" has_all "$made"
	ok "... in few packs" few_packs
	ok "... and few open files" few_files "$stage"
done
ok "one that is missing is noticed" fails 1 commits has_all $((made + 1))
of_log() { xendisk --json git log "$repo" web | grep -o '"commit"' | wc -l; }
ok "the log has them" test "$(of_log)" = "$made"
ok "git fsck" git -C "$repo" fsck --full --strict
no_loose() { ! find "$repo/objects" -type f ! -path '*/pack/*' ! -path '*/info/*' | grep .; }
ok "no loose objects" no_loose

# --- Interval snapshots, one an hour ----------------------------------------------------
# As many as a tenth of the others; nothing thins them yet.
autos=$((all / 10))
hour=1795392000 # 23 November 2026, 00:00
mkdir "$tmp/rig"
hourly()
{
	local words=() i
	for ((i = 0; i < autos; i++)); do
		words+=("fill:$i:$((i % 1024 * 65536)):4096"
			"freeze:auto:x:$((hour + i * 3600))" commit release)
	done
	"$rig" "$top_builddir/xendisk-git" "$repo" "$tmp/rig" web "$tmp/model" \
		"${words[@]}" > "$tmp/said" 2>&1 || { tail -3 "$tmp/said"; return 1; }
}
refs() { git -C "$repo" for-each-ref --format='%(refname)' refs/xendisk/auto; }
ok "$autos interval snapshots" hourly
ok "... are there" test "$(refs | wc -l)" = "$autos"
attach autos
echo "# with $autos interval snapshots: attach $(figure attach-autos ms) ms" \
	"($(figure young-autos ms) with few)," \
	"log -n 20 $(ms xendisk git log "$repo" web -n 20) ms"
newest=$(refs | tail -1)
"$top_builddir/xendisk" git export "$repo" "$newest" -o "$tmp/newest" > /dev/null
begin=$SECONDS
thinned=$(xendisk git thin "$repo" web --keep 24h,7d,4w)
echo "# thin: $thinned, $((SECONDS - begin)) s"
# 24 hours are two days or less; weeks and days that are kept are in part the same.
few_left() { refs; [ "$(refs | wc -l)" -le 35 ] && [ "$(refs | wc -l)" -ge $((autos < 24 ? autos : 24)) ]; }
ok "thinned" few_left
ok "... the newest one stays" test "$(refs | tail -1)" = "$newest"

# --- Collecting -----------------------------------------------------------------------
timed()
{
	local begin
	begin=$(date +%s%N)
	"${@:2}" > "$tmp/gc" || return
	echo "# $1: $((($(date +%s%N) - begin) / 1000000)) ms, $(cat "$tmp/gc")"
}
gc() { timed gc xendisk git gc "$repo"; }
gc_full() { timed 'gc --full' xendisk git gc "$repo" --full; }
prune() { timed 'git gc --prune=now' git -C "$repo" gc -q --prune=now; }
for how in gc gc_full prune; do
	before=$(du -sk "$repo" | cut -f1)
	rc=0
	$how || rc=$?
	ok "$how" test $rc = 0
	echo "# ... $before KiB became $(du -sk "$repo" | cut -f1)"
done
nothing() { git -C "$repo" fsck --unreachable 2>&1 | grep unreachable; }
ok "nothing is there that no reference leads to" fails 1 '' nothing
holds() { xendisk git export "$repo" "$1" --force -o "$tmp/out" > /dev/null && cmp "$tmp/out" "$2"; }
ok "an interval snapshot is what it was" holds "$newest" "$tmp/newest"
ok "all snapshots are there" has_all "$made"
attach after
echo "# afterwards: attach $(figure attach-after ms) ms" \
	"($(figure young-after ms) with few)," \
	"log -n 20 $(ms xendisk git log "$repo" web -n 20) ms"
