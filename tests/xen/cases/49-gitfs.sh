# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Disks made of a tree of a git repository.

t 'gitfs: 10,000 files on FAT and EROFS, their sums as git has them' B xendisk gitfs_tree 900

# The two file systems are read by the guest's own kernel.
gitfs_tree() {
	local format
	# Whoever has built the lab.
	chown -R 0:0 /srv/tree.git
	guest pv
	for format in fat erofs; do
		attach pv xvdb "gitfs:/srv/tree.git?rev=main&format=$format" access=ro
		is "files on $format" \
			"$(gx -t 400 pv "disk tree xvdb ${format/#fat/vfat}")" 10003
		detach pv xvdb
	done
}
