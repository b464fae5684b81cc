#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# xendisk git push and pull over ssh: a server of our own on loopback, with its own keys,
# serves a plain bare repository; two hosts bring one disk to each other.
room=$(df --output=avail /dev/shm 2>/dev/null | tail -1)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 1000000 ]; then
	export TMPDIR=/dev/shm
fi
. "$(dirname "$0")/functions.sh"
PATH=$PATH:/usr/sbin
git_tool=$top_builddir/xendisk-git
[ -x "$git_tool" ] || skip_all "built without libgit2"
requires git sshd ssh ssh-keygen
export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 LC_ALL=C
git config --global core.fsync none
xgit() { timeout 120 "$git_tool" "$@"; }

# --- The server ------------------------------------------------------------------------
# keys: of the server, of the two hosts, and of somebody else.
for key in server a b stranger; do
	ssh-keygen -q -t ed25519 -N '' -C "$key" -f "$tmp/key-$key" || exit 1
done
cat "$tmp/key-a.pub" "$tmp/key-b.pub" > "$tmp/authorized"
port=$(free_port)
cat > "$tmp/sshd_config" <<END
Port $port
ListenAddress 127.0.0.1
HostKey $tmp/key-server
PidFile none
AuthorizedKeysFile $tmp/authorized
AuthenticationMethods publickey
UsePAM no
StrictModes no
PermitRootLogin yes
PermitUserEnvironment no
SetEnv GIT_CONFIG_NOSYSTEM=1
END
# Where it separates its privileges; a package's service makes it.
if [ "$(id -u)" = 0 ]; then mkdir -p /run/sshd; fi
# By its whole name, or it cannot start itself again.
background "$(command -v sshd)" -D -e -f "$tmp/sshd_config" 2> "$tmp/sshd.log"
listening() { ssh-keyscan -p "$port" -T 5 127.0.0.1 2> /dev/null | grep -q ed25519; }
eventually 30 listening || { sed 's/^/# /' "$tmp/sshd.log"; skip_all "sshd does not run here"; }
echo "[127.0.0.1]:$port $(cat "$tmp/key-server.pub")" > "$tmp/known"

# as KEY COMMAND...: with that identity, and no other.  A connection stays for the next
# one, since each takes long on a busy machine.
control="-o ControlPersist=60 -o ControlPath=$tmp/control-"
as()
{
	GIT_SSH_COMMAND="ssh $control$1 -o ControlMaster=auto -F none -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o UserKnownHostsFile=${known:-$tmp/known} -o GlobalKnownHostsFile=none -i $tmp/key-$1" \
		xgit "${@:2}"
}

# --- A disk, from host to host ------------------------------------------------------------
. "$(dirname "$0")/git-remote-functions.sh"
url=ssh://$(id -un)@127.0.0.1:$port$hub
xgit create "$a" web --size 4M > /dev/null
ok "a snapshot" worker "$a" write:1:9 freeze:branch commit release
ok "a key that nobody knows" fails 1 'Permission denied' as stranger push "$a" "$url" web
: > "$tmp/nobody"
ok "a server that nobody knows" eval 'known=$tmp/nobody; fails 1 "Host key verification failed" as a push "$a" "$url" web'
ok "... nothing has come" fails 128 . head_of "$hub"
ok "push" says "^$(head_of "$a")\$" as a push "$a" "$url" web
ok "... the branch is there" same "$a" "$hub"
ok "... and a lease" says '^sequence 1$' lease
ok "... git fsck there" sound "$hub"
git -C "$b" remote add hub "$url"
ok "pull, from a remote of the configuration" as b pull "$b" hub web
ok "... byte for byte" is "$b" "$a.model"
ok "the other host goes on" worker "$b" write:2:7 freeze:branch commit release
ok "... may not push" fails 5 'has the lease until' as b push "$b" hub web
ok "... nothing has moved" same "$a" "$hub"
ok "the first one gives it away" as a push --release "$a" "$url" web
ok "... the other one pushes" as b push "$b" hub web
ok "... all is there" same "$b" "$hub"
ok "... and the lease" says "^holder $(git -C "$b" config xendisk.holder)\$" lease
ok "the first one may not any more" fails 5 'has the lease' as a push "$a" "$url" web
ok "... pulls, and takes it" as a pull --take "$a" "$url" web
ok "... has what the other wrote" is "$a" "$b.model"
ok "... and goes on" worker "$a" write:3:5 freeze:branch commit release
ok "... pushes" as a push "$a" "$url" web
ok "... the other one may not" fails 5 'has the lease' as b push "$b" hub web
ok "git fsck: all three" eval 'sound "$a" && sound "$b" && sound "$hub"'
for host in a b; do
	# shellcheck disable=SC2086
	ssh -F none $control$host -O exit "$(id -un)@127.0.0.1" 2> /dev/null
done
end_process "${cleanup_pids[0]}"
ok "a server that is not there" fails 1 'git ls-remote has failed' as a push "$a" "$url" web
