#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# xendisk replug: the same place, the same expression, opened anew; not before the
# guest has let go, and not before it has asked, if that is wanted.  A named disk
# stands for a branch that moves: what it means has changed when the daemon starts
# again.
. "$(dirname "$0")/functions.sh"
requires xenstore-read xenstore-write xenstore-exists

truncate -s 1M "$tmp/one.img"
truncate -s 2M "$tmp/two.img"
configure() { echo "disk \"web\" { expr = \"$tmp/$1.img\" }" > "$tmp/xendiskd.conf"; }
configure one
sim_start
daemon_start
dom=$(domain --name web1)

frontend=/local/domain/$dom/device/vbd/51728
backend=/local/domain/0/backend/xendisk/$dom/51728
size() { xendisk --json show web1 xvdb | sed -n 's/.*"size": \([0-9]*\).*/\1/p'; }
is_size() { [ "$(size)" = $(($1 << 20)) ]; }
key() { xenstore-read "$backend/$1"; }
# moves IMAGE: what the name means, known to a daemon that starts again; in the
# test's own shell.  The daemon must not keep the pipe to the guest.
moves() { configure "$1"; daemon_stop; daemon_start 8>&-; }

ok "attach" xendisk attach web1 @web --vdev xvdb --direct --readonly
ok "what it means" is_size 1
moves two
ok "nothing changes under the guest" eventually 10 is_size 1
ok "replug" xendisk replug web1 xvdb
ok "now it does" is_size 2
ok "read-only as before" test "$(key mode)" = r
ok "and without discard" test "$(key discard-enable)" = 0
ok "the expression is as it was given" test "$(key params)" = @web

# --- A guest ------------------------------------------------------------------------

ok "detach" xendisk detach web1 xvdb
ok "attach" xendisk attach web1 @web --vdev xvdb --direct
meet "$dom"
tell "write 0 4096 0x11" flush
ok "a guest has it" eventually 10 grep -q '^0 flush' "$tmp/out"
moves one
ok "the guest has what it had" eventually 10 is_size 2
# The guest of the simulator lets go when its script ends.
ok "it does not let go" fails 5 'replug: the guest has not let go' \
	xendisk replug web1 xvdb --timeout 1
ok "it still has it" is_size 2
tell "read 0 4096"
ok "and reads" eventually 10 grep -q '^0 read.* = 0x11' "$tmp/out"
ended_well "it has seen no error"

# --- Not before it asks ----------------------------------------------------------------

gone() { ! xenstore-exists "$backend"; }
ok "detach" xendisk detach web1 xvdb
moves two
ok "attach" xendisk attach web1 @web --vdev xvdb --direct
moves one
xendisk replug web1 xvdb --when-asked > "$tmp/said" 2>&1 & replug=$!
cleanup_pids+=("$replug")
xenstore-write "$frontend/xendisk-replug" 0
sleep 0.5
ok "nothing happens without the guest" is_size 2
ok "it waits" kill -0 "$replug"
xenstore-write "$frontend/xendisk-replug" 1
rc=0
wait "$replug" || rc=$?
ok "the guest asks" test $rc = 0
ok "it is done" is_size 1
ok "once" test "$(xenstore-exists "$frontend/xendisk-replug" && echo there)" = ""
xendisk replug web1 xvdb --when-asked > "$tmp/said" 2>&1 & replug=$!
cleanup_pids+=("$replug")
sleep 0.3
ok "detach meanwhile" xendisk detach web1 xvdb
rc=0
wait "$replug" || rc=$?
ok "it ends" test $rc = 4
ok "and says why" grep -q 'replug: the disk has been detached' "$tmp/said"
ok "it is not attached again" gone

# --- What cannot be ------------------------------------------------------------------------

ok "no such disk" fails 4 'no disk' xendisk replug web1 xvdb
ok "attach" xendisk attach web1 @web --vdev xvdb --direct
moves none
ok "is only known when it is opened" fails 1 'replug: xvdb is detached; it was @web' \
	xendisk replug web1 xvdb
ok "attach another" xendisk attach web1 "$tmp/one.img" --vdev xvdb --direct
ok "by xl, where xl is not in charge" toolstack attach "$dom" xvdc "$tmp/two.img"
ok "is xl's affair" fails 5 'xl has attached it' xendisk replug web1 xvdc
ok "and stays" says xvdc xendisk list

