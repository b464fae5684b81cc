#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A worker opens nothing once it has locked itself down: strace, from its start
# through connect, load, reconnect with other rings, and detach.
. "$(dirname "$0")/functions.sh"
requires strace

truncate -s 16M "$tmp/raw.img" "$tmp/top.img"
sim_start
mkdir -p "$tmp/trace"
# strace follows the broker; every worker writes a file of its own.
cat > "$tmp/traced" <<END
#!/bin/sh
exec strace -ff -o '$tmp/trace/t' -e trace=!futex \\
	sh -c 'echo \$\$ > $tmp/pid; exec "\$0" "\$@"' '$top_builddir/xendiskd' "\$@"
END
chmod +x "$tmp/traced"
export XENDISK_LIBEXEC_DIR=$top_builddir
unset GLIBC_TUNABLES
XENDISKD=$tmp/traced daemon_start
dom=$(domain)

use()
{
	toolstack attach "$dom" xvdb "$1" &&
		guest "$dom" xvdb verify --seconds 1 --queues 2 &&
		guest "$dom" xvdb verify --seconds 1 --queues 1 --order 4 &&
		toolstack detach "$dom" xvdb
}

# The traces of threads that installed a filter, from there on.
after_filter()
{
	local f
	for f in "$tmp"/trace/t.*; do
		sed -n '/seccomp(SECCOMP_SET_MODE_FILTER.*= 0/,$p' "$f" | tail -n +2
	done
}
forbidden='^(open|openat|openat2|creat|socket|connect|execve|execveat|fork|vfork|ptrace)\('
opened() { after_filter | grep -E "$forbidden"; }

ok "raw, under strace" use "$tmp/raw.img"
ok "mem" use "mem(16M)"
ok "cow on a file" use "cow($tmp/raw.img, $tmp/top.img)"
if [ -e "$top_builddir/backends/.libs/gitfs.so" ] && command -v git >/dev/null
then
	git init -q "$tmp/tree"
	seq 1000000 > "$tmp/tree/large"
	seq 1000 > "$tmp/tree/small"
	# An object of Git LFS, and the pointer to it.
	oid=$(printf 'd%.0s' {1..64})
	mkdir -p "$tmp/tree/.git/lfs/objects/dd/dd"
	echo 'the object itself' > "$tmp/tree/.git/lfs/objects/dd/dd/$oid"
	printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 18\n' \
		"$oid" > "$tmp/tree/pointer"
	git -C "$tmp/tree" add -A
	git -C "$tmp/tree" -c user.name=a -c user.email=a@example.org \
		commit -qm one
	reads_tree()
	{
		toolstack attach "$dom" xvdb "gitfs:$tmp/tree/.git" &&
			guest "$dom" xvdb read 0 32M > "$tmp/read" &&
			toolstack detach "$dom" xvdb &&
			grep -qx 999999 "$tmp/read" &&
			grep -q 'the object itself' "$tmp/read"
	}
	ok "gitfs, files of all kinds" reads_tree
fi
if [ -e "$top_builddir/backends/.libs/git.so" ] && command -v git > /dev/null
then
	snapshot()
	{
		toolstack attach "$dom" xvdb "git:$tmp/vm.git?branch=web" &&
			guest "$dom" xvdb verify --seconds 1 --queues 2 || return
		guest "$dom" xvdb verify --seconds 4 --queues 1 & verify=$!
		eventually 20 snap && wait "$verify" &&
			toolstack detach "$dom" xvdb
	}
	snap() { xendisk snapshot "$dom" xvdb -m traced --wait; }
	xendisk git init "$tmp/vm.git"
	xendisk git create "$tmp/vm.git" web --size 16M > /dev/null
	ok "git, with a snapshot" snapshot
fi
# strace ends when the daemon does, and takes no signal itself.
kill "$(cat "$tmp/pid")"
wait "$daemon_pid"
ok "workers were seen to lock themselves down" test -n "$(after_filter | head -1)"
ok "and opened nothing after that" test -z "$(opened)"
opened | head | sed 's/^/# /'
# Shown to catch: the same pattern finds opens before the filter.
ok "an open would have been seen" \
	grep -qE "$forbidden" "$tmp"/trace/t.*

# --- Restartable sequences: spawn.c -------------------------------------------
mapfile -t workers < <(grep -l 'seccomp(SECCOMP_SET_MODE_FILTER' "$tmp"/trace/t.*)
ok "nor has a worker restartable sequences" fails 1 '' grep -h '^rseq(' "${workers[@]}"
