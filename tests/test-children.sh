#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317  # called by ok
# Child servers: nbdkit and qemu-nbd, started for a disk, isolated, killed, found
# again by the next daemon, and ended with the disk.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
. "$top_srcdir/tests/nbd-functions.sh"
requires qemu-nbd qemu-img nbdcopy

kills=${XENDISK_NBD_KILLS:-10}
image_kills=$((kills / 2 + 1))

sim_start
daemon_start
d=$(domain)

# The pid in the note; nothing when there is no child.
child()
{
	find "$tmp/run/children" -name '[0-9]*[0-9]' -exec head -qn1 {} + \
		2> /dev/null | sed -n 's/^\([1-9][0-9]*\) .*/\1/p' | head -1 || :
}
no_child() { [ -z "$(child)" ]; }
another_child() { [ -n "$(child)" ] && [ "$(child)" != "$1" ]; }
worker() { xendisk --json list | sed -n 's/.*"worker_pid": \([1-9][0-9]*\).*/\1/p'; }
another_worker() { [ -n "$(worker)" ] && [ "$(worker)" != "$1" ]; }
# Patient: a machine with much else to do starts programs slowly.
verify() { guest "$d" xvdb verify --seconds "${1:-1}" --depth 16 --size 8M --timeout 120 "${@:2}"; }
uid_of() { sed -n 's/^Uid:\t*\([0-9]*\).*/\1/p' "/proc/$1/status"; }
same() { [ "$(child)" = "$1" ]; }

# --- nbdkit -----------------------------------------------------------------------
ok "attach nbdkit's memory" attach 'nbdkit(memory, "64M")'
ok "it shows how it is served" shows "nbdkit memory.*several connections"
ok "verified load on several queues" verify 1 --queues 2
c=$(child)
ok "it is nbdkit" grep -q nbdkit "/proc/$c/comm"
if [ "$(id -u)" = 0 ]; then
	ok "of a user of its own" [ "$(uid_of "$c")" -ge 2098528256 ]
	ok "... not the worker's" [ "$(uid_of "$c")" != "$(uid_of "$(worker)")" ]
fi
ok "without capabilities" grep -q '^CapEff:.0*$' "/proc/$c/status"
ok "that it cannot get back" grep -q '^NoNewPrivs:.1' "/proc/$c/status"
# Its listener, its connections, its own pipe and what is on /dev/null; the worker
# has sockets to the broker, which none of these are.
strange_files() { find "/proc/$c/fd" -lname '/*' -printf '%l\n' | grep -v '^/dev/null$'; }
ok "with no file of ours" fails 1 '' strange_files
environment() { tr '\0' '\n' < "/proc/$c/environ" | cut -d= -f1 | sort | tr '\n' ' '; }
ok "and an environment of a few words" \
	[ "$(environment)" = "HOME LC_ALL LD_PRELOAD LISTEN_FDS LISTEN_PID PATH XENDISK_FILES " ]
# no_disk PATTERN EXPRESSION: it is not attached, and that is why.
no_disk()
{
	local rc=0
	fails 1 "$1" attach "$2" || rc=$?
	detach || :
	return $rc
}
session() { [ "$(cut -d' ' -f6 "/proc/$c/stat")" = "$c" ]; }
ok "in a session of its own" session
ok "detach" detach
ok "leaves no process" eventually 10 is_gone "$c"
ok "... and no note" eventually 5 no_child

# --- What does not start --------------------------------------------------------------
ok "a plugin that is not there" \
	no_disk "nbdkit exited with status 1: nbdkit: error: cannot open plugin 'nosuch'" \
	'nbdkit(nosuch)'
ok "a parameter that it does not know" \
	no_disk "nbdkit: error: unknown parameter 'color'" \
	'nbdkit(memory, "1M", "color=blue")'
ok "a filter that is not there" no_disk "cannot open filter 'nosuch'" \
	'nbdkit(memory, "1M", filter=nosuch)'
ok "an option in the place of a parameter" \
	fails 1 'does not begin with -' xendisk check 'nbdkit(memory, "--run=id")'
ok "a parameter without quotes" \
	fails 1 'no option "size"; what is no option stands in quotes' \
	xendisk check 'nbdkit(memory, size=1M)'
ok "what is repeated is printed again" \
	says '^nbdkit(memory, 1M, "a=b", filter=x, filter=y)$' \
	xendisk check 'nbdkit(memory,"1M","a=b",filter=x,filter=y)'
