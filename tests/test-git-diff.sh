#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317 # called by ok
# xendisk git diff: the files that are others, on ext4 and FAT, in partitions, in what
# a guest that runs has left in the journal, and on disks of somebody hostile.
room=$(df --output=avail /dev/shm 2>/dev/null | tail -1)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 1000000 ]; then
	export TMPDIR=/dev/shm
fi
. "$(dirname "$0")/functions.sh"
PATH=$PATH:/usr/sbin:/sbin
git_tool=$top_builddir/xendisk-git
[ -x "$git_tool" ] || skip_all "built without libgit2"
requires git perl mkfs.ext4 debugfs mkfs.fat mcopy
export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 LC_ALL=C.UTF-8 MTOOLS_SKIP_CHECK=1
git config --global core.fsync none
xgit() { timeout 120 "$git_tool" "$@"; }
repo=$tmp/r.git
xgit init "$repo"
git -C "$repo" config core.fsync none

# disk NAME FILE: the file is that disk, from the beginning.
disk()
{
	git -C "$repo" update-ref -d "refs/heads/$1" 2> /dev/null
	xgit import "$repo" "$1" "$2" > /dev/null
}
# files A B TEXT: what has become of the files.
files()
{
	diff <(xgit diff --files "$repo" "$1" "$2" 2>&1 | sort) <(printf '%s\n' "$3" | sort)
}
nothing() { [ -z "$(xgit diff --files "$repo" "$1" "$2" 2>&1)" ]; }

tree=$tmp/tree
mkdir -p "$tree"/{etc,usr/bin,keep/deep,moved,empty}
echo one > "$tree/etc/one"
seq 1 20000 > "$tree/etc/big"
echo x > "$tree/usr/bin/x"
ln -s /etc/one "$tree/link"
ln -s "/$(printf '%0100d' 1)" "$tree/long-link"
echo gone > "$tree/gone"
echo in > "$tree/moved/in"
seq 5 50000 > "$tree/old"
: > "$tree/nothing"
for ((i = 0; i < 200; i++)); do echo $i > "$tree/keep/f$i"; done
echo two > "$tmp/two"
# Begins as a block of the journal does.
{ printf '\xc0\x3b\x39\x98'; tail -c +5 "$tree/etc/big"; } > "$tmp/big"

# change IMAGE: by debugfs.
change()
{
	debugfs -w "$1" -f - > "$tmp/debugfs" 2>&1 <<-END
		write $tmp/two new
		rm gone
		rm etc/big
		write $tmp/big etc/big
		ln old usr/renamed
		unlink old
		ln moved usr/dir
		unlink moved
		rm link
		symlink link /etc/two
		rm long-link
		symlink long-link /$(printf '%0100d' 2)
		set_inode_field usr/bin/x mode 0100755
		set_inode_field etc/one uid 7
		mkdir usr/folder
		write $tmp/two usr/folder/\\é
	END
}
changes='content  /link
content  /long-link
content  /etc/big
added    /new
added    /usr/folder/
added    /usr/folder/\x5cé
owner    /etc/one  0:0 -> 7:0
renamed  /moved -> /usr/dir/
renamed  /old -> /usr/renamed
mode     /usr/bin/x  100644 -> 100755
removed  /gone'

# --- ext4 --------------------------------------------------------------------------
# ext OPTION...: before.img and after.img are disks a and b.
ext()
{
	rm -f "$tmp/before.img"
	truncate -s 16M "$tmp/before.img"
	mkfs.ext4 -q -F -E root_owner=0:0 -d "$tree" "$@" "$tmp/before.img" &&
		debugfs -w -R "set_inode_field etc/one uid 0" "$tmp/before.img" 2> /dev/null &&
		debugfs -w -R "set_inode_field etc/one gid 0" "$tmp/before.img" 2> /dev/null &&
		cp "$tmp/before.img" "$tmp/after.img" && change "$tmp/after.img" &&
		disk a "$tmp/before.img" && disk b "$tmp/after.img"
}
if [ -n "$(xgit diff --files "$repo" a b 2>&1 | grep libext2fs)" ]; then
	skip_all "built without libext2fs"
