#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# gitfs with EROFS: fsck.erofs, and Linux where this machine's has it, find what a
# checkout has; and objects of Git LFS, in both formats.
. "$(dirname "$0")/gitfs-functions.sh"
requires fsck.erofs dump.erofs mcopy qemu-io qemu-img nbdinfo

# --- What FAT cannot have -----------------------------------------------------------
work=$tmp/work
git init -q "$work"
cd "$work" || exit 1
mkdir -p docs many plain plain.d bytes
echo readme > README.md
echo other > readme.MD
: > empty
printf '#!/bin/sh\necho ran\n' > plain/run
chmod +x plain/run
echo x > plain-x
echo y > plain.y
echo z > plain.d/z
for name in '!' '-' '.-' '...' $'new\nline' 'with:colon?' 'trailing.' 'blank ' \
	$'\xff\xfe' $'\x01' '\' "$(printf 'n%.0s' {1..255})"; do
	echo "$name" > "bytes/$name"
done
long=$(printf 'n%.0s' {1..100})
for i in {1..300}; do echo "$i" > "many/$long $i"; done
for i in {1..40}; do mkdir "many/$i"; echo "$i" > "many/$i/$i"; done
ln -s ../README.md docs/link
ln -s docs folder
ln -s /etc/passwd outside
ln -s nothing dangling
ln -s loop loop
ln -s "$(printf 'p/%.0s' {1..2000})" long
awk 'BEGIN { for (i = 0; i < 400000; i++) print "line", i }' > large
git add -A && git commit -qm one
cd "$tmp" || exit 1

