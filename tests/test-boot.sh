#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# What libxl does before a guest has a ring: QEMU opens the disk of an HVM guest
# (libxl__device_disk_find_local_path), pygrub reads it in domain 0
# (libxl__device_disk_local_initiate_attach).
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
. "${top_srcdir:-.}/tests/boot-sector.sh"
requires nbdinfo qemu-io qemu-img xenstore-read
qemu="qemu-system-x86_64" # with TCG; the one that libxl starts has only Xen

MiB=1048576
devid=51712 # xvda
greeting="sector two says hello"

boot_disk "$tmp/a.img" 16M "$greeting"

backend_key() { xenstore-read "/local/domain/0/backend/$1/$2/$devid/$3"; }
no_path() { ! backend_key "$1" "$2" physical-device-path; }
connected() { [ "$(state_of "$1" xvda)" = connected ]; }
# io FILE COMMAND...: qemu-io as QEMU opens the drive, each command having worked.
io()
{
	local words=() c
	for c in "${@:2}"; do words+=(-c "$c"); done
	timeout 60 qemu-io -f raw -t writeback "${words[@]}" "$1" > "$tmp/io" 2>&1 &&
		cat "$tmp/io" && ! grep -qi 'fail' "$tmp/io"
}
# boots FILE: QEMU's BIOS does, from the drive that libxl would give it.
boots()
{
	rm -f "$tmp/serial"
	timeout 120 "$qemu" -accel tcg -M pc -m 16 -nodefaults -display none \
		-no-reboot -serial "file:$tmp/serial" -drive \
		"file=$1,if=ide,index=0,media=disk,format=raw,cache=writeback" &&
		cat "$tmp/serial" && grep -q "$greeting" "$tmp/serial"
}
# ring DOM LINE...: a guest connects, and does that.
ring() { printf '%s\n' "${@:2}" | timeout 60 "$simguest" "$1" xvda script; }

sim_start
daemon_start
d=$(domain)

# --- An HVM guest: script add, QEMU, its driver unplugs the disk, ring -------------
ok "attach" toolstack attach "$d" xvda "raw($tmp/a.img)"
file=$(backend_key vbd "$d" physical-device-path || echo none)
ok "once the script has ended there is a file for QEMU" \
	test "$file" = "nbd+unix:///?socket=$tmp/run/nbd/$d-$devid.sock"
ok "qemu-img knows it" says 'virtual size: 16 MiB' timeout 60 qemu-img info -f raw "$file"
if command -v "$qemu" > /dev/null; then
	boot_disk "$tmp/mute.img" 1M "says nothing"
	ok "shown to catch: a disk with another sector two" \
		fails 1 '' boots "$tmp/mute.img"
	ok "nothing is in sector three" io "$file" "read -P 0 1024 512"
	ok "QEMU boots from it" boots "$file"
	ok "... and has written sector three" io "$file" "read -P 0x73 1024 1"
else
	skipped "QEMU boots from it" "there is no $qemu"
fi
mkfifo "$tmp/cin"
qemu-io -f raw -t writeback "$file" < "$tmp/cin" > "$tmp/cout" 2>&1 &
client=$!
cleanup_pids+=("$client")
exec 7> "$tmp/cin"
does() { echo "$1" >&7; eventually 30 grep -qs "$2" "$tmp/cout"; }
ok "QEMU writes" does "write -P 0x31 1M 64k" "wrote 65536/65536 bytes at offset 1048576"
ok "the guest's driver comes, and reads it" \
	says "^0 read $MiB 65536 = 0x31" ring "$d" "read $MiB 65536"
ok "it writes" says '^0 flush' ring "$d" "write $((2 * MiB)) 65536 0x32" flush
ok "QEMU, which still has the disk, reads that" does "read -P 0x32 2M 64k" \
	"read 65536/65536 bytes at offset 2097152"
exec 7>&-
wait "$client" || :
ok "nothing was wrong" fails 1 '' grep -i fail "$tmp/cout"
ok "unplugged: the guest has it alone" \
	says "^0 write 0 512" ring "$d" "read $((2 * MiB)) 512" "write 0 512 0"
ok "it restarts, and QEMU sees what it wrote" io "$file" "read -P 0 0 512" \
	"read -P 0x32 2M 64k" "write -P 0x33 3M 4k"
