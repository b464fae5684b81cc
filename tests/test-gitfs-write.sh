#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2016,SC2317  # $uri is the command's; called by ok
# gitfs disks that may be written: what mtools does to one is a commit in the end,
# and nothing else is; what is not sound is kept, and never committed.
. "$(dirname "$0")/gitfs-functions.sh"
writing
requires fsck.fat

repo=$tmp/r.git
disk="gitfs($repo, rev=main, rw=yes, commit=edits, size=40M)"
g() { git -C "$repo" "$@"; }

git init -q "$tmp/w"
cd "$tmp/w" || exit 1
mkdir bin docs
printf '#!/bin/sh\n' > bin/run
chmod +x bin/run
seq 20000 > docs/large.txt
echo hello > README.TXT
ln -s docs/large.txt link
git add -A
git commit -qm base
git clone -q --bare . "$repo"
base=$(g rev-parse main)

# --- Options ----------------------------------------------------------------------------
ok "rw without commit" no 'commit= says which branch' "gitfs($repo, rw=yes)"
ok "commit without rw" no 'nothing is written without rw' "gitfs($repo, commit=x)"
ok "size without rw" no 'no use for room without rw' "gitfs($repo, size=1G)"
ok "rw of an EROFS" no 'only format=fat' "gitfs($repo, rw=yes, commit=x, format=erofs)"
ok "a branch that git would not have" no 'a..b' "gitfs($repo, rw=yes, commit=a..b)"
ok "a size that is too small" no 'too few' "gitfs($repo, rw=yes, commit=x, size=1M)"
ok "a revision that is no commit" no 'no commit' "gitfs($repo, rev=main^{tree}, rw=yes, commit=x)"

# --- A commit -----------------------------------------------------------------------------
ok "the disk" look
ok "... is sound" sound "$img"
nothing() { ! g rev-parse -q --verify edits; }
ok "who only reads makes no commit, and no branch" nothing
printf '#!/bin/sh\necho changed\n' > "$tmp/program"
echo new > "$tmp/new.txt"
m copy -o "$tmp/program" ::bin/run
m md ::folder
m copy "$tmp/new.txt" ::folder
m del ::README.TXT
m move ::docs/large.txt '::folder/Large file.txt'
ok "a guest changes, adds, removes, renames" guest_writes
wanted=$(printf 'D README.TXT\nM bin/run\nR100 docs/large.txt folder/Large file.txt\nA folder/new.txt')
is_wanted() { [ "$(g diff --name-status -M main edits | tr '\t' ' ')" = "$wanted" ]; }
ok "that, and nothing else, is in the commit" is_wanted
shown() { g log -1 -p edits | grep -q '^+echo changed'; }
ok "git log -p shows it" shown
parent() { [ "$(g rev-parse edits^)" = "$base" ]; }
ok "... on top of what was laid out" parent
mode() { [ "$(g ls-tree edits bin/run | cut -c1-6)" = 100755 ]; }
ok "a program is still one" mode
link() { [ "$(g ls-tree edits link | cut -c1-6)" = 120000 ]; }
ok "a link is still one" link
trailer() { g log -1 --format=%B edits | grep -qx 'Xendisk-Consistency: clean-detach'; }
ok "it says that the guest had gone" trailer
ok "git fsck" g fsck --strict

# --- The next guest -------------------------------------------------------------------------
ok "the next disk begins with the branch" look
has_new() { mtype -i "$img" ::folder/new.txt | grep -qx new; }
ok "... has what was written" has_new
head=$(g rev-parse edits)
same() { [ "$(g rev-parse edits)" = "$head" ]; }
ok "... and makes no commit by itself" same
m copy -o "$tmp/new.txt" ::folder/new.txt
ok "a file is written as it was" guest_writes
ok "... which is no change" same
old_pins() { [ "$(g for-each-ref refs/xendisk/base | wc -l)" = 1 ]; }
ok "what is not used is not pinned" old_pins

