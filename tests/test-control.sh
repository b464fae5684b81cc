#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The daemon from outside: options, configuration, run directory, control
# socket.  What a client may do wrong is in tests/unit/test-control.c; here a
# few of them meet the whole daemon.
. "$(dirname "$0")/functions.sh"
requires perl prlimit

xendiskd=$top_builddir/xendiskd
sim_start

# start_fails PATTERN OPTION...: it ends with status 1 and says why.
start_fails()
{
	local pattern=$1
	shift
	fails 1 "$pattern" timeout 20 "$xendiskd" --foreground \
		--run-dir "$tmp/other" --state-dir "$tmp/state" \
		--backend-dir "$top_builddir/backends/.libs" \
		--config "$tmp/xendiskd.conf" "$@"
}

# --- Options -------------------------------------------------------------------

options_match()
{
	diff <("$xendiskd" --help | grep -o '^  --[a-z-]*' | tr -d ' ' | sort) \
		<(sed -n 's/^=item B<\(--[a-z-]*\)>.*/\1/p' \
			"$top_srcdir/man/xendiskd.8.pod" | sort)
}

ok "--help and xendiskd(8) name the same options" options_match
ok "--version" says '^xendiskd [0-9]' "$xendiskd" --version
ok "unknown option" fails 2 '^xendiskd: --colour: ' "$xendiskd" --colour
ok "missing argument" fails 2 '^xendiskd: --run-dir: ' "$xendiskd" --run-dir
ok "superfluous argument" fails 2 '^xendiskd: start: ' "$xendiskd" start
ok "relative path" fails 2 '^xendiskd: run: ' "$xendiskd" --run-dir run
ok "unknown log level" fails 2 '^xendiskd: loud: ' "$xendiskd" --log-level loud
ok "--worker by hand" fails 2 'only xendiskd itself' "$xendiskd" --worker 1/2

# --- What it cannot start with --------------------------------------------------

ok "no folder of backends" \
	start_fails "backends in /nonexistent: No such" --backend-dir /nonexistent
echo 'mem-limit = "much"' > "$tmp/bad.conf"
ok "wrong configuration" \
	start_fails "bad\.conf:1: " --config "$tmp/bad.conf"
mkdir "$tmp/folder.conf"
ok "a folder as configuration" \
	start_fails "folder\.conf: Is a directory" --config "$tmp/folder.conf"
ok "a configuration that is not there" start_fails \
	"absent\.conf: No such file" --config "$tmp/absent.conf"
echo 'disk "bad" { expr = "memm" }' > "$tmp/bad-disk.conf"
ok "a disk that is wrong is said where it stands" eval '
	timeout 2 "$top_builddir/xendiskd" --foreground --run-dir "$tmp/r2" \
		--state-dir "$tmp/state" --config "$tmp/bad-disk.conf" \
		--backend-dir "$top_builddir/backends/.libs" 2>&1 |
	grep "bad-disk\.conf:1: disk \"bad\" cannot be attached: .*memm"'
: > "$tmp/file"
ok "run directory that is a file" \
	start_fails "$tmp/file: .*" --run-dir "$tmp/file"
ok "state directory that is a file" \
	start_fails "state directory $tmp/file: " --state-dir "$tmp/file"
mkdir -p "$tmp/other/keep"
chmod 0755 "$tmp/other/keep"
ok "kept state that others can read" start_fails "somebody else's"
rm -rf "$tmp/other"
no_xenstore() { XENSTORED_PATH=/nonexistent start_fails "xenstore"; }
ok "no xenstore" no_xenstore

# --- Two daemons ---------------------------------------------------------------

printf 'image-roots = {\n"%s",\n"%s",\n"%s"}\n' "$tmp" "$tmp/none" "$tmp/xendiskd.conf" > "$tmp/xendiskd.conf"
daemon_start --log-level info
ok "a second daemon in the run directory is refused" \
	start_fails "another xendiskd runs there (pid $daemon_pid)" \
	--run-dir "$tmp/run"
