# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Disks made of a tree of a git repository.

t 'gitfs: 10,000 files on FAT, with sums as git has them' B xendisk gitfs_fat 900
t 'gitfs: 10,000 files on EROFS, with sums as git has them' b xendisk gitfs_erofs 900
t 'gitfs: what a guest edits becomes commits, and nothing else' A xendisk gitfs_edits 600
t 'gitfs: replug, and xl knows' A xendisk gitfs_replug 400

# The two file systems are read by the guest's own kernel. All files are looked for, but
# to read each of them takes most of a minute.
gitfs_tree() { # FORMAT TYPE
	local nth=5
	[ -z "${XENLAB_ALL:-}" ] || nth=1
	# Whoever has built the lab.
	chown -R 0:0 /srv/tree.git
	guest pv
	attach pv xvdb "gitfs:/srv/tree.git?rev=main&format=$1" access=ro
	is "files on $1" "$(gx -t 400 pv "disk tree xvdb $2 $nth")" 10003
	detach pv xvdb
}

gitfs_fat() { gitfs_tree fat vfat; }

gitfs_erofs() { gitfs_tree erofs erofs; }

site() { git --git-dir=/srv/site.git "$@"; }

# commit_site TEXT [FILE]...: the next commit of main; each FILE holds its own name
# and TEXT.
commit_site() {
	local text=$1 file
	shift
	{
		echo 'commit refs/heads/main'
		echo 'committer lab <lab@example.org> 1741064768 +0000'
		printf 'data %d\n%s\n' ${#text} "$text"
		! site rev-parse -q --verify main >/dev/null ||
			echo 'from refs/heads/main^0'
		for file; do
			echo "M 100644 inline $file"
			printf 'data %d\n%s\n' $((${#file} + ${#text} + 2)) \
				"$file $text"$'\n'
		done
	} | site fast-import --quiet
}

new_site() {
	rm -rf /srv/site.git
	git -c init.defaultBranch=main init -q --bare /srv/site.git
	commit_site first kept.txt changed.txt gone.txt docs/old-name.txt
}

# edits REV: what that commit changes, one line a file.
edits() {
	site diff-tree -r -M --no-commit-id --name-status "$1" | tr '\t' ' '
}

# A snapshot of what is mounted for writing is refused, for a FAT says so itself.
gitfs_edits() {
	local one expr='gitfs(/srv/site.git, rev=main, rw=yes, commit=edits, size=40M)'
	guest pv
	new_site
	attach pv xvdb "$expr"
	gx -t 60 pv 'mount -t vfat /dev/xvdb /mnt && echo more >>/mnt/changed.txt && sync'
	refuse patient xendisk snapshot pv xvdb -m early
	has "why" "$output" 'was not unmounted'
	gx -t 60 pv 'mount -o remount,ro /mnt && sync'
	one=$(patient xendisk snapshot pv xvdb -m one --wait)
	is "the head" "$(site rev-parse edits)" "$one"
	is "the first edit" "$(edits edits)" 'M changed.txt'
	has "git log -p" "$(site log -1 -p edits)" '^\+more$'
	is "what xenstore says" "$(backend_key pv xvdb xendisk-commit)" "$one"

	gx -t 60 pv 'mount -o remount,rw /mnt && echo new >/mnt/docs/new.txt && rm /mnt/gone.txt && mv /mnt/docs/old-name.txt "/mnt/Another name.txt"'
	gx -t 60 pv 'umount /mnt'
	detach pv xvdb
	is "the second parent" "$(site rev-parse edits~1)" "$one"
	is "the other edits" "$(edits edits)" \
		$'R100 docs/old-name.txt Another name.txt\nA docs/new.txt\nD gone.txt'
	has "git log -p" "$(site log -1 -p edits)" '^\+new$'
	is "commits" "$(site rev-list --count main..edits)" 2
	site fsck --full --strict 2>&1 || fail "git fsck refuses it"

	# The next guest has it, and who changes nothing commits nothing.
	attach pv xvdb "$expr"
	is "what the guest has" "$(gx -t 60 pv 'mount -t vfat /dev/xvdb /mnt && cat /mnt/docs/new.txt /mnt/changed.txt; umount /mnt')" \
		$'new\nchanged.txt first\nmore'
	detach pv xvdb
	is "commits" "$(site rev-list --count main..edits)" 2
	rm -r /srv/site.git
}

# block_list DOM: what xl says of its disks, but for the rings' numbers.
block_list() {
	xl block-list "$1" | awk '{ print $1, $2, $NF }'
}

gitfs_replug() {
	local before said
	guest pv
	new_site
	attach pv xvdb 'gitfs:/srv/site.git?rev=main' access=ro
	before=$(block_list pv)
	commit_site second kept.txt
	is "what the guest still has" "$(gx -t 60 pv 'mount -t vfat -o ro /dev/xvdb /mnt && cat /mnt/kept.txt; umount /mnt')" \
		'kept.txt first'
	patient xendisk replug pv xvdb
	gx -t 90 pv 'disk wait xvdb'
	is "what the guest has" "$(gx -t 60 pv 'mount -t vfat -o ro /dev/xvdb /mnt && cat /mnt/kept.txt; umount /mnt')" \
		'kept.txt second'
	is "what xl says" "$(block_list pv)" "$before"
	is "what xenstore says" "$(backend_key pv xvdb xendisk-commit)" \
		"$(site rev-parse main)"
	# With the guest's consent.
	commit_site third kept.txt
	(patient xendisk replug pv xvdb --when-asked >/run/lab/replug 2>&1
		echo status $? >>/run/lab/replug) &
	sleep 2
	said=$(backend_key pv xvdb xendisk-commit)
	is "before it asks" "$said" "$(site rev-parse main~1)"
	xenstore-write "/local/domain/$(domid pv)/device/vbd/$(devid xvdb)/xendisk-replug" 1
	within 90 grep -q '^status' /run/lab/replug
	is "replug" "$(tail -1 /run/lab/replug)" 'status 0'
	gx -t 90 pv 'disk wait xvdb'
	is "what the guest has" "$(gx -t 60 pv 'mount -t vfat -o ro /dev/xvdb /mnt && cat /mnt/kept.txt; umount /mnt')" \
		'kept.txt third'
	is "what xl says" "$(block_list pv)" "$before"
	# The other way round: xl is to detach what replug attached.
	detach pv xvdb
	! block_list pv | grep '^51728' || fail "xl lists it still"
	rm -r /srv/site.git
}
