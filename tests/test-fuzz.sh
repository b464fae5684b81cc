#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The fuzzers with libFuzzer, under ASan and UBSan: slots of the ring by the
# number, the others by the clock.  For check-long; the corpora are replayed in
# make check.
#
#	XENDISK_FUZZ_SLOTS	how many slots (10000000)
#	XENDISK_FUZZ_SECONDS	each of the others (60)
. "$(dirname "$0")/functions.sh"
requires clang make

slots=${XENDISK_FUZZ_SLOTS:-10000000}
seconds=${XENDISK_FUZZ_SECONDS:-60}
programs=$top_builddir/fuzzing/tests/fuzz
corpora=$top_srcdir/tests/fuzz/corpus

# fuzz NAME OPTION...: what it finds that is new goes to $tmp.  A failure's last
# lines hold the input, in Base64.
fuzz()
{
	local name=$1
	mkdir -p "$tmp/$name"
	(cd "$tmp" && nice -n 10 "$programs/fuzz-$name" "${@:2}" \
		"-max_len=1200" "$name" "$corpora/$name") > "$tmp/$name.log" 2>&1
}

# Until so many are done; a process has its own start.
fuzz_slots()
{
	local n
	export FUZZ_COUNT=1
	judged=0
	while [ "$judged" -lt "$slots" ]; do
		fuzz slot -runs=500000 || return 1
		n=$(sed -n 's/^\([0-9]*\) slots judged.*/\1/p' "$tmp/slot.log")
		judged=$((judged + ${n:?no count}))
		sed -n '/slots judged/p' "$tmp/slot.log" >> "$tmp/counts"
	done
}

# found_nothing NAME COMMAND...
found_nothing()
{
	"${@:2}" || { tail -c 3000 "$tmp/$1.log"; return 1; }
}

sum() { awk -v f="$1" '{ n += $f } END { printf "%d", n }' "$tmp/counts"; }

made() { make -s -j2 -C "$top_builddir" fuzzers; }

ok "the fuzzers build" made
[ $bad = 0 ] || exit 1
: > "$tmp/counts"
ok "slot: $slots slots, each judged as it should be" \
	found_nothing slot fuzz_slots
echo "# $(sum 1) slots judged, $(sum 4) of them legal"
for corpus in "$corpora"/*; do
	name=${corpus##*/}
	[ "$name" != slot ] || continue
	case $name in
	committer | disk | fat | files | git | overlay)
		[ -e "$top_builddir/backends/.libs/gitfs.so" ] || continue
		;;
	esac
	ok "$name: nothing found in $seconds s" found_nothing "$name" \
		fuzz "$name" "-max_total_time=$seconds" -timeout=60
	echo "# $name: $(sed -n 's/^Done \([0-9]* runs\).*/\1/p' "$tmp/$name.log")"
done