ok "nothing is left of them" eventually 10 no_child

# --- One that holds data is not replaced by an empty one ------------------------------------
ok "attach memory" attach 'nbdkit(memory, "16M")'
does "write 0 4096 0x41" "flush"
kill -9 "$(child)"
does "read 0 4096" > "$tmp/out" 2>&1 & waiting=$!
cleanup_pids+=("$waiting")
ok "dead, it shows" eventually 10 reason_is "what it held is lost"
sleep 0.3
ok "... and the guest is not given another disk" kill -0 "$waiting"
daemon_stop
daemon_start
ok "... by the next daemon either" eventually 20 reason_is "what it held is lost"
end_process "$waiting"
toolstack detach "$d" xvdb --force > /dev/null 2>&1 || :
ok "it goes" eventually 60 says '"disks": *\[\]' xendisk --json list

# --- One that keeps its data elsewhere is -----------------------------------------------------
d=$(domain)
chmod 666 "$tmp/image"
chmod 711 "$tmp"
load_goes_on()
{
	while [ -e "$tmp/go" ]; do
		verify 2 || { echo "a round has failed"; return; }
	done
}
all_rounds_ended() { load_ended && ! grep "has failed" "$tmp/out"; }
killed_under_load()
{
	local old i
	touch "$tmp/go"
	load_goes_on > "$tmp/out" 2>&1 & load=$!
	cleanup_pids+=("$load")
	for ((i = 0; i < $2; i++)); do
		sleep 0.3
		old=$(child)
		[ -z "$old" ] || kill -9 "$old" || :
		eventually 60 another_child "$old"
	done
	rm "$tmp/go"
	ok "$1" all_rounds_ended
}
ok "attach a file by nbdkit" attach "nbdkit(file, \"$tmp/image\", fence=0s)"
killed_under_load "nbdkit file, killed $kills times: no guest error" "$kills"
verify 4 > "$tmp/out" 2>&1 & load=$!
cleanup_pids+=("$load")
sleep 0.5
w=$(worker) c=$(child)
kill -9 "$w" "$c"
ok "another child" eventually 60 another_child "$c"
ok "another worker" eventually 20 another_worker "$w"
ok "the child and its worker killed together" load_ended

# --- The daemon dies ------------------------------------------------------------------------
c=$(child)
verify 3 > "$tmp/out" 2>&1 & load=$!
cleanup_pids+=("$load")
sleep 0.5
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null || :
sleep 0.3
ok "without a daemon it lives on" fails 1 '' is_gone "$c"
XENSTORED_PATH=$tmp/none timeout 20 "$top_builddir/xendiskd" --foreground \
	--run-dir "$tmp/run" --state-dir "$tmp/state" --config "$tmp/xendiskd.conf" \
	--backend-dir "$top_builddir/backends/.libs" >> "$tmp/log" 2>&1 || :
ok "... and with one that cannot start" fails 1 '' is_gone "$c"
daemon_start
ok "the guest has noticed nothing" load_ended
ok "the next daemon has the same child" same "$c"
kill -9 "$c"
ok "... and replaces it when a guest comes" verify 1
ok "... by another" another_child "$c"
c=$(child)
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null || :
# One that has found it, and has more files open than select() can tell of.
cat > "$tmp/many" <<END
#!/bin/bash
ulimit -n 4096
exec 3< /dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3
for ((i = 0; i < 1100; i++)); do exec {fd}< /dev/null; done
exec "$top_builddir/xendiskd" "\$@"
END
chmod 755 "$tmp/many"
XENDISKD=$tmp/many daemon_start
ok "the next daemon has the same child" same "$c"
rc=0
kill "$daemon_pid"
wait "$daemon_pid" || rc=$?
ok "a daemon that is told to end ends well" [ $rc = 0 ]
ok "... and leaves none" eventually 10 is_gone "$c"
daemon_start
ok "the next one starts it when it is needed" verify 1
detach