# --- What is not sound -------------------------------------------------------------------------
ok "look again" look
fat=$(($(od -An -tu2 -j14 -N2 "$img") * 512))
m copy "$tmp/program" ::last.txt
cp "$img" "$tmp/good.img"
printf '\x02\0\0\0' | dd of="$img" bs=1 seek=$((fat + 36)) conv=notrunc status=none
cp "$img" "$tmp/bad.img"
ok "a guest leaves two FATs that differ" guest_writes
differs() { grep -q 'the two FATs differ' "$tmp/said"; }
ok "... and the operator is told" differs
ok "... but nothing is committed" same
ok "what it had is kept" look
ok "... all of it" cmp "$img" "$tmp/bad.img"
ok "... and still not committed" same
cp "$tmp/good.img" "$img"
ok "a guest repairs it" guest_writes
repaired() { g show --name-status --format= edits | grep -qx $'A\tlast.txt'; }
ok "... and that is committed" repaired
dirty() { look && m copy "$tmp/program" ::dirty.txt && printf '\x01' | dd of="$img" bs=1 seek=65 conv=notrunc status=none; }
ok "a disk that was not unmounted" dirty
ok "... is written back" guest_writes
mounted() { grep -q 'was not unmounted' "$tmp/said"; }
ok "... and says why" mounted
printf '\0' | dd of="$img" bs=1 seek=65 conv=notrunc status=none
look_not() { cp "$img" "$tmp/clean.img" && image "$img" "$disk" && cp "$img" "$tmp/before.img" && cp "$tmp/clean.img" "$img"; }
ok "... and kept, until it is" look_not
ok "... unmounted" guest_writes
unmounted() { g show --name-status --format= edits | grep -qx $'A\tdirty.txt'; }
ok "... then it is committed" unmounted

# --- Death, and others who write -----------------------------------------------------------------
ok "look" look
m copy "$tmp/program" ::dead.txt
changes
died() { ! serve "$disk" --run "$put; kill -9 \$PPID" 2> /dev/null; }
ok "the server is killed after a flush" died
committed() { g show --name-status --format= edits | grep -qx $'A\tdead.txt'; }
ok "... the next one commits it" look
ok "... exactly that" committed
m copy "$tmp/program" ::mine.txt
moved=$(git -C "$tmp/w" commit-tree -p "$base" -m other "$base^{tree}")
g fetch -q "$tmp/w" "$moved" 2> /dev/null || git -C "$tmp/w" push -q "$repo" "$moved:refs/heads/other"
export moved repo
ok "somebody moves the branch meanwhile" guest_writes '; git -C $repo update-ref refs/heads/edits $moved'
untouched() { [ "$(g rev-parse edits)" = "$moved" ]; }
ok "... it stays where they put it" untouched
beside() { g diff --name-only "$1" "$(g for-each-ref --format='%(refname)' refs/xendisk/diverged/edits)" | grep -qx mine.txt; }
ok "... and the commit is beside it" beside "$moved"
ok "the next disk begins with the branch" look
other() { ! mdir -b -i "$img" :: | grep mine; }
ok "... as it is now" other

# --- A folder of the tree -------------------------------------------------------------------------
disk="gitfs($repo, rev=main:docs, rw=yes, commit=docs)"
ok "a folder of it" look
m copy "$tmp/new.txt" ::
ok "... is written to" guest_writes
grafted() { [ "$(g diff --name-status main docs | tr '\t' ' ')" = 'A docs/new.txt' ]; }
ok "... in the whole tree" grafted

