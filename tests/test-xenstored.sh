#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# xenstored goes and comes back: the guests' disks go on, and the daemon looks at
# everything again.  The daemon reaches it through a relay that is killed.
. "$(dirname "$0")/functions.sh"
requires perl xenstore-rm

cat > "$tmp/relay.pl" <<'END'
use IO::Socket::UNIX; use IO::Select;
my ($path, $upstream, $cut) = @ARGV;
unlink $path;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 8) or die;
my $select = IO::Select->new($listener);
my (%peer, %said);
while (1) {
	for my $s ($select->can_read) {
		if ($s == $listener) {
			my $client = $s->accept or next;
			my $up = IO::Socket::UNIX->new(Peer => $upstream) or die;
			$peer{$client} = $up; $peer{$up} = $client;
			$said{$client} = "";
			$select->add($client, $up);
		} elsif (sysread($s, my $bytes, 65536)) {
			my $to = $peer{$s};
			if ($cut and exists $said{$s}) {
				$said{$s} = substr($said{$s} . $bytes, -4096);
				# XS_DIRECTORY, three numbers, the path
				exit if $said{$s} =~ /\x01\0\0\0.{12}\Q$cut\E\0/s;
			}
			while (length $bytes) {
				my $n = syswrite($to, $bytes) or exit;
				substr($bytes, 0, $n) = "";
			}
		} else {
			my $to = delete $peer{$s};
			delete $peer{$to};
			$select->remove($s, $to);
			close $s; close $to;
		}
	}
}
END
sim_start
xenstored=$XENSTORED_PATH
# relay_start [PATH]: it ends by itself when somebody lists that.
relay_start()
{
	perl "$tmp/relay.pl" "$tmp/relay" "$xenstored" "${1:-}" \
		>> "$tmp/relay.log" 2>&1 &
	relay=$!
	cleanup_pids+=("$relay")
	eventually 5 listens "$tmp/relay"
}
relay_kill() { kill -9 "$relay" 2> /dev/null; wait "$relay" 2> /dev/null; rm -f "$tmp/relay"; }
said() { [ "$(grep -c "$1" "$tmp/log")" -ge "$2" ]; }
lists() { xendisk --json list | grep -q "\"domid\": $1"; }

relay_start
XENSTORED_PATH=$tmp/relay daemon_start --log-level info
domain 5 > /dev/null
domain 6 > /dev/null
truncate -s 16M "$tmp/a.img" "$tmp/b.img"
ok "attach" toolstack attach 5 xvdb "$tmp/a.img"
background "$simguest" 5 xvdb verify --seconds 6 --queues 2 > "$tmp/verify" 2>&1
verify=$!
connected() { [ "$(state_of 5 xvdb)" = connected ]; }
ok "a guest is at work" eventually 5 connected
worker=$(xendisk --json show 5 xvdb | sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p')

# --- Away and back ---------------------------------------------------------------
relay_kill
ok "the daemon says so" eventually 5 said "connection to xenstored is lost" 1
ok "and answers" lists 5
toolstack attach 6 xvdb "$tmp/b.img" > "$tmp/attach" 2>&1 &
attach=$!
cleanup_pids+=("$attach")
sleep 1 # it may try in vain
written() { xendisk --json stats 5 xvdb | grep -m1 -A1 '"write"' | md5sum; }
moved() { [ "$(written)" != "$1" ]; }
kill -9 "$worker"
ok "a worker that dies then is replaced" eventually 5 said "goes on after a worker died" 1
ok "... and its guest served" eventually 5 moved "$(written)"
worker=$(xendisk --json show 5 xvdb | sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p')
relay_start
ok "the daemon says so, too" eventually 5 said "connected to xenstored again" 1
wait $attach && status=0 || status=$?
ok "a disk attached meanwhile is there" test "$status" = 0
ok "and works" guest 6 xvdb verify --seconds 1
relay_kill
"$xensim" domain destroy 6 > "$tmp/destroy" 2>&1 &
destroy=$!
cleanup_pids+=("$destroy")
ok "the daemon says so again" \
	eventually 5 said "connection to xenstored is lost" 2
relay_start
ok "it is heard" eventually 5 said "connected to xenstored again" 2
wait $destroy || :
gone() { ! lists 6; }
ok "a domain destroyed meanwhile has no disk any more" eventually 10 gone
wait $verify && status=0 || status=$?
ok "the guest at work saw nothing of it" test "$status" = 0
ok "its data is right" grep -q 'verify: ok' "$tmp/verify"

# --- Away before a new daemon has seen the disks -----------------------------------
background "$simguest" 5 xvdb verify --seconds 14 --queues 2 > "$tmp/verify" 2>&1
verify=$!
ok "a guest is at work" eventually 5 connected
kill -9 "$daemon_pid"
wait "$daemon_pid" 2> /dev/null
relay_kill
relay_start /local/domain/0/backend/vbd
XENSTORED_PATH=$tmp/relay daemon_start --log-level info
ok "the next daemon loses xenstored" \
	eventually 5 said "connection to xenstored is lost" 3
ok "... before it knows of a disk" fails 1 '' lists 5
sleep 12 # what is not asked for within 10 s is ended
ok "the guest's worker is left to it" kill -0 "$worker"
relay_kill
relay_start
same() { xendisk --json show 5 xvdb | grep -q "\"worker_pid\": $worker\\b"; }
ok "and is taken over when xenstored is back" eventually 5 same
wait $verify && status=0 || status=$?
ok "the guest saw nothing of it" test "$status" = 0
ok "its data is right" grep -q 'verify: ok' "$tmp/verify"

# --- A xenstored that has forgotten everything -------------------------------------
"$simguest" 5 xvdb load --seconds 60 --rw randwrite > "$tmp/load" 2>&1 &
load=$!
cleanup_pids+=("$load")
ok "a guest is at work" eventually 5 connected
relay_kill
ok "the daemon says so" eventually 5 said "connection to xenstored is lost" 4
# Only the backend's side: the simulated guest would mind the rest.
xenstore-rm /local/domain/0/data
xenstore-rm /local/domain/0/domid
xenstore-rm /local/domain/0/backend/vbd/5/51728/hotplug-status
xenstore-rm /local/domain/0/backend/vbd/5/51728/frontend
relay_start
# Who dom0 is, is written later, by another program.
sleep 2
ok "the guest's worker serves on, before it knows of dom0" kill -0 "$worker"
xenstore-write /local/domain/0/domid 0
ok "which is said" eventually 5 said "has forgotten everything" 1
sleep 1
ok "the guest's worker serves on" kill -0 "$worker"
ok "its disk is listed" lists 5
ok "as connected" connected
ok "and its requests are answered" eventually 5 moved "$(written)"
# Nobody tells of its end, now that xenstored does not know it.
"$xensim" domain kill 5
kill -9 "$worker"
gone() { ! lists 5; }
ok "when it has gone its disk is not connected again for ever" eventually 20 gone
ok "which is said" said "domain 5 is gone" 1
end_process "$load"
ok "the daemon ends" daemon_stop