ok "detach" toolstack detach "$d" xvda

ok "read-only" toolstack attach "$d" xvda "raw($tmp/a.img)" --readonly
ok "... QEMU is given none: xl would refuse the guest" no_path vbd "$d"
ok "... the ring has it" says "^0 read $((3 * MiB)) 4096 = 0x33" ring "$d" "read $((3 * MiB)) 4096"
ok "detach" toolstack detach "$d" xvda

# backendtype=tap of Xen 4.19: libxl makes a file of the socket's path.
ok "tap" toolstack attach "$d" xvda "aio:raw($tmp/a.img)" --kind vbd3
sock=$(backend_key vbd3 "$d" physical-device-path || echo none)
ok "... has the socket" test "$sock" = "$tmp/run/nbd/$d-$devid.sock"
ok "... where QEMU finds it" io "nbd+unix:///?socket=$sock" "read -P 0x33 3M 4k"
ok "detach" toolstack detach "$d" xvda

# --- pygrub: a disk of domain 0's, until it has read what to boot -----------------
# The guest exists meanwhile, and has no disk.
pygrub()
{
	ok "a disk for domain 0" toolstack attach 0 xvda "raw($tmp/a.img)"
	rm -f "$tmp/in" "$tmp/out"
	mkfifo "$tmp/in"
	timeout 120 "$simguest" 0 xvda script < "$tmp/in" > "$tmp/out" 2>&1 &
	script=$!
	cleanup_pids+=("$script")
	exec 8> "$tmp/in"
	ok "its driver connects" eventually 30 connected 0
	ok "... what libxl waits for" test "$(backend_key vbd 0 state)" = 4
	echo "read $((3 * MiB)) 4096" >&8
	ok "it reads" eventually 30 grep -q "^0 read $((3 * MiB)) 4096 = $1" "$tmp/out"
}
pygrub_ends()
{
	exec 8>&-
	wait "$script" || :
	ok "libxl takes it away" toolstack detach 0 xvda
	ok "... all of it" fails 1 '' xenstore-read /libxl/0/device/vbd/$devid/backend
	ok "... and its socket" test ! -e "$tmp/run/nbd/0-$devid.sock"
}
pygrub 0x33
ok "nobody else has the disk meanwhile" fails 1 'in use by domain 0 (xvda)' \
	toolstack attach "$d" xvda "raw($tmp/a.img)"
ok "... what is left of that goes" toolstack detach "$d" xvda
pygrub_ends
ok "at once it is the guest's" toolstack attach "$d" xvda "raw($tmp/a.img)"
ok "... who writes" says '^0 flush' ring "$d" "write $((3 * MiB)) 4096 0x34" flush
ok "nor has pygrub one that a guest has" fails 1 "in use by domain $d (xvda)" \
	toolstack attach 0 xvda "raw($tmp/a.img)"
ok "... what is left of that goes" toolstack detach 0 xvda
ok "the guest has noticed nothing" \
	says "^0 read $((3 * MiB)) 4096 = 0x34" ring "$d" "read $((3 * MiB)) 4096"

# Another guest boots while that one has its disk.
cp "$tmp/a.img" "$tmp/b.img"
e=$(domain)
ok "another image for domain 0" toolstack attach 0 xvda "cow($tmp/b.img, mem)"
ok "... is read there" says "^0 read $((3 * MiB)) 4096 = 0x34" ring 0 "read $((3 * MiB)) 4096"
ok "... taken away" toolstack detach 0 xvda
ok "... and its guest has it" toolstack attach "$e" xvda "cow($tmp/b.img, mem)"
ok "... beside the first" says "^0 read $((3 * MiB)) 4096 = 0x34" ring "$e" "read $((3 * MiB)) 4096"

# It reboots: domain and disk go, pygrub reads what the guest has written.
ok "the first guest ends" "$xensim" domain destroy "$d"
pygrub 0x34
pygrub_ends
d=$(domain)
ok "and it is back" toolstack attach "$d" xvda "raw($tmp/a.img)"
ok "... with its disk" says "^0 read $((3 * MiB)) 4096 = 0x34" ring "$d" "read $((3 * MiB)) 4096"
