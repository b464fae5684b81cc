# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# functions.sh - what the shell tests share (sourced, not run).
#
# A test is a script that sources this file, starts what it needs, and calls
# `ok NAME COMMAND...` for each point; the plan is printed at the end.  All
# files are in $tmp, which is removed; all processes are ended by pid.

set -u
top_srcdir=${top_srcdir:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
top_builddir=${top_builddir:-$PWD}
xensim=$top_builddir/tests/sim/xensim
simguest=$top_builddir/tests/sim/simguest
tmp=$(mktemp -d "${TMPDIR:-/tmp}/xendisk-test.XXXXXX")
points=0
bad=0
cleanup_pids=()
XENSIM_DIR=
export XENDISK_TEST=$$ # is_own() knows them by it
: > "$tmp/xendiskd.conf" # the daemon's: it wants it there

skip_all() { echo "1..0 # SKIP $*"; exit 0; }

# Programs that the test needs.
requires()
{
	local p
	for p; do
		command -v "$p" >/dev/null || skip_all "$p is not installed"
	done
}

# distcheck and clang runs are satisfied with the unit tests.
[ "${XENDISK_TESTS:-}" != unit ] || skip_all "only unit tests were asked for"

# ok NAME COMMAND...: the point is good when the command is.
ok()
{
	local name=$1 out
	points=$((points + 1))
	if out=$("${@:2}" 2>&1); then
		echo "ok $points - $name"
	else
		echo "not ok $points - $name (status $?)"
		printf '%s\n' "$out" | sed 's/^/# /' | tail -40
		bad=$((bad + 1))
	fi
}

# skipped NAME WHY: a point that this machine cannot show.
skipped()
{
	points=$((points + 1))
	echo "ok $points - $1 # SKIP $2"
}

# fails STATUS PATTERN COMMAND...: it exits so, and says so.
fails()
{
	local want=$1 pattern=$2 out rc=0
	out=$("${@:3}" 2>&1) || rc=$?
	[ "$rc" = "$want" ] && grep -qe "$pattern" <<< "$out" && return 0
	echo "status $rc instead of $want, or no \"$pattern\" in:"
	printf '%s\n' "$out"
	return 1
}

# says PATTERN COMMAND...: it succeeds, and says so.
says() { fails 0 "$@"; }

# eventually SECONDS COMMAND...: within that time the command is good.
eventually()
{
	local end=$((SECONDS + $1))
	while ! "${@:2}" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { "${@:2}"; return; }
		sleep 0.05
	done
}

# Is somebody listening on that unix socket?  Its file comes first.
listens() { grep -q " 00010000 .* $1\$" /proc/net/unix; }

# A process of the test's own: ended, and waited for, at the end.
background() { "$@" & cleanup_pids+=($!); }

# A TCP port of this machine's where nobody listens; below those that the kernel
# gives to clients, which bind() would find in use.
free_port()
{
	local p i
	for ((i = 0; i < 100; i++)); do
		p=$((20000 + RANDOM % 12000))
		(: < "/dev/tcp/127.0.0.1/$p") 2> /dev/null || break
	done
	echo "$p"
}

# Also true of one that only its parent still has to hear of.
is_gone() { ! grep -qs '^State:.[^ZX]' "/proc/$1/status"; }

# Also from a subshell, which cannot wait for it.
end_process()
{
	kill "$1" 2>/dev/null || return 0
	wait "$1" 2>/dev/null || :
	eventually 20 is_gone "$1"
}

# Numbers are used again, soon where hundreds of processes are killed: one of those that
# have ended may be another test's by now.
is_own()
{
	grep -qs "^PPid:.$$\$" "/proc/$1/status" ||
		grep -qszx "XENDISK_TEST=$$" "/proc/$1/environ"
}

finish()
{
	local rc=$? pid
	trap - EXIT
	for pid in "${cleanup_pids[@]}"; do
		! is_own "$pid" || end_process "$pid"
	done
	[ -z "$XENSIM_DIR" ] || "$xensim" stop >/dev/null || :
	if [ $bad != 0 ] && [ -s "$tmp/log" ]; then
		echo "# the daemon said:"
		tail -60 "$tmp/log" | sed 's/^/# /'
	fi
	# The memory of disks that are still attached.
	[ ! -L "$tmp/run/pages" ] || rm -rf "$(readlink "$tmp/run/pages")"
	rm -rf "$tmp"
	[ $rc != 0 ] || [ $points = 0 ] || echo "1..$points"
	[ $rc != 0 ] || [ $bad = 0 ] || rc=1
	exit $rc
}
trap finish EXIT
trap 'exit 1' INT TERM

# --- The machine and the daemon ----------------------------------------------

# What xl would run; libxl knows scripts by their path.
hotplug_script=$tmp/block-xendisk
cat > "$hotplug_script" <<END
#!/bin/sh
export XENDISK_RUN_DIR='$tmp/run'
exec '$top_builddir/xendisk' hotplug "\$1"
END
chmod +x "$hotplug_script"

sim_start()
{
	XENSIM_DIR=$("$xensim" start) || exit 1
	export XENSIM_DIR
	eval "$("$xensim" env)"
}

# daemon_start OPTION...: returns when it answers.
daemon_start()
{
	mkdir -p "$tmp/run" "$tmp/state"
	"${XENDISKD:-$top_builddir/xendiskd}" --foreground --run-dir "$tmp/run" \
		--state-dir "$tmp/state" --config "$tmp/xendiskd.conf" \
		--backend-dir "$top_builddir/backends/.libs" "$@" \
		>> "$tmp/log" 2>&1 &
	daemon_pid=$!
	cleanup_pids+=("$daemon_pid")
	if ! eventually 30 daemon_answers; then
		echo "Bail out! xendiskd does not answer"
		cat "$tmp/log"
		exit 1
	fi
}

daemon_stop() { end_process "$daemon_pid"; }

daemon_answers()
{
	"$top_builddir/xendisk" --run-dir "$tmp/run" version
}

# The command, as uninstalled.
xendisk() { "$top_builddir/xendisk" --run-dir "$tmp/run" "$@"; }

# The stand-in for xl block-attach and block-detach.
toolstack()
{
	local verb=$1
	shift
	case $verb in
	attach) "$xensim" toolstack attach "$@" --script "$hotplug_script" ;;
	*) "$xensim" toolstack "$verb" "$@" ;;
	esac
}