fi
for options in "-t ext2" "-O inline_data -b 4096" "-O ^64bit,^metadata_csum" "-b 1024"; do
	# shellcheck disable=SC2086
	ok "mkfs.ext4 $options" ext $options
	ok "... what has become of the files" files a b "ext4:
$changes"
	ok "... of the same one: nothing" nothing b b
done
# A file with many names is read once: all the disk has is enough for that.
mkdir "$tmp/links"
seq 500000 > "$tmp/links/a"
for ((i = 0; i < 12; i++)); do ln "$tmp/links/a" "$tmp/links/a$i"; done
# links NAME BLOCK: with blocks of that size, so that all lies elsewhere.
links()
{
	rm -f "$tmp/links.img"
	truncate -s 16M "$tmp/links.img"
	mkfs.ext4 -q -F -b "$2" -d "$tmp/links" "$tmp/links.img" && disk "$1" "$tmp/links.img"
}
ok "a file with many names" links links1 1024
ok "... at another place" links links2 4096
ok "... is the same" nothing links1 links2
# No more memory than that: it is said, and is no list.
little() { XENDISK_DIFF_MEMORY=100000 xgit diff --files "$repo" a b; }
if little 2>&1 | grep -q '^added '; then
	skipped "a limit on memory" "built with a sanitizer"
else
	ok "a limit on memory" fails 1 'memory' little
fi
ok "the other way" says "^renamed  /usr/dir -> /moved/" xgit diff "$repo" b a
ok "... beside the bytes" says "^ *1024 *[0-9]*$" xgit diff "$repo" b a
ok "--bytes: no files" eval '! xgit diff --bytes "$repo" a b | grep -q [a-z]'
ok "--files: no bytes" eval '! xgit diff --files "$repo" a b | grep -q "^ "'
ok "not both" fails 2 "git diff: --bytes or --files" xgit diff --bytes --files "$repo" a b
json() { xgit diff --json --files "$repo" a b | tr -d ' \n'; }
ok "--json: a file system" says '"files":\[{"partition":0,"type":"ext4","changes":\[' json
ok "... one that was renamed" \
	says '{"path":"/usr/renamed","kind":"file","from":"/old","what":\["renamed"\]}' json
ok "... another mode" \
	says '{"path":"/usr/bin/x","kind":"file","mode":\["100644","100755"\],"what":\["mode"\]}' json
ok "... the bytes" says '"ranges"' xgit diff --json "$repo" a b

# A file's blocks without its inode: what is written in place.
in_place()
{
	cp "$tmp/before.img" "$tmp/place.img" &&
		perl -e 'open(F, "+<", $ARGV[0]); binmode F; local $/; $_ = <F>;
			my $at = index($_, "19998\n19999\n"); die if $at < 0;
			seek(F, $at, 0); print F "x"' "$tmp/place.img" &&
		disk c "$tmp/place.img" && files a c $'ext4:\ncontent  /etc/big'
}
ok "a byte of a file, and nothing else" in_place

