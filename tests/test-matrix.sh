#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# ABIs, ring orders, queues, segments and sector sizes, data checked.  A sample
# that meets every value of each; XENDISK_MATRIX=full for all combinations.
. "$(dirname "$0")/functions.sh"

requests=${XENDISK_MATRIX_REQUESTS:-300}
truncate -s 16M "$tmp/512.img" "$tmp/4096.img"
sim_start
daemon_start
dom=$(domain)

# one SECTOR ABI ORDER QUEUES SEGMENTS [OPTION...]
one()
{
	ok "sector $1, $2, order $3, $4 queues, $5 segments ${*:6}" \
		guest "$dom" xvdb verify --abi "$2" --order "$3" --queues "$4" \
		--segments "$5" --requests "$requests" --seconds 20 --depth 16 \
		--bs "$1-$(($5 * 4096))" \
		"${@:6}"
}

for sector in 512 4096; do
	ok "attach, sectors of $sector" toolstack attach "$dom" xvdb \
		"raw($tmp/$sector.img, sector-size=$sector)"
	if [ "${XENDISK_MATRIX:-}" = full ]; then
		for abi in native x86_32 x86_64 arm; do
			for order in 0 1 2 3 4; do
				for queues in 1 2 3 4; do
					for segments in 1 11 12 32 256; do
						one $sector $abi $order $queues $segments
					done
				done
			done
		done
	else
		one $sector native 0 1 1
		one $sector x86_32 1 2 11
		one $sector x86_64 2 3 12
		one $sector arm 3 4 32
		one $sector x86_32 4 1 256
		one $sector x86_64 4 4 256
		one $sector native 2 2 256 --ring-key pages
		one $sector x86_32 0 1 11 --no-indirect
		one $sector x86_64 1 16 64
	fi
	ok "detach" toolstack detach "$dom" xvdb
done