ok "the first one does not mind" xendisk version
ok "an image root that is not there is said where it stands" eventually 10 grep -q \
	"warning: $tmp/xendiskd.conf:3: image-roots: $tmp/none: No such file or directory; no image" "$tmp/log"
ok "... one that is no folder, too" \
	grep -q "xendiskd.conf:4: image-roots: $tmp/xendiskd.conf: Not a directory" "$tmp/log"
ok "... and not one that is" fails 1 '' grep -q "image-roots: $tmp: " "$tmp/log"

# --- The socket -----------------------------------------------------------------

socket=$tmp/run/control.sock
# client: stdin goes to the socket; then what the daemon answers.
client()
{
	perl -MIO::Socket::UNIX -e '
		$SIG{PIPE} = "IGNORE";
		alarm 10;
		my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die;
		undef $/;
		print $s <STDIN>;
		$s->flush;
		shutdown $s, 1;
		print <$s>;' "$socket"
}
# say TEXT: \0 ends a call.
say() { printf '%b' "$1" | client | tr '\0' '\n'; }
answers() { say "$1" | grep -qe "$2"; }
silent() { [ -z "$(say "$1")" ]; }
mode_is() { [ "$(stat -c %a "$2")" = "$1" ]; }

ok "the socket is for root alone" mode_is 600 "$socket"
ok "kept state is for root alone" mode_is 700 "$tmp/run/keep"
ok "it says what it is" answers \
	'{"method":"org.varlink.service.GetInfo"}\0' '"product":"xendiskd"'
ok "it describes its interface" answers \
	'{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"io.xendisk"}}\0' \
	'interface io.xendisk'
ok "two calls at once" \
	answers '{"method":"io.xendisk.Version"}\0{"method":"io.xendisk.List"}\0' \
	'"disks":\[\]'
ok "unknown method" answers '{"method":"io.xendisk.Lose"}\0' MethodNotFound
ok "unknown parameter" \
	answers '{"method":"io.xendisk.List","parameters":{"a":1}}\0' \
	'InvalidParameter.*"a"'
ok "no such disk" answers \
	'{"method":"io.xendisk.Show","parameters":{"domid":1,"devid":2}}\0' \
	'io.xendisk.NoSuchDisk'
ok "a device that is not there" answers \
	'{"method":"io.xendisk.HotplugAdd","parameters":{"path":"backend/vbd/9/51712"}}\0' \
	'io.xendisk.Failed.*message'
for path in '' / backend/vbd/1 backend/vbd/1/2/3 backend/vbd/-1/2 \
	backend/vif/1/2 '../backend/vbd/1/2' "$(printf '%05000d' 0)"; do
	ok "a path that is none: \"${path:0:20}\"" answers \
		"{\"method\":\"io.xendisk.HotplugAdd\",\"parameters\":{\"path\":\"$path\"}}\\0" \
		'io.xendisk.Failed.*message'
done
ok "not JSON" silent 'hello\0'
ok "not a call" silent '[1]\0'
ok "64 KiB without an end" silent "$(printf '%066000d' 0)"

random_bytes()
{
	local size
	for size in 1 10 100 1000 10000 60000 65536 65537 70000 200000 1000000; do
		head -c $size /dev/urandom | client > /dev/null || return 1
	done
}
ok "random bytes" random_bytes
ok "it lives" xendisk version
# KiB of its own; a sanitizer's are no measure.
memory() { awk '/^Anonymous:/ { print $2 }' "/proc/$daemon_pid/smaps_rollup"; }
sanitized() { grep -q __asan_init "$(readlink "/proc/$daemon_pid/exe")"; }
memory_before=$(memory)
fds() { find "/proc/$daemon_pid/fd" -mindepth 1 | wc -l; }
before=$(fds)
many_calls()
{
	local n=0
	while [ $((n += 1)) -le 200 ]; do
		xendisk version >/dev/null || return 1
	done
}
ok "200 clients one after the other" many_calls
same_fds() { [ "$(fds)" -le "$before" ]; }
ok "no descriptor is left open" eventually 5 same_fds
no_more_memory()
{
	local now
	now=$(memory)
	echo "$memory_before KiB before, $now KiB after"
	[ $((now - memory_before)) -le 1024 ]
}
sanitized || ok "and no memory to speak of" no_more_memory

