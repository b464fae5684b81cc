#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tool: machines side by side, nothing left behind, libxl's steps.
set -euo pipefail

here=$(cd "${top_builddir:-.}" && pwd)/tests/sim
xensim=$here/xensim
count=0

if ! compgen -G '/usr/lib/xen-*/bin/xenstored' >/dev/null; then
	echo '1..0 # SKIP xenstored (package xen-utils) is missing'
	exit 0
fi

check() { # NAME COMMAND...
	local name=$1
	shift
	count=$((count + 1))
	if "$@" >/dev/null; then
		echo "ok $count - $name"
	else
		echo "not ok $count - $name"
	fi
}

refuses() { ! "$@" 2>/dev/null; }
has() { [[ $1 == *"$2"* ]]; }

symbols() {
	objdump -T "$1" | awk '/DF .text/ && /VERS_/ { print $(NF-1), $NF }' | sort
}

same_symbols() { # LIBRARY
	local real
	real=$(ldconfig -p | awk -v lib="$1" '$1 == lib { print $NF; exit }')
	diff <(symbols "$real") <(symbols "$here/lib/$1") >&2
}

check 'libxengnttab has the symbols of the real one' same_symbols libxengnttab.so.1
check 'libxenevtchn has the symbols of the real one' same_symbols libxenevtchn.so.1

# --- Machines ---------------------------------------------------------------

one=$($xensim start)
two=$($xensim start --memory 64)
backend_pid=
clean_up() {
	[[ -z $backend_pid ]] || kill "$backend_pid"
	for machine in "$one" "$two"; do
		[[ ! -d $machine ]] || "$xensim" stop "$machine"
	done
}
trap clean_up EXIT
check 'two machines have two directories' test "$one" != "$two"
as() { XENSIM_DIR=$1 "${@:2}"; }
as "$one" "$xensim" domain create --name one 5 >/dev/null
check 'a domain of one is not in the other' refuses as "$two" "$xensim" domain kill 5
check 'the other can have its own' as "$two" "$xensim" domain create 5
check 'stop' "$xensim" stop "$two"
check 'nothing is left of it' test ! -e "$two"
check 'the first still runs' as "$one" "$xensim" domain list

eval "$(as "$one" "$xensim" env)"
check 'dom0 reads the domain' test "$(xenstore-read /local/domain/5/name)" = one
check 'env for a domain gives its identity' \
	test "$(eval "$($xensim env 5)" && xenstore-read domid)" = 5
check 'a name in use is refused' refuses "$xensim" domain create 5

# --- What run returns, and leaves --------------------------------------------

status=0
# shellcheck disable=SC2016
"$xensim" run -- bash -c 'echo "$XENSIM_DIR" >"$1"; exit 3' - "$one/where" || status=$?
check 'run returns the status of the command' test "$status" = 3
check 'run leaves nothing' test ! -e "$(<"$one/where")"
"$xensim" run -- sleep 60 &
run=$!
sleep 0.5
machine=$(tr '\0' '\n' <"/proc/$(pgrep -P "$run" sleep)/environ" | sed -n 's/^XENSIM_DIR=//p')
kill -9 "$run"
wait "$run" 2>/dev/null || true
for _ in {1..50}; do [[ -e $machine ]] && sleep 0.1; done
check 'a run that is killed leaves nothing either' test -n "$machine" -a ! -e "$machine"

# --- libxl's steps -------------------------------------------------------------

export XENSIM_LIBXL_TIMEOUT=2
node=/local/domain/0/backend/vbd/5/51728
script=$one/script
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

# A backend of the most obedient kind, in the background.
backend() {
	local state
	while sleep 0.05; do
		state=$(xenstore-read $node/state 2>/dev/null) || continue
		case $state in
		1) xenstore-write $node/state 2 ;;
		5) xenstore-write $node/state 6 ;;
		esac
	done
}

check 'no backend: attach fails' refuses "$xensim" toolstack attach 5 xvdb /img --script "$script"
check 'and leaves the device, as libxl does' test "$(xenstore-read $node/state)" = 1
check 'detach fails too' refuses "$xensim" toolstack detach 5 xvdb
check 'detach --force removes it' "$xensim" toolstack detach 5 xvdb --force
check 'all of it' refuses xenstore-exists $node

backend &
backend_pid=$!
check 'attach' "$xensim" toolstack attach 5 xvdb /img --script "$script" --readonly --key x=y
check 'keys' test "$(xenstore-read $node/params $node/mode $node/type $node/x $node/dev | tr '\n' ' ')" = '/img r phy y xvdb '
check 'permissions of the backend' has "$(xenstore-ls -p /local/domain/0/backend/vbd/5)" '(n0,r5)'
check 'permissions of the frontend' has "$(xenstore-ls -p /local/domain/5/device/vbd)" '(n5,r0)'
check 'attaching it again fails' refuses "$xensim" toolstack attach 5 xvdb /img
check 'detach' "$xensim" toolstack detach 5 xvdb
check 'the script was called as libxl calls it' diff "$script.log" - <<EOF
add vbd backend/vbd/5/51728 backend $script
remove vbd backend/vbd/5/51728 backend $script
EOF
error=$("$xensim" toolstack attach 5 xvdb bad --script "$script" 2>&1) && error=
check 'the reason of a failed script is reported' has "$error" 'script: no such target'
check 'destroy takes the devices along' "$xensim" domain destroy 5
check 'no key is left' refuses xenstore-exists /local/domain/5 /libxl/5 $node

echo "1..$count"
