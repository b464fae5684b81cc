#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# xendisk stats: what the daemon has counted is what the guest has sent.
. "$(dirname "$0")/functions.sh"
requires perl
perl -MJSON::PP -e 1 || skip_all "perl has no JSON::PP"

sim_start
daemon_start
dom=$(domain --name web1)

# value PERL: an expression over @q, the queues of the disk, and the sum of one
# of their members: sum("read", "requests").
value()
{
	xendisk --json stats "$dom" xvdb | perl -MJSON::PP -e '
		undef $/;
		our @q = @{decode_json(<STDIN>)->{disks}[0]{queues}};
		sub sum {
			my $sum = 0;
			for my $queue (@q) {
				my $at = $queue;
				$at = $at->{$_} for @_;
				$sum += $at;
			}
			return $sum;
		}
		sub times_value { # of a histogram
			my $sum = 0;
			for my $h (map { $_->{$_[0]} } @q) {
				$sum += $_ * $h->{$_} for keys %$h;
			}
			return $sum;
		}
		sub count {
			my $sum = 0;
			for my $h (map { $_->{$_[0]} } @q) {
				$sum += $_ for values %$h;
			}
			return $sum;
		}
		print eval $ARGV[0]; die $@ if $@' "$1"
}
# is VALUE PERL
is()
{
	local got
	got=$(value "$2")
	[ "$got" = "$1" ] || { echo "$2 is $got instead of $1"; return 1; }
}

ok "no disk: nothing" says '"disks": \[\]' xendisk --json stats
ok "... but the titles" says '^ID VDEV RING OPERATION' xendisk stats
ok "... nor in the list" says '^ID DOMAIN VDEV STATE SIZE MODE EXPRESSION$' xendisk list
ok "attach" xendisk attach web1 'mem(32M)' --vdev xvdb --direct
ok "not connected: no rings" is 0 'scalar @q'

unused='^ *[0-9]* xvdb  *-  *-  *0  *0  *0  *-  *-  *-$'
ok "which has a line of its own" says "$unused" xendisk stats
ok "no histograms" test "$(xendisk stats web1 xvdb | grep -v "$unused" | tail -n +2)" = \
	'requests 0, OK 0, errors 0'

# --- One ring, each request known -------------------------------------------------

for _ in 1 2 3; do echo "read 0 4096"; done > "$tmp/script"
cat >> "$tmp/script" <<END
write 0 8192
write 8192 4096
indirect read 0 131072
flush
discard 0 1048576
read 33554432 4096 expect=-1
op 77 expect=-2
END
ok "a guest" guest "$dom" xvdb script < "$tmp/script"
ok "reads" is 5 'sum("read", "requests")'
ok "and their bytes" is $((3 * 4096 + 131072)) 'sum("read", "bytes")'
ok "and the one that was wrong" is 1 'sum("read", "errors")'
ok "writes" is 2 'sum("write", "requests")'
ok "and their bytes" is 12288 'sum("write", "bytes")'
ok "a flush" is 1 'sum("flush", "requests")'
ok "a discard" is 1 'sum("discard", "requests")'
ok "its bytes" is 1048576 'sum("discard", "bytes")'
ok "segments" is 6 'count("segments")'
ok "one of 32, one of 2" is '1 1' '"$q[0]{segments}{32} $q[0]{segments}{2}"'
# Each segment is a copy, and so is the list of the indirect one.
ok "copies" is $((3 + 2 + 1 + 32 + 1)) 'sum("grant_copies")'
ok "nothing is in flight" is 0 'sum("in_flight")'
ok "a guest that waits for each answer" is 10 '$q[0]{ring_occupancy}{1}'
ok "events" is 1 'sum("events_in") > 0 && sum("events_out") > 0 || 0'
ok "latencies in order" is 1 'my $l = $q[0]{read}{latency_us};
	$l->{p50} > 0 && $l->{p50} <= $l->{p99} && $l->{p99} <= $l->{p999} || 0'

# --- Four rings, and a worker that dies -----------------------------------------------

before=$(value 'sum("read", "requests")')
# load and verify say how many requests they have sent.
load()
{
	guest "$dom" xvdb load --rw randread --depth 8 --seconds 1 --json \
		--queues 4 > "$tmp/said"
}
loaded() { sed -n 's/.*"requests":\([0-9]*\).*/\1/p' "$tmp/said"; }
ok "load on four rings" load
ok "four rings" is 4 'scalar @q'
ok "its reads" is "$((before + $(loaded)))" 'sum("read", "requests")'
verify() { guest "$dom" xvdb verify --seconds 2 --queues 4 "$@" > "$tmp/said"; }
said() { sed -n "s/.* \([0-9]*\) $1.*/\1/p" "$tmp/said"; }
ok "verify on four rings" verify --ops read=50,write=50 --no-final-check
ok "its writes" is "$((2 + $(said writes)))" 'sum("write", "requests")'
ok "each taken while some were in flight" \
	is 1 'times_value("ring_occupancy") > count("ring_occupancy") || 0'

kill_worker()
{
	sleep 1
	kill -9 "$(xendisk --json list |
		sed -n 's/.*"worker_pid": \([0-9]*\).*/\1/p')"
}
before=$(value 'sum("write", "requests")')
kill_worker &
ok "the worker is killed meanwhile" \
	verify --ops read=50,write=50 --no-final-check
wait $!
# A count is lost when its answer was the last thing that the worker did.
ok "the counters go on" is 1 \
	"my \$n = sum('write', 'requests') - $before - $(said writes);
	\$n <= 0 && \$n > -200 || 0"
ok "nothing is in flight at the end" is 0 'sum("in_flight")'

# --- The command ------------------------------------------------------------------------

ok "the table" says 'OPERATION' xendisk stats
ok "a line for each kind" says ' discard ' xendisk stats
ok "one disk has histograms" says '^requests [0-9]*, OK [0-9]*, errors 1$' \
	xendisk stats web1 xvdb
ok "half a disk" fails 2 'usage: xendisk stats' xendisk stats web1
ok "no such disk" fails 4 'no disk' xendisk stats web1 xvdq

# --- A worker that has written nonsense -------------------------------------------------

file=$tmp/run/keep/$dom-51728.disk.stats
ok "the counters are a file" test -f "$file"
cp "$file" "$tmp/saved"
# The number of rings stands at 12.
printf '\377\377\377\377' | dd of="$file" bs=1 seek=12 conv=notrunc status=none
ok "too many rings" fails 1 'not understood' xendisk stats web1 xvdb
ok "the list leaves that disk out" says '"disks": \[\]' xendisk --json stats
cp "$tmp/saved" "$file"
: > "$file"
ok "cut off" fails 1 'not understood' xendisk stats web1 xvdb
head -c 300000 /dev/zero | tr '\0' '\377' > "$file"
head -c 4096 "$tmp/saved" | dd of="$file" conv=notrunc status=none
ok "numbers beyond all bounds" is 9223372036854775807 '$q[0]{in_flight}'

ok "detach" xendisk detach web1 xvdb
ok "the counters are gone" eventually 5 test ! -e "$file"