domain() { "$xensim" domain create "$@"; }
guest() { "$simguest" "$@"; }

# certificate NAME SIGNER TEXT [VALIDITY]: NAME-key.pem and NAME-cert.pem in the
# folder $certs, as certtool's template says; SIGNER is such a name, or self.
# shellcheck disable=SC2154  # $certs is the test's
certificate()
{
	printf 'cn = localhost\n%s\n%s\n' "${4:-expiration_days = 9}" "$3" \
		> "$tmp/template"
	certtool --generate-privkey --ecc --outfile "$certs/$1-key.pem"
	if [ "$2" = self ]; then
		certtool --generate-self-signed --outfile "$certs/$1-cert.pem" \
			--load-privkey "$certs/$1-key.pem" \
			--template "$tmp/template"
	else
		certtool --generate-certificate --outfile "$certs/$1-cert.pem" \
			--load-privkey "$certs/$1-key.pem" \
			--load-ca-certificate "$certs/$2-cert.pem" \
			--load-ca-privkey "$certs/$2-key.pem" \
			--template "$tmp/template"
	fi
} 2> /dev/null

# A guest that is told what to do step by step, while it is connected: meet DOM
# [OPTION...], tell LINE..., ended_well NAME.  $script is its process, $tmp/out what it says.
connected() { [ "$(state_of "$1" xvdb)" = connected ]; }
no_guest() { ! connected "$1"; }
meet()
{
	eventually 5 no_guest "$1" # the one before has left
	rm -f "$tmp/in"
	mkfifo "$tmp/in"
	guest "$1" xvdb script "${@:2}" < "$tmp/in" > "$tmp/out" 2>&1 & script=$!
	exec 8> "$tmp/in"
	ok "a guest connects" eventually 10 connected "$1"
}
tell() { printf '%s\n' "$@" >&8; }
ended_well()
{
	local rc=0
	exec 8>&-
	wait "$script" || rc=$?
	ok "$1" said "$rc"
}
said() { cat "$tmp/out"; [ "$1" = 0 ]; }

# state_of DOM VDEV: as xendisk show says.
state_of()
{
	xendisk --json show "$1" "$2" |
		sed -n 's/.*"state": "\([a-z]*\)".*/\1/p' | head -1
}
