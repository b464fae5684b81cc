#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tool: machines side by side, nothing left behind, libxl's steps.
. "${top_srcdir:-.}/tests/functions.sh"
requires xenstore-read objdump

refuses() { ! "$@"; }
symbols() { objdump -T "$1" | awk '/DF .text/ && /VERS_/ { print $(NF-1), $NF }' | sort; }
same_symbols() {
	local real
	real=$(ldconfig -p | awk -v lib="$1" '$1 == lib { print $NF; exit }')
	diff <(symbols "$real") <(symbols "$top_builddir/tests/sim/lib/$1")
}
ok "libxengnttab has the symbols of the real one" same_symbols libxengnttab.so.1
ok "libxenevtchn has the symbols of the real one" same_symbols libxenevtchn.so.1

# --- Machines ------------------------------------------------------------------

sim_start
other=$("$xensim" start --memory 64)
in_other() { XENSIM_DIR=$other "$xensim" "$@"; }
ok "a machine" domain --name one 5
ok "its domain is not in another machine" refuses in_other domain kill 5
ok "which may have its own" in_other domain create 5
ok "stop" "$xensim" stop "$other"
ok "nothing is left of it" test ! -e "$other"
ok "the first still runs" "$xensim" domain list
ok "dom0 reads the domain" test "$(xenstore-read /local/domain/5/name)" = one
ok "env for a domain gives its identity" \
	test "$(eval "$("$xensim" env 5)" && xenstore-read domid)" = 5
no_store() { XENSIM_XENSTORED=/bin/ls "$xensim" start; }
ok "a xenstored that does not start: what it said" \
	fails 1 "^xensim: xenstored: .*unrecognized option" no_store
ok "an id in use is refused" fails 1 "File exists" domain 5

# --- What run returns, and leaves -------------------------------------------------

run_in() { "$xensim" run -- bash -c "echo \$XENSIM_DIR >$tmp/where; $1"; }
gone() { [ -s "$tmp/where" ] && [ ! -e "$(<"$tmp/where")" ]; }
ok "run returns the status of the command" fails 3 "" run_in "exit 3"
ok "run leaves nothing" gone
rm "$tmp/where"
"$xensim" run -- bash -c "echo \$XENSIM_DIR \$\$ >$tmp/killed; exec sleep 60" &
runner=$!
eventually 10 test -s "$tmp/killed"
read -r machine command <"$tmp/killed"
kill -9 "$runner"
wait "$runner" 2>/dev/null || :
ok "a run that is killed leaves nothing either" eventually 10 test ! -e "$machine"
ok "nor its command" eventually 10 refuses kill -0 "$command"

# --- libxl's steps -------------------------------------------------------------------

export XENSIM_LIBXL_TIMEOUT=2
node=/local/domain/0/backend/vbd/5/51728
script=$tmp/script
cat >"$script" <<'EOF'
#!/bin/bash
# A hotplug script that keeps what it was told, and fails when asked to.
echo "$1 $XENBUS_TYPE $XENBUS_PATH $XENBUS_BASE_PATH $script" >>"$0.log"
if [ "$(xenstore-read "$XENBUS_PATH/params")" = bad ]; then
	xenstore-write "$XENBUS_PATH/hotplug-error" 'no such target'
	exit 1
fi
EOF
chmod +x "$script"
attach() { "$xensim" toolstack attach 5 xvdb "$1" --script "$script" "${@:2}"; }

# A backend of the most obedient kind.
backend() {
	while sleep 0.05; do
		case $(xenstore-read $node/state 2>/dev/null) in
		1) xenstore-write $node/state 2 ;;
		5) xenstore-write $node/state 6 ;;
		esac
	done
}
keys() { xenstore-read $node/params $node/mode $node/type $node/x $node/dev | tr '\n' ' '; }

ok "no backend: attach fails" fails 1 "unable to add device" attach /img
ok "and leaves the device, as libxl does" test "$(xenstore-read $node/state)" = 1
ok "detach fails too" fails 1 "unable to remove device" toolstack detach 5 xvdb
ok "detach --force removes it" toolstack detach 5 xvdb --force
ok "all of it" refuses xenstore-exists $node

background backend
ok "attach" attach /img --readonly --key x=y
ok "keys" test "$(keys)" = '/img r phy y xvdb '
ok "permissions of the backend" says '(n0,r5)' xenstore-ls -p /local/domain/0/backend/vbd/5
ok "permissions of the frontend" says '(n5,r0)' xenstore-ls -p /local/domain/5/device/vbd
ok "attaching it again fails" fails 1 "already exists" attach /img
ok "detach" toolstack detach 5 xvdb
ok "the script was called as libxl calls it" diff "$script.log" - <<EOF
add vbd backend/vbd/5/51728 backend $script
remove vbd backend/vbd/5/51728 backend $script
EOF
ok "the reason of a failed script is reported" fails 1 'script: no such target' attach bad
ok "destroy takes the devices along" "$xensim" domain destroy 5
ok "no key is left" refuses xenstore-exists /local/domain/5 /libxl/5 $node