# --- One that cannot start leaves what it has claimed ---------------------------------------
cannot_start()
{
	XENSTORED_PATH=$tmp/none fails 1 "cannot start: xenstore" timeout 20 \
		"$top_builddir/xendiskd" --foreground --run-dir "$tmp/run" \
		--state-dir "$tmp/state" --config "$tmp/xendiskd.conf" \
		--backend-dir "$top_builddir/backends/.libs"
}
worker_notes() { find "$tmp/run/workers" -name '[0-9]*' -printf '%f\n'; }
live_workers() { local w; for w in $(worker_notes); do is_gone "$w" || echo "$w"; done; }
no_worker() { live_workers; [ -z "$(live_workers)" ]; }
head -c 1M /dev/urandom > "$tmp/pattern"
uri=$(xendisk export 'nbdkit(memory, "1M")' --name own)
ok "an export's child has data" nbdcopy "$tmp/pattern" "$uri"
c=$(child)
kill -9 "$daemon_pid" "$(live_workers)"
wait "$daemon_pid" 2>/dev/null || :
ok "the daemon and the export's worker are dead" eventually 5 no_worker
ok "the next daemon cannot start" cannot_start
ok "... and the child lives on" fails 1 '' is_gone "$c"
ok "... with its note" same "$c"
daemon_start
ok "the one after it has the child" same "$c"
timeout 30 nbdcopy "$uri" "$tmp/copy" || :
ok "... with its data" cmp "$tmp/pattern" "$tmp/copy"
xendisk unexport own
ok "without the export it ends" eventually 10 is_gone "$c"

# --- The next disk waits for the last one's child ------------------------------------------
# after_the_last WHAT: its child is slow to end; the next disk begins meanwhile.
after_the_last()
{
	c=$(child)
	kill -STOP "$c"
	detach
	[ "$1" != "another guest's" ] || d=$(domain)
	(sleep 1 && kill -CONT "$c") &
	ok "$1 disk, while the last child has not ended" \
		attach "nbdkit(file, \"$tmp/image\", fence=0s)"
	ok "... waits for that" is_gone "$c"
	ok "... and its own is noted" another_child "$c"
	ok "... and does its work" verify 1
}
attach "nbdkit(file, \"$tmp/image\", fence=0s)"
verify 1
after_the_last "the same guest's"
after_the_last "another guest's"
detach

# --- Images -----------------------------------------------------------------------------------
qemu-img create -q -f qcow2 "$tmp/a.qcow2" 32M
qemu-img create -q -f vpc "$tmp/a.vhd" 32M
chmod 600 "$tmp/a.qcow2" "$tmp/a.vhd"
for image in qcow2 vhd; do
	ok "attach $image" attach "$image:$tmp/a.$image"
	ok "$image: verified load" verify 1 --queues 2
	if [ $image = qcow2 ]; then
		ok "it is locked as QEMU locks images" \
			fails 1 lock qemu-img info "$tmp/a.qcow2"
	fi
	killed_under_load \
		"$image, killed $image_kills times under load: no guest error" \
		"$image_kills"
	does "write 0 4096 0x51" "flush" > /dev/null
	c=$(child)
	ok "$image: detach" detach
	ok "$image: no process is left" eventually 10 is_gone "$c"
done
# 3: clusters that nobody uses, which a kill may leave.
sound() { local rc=0; qemu-img check "$tmp/a.qcow2" || rc=$?; [ $rc = 0 ] || [ $rc = 3 ]; }
ok "qcow2 is sound" sound
qemu-img create -q -f qcow2 "$tmp/b.qcow2" 8M
qemu-img convert -O raw "$tmp/a.qcow2" "$tmp/a.raw"
qemu-img convert -O vmdk "$tmp/a.raw" "$tmp/a.vmdk"
ok "attach vmdk" attach "vmdk:$tmp/a.vmdk"
ok "vmdk has the bytes" says "= 0x51" does "read 0 4096"
ok "vmdk cannot be written" does "write 0 4096 0x61 expect=-1"
detach

qemu-img create -q -f qcow2 -F raw -b /etc/passwd "$tmp/evil.qcow2" 1M
ok "a backing file is refused" no_disk "has a backing file" \
	"qcow2:$tmp/evil.qcow2"
qemu-img create -q -f qcow2 -o "data_file=$tmp/data" "$tmp/data.qcow2" 1M
ok "a data file is refused" no_disk "in another file" \
	"qcow2:$tmp/data.qcow2"
qemu-img create -q -f vmdk -o subformat=monolithicFlat "$tmp/flat.vmdk" 1M
ok "a vmdk of several files is refused" no_disk "names others" \
	"vmdk:$tmp/flat.vmdk"