# --- Without descriptors ---------------------------------------------------------

ticks() { awk '{ print $14 + $15 }' "/proc/$daemon_pid/stat"; }
free=0
while [ -e "/proc/$daemon_pid/fd/$free" ]; do free=$((free + 1)); done
prlimit --pid "$daemon_pid" --nofile="$free:"
xendisk version > /dev/null & waiting=$!
cleanup_pids+=("$waiting")
sleep 0.5
begin=$(ticks)
sleep 1
used=$(($(ticks) - begin))
ok "without a descriptor for it a client waits" fails 1 "" is_gone "$waiting"
ok "... and the daemon does not look all the time" test "$used" -le 20
prlimit --pid "$daemon_pid" --nofile="$(ulimit -Hn):"
wait "$waiting" && status=0 || status=$?
ok "it is answered when there is one" test "$status" = 0

# --- The end --------------------------------------------------------------------

kill "$daemon_pid"
wait "$daemon_pid" && status=0 || status=$?
ok "SIGTERM: status 0" test "$status" = 0
ok "the socket is gone" test ! -e "$socket"
ok "the command says that nobody is there" fails 3 'cannot reach' \
	xendisk version

# --- As a daemon ----------------------------------------------------------------

# Nobody is kept from it, but it is said.
mkdir -m 755 "$tmp/r" "$tmp/s"
shared()
{
	: > "$tmp/said"
	"$xendiskd" --foreground --run-dir "$tmp/r" --state-dir "$tmp/s" \
		--config "$tmp/xendiskd.conf" \
		--backend-dir "$top_builddir/backends/.libs" > "$tmp/said" 2>&1 &
	daemon_pid=$!
	eventually 10 grep -q ready "$tmp/said"
	end_process "$daemon_pid"
	grep -q "/$1: others may write there" "$tmp/said"
}
ok "folders of its own are not worth a word" fails 1 '' shared '.*'
chmod 775 "$tmp/r"
ok "a run directory that others may write to is" shared r
chmod 755 "$tmp/r"
chmod 777 "$tmp/s"
ok "... and a state directory" shared s
as_daemon=("$xendiskd" --run-dir "$tmp/run" --state-dir "$tmp/state"
	--config "$tmp/xendiskd.conf"
	--backend-dir "$top_builddir/backends/.libs")
ok "it returns when it answers" "${as_daemon[@]}"
ok "and it does answer" xendisk version
daemon_pid=$(cat "$tmp/run/xendiskd.pid")
ok "without the folder that it was started in" \
	test "$(readlink "/proc/$daemon_pid/cwd")" = /
ok "a second one fails in the foreground" fails 1 "another xendiskd" \
	"${as_daemon[@]}"
kill "$daemon_pid"
ok "it ends" eventually 5 is_gone "$daemon_pid"

# --- systemd ---------------------------------------------------------------------

if ldd "$xendiskd" | grep -q libsystemd; then
	perl -MIO::Socket::UNIX -e '
		my $s = IO::Socket::UNIX->new(Local => $ARGV[0],
					      Type => SOCK_DGRAM) or die;
		$| = 1;
		print "$_\n" while defined $s->recv($_, 4096);' \
		"$tmp/notify" > "$tmp/notes" &
	cleanup_pids+=($!)
	eventually 5 test -S "$tmp/notify"
	NOTIFY_SOCKET=$tmp/notify "${as_daemon[@]}" 2>> "$tmp/log" &
	daemon_pid=$!
	cleanup_pids+=("$daemon_pid")
	ok "systemd is told that it is ready" \
		eventually 5 grep -q READY=1 "$tmp/notes"
	ok "and it has stayed in the foreground" kill "$daemon_pid"
	wait "$daemon_pid" && status=0 || status=$?
	ok "it ends well" test "$status" = 0
	ok "and says that it stops" grep -q STOPPING=1 "$tmp/notes"
fi
