#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# git: kill -9 of a disk's worker, of the committer beside it, of the daemon, or of
# several of them, at random moments, while a guest checks every byte and snapshots
# are made: the guest notices nothing, a snapshot is there as a whole or not at all,
# each that was acknowledged becomes one commit, and nothing is left over.
#
#	XENDISK_GIT_KILLS=500	as many (make check-long)
set -euo pipefail
room=$(df --output=avail /dev/shm 2> /dev/null | tail -1)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 2000000 ]; then
	export TMPDIR=/dev/shm
fi
. "${top_srcdir:-.}/tests/functions.sh"
[ -e "$top_builddir/backends/.libs/git.so" ] ||
	skip_all "built without libgit2"
requires git pgrep
kills=${XENDISK_GIT_KILLS:-8}
seconds=$((kills > 50 ? 12 : 3)) # of a guest's life
RANDOM=${XENDISK_SEED:-1}

export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 XENDISK_LIBEXEC_DIR=$top_builddir
git config --global core.fsync none
repo=$tmp/vm.git
size=8M
# What is kept of committed layers, or nothing of them.
expressions=("git($repo, branch=web)" "git($repo, branch=web, cache=4K)")

: > "$tmp/acknowledged"
: > "$tmp/heads"
: > "$tmp/half"
sim_start
daemon_start # the first of cleanup_pids
xendisk git init "$repo"
xendisk git create "$repo" web --size $size > /dev/null
dom=$(domain)