# --- The journal -------------------------------------------------------------------
# journal OPTION COMMAND...: before.img, and what makes after.img of it in the journal.
journal()
{
	cp "$tmp/before.img" "$tmp/journal.img"
	BLOCK=$(dumpe2fs -h "$tmp/before.img" 2> /dev/null | sed -n 's/^Block size: *//p') perl -e '
		my $n = $ENV{BLOCK};
		sub read_file { local $/; open(F, "<", $_[0]); binmode F; return <F>; }
		my ($a, $b) = map { read_file($_) } @ARGV[0, 1];
		my @blocks = grep { substr($a, $_ * $n, $n) ne substr($b, $_ * $n, $n) }
			0 .. length($a) / $n - 1;
		open(D, ">", $ARGV[2]); binmode D;
		print D substr($b, $_ * $n, $n) for @blocks;
		print join(",", @blocks);' "$tmp/before.img" "$tmp/after.img" "$tmp/blocks" > "$tmp/list"
	{
		echo "journal_open $1"
		echo "journal_write -b $(cat "$tmp/list") $tmp/blocks"
		[ $# -lt 2 ] || echo "journal_write ${*:2}"
		echo "journal_close"
	} > "$tmp/commands"
	debugfs -w -f "$tmp/commands" "$tmp/journal.img" > /dev/null 2>&1 && disk j "$tmp/journal.img"
}
for options in "-O ^64bit,^metadata_csum" "-b 1024"; do
	for checksum in "" -c "-v 2" "-v 3"; do
		# shellcheck disable=SC2086
		ok "mkfs.ext4 $options, all in the journal ($checksum)" \
			eval 'ext $options && journal "$checksum"'
		ok "... is what counts" files a j "ext4:
$changes"
		ok "... as it will be" nothing b j
	done
done
revoked() { journal "" -r "$(cat "$tmp/list")" && nothing a j; }
ok "... it is as before" revoked
unfinished()
{
	# The block that commits it is overwritten.
	perl -e 'open(F, "+<", $ARGV[0]); binmode F; local $/; $_ = <F>; my $at = -1;
		while (/\xc0\x3b\x39\x98\x00\x00\x00\x02/g) { $at = $-[0] }
		die if $at < 0; seek(F, $at, 0); print F "\0" x 512' "$tmp/journal.img" &&
		disk j "$tmp/journal.img" && nothing a j
}
ok "one that was not finished" eval 'journal "" && unfinished'
# What libext2fs opens in the end is the superblock in the journal.
large_super()
{
	ext -O ^64bit,^metadata_csum && cp "$tmp/before.img" "$tmp/after.img" &&
		perl -e 'open(F, "+<", $ARGV[0]); binmode F; seek(F, 1028, 0);
			print F "\xff" x 4' "$tmp/after.img" && journal ""
}
ok "a superblock in it that cannot be" large_super
ok "... is refused" says "it cannot be read: 4294967295 blocks, which is more" xgit diff "$repo" a j

# --- FAT, partitions -----------------------------------------------------------------
# fat KIND: 12, 16 or 32; one that is mounted, as Linux says it.
declare -A fat_size=([12]=2M [16]=8M [32]=40M) fat_dirty=([12]=37 [16]=37 [32]=65)
fat()
{
	rm -f "$tmp/before.img"
	truncate -s "${fat_size[$1]}" "$tmp/before.img"
	mkfs.fat -F "$1" -s 1 "$tmp/before.img" > /dev/null &&
		mcopy -s -i "$tmp/before.img" "$tree"/{etc,usr,keep,gone,old,moved} :: &&
		cp "$tmp/before.img" "$tmp/after.img" &&
		mdel -i "$tmp/after.img" ::gone &&
		mcopy -o -i "$tmp/after.img" "$tmp/big" ::etc/big &&
		mcopy -i "$tmp/after.img" "$tmp/two" "::new file" &&
		mmd -i "$tmp/after.img" ::newdir &&
		mmove -i "$tmp/after.img" ::old ::newdir/old &&
		mren -i "$tmp/after.img" ::moved ::there &&
		perl -e 'open(F, "+<", $ARGV[0]); binmode F; seek(F, $ARGV[1], 0); print F "\1"' "$tmp/after.img" "${fat_dirty[$1]}" &&
		disk a "$tmp/before.img" && disk b "$tmp/after.img"
}
fat_changes='content  /etc/big
added    /new file
added    /newdir/
renamed  /moved -> /there/
renamed  /old -> /newdir/old
removed  /gone'
for kind in 12 16 32; do
	ok "FAT$kind, that is mounted" fat $kind
	ok "... what has become of the files" files a b "FAT$kind:
$fat_changes"
	ok "... of the same one: nothing" nothing a a
done
# no_longer KIND TO: where there was that kind of FAT there is another.
no_longer()
{
	cp "$tmp/before.img" "$tmp/other.img" && fat "$1" && disk o "$tmp/other.img" &&
		xgit diff --files "$repo" a o > "$tmp/lines" && grep -qx "FAT$1:" "$tmp/lines" &&
		grep -qx "removed  /gone" "$tmp/lines" && grep -qx "added    /gone" "$tmp/lines"
}
ok "a FAT16 in the place of a FAT32: all is new" no_longer 16
# The text in the boot sector is for people.
text_only()
{
	perl -e 'my $s = "\0" x 512; substr($s, 0, 3) = "\xeb\x3c\x90"; substr($s, 54, 8) = "FAT16   ";
		substr($s, 510, 2) = "\x55\xaa"; print $s, "\0" x 1048064' > "$tmp/text.img" &&
		disk t "$tmp/text.img" && nothing t t && ! xgit diff --files "$repo" t a 2>&1 | grep -q "before:"
}
ok "the text FAT16, and nothing else, is none" text_only
other_text()
{
	perl -e 'open(F, "+<", $ARGV[0]); binmode F; seek(F, 54, 0); print F "FAT12   "' "$tmp/after.img" &&
		disk b "$tmp/after.img" && files a b "FAT16:
$fat_changes"
}
ok "... and another one makes no difference" other_text
long_root()
{
	perl -e 'open(F, "+<", $ARGV[0]); binmode F; seek(F, 17, 0); print F "\xf1\xff"' "$tmp/after.img" &&
		disk b "$tmp/after.img" && ! xgit diff --files "$repo" b b 2>&1 | grep .
}
ok "... a root folder that cannot be: no FAT" long_root
# parts KIND FROM TO: an ext2 in partition 2, from before or after; a FAT in 3.
parts()
{
	truncate -s 80M "$3" && perl -e '
		my ($kind, $to) = @ARGV; open(F, "+<", $to); binmode F;
		my @parts = ([4096, 32768], [40960, 81920]);
		sub entry { pack("C8 V V", 0, 0, 0, 0, $_[0], 0, 0, 0, $_[1], $_[2]) }
		my $mbr = "\0" x 446;
		if ($kind eq "gpt") {
			$mbr .= entry(0xee, 1, 163839) . "\0" x 48 . "\x55\xaa";
			seek(F, 512, 0);
			print F "EFI PART" . "\0" x 64 . pack("Q< V V", 2, 128, 128);
			seek(F, 1024 + 128, 0);
			print F "x" x 32, pack("Q< Q<", $$_[0], $$_[0] + $$_[1] - 1), "\0" x 80 for @parts;
		} else {
			$mbr .= "\0" x 16 . entry(0x83, @{$parts[0]}) . entry(0xc, @{$parts[1]}) .
				"\0" x 16 . "\x55\xaa";
		}
		seek(F, 0, 0); print F $mbr;' "$1" "$3" &&
		dd if="$tmp/ext.$2" of="$3" bs=512 seek=4096 conv=notrunc status=none &&
		dd if="$tmp/fat.$2" of="$3" bs=512 seek=40960 conv=notrunc status=none
}
both()
{
	fat 32 && mv "$tmp/before.img" "$tmp/fat.before" && mv "$tmp/after.img" "$tmp/fat.after" &&
		ext -t ext2 && mv "$tmp/before.img" "$tmp/ext.before" && mv "$tmp/after.img" "$tmp/ext.after"
}
ok "an ext2 and a FAT" both
for kind in mbr gpt; do
	parted()
	{
		parts $kind before "$tmp/one.img" && parts $kind after "$tmp/two.img" &&
			disk a "$tmp/one.img" && disk b "$tmp/two.img"
	}
	ok "in partitions: $kind" parted
	ok "... both are compared" files a b "partition 2, ext4:
$changes
partition 3, FAT32:
$fat_changes"
done
truncate -s 80M "$tmp/empty.img"
disk z "$tmp/empty.img"
ok "where there was nothing all is new" says "^added    /there/in" xgit diff "$repo" z b
ok "... and nothing was removed" eval '! xgit diff "$repo" z b | grep -q removed'
other() { cp "$tmp/two.img" "$tmp/other.img" && dd if="$tmp/fat.before" of="$tmp/other.img" bs=512 seek=4096 count=20 conv=notrunc status=none && disk o "$tmp/other.img"; }
ok "another file system in its place, that is broken" other
ok "... what was there is gone" says "^removed  /etc/one" xgit diff "$repo" b o
ok "... the other one cannot be read" says "git diff: partition 2, FAT32: .*after: it cannot be read" \
	xgit diff "$repo" b o
ok "... --json: the same" says '"error": "after: it cannot be read' xgit diff --json "$repo" b o

# --- Hostile -------------------------------------------------------------------------
# mutants IMAGE SEED...: none may end the reader, or keep it for long.
mutants()
{
	local image=$1 seed out rc read=0
	for seed in "${@:2}"; do
		cp "$image" "$tmp/mutant.img"
		perl -e 'my ($file, $seed) = @ARGV; srand($seed);
			open(F, "+<", $file); binmode F; my $all = -s F;
			for (0 .. int(rand(12))) {
				my $at = rand() < 0.4 ? 1024 + rand(2048) : rand($all > 600000 ? 600000 : $all);
				seek(F, int($at), 0);
				print F rand() < 0.5 ? chr(int(rand(256))) :
					pack("V", (0, 1, 0xffffffff, 0x7fffffff, int(rand(1 << 14)))[int(rand(5))]);
			}' "$tmp/mutant.img" "$seed"
		disk m "$tmp/mutant.img" || { echo "import of mutant $seed"; return 1; }
		rc=0
		out=$(timeout 60 "$git_tool" diff --files "$repo" a m 2>&1) || rc=$?
		if [ $rc != 0 ] || grep -qE "signal|too early|Sanitizer" <<< "$out"; then
			echo "mutant $seed: status $rc"
			tail -20 <<< "$out"
			return 1
		fi
		grep -q "cannot be read" <<< "$out" || read=$((read + 1))
	done
	echo "$read of $(($# - 1)) could be read"
	[ $read -gt 0 ] && [ $read -lt $(($# - 1)) ]
}
mutated()
{
	local seeds
	mapfile -t seeds < <(seq "${XENDISK_MUTANTS:-10}")
	mutants "$1" "${seeds[@]}"
}
ext_mutants() { ext -b 1024 -O inline_data && mutated "$tmp/after.img"; }
journal_mutants() { ext -b 1024 && journal "" && disk a "$tmp/before.img" && mutated "$tmp/journal.img"; }
fat_mutants() { fat "$1" && mutated "$tmp/after.img"; }
ok "ext4 of somebody hostile" ext_mutants
ok "... with a journal" journal_mutants
for kind in 12 16 32; do
	ok "FAT$kind of somebody hostile" fat_mutants $kind
done
circle() { ext -b 1024 && debugfs -w -R "ln keep keep/deep/again" "$tmp/after.img" 2> /dev/null && disk b "$tmp/after.img"; }
ok "a folder in itself" circle
ok "... is refused" says "/keep/deep/again: inode [0-9]*: a folder that is in two" xgit diff "$repo" a b
# The name is cut in the middle of a character, and goes through JSON.
long_name()
{
	local name
	name=$(printf 'ä%.0s' {1..120})
	ext -b 1024 && debugfs -w -f - "$tmp/after.img" <<- END > "$tmp/debugfs" 2>&1 &&
		mkdir $name
		ln keep $name/again
	END
		disk b "$tmp/after.img"
}
ok "... in one with a long name" long_name
ok "... too, and that is what is said" says "it cannot be read: /.*: a folder that is in two" \
	xgit diff "$repo" a b
several_names()
{
	ext -b 1024 && debugfs -w -f - "$tmp/before.img" <<- END > "$tmp/debugfs" 2>&1 &&
		ln nothing one
		ln nothing two
		ln nothing three
	END
		cp "$tmp/before.img" "$tmp/after.img" &&
		debugfs -w -f - "$tmp/after.img" <<- END > "$tmp/debugfs" 2>&1 &&
			unlink one
			unlink two
			unlink three
			ln nothing 1
			ln nothing 2
			ln nothing 3
			ln nothing 4
		END
		disk a "$tmp/before.img" && disk b "$tmp/after.img"
}
ok "a file with several names" several_names
names() { xgit diff --files "$repo" a b | grep -c "^$1"; }
ok "... each that is gone is another one now" says '^3$' names renamed
ok "... and one is new" says '^1$' names added
