# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# gitfs-functions.sh - what the tests of gitfs share (sourced).
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
[ -e "$top_builddir/backends/.libs/gitfs.so" ] ||
	skip_all "built without libgit2"
requires git nbdcopy perl

# Nobody's settings, and file names as they are.
export HOME=$tmp GIT_CONFIG_NOSYSTEM=1 LC_ALL=C.UTF-8 MTOOLS_SKIP_CHECK=1 tmp
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='2025-03-04T05:06:08Z'
export GIT_COMMITTER_DATE='2025-03-04T05:06:08Z'
git config --global init.defaultBranch main
git config --global gc.auto 0
git config --global core.fsync none

touch "$tmp/none.conf"
serve()
{
	timeout 120 "$top_builddir/xendisk" serve --config "$tmp/none.conf" \
		--backend-dir "$top_builddir/backends/.libs" "$@"
}
# image FILE EXPR [COMMAND]: the whole disk, after the command.
image() { serve "$2" --run "${3:-:} && nbdcopy \"\$uri\" $1"; }
# no PATTERN EXPR: it is refused, with that in the sentence.
no() { fails 1 "$1" serve "$2" --run true; }

# sound FILE: fsck.fat has nothing to say.
sound()
{
	local out
	out=$(fsck.fat -n "$1") && ! grep -vE '^fsck.fat|files, .* clusters$' <<< "$out"
}
# unpack FILE DIR: all files of a FAT, by mtools.
unpack() { rm -rf "$2"; mkdir "$2"; mcopy -s -n -Q -m -i "$1" ::/ "$2"; }
# judged ARG...: fsck.erofs has nothing to say; its status is 0 in any case.
judged()
{
	local out
	out=$(fsck.erofs "$@" 2>&1) && ! grep -vE '^$|No errors found' <<< "$out"
}
# extract FILE DIR: all files of an EROFS, by fsck.erofs.
extract() { rm -rf "$2"; judged "--extract=$2" "$1"; }

# --- Disks that are written to ---------------------------------------------------
# writing: $disk is the disk of $repo that the functions below are about, $img what
# a guest sees of it, until it goes; m VERB ARG...: what it does there, by mtools.
# shellcheck disable=SC2154  # $disk is the test's
writing()
{
	requires mcopy qemu-io
	export XENDISK_LIBEXEC_DIR=$top_builddir
	img=$tmp/disk.img
	mkdir "$tmp/blocks"
	# The guest writes the blocks that are different then.
	cat > "$tmp/blocks.pl" << 'END'
my ($old, $new, $dir) = @ARGV;
open my $a, '<:raw', $old or die;
open my $b, '<:raw', $new or die;
for (my $at = 0; read($b, my $q, 4096); $at += 4096) {
	read($a, my $p, 4096);
	next if $p eq $q;
	open my $f, '>:raw', "$dir/$at" or die;
	print $f $q;
	print "write -s $dir/$at $at ", length $q, "\n";
}
print "flush\n";
END
	serve() { timeout 120 "$top_builddir/xendisk" serve --config "$tmp/none.conf" --backend-dir "$top_builddir/backends/.libs" --state-dir "${state:-$tmp/state}" "$@"; }
}
m() { "m$1" -i "$img" "${@:2}" < /dev/null; }
# shellcheck disable=SC2154  # the test's
look() { image "$img" "$disk" && cp "$img" "$tmp/before.img"; }
changes() { perl "$tmp/blocks.pl" "$tmp/before.img" "$img" "$tmp/blocks" > "$tmp/changes"; }
# shellcheck disable=SC2016  # $uri is the command's
put='qemu-io -f raw "$uri" < $tmp/changes > $tmp/qemu-io 2>&1 && ! grep -q rror $tmp/qemu-io'
# put_changes [MORE]: $tmp/changes, a command, and the server's end.
put_changes() { serve "$disk" --run "$put ${1:-}" 2> "$tmp/said"; }
guest_writes() { changes && put_changes "$@"; }
