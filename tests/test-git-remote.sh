#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# xendisk git push and pull: two hosts and a plain bare repository between them, with
# a lease.
room=$(df --output=avail /dev/shm 2>/dev/null | tail -1)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 1000000 ]; then
	export TMPDIR=/dev/shm
fi
. "$(dirname "$0")/functions.sh"
git_tool=$top_builddir/xendisk-git
[ -x "$git_tool" ] || skip_all "built without libgit2"
requires git
export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 LC_ALL=C
git config --global core.fsync none
xgit() { timeout 120 "$git_tool" "$@"; }
. "$(dirname "$0")/git-remote-functions.sh"

xgit create "$a" web --size 4M > /dev/null
ok "a snapshot" worker "$a" write:1:9 freeze:branch commit write:2:2 freeze:auto \
	commit release

# --- To another host and on --------------------------------------------------------
ok "push" says "^$(head_of "$a")\$" xgit push "$a" "$hub" web
ok "... the branch is there" same "$a" "$hub"
ok "... and a lease" says "^sequence 1\$" lease
ok "... no interval snapshots" eval '[ -z "$(git -C "$hub" for-each-ref refs/xendisk/auto)" ]'
ok "push --auto" xgit push --auto "$a" "$hub" web
ok "... with them" eval '[ -n "$(git -C "$hub" for-each-ref refs/xendisk/auto)" ]'
ok "... the lease goes on" says "^sequence 2\$" lease
ok "git fsck there" sound "$hub"
ok "pull" says "^$(head_of "$a")\$" xgit pull "$b" "$hub" web
ok "... it is the same disk" same "$a" "$b"
ok "... and is told" says '"ref": *"refs/heads/web"' xgit pull --json "$b" "$hub" web
before() { xgit export "$a" web --force -o "$1"; }
ok "an image of it" before "$tmp/pushed"
ok "... byte for byte" is "$b" "$tmp/pushed"
ok "the other host writes on" worker "$b" write:3:5 freeze:branch commit release

# --- The lease -----------------------------------------------------------------------
ok "the other host may not push" fails 5 "has the lease until" xgit push "$b" "$hub" web
ok "... nothing has moved" same "$a" "$hub"
ok "it is given up" xgit push --release "$a" "$hub" web
ok "... then it may" xgit push "$b" "$hub" web --lease 2h
ok "... all is there" same "$b" "$hub"
ok "the first one may not" fails 5 "has the lease" xgit push "$a" "$hub" web
ok "... not even when it takes it: the branch has gone on" \
	fails 5 "refused" xgit push --take "$a" "$hub" web
ok "... nothing has moved" same "$b" "$hub"
ok "it pulls, and takes the lease" xgit pull --take "$a" "$hub" web
ok "... has what the other wrote" eval 'same "$a" "$b" && is "$a" "$b.model"'
ok "... it is its own now" fails 5 "has the lease" xgit push "$b" "$hub" web
ok "... and goes on" worker "$a" freeze:branch commit
ok "a lease of a second" xgit push --lease 1s "$a" "$hub" web
late() { sleep 2 && xgit pull "$b" "$hub" web && xgit push "$b" "$hub" web; }
ok "... is too old after that" late

# Two at the same moment: between the look and the push somebody else pushes.
cat > "$tmp/git" <<END
#!/bin/sh
# The other one is faster.
case "\$*" in
*--atomic*)
	if [ ! -e '$tmp/raced' ]; then
		touch '$tmp/raced'
		PATH='$PATH' '$git_tool' push --take '$a' '$hub' web >/dev/null || exit 99
	fi ;;
esac
PATH='$PATH' exec git "\$@"
END
chmod +x "$tmp/git"
race() { PATH=$tmp:$PATH xgit push "$b" "$hub" web; }
ok "the first one has all" xgit pull "$a" "$hub" web
ok "of two at the same moment one is refused" fails 5 "somebody else has pushed" race
ok "... the other one has the lease" says "^holder $(git -C "$a" config xendisk.holder)\$" lease
ok "... both took part" test -e "$tmp/raced"

# What is refused for other reasons is no race, and git's reason is told.
cat > "$hub/hooks/pre-receive" <<'END'
#!/bin/sh
echo not today >&2
exit 1
END
chmod +x "$hub/hooks/pre-receive"
refused() { local said; said=$(xgit push --take "$a" "$hub" web 2>&1) && return 1; echo "$said"; grep -q "$1" <<< "$said" && ! grep -q 'somebody else' <<< "$said"; }
ok "a hook refuses: so it is told" refused 'it was refused: refs/[^ ]* \[remote rejected\] (pre-receive hook declined)'
ok "... and what it says" refused 'not today'
rm "$hub/hooks/pre-receive"
git -C "$hub" config transfer.hideRefs refs/xendisk
ok "a server that takes no such reference" refused 'it was refused: refs/xendisk/lease/web \[remote rejected\]'
git -C "$hub" config --unset transfer.hideRefs
ok "the server cannot be reached" fails 1 'git ls-remote has failed' xgit push "$a" "$tmp/nowhere.git" web
own=$(git -C "$a" config xendisk.holder)
for wrong in "$own 7" 0123456789ABCDEF $'0123456789abcd\nx' short; do
	git -C "$a" config xendisk.holder "$wrong"
	ok "a holder that is none: ${wrong//$'\n'/ }" fails 1 "a.git/config: xendisk.holder is \"" xgit push --take "$a" "$hub" web
