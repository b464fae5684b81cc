#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# A guest under load whose worker is killed, whose daemon is stopped and started:
# it must notice nothing.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"

sim_start
daemon_start
truncate -s 32M "$tmp/raw.img" "$tmp/gold.img"
worker_of()
{
	xendisk --json show "$1" xvdb |
		sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p' | head -1
}
served() { local pid; pid=$(worker_of "$1"); [ "${pid:-0}" -gt 1 ]; }
# Random requests, checked against a model; all queues and ABIs in turn.
load()
{
	guest "$1" xvdb verify --seconds 4 --size 8M --depth 16 "${@:2}" \
		> "$tmp/out" 2>&1 & verify=$!
	sleep 1
}
survived() { local rc=0; wait "$verify" || rc=$?; ok "$1" said "$rc"; }
said() { cat "$tmp/out"; [ "$1" = 0 ] && grep -q ' 0 errors' "$tmp/out"; }
kill_worker() { eventually 5 served "$1" && kill -9 "$(worker_of "$1")"; }
one_kill() { kill_worker "$1" && sleep 0.7; }

kills()
{
	local d
	d=$(domain)
	ok "$1: attach" toolstack attach "$d" xvdb "$1"
	load "$d" "${@:2}"
	for i in 1 2 3; do ok "$1: kill $i" one_kill "$d"; done
	survived "$1: the guest has noticed nothing"
	ok "$1: the worker was another one in the end" at_least 1 \
		grep -c "goes on after a worker died" "$tmp/log"
	: > "$tmp/log"
	ok "$1: detach" toolstack detach "$d" xvdb
}
at_least() { local n; n=$("${@:2}"); echo "$n"; [ "$n" -ge "$1" ]; }

kills "raw($tmp/raw.img)" --queues 4 --order 2 --abi x86_32
kills "cow($tmp/gold.img, mem)" --queues 2

# --- Stopped and started again -------------------------------------------------
d=$(domain)
ok "attach" toolstack attach "$d" xvdb "$tmp/raw.img"
load "$d" --queues 2
ok "the daemon stops" daemon_stop
sleep 0.5
daemon_start
survived "the daemon starts again: the guest has noticed nothing"
ok "detach" toolstack detach "$d" xvdb

# --- Killed ----------------------------------------------------------------------
# Its workers go on serving, and the next one takes them over as they are.
restarts() { xendisk --json show "$1" xvdb | sed -n 's/.*"restarts": \([0-9]*\).*/\1/p'; }
same_worker() { [ "$(worker_of "$1")" = "$2" ] && [ "$(restarts "$1")" = "$3" ]; }
kill_daemon() { kill -9 "$daemon_pid"; wait "$daemon_pid" 2>/dev/null || :; }
# The time that the main thread of a process has had, in ticks.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/task/$1/stat"; }
idles() { local t; t=$(ticks "$1"); sleep 1; [ $(($(ticks "$1") - t)) -lt 5 ]; }
ok "attach" toolstack attach "$d" xvdb "$tmp/raw.img"
load "$d" --queues 2 --seconds 6
eventually 5 served "$d"
first=$(worker_of "$d")
kill_worker "$d"
# The broker may still be to hear of that death.
settled() { served "$1" && [ "$(worker_of "$1")" != "$first" ] && says '"conditions": *\[\]' xendisk --json show "$1" xvdb; }
ok "a worker that is not the first serves" eventually 20 settled "$d"
orphan=$(worker_of "$d")
kill_daemon
sleep 0.5
ok "the daemon is killed: its worker lives on" kill -0 "$orphan"
ok "... and waits without spinning" idles "$orphan"
daemon_start
ok "the next one takes it over" eventually 5 same_worker "$d" "$orphan" 1
kill_daemon
daemon_start
ok "... and so does the one after that" eventually 5 same_worker "$d" "$orphan" 1
survived "the daemon is killed: the guest has noticed nothing"
ok "detach" toolstack detach "$d" xvdb
ok "the worker ends" eventually 10 is_gone "$orphan"

