#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317 # called by ok
# xendisk git: what its verbs make is what git says it is, and the other way round;
# what somebody hostile puts into a repository gets a sentence.
room=$(df --output=avail /dev/shm 2>/dev/null | tail -1)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 1000000 ]; then
	export TMPDIR=/dev/shm
fi
. "$(dirname "$0")/functions.sh"
[ -x "$top_builddir/xendisk-git" ] || skip_all "built without libgit2"
requires git perl pgrep

# Nobody's settings.
export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 LC_ALL=C.UTF-8 TZ=UTC
git config --global init.defaultBranch main
git config --global core.fsync none
xgit() { timeout 120 "$top_builddir/xendisk" git "$@"; }

# --- The tables ------------------------------------------------------------------
page=$top_srcdir/man/xendisk-git.7.pod
options() { grep -oE -- '--[a-z][a-z-]*' | sort -u; }
same() { diff <(printf '%s\n' "$1") <(printf '%s\n' "$2"); }
verbs() { xgit --help | sed -n 's/^  \([a-z]\+\) .*/\1/p' | sort; }
help_options()
{
	local v
	for v in $(verbs); do xgit "$v" --help; done | options
}
ok "the verbs are those of the page" same "$(verbs)" \
	"$(sed -n 's/^=head2 \([a-z]*\) [A-Z].*/\1/p' "$page" | sort)"
ok "... and the options" same "$(help_options)" \
	"$(grep -E '^=item ' "$page" | options)"
ok "no verb" fails 2 "git: which verb" xgit
ok "a verb that is none" fails 2 "git: nothing: there is no such verb" xgit nothing
ok "an option that is none" fails 2 "git log: --some: there is no such option" \
	xgit log --some a b
ok "too few arguments" fails 2 "git log: usage: xendisk git log REPO DISK" xgit log a
ok "... and what else must be there" \
	fails 2 "usage: xendisk git create REPO DISK --size SIZE \[OPTION\]" xgit create a
complete() { [ "$("$top_builddir/xendisk" complete -- "${@:2}" | tr '\n' ' ')" = "$1 " ]; }
ok "completion: verbs" complete "doctor" git doc
ok "completion: options" complete "--output" git export r d --o
ok "completion: json before" complete "log" --json git l

# --- init ------------------------------------------------------------------------
ok "init" xgit init "$tmp/new.git"
ok "... once" fails 5 "the folder is not empty" xgit init "$tmp/new.git"
touch "$tmp/file"
ok "... not over a file" fails 5 "it is there already" xgit init "$tmp/file"
ok "... not where nothing is" fails 4 "No such file" xgit init "$tmp/no/where.git"
bare() { [ "$(git -C "$1" rev-parse --is-bare-repository)" = true ] && [ -z "$(find "$1/hooks" -type f ! -name "*.sample")" ]; }
ok "... a bare repository, without hooks" bare "$tmp/new.git"
ok "doctor: all is well" says "all is well" xgit doctor "$tmp/new.git"