# --- A disk that has failed -----------------------------------------------------------
failed() { [ "$(state_of web1 xvdb)" = failed ]; }
daemon_stop
mv "$tmp/one.img" "$tmp/away.img"
daemon_start
ok "an image that is not there when the daemon starts" eventually 10 failed
mv "$tmp/away.img" "$tmp/one.img"
ok "replug, when it is there again" xendisk replug web1 xvdb
ok "opens it" is_size 1

# --- A guest that says that its disk is somewhere else ---------------------------------

# The directory that it can write to is its own: what stands there is no address.
dom=$(domain)
victim=$(domain)
frontend=/local/domain/$dom/device/vbd/51728
backend=/local/domain/0/backend/xendisk/$dom/51728
theirs=/local/domain/0/backend/xendisk/$victim/51728
as_guest() { XENSTORED_PATH=$XENSIM_DIR/xenstore-$dom "$@"; }
lie() { as_guest xenstore-write "$frontend/backend" "$1"; }
untouched() { [ "$(xenstore-read "$theirs/online" "$theirs/state" | xargs)" = "1 2" ]; }
ok "attach" xendisk attach "$dom" mem:1M --vdev xvdb --direct
ok "... a neighbour's" xendisk attach "$victim" mem:1M --vdev xvdb --direct
truncate -s 1M "$tmp/secret.img"
evil=$frontend/a/backend/xendisk/b
as_guest xenstore-write "$evil/type" xendisk "$evil/mode" w "$evil/state" 6 \
	"$evil/online" 1 "$evil/params" "$tmp/secret.img"
lie "$evil"
ok "replug" xendisk replug "$dom" xvdb
ok "it is the expression that it was" test "$(key params)" = mem:1M
lie "$theirs"
ok "detach" xendisk detach "$dom" xvdb
ok "that disk has gone" gone
ok "the neighbour's is untouched" untouched
ok "there is no other one" fails 4 "has no disk" xendisk detach "$dom" xvdb
ok "detach the neighbour's" xendisk detach "$victim" xvdb

# --- By xl ----------------------------------------------------------------------------

# /proc says that this is dom0, and xl is the simulator's toolstack.
mkdir "$tmp/bin" "$tmp/proc"
cat > "$tmp/bin/xl" <<END
#!/bin/bash
[ "\$1" != block-detach ] || exec "$xensim" toolstack detach "\$2" "\$3"
kind=vbd
format=
[[ \$3 != *,backendtype=tap,* ]] || { kind=vbd3 format=aio:; }
vdev=\${3#vdev=}
exec "$xensim" toolstack attach "\$2" "\${vdev%%,*}" "\$format\${3#*,target=}" \\
	--kind \$kind --script "$hotplug_script"
END
chmod +x "$tmp/bin/xl"
cat > "$tmp/in-charge" <<END
#!/bin/bash
mount --rbind /proc "$tmp/proc" && mount -t tmpfs tmpfs /proc &&
	ln -s "$tmp/proc/self" /proc/self && mkdir /proc/xen &&
	echo control_d > /proc/xen/capabilities &&
	PATH=$tmp/bin:\$PATH exec "\$@"
END
chmod +x "$tmp/in-charge"
in_charge() { unshare -m --propagation private "$tmp/in-charge" "$@"; }
replug_by_xl() { in_charge "$top_builddir/xendisk" --run-dir "$tmp/run" replug "$dom" "$1"; }
params() { xenstore-read "/local/domain/0/backend/$1/$dom/$2/params"; }
if in_charge true 2> /dev/null; then
	ok "attach" toolstack attach "$dom" xvdc mem:1M
	ok "replug, by xl" replug_by_xl xvdc
	ok "it is what it was" test "$(params vbd 51744)" = mem:1M
	ok "attach, with backendtype=tap" toolstack attach "$dom" xvdd aio:mem:1M --kind vbd3
	ok "replug" replug_by_xl xvdd
	ok "it is what it was" test "$(params vbd3 51760)" = aio:mem:1M
else
	skipped "replug, by xl" "no mount namespace can be made"
fi