# --- A log that cannot be true ------------------------------------------------------
# Nothing can be done for that guest, and it is said once.
ok "attach" toolstack attach "$d" xvdb "$tmp/raw.img"
meet "$d"
: > "$tmp/log"
printf 'nonsense' | dd of="$tmp/run/keep/$d-51728.disk.inflight" conv=notrunc 2> /dev/null
kill_worker "$d"
failed() { [ "$(state_of "$d" xvdb)" = failed ]; }
ok "its log is overwritten: the disk has failed" eventually 10 failed
ok "... and what can be done is told" says 'log is not one; end the guest, or detach' \
	xendisk show "$d" xvdb
ok "resume does not mend it" fails 1 'has failed.*log is not one' xendisk resume "$d" xvdb
sleep 2
once() { local n; n=$(grep -c "$1" "$tmp/log"); echo "$n times"; [ "$n" = 1 ]; }
ok "... which is said once" once 'log is not one'
exec 8>&-
wait "$script" || :
ok "the next guest is served" guest "$d" xvdb script <<< "write 0 4096 0x11"
ok "detach" toolstack detach "$d" xvdb

# --- What is temporary -------------------------------------------------------------
# It is gone after a detach, whoever has died before.
truncate -s 32M "$tmp/top.img"
blocks() { stat -c %b "$tmp/top.img"; }
is_empty() { [ "$(blocks)" = 0 ]; }
is_written() { ! is_empty; }
for death in worker broker both; do
	ok "attach cow on a file" toolstack attach "$d" xvdb \
		"cow($tmp/gold.img, raw($tmp/top.img))"
	ok "write" guest "$d" xvdb script <<< "write 0 1M 0x11"
	ok "it is on top" is_written
	orphan=$(worker_of "$d")
	[ $death = worker ] || kill_daemon
	[ $death = broker ] || kill -9 "$orphan"
	[ $death = worker ] || daemon_start
	ok "$death killed: detach" toolstack detach "$d" xvdb
	ok "... leaves nothing on top" eventually 5 is_empty
done

# ... and after its domain has ended while there was no daemon, unless somebody else has
# the file by then.
attach_top() { toolstack attach "$1" xvdb "cow($tmp/gold.img, raw($tmp/top.img))"; }
ends() # killed or stopped; destroyed, or only killed: who removes the directory?
{
	ended=$(domain)
	ok "attach cow on a file" attach_top "$ended"
	ok "write" guest "$ended" xvdb script <<< "write 0 1M 0x11"
	if [ "$1" = killed ]; then kill_daemon; else daemon_stop; fi
	"$xensim" domain "$2" "$ended" > /dev/null 2>&1 || :
}
for how in "killed destroy" "stopped destroy" "killed kill" "stopped kill"; do
	# shellcheck disable=SC2086  # two words
	ends $how
	ok "a domain ends without a daemon ($how)" is_written
	daemon_start
	ok "... leaves nothing on top" eventually 5 is_empty
done
# A lease is for a file's owner, and for who may have one of any file.
cat > "$tmp/confined" <<END
#!/bin/sh
exec setpriv --no-new-privs --bounding-set='-all$(sed -n 's/^CapabilityBoundingSet=//p' \
	"$top_srcdir/scripts/xendiskd.service.in" | tr 'A-Z ' 'a-z\n' |
	sed 's/^cap_/,+/' | tr -d '\n')' '${XENDISKD:-$top_builddir/xendiskd}' "\$@"
END
chmod +x "$tmp/confined"
if [ "$(id -u)" = 0 ] && sh "$tmp/confined" --version > /dev/null 2>&1; then
	chown 65534 "$tmp/top.img"
	ends killed destroy
	XENDISKD=$tmp/confined daemon_start
	ok "with what the unit leaves, another user's file is emptied, too" \
		eventually 5 is_empty
	chown 0 "$tmp/top.img"