# --- Who there is -----------------------------------------------------------------
worker() { find "$tmp/run/workers" -type f -name '[0-9]*' -printf '%f\n' | tail -1 || :; }
other_worker() { [ -n "$(worker)" ] && [ "$(worker)" != "$1" ]; }
# Both processes of a committer, also of one whose worker is gone.
committers()
{
	local pid
	for pid in $(pgrep -x xendisk-git); do
		case $(readlink "/proc/$pid/fd/4") in
		"$tmp"/state/git/*) echo "$pid" ;;
		esac
	done
} 2> /dev/null
parent_of() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status"; }
# Of each the one that makes the commits, and is started again.
makers()
{
	local pid all
	all=$(committers)
	for pid in $all; do
		! grep -qx "$(parent_of "$pid")" <<< "$all" || echo "$pid"
	done
} 2> /dev/null

# --- Death ------------------------------------------------------------------------
pause() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; }
dies() { [ $# = 0 ] || kill -9 "$@" 2> /dev/null || :; }
# The daemon, and with it whoever is named; another one is started.
daemon_dies()
{
	dies "$daemon_pid"
	wait "$daemon_pid" 2> /dev/null || :
	pause 300 # its workers serve on
	dies "$@"
	daemon_start 2> /dev/null 8>&- # or the guest would wait for its end, too
	cleanup_pids[0]=$daemon_pid
	unset 'cleanup_pids[-1]'
}
victims=(worker worker worker committer committer committers worker+committers
	daemon daemon+worker all)
declare -A struck
strike()
{
	local old who
	who=${victims[RANDOM % ${#victims[@]}]}
	old=$(worker)
	struck[$who]=$((${struck[$who]:-0} + 1))
	# shellcheck disable=SC2046,SC2086  # several, or none
	case $who in
	worker) dies $old ;;
	committer) dies $(makers); old= ;;
	committers) dies $(committers); old= ;;
	worker+committers) dies $old $(committers) ;;
	daemon) daemon_dies; old= ;;
	daemon+worker) daemon_dies $old ;;
	all) daemon_dies $old $(committers) ;;
	esac
	[ -z "$old" ] || eventually 60 other_worker "$old"
}

# --- Meanwhile --------------------------------------------------------------------
# A number for each; those that are acknowledged are told.
snap_loop()
{
	local n=0
	while [ ! -e "$tmp/stop" ]; do
		n=$((n + 1))
		! xendisk snapshot "$dom" xvdb -m "$n" > /dev/null 2>&1 ||
			echo "$n" >> "$tmp/acknowledged"
		sleep 0.1
	done
}
# complete HEAD [^OLDER]: there is all that it leads to.
complete() { git -C "$repo" rev-list --objects "$@" > /dev/null; }
# What somebody sees who looks at the branch at any time.
watch()
{
	local head last=
	while [ ! -e "$tmp/stop" ]; do
		head=$(git -C "$repo" rev-parse -q --verify web) || head=none
		if [ "$head" != "$last" ]; then
			echo "$head" >> "$tmp/heads"
			complete "$head" ${last:+"^$last"} ||
				echo "$head" >> "$tmp/half"
			last=$head
		fi
		sleep 0.05
	done
} 2> "$tmp/watched"

# --- The guest --------------------------------------------------------------------
whole() { guest "$dom" xvdb read 0 $size --timeout 60 > "$1"; }
load()
{
	guest "$dom" xvdb verify --persist "$tmp/model" --size $size \
		--queues 2 --depth 8 --bs 512-64K --timeout 60 \
		--ops read=30,write=45,flush=10,discard=15 \
		--seconds $seconds --seed $((RANDOM + 1)) > "$tmp/load" 2>&1
}
wrong() { echo "$*" >> "$tmp/wrong"; }
under_load()
{
	load & cleanup_pids[1]=$!
	eventually 60 connected "$dom" || wrong "no guest"
	while kill -0 "${cleanup_pids[1]}" 2> /dev/null && [ $n -lt "$kills" ]; do
		strike || wrong "no other worker"
		n=$((n + 1))
		pause 400
	done
	if ! wait "${cleanup_pids[1]}" || ! grep -q ' 0 errors' "$tmp/load"; then
		wrong "$(cat "$tmp/load")"
	fi
}

# Nobody makes commits before there is another worker: that is how it is.
committer_is_gone() { xendisk status "$dom" xvdb | grep -q '^failed .*has ended'; }
mend() { ! committer_is_gone || { dies "$(worker)"; sleep 0.5; }; }
# One that is known to be a commit, by its id; a worker's death may be the end of who
# asked for it.
snap_at_last()
{
	for _ in {1..400}; do # a lock that was left may take a minute
		timeout 100 "$top_builddir/xendisk" --run-dir "$tmp/run" \
			snapshot "$dom" xvdb -m "known" --wait && return
		mend
		sleep 0.2
	done
	return 1
}
# The guest is there and does nothing, so it is known what a snapshot holds.
at_rest()
{
	whole "$tmp/known" || wrong "the guest cannot read"
	eventually 20 no_guest "$dom" || :
	rm -f "$tmp/in"
	mkfifo "$tmp/in"
	guest "$dom" xvdb script < "$tmp/in" > "$tmp/out" 2>&1 8>&- &
	cleanup_pids[1]=$!
	exec 8> "$tmp/in"
	eventually 60 connected "$dom" || wrong "no guest"
	snap_at_last > "$tmp/id" 2> "$tmp/refused" 8>&- & snap=$!
	for _ in 1 2 3; do
		[ $n -lt "$kills" ] || break
		pause 150
		strike || wrong "no other worker"
		n=$((n + 1))
	done
	wait "$snap" || wrong "no snapshot: $(tail -1 "$tmp/refused")"
	exec 8>&-
	wait "${cleanup_pids[1]}" || wrong "$(cat "$tmp/out")"
	holds "$(cat "$tmp/id")" "$tmp/known" || wrong "it is not what it was"
}
# holds COMMIT FILE
holds()
{
	xendisk git export "$repo" "$1" --force -o "$tmp/held" > /dev/null &&
		cmp "$tmp/held" "$2"
}

n=0 rounds=0
snap_loop & cleanup_pids[2]=$!
watch & cleanup_pids[3]=$!
: > "$tmp/wrong"
while [ $n -lt "$kills" ] && [ ! -s "$tmp/wrong" ]; do
	toolstack attach "$dom" xvdb "${expressions[rounds % 2]}" ||
		wrong "it cannot be attached"
	under_load
	at_rest
	toolstack detach "$dom" xvdb || wrong "it cannot be detached"
	rounds=$((rounds + 1))
done
touch "$tmp/stop"
wait "${cleanup_pids[2]}" "${cleanup_pids[3]}"
cleanup_pids=("${cleanup_pids[0]}")
for who in "${!struck[@]}"; do echo "# ${struck[$who]} times: $who"; done
nothing_in() { cat "$1"; [ ! -s "$1" ]; }
ok "$n deaths in $rounds rounds: the guest has noticed nothing" \
	nothing_in "$tmp/wrong"

# --- What there is now ----------------------------------------------------------------
ok "attached once more" toolstack attach "$dom" xvdb "${expressions[1]}"
whole "$tmp/last"
meet "$dom"
snap_at_last > "$tmp/id" 2> "$tmp/refused" || :
ok "a last snapshot" grep -qx '[0-9a-f]\{40\}' "$tmp/id"
one_layer()
{
	[ "$(du -ck "$tmp"/state/git/web-*/data* | tail -1 | cut -f1)" -le 64 ]
}
ok "no layer takes space any more" eventually 90 one_layer
ended_well "the guest goes"
ok "detached" toolstack detach "$dom" xvdb
no_committers() { [ -z "$(committers)" ]; }
ok "no committer stays" eventually 60 no_committers
ok "the branch is what the guest has" holds web "$tmp/last"
ok "that another one is noticed" fails 1 differ holds web~1 /dev/zero

