#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The benchmark measures what it says and adds it up rightly.  Not how fast
# anything is.
. "$(dirname "$0")/functions.sh"
requires perl openssl taskset
perl -MJSON::PP -e 1 || skip_all "perl has no JSON::PP"

report() { "$top_srcdir/tests/bench/report" "$@"; }
compare() { "$top_srcdir/tests/bench/compare" "$@"; }

# value PERL: an expression over $r, the JSON that was written.
value()
{
	perl -MJSON::PP -e 'undef $/; our $r = decode_json(<STDIN>);
		print eval $ARGV[0]; die $@ if $@' "$1" < "$tmp/out.json"
}
is() { local got; got=$(value "$2"); [ "$got" = "$1" ] || { echo "$2 is $got instead of $1"; return 1; }; }

# --- Adding up: runs that are known -------------------------------------------

# run ROUND REQUESTS CPU_NS P50 OCCUPANCY-BEFORE OCCUPANCY-AFTER
run()
{
	printf '{"point":"4k-randread-qd32","server":"raw","round":%s,"cpu_ns":%s,"load":{"iops":%s,"bytes_per_second":1048576,"latency_us":{"p50":%s,"p99":9},"requests":%s,"errors":0,"notifies_per_request":0.5,"events_per_request":1},"before":{"disks":[{"queues":[{"ring_occupancy":%s}]}]},"after":{"disks":[{"queues":[{"ring_occupancy":%s}]}]}}\n' \
		"$1" "$3" "$2" "$4" "$2" "$5" "$6"
}
fio_run()
{
	printf '{"point":"4k-randread-qd32","server":"fio","round":1,"used":[1.0,0.5],"idle":[0.3,0.2],"fio":{"jobs":[{"read":{"total_ios":1000000,"iops":5000,"bw_bytes":2097152,"clat_ns":{"percentile":{"50.000000":7000,"99.000000":8000}}},"write":{"total_ios":0}}]}}\n'
}
{
	run 1 1000 3000000 5 '{"1":10}' '{"1":10,"4":2}'
	run 2 2000 4000000 7 '{"1":10,"4":2}' '{"1":12,"4":4}'
	run 3 4000 16000000 6 '{}' '{"2":1}'
	fio_run
} > "$tmp/runs"
of_raw='$r->{points}{"4k-randread-qd32"}{raw}'
ok "a report" says 'raw <= 1.50 of fio' \
	report --json "$tmp/out.json" --plot "$tmp/out.svg" "$tmp/runs"
ok "the most requests a second" is 4000 "${of_raw}{iops}{best}"
ok "and their median" is 2000 "${of_raw}{iops}{median}"
ok "the least CPU a request, us" is 2 "${of_raw}{cpu_us}{best}"
ok "and its median" is 3 "${of_raw}{cpu_us}{median}"
ok "latency" is '5 6' "join ' ', map { ${of_raw}{p50_us}{\$_} } qw(best median)"
ok "occupancy: what came in between" is 2.5 "${of_raw}{occupancy}{median}"
ok "fio: less what it takes to start" is 1 \
	'$r->{points}{"4k-randread-qd32"}{fio}{cpu_us}{best}'
ok "twice fio is more than 1.5 of it" is '2 0' \
	'join " ", $r->{goals}[0]{ratio}, $r->{goals}[0]{reached} ? 1 : 0'
ok "the picture is one" grep -q '^</svg>$' "$tmp/out.svg"
# In a guest: fio with no word of CPU, and medians count.
in_guest()
{
	printf '{"point":"guest-4k-randread-qd1","server":"%s","round":1,"fio":{"jobs":[{"read":{"total_ios":9,"iops":%s,"bw_bytes":1,"clat_ns":{"percentile":{"50.000000":1,"99.000000":1}}},"write":{"total_ios":0}}]}}\n' "$@"
}
for iops in 300 100 200; do in_guest ours $iops; in_guest qdisk 100; done > "$tmp/guest"
ok "runs in a guest" report --json "$tmp/out.json" "$tmp/guest"
ok "the medians are compared" is 2 '$r->{goals}[0]{ratio}'
sed 's/"errors":0/"errors":3/' "$tmp/runs" > "$tmp/bad"
ok "errors are no result" fails 1 'errors in a run of raw' report "$tmp/bad"
echo '{"point":' >> "$tmp/runs"
ok "half a line is none either" fails 1 'line 5: no JSON' report "$tmp/runs"

