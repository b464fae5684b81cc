# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# lib.sh - what scripts/check and scripts/demo share (sourced, not run).

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Everything that is built goes here; XENDISK_BUILD puts it elsewhere.
# shellcheck disable=SC2034
build=${XENDISK_BUILD:-$top/build}
# As a distribution would install it; real Xen is tested with that tree.
# shellcheck disable=SC2034
options=(--enable-werror --prefix=/usr --sysconfdir=/etc --localstatedir=/var)

say() { printf '\n=== %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Runs a command as root, through sudo when we are somebody else.
as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "needs root, or sudo, for: $*"
	fi
}

# packages SECTION...: the words of those sections of scripts/packages.
packages()
{
	local section
	for section; do
		sed -n "/^\[$section\]/,/^\[/p" "$top/scripts/packages" |
			grep -v '^[[#]'
	done
}

# install_packages NAME...: those that are missing, from Debian.
install_packages()
{
	local missing=() p
	for p; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null |
			grep -q 'ok installed' || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${#missing[@]} packages: ${missing[*]}"
	as_root apt-get -qq update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -qq \
		-o Dpkg::Use-Pty=0 install --no-install-recommends \
		"${missing[@]}" >/dev/null
	mkdir -p "$build"
	touch "$build/.packages" # what configure did not find may be there now
}

# build_in FOLDER CONFIGURE-OPTION...: configures (once) and builds there.
build_in()
{
	local dir=$1 opts=("${@:2}")

	[ "$top/configure" -nt "$top/configure.ac" ] ||
		(cd "$top" && autoreconf -fi) >/dev/null 2>&1 ||
		(cd "$top" && autoreconf -fi)
	mkdir -p "$dir"
	if [ ! -e "$dir/Makefile" ] || [ "$dir/.options" -ot "$top/configure" ] ||
	   [ "$dir/.options" -ot "$build/.packages" ] ||
	   [ "${opts[*]}" != "$(cat "$dir/.options" 2>/dev/null)" ]; then
		(cd "$dir" && "$top/configure" -q "${opts[@]}") ||
			die "configure failed in $dir"
		printf '%s\n' "${opts[*]}" > "$dir/.options"
	fi
	if ! make -s -C "$dir" -j"$(nproc)" > "$dir/build.log" 2>&1; then
		tail -40 "$dir/build.log"
		die "the build failed in $dir"
	fi
}
