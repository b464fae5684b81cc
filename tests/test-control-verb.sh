#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# xendisk snapshot and status, and what lies between them and a backend: the
# control socket, the broker, the worker and its death.  The backend is
# tests/unit/modules/tsnap.c, which does what a snapshot's message says.
. "$(dirname "$0")/functions.sh"

requires xenstore-read xenstore-write xenstore-exists xenstore-rm xenstore-watch setsid

module=$top_builddir/tests/unit/modules/.libs/tsnap.so
[ -e "$module" ] || skip_all "tsnap.so is not built"
mkdir "$tmp/backends"
cp "$top_builddir"/backends/.libs/{raw,mem,null,cow}.so "$module" "$tmp/backends"
echo 'disk "web" { expr = "tsnap(1M, state=named)" }
disk "two" { expr = "tsnap(1M)" }' > "$tmp/xendiskd.conf"
start() { daemon_start --backend-dir "$tmp/backends"; }
sim_start
start
dom=$(domain --name web1)

attached() { xendisk attach web1 "$1" --vdev "$2" --direct > /dev/null; }
detached() { xendisk detach web1 "$1"; }
snapshot() { xendisk snapshot web1 xvdb "$@"; }
status() { xendisk status web1 xvdb "$@"; }
pid_of() { xendisk --json show web1 "$1" | sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p'; }
# Another than $1, and it answers.
another_worker() { local pid; pid=$(pid_of xvdb); [ "${pid:-0}" != 0 ] && [ "$pid" != "$1" ] && status; }
commit_key() { xenstore-read "/local/domain/0/backend/xendisk/$dom/51728/xendisk-commit"; }
commit_is() { [ "$(commit_key 2> /dev/null)" = "$1" ]; }
commit() { printf '%040x' "$1"; }

# --- Where there are no snapshots ---------------------------------------------------

ok "attach" attached 'mem(1M)' xvdb
ok "a disk without snapshots" fails 5 'this disk cannot make snapshots; one of git can' snapshot
ok "and without a status" fails 5 'this disk has no status, .*show' status
ok "detach" detached xvdb
ok "no such disk" fails 4 'no disk' xendisk snapshot web1 xvdq
ok "no such domain" fails 4 'web9' xendisk snapshot web9 xvdb
ok "no such name" fails 4 'no domain has a disk "@none"' xendisk snapshot @none
ok "no such export" fails 4 'no export "none"' xendisk status none
ok "... as a domain without its disk" fails 4 'DOM VDEV' xendisk status web1
ok "no disk at all" fails 2 'usage: xendisk snapshot' xendisk snapshot
ok "-m without a message" fails 2 'snapshot: -m: an argument is missing' \
	xendisk snapshot web1 xvdb -m
ok "another letter" fails 2 'snapshot: -x: there is no such option' \
	xendisk snapshot web1 xvdb -x

# --- Where there are ------------------------------------------------------------------

ok "attach" attached 'cow(null(1M), tsnap(1M, state=a/b))' xvdb
ok "its folder is there" test -d "$tmp/state/a/b"
ok "and nobody else's" test "$(stat -c %a "$tmp/state/a")" = 700
ok "a snapshot prints its number" says '^1$' snapshot
ok "JSON" says '"id": 2' snapshot -m 'second' --json
ok "a message of two lines, and more" snapshot --message $'a\nb \\n = c'
ok "is what arrived" says '"message": "a\\nb \\\\n = c"' status --json
ok "sizes are numbers in JSON" says '"dirty": 65536' status --json
ok "a commit is none" says '"head": "0*3"' status --json
ok "sizes are readable without" says '^dirty      64K$' status
ok "lines are one line" says '^message    a.b .n = c$' status
ok "it knows whose disk it is" says '^domain     web1$' status
ok "--wait prints the commit" says "^$(commit 4)\$" snapshot -m slow --wait
ok "and as JSON" says '"ref": "refs/heads/main"' snapshot --wait --json
ok "one that fails" fails 1 '^xendisk: snapshot: the disk is full$' \
	snapshot -m fail --wait
moved() { snapshot -m moved --wait 2> "$tmp/err"; }
ok "one that is not on its branch" says "^$(commit 7)\$" moved
ok "is said" grep -q '^xendisk: snapshot: the branch has moved$' "$tmp/err"
ok "one that is refused" fails 5 '^xendisk: snapshot: tsnap: 4 snapshots are' \
	snapshot -m refuse
ok "a message that is too long" fails 1 'message is too long' \
	snapshot -m "$(printf '%05000d' 0)"
ok "show tells what is there now" says 'snapshots 7, pending 0' \
	xendisk show web1 xvdb
ok "the guest can read the commit" eventually 5 commit_is "$(commit 7)"
ok "show tells that, too" says "xendisk-commit = $(commit 7)" \
	xendisk show web1 xvdb

# --- Several at once --------------------------------------------------------------------

many()
{
	local i rc=0 pids=()
	for i in 1 2 3 4 5 6; do
		snapshot > "$tmp/id.$i" 2>&1 & pids+=($!)
		status > /dev/null 2>&1 & pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || rc=1; done
	cat "$tmp"/id.*
	[ $rc = 0 ] && [ "$(sort -nu "$tmp"/id.* | tr '\n' ' ')" = "8 9 10 11 12 13 " ]
}
ok "six snapshots at once have six numbers" many

# --- With the guest's file system at rest --------------------------------------------------

frontend=/local/domain/$dom/device/vbd/51728
backend=/local/domain/0/backend/xendisk/$dom/51728
mkdir "$tmp/bin"
cat > "$tmp/bin/fsfreeze" << END
#!/bin/sh
echo "\$*" >> "$tmp/frozen"
END
chmod +x "$tmp/bin/fsfreeze"
# The example, as in a guest; what it freezes is told in $tmp/frozen.
agent()
{
	FRONTEND=$frontend PATH=$tmp/bin:$PATH \
		exec "$top_srcdir/examples/fsfreeze" 51728 /mnt
}
frozen() { [ "$(tr '\n' ' ' < "$tmp/frozen")" = "$1" ]; }
no_keys()
{
	! xenstore-exists "$backend/xendisk-freeze" &&
		! xenstore-exists "$frontend/xendisk-frozen"
}
not_asked() { ! xenstore-exists "$backend/xendisk-freeze"; }
taken() { snapshot | grep -q "^$1\$"; }
# What it said before is no answer.
xenstore-write "$frontend/xendisk-frozen" 1
ok "a guest that does not listen" fails 5 'has not frozen its file system within 10' \
	snapshot --fsfreeze
ok "is not asked any more" not_asked
xenstore-rm "$frontend/xendisk-frozen"
ok "and nothing was taken" taken 14
(setsid bash -c "$(declare -f agent); $(declare -p frontend tmp PATH top_srcdir); agent" \
	> /dev/null 2>&1 & echo $! > "$tmp/agent")
cleanup_pids+=("$(cat "$tmp/agent")")
ok "one that does" says '^15$' snapshot --fsfreeze -m still
ok "is told so in the commit" says '"consistency": "fs-frozen"' status --json
ok "was frozen, and goes on" eventually 10 frozen '-f /mnt -u /mnt '
ok "nothing is left behind" eventually 10 no_keys
ok "once more" says '^16$' snapshot --fsfreeze
ok "was frozen again" eventually 10 frozen '-f /mnt -u /mnt -f /mnt -u /mnt '
ok "without it that is not said" taken 17
ok "in the commit" says '"consistency": "none"' status --json
kill -- "-$(cat "$tmp/agent")"
ok "the guest's script says what it wants" fails 2 'usage: fsfreeze DEVID' \
	"$top_srcdir/examples/fsfreeze" 51728
ok "which guest is meant" fails 2 'fsfreeze: which guest' \
	xendisk snapshot --fsfreeze @web

# --- By name ------------------------------------------------------------------------------

ok "attach a disk of the configuration" attached @web xvdc
ok "a snapshot of it by its name" says '^1$' xendisk snapshot @web
ok "and its status" says '^branch     main$' xendisk status @web
ok "attach another twice" attached @two xvdd
ok "attach another twice" attached @two xvde
ok "which of them is not known" fails 5 '2 disks are "@two"' \
	xendisk snapshot @two
for vdev in xvdc xvdd xvde; do ok "detach" detached $vdev; done
ok "export an expression" xendisk export 'tsnap(1M, state=exported)' --name exp
ok "a snapshot of it" says '^1$' xendisk snapshot exp
ok "unexport" xendisk unexport exp

# --- A worker that dies, hangs, or answers nonsense --------------------------------------

for how in die rubbish long; do
	pid=$(pid_of xvdb)
	ok "$how: the client is told" fails 1 '^xendisk: snapshot: the worker died$' \
		snapshot -m $how
	ok "$how: the next worker answers" eventually 20 another_worker "$pid"
done
ok "what is in the state directory is there" says '^18$' snapshot
ok "and the commit, as the new worker has it" eventually 5 commit_is "$(commit 18)"
ok "no number: the worker lives" fails 1 'gave the snapshot no number' \
	snapshot -m unnumbered
pid=$(pid_of xvdb)
snapshot -m hang > "$tmp/out" 2>&1 & client=$!
ok "one that hangs" eventually 20 says 'hangs$' xendisk show web1 xvdb
kill -9 "$pid"
rc=0
wait $client || rc=$?
ok "a worker that is killed meanwhile" grep -q 'the worker died' "$tmp/out"
ok "is status 1" test $rc = 1
ok "the next worker answers" eventually 20 another_worker "$pid"

# --wait survives the worker: what it waits for does, too.
snapshot -m slow > "$tmp/out" 2>&1
pid=$(pid_of xvdb)

# --- A broker that dies --------------------------------------------------------------------

kill -9 "$daemon_pid"
wait "$daemon_pid" 2> /dev/null
ok "no daemon" fails 3 'cannot reach' snapshot
start
ok "the next one asks the same worker" eventually 20 status
ok "the very same" test "$(pid_of xvdb)" = "$pid"
ok "and knows what it shows" eventually 10 says 'snapshots 19, pending 1' \
	xendisk show web1 xvdb
ok "--wait goes on" says "^$(commit 20)\$" snapshot --wait
snapshot -m never --wait > "$tmp/out" 2>&1 & client=$!
ok "one that is waited for" eventually 10 says 'snapshots 21' \
	xendisk show web1 xvdb
ok "detach" detached xvdb
rc=0
wait $client || rc=$?
ok "without its disk nobody waits" test $rc = 4
ok "and what is known is said" grep -q 'it is taken, but whether' "$tmp/out"

# --- The state directory ---------------------------------------------------------------------

mkdir "$tmp/elsewhere"
ln -s "$tmp/elsewhere" "$tmp/state/link"
ok "a symbolic link is not followed" fails 1 'link: is no folder, or a symbolic' \
	xendisk attach web1 'tsnap(1M, state=link/x)' --direct
ok "and nothing was made there" test -z "$(ls "$tmp/elsewhere")"
mkdir -m 0755 "$tmp/state/open"
ok "one that is open to others" fails 5 'open: is open to others' \
	xendisk attach web1 'tsnap(1M, state=open)' --direct
ok "a name that leads out of it" fails 1 '\.\./x: no name of a folder' \
	xendisk attach web1 'tsnap(1M, state="../x")' --direct

# --- xendisk serve ---------------------------------------------------------------------------

serve() { xendisk serve --backend-dir "$tmp/backends" --run true "$@"; }
ok "serve has a state directory" \
	serve 'tsnap(1M, state=s)' --state-dir "$tmp/served"
ok "where it was told" test -d "$tmp/served/s"
touch "$tmp/file"
ok "one that is none" fails 1 "$tmp/file: " \
	serve 'tsnap(1M, state=s)' --state-dir "$tmp/file"