git -C "$repo" log --reverse --format=%s web | grep -x '[0-9]*' > "$tmp/made" || :
echo "# $(wc -l < "$tmp/acknowledged") snapshots acknowledged under load," \
	"$(wc -l < "$tmp/made") made," \
	"$(git -C "$repo" rev-list --count web) commits," \
	"$(wc -l < "$tmp/heads") seen on the branch"
all_made() { ! grep -vxFf "$tmp/made" "$tmp/acknowledged"; }
ok "each one that was acknowledged is a commit" all_made
ok "... once, in sequence" sort -cun "$tmp/made"
ok "there were some" test -s "$tmp/acknowledged"
on_branch() { ! grep -vxFf <(git -C "$repo" rev-list web) "$tmp/heads"; }
ok "whatever was seen on the branch is on it" on_branch
ok "... and was complete" nothing_in "$tmp/half"

# --- Nothing is left over -------------------------------------------------------------
ok "git fsck" git -C "$repo" fsck --full --strict
ok "... finds nothing that no reference leads to" \
	fails 1 '' eval "git -C '$repo' fsck --full --unreachable | grep unreachable"
refs() { git -C "$repo" for-each-ref --format='%(refname)'; }
two_refs() { refs; [ "$(refs | sed 's:/[^/]*/[0-9]*$:/:')" = "refs/heads/web
refs/xendisk/base/web/" ]; }
ok "there are the branch and one pin" two_refs
left_over()
{
	find "$repo" -name '*.keep' -o -name '*tmp*' -o -name '*.lock' -o \
		-path '*/objects/??/*' | grep .
}
ok "no file of a dead process" fails 1 '' left_over
ok "the doctor" says 'all is well' xendisk git doctor "$repo"
in_packs() { git -C "$repo" count-objects -v | sed -n 's/^in-pack: //p'; }
reached() { git -C "$repo" rev-list --all --objects | wc -l; }
no_copies()
{
	xendisk git gc "$repo" --full
	echo "$(in_packs) in packs, $(reached) reached"
	[ "$(in_packs)" = "$(reached)" ]
}
echo "# $(in_packs) objects in packs, $(reached) reached"
ok "collected, there are no more than that" no_copies
folder=$(printf '100644 blob %040d\tx\n' 1 | git -C "$repo" mktree --missing)
half=$(git -C "$repo" -c user.name=a -c user.email=a@example.org \
	commit-tree -m half "$folder")
ok "a commit of which something is missing is noticed" fails 128 '' complete "$half"
kept() { find "$tmp/run/keep" "$tmp/run/workers" -name '[0-9]*' | grep .; }
ok "no state of the disk is kept" fails 1 '' kept
ok "the daemon ends" daemon_stop