# --- Git LFS ---------------------------------------------------------------------------------------
pointer() { printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 1234567\n' "$1"; }
pointer 1 > big.bin
pointer 2 > other.bin
git add -A
git commit -qm lfs
git push -q "$repo" HEAD:refs/heads/large
disk="gitfs($repo, rev=large, rw=yes, commit=lfs)"
large() { g diff --name-status -M large lfs | tr '\t' ' '; }
ok "a tree with pointers of Git LFS" look
pointer 3 > "$tmp/pointer"
m copy -o "$tmp/pointer" ::big.bin
m move ::other.bin ::moved.bin
ok "a guest writes another pointer, and renames one" guest_writes
ok "... which is committed" eval '[ "$(large)" = "$(printf "M big.bin\nR100 other.bin moved.bin")" ]'
head=$(g rev-parse lfs)
as_before() { [ "$(g rev-parse lfs)" = "$head" ]; }
ok "look" look
m copy -o "$tmp/program" ::big.bin
ok "a guest writes what is large in its place" guest_writes
ok "... is told which file" grep -q '/big.bin: it was a pointer of Git LFS' "$tmp/said"
ok "... and nothing is committed" as_before
ok "look: it is kept" look
m del ::big.bin
m move ::moved.bin ::big.bin
ok "a guest puts a pointer there" guest_writes
ok "... which is committed" eval '[ "$(g rev-list --count large..lfs)" = 2 ]'
ok "look" look
m del ::big.bin
m move ::docs/large.txt ::big.bin
ok "a guest puts another file there" guest_writes
ok "... is told" grep -q '/big.bin: it was a pointer of Git LFS' "$tmp/said"
disk="gitfs($repo, rev=large, rw=yes, commit=lfs, lfs=no)"
ok "the operator wants it so" serve "$disk" --run true
ok "... then it is committed" eval '[ "$(g rev-parse lfs:big.bin)" = "$(g rev-parse main:docs/large.txt)" ]'

# --- On a host with guests ---------------------------------------------------------------------------
command -v xenstore-exists > /dev/null || exit
disk="gitfs($repo, rev=main, rw=yes, commit=live, size=40M, symlinks=text)"
sim_start
daemon_start
dom=$(domain)
copies() { guest "$dom" xvdb read 0 "$(stat -c %s "$tmp/live.img")" > "$img" && cp "$img" "$tmp/before.img"; }
# All of it, most as it was.
writes() { guest "$dom" xvdb write 0 < "$img"; }
ok "the disk of another branch" image "$tmp/live.img" "$disk"
ok "attach" toolstack attach "$dom" xvdb "$disk"
ok "a guest reads" copies
ok "... what is in git" cmp "$img" "$tmp/live.img"
m copy "$tmp/new.txt" ::live.txt
ok "... and writes" writes
committed() { g show --name-status --format= live 2> /dev/null | grep -qx "$1"; }
ok "it goes, and there is a commit" eventually 20 committed $'A\tlive.txt'
ok "attached still, another guest reads" copies
ok "... what the last one wrote" eval 'mtype -i "$img" ::live.txt | grep -qx new'
m del ::live.txt
ok "... and writes" writes
ok "it goes, and there is the next commit" eventually 20 committed $'D\tlive.txt'
finishing="finishing: a commit for branch live is being made, [0-9]* s so far"
ok "... which was said while it was waited for" grep -q "$finishing" "$tmp/log"
ok "... and is over" eval '! xendisk list | grep finishing'
ok "status knows it" says "$(g rev-parse live)" xendisk status "$dom" xvdb

# While one is there.
at=$(perl -0777 -ne 'print index($_, "1\n2\n3\n4\n5\n6\n")' "$img")
is_edit() { g diff --name-only live~1 live | grep -qx docs/large.txt && [ "$(g show live:docs/large.txt | head -c 1536 | tr -d -c "$1" | wc -c)" = 512 ]; }
meet "$dom"
tell "write $at 512 0x41" flush
ok "a guest writes, and stays" eventually 20 grep -q '^0 flush' "$tmp/out"
snapshot() { xendisk snapshot "$dom" xvdb -m "$1" --wait > "$tmp/id" && [ "$(cat "$tmp/id")" = "$(g rev-parse live)" ]; }
ok "a snapshot" snapshot first
ok "... is a commit of that" is_edit A
ok "... with its message" eval '[ "$(g log -1 --format=%s live)" = first ]'
crash() { g log -1 --format=%B live | grep -qx 'Xendisk-Consistency: crash'; }
ok "... and says how it was taken" crash
tell "write $((at + 512)) 512 0x42" flush "read $at 512"
ok "the guest goes on" eventually 20 grep -q '^0 read.* = 0x41' "$tmp/out"
ok "another one" snapshot second
ok "... stands on the first" eval '[ "$(g log -1 --format=%s live~1)" = first ]'
ok "... has both" is_edit B
tell "write $((at + 1024)) 512 0x43" flush
head=$(g rev-parse live)
ended_well "it has seen no error"
ok "it goes: the rest is committed" eventually 20 eval '[ "$(g rev-parse live~1)" = "$head" ]'
ok "... and is that" is_edit C
ok "a snapshot without a guest" fails 1 'no guest' xendisk snapshot "$dom" xvdb
ok "detach" toolstack detach "$dom" xvdb