# What a tree is for somebody who looks at it; folders have no size of their own.
listing()
{
	(cd "$1" && find . \( -name .git -o -name .xendisk \) -prune -o \
		\( -type d -printf '%p %M %n\0' -o -printf '%p %M %s %l\0' \) |
		LC_ALL=C sort -z | tr '\0' '\n'
	cd "$1" && find . \( -name .git -o -name .xendisk \) -prune -o \
		-type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
}
# Folders of a checkout have the links that those of another file system have.
links_left_out() { sed -E 's/^(.* d[rwx-]{9}) [0-9]+$/\1/'; }
chmod -R go=u,go-w "$work"
listing "$work" | links_left_out > "$tmp/wanted"
equal() { diff "$tmp/wanted" <(listing "$1" | links_left_out); }

disk="gitfs($work/.git, format=erofs, label=\"a label\")"
ok "the disk" image "$tmp/work.img" "$disk"
ok "fsck.erofs" extract "$tmp/work.img" "$tmp/out"
ok "every name, mode, link and file is git's" equal "$tmp/out"
echo x >> "$tmp/out/plain/run"
ok "... a difference would have been seen" fails 1 plain/run equal "$tmp/out"
dated() { [ "$(stat -c %Y "$tmp/out/README.md")" = "$(date -d "$GIT_COMMITTER_DATE" +%s)" ]; }
ok "times are the commit's" dated
said() { grep -qx "commit $(git -C "$work" rev-parse main)" "$tmp/out/.xendisk/commit" && [ ! -s "$tmp/out/.xendisk/names" ]; }
ok "/.xendisk" said
labelled() { [ "$(dd if="$tmp/work.img" bs=1 skip=1088 count=7 status=none)" = "a label" ]; }
ok "the label" labelled
spoil() { printf x | dd of="$tmp/work.img" bs=1 seek=1100 conv=notrunc status=none; }
cp "$tmp/work.img" "$tmp/again.img"
spoil
ok "... is covered by the checksum" fails 1 chksum judged "$tmp/work.img"
mv "$tmp/again.img" "$tmp/work.img"

ok "again" image "$tmp/again.img" "$disk"
ok "... is the same, bit by bit" cmp "$tmp/work.img" "$tmp/again.img"
git clone -q --bare "file://$work" "$tmp/bare.git"
ok "another host: packed instead of loose" image "$tmp/again.img" \
	"gitfs($tmp/bare.git, format=erofs, label=\"a label\")"
ok "... is the same, bit by bit" cmp "$tmp/work.img" "$tmp/again.img"
ok "in a partition" image "$tmp/mbr.img" \
	"gitfs($work/.git, format=erofs, label=\"a label\", mbr=yes)"
# Type 83, at sector 2048.
moved()
{
	[ "$(od -An -tx1 -j 450 -N 1 "$tmp/mbr.img")" = " 83" ] &&
		tail -c +1048577 "$tmp/mbr.img" | cmp - "$tmp/work.img"
}
ok "... it is the same file system" moved
rm "$tmp/mbr.img" "$tmp/again.img"

# This machine's own Linux, if it may be asked.
mounts()
{
	[ "$(id -u)" = 0 ] && grep -qw erofs /proc/filesystems &&
		mkdir -p "$tmp/mnt" &&
		mount -t erofs -o ro,loop "$tmp/work.img" "$tmp/mnt" 2> /dev/null
}
if mounts; then
	listing "$work" > "$tmp/wanted.links"
	seen() { equal "$tmp/mnt"; }
	runs() { [ "$("$tmp/mnt/plain/run")" = ran ]; }
	linked() { [ "$(stat -c %h "$tmp/mnt/many")" = 42 ]; }
	ok "Linux finds the same" seen
	ok "... it can be run" runs
	ok "... a folder has its links" linked
	umount "$tmp/mnt"
else
	skipped "Linux finds the same" "it cannot be mounted here"
fi

# --- A tree with a .xendisk of its own ------------------------------------------------
blob() { git -C "$work" hash-object -w --stdin; }
own=$(printf '100644 blob %s\tcommit\n' "$(echo own | blob)" | git -C "$work" mktree)
own=$(printf '040000 tree %s\t.xendisk\n100644 blob %s\t.xendisk~1\n' "$own" \
	"$(echo one | blob)" | git -C "$work" mktree)
ok "a tree with a .xendisk" image "$tmp/own.img" "gitfs($work/.git, rev=$own, format=erofs)"
ok "... is sound" extract "$tmp/own.img" "$tmp/out"
kept() { [ "$(cat "$tmp/out/.xendisk~2/commit")" = own ] && [ "$(cat "$tmp/out/.xendisk~1")" = one ]; }
ok "... and has both" kept
listed() { [ "$(cat "$tmp/out/.xendisk/names")" = "/.xendisk~2 is /.xendisk" ]; }
ok "... which is said" listed

# --- Wrong use -------------------------------------------------------------------------
ok "a UEFI disk" no 'esp: UEFI boots from FAT' "gitfs($work/.git, format=erofs, esp=yes)"
ok "links as text" no 'symlinks: format=erofs has them' \
	"gitfs($work/.git, format=erofs, symlinks=text)"
ok "a label that is too long" no 'label: "1234567890123456"' \
	"gitfs($work/.git, format=erofs, label=1234567890123456)"
ok "no such format" no ext4 "gitfs($work/.git, format=ext4)"
tree=$(printf '100644 blob %s\t%s\n' "$(git -C "$work" rev-parse main:empty)" \
	"$(printf 'ü%.0s' {1..128})" | git -C "$work" mktree)
ok "a name of 256 bytes" no 'the name has more than 255 bytes' \
	"gitfs($work/.git, rev=$tree, format=erofs)"
ok "... is not too long for FAT" image "$tmp/own.img" "gitfs($work/.git, rev=$tree)"
rm -rf "$tmp/own.img" "$tmp/out"

# --- Git LFS ---------------------------------------------------------------------------
# Made by hand: git-lfs itself is not needed to read them.
lfs=$tmp/lfs
git init -q "$lfs"
pointer() { printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %s\n' "$1" "$2"; }
place() { echo "$lfs/.git/lfs/objects/${1:0:2}/${1:2:2}/$1"; }
# track NAME FILE: that is NAME's content.
track()
{
	local oid
	oid=$(sha256sum < "$2") && oid=${oid%% *}
	pointer "$oid" "$(stat -c %s "$2")" > "$lfs/$1"
	mkdir -p "$(dirname "$(place "$oid")")"
	cp "$2" "$(place "$oid")"
}
seq 200000 > "$tmp/movie"
seq 9 > "$tmp/short"
track movie "$tmp/movie"
track again "$tmp/movie"
track short "$tmp/short"
chmod +x "$lfs/short"
ln -s short "$lfs/link"
gone=$(printf '0%.0s' {1..64})
pointer "$gone" 12345 > "$lfs/gone"
pointer "$gone" 12345 | sed '2iext-0-x sha256:00' > "$lfs/extended"
echo plain > "$lfs/plain"
git -C "$lfs" add -A && git -C "$lfs" commit -qm lfs

has() { cmp "$tmp/out/$1" "$2"; }
ok "LFS, FAT: the disk" image "$tmp/lfs.img" "gitfs($lfs/.git)"
ok "fsck.fat" sound "$tmp/lfs.img"
unpack "$tmp/lfs.img" "$tmp/out"
for name in movie again; do ok "... $name is the object" has "$name" "$tmp/movie"; done
ok "... a link leads to it" has link "$tmp/short"
for name in gone extended plain; do ok "... $name is as in git" has "$name" "$lfs/$name"; done
ok "LFS, EROFS: the disk" image "$tmp/lfs.img" "gitfs($lfs/.git, format=erofs)"
ok "fsck.erofs" extract "$tmp/lfs.img" "$tmp/out"
for name in movie again; do ok "... $name is the object" has "$name" "$tmp/movie"; done
ok "... short is it, too" has short "$tmp/short"
ok "... and may be run" test -x "$tmp/out/short"
ok "... gone is as in git" has gone "$lfs/gone"
ok "lfs=no" image "$tmp/lfs.img" "gitfs($lfs/.git, format=erofs, lfs=no)"
ok "... is sound" extract "$tmp/lfs.img" "$tmp/out"
ok "... and has pointers" has movie "$lfs/movie"

# What somebody hostile puts there.
oid=$(sha256sum < "$tmp/movie") && oid=${oid%% *}
at=$(place "$oid")
mv "$at" "$tmp/aside"
ln -s "$tmp/aside" "$at"
ok "a link instead of an object" no "/again: object $oid of Git LFS: " "gitfs($lfs/.git)"
rm "$at"
mkfifo "$at"
ok "a pipe" no "object $oid of Git LFS is no plain file" "gitfs($lfs/.git)"
rm "$at"
echo short > "$at"
ok "another size" no "has 6 bytes, its pointer says 1288895" "gitfs($lfs/.git)"
mv "$tmp/aside" "$at"
mv "$(dirname "$at")" "$tmp/aside"
ln -s "$tmp/aside" "$(dirname "$at")"
ok "a link instead of a folder" no "object $oid of Git LFS: " "gitfs($lfs/.git)"
rm "$(dirname "$at")"
mv "$tmp/aside" "$(dirname "$at")"
mv "$lfs/.git/lfs" "$tmp/aside"
ln -s "$tmp/aside" "$lfs/.git/lfs"
ok "all of it elsewhere" no 'lfs/objects: ' "gitfs($lfs/.git)"
ok "... does not matter with lfs=no" image "$tmp/lfs.img" "gitfs($lfs/.git, lfs=no)"
rm "$lfs/.git/lfs"

# Where else it may be.
mkdir "$lfs/.git/store"
mv "$tmp/aside" "$lfs/.git/store/large"
ok "elsewhere in the repository, and not said" image "$tmp/lfs.img" "gitfs($lfs/.git)"
unpack "$tmp/lfs.img" "$tmp/out"
ok "... is not found" has movie "$lfs/movie"
git -C "$lfs" config lfs.storage store//./large/
ok "lfs.storage" image "$tmp/lfs.img" "gitfs($lfs/.git)"
unpack "$tmp/lfs.img" "$tmp/out"
ok "... says where" has movie "$tmp/movie"
git -C "$lfs" config lfs.storage ../.git/store/large
ok "... not out of the repository" no '../.git/store/large/objects: ' "gitfs($lfs/.git)"
git -C "$lfs" config lfs.storage "$lfs/.git/store/large"
ok "... an absolute path" image "$tmp/lfs.img" "gitfs($lfs/.git)"
unpack "$tmp/lfs.img" "$tmp/out"
ok "... is not looked at" has movie "$lfs/movie"
git -C "$lfs" config --unset lfs.storage
mv "$lfs/.git/store/large" "$lfs/.git/lfs"

# Each is an open file, and there are more than the soft limit allows.
git -C "$lfs" switch -q -c many
for i in {1..80}; do echo "$i" > "$tmp/one" && track "many-$i" "$tmp/one"; done
git -C "$lfs" add -A && git -C "$lfs" commit -qm many
git -C "$lfs" switch -q main
limited() { (ulimit "$1" 70 && image "$tmp/lfs.img" "gitfs($lfs/.git, rev=many)"); }
ok "a limit on open files is raised" limited -Sn
ok "... if it can be" fails 1 'the limit (RLIMIT_NOFILE) does not allow so many' limited -n
unpack "$tmp/lfs.img" "$tmp/out"
all() { [ "$(cat "$tmp"/out/many-* | sort -n | tr '\n' ' ')" = "$(echo {1..80}) " ]; }
ok "... all are there" all

# --- More than 4 GiB ---------------------------------------------------------------------
# The last file's last bytes are the disk's, but for zeroes up to a whole block.
large=$((5 << 30))
huge=$(printf 'f%.0s' {1..64})
mkdir -p "$(dirname "$(place "$huge")")"
truncate -s $large "$(place "$huge")"
printf 'ZZZZZZZZ' | dd of="$(place "$huge")" bs=1 seek=$((large - 8)) conv=notrunc status=none
pointer "$huge" $large > "$lfs/zz-huge"
git -C "$lfs" add -A && git -C "$lfs" commit -qm huge
size=$(serve "gitfs($lfs/.git, format=erofs)" --run 'nbdinfo --size "$uri"')
ok "5 GiB" test "${size:-0}" -gt $large
reads_end()
{
	serve "gitfs($lfs/.git, format=erofs)" --run \
		"qemu-io -r -f raw -c 'read -P $1 $((size - 8)) 8' \"\$uri\"" |
		grep -v 'verification failed'
}
ok "... to the last byte" reads_end 0x5a
ok "... which would have been noticed" fails 1 'verification failed' \
	serve "gitfs($lfs/.git, format=erofs)" --run \
	"qemu-io -r -f raw -c 'read -P 0x5b $((size - 8)) 8' \"\$uri\""
# All that is not a file's is in front.
front()
{
	serve "gitfs($lfs/.git, format=erofs)" --run \
		"qemu-img dd -f raw -O raw bs=64k count=4 if=\"\$uri\" of='$tmp/front.img'" &&
		truncate -s "$size" "$tmp/front.img"
}
ok "... its metadata" front
ok "... is sound" judged "$tmp/front.img"
inode() { dump.erofs --path=/zz-huge "$tmp/front.img" | grep -E "^Size: $large |Inode size: 64"; }
ok "... with an inode of 64 bytes" inode
small() { dump.erofs --path=/movie "$tmp/front.img" | grep 'Inode size: 32'; }
ok "... and no others" small
ok "... which FAT cannot have" no '/zz-huge: 5368709120 bytes are more' "gitfs($lfs/.git)"

# --- What an operator is told ----------------------------------------------------------------
command -v xenstore-exists > /dev/null || exit
sim_start
daemon_start
dom=$(domain)
ok "attach" toolstack attach "$dom" xvdb "gitfs(\"$lfs/.git\", format=erofs)"
ok "show says what it is" says 'EROFS, [0-9]* blocks of 4096 bytes' xendisk show "$dom" xvdb
ok "... how many files are objects of Git LFS" \
	says '4 files are objects of Git LFS' xendisk show "$dom" xvdb
ok "... and how many are not there" \
	says '1 files are pointers of Git LFS' xendisk show "$dom" xvdb
head_is() { guest "$dom" xvdb read 0 4K | dd bs=1 skip=1024 count=4 status=none | od -An -tx1 | grep -q 'e2 e1 f5 e0'; }
ok "a guest reads it" head_is
ok "detach" toolstack detach "$dom" xvdb