fi
ends killed destroy
exec 7<> "$tmp/top.img"
daemon_start
sleep 1.5
ok "it is left to who has it open" is_written
exec 7<&-
ends killed destroy
mv "$tmp/top.img" "$tmp/moved.img"
cp "$tmp/moved.img" "$tmp/top.img"
daemon_start
sleep 1.5
ok "another file of that name is left alone" is_written
rm "$tmp/moved.img"

# Somebody has made it his own in place.
head -c 32M /dev/zero | tr '\0' 'x' > "$tmp/mine.img"
fill() { dd if="$tmp/mine.img" of="$tmp/top.img" bs=1M conv=notrunc 2> /dev/null; }
is_mine() { cmp "$tmp/mine.img" "$tmp/top.img"; }
warned() { says "$tmp/top.img: not emptied.*written to since" cat "$tmp/log"; }
for how in "killed destroy" "stopped kill" "killed kill"; do
	# shellcheck disable=SC2086  # two words
	ends $how
	fill
	: > "$tmp/log"
	daemon_start
	ok "what is written over it in place is said to be there ($how)" eventually 5 warned
	ok "... and is" is_mine
done
ok "attach cow on a file" attach_top "$d"
ok "write" guest "$d" xvdb script <<< "write 0 1M 0x11"
kill_daemon
fill
daemon_start
ok "the next daemon has taken the disk over: detach" toolstack detach "$d" xvdb
sleep 1.5
ok "... leaves what was written over it before" is_mine
# Workers note when they write, with a broker or without.
ended=$(domain)
ok "attach cow on a file" attach_top "$ended"
load "$ended" --queues 2
kill_daemon
wait "$verify" || :
ok "a guest goes on writing without a daemon" said 0
"$xensim" domain destroy "$ended" > /dev/null 2>&1 || :
daemon_start
ok "... and leaves nothing on top" eventually 5 is_empty
ended=$(domain)
ok "attach cow on a file" attach_top "$ended"
ok "write" guest "$ended" xvdb script <<< "write 0 1M 0x11"
orphan=$(worker_of "$ended")
kill_daemon
kill -9 "$orphan"
"$xensim" domain destroy "$ended" > /dev/null 2>&1 || :
daemon_start
ok "... nor does one whose worker was killed, too" eventually 5 is_empty

# A daemon that is killed before it is done leaves that to the next.
ok "attach cow on a file" toolstack attach "$d" xvdb \
	"cow($tmp/gold.img, raw($tmp/top.img, lock=no))"
ok "write" guest "$d" xvdb script <<< "write 0 1M 0x11"
exec 7< "$tmp/top.img"
flock 7
ok "it is detached, and cannot be emptied at once" toolstack detach "$d" xvdb
kill_daemon
ok "the daemon is killed" is_written
exec 7<&-
daemon_start
ok "... the next one empties it" eventually 5 is_empty
noted() { find "$tmp/run/keep" -name 'left.*' | grep .; }
ok "... and then the note goes" eventually 5 fails 1 '' noted

# --- Another configuration ---------------------------------------------------------
# A disk that is attached stays what it is; so its memory is not lost.
configure()
{
	daemon_stop
	echo "$1" > "$tmp/xendiskd.conf"
	daemon_start
}
holds() { says '= 0x5a' guest "$d" xvdb script <<< "read 0 4096"; }
configure 'disk "scratch" { expr = "mem(16M)" }'
ok "attach @scratch" toolstack attach "$d" xvdb @scratch
ok "write" guest "$d" xvdb script <<< "write 0 4096 0x5a"
configure 'disk "scratch" { expr = "mem(32M)" }'
ok "the name means another disk: the old one is served" holds
configure ''
ok "the name is gone: the old one is served" holds
ok "detach" toolstack detach "$d" xvdb
ok "now it is no disk's name" \
	fails 1 'no disk "scratch"' toolstack attach "$d" xvdb @scratch