done
git -C "$a" config xendisk.holder "$own"
ok "... with its own again" xgit push --take "$a" "$hub" web

# --- What is refused -----------------------------------------------------------------
git -C "$hub" update-ref refs/xendisk/lease/web "$(echo rubbish | git -C "$hub" hash-object -w --stdin)"
ok "a lease that is none" fails 1 "is no lease" xgit push "$a" "$hub" web
git -C "$hub" update-ref -d refs/xendisk/lease/web
ok "no such remote" fails 1 "." xgit push "$a" "$tmp/nowhere.git" web
ok "... says which step" fails 1 "git fetch has failed" xgit pull "$a" "$hub" nothing
ok "no such disk" fails 4 "." xgit push "$a" "$hub" nothing
ok "an option is no remote" fails 2 "is no remote" xgit push "$a" -- --upload-pack=x web
ok "a lease for how long?" fails 2 "a number with" xgit push --lease soon "$a" "$hub" web
tree=$(git -C "$hub" mktree < /dev/null)
GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@example.org GIT_COMMITTER_NAME=x \
	GIT_COMMITTER_EMAIL=x@example.org git -C "$hub" update-ref \
	refs/heads/empty "$(GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@example.org GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@example.org git -C "$hub" commit-tree -m x "$tree")"
ok "what is pulled has to be a disk" fails 1 "disk" xgit pull "$b" "$hub" empty
ok "... no branch is made of it" fails 128 . git -C "$b" rev-parse --verify refs/heads/empty
ok "both write" eval 'worker "$a" write:5:1 freeze:branch commit && worker "$b" write:6:1 freeze:branch commit'
ok "... one pushes" xgit push --take "$a" "$hub" web
old=$(head_of "$b")
ok "... the other cannot pull" fails 5 "both have gone on" xgit pull "$b" "$hub" web
ok "... and keeps what it has" test "$old" = "$(head_of "$b")"
ok "... nothing is left of it" eval '[ -z "$(git -C "$b" for-each-ref refs/xendisk/incoming)" ]'

# A clone in which what was before the last commit is missing.
shallow=$tmp/shallow.git
ok "a shallow clone" git clone -q --bare --depth 1 -b web "file://$hub" "$shallow"
ok "... has all there is" xgit pull "$shallow" "$hub" web
ok "the first one goes on" eval 'worker "$a" write:7:1 freeze:branch commit write:8:1 freeze:branch commit && xgit push "$a" "$hub" web'
ok "... the shallow one follows" xgit pull "$shallow" "$hub" web
ok "... it is the same disk" eval 'same "$a" "$shallow" && is "$shallow" "$a.model"'
ok "... and once more" eval 'worker "$a" write:9:1 freeze:branch commit && xgit push "$a" "$hub" web && xgit pull "$shallow" "$hub" web && same "$a" "$shallow"'
ok "another one goes on by itself" eval 'git clone -q --bare --depth 1 -b web "file://$hub" "$shallow.2" && worker "$shallow.2" write:10:1 freeze:branch commit'
ok "... and is ahead" fails 5 "the disk here is ahead" xgit pull "$shallow.2" "$hub" web
ok "... until both have gone on" eval 'worker "$a" write:9:2 freeze:branch commit && xgit push "$a" "$hub" web'
ok "... which is told" fails 5 "both have gone on" xgit pull "$shallow.2" "$hub" web

# --- Bars --------------------------------------------------------------------------
# A git that is slow, and tells of it as git does.
cat > "$tmp/git" <<'END'
#!/bin/sh
case "$*" in
*--progress*|*--no-quiet*)
	printf 'Enumerating objects: 12\r' >&2
	for i in 10 20 30 40 50; do
		printf 'Writing objects:  %s%% (%s/100), %s.00 MiB | 9.00 MiB/s\r' $i $i $i >&2
		sleep 0.11
	done
	printf 'Writing objects: 100%% (100/100), done.\nremote: a word of the hub\n' >&2
	[ ! -e "$0.fails" ] || { echo 'fatal: it is so' >&2; exit 1; } ;;
