#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2016,SC2317,SC2119  # $uri is the command's; called by ok
# gitfs: fsck.fat, mtools and a guest find on the disk what git says is in the
# tree; whatever somebody hostile puts into a repository gets a sentence.
# Ten thousand files, twice: in memory, where there is room.
room=$(df --output=avail /dev/shm 2>/dev/null | tail -1)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 1000000 ]; then
	export TMPDIR=/dev/shm
fi
. "$(dirname "$0")/gitfs-functions.sh"
requires fsck.fat mcopy fsck.erofs

# --- 10,000 files, with a history, so that many are stored as changes -----------
big=$tmp/big.git
generate()
{
	awk -v files=10000 'BEGIN {
		srand(7)
		for (c = 1; c <= 2; c++) {
			printf "commit refs/heads/main\nmark :%d\n", c
			print "committer c <c@example.org> " 1741064768 + c " +0000"
			print "data 1\nx"
			if (c == 2) print "from :1"
			for (i = 0; i < files; i += c * c * c) {
				text = ""
				for (k = 0; k < i % 97; k++)
					text = text "line " k " of " i - i % 5 ", " c "\n"
				printf "M 100644 inline dir%d/sub%d/file-%05d.txt\n",
					i % 50, i % 7, i
				printf "data %d\n%s\n", length(text), text
			}
		}
	}' | git -C "$big" fast-import --quiet
}
git init -q --bare "$big"
ok "a repository of 10,000 files" generate
git -C "$big" gc -q
has_deltas() { git -C "$big" verify-pack -v "$big"/objects/pack/*.idx | awk 'NF == 7 { n++ } END { exit n < 100 }'; }
ok "... many of which are stored as changes" has_deltas
git clone -q "$big" "$tmp/checkout"
ok "its disk" image "$tmp/big.img" "gitfs($big)"
ok "fsck.fat" sound "$tmp/big.img"
equal() { diff -r --exclude=.git --exclude=.xendisk "$tmp/checkout" "$tmp/out"; }
unpack "$tmp/big.img" "$tmp/out"
ok "mtools: every file is git's" equal
echo x >> "$tmp/checkout/dir1/sub1/file-00001.txt"
ok "... a difference would have been seen" fails 1 file-00001 equal
git -C "$tmp/checkout" checkout -q .
ok "its disk with EROFS" image "$tmp/erofs.img" "gitfs($big, format=erofs)"
ok "fsck.erofs" extract "$tmp/erofs.img" "$tmp/out"
ok "... every file is git's" equal
rm -rf "$tmp/erofs.img"
other() { ! cmp "$tmp/big.img" "$tmp/old.img"; }
ok "an older commit" image "$tmp/old.img" "gitfs:$big?rev=main~1"
ok "... is another disk" other
ok "... and sound" sound "$tmp/old.img"
rm -rf "$tmp/out" "$tmp/old.img"

# Packs are replaced between open and the first read.
repacked="git -C $big repack -adfq --depth=2 && git -C $big prune-packed &&
	git -C $big prune --expire=now"
ok "git repack -adf while it is served" \
	image "$tmp/again.img" "gitfs($big)" "$repacked"
ok "... and the disk is the same, bit by bit" cmp "$tmp/big.img" "$tmp/again.img"
rm "$tmp/again.img"

# --- Names, links, and what FAT cannot have ----------------------------------------
work=$tmp/work
git init -q "$work"
cd "$work" || exit 1
mkdir -p docs/deep EFI/BOOT
echo readme > README.md
echo other > readme.MD
echo boot > EFI/BOOT/BOOTX64.EFI
: > empty
echo c > 'docs/with:colon?.txt'
echo u > 'docs/grüße — ß €.txt'
echo b > $'docs/bad\xff\xfe.txt'
echo t > docs/trailing.
for i in {1..9}; do echo k > "docs/КИРИЛЛИЦА$i"; echo l > "docs/кириллица$i"; done
echo long > "docs/$(printf 'n%.0s' {1..255})"
ln -s ../README.md docs/link
ln -s docs/link second
ln -s docs/deep/../link third
ln -s docs folder
ln -s /etc/passwd outside
ln -s ../../../x above
ln -s loop-b loop-a
ln -s loop-a loop-b
ln -s nothing dangling
# The tenth name in its folder, and what mtools would call it as well.
echo one > 'FOOBA~10.TXT'
echo two > foobar-long.txt
echo d > docs/deep/d
deep=$(printf '%.0s/long-folder-name' {1..30})
deep=${deep#/}
mkdir -p "$deep"
echo A > "$deep/A"
echo a > "$deep/a"
awk 'BEGIN { for (i = 0; i < 400000; i++) print "line", i }' > large
git add -A && git commit -qm one
cd "$tmp" || exit 1
ok "odd names: the disk" image "$tmp/work.img" "gitfs:$work/.git"
ok "fsck.fat" sound "$tmp/work.img"
unpack "$tmp/work.img" "$tmp/out"
holds() { [ "$(cat "$tmp/out/$1")" = "$2" ]; }
ok "a plain name" holds README.md readme
ok "the same name in another case" holds 'readme~1.MD' other
ok "forbidden characters" holds $'docs/with\uf03acolon\uf03f.txt' c
ok "UTF-8" holds 'docs/grüße — ß €.txt' u
ok "bytes that are no UTF-8" holds $'docs/bad\uf0ff\uf0fe.txt' b
ok "a dot at the end" holds $'docs/trailing\uf02e' t
ok "Cyrillic" holds docs/КИРИЛЛИЦА9 k
ok "... in another case" holds docs/кириллица9~9 l
ok "255 characters" holds "docs/$(printf 'n%.0s' {1..255})" long
ok "empty" holds empty ''
ok "a name like another's short one" holds 'FOOBA~10~2.TXT' one
ok "... which is that indeed" says two mtype -i "$tmp/work.img" ::/FOOBA~10.TXT
ok "... and that other" holds foobar-long.txt two
ok "8 MB" cmp "$work/large" "$tmp/out/large"
for link in docs/link second third; do
	ok "a link to a file: $link" holds $link readme
done
ok "a link to a folder is its text" holds folder docs
ok "a link out of the tree" holds outside /etc/passwd
ok "a link above it" holds above ../../../x
ok "a circle" holds loop-a loop-b
ok "a link to nothing" holds dangling nothing
listed() { grep -qxF '/readme~1.MD is /readme.MD' "$tmp/out/.xendisk/names"; }
ok "/.xendisk/names" listed
whole() { grep -qxF "/$deep/a~1 is /$deep/a" "$tmp/out/.xendisk/names"; }
ok "... with paths of any length" whole
said() { grep -qx "commit $(git -C "$work" rev-parse main)" "$tmp/out/.xendisk/commit"; }
ok "/.xendisk/commit" said
dated() { TZ=UTC mdir -i "$tmp/work.img" ::/README.md | grep -q '2025-03-04 *5:06'; }
ok "times are the commit's" dated
ok "links as text" image "$tmp/text.img" "gitfs($work/.git, symlinks=text)"
linked() { [ "$(mtype -i "$tmp/text.img" ::/second)" = docs/link ]; }
ok "... say where they lead" linked

git clone -q --bare "file://$work" "$tmp/bare.git"
ok "another host: packed instead of loose" image "$tmp/bare.img" "gitfs:$tmp/bare.git"
ok "... is the same, bit by bit" cmp "$tmp/work.img" "$tmp/bare.img"
ok "a folder of it" image "$tmp/docs.img" "gitfs($work/.git, rev=main:docs/, label=docs)"
top() { [ "$(mtype -i "$tmp/docs.img" ::/deep/d)" = d ] && mlabel -s -i "$tmp/docs.img" | grep -q DOCS; }
ok "... is the whole disk, with a name" top
ok "a UEFI disk" image "$tmp/esp.img" "gitfs($work/.git, esp=yes)"
# Partition type EF, at sector 2048.
is_esp()
{
	[ "$(od -An -tx1 -j 450 -N 1 "$tmp/esp.img")" = " ef" ] &&
		[ "$(mtype -i "$tmp/esp.img"@@1M ::/EFI/BOOT/BOOTX64.EFI)" = boot ]
}
ok "... has an EFI system partition" is_esp
sound_esp() { tail -c +1048577 "$tmp/esp.img" > "$tmp/part.img" && sound "$tmp/part.img"; }
ok "... that is sound" sound_esp
rm -f "$tmp"/{text,bare,docs,esp,part}.img

# A seed for cloud-init, from a branch.
git -C "$work" switch -q --orphan seed
echo 'instance-id: web1' > "$work/meta-data"
echo '#cloud-config' > "$work/user-data"
git -C "$work" add -A && git -C "$work" commit -qm seed
ok "a cloud-init seed" image "$tmp/seed.img" "gitfs($work/.git, rev=seed, label=CIDATA)"
is_seed() { mlabel -s -i "$tmp/seed.img" | grep -q CIDATA && [ "$(mtype -i "$tmp/seed.img" ::/meta-data)" = 'instance-id: web1' ]; }
ok "... has its label and files" is_seed
git -C "$work" switch -q main

# --- Wrong use -------------------------------------------------------------------------
ok "no repository" no "gitfs: $work: it is no git repository; if .* name its folder .git" "gitfs:$work"
ok "no folder" no 'No such file' "gitfs:$tmp/nowhere"
ok "no such revision" no "gitfs: .*: nowhere: rev: .*nowhere" "gitfs:$big?rev=nowhere"
ok "no such path" no "docs/none: the path: " "gitfs($work/.git, rev=main:docs/none)"
ok "a file as path" no 'README.md is no folder' "gitfs($work/.git, rev=main:README.md)"
ok "a label that is none" no 'label: "a+b"' "gitfs($work/.git, label=a+b)"
ok "a label that is too long" no 'label: "ABCDEFGHIJKL"' "gitfs($work/.git, label=ABCDEFGHIJKL)"
ok "it is never written to" no 'gitfs: is read-only, but stands where it is written to' \
	"cow($tmp/seed.img, gitfs($big))"

# --- Hostile repositories -----------------------------------------------------------------
evil=$tmp/bad.git
blob=$(echo x | git -C "$work" hash-object -w --stdin)
bytes() { sed 's/../\\x&/g' <<< "$1"; }
# tree MODE NAME ID ...: an object of exactly that.
tree()
{
	while [ $# -gt 0 ]; do
		# shellcheck disable=SC2059
		printf "%s %b\\0$(bytes "$3")" "$1" "$2"
		shift 3
	done | git -C "$evil" hash-object -t tree --literally -w --stdin
}
git clone -q --bare "file://$work" "$evil"
blob=$(echo x | git -C "$evil" hash-object -w --stdin)
hostile() { local t; t=$(tree 40000 d "$(tree "${@:2}")") && no "$1" "gitfs($evil, rev=$t)"; }
ok "the helper makes good trees" image "$tmp/good.img" \
	"gitfs($evil, rev=$(tree 100644 good "$blob"))"
for name in .. . .git .GIT a/b ''; do
	ok "a name \"$name\"" hostile '/d: its tree has .*name' 100644 "$name" "$blob"
done
ok "a mode that is none" hostile 'its tree has a mode' 777777 a "$blob"
ok "not sorted" hostile 'not sorted' 100644 b "$blob" 100644 a "$blob"
ok "twice" hostile 'not sorted, or twice' 100644 a "$blob" 100644 a "$blob"
ok "256 characters, before all else is looked at" \
	hostile 'nnn: the name has more than 255' \
	100644 "$(printf 'n%.0s' {1..256})" "$blob" \
	100644 z 1234567890123456789012345678901234567890
ok "a folder that is a file" hostile '/d/a: its tree is damaged' 40000 a "$blob"
ok "a file that is a folder" hostile '/d/a: object .* is damaged' \
	100644 a "$(tree 100644 x "$blob")"
ok "an object that is not there" hostile '/d/a: object 1234.* is not in the repo' \
	100644 a 1234567890123456789012345678901234567890
t=$(tree 100644 x "$blob")
for _ in {1..140}; do t=$(tree 40000 d "$t"); done
ok "140 folders deep" no '/d/d.*: folders are more than 128 deep' "gitfs($evil, rev=$t)"
t=$blob
mode=100644
for _ in {1..7}; do
	t=$(tree $mode 0 "$t" $mode 1 "$t" $mode 2 "$t" $mode 3 "$t" $mode 4 "$t" \
		$mode 5 "$t" $mode 6 "$t" $mode 7 "$t" $mode 8 "$t" $mode 9 "$t")
	mode=40000
done
ok "ten million files of eight objects" no 'more than 1000000 files' "gitfs($evil, rev=$t)"
crowd=$(awk -v id="$blob" 'BEGIN { for (i = 0; i < 70000; i++)
	printf "100644 blob %s\t%05d\n", id, i }' | git -C "$evil" mktree)
ok "70,000 files in a folder" no '/: 700.. names are more than FAT has room for' \
	"gitfs($evil, rev=$crowd)"

# endless N: a file whose first byte comes after N empty blocks of deflate.
endless()
{
	mkdir -p "$evil/objects/ee"
	perl -e 'print "\x78\x01", "\0\0\0\xff\xff" x $ARGV[0],
		"\1\x08\0\xf7\xffblob 1\0x\x0c\x1b\x02\x69"' "$1" \
		> "$evil/objects/ee/$(printf 'e%.0s' {1..38})"
	image "$tmp/good.img" "gitfs($evil, rev=$(tree 100644 endless "$(printf 'e%.0s' {1..40})"))"
}
ok "a few blocks of nothing" endless 10
ok "nothing but such blocks" fails 1 '/endless: object ee.* is damaged' endless 100000

# sparse NAME BYTES: an index of no objects, and much behind it.
sparse()
{
	printf '\377tOc\0\0\0\2' > "$1"
	truncate -s "$2" "$1"
	printf 'PACK\0\0\0\2\0\0\0\0%020d' 0 > "${1%.idx}.pack"
}
sparse "$evil/objects/pack/pack-0.idx" 1072
ok "an index of nothing" image "$tmp/good.img" "gitfs($evil, rev=main)"
sparse "$evil/objects/pack/pack-0.idx" 900M
ok "... and of nothing but its size" no 'pack-0.idx: it is longer than its tables' \
	"gitfs($evil, rev=main)"
rm "$evil"/objects/pack/pack-0.*
mkdir -p "$evil/objects/info"
echo "$big/objects" > "$evil/objects/info/alternates"
ok "objects of another repository" no 'borrows objects' "gitfs($evil, rev=main)"
rm "$evil/objects/info/alternates"
echo "$big" > "$evil/commondir"
ok "a working tree of another" no 'name that one' "gitfs($evil, rev=main)"
rm "$evil/commondir"
mkfifo "$evil/packed-refs.fifo"
mv "$evil/packed-refs" "$tmp/packed-refs"
mv "$evil/packed-refs.fifo" "$evil/packed-refs"
ok "refs that never end" no 'packed-refs is no plain file' "gitfs($evil, rev=main)"
mv "$tmp/packed-refs" "$evil/packed-refs"
cp "$evil/config" "$tmp/config"
printf '[include]\npath = ../pipe\n' >> "$evil/config"
mkfifo "$tmp/pipe"
ok "settings that never end" no "$evil/config includes .*/pipe, which is no plain file" \
	"gitfs($evil, rev=main)"
rm "$tmp/pipe"
ok "settings that are not there" image "$tmp/good.img" "gitfs($evil, rev=main)"
mv "$tmp/config" "$evil/config"
part=objects/${blob:0:2}
mv "$evil/$part" "$tmp/part"
ln -s "$tmp/part" "$evil/$part"
ok "some objects elsewhere" no "$part is no plain file" \
	"gitfs($evil, rev=$(tree 100644 linked "$blob"))"
rm "$evil/$part"
mv "$tmp/part" "$evil/$part"
mv "$evil/objects" "$tmp/objects"
ln -s "$tmp/objects" "$evil/objects"
ok "objects elsewhere" no 'objects is no plain file' "gitfs($evil, rev=main)"
rm "$evil/objects"
mv "$tmp/objects" "$evil/objects"
if [ "$(id -u)" = 0 ]; then
	chown 12345 "$evil"
	ok "of another owner" no 'belongs to another user, .*git config --system --add safe.directory' "gitfs($evil, rev=main)"
	chown 0 "$evil"
	mkdir "$tmp/theirs"
	chown 12345 "$tmp/theirs"
	ok "no repository of another owner" no 'it is no git repository' "gitfs:$tmp/theirs"
fi

# Damage at many places of index and pack: a sentence, or an error of the disk,
# and never more than that.
damage()
{
	local pack size i rc
	git -C "$evil" repack -adq
	pack=$(echo "$evil"/objects/pack/pack-*."$1")
	cp "$pack" "$tmp/intact"
	size=$(stat -c %s "$tmp/intact")
	for i in {1..12}; do
		chmod u+w "$pack"
		cp "$tmp/intact" "$pack"
		printf '\xa5\x5a\xff' | dd of="$pack" bs=1 conv=notrunc status=none \
			seek=$((size * i / 13))
		rc=0
		image "$tmp/damaged.img" "gitfs($evil, rev=main)" \
			> "$tmp/err" 2>&1 || rc=$?
		[ $rc -le 1 ] || { echo "status $rc"; cat "$tmp/err"; return 1; }
		[ $rc = 0 ] || echo seen >> "$tmp/seen.$1"
	done
	truncate -s $((size / 2)) "$pack"
	fails 1 . image "$tmp/damaged.img" "gitfs($evil, rev=main)" || return
	cp "$tmp/intact" "$pack"
}
ok "a damaged index" damage idx
ok "a damaged pack" damage pack
ok "... which was noticed" test -s "$tmp/seen.pack"
ok "... and mended" image "$tmp/damaged.img" "gitfs($evil, rev=main)"
ok "... is what it was" cmp "$tmp/damaged.img" "$tmp/work.img"

# --- A guest -------------------------------------------------------------------------------
command -v xenstore-exists > /dev/null || exit
sim_start
daemon_start
dom=$(domain)
size=$(stat -c %s "$tmp/big.img")
reads() { guest "$dom" xvdb read 0 "$size" > "$tmp/read" && cmp "$tmp/read" "$1"; }
worker_of()
{
	xendisk --json show "$dom" xvdb |
		sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p' | head -1
}
ok "attach" toolstack attach "$dom" xvdb "gitfs:$big?rev=main"
ok "a guest reads what fsck.fat and mtools have seen" reads "$tmp/big.img"
ok "show names the commit" says "$(git -C "$big" rev-parse main)" xendisk show "$dom" xvdb
commit_is() { [ "$(xenstore-read "/local/domain/0/backend/vbd/$dom/51728/xendisk-commit")" = "$1" ]; }
ok "and so does xenstore, to the guest" \
	eventually 10 commit_is "$(git -C "$big" rev-parse main)"
old=$(worker_of)
was=$(git -C "$big" rev-parse main)
git -C "$big" update-ref refs/heads/main main~1
kill -9 "$old"
another() { local now; now=$(worker_of); [ "${now:-0}" -gt 1 ] && [ "$now" != "$old" ]; }
ok "the branch moves, the worker dies; there is another" eventually 20 another
ok "... with the commit that was attached" reads "$tmp/big.img"
ok "detach" toolstack detach "$dom" xvdb
ok "attach again: what the branch is now" toolstack attach "$dom" xvdb "gitfs:$big?rev=main"
ok "... which the guest can tell" \
	eventually 10 commit_is "$(git -C "$big" rev-parse main)"
ok "... and was another before" test "$was" != "$(git -C "$big" rev-parse main)"
ok "... is another disk" fails 1 '' reads "$tmp/big.img"
ok "detach" toolstack detach "$dom" xvdb
ok "a hostile one is refused by name" fails 1 '70001 names are more than' \
	toolstack attach "$dom" xvdb "gitfs:$evil?rev=$crowd"
