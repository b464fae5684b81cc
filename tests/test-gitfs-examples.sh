#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# Examples of disks that are branches: what a guest's configuration gets is what
# cloud-init, or UEFI, looks for.
. "$(dirname "$0")/gitfs-functions.sh"
requires fsck.fat mcopy mlabel

seed=$top_srcdir/examples/cloud-init-seed
esp=$top_srcdir/examples/uefi-esp
# expression LINE: the disk of a line of a guest's configuration.
expression() { sed -n "s/^'.*target=\(.*\)'$/\1/p" <<< "$1"; }

# --- A seed ------------------------------------------------------------------------
cd "$tmp" || exit 1
printf '#cloud-config\npackages: [vim]\n' > web1.yaml
printf 'version: 2\n' > network.yaml
line=$("$seed" seeds.git web1 web1.yaml network.yaml)
ok "a seed: the line" test -n "$(expression "$line")"
ok "... its disk" image "$tmp/seed.img" "$(expression "$line")"
ok "... fsck.fat" sound "$tmp/seed.img"
label() { mlabel -s -i "$tmp/seed.img" | grep -qw CIDATA; }
ok "... its label" label
has() { mtype -i "$tmp/seed.img" "::/$1" | cmp - "$2"; }
ok "... user-data" has user-data web1.yaml
ok "... network-config" has network-config network.yaml
instance() { mtype -i "$tmp/seed.img" ::/meta-data | sed -n 's/^instance-id: //p'; }
named() { mtype -i "$tmp/seed.img" ::/meta-data | grep -qx 'local-hostname: web1'; }
first=$(instance)
ok "... meta-data" test -n "$first"
ok "... with its name" named

commits() { git -C "$1" rev-list --count "$2"; }
again() { "$seed" seeds.git web1 web1.yaml network.yaml && [ "$(commits seeds.git web1)" = 1 ]; }
ok "the same again is no new commit" again
echo 'runcmd: [true]' >> web1.yaml
changed() { "$seed" seeds.git web1 web1.yaml network.yaml && [ "$(commits seeds.git web1)" = 2 ]; }
ok "a change is one" changed
log() { git -C seeds.git log -p web1 | grep -qx '+runcmd: \[true\]'; }
ok "... which git shows" log
ok "... its disk" image "$tmp/seed.img" "$(expression "$line")"
ok "... has another instance-id" test "$(instance)" != "$first"
ok "... and is what it was, at the commit before" \
	image "$tmp/seed.img" "gitfs($tmp/seeds.git, rev=web1~1, label=CIDATA)"
ok "... with its instance-id" test "$(instance)" = "$first"
ok "another guest has its own" "$seed" seeds.git web2 web1.yaml
ok "... without network-config" fails 128 network-config \
	git -C seeds.git cat-file -e web2:network-config

# --- An EFI system partition -----------------------------------------------------------
mkdir -p esp/EFI/BOOT esp/loader/entries
ok "without an EFI program" fails 1 'no EFI/BOOT' "$esp" boot.git vm esp
printf 'MZ and more' > esp/EFI/BOOT/BOOTX64.EFI
printf 'title Linux\nlinux /vmlinuz\n' > esp/loader/entries/linux.conf
head -c 3000000 /dev/urandom > esp/vmlinuz
line=$("$esp" boot.git vm esp)
ok "an ESP: the line" test -n "$(expression "$line")"
ok "... its disk" image "$tmp/esp.img" "$(expression "$line")"
table() { [ "$(od -An -tx1 -j 450 -N 1 "$tmp/esp.img")" = " ef" ]; }
ok "... its partition" table
part() { tail -c +1048577 "$tmp/esp.img" > "$tmp/part.img" && sound "$tmp/part.img"; }
ok "... fsck.fat" part
unpack "$tmp/part.img" "$tmp/out"
same() { diff -r --exclude=.xendisk esp "$tmp/out"; }
ok "... all files" same
printf x >> esp/vmlinuz
ok "... a difference would have been seen" fails 1 vmlinuz same
next() { "$esp" boot.git vm esp && [ "$(commits boot.git vm)" = 2 ]; }
ok "another kernel is another commit" next
