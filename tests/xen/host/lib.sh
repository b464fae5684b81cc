# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Helpers of the lab's host side, sourced by run, fetch, images and boot.
XEN_VERSION=4.17
LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XENLAB_CACHE:?XENLAB_CACHE names the folder of downloads and images}

die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# The packages of the list $LAB/packages, one a line.
needed_packages() {
	sed 's/#.*//; /^[[:space:]]*$/d' "$LAB/packages"
}

# The version of the unpacked kernel, e.g. 6.1.0-56-amd64.
kernel_version() {
	basename "$(printf '%s\n' "$CACHE"/tree/lib/modules/*-amd64 |
		sort -V | tail -1)"
}

is_elf() {
	[ "$(head -c4 "$1" | tail -c3)" = ELF ]
}

# with_libs ROOT: give every ELF file inside ROOT the shared libraries it
# needs, as this machine resolves them, at the same path inside ROOT.
with_libs() {
	local root=$1 file lib
	find "$root" -type f \( -perm -u+x -o -name '*.so*' \) ! -name '*.ko' \
		-print0 |
	while IFS= read -r -d '' file; do
		is_elf "$file" || continue
		# ldd fails on a static program, which needs nothing.
		{ ldd "$file" 2>/dev/null || :; } |
			awk '/=> \// {print $3} /^[ \t]*\/lib.*ld-/ {print $1}'
	done | sort -u | while read -r lib; do
		[ ! -e "$root$lib" ] || continue
		case $lib in "$root"/*) continue ;; esac
		mkdir -p "$root$(dirname "$lib")"
		cp -L "$lib" "$root$lib"
	done
}

# make_cpio DIR: DIR as an uncompressed newc archive on stdout. Unpacking one
# is a memcpy; a compressed one costs more under emulation than it saves.
make_cpio() {
	(cd "$1" && find . -print0 | LC_ALL=C sort -z |
		cpio --quiet -0 -o -H newc -R 0:0)
}