esac
END
# on_terminal COMMAND...: what it shows there.
on_terminal() { PATH=$tmp:$PATH timeout 60 script -qec "stty cols 100; $(printf '%q ' "$@")" /dev/null; }
if command -v script > /dev/null; then
	shown='Writing objects \[#*\.*\]  *[1-5]0 %  [0-9]* MiB/s  [0-9]*:[0-9][0-9] left'
	ok "push on a terminal: a bar" says "$shown" on_terminal "$git_tool" push "$a" "$hub" web
	ok "... and what the hub says" says 'remote: a word of the hub' on_terminal "$git_tool" push "$a" "$hub" web
	bare() { local out; out=$(PATH=$tmp:$PATH xgit push "$a" "$hub" web 2>&1) && ! grep '\[' <<< "$out"; }
	ok "no terminal: no bar" bare
	ok "gc on a terminal: a bar" says "$shown" on_terminal "$git_tool" gc "$a"
	touch "$tmp/git.fails"
	ok "... that fails" fails 1 'git gc: .*fatal: it is so' on_terminal "$git_tool" gc "$a"
	rm "$tmp/git.fails"
	# A signal is for us alone: it stops our git, which says no more.
	interrupted() {
		local pid rc=0
		printf '#!/bin/sh\ntouch "$0.runs"\nexec sleep 60\n' > "$tmp/git"
		PATH=$tmp:$PATH "$git_tool" gc "$a" 2> "$tmp/words" &
		pid=$!
		cleanup_pids+=("$pid")
		eventually 20 test -e "$tmp/git.runs" && kill -TERM "$pid"
		wait "$pid" || rc=$?
		[ "$rc" = 1 ] && grep -q 'interrupted' "$tmp/words"
	}
	ok "gc that is interrupted" interrupted
else
	skipped "bars" "script is not installed"
fi
rm "$tmp/git"

# --- Somebody else's repository ----------------------------------------------------------
if [ "$(id -u)" = 0 ]; then
	theirs=$tmp/theirs.git
	xgit init "$theirs"
	xgit create "$theirs" web --size 1M > /dev/null
	git init -q --bare "$tmp/theirs-hub.git"
	chown -R 54321:54321 "$theirs" "$tmp/theirs-hub.git"
	chmod 755 "$tmp"
	cat > "$tmp/program" <<-END
		#!/bin/sh
		{ id -u; echo "home \$HOME"; env | sed -n 's/^\(SECRET\|SSH_AUTH_SOCK\)/has \1/p'
		  (: > /dev/tty) 2> /dev/null && echo a terminal
		  [ -t 1 ] || [ -t 2 ] && echo a screen; } > "$theirs/told"
		exit 1
	END
	chmod 755 "$tmp/program"
	told() { grep -qx "$1" "$theirs/told"; }
	# Root's home is nobody else's to look into.
	mkdir -m 700 "$tmp/root"
	at_root_home() { HOME=$tmp/root XDG_CONFIG_HOME=$tmp/root/.config "$git_tool" "$@"; }
	ok "root in somebody's repository, from his own home" at_root_home create "$theirs" other --size 1M
	ok "root in somebody's repository: push" xgit push "$theirs" "$tmp/theirs-hub.git" web
	ok "... and pull" xgit pull "$theirs" "$tmp/theirs-hub.git" web
	ok "... all of it is the owner's" eval '! find "$theirs" "$tmp/theirs-hub.git" ! -user 54321 | grep .'
	git -C "$theirs" -c safe.directory='*' config core.sshCommand "$tmp/program"
	chown -R 54321:54321 "$theirs"
	export SECRET=1 SSH_AUTH_SOCK=/nowhere
	ok "a program that it names" fails 1 . xgit push "$theirs" ssh://localhost/x web
	unset SECRET SSH_AUTH_SOCK
	ok "... is run as the owner" told 54321
	ok "... at his home" told "home /nonexistent"
	ok "... without root's environment" eval '! told "has.*"'
	ok "... and terminal" eval '! told "a terminal"'
	if command -v script > /dev/null; then
		rm -f "$theirs/told"
		ok "from a terminal" fails 1 'git ls-remote has failed' on_terminal "$git_tool" push "$theirs" ssh://localhost/x web
		ok "... it has run" told 54321
		ok "... which is not his to read" eval '! told "a terminal" && ! told "a screen"'
		# A session without a terminal may have ours for a screen: gc's own is one.
		printf '#!/bin/sh\n. "%s"\n' "$tmp/program" > "$tmp/git"
		chmod 755 "$tmp/git"
		rm -f "$theirs/told"
		ok "gc of it, from a terminal" fails 1 'git gc: .*it failed' on_terminal "$git_tool" gc "$theirs"
		ok "... its git has run as the owner" told 54321
		ok "... and not at root's terminal" eval '! told "a terminal"'
		rm "$tmp/git"
	else
		skipped "from a terminal" "script is not installed"
	fi
	chmod 700 "$tmp"
else
	skipped "somebody else's repository" "this is not root"
fi