# --- Disks that git has made -------------------------------------------------------
# disk SIZE CHUNK CHUNKS...: a commit for fast-import; the last chunk is short.
size=$((16 * 65536 + 512))
generate()
{
	SIZE=$size perl -e '
	srand(5);
	open(my $image, "+>", $ARGV[0]) or die;
	truncate($image, $ENV{SIZE}) or die;
	sub data { my $d = shift; return "data " . length($d) . "\n$d\n"; }
	for my $mark (1, 2, 3) {
		print "commit refs/heads/web\nmark :$mark\n",
			"committer a b <a\@example.org> ", 1700000000 + $mark, " +0000\n",
			data("snapshot $mark\n\nXendisk-Consistency: crash\nXendisk-Dirty-Bytes: " . 65536 * $mark . "\n");
		print "M 100644 inline disk\n", data("xendisk-git 1\nsize $ENV{SIZE}\nsector 512\n" .
			"chunk 65536\nlevels 3\nfeatures -\n");
		for my $chunk ($mark, 7, 16) {
			my $bytes = $chunk == 16 ? 512 : 65536;
			my $text = $chunk == 7 ? "x" x $bytes . "$mark" :
				join("", map { chr(int(rand(256))) } 1 .. $bytes);
			$text = substr($text, -$bytes);
			printf "M 100644 inline data/00/00/%02x\n", $chunk;
			print data($text);
			seek($image, $chunk * 65536, 0); print $image $text;
		}
	}
	close($image);' "$tmp/model.img" | git -C "$1" fast-import --quiet
}
repo=$tmp/plain.git
git init -q --bare "$repo"
generate "$repo" || exit 1
export_of() { rm -f "$tmp/out.img"; xgit export "$1" "$2" -o "$tmp/out.img"; }
is_model() { export_of "$1" "$2" && cmp "$tmp/out.img" "$tmp/model.img"; }
ok "export: what git was given" is_model "$repo" web
is_sparse() { [ $(($(stat -c %b "$tmp/out.img") * 512)) -lt $((7 * 65536 + 65536)) ]; }
ok "... with holes" is_sparse
differs() { export_of "$repo" "$1" && ! cmp "$tmp/out.img" "$tmp/model.img"; }
ok "... an older commit is another disk" differs web~1
ok "... by its id" differs "$(git -C "$repo" rev-parse web~2)"
loose() { git clone -q --bare "file://$repo" "$tmp/loose.git" && mv "$tmp/loose.git/objects/pack" "$tmp/packs" &&
	mkdir "$tmp/loose.git/objects/pack" && for p in "$tmp"/packs/*.pack; do git -C "$tmp/loose.git" unpack-objects -q < "$p"; done; }
ok "a clone, unpacked" loose
ok "... is the same disk" is_model "$tmp/loose.git" web
git -C "$tmp/loose.git" -c core.bigFileThreshold=1g gc -q --aggressive
has_deltas() { git -C "$1" verify-pack -v "$1"/objects/pack/*.idx | awk 'NF == 7 { n++ } END { exit n < 1 }'; }
ok "... packed as changes" has_deltas "$tmp/loose.git"
ok "... is the same disk" is_model "$tmp/loose.git" web
ok "export: not over a file" fails 5 "it is there.*\|File exists; --force" \
	xgit export "$repo" web -o "$tmp/out.img"
echo x > "$tmp/out.img"
forced() { xgit export "$repo" web -o "$tmp/out.img" --force && cmp "$tmp/out.img" "$tmp/model.img"; }
ok "... but with --force" forced
# What somebody has: not even then.
touch "$tmp/none.conf"
over=("$top_builddir/xendisk" git export "$repo" web~1 --force -o)
kept() { fails 5 "it is in use: $1" "${@:2}" && cmp "$tmp/out.img" "$tmp/model.img"; }
disk()
{
	timeout 120 "$top_builddir/xendisk" serve --config "$tmp/none.conf" \
		--backend-dir "$top_builddir/backends/.libs" "$1" --run "${*:2}"
}
ok "export --force: a disk's image" kept "another process" \
	disk "$tmp/out.img" "${over[@]}" "$tmp/out.img"
ok "... one that is only read" kept "another process" \
	disk "readonly($tmp/out.img)" "${over[@]}" "$tmp/out.img"
# of_qemu OPTION IMAGE COMMAND...: while QEMU has that image (-r: only reads it).
of_qemu()
{
	local pid rc=0
	qemu-io "$1" -f raw -c "sleep 60000" "$2" & pid=$!
	eventually 20 grep -q ":$(stat -c %i "$2") " /proc/locks && "${@:3}" || rc=1
	kill $pid
	return $rc
}
ok_of_qemu()
{
	if command -v qemu-io > /dev/null; then
		ok "... QEMU's" of_qemu "$@"
	else
		skipped "... QEMU's" "no qemu-io"
	fi
}
ok_of_qemu -r "$tmp/out.img" kept "another process" "${over[@]}" "$tmp/out.img"
cp "$tmp/model.img" "$tmp/device.img"
if loop=$(losetup -f --show "$tmp/device.img" 2> /dev/null); then
	claimed() { perl -e 'use Fcntl; sysopen(F, shift, O_RDWR | O_EXCL) or die; exit(system(@ARGV) >> 8)' "$loop" "$@"; }
	ok "... a device that is mounted" kept "it is mounted" claimed "${over[@]}" "$loop"
	ok "... nothing has come to it" cmp -n 1049088 "$loop" "$tmp/model.img"
	ok "... and any other is written" "${over[@]}" "$loop"
	ok "... with another commit" eval '! cmp -n 1049088 "$loop" "$tmp/model.img"'
	losetup -d "$loop"
else
	skipped "... a device that is mounted" "no loop device"
fi
ok "export: where to?" fails 2 "git export: -o FILE is missing" xgit export "$repo" web
ok "export: a revision that is none" fails 4 "git export: nothing: " \
	xgit export "$repo" nothing -o "$tmp/none.img"
ok "export: a repository that is none" fails 4 "git export: $tmp: it is no git repository; if it has files" \
	xgit export "$tmp" web -o "$tmp/none.img"
ok "... nothing is left of it" eval '! ls "$tmp/none.img"'
# It fails, and removes what it has made; but not what has taken its place.
replaced()
{
	local try pid
	for ((try = 0; try < 50; try++)); do
		rm -f "$tmp/none.img"
		echo mine > "$tmp/mine"
		"$top_builddir/xendisk-git" export "$repo" nothing -o "$tmp/none.img" 2> /dev/null & pid=$!
		until [ -e "$tmp/none.img" ] || is_gone $pid; do :; done
		kill -STOP $pid 2> /dev/null
		[ -e "$tmp/none.img" ] && mv "$tmp/mine" "$tmp/none.img"
		kill -CONT $pid 2> /dev/null
		wait $pid
		[ -e "$tmp/mine" ] || break # else it was too fast for us
	done
	[ -e "$tmp/mine" ] || grep -qx mine "$tmp/none.img"
}
ok "export: it fails, and somebody else's file is there by then" replaced
rm -f "$tmp/none.img"
ok "export: no folder" fails 4 "git export: $tmp/nowhere: " \
	xgit export "$tmp/nowhere" web -o "$tmp/none.img"
ok "... and no image" [ ! -e "$tmp/none.img" ]

# --- create, import, fork, diff -------------------------------------------------------
own=$tmp/new.git
git -C "$own" config core.fsync none
fsck() { local out; out=$(git -C "$own" fsck --strict --no-dangling --no-progress 2>&1) && ! grep -v 'notice: HEAD points to an unborn' <<< "$out" | grep .; }
of_size() { [ "$(git -C "$own" show "$1:disk" | tr '\n' ' ')" = "xendisk-git 1 size $2 sector 512 chunk $3 levels $4 features - " ]; }
prints_commit() { [ "$("${@:2}")" = "$(git -C "$own" rev-parse "$1")" ]; }
ok "create: prints the commit" prints_commit empty xgit create "$own" empty --size 1G -m "made by hand"
ok "... of that size" of_size empty 1073741824 65536 3
ok "... with that message" says "made by hand" git -C "$own" log -1 --format=%s empty
ok "create: chunks" xgit create "$own" large --size 5T --chunk 256K
ok "... in four levels" of_size large 5497558138880 262144 4
ok "create: once" fails 5 "git create: empty: it is there already" xgit create "$own" empty --size 1G
ok "create: a size" fails 2 "git create: --size is missing" xgit create "$own" other
ok "... that is one" fails 2 'git create: --size: "1x"' xgit create "$own" other --size 1x
ok "... of sectors" fails 2 "multiple of 512" xgit create "$own" other --size 1000
ok "create: chunks that are none" fails 2 "16K, 32K" xgit create "$own" other --size 1G --chunk 48K
ok "... far too large" fails 2 "git create: --chunk: 16K to 1M" xgit create "$own" other --size 1G --chunk 4294967296
ok "create: a name that is none" fails 2 "cannot be the name" xgit create "$own" a..b --size 1G
ok "... or an option's" fails 2 "cannot be the name" xgit create --size 1G -- "$own" -b
ok "import" prints_commit web xgit import "$own" web "$tmp/model.img"
same_chunks() { [ "$(git -C "$own" ls-tree -r web)" = "$(git -C "$repo" ls-tree -r web)" ]; }
ok "... the same objects as git made of it" same_chunks
ok "... back again" is_model "$own" web
ok "... of a clone" git clone -q --bare "file://$own" "$tmp/clone.git"
ok "... too" is_model "$tmp/clone.git" web
is_zero() { export_of "$own" empty && [ "$(stat -c '%s %b' "$tmp/out.img")" = "1073741824 0" ]; }
ok "an empty disk is a hole" is_zero
ok "git fsck has nothing to say" fsck
nothing_left() { [ -z "$(find "$own/objects" -type f ! -name '*.pack' ! -name '*.idx' ! -name '*.rev')" ]; }
ok "no loose objects, nothing kept" nothing_left
random()
{
	perl -e 'srand(9); open(F, "+>", $ARGV[0]); truncate(F, 300 << 20);
		for (1 .. 300) { seek(F, 512 * int(rand(600 << 10)), 0);
			print F rand(2) < 1 ? "text " x rand(9999) : pack("L*", map { rand(1 << 32) } 1 .. rand(20000)); }
		truncate(F, 300 << 20);' "$tmp/random.img"
}
random
for chunk in 16K 64K 1M; do
	ok "import: random, chunks of $chunk" xgit import "$own" "r$chunk" "$tmp/random.img" --chunk $chunk
	back() { export_of "$own" "r$chunk" && cmp "$tmp/out.img" "$tmp/random.img"; }
	ok "... is the same" back
done
ok "import: not compressed" xgit import "$own" stored "$tmp/random.img" --chunk 64K --compress none
ok "... is the same disk" [ "$(git -C "$own" rev-parse "stored^{tree}")" = "$(git -C "$own" rev-parse "r64K^{tree}")" ]
stored_only()
{
	xgit init "$tmp/stored.git" &&
		xgit import "$tmp/stored.git" a "$tmp/random.img" --chunk 64K --compress none >/dev/null &&
		git -C "$tmp/stored.git" cat-file --batch-all-objects --batch-check='%(objecttype) %(objectsize) %(objectsize:disk)' |
			awk '$1 == "blob" && $2 == 65536 { n++; bad += $3 < $2 } END { print n, bad; exit !n || bad }'
}
ok "... and its chunks are as they were" stored_only
ok "import: compressed otherwise" fails 2 'git import: --compress: "zstd": auto or none' \
	xgit import "$own" odd "$tmp/random.img" --compress zstd
ok "git fsck has nothing to say" fsck
# What is written meanwhile would be half in it.
live=$tmp/live.img
cp "$tmp/model.img" "$live"
in_use() { fails 5 "live.img: it is in use: another process" "$@"; }
ok "import: a disk's image" in_use disk "$live" "$top_builddir/xendisk" git import "$own" live "$live"
ok "... one that others share" in_use disk "raw($live, shared=yes)" \
	"$top_builddir/xendisk" git import "$own" live "$live"
ok_of_qemu --cache=writeback "$live" in_use xgit import "$own" live "$live"
ok "... but one that is only read" says "[0-9a-f]" disk "readonly($live)" \
	"$top_builddir/xendisk" git import "$own" live "$live"
ok "import: of 513 bytes" fails 1 "git import: .*odd.img: 513 bytes: a disk has a multiple" \
	eval 'truncate -s 513 "$tmp/odd.img" && xgit import "$own" odd "$tmp/odd.img"'
ok "import: a folder" fails 1 "neither a file nor" xgit import "$own" odd "$tmp"
ok "import: nothing" fails 4 "No such file" xgit import "$own" odd "$tmp/no.img"
ok "import: a format that is none" fails 2 'no format "tar"' \
	xgit import "$own" odd "$tmp/model.img" --format tar
if command -v qemu-img > /dev/null; then
	qemu-img convert -f raw -O qcow2 "$tmp/model.img" "$tmp/model.qcow2"
	ok "import: qcow2" xgit import "$own" qcow2 "$tmp/model.qcow2" --format qcow2
	ok "... is the same" is_model "$own" qcow2
	ok "... as raw it is another disk" xgit import "$own" raw "$tmp/model.qcow2"
	other() { ! is_model "$own" raw; }
	ok "... indeed" other
	qemu-img create -q -f qcow2 -b "$tmp/model.img" -F raw "$tmp/over.qcow2"
	ok "import: with a backing file" fails 5 "backing file" \
		xgit import "$own" over "$tmp/over.qcow2" --format qcow2
	printf '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2049 FLAT "model.img" 0\n' > "$tmp/flat.vmdk"
	ok "import: whose data is elsewhere" fails 1 "other files" \
		xgit import "$own" over "$tmp/flat.vmdk" --format vmdk
	mkfifo "$tmp/fifo.qcow2"
	ok "import: a FIFO" fails 1 "it is no file" \
		xgit import "$own" over "$tmp/fifo.qcow2" --format qcow2

	# Somebody who may write there waits until it has been looked at.
	mkdir "$tmp/slow"
	cat > "$tmp/slow/qemu-img" <<-END
		#!/bin/sh
		[ "\$1" != convert ] || { echo now >&2; sleep 0.5; }
		exec '$(command -v qemu-img)' "\$@"
	END
	chmod +x "$tmp/slow/qemu-img"
	# meanwhile DISK FORMAT COMMAND...: of the image $tmp/swap
	meanwhile()
	(
		set -o pipefail
		PATH=$tmp/slow:$PATH xgit import "$own" "$1" "$tmp/swap" --format "$2" 2>&1 |
			while read -r line; do
				echo "$line"
				[ "$line" != now ] || "${@:3}"
			done
	)
	cp "$tmp/model.qcow2" "$tmp/swap"
	qemu-img create -q -f qcow2 "$tmp/other.qcow2" 1M
	ok "import: another image takes its place" meanwhile swapped qcow2 mv "$tmp/other.qcow2" "$tmp/swap"
	ok "... too late" is_model "$own" swapped
	ok "... it did" eval '! [ -e "$tmp/other.qcow2" ]'
	qemu-img convert -f raw -O vmdk "$tmp/model.img" "$tmp/model.vmdk"
	cp "$tmp/model.vmdk" "$tmp/swap"
	ok "import: vmdk" meanwhile vmdk vmdk :
	ok "... is the same" is_model "$own" vmdk
	if perl -e 'exit(syscall(444, 0, 0, 1) < 1)'; then # Landlock
		sed "s,model.img,$tmp/model.img," "$tmp/flat.vmdk" > "$tmp/absolute.vmdk"
		ok "import: it names another file when it was looked at" \
			fails 1 "convert fails" meanwhile leaks vmdk cp "$tmp/absolute.vmdk" "$tmp/swap"
	else
		skipped "import: it names another file when it was looked at" "no Landlock"
	fi
else
	skipped "import: qcow2, vmdk" "qemu-img is not installed"
fi
ok "fork" prints_commit web xgit fork "$own" web web2
ok "... is the same disk" is_model "$own" web2
ok "... once" fails 5 "web2: it is there already" xgit fork "$own" web web2
ok "... of nothing" fails 4 "fork: nothing: there is no such revision" xgit fork "$own" nothing web3
ok "... of one that is near" fails 4 'no such revision; did you mean "web"?' xgit fork "$own" wbe web3
ok "diff: nothing" [ -z "$(xgit diff "$own" web web2)" ]
changed()
{
	cp "$tmp/model.img" "$tmp/changed.img" || return
	printf x | dd of="$tmp/changed.img" bs=1 seek=1000 conv=notrunc status=none
	printf xx | dd of="$tmp/changed.img" bs=1 seek=196607 conv=notrunc status=none
	truncate -s $((size + 65536)) "$tmp/changed.img"
	printf x | dd of="$tmp/changed.img" bs=1 seek=$((size + 512)) conv=notrunc status=none
	xgit import "$own" changed "$tmp/changed.img"
}
ok "another image" changed
diff_is() { [ "$(xgit diff "$own" "$1" "$2" | tr -s ' \n' ' ')" = "$3" ]; }
ok "diff: what was written" diff_is web changed \
	" 512 512 196096 1024 $((size + 512)) 512 size $((size + 65536)), was $size "
ok "... the other way" diff_is changed web \
	" 512 512 196096 1024 $((size + 512)) 512 size $size, was $((size + 65536)) "
ok "diff --json" says '"changed": 2048' xgit diff --json "$own" web changed
ok "diff: chunks of other sizes" fails 1 "different sizes" xgit diff "$own" r16K r64K

# --- log ---------------------------------------------------------------------------
head=$(git -C "$repo" rev-parse web)
lines() { [ "$(xgit log "$repo" web "${@:2}" | grep -c snapshot)" = "$1" ]; }
ok "log: three snapshots" lines 3
ok "... one of them" lines 1 -n 1
ok "... none of nothing" fails 2 "git log: --number" xgit log "$repo" web -n 0
newest() { xgit log "$repo" web | sed -n 2p; }
ok "... the newest first" says "^${head:0:12} 2023-11-14 22:13:23 *192K *crash snapshot 3" newest
git -C "$repo" update-ref refs/xendisk/auto/web/20231114T221322Z "$head~1"
git -C "$repo" update-ref refs/xendisk/diverged/web/20231114T221322Z "$head~2"
git -C "$repo" update-ref refs/xendisk/auto/webb/20231114T221322Z "$head~2"
json() { xgit log "$repo" web --json; }
count() { [ "$(json | grep -c "$1")" = "$2" ]; }
ok "log --json: also beside the branch" count '"commit": "[0-9a-f]\{40\}"' 5
ok "... of this disk only" count '"ref": "refs/xendisk/auto/web/20231114T221322Z"' 1
ok "... what trailers say" count '"dirty": 196608' 1
ok "... not as message" count 'Xendisk' 0
shallow() { git clone -q --bare --depth 2 --no-single-branch "file://$repo" "$tmp/shallow.git" && xgit log "$tmp/shallow.git" web | grep -c snapshot; }
ok "log: of a clone that has only two of them" says '^2$' shallow
ok "log: no such disk" fails 4 "git log: none: refs/heads/none" xgit log "$repo" none
ok "... one that is near" fails 4 'no such reference; did you mean "web"?' \
	xgit log "$repo" wbe
ok "log: no name" fails 2 "cannot be the name" xgit log "$repo" a..b
git -C "$repo" update-ref -d refs/xendisk/diverged/web/20231114T221322Z

# --- doctor ------------------------------------------------------------------------
ok "doctor: settings" fails 1 "core.bigFileThreshold: it is not set, not 32768 (--fix" \
	xgit doctor "$repo"
ok "... are mended" says "core.fsync: .* (mended)" xgit doctor --fix "$repo"
ok "... once" says "all is well" xgit doctor "$repo"
git -C "$repo" config gc.auto 5
touch "$repo/config.lock"
unmended()
{
	local said
	said=$(xgit doctor --fix "$repo" 2>&1) && return 1
	grep 'gc.auto: it is 5, not 0 (--fix' <<< "$said" && ! grep '(mended)' <<< "$said"
}
ok "... one that cannot be set" unmended
rm "$repo/config.lock"
ok "... and can" says "gc.auto: .* (mended)" xgit doctor --fix "$repo"
echo text | git -C "$repo" hash-object -w --stdin > "$tmp/blob"
# plant NAME <<< LS-TREE-LINES: a branch with that tree.
plant()
{
	local tree commit
	tree=$(git -C "$repo" mktree --missing) &&
		commit=$(git -C "$repo" -c user.name=a -c user.email=a@example.org commit-tree -m x "$tree") &&
		git -C "$repo" update-ref "refs/heads/$1" "$commit"
}
plant text <<< "100644 blob $(cat "$tmp/blob")	README"
ok "doctor: a branch that is no disk" \
	fails 1 "^text: tree [0-9a-f]*: no disk: there is no file" xgit doctor "$repo"
ok "... nothing mends that" fails 1 '"fixable": false' xgit doctor --json --fix "$repo"

git -C "$repo" update-ref -d refs/heads/text
# A writer that is killed; which may be done before it is.
left_behind() { compgen -G "$repo/objects/pack/xendisk_tmp_*"; }
killed()
{
	local try pid
	head -c 100M /dev/urandom > "$tmp/random.img"
	for ((try = 0; try < 20; try++)); do
		"$top_builddir/xendisk-git" import "$repo" "killed$try" "$tmp/random.img" > /dev/null & pid=$!
		until left_behind || is_gone $pid; do :; done
		kill -9 $pid
		wait $pid
		left_behind && return
		git -C "$repo" update-ref -d "refs/heads/killed$try"
	done
	return 1
}
ok "an import is killed" killed
ok "doctor: what it left behind" fails 1 "objects/pack: [0-9]* files* that a dead" xgit doctor "$repo"
ok "... and still has" fails 1 "objects/pack: [0-9]* files* that a dead" xgit doctor "$repo"
ok "... goes" says "(mended)" xgit doctor --fix "$repo"
no_tmp() { ! left_behind; }
ok "... is gone" no_tmp
no_killed() { [ -z "$(git -C "$repo" for-each-ref 'refs/heads/killed*')" ]; }
ok "... and there is no such disk" no_killed
ns=$(readlink /proc/self/ns/pid | tr -dc 0-9)
host=$(hostname | tr -c 'a-zA-Z0-9\n' -)
git -C "$repo" update-ref "refs/xendisk/open/$host/$ns-$$-1" "$head" # another has our number
git -C "$repo" update-ref "refs/xendisk/open/elsewhere/$ns-$$-1" "$head"
ok "doctor: a commit that a dead process has held" \
	fails 1 "refs/xendisk/open: 1 commit held" xgit doctor "$repo"
ok "... is let go" says "mended" xgit doctor --fix "$repo"
pins() { [ "$(git -C "$repo" for-each-ref --format='%(refname)' refs/xendisk/open)" = "refs/xendisk/open/elsewhere/$ns-$$-1" ]; }
ok "... that of another host is not" pins
mkdir -p "$repo/refs/heads/some"
touch "$repo/refs/heads/new.lock"
touch -d '2 hours ago' "$repo/refs/heads/some/old.lock" "$repo/packed-refs.lock" \
	"$repo/objects/pack/multi-pack-index.lock"
for lock in refs/heads/some/old packed-refs objects/pack/multi-pack-index; do
	ok "doctor: a lock that is old" fails 1 "^$lock.lock: a lock" xgit doctor "$repo"
done
ok "... goes" says "mended" xgit doctor --fix "$repo"
locks() { [ "$(cd "$repo" && find . -name '*.lock')" = ./refs/heads/new.lock ]; }
ok "... the other one stays" locks
rm "$repo/refs/heads/new.lock"

# CSI, as terminals take it that read UTF-8.
quiet() { ! xgit log "$own" $'\u9b31m' 2>&1 | grep -q $'\u9b'; }
ok "nothing of a name commands the terminal" quiet

# --- thin, gc ------------------------------------------------------------------------
for h in 00 01 02 03 04 05; do
	for m in 10 40; do
		git -C "$repo" update-ref refs/xendisk/auto/web/20231115T$h${m}00Z "$head"
	done
done
autos() { [ "$(git -C "$repo" for-each-ref --format='%(refname)' refs/xendisk/auto/web | sed 's/.*T//' | tr '\n' ' ')" = "$1 " ]; }
ok "thin: which?" fails 2 "git thin: --keep is missing" xgit thin "$repo" web
ok "... by what rules?" fails 2 'git thin: --keep: "3x"' xgit thin "$repo" web --keep 3x
ok "thin" says "^10 removed" xgit thin "$repo" web --keep 3h
ok "... the newest of each hour stay" autos "034000Z 044000Z 054000Z"
ok "... once" says '"removed": 0' xgit thin "$repo" web --keep 3h --json
for i in 1 2 3 4 5; do xgit create "$own" "many$i" --size 1G > /dev/null; done
packs() { find "$own/objects/pack" -name '*.pack' | wc -l; }
many() { [ "$(packs)" -gt 10 ]; }
few() { [ "$(packs)" -lt 10 ]; }
ok "many packs" many
ok "gc" says "^packs: [0-9]* of [0-9]* bytes; before: [0-9]* of [0-9]* bytes$" xgit gc "$own"
ok "... there are fewer" few
ok "... the same disk" is_model "$own" web
git -C "$own" update-ref -d refs/heads/r16K
attributes()
{
	mkfifo "$tmp/attributes" && git -C "$own" config core.attributesFile "$tmp/attributes" &&
		timeout 20 "$top_builddir/xendisk" git gc --full "$own" &&
		git -C "$own" config --unset core.attributesFile
}
ok "... whatever its attributes are" attributes
ok "gc --full" says '"packs"' xgit gc --full --json "$own"
ok "... the same disk" is_model "$own" web
ok "git fsck has nothing to say" fsck
# A git that tells how often it has waited for the storage.
cat > "$tmp/git" <<- EOF
	#!/bin/sh
	case "\$*" in *pack-refs*) export GIT_TRACE2_EVENT=$tmp/trace ;; esac
	exec $(command -v git) "\$@"
EOF
chmod +x "$tmp/git"
waits() { PATH=$tmp:$PATH xgit gc "$own" && grep -q 'fsync/hardware-flush","value":"[1-9]' "$tmp/trace"; }
if git version | grep -qE ' 2\.([0-9]|[12][0-9]|3[0-5])\.'; then
	skipped "gc: references are durable when they are packed" "git 2.36 tells of it"
else
	ok "gc: references are durable when they are packed" waits
fi
rm -f "$tmp/git"
git -C "$own" config core.fsync all
ok "doctor: all is well" says "all is well" xgit doctor "$own"
exec 7< "$own/objects/pack"
flock 7
ok "gc: one at a time" fails 5 "somebody else is at it" xgit gc "$own"
exec 7<&-

# --- rollback -------------------------------------------------------------------------
back=$tmp/back.git
xgit init "$back" && xgit create "$back" vm --size 8M > /dev/null
git -C "$back" config core.fsync none
state=$tmp/state/git/$(perl -e '
	use integer;
	my $h = 0xcbf29ce484222325;
	for my $text (@ARGV) {
		for (unpack("C*", $text), 0xff) { $h = ($h ^ $_) * 0x100000001b3; }
	}
	printf "%s-%016x", $ARGV[1], $h;' "$back" vm)
mkdir -p "$state"
# worker COMMAND...: a stand-in for that of the disk.
worker()
{
	timeout 240 "$top_builddir/tests/git/commit-rig" "$top_builddir/xendisk-git" "$back" \
		"$state" vm "$tmp/vm.img" "$@" > "$tmp/said" 2>&1 || { cat "$tmp/said"; return 1; }
}
is_image() { xgit export "$back" "$1" --force -o "$tmp/out.img" && cmp "$tmp/out.img" "$2"; }
rollback() { xgit rollback "$back" vm --state-dir "$tmp/state" "$@"; }
commits() { [ "$(git -C "$back" rev-list --count vm)" = "$1" ]; }
ok "a disk that was written to, twice" worker write:1:20 freeze:branch:one commit release
cp "$tmp/vm.img" "$tmp/one.img"
one=$(git -C "$back" rev-parse vm)
ok "... the second time nothing was committed" worker write:2:20
cp "$tmp/vm.img" "$tmp/two.img"
exec 7<> "$state/commit.lock"
flock 7
ok "rollback: not while a commit is made" fails 5 "still being committed" rollback "$one"
exec 7<&-
exec 7<> "$state/lock"
flock 7
ok "rollback: not while a guest has the disk" fails 5 "git rollback: vm: " rollback "$one"
exec 7<&-
ok "... nothing has changed" commits 2
# What holds commits for the overlay, and would be left if rollback were killed.
pins() { git -C "$back" for-each-ref --format='%(refname) %(objectname)' refs/xendisk/base; }
lost() { xgit doctor "$back" --state-dir "$tmp/state" "$@" | grep '^refs/xendisk/base'; }
pins > "$tmp/pins"
ok "an overlay has its pin" test -s "$tmp/pins"
ok "... which the doctor leaves alone" eval '! lost --fix'
ok "... and it is there" eval '[ "$(pins)" = "$(cat "$tmp/pins")" ]'
ok "rollback" rollback "$one"
ok "... they are gone" eval '! pins | grep -Ff "$tmp/pins"'
pins > "$tmp/pins.now"
while read -r name id; do git -C "$back" update-ref "$name" "$id"; done < "$tmp/pins"
git -C "$back" update-ref refs/xendisk/base/vm/other.01234567/1 "$one"
ok "doctor: what is held for an overlay that was" says "held for an overlay that is no more (--fix" lost
ok "... is let go" says "(mended)" lost --fix
ok "... and not another host's" eval '[ "$(pins)" = "$(echo "refs/xendisk/base/vm/other.01234567/1 $one"; cat "$tmp/pins.now")" ]'
git -C "$back" update-ref -d refs/xendisk/base/vm/other.01234567/1
# Whoever has another state directory has disks, or a path of them, that are not here.
read -r name id < "$tmp/pins"
elsewhere() { git -C "$back" update-ref "$1" "$id" && ! lost --fix && git -C "$back" rev-parse -q --verify "$1" && git -C "$back" update-ref -d "$1"; }
ok "... nor that of a disk that has no overlay there" elsewhere "${name/base\/vm/base\/v}"
ok "... whatever its name ends with" elsewhere "${name/base\/vm/base\/x\/vm}"
cp -a "$back" "$tmp/back-copy.git"
git -C "$tmp/back-copy.git" update-ref "$name" "$id"
ok "... nor that of another repository" eval '! xgit doctor "$tmp/back-copy.git" --state-dir "$tmp/state" | grep "^refs/xendisk/base"'
ok "doctor: no such state directory" fails 4 "No such file" xgit doctor "$back" --state-dir "$tmp/nowhere"
ok "... is what it was" is_image vm "$tmp/one.img"
ok "... two commits later" commits 4
ok "... and before it there is what was not committed" is_image vm~1 "$tmp/two.img"
says_so() { [ "$(git -C "$back" log -2 --format=%s vm | tr '\n' ,)" = "back to ${one:0:12},before a rollback," ]; }
ok "... as the log says" says_so
no_pins() { [ -z "$(git -C "$back" for-each-ref refs/xendisk)" ] && ! ls "$back"/objects/pack/*.keep; }
ok "... nothing is held" no_pins
cp "$tmp/one.img" "$tmp/vm.img"
ok "the disk goes on there" worker write:3:20 freeze:branch:three commit release
ok "... with what is written now" is_image vm "$tmp/vm.img"
ok "... on top of it" commits 5
cp "$tmp/vm.img" "$tmp/three.img"
ok "a layer that is frozen, and more" worker write:4:20 freeze:branch:four write:5:20
ok "rollback: both are committed" rollback vm -m "as it was"
ok "... in three commits" commits 8
ok "... the last one of which is that from before" is_image vm "$tmp/three.img"
ok "... below it there is all" is_image vm~1 "$tmp/vm.img"
# A committer that comes to what it was asked for when that is done, and the layer empty.
mkfifo "$tmp/late"
(exec timeout 240 "$top_builddir/tests/git/commit-rig" "$top_builddir/xendisk-git" "$back" \
	"$state" vm "$tmp/vm.img" write:6:20 freeze:branch:six wait send \
	< "$tmp/late" > "$tmp/late.said" 2>&1) &
late=$!
cp "$tmp/three.img" "$tmp/vm.img"
exec 8> "$tmp/late"
eventually 30 grep -q frozen "$tmp/late.said"
stopped=$(pgrep -P "$(pgrep -P "$(pgrep -P $late)")")
kill -STOP "$stopped"
exec 8>&-
ok "rollback, while the committer stands still" eventually 30 rollback vm
kill -CONT "$stopped"
wait $late
ok "... what was written is in one commit" commits 10
ok "... that one" is_image vm~1 "$tmp/vm.img"
ok "... and no other says so" no_pins
if command -v nbdcopy > /dev/null; then
	# The worker itself finds its overlay where rollback does, and the other way.
	touch "$tmp/none.conf"
	export XENDISK_LIBEXEC_DIR=$top_builddir
	serve()
	{
		timeout 120 "$top_builddir/xendisk" serve --config "$tmp/none.conf" \
			--backend-dir "$top_builddir/backends/.libs" --state-dir "$tmp/state" \
			"git:$back?branch=vm" --run "$1"
	}
	mv "$tmp/state" "$tmp/state.rig"
	mkdir "$tmp/state"
	ok "a worker writes" serve "nbdcopy $tmp/two.img \$uri"
	n=$(git -C "$back" rev-list --count vm)
	ok "rollback: its overlay" rollback "$one"
	ok "... is committed, too" commits $((n + 2))
	ok "... with what was written" is_image vm~1 "$tmp/two.img"
	ok "... the disk is what it was" serve "nbdcopy \$uri $tmp/served.img"
	ok "... indeed" cmp "$tmp/served.img" "$tmp/one.img"
else
	skipped "rollback of a worker's overlay" "nbdcopy is not installed"
fi
ok "rollback: of nothing" fails 4 "nothing" rollback nothing
ok "rollback: without an overlay" xgit rollback "$back" vm "$one" --state-dir "$tmp/none"
ok "... is what it was" is_image vm "$tmp/one.img"
fsck_back() { own=$back fsck; }
ok "git fsck has nothing to say" fsck_back

# --- Hostile ------------------------------------------------------------------------
disk=$(git -C "$repo" rev-parse web:disk)
sub() { git -C "$repo" mktree --missing; }
# broken NAME TREE-OF-data/00/00 [TEXT-OF-disk]
broken()
{
	local a b text=$disk
	a=$(sub <<< "040000 tree $2	00") && b=$(sub <<< "040000 tree $a	00") || return
	[ $# -lt 3 ] || text=$(printf '%b' "$3" | git -C "$repo" hash-object -w --stdin)
	plant "$1" <<< "040000 tree $b	data
100644 blob $text	disk"
}
blob=$(git -C "$repo" rev-parse web:data/00/00/07)
refused() { fails 1 "git export: $1: .*$2" xgit export "$repo" "$1" -o "$tmp/none.img"; }
broken short "$(sub <<< "100644 blob $(cat "$tmp/blob")	03")"
ok "a chunk that is too short" refused short "data/00/00/03: it is no blob of 65536 bytes"
broken long "$(sub <<< "100644 blob $blob	10")"
ok "a last chunk that is too long" refused long "data/00/00/10: it is no blob of 512 bytes"
none=0123456789012345678901234567890123456789
broken gone "$(sub <<< "100644 blob $none	03")"
ok "a chunk that is not there" refused gone "data/00/00/03: object $none is not there"
broken beyond "$(sub <<< "100644 blob $blob	11")"
ok "a chunk beyond the end" refused beyond "(data/00/00/): a chunk beyond the end"
broken name "$(sub <<< "100644 blob $blob	0A")"
ok "a chunk whose name is none" refused name "(data/00/00/): a name"
raw_tree() { perl -e 'print "$ARGV[0]\0" . pack("H*", $ARGV[1])' "$@" | git -C "$repo" hash-object -t tree -w --stdin --literally; }
broken other "$(raw_tree '40000 00' "$blob")"
ok "a chunk that is a folder" refused other "a chunk that is no file"
broken commit "$(raw_tree '100644 00' "$head")"
ok "a chunk that is a commit" refused commit "data/00/00/00: it is no blob"
good='xendisk-git 1\nsize 1049088\nsector 512\nchunk 65536\nlevels 3\nfeatures'
empty=$(sub < /dev/null)
broken feature "$empty" "$good zstd\n"
ok "features that are not known" refused feature "features that this version does not know"
broken huge "$empty" 'xendisk-git 1\nsize 9000000000000000000\nsector 512\nchunk 65536\nlevels 3\nfeatures -\n'
ok "an absurd size" refused huge "too many for chunks"
broken odd "$empty" "$(printf '\\033[31m%s -' "$good")"
ok "no format of ours" refused odd "xendisk-git 1"
truncated()
{
	local pack
	git clone -q --bare --single-branch -b web "file://$repo" "$tmp/cut.git" || return
	pack=$(echo "$tmp"/cut.git/objects/pack/*.pack)
	chmod u+w "$pack"
	perl -e 'open(F, "+<", $ARGV[0]); binmode F; my $s = -s F; seek(F, $s / 2, 0); print F "\0" x 4096' "$pack"
	fails 1 "git export: web: data/00/00/.*broken" xgit export "$tmp/cut.git" web -o "$tmp/none.img"
}
ok "a pack with other bytes in it" truncated
elsewhere()
{
	git clone -q --bare --single-branch -b web "file://$repo" "$tmp/else.git" || return
	echo "$repo/objects" > "$tmp/else.git/objects/info/alternates"
	fails 5 "borrows objects" xgit log "$tmp/else.git" web || return
	rm "$tmp/else.git/objects/info/alternates"
	xgit log "$tmp/else.git" web && mv "$tmp/else.git/objects" "$tmp/objects" &&
		ln -s "$tmp/objects" "$tmp/else.git/objects" &&
		fails 1 "else.git: objects" xgit log "$tmp/else.git" web
}
ok "a repository that leads elsewhere" elsewhere
included()
{
	git clone -q --bare --single-branch -b web "file://$repo" "$tmp/incl.git" || return
	printf '[include]\npath = ~/settings\n' >> "$tmp/incl.git/config"
	xgit log "$tmp/incl.git" web && mkfifo "$tmp/settings" &&
		fails 1 "incl.git/config includes $tmp/settings, which is no plain file" \
			xgit log "$tmp/incl.git" web && rm "$tmp/settings"
}
ok "a pipe in one's home for settings" included
at_home()
{
	local home=$tmp/home
	mkdir "$home" && mkfifo "$home/.gitconfig" &&
		HOME=$home fails 1 "cut.git: $home/.gitconfig is no plain file" xgit log "$tmp/cut.git" web &&
		ln -sf /dev/null "$home/.gitconfig" && HOME=$home xgit log "$tmp/cut.git" web
}
ok "... in place of one's own" at_home
ok "... and no image of any" [ ! -e "$tmp/none.img" ]