# Of nbdcopy there are bytes and a time; of fio before a server, its CPU.
{
	printf '{"point":"nbd-copy","server":"%s","round":1,"cpu_ns":1,"copy":{"bytes":%s,"us":2000000}}\n' \
		ours 8388608 nbdkit 4194304
	printf '{"point":"nbd-4k-randread-qd1","server":"ours","round":1,"cpu_ns":4000,"fio":{"jobs":[{"read":{"total_ios":2,"iops":3,"bw_bytes":1,"clat_ns":{"percentile":{"50.000000":1,"99.000000":1}}},"write":{"total_ios":0}}]}}\n'
} > "$tmp/nbd"
ok "runs of NBD servers" says 'ours >= 1.00 of nbdkit *2.00  reached' \
	report --json "$tmp/out.json" "$tmp/nbd"
ok "a copy's bandwidth" is 4 '$r->{points}{"nbd-copy"}{ours}{mib_s}{best}'
ok "the server's CPU, us" is 2 \
	'$r->{points}{"nbd-4k-randread-qd1"}{ours}{cpu_us}{best}'

# --- Measuring: a round of a second -----------------------------------------------

ok "wrong use" fails 2 'rounds.*number\|0: a number' compare --rounds 0
ok "no such server" fails 2 'tape: raw, mem' compare --servers raw,tape
ok "a round" says '4k-randread-qd1' compare --rounds 1 --seconds 1 --size 16 \
	--servers raw,null --only '*qd1' --dir "$tmp" --out "$tmp/out.json"
ok "only what was asked for" is 4k-randread-qd1 'join " ", keys %{$r->{points}}'
for server in raw null; do
	ok "$server: one request at a time" is 1 \
		"\$r->{points}{'4k-randread-qd1'}{$server}{occupancy}{median}"
	ok "$server: CPU was used" is 1 \
		"\$r->{points}{'4k-randread-qd1'}{$server}{cpu_us}{best} > 0.05 ? 1 : 0"
done

nbd() { "$top_srcdir/tests/bench/nbd" "$@"; }
ok "nbd: wrong use" fails 2 'size.*needs a value' nbd --size
ok "nbd: no such point" fails 2 'only tape: no such point' nbd --only tape
if command -v nbdkit nbdcopy qemu-nbd fio > /dev/null; then
	ok "nbd: a round" says 'nbd-copy' nbd --rounds 1 --seconds 1 --size 16 \
		--only 'nbd-copy' --out "$tmp/out.json"
	ok "nbd: three servers" is 'nbdkit ours qemu-nbd' \
		'join " ", sort keys %{$r->{points}{"nbd-copy"}}'
fi

# --- A guest whose requests are longer than the disk takes them ---------------

sim_start
daemon_start
dom=$(domain)
xendisk attach "$dom" 'null(16M)' --vdev xvdb --direct > /dev/null
guest "$dom" xvdb load --rw read --bs 80K --segments 8 --depth 4 --seconds 1 \
	--json > "$tmp/out.json"
in_parts()
{
	local jobs got
	jobs=$(value '$r->{requests}')
	xendisk --json stats "$dom" xvdb > "$tmp/out.json"
	got=$(value '$r->{disks}[0]{queues}[0]{read}{bytes}')
	[ "$got" = $((jobs * 81920)) ] || { echo "$got bytes in $jobs"; return 1; }
	got=$(value 'join " ", sort keys %{$r->{disks}[0]{queues}[0]{segments}}')
	[ "$got" = "4 8" ] || { echo "segments: $got"; return 1; }
}
ok "are requests of 8, 8 and 4" in_parts
ok "nothing is left" test -z "$(find "$tmp" -name 'xendisk-compare*')"
