#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# What mtools does to a FAT that was made of a commit, and git to a checkout of it,
# is the same tree in the end; a FAT that is not sound is refused.
#
#	XENDISK_FAT_ROUNDS	of random changes (5)
. "$(dirname "$0")/functions.sh"
[ -x "$top_builddir/tests/unit/fat-to-git" ] || skip_all "built without libgit2"
requires git fsck.fat mkfs.fat mcopy perl

export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 LC_ALL=C.UTF-8 MTOOLS_SKIP_CHECK=1
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='2025-03-04T05:06:08Z'
export GIT_COMMITTER_DATE='2025-03-04T05:06:08Z'
git config --global init.defaultBranch main
git config --global gc.auto 0
git config --global core.fsync none
git config --global protocol.file.allow always

work=$tmp/work
img=$tmp/disk.img
tool() { "$top_builddir/tests/unit/fat-to-git" "$1" "$work/.git" main "${2:-40M}" "$img"; }
# m COMMAND ARGUMENT...: one of mtools on the disk.
m() { "m$1" -i "$img" "${@:2}" < /dev/null; }

# --- A commit with all that FAT does not know ----------------------------------------
git init -q "$tmp/module"
git -C "$tmp/module" commit -q --allow-empty -m m
git init -q "$work"
cd "$work" || exit 1
git submodule --quiet add "$tmp/module" mod
mkdir -p bin docs/deep lib
printf '#!/bin/sh\n' > bin/run.sh
printf '#!/bin/sh\necho\n' > bin/Stop.sh
chmod +x bin/*
seq 30000 > docs/large.txt
echo first > 'READ me.text'
echo second > 'Read Me.text'
echo third > 'read me.text'
echo u > 'docs/grüße — ß €.txt'
echo b > $'docs/bad\xff\xfe.txt'
echo c > 'docs/with:colon?.txt'
echo d > docs/deep/d
: > lib/empty
for i in {1..60}; do seq "$i" > "lib/file $i.text"; done
ln -s ../docs/large.txt lib/followed
ln -s /etc/passwd lib/outside
ln -s nothing lib/dangling
git add -A
git commit -qm base

layout() { tool lay && fsck.fat -n "$img" > "$tmp/fsck"; }
too_small() { ! tool lay "$1" 2> "$tmp/why" && grep -q "$2" "$tmp/why"; }
ok "a size that is too small is refused" too_small 32M 'too few: the tree needs'
ok "... and one that is too large" too_small 3T 'more than FAT32 can have'
ok "the disk is laid out, and fsck.fat finds it sound" layout
free() { minfo -i "$img" :: | sed -n 's/^free clusters=//p'; }
has_room() { [ "$(free)" -gt 60000 ] && [ "$(stat -c %s "$img")" -le $((40 << 20)) ] && [ "$(stat -c %s "$img")" -gt $((40 * 1040000)) ]; }
ok "... with room, in the size that was given" has_room
writable() { ! mattrib -i "$img" -/ :: | cut -c1-12 | grep R; }
ok "... and files that may be written" writable

# taken: what the tool says, of the disk as it is.
taken() { tool take > "$tmp/taken" 2> "$tmp/why" || { cat "$tmp/why"; return 1; }; }
# as_git: the tree is that of the checkout, and so are the changes.
as_git()
{
	local wanted
	taken || return 1
	git add -A && wanted=$(git write-tree) || return 1
	grep -qx "tree $wanted" "$tmp/taken" || {
		git diff --name-status "$(sed -n 's/^tree //p' "$tmp/taken")" "$wanted"
		return 1
	}
	git diff --name-status --no-renames main "$wanted" | sort > "$tmp/wanted"
	grep -v '^read \|^tree ' "$tmp/taken" | git_paths | sort | diff "$tmp/wanted" -
}
# As git quotes them.
git_paths() { perl -ne 'chomp; ($c, $p) = split /\t/, $_, 2; if ($p =~ /[^ -~]/) { $p =~ s/([^ -~])/sprintf("\\%03o", ord $1)/ge; $p = "\"$p\"" } print "$c\t$p\n"'; }
read_none() { grep -qx 'read 0' "$tmp/taken"; }

ok "nothing changed: the same tree" as_git
ok "... and no file was read" read_none

# poke OFFSET BYTES
poke() { printf '%b' "$2" | dd of="$img" bs=1 seek="$1" conv=notrunc status=none; }

# --- One of each kind ------------------------------------------------------------------
cp "$img" "$tmp/base.img"
printf '#!/bin/sh\nexit 1\n' > bin/run.sh
m copy -o bin/run.sh ::bin/run.sh
ok "a program that was changed is still one" as_git
mv bin/Stop.sh 'lib/Stop it'
m move ::bin/Stop.sh '::lib/Stop it'
ok "... and one that was moved" as_git
one_read() { grep -qx 'read 1' "$tmp/taken"; }
ok "only what was changed was read" one_read
echo new > docs/deep/new.txt
m copy docs/deep/new.txt ::docs/deep
m md ::docs/nothing
m md ::docs/something
mkdir docs/something
echo s > docs/something/s
m copy docs/something/s ::docs/something
ok "new files; a new folder, and an empty one, which git does not know" as_git
rm -r docs/deep lib/empty
m deltree ::docs/deep
m del ::lib/empty
ok "files and folders are removed" as_git
m copy -o lib/outside.copy ::lib/outside 2> /dev/null
ok "links are still links" as_git
printf '/etc/group' > "$tmp/target"
ln -sf /etc/group lib/outside
m copy -o "$tmp/target" ::lib/outside
ok "the text of a link is where it leads" as_git
rm lib/dangling
printf 'two\nlines\n' > lib/dangling
m copy -o lib/dangling ::lib/dangling
ok "... unless it is none any more" as_git
seq 30000 > "$tmp/same"
m copy -o "$tmp/same" ::lib/followed
ok "a link whose file was written as it was is one" as_git
rm lib/followed
echo own > lib/followed
m copy -o lib/followed ::lib/followed
ok "... and not after its file was changed" as_git
rm -r mod
m rd ::mod
ok "a submodule that was removed" as_git
mkdir mod
echo f > mod/f
m md ::mod
m copy mod/f ::mod
ok "... and a folder in its place" as_git

# Three names that are one to FAT: two of them have others on the disk.
names() { m dir -b :: | sed 's|^::/||' | grep -i '^read' | sort | paste -sd,; }
ok "names that differ in case only are told apart" \
	eval '[ "$(names)" = "READ me.text,Read Me~1.text,read me~2.text" ]'
# In place: mtools 4.0 makes nonsense of a long name with a "~1" in it.
echo SECOND > 'Read Me.text'
poke "$(grep -abo -m 1 second "$img" | cut -d: -f1)" SECOND
ok "the file behind such a name is changed" as_git
rm 'READ me.text' 'read me.text'
mv 'Read Me.text' 'Read Me~1.text'
echo 'a new one' > 'Read Me.text'
m del '::READ me.text' '::read me~2.text'
m copy 'Read Me.text' ::
ok "... a guest gives another the name that it has in git" as_git

# --- By chance ---------------------------------------------------------------------------
git read-tree main
git checkout -q -f main
git clean -qfdx
git submodule --quiet update --init
RANDOM=20110
change()
{
	local f n=$((RANDOM % 60 + 1))
	f=$(find bin docs lib -type f | grep -v 'bad\|[?:]' | LC_ALL=C sort |
		sed -n "${n}p")
	[ -n "$f" ] || return 0
	n=New-$RANDOM
	case $((RANDOM % 6)) in
	0)	# A program that was moved and then changed is a new file.
		{ [ ! -x "$f" ] || git cat-file -e "main:$f"; } || return 0
		seq "$RANDOM" >> "$f" && m copy -o "$f" "::$f" ;;
	1)	mv "$f" "docs/$n.txt" && m move "::$f" "::docs/$n.txt" ;;
	2)	rm "$f" && m del "::$f" ;;
	3)	head -c $((RANDOM * 3)) /dev/urandom > "lib/$n, a Longer Name" &&
			m copy "lib/$n, a Longer Name" ::lib ;;
	4)	mkdir "docs/$n" && m md "::docs/$n" &&
			cp lib/"file 7.text" "docs/$n/x" 2> /dev/null &&
			m copy "docs/$n/x" "::docs/$n" ;;
	*)	mv "$f" "bin/$n" && m move "::$f" "::bin/$n" ;;
	esac
}
rounds=${XENDISK_FAT_ROUNDS:-5}
for round in $(seq "$rounds"); do
	git checkout -q -f main && git clean -qfdx && git submodule --quiet update --init
	cp "$tmp/base.img" "$img"
	for _ in {1..25}; do change; done > /dev/null 2>&1
	ok "round $round of changes by chance, $(git status --short | wc -l) of them" as_git
done
sound() { fsck.fat -n "$img" > "$tmp/fsck" || { cat "$tmp/fsck"; return 1; }; }
ok "fsck.fat finds what mtools left sound" sound
ok "git fsck has nothing to say of the trees" git fsck --strict --no-dangling
echo x >> lib/"file 9.text"
differs() { ! as_git > /dev/null; }
ok "... a difference would have been seen" differs

# --- What is refused ----------------------------------------------------------------------
# refused WHAT: with that sentence.
refused() { ! taken > /dev/null && grep -q "$1" "$tmp/why"; }
u16() { od -An -tu2 -j"$1" -N2 "$img" | tr -d ' '; }
cp "$tmp/base.img" "$img"
poke 65 '\x01'
ok "a disk that is still mounted" refused 'mounted for writing'
cp "$tmp/base.img" "$img"
fat=$(($(u16 14) * 512))
poke $((fat + 40)) '\x02\x00\x00\x00'
ok "two FATs that differ" refused 'two FATs differ'
cp "$tmp/base.img" "$img"
mmd -i "$img" ::.git
m copy "$work/.gitmodules" ::.git/config
ok "a folder that would be git's own" refused 'the name ".git"'
cp "$tmp/base.img" "$img"
cd "$tmp" || exit 1
mkdir one
echo 1 > one/file
# mkfs KIND SECTORS: in the guest; sectors of each cluster.
mkfs() { mkfs.fat -F "$1" -s "$2" "$img" && mcopy -i "$img" -s one ::; }
fresh() { taken && [ "$(git -C "$work" ls-tree -r --name-only "$(sed -n 's/^tree //p' "$tmp/taken")")" = one/file ]; }
for kind in "12 32" "16 2" "32 1"; do
	# shellcheck disable=SC2086
	ok "mkfs.fat -F ${kind% *} in the guest" mkfs $kind
	ok "... only what is there then" fresh
done
poke 510 '\x00'
ok "no file system at all" refused 'there is no FAT:'