# One file as to its head, and yet a list of others: it says that it has 0 sectors.
{
	printf 'KDMV\1\0\0\0\3\0\0\0'
	head -c 16 /dev/zero
	printf '\1\0\0\0\0\0\0\0\24\0\0\0\0\0\0\0'
	head -c 468 /dev/zero
	printf '%s\n' '# Disk DescriptorFile' version=1 CID=1 parentCID=ffffffff \
		'createType="monolithicFlat"' "RW 2048 FLAT \"$tmp/flat-flat.vmdk\" 0"
	head -c 1M /dev/zero
} > "$tmp/list.vmdk"
ok "QEMU would open what it names" says flat-flat.vmdk \
	qemu-img info --image-opts "driver=vmdk,file.filename=$tmp/list.vmdk"
ok "it is refused, too" no_disk "names other files" "vmdk:$tmp/list.vmdk"
qemu-img create -q -f vmdk -F vmdk -b "$tmp/a.vmdk" "$tmp/child.vmdk" 2> /dev/null
ok "a vmdk with a parent is refused" no_disk "has a parent" \
	"vmdk:$tmp/child.vmdk"
ok "what is no image is refused" no_disk "no qcow2 image" \
	"qcow2:$tmp/a.raw"
ok "... for vhd" no_disk "no VHD image" "vhd:$tmp/a.qcow2"
ok "no file" no_disk "$tmp/none: No such file" "qcow2:$tmp/none"
ok "read-only" attach "readonly(qcow2:$tmp/b.qcow2)"
ok "is that" does "write 0 4096 0x61 expect=-1"
detach
ok "an image below cow" attach "cow(qcow2:$tmp/a.qcow2, mem)"
ok "... is read through it" says "= 0x51" does "read 0 4096"
ok "... and other bytes would be noticed" \
	fails 1 "instead of 0" says "= 0x52" does "read 0 4096"
detach

# --- What examples/ and the pages show ------------------------------------------------------------
mkdir -m 755 "$tmp/site"
echo "hello from the host" > "$tmp/site/hello.txt"
chmod 644 "$tmp/site/hello.txt"
backup() { XENDISK_RUN_DIR=$tmp/run "$top_srcdir/examples/backup" "$d" 51728 "$1"; }
ok "attach a folder as a floppy" attach "nbdkit(floppy, \"$tmp/site\")"
ok "copy it" backup "$tmp/floppy"
ok "the file is in it" grep -q "hello from the host" "$tmp/floppy"
ok "... and no other" fails 1 "" grep -q "hello from nobody" "$tmp/floppy"
detach
ok "attach an image" attach "qcow2:$tmp/a.qcow2"
does "write 16M 1M 0x71" "flush" > /dev/null
verify 3 > "$tmp/out" 2>&1 & load=$!
cleanup_pids+=("$load")
sleep 0.3
ok "back it up while its guest writes" backup "$tmp/backup"
ok "the guest goes on" load_ended
copied() { cmp <(head -c 1M /dev/zero | tr '\0' q) <(dd if="$tmp/backup" bs=1M skip="$1" count=1 status=none); }
ok "what it had flushed is in the copy" copied 16
ok "... where it was written" fails 1 differ copied 17
detach

# --- Without a daemon -----------------------------------------------------------------------------
daemon_stop
qemu-img convert -O raw "$tmp/a.qcow2" "$tmp/a.raw"
serves() { "$top_builddir/xendisk" serve --backend-dir "$top_builddir/backends/.libs" "$@"; }
# shellcheck disable=SC2016  # for the command's shell
ok "xendisk serve" serves "qcow2:$tmp/a.qcow2" \
	--run "nbdcopy \$uri - | cmp - $tmp/a.raw"
# shellcheck disable=SC2016
ok "... nbdkit" serves 'nbdkit(memory, "8M")' --run 'nbdinfo --size $uri'
ok "... what does not start" fails 1 "nbdkit.*nosuch" \
	serves 'nbdkit(nosuch)' --run true
"$top_builddir/xendisk" serve --backend-dir "$top_builddir/backends/.libs" \
	--socket "$tmp/serve.sock" "qcow2:$tmp/a.qcow2" \
	> "$tmp/uri" 2> "$tmp/err" & killed=$!
cleanup_pids+=("$killed")
eventually 20 test -s "$tmp/uri"
kill -9 "$killed"
wait "$killed" || :
ok "... qemu-nbd lets go of the image when that was killed" \
	eventually 20 serves "qcow2:$tmp/a.qcow2" --run true
# shellcheck disable=SC2016
ok "... and its mark is not the command's" \
	serves 'mem(1M)' --run '! env | grep -q XENDISK_SERVE'
