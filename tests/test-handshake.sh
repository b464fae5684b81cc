#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2317,SC2119  # called by ok
# The xenbus handshake between the daemon, a toolstack and guests: what may go
# wrong, come late, or come twice.
set -euo pipefail
. "${top_srcdir:-.}/tests/functions.sh"
requires xenstore-read xenstore-write xenstore-ls

devid=51728 # xvdb
be() { echo "/local/domain/0/backend/${2:-vbd}/$1/$devid"; }
fe() { echo "/local/domain/$1/device/vbd/$devid"; }
key() { xenstore-read "$1" 2>/dev/null; }
is() { [ "$(key "$1")" = "$2" ] || { echo "$1 is $(key "$1"), not $2"; false; }; }
gone() { ! xenstore-exists "$1"; }
# Nothing of the disk of domain $1 is left.
clean() { gone "$(be "$1")" && gone "$(fe "$1")" && gone "/libxl/$1/device/vbd/$devid"; }
gone_from_list() { ! xendisk --json list | grep -q "\"domid\": $1,"; }
# A background command has ended well.
ok_ended() { local rc=0; wait "$2" || rc=$?; ok "$1" [ "$rc" = 0 ]; }

sim_start
# All backends, and the example that can be slow.
mkdir "$tmp/backends"
ln -s "$top_builddir"/backends/.libs/*.so "$top_builddir"/examples/.libs/*.so "$tmp/backends"
start() { daemon_start --backend-dir "$tmp/backends" --log-level debug; }
start

# --- A slow open delays nobody ------------------------------------------------
slow=$(domain)
quick=$(domain)
toolstack attach "$slow" xvdb 'pattern(1M, open-delay=6s)' & slow_attach=$!
ok "the slow disk is offered while it is opened" eventually 30 is "$(be "$slow")/state" 2
ok "its neighbour is attached meanwhile" toolstack attach "$quick" xvdb 'mem(1M)'
ok "... and works" says flushed guest "$quick" xvdb flush
ok "... and is detached" toolstack detach "$quick" xvdb
not_yet() { kill -0 "$slow_attach" && is "$(be "$slow")/state" 2 && [ "$(state_of "$slow" xvdb)" = opening ]; }
ok "the slow one is still being opened" not_yet
ok_ended "it is attached in the end" $slow_attach
ok "... and can be read" says "sectors=2048" guest "$slow" xvdb info
ok "... and detached" toolstack detach "$slow" xvdb
ok "nothing is left" clean "$slow"

# --- A target that cannot be opened -------------------------------------------
d=$(domain)
ok "a missing file: the reason is told" fails 1 "$tmp/none.img.*No such file" \
	toolstack attach "$d" xvdb "$tmp/none.img"
ok "... and stands in xenstore" is "$(be "$d")/hotplug-status" error
as_guest() { XENSTORED_PATH=$XENSIM_DIR/xenstore-$d "$@"; }
ok "... where the guest cannot read it" fails 1 "" as_guest xenstore-read "$(be "$d")/hotplug-error"
ok "... and xendisk list calls it failed" says failed xendisk list
ok "... which resume does not mend" fails 1 'resume: .*has failed.*No such file' \
	xendisk resume "$d" xvdb
ok "... nor with a loss accepted" fails 1 'resume: .*has failed.*No such file' \
	xendisk resume "$d" xvdb --accept-loss
ok "detach works" toolstack detach "$d" xvdb
ok "nothing is left" clean "$d"
ok "an expression that is wrong: where" fails 1 'at byte 0 of "nonsense' \
	toolstack attach "$d" xvdb 'nonsense(1M)'
toolstack detach "$d" xvdb

# --- What the guest may see ---------------------------------------------------
truncate -s 8M "$tmp/a.img"
ok "attach" toolstack attach "$d" xvdb "$tmp/a.img"
ok "the guest reads mode" as_guest xenstore-read "$(be "$d")/mode"
ok "the guest cannot read params" fails 1 "" as_guest xenstore-read "$(be "$d")/params"

# --- Written key by key -------------------------------------------------------
# piecemeal KIND KEY VALUE...: by a toolstack without transactions, which begins with
# what says whose disk it is.
piecemeal()
{
	local b
	b=$(be "$quick" "$1")
	shift
	xenstore-write "$(fe "$quick")/state" 1
	xenstore-write "$b/frontend" "$(fe "$quick")"
	sleep 0.3
	xenstore-write "$b/frontend-id" "$quick" "$b/online" 1 "$b/mode" w
	while [ $# -gt 0 ]; do
		xenstore-write "$b/$1" "$2"
		sleep 0.1
		shift 2
	done
}
piecemeal vbd params 'mem(1M)' state 1 script "$hotplug_script"
ok "a disk whose script comes last is offered" eventually 5 is "$(be "$quick")/state" 2
xenstore-rm "$(be "$quick")"
ok "... and goes" eventually 5 gone_from_list "$quick"
piecemeal xendisk dev xvdb params 'mem(1M)' state 1
ok "one of our own kind whose target comes late is, too" \
	eventually 5 is "$(be "$quick" xendisk)/state" 2
xenstore-rm "$(be "$quick" xendisk)"
ok "... and goes" eventually 5 gone_from_list "$quick"
xenstore-rm "$(fe "$quick")"

# --- Reconnecting -------------------------------------------------------------
ok "six connections, each with other queues and ring order" \
	guest "$d" xvdb verify --reconnect 6 --requests 300 --seconds 20
ok "4 queues of 4 pages" guest "$d" xvdb info --queues 4 --order 2
ok "then one queue of one page" says "connected.queues=1" guest "$d" xvdb info
ok "the old queues' keys are gone" gone "$(fe "$d")/queue-1"

# --- Detach while in use ------------------------------------------------------
mkfifo "$tmp/orders"
guest "$d" xvdb script < "$tmp/orders" > "$tmp/answers" 2>&1 & user=$!
exec 7> "$tmp/orders"
echo "write 0 4096 0x11" >&7
ok "a guest uses the disk" eventually 30 grep -q "^0 write" "$tmp/answers"
ok "detach is refused" fails 1 "unable to remove" \
	env XENSIM_LIBXL_TIMEOUT=1 "$xensim" toolstack detach "$d" xvdb
ok "the disk is closing" is "$(be "$d")/state" 5
echo "read 0 4096" >&7
ok "... and still serves" eventually 30 grep -q "^0 read 0 4096 = 0x11" "$tmp/answers"
exec 7>&-
ok_ended "the guest lets it go" $user
ok "it is closed" eventually 30 is "$(be "$d")/state" 6
ok "detach, again" toolstack detach "$d" xvdb
ok "nothing is left" clean "$d"

# --- A guest that says nonsense -----------------------------------------------
ok "attach" toolstack attach "$d" xvdb "$tmp/a.img"
as_guest xenstore-write "$(fe "$d")/event-channel" 0x7 "$(fe "$d")/ring-ref" 8
as_guest xenstore-write "$(fe "$d")/state" 3
ok "a bad number closes its disk" eventually 30 is "$(be "$d")/state" 6
ok "... for a reason" says "event-channel: not a number" \
	xenstore-read "/local/domain/0/error/backend/vbd/$d/$devid/error"
as_guest xenstore-write "$(fe "$d")/state" 1
ok "Initialising opens it again" eventually 30 is "$(be "$d")/state" 2
ok "... for a guest that is right" says flushed guest "$d" xvdb flush

# --- A guest that never stops -------------------------------------------------
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$daemon_pid/status"; }
before=$(rss)
flap() {
	local pairs=() i
	for ((i = 0; i < 500; i++)); do
		pairs+=("$(fe "$d")/state" $((i % 7)) "$(fe "$d")/state/a" "$i")
	done
	for ((i = 0; i < 25; i++)); do as_guest xenstore-write "${pairs[@]}"; done
}
flap & flapper=$!
ok "a neighbour of a guest that flaps is attached" toolstack attach "$quick" xvdb 'mem(1M)'
ok "... and works" says "verify: ok" guest "$quick" xvdb verify --requests 300 --seconds 10
wait $flapper
ok "... and is detached" toolstack detach "$quick" xvdb
small() { local now; now=$(rss); [ $((now - before)) -lt 1024 ] || { echo "$before to $now KiB"; false; }; }
ok "flapping costs no memory" small
as_guest xenstore-write "$(fe "$d")/state" 6
ok "the flapping disk is detached" toolstack detach "$d" xvdb

# --- Domains that end ---------------------------------------------------------
ok "attach" toolstack attach "$d" xvdb "$tmp/a.img"
guest "$d" xvdb hold > "$tmp/held" 2>&1 & user=$!
ok "a guest is connected" eventually 30 grep -q "^connected" "$tmp/held"
ok "it is destroyed" "$xensim" domain destroy "$d"
ok "nothing is left" eventually 30 clean "$d"
wait $user || :
ok "its worker has ended" eventually 30 fails 4 "" xendisk show "$d" xvdb

d=$(domain)
ok "attach" toolstack attach "$d" xvdb "$tmp/a.img"
guest "$d" xvdb hold > "$tmp/held" 2>&1 & user=$!
ok "a guest is connected" eventually 30 grep -q "^connected" "$tmp/held"
"$xensim" domain kill "$d"
wait $user || :
ok "killed, and its keys are left: that counts as Closed" eventually 30 is "$(be "$d")/state" 6
next=$(domain)
ok "its image is free at once" toolstack attach "$next" xvdb "$tmp/a.img"
ok "... and works" says flushed guest "$next" xvdb flush
ok "... and is detached" toolstack detach "$next" xvdb
ok "detach" toolstack detach "$d" xvdb --force

# --- Others' disks ------------------------------------------------------------
d=$(domain)
env XENSIM_LIBXL_TIMEOUT=1 "$xensim" toolstack attach "$d" xvdb "$tmp/a.img" \
	--script /etc/xen/scripts/block 2> /dev/null || :
ok "a disk with another script is not touched" is "$(be "$d")/state" 1
ok "... not even its permissions" as_guest xenstore-read "$(be "$d")/params"
env XENSIM_LIBXL_TIMEOUT=1 "$xensim" toolstack detach "$d" xvdb --force > /dev/null 2>&1 || :

# --- A toolstack that is earlier than the daemon ------------------------------
daemon_stop
toolstack attach "$d" xvdb "$tmp/a.img" & early=$!
ok "a disk waits for the daemon" eventually 30 is "$(be "$d")/state" 1
start
ok_ended "... and is served when that is there" $early
ok "... for the guest" says "verify: ok" guest "$d" xvdb verify --requests 300 --seconds 10

ok "detach" toolstack detach "$d" xvdb
daemon_stop
toolstack attach "$d" xvdb "$tmp/a.img" & early=$!
eventually 30 is "$(be "$d")/state" 1
xenstore-write "$(be "$d")/state" 2 # as xen-blkback does, and xl runs the script
sleep 0.5
start
ok_ended "the script waits for the daemon, too" "$early"
ok "... for the guest" says flushed guest "$d" xvdb flush

# --- A daemon that is killed --------------------------------------------------
guest "$d" xvdb script < "$tmp/orders" > "$tmp/answers" 2>&1 & user=$!
exec 7> "$tmp/orders"
echo "write 0 4096 0x22" >&7
ok "a guest uses the disk" eventually 30 grep -q "^0 write" "$tmp/answers"
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null || :
start 7>&- # else the guest would never see its end
echo "read 0 4096" >&7
ok "the next daemon serves it on the same rings" \
	eventually 20 grep -q "^0 read 0 4096 = 0x22" "$tmp/answers"
ok "... which stayed connected" is "$(be "$d")/state" 4
exec 7>&-
ok_ended "the guest saw nothing" $user
ok "detach" toolstack detach "$d" xvdb
ok "nothing is left" clean "$d"

# --- backend/vbd3 -------------------------------------------------------------
ok "backendtype=tap: backend/vbd3, aio: in front" toolstack attach "$d" xvdb "aio:$tmp/a.img" --kind vbd3
ok "... works" says flushed guest "$d" xvdb flush
ok "... and is detached" toolstack detach "$d" xvdb

# --- Kind xendisk: no toolstack, no script ------------------------------------
other=$(domain)
ok "attach --direct" says xvdb xendisk attach "$other" 'mem(1M)' --vdev xvdb --direct
ok "... works" says flushed guest "$other" xvdb flush
ok "xl's in the same place is refused" fails 1 "another disk there .*xendisk/$other/$devid" \
	toolstack attach "$other" xvdb 'mem(2M)'
ok "... and is not the one that is meant" says "^expression  *mem(1M)" \
	xendisk show "$other" xvdb
ok "... and detached" toolstack detach "$other" xvdb --force
ok "the first one is still there" says '1M.*mem(1M)' xendisk list "$other"
ok "... with its socket" test -S "$tmp/run/nbd/$other-$devid.sock"
ok "... and what it has kept" test -e "$tmp/run/keep/$other-$devid.id"
ok "... is detached" xendisk detach "$other" xvdb
ok "... leaving no empty directory" gone "/local/domain/0/backend/xendisk/$other"
ok "attach, again" says xvdb xendisk attach "$other" 'mem(1M)' --vdev xvdb --direct
ok "... tells why it cannot" fails 1 "No such file" \
	xendisk attach "$other" "$tmp/none.img" --vdev xvdc --direct
ok "a guest that removes its own side" env XENSTORED_PATH="$XENSIM_DIR/xenstore-$other" \
	xenstore-rm "$(fe "$other")"
xenstore-write "$(be "$other" xendisk)/left" 1
ok "... can be given another disk there" says xvdb \
	xendisk attach "$other" 'mem(2M)' --vdev xvdb --direct
ok "... with nothing of the last one" gone "$(be "$other" xendisk)/left"
ok "the domain is destroyed" "$xensim" domain destroy "$other"
ok "its directories go with it" eventually 30 gone "/local/domain/0/backend/xendisk/$other"
ok "no errors are left" gone "/local/domain/0/error/backend"

# --- By force, while its worker hangs -------------------------------------------
d=$(domain)
# hung COMMAND...: a guest's disk is taken away so; 5 s later its place can be had.
hung()
{
	local user worker
	guest "$d" xvdb hold > "$tmp/held" 2>&1 & user=$!
	eventually 30 grep -q "^connected" "$tmp/held"
	worker=$(xendisk --json show "$d" xvdb | sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p')
	kill -STOP "$worker"
	"$@" > /dev/null 2>&1 || :
	kill -9 "$user"
	wait "$user" || :
	eventually 5 gone "$(fe "$d")"
}
by_xl() { XENSIM_LIBXL_TIMEOUT=6 "$xensim" toolstack detach "$d" xvdb --force; }
directly() { xendisk detach "$d" xvdb --force --timeout 6; }
ok "attach" toolstack attach "$d" xvdb 'mem(1M)'
ok "it is taken away" hung by_xl
ok "another one is attached there" toolstack attach "$d" xvdb 'mem(1M)'
ok "... and taken away" hung by_xl
ok "one of our own kind is attached there" timeout 8 "$top_builddir/xendisk" \
	--run-dir "$tmp/run" attach "$d" 'mem(1M)' --vdev xvdb --direct
ok "... and taken away" hung directly
ok "another one is attached there" timeout 8 "$top_builddir/xendisk" \
	--run-dir "$tmp/run" attach "$d" 'mem(1M)' --vdev xvdb --direct
ok "... and works" says flushed guest "$d" xvdb flush
ok "detach" xendisk detach "$d" xvdb

# --- Gone while no daemon ran ---------------------------------------------------
stays=$(domain)
goes=$(domain)
error() { echo "/local/domain/0/error/backend/vbd/$1/$devid/error"; }
for d in "$stays" "$goes"; do
	ok "what cannot be attached" fails 1 "No such file" toolstack attach "$d" xvdb "$tmp/none.img"
	ok "... leaves an error" says "No such file" xenstore-read "$(error "$d")"
done
daemon_stop
XENSIM_LIBXL_TIMEOUT=1 "$xensim" toolstack detach "$goes" xvdb --force > /dev/null 2>&1 || :
ok "one of them goes, and nobody sees it" clean "$goes"
start
ok "the next daemon removes its error" eventually 10 gone "$(error "$goes")"
ok "... and no other" says "No such file" xenstore-read "$(error "$stays")"
ok "detach" toolstack detach "$stays" xvdb
ok "no errors are left" eventually 10 gone "/local/domain/0/error/backend"
daemon_stop

# --- A driver domain ----------------------------------------------------------
# There `xl devd` runs the script.
dd=$(domain)
eval "$("$xensim" env "$dd")"
start
ddbe=/local/domain/$dd/backend/vbd/$d/$devid
toolstack attach "$d" xvdb "$tmp/a.img" --backend "$dd" & attach=$!
ok "in a driver domain: offered" eventually 30 is "$ddbe/state" 2
ok "... opened" env "XENBUS_PATH=backend/vbd/$d/$devid" "$hotplug_script" add
ok_ended "... attached" $attach
ok "... shown by its domain's number" says '"state": "waiting"' xendisk --json show "$d" xvdb
ok "... a number that has none is refused" fails 4 'domain "*4000' \
	xendisk show 4000 xvdb
ok "... used" says "verify: ok" guest "$d" xvdb verify --requests 300 --seconds 10
ok "... detached" toolstack detach "$d" xvdb --backend "$dd"
daemon_stop
finish
