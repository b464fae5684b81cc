/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-ext.c - ext2, ext3 and ext4, as libext2fs reads them.
 *
 * Theory of operation
 *
 * libext2fs reads blocks by an io_manager; ours takes them from the disk at a commit,
 * and from the journal where that has a newer version.  So the file system is opened
 * twice when there is something in its journal: first to find that.
 *
 * libext2fs is not made for file systems of an enemy.  What it may read is counted,
 * each folder is gone into once, and who calls is in a process that may do nothing
 * but read objects of the repository (git-files.c).
 */
#include "config.h"

#include <ext2fs/ext2fs.h>
#include <string.h>

#include "common/util.h"
#include "ext-journal.h"
#include "fs-tree.h"

#define READS_MAX     (1u << 26) /* of libext2fs, in all */
#define GROUPS_MAX    (1u << 23) /* libext2fs keeps 64 bytes for each */
#define LINK_MAX_TEXT 4096u /* bytes; Linux has no longer ones */
#define SUPER	      1024u /* where it is, and its bytes */

struct ext {
	ext2_filsys fs;
	uint32_t block; /* bytes */
	struct ext_journal journal;
	uint32_t reads;
	uint8_t *seen; /* a bit for each inode that is a folder */
	int err; /* of reading the disk, and why: libext2fs keeps neither */
	char why[WHY_MAX];
};

/* --- Blocks ---------------------------------------------------------------------- */

/* libext2fs passes nothing to open() but a name. */
static struct fs_volume *opening;

/* What lies in the journal is put over what was read. */
static int put_journal(const struct fs_volume *volume, uint64_t offset,
		       uint8_t *buf, size_t n)
{
	struct ext *ext = volume->data;
	const struct ext_journal *j = &ext->journal;
	const struct ext_journal_block *b =
		j->nr ? ext_journal_find(j, offset / ext->block) : NULL;
	int r = 0;

	for (; b && b < j->blocks + j->nr && r == 0 &&
	       b->block <= (offset + n - 1) / ext->block;
	     b++) {
		uint64_t first = MAX(b->block * ext->block, offset);
		uint64_t end = MIN((b->block + 1) * ext->block, offset + n);
		uint64_t skip = first - b->block * ext->block;

		r = fs_read(volume, b->where + skip, buf + (first - offset),
			    end - first, ext->why);
		if (r == 0 && b->escaped && skip == 0)
			memcpy(buf + (first - offset), FS_ESCAPED,
			       MIN(end - first, sizeof(FS_ESCAPED) - 1));
	}
	return r;
}

static errcode_t io_read64(io_channel io, unsigned long long block, int count,
			   void *buf)
{
	const struct fs_volume *volume = io->private_data;
	struct ext *ext = volume->data;
	size_t n = count < 0 ? (size_t) - (int64_t)count :
			       (size_t)count * (size_t)io->block_size;

	if (block > volume->size / (unsigned int)io->block_size)
		return EXT2_ET_SHORT_READ;
	if (ext->reads++ >= READS_MAX)
		ext->err = why(ext->why, -E2BIG,
			       "more had to be read than any has");
	if (ext->err == 0)
		ext->err = fs_read(volume, block * (unsigned int)io->block_size,
				   buf, n, ext->why);
	if (ext->err == 0)
		ext->err = put_journal(
			volume, block * (unsigned int)io->block_size, buf, n);
	return ext->err < 0 ? EXT2_ET_SHORT_READ : 0;
}

static errcode_t io_read(io_channel io, unsigned long block, int count,
			 void *buf)
{
	return io_read64(io, block, count, buf);
}

static errcode_t io_write64(io_channel io, unsigned long long block, int count,
			    const void *buf)
{
	(void)io, (void)block, (void)count, (void)buf;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t io_write(io_channel io, unsigned long block, int count,
			  const void *buf)
{
	return io_write64(io, block, count, buf);
}

static errcode_t io_set_block(io_channel io, int size)
{
	io->block_size = size;
	return 0;
}

static errcode_t io_flush(io_channel io)
{
	(void)io;
	return 0;
}

static errcode_t io_close(io_channel io)
{
	if (--io->refcount > 0)
		return 0;
	(void)ext2fs_free_mem(&io->name);
	return ext2fs_free_mem(&io);
}

static errcode_t io_open(const char *name, int flags, io_channel *ret);

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "xendisk",
	.open = io_open,
	.close = io_close,
	.set_blksize = io_set_block,
	.read_blk = io_read,
	.write_blk = io_write,
	.flush = io_flush,
	.read_blk64 = io_read64,
	.write_blk64 = io_write64,
};

static errcode_t io_open(const char *name, int flags, io_channel *ret)
{
	io_channel io;
	errcode_t r = ext2fs_get_memzero(sizeof(*io), &io);

	(void)flags;
	if (r)
		return r;
	r = ext2fs_get_memzero(strlen(name) + 1, &io->name);
	if (r) {
		(void)ext2fs_free_mem(&io);
		return r;
	}
	strcpy(io->name, name);
	io->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	io->manager = &manager;
	io->block_size = SUPER;
	io->refcount = 1;
	io->private_data = opening;
	*ret = io;
	return 0;
}

/* --- Errors ------------------------------------------------------------------------ */

/* What the library says, or what has kept it from reading. */
static int failed(struct ext *ext, errcode_t code, const char *what,
		  char *ret_why)
{
	if (ext->err < 0)
		return why(ret_why, ext->err, "%s: %s", what, ext->why);
	return why(ret_why,
		   code == EXT2_ET_NO_MEMORY ? -ENOMEM :
		   code == EXT2_ET_UNSUPP_FEATURE ||
				   code == EXT2_ET_RO_UNSUPP_FEATURE ?
					       -EOPNOTSUPP :
					       -EBADMSG,
		   "%s: %s", what, error_message(code));
}

/* "inode 12" */
static const char *inode_text(uint64_t inode, char ret[32])
{
	(void)snprintf(ret, 32, "inode %llu", (unsigned long long)inode);
	return ret;
}

static int read_inode(struct fs_volume *volume, uint64_t number,
		      struct ext2_inode_large *ret, char *ret_why)
{
	struct ext *ext = volume->data;
	char text[32];
	errcode_t code;

	memset(ret, 0, sizeof(*ret));
	code = ext2fs_read_inode_full(ext->fs, (ext2_ino_t)number,
				      (struct ext2_inode *)ret, sizeof(*ret));
	return code ? failed(ext, code, inode_text(number, text), ret_why) : 0;
}

/* --- Where a file is ------------------------------------------------------------------ */

struct mapping {
	struct fs_volume *volume;
	struct fs_runs *runs;
	uint64_t size; /* of the file */
	uint64_t base; /* added to each place */
	bool newest; /* take the journal's version */
	int err;
	char *why;
};

/* A number of blocks side by side; those behind the end of the file do not count. */
static int add_blocks(struct mapping *m, uint64_t at, uint64_t block,
		      uint64_t nr)
{
	struct ext *ext = m->volume->data;
	uint64_t all = ext2fs_blocks_count(ext->fs->super);

	if (block == 0 || block >= all || nr > all - block)
		return why(m->why, -EBADMSG,
			   "it has block %llu, which is not there",
			   (unsigned long long)block);
	while (nr > 0 && at * ext->block < m->size) {
		const struct ext_journal_block *b =
			m->newest && ext->journal.nr ?
				ext_journal_find(&ext->journal, block) :
				NULL;
		bool here = b && b->block == block;
		uint64_t n = here ? 1 : b ? MIN(nr, b->block - block) : nr;
		struct fs_run run = {
			.at = at * ext->block,
			.where = m->base +
				 (here ? b->where : block * ext->block),
			.length = n * ext->block,
			.escaped = here && b->escaped,
		};
		int r = fs_runs_add(m->runs, &run, m->why);

		if (r < 0)
			return r;
		at += n;
		block += n;
		nr -= n;
	}
	return 0;
}

static int map_extents(struct mapping *m, uint64_t number,
		       struct ext2_inode_large *inode)
{
	struct ext *ext = m->volume->data;
	int op = EXT2_EXTENT_ROOT, r = 0;
	struct ext2fs_extent extent;
	ext2_extent_handle_t handle;
	char text[32];
	errcode_t code = ext2fs_extent_open2(ext->fs, (ext2_ino_t)number,
					     (struct ext2_inode *)inode,
					     &handle);

	if (code)
		return failed(ext, code, inode_text(number, text), m->why);
	while (r == 0 && (code = ext2fs_extent_get(handle, op, &extent)) == 0) {
		op = EXT2_EXTENT_NEXT;
		if ((extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) &&
		    !(extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT))
			r = add_blocks(m, extent.e_lblk, extent.e_pblk,
				       extent.e_len);
	}
	ext2fs_extent_free(handle);
	if (r == 0 && code != EXT2_ET_EXTENT_NO_NEXT)
		r = failed(ext, code, inode_text(number, text), m->why);
	return r;
}

static int map_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t at,
		     blk64_t from, int offset, void *ctx)
{
	struct mapping *m = ctx;

	(void)fs, (void)from, (void)offset;
	if (at >= 0 && *block != 0)
		m->err = add_blocks(m, (uint64_t)at, *block, 1);
	return m->err < 0 ? BLOCK_ABORT : 0;
}

static int map_inode(struct mapping *m, uint64_t number,
		     struct ext2_inode_large *inode)
{
	struct ext *ext = m->volume->data;
	char text[32];
	errcode_t code;

	if (inode->i_flags & EXT4_EXTENTS_FL)
		return map_extents(m, number, inode);
	code = ext2fs_block_iterate3(ext->fs, (ext2_ino_t)number,
				     BLOCK_FLAG_READ_ONLY |
					     BLOCK_FLAG_DATA_ONLY,
				     NULL, map_block, m);
	if (m->err == 0 && code)
		return failed(ext, code, inode_text(number, text), m->why);
	return m->err;
}

static int ext_runs(struct fs_volume *volume, uint32_t node,
		    struct fs_runs *ret, char *ret_why)
{
	const struct fs_node *file = &volume->tree.nodes[node];
	struct mapping m = { .volume = volume,
			     .runs = ret,
			     .size = file->size,
			     .base = volume->start,
			     .newest = true,
			     .why = ret_why };
	struct ext2_inode_large inode;
	int r = read_inode(volume, file->handle, &inode, ret_why);

	return r < 0 ? r : map_inode(&m, file->handle, &inode);
}

/* --- The tree ------------------------------------------------------------------------ */

struct folder {
	struct fs_volume *volume;
	uint32_t node;
	int err;
	char *why;
};

static int take_entry(ext2_ino_t dir, int entry, struct ext2_dir_entry *from,
		      int offset, int block, char *buf, void *ctx)
{
	struct folder *folder = ctx;
	struct fs_tree *tree = &folder->volume->tree;
	size_t n = (size_t)ext2fs_dirent_name_len(from);
	const char *name = from->name;
	uint32_t at;

	(void)dir, (void)entry, (void)offset, (void)block, (void)buf;
	if ((n == 1 && name[0] == '.') ||
	    (n == 2 && name[0] == '.' && name[1] == '.'))
		return 0;
	if (n == 0 || memchr(name, '/', n) || memchr(name, '\0', n))
		folder->err = why(folder->why, -EBADMSG,
				  "inode %u: a name that is none",
				  (unsigned int)dir);
	else
		folder->err = fs_tree_add(tree, folder->node, name, n, &at,
					  folder->why);
	if (folder->err == 0)
		tree->nodes[at].handle = from->inode;
	return folder->err < 0 ? DIRENT_ABORT : 0;
}

static int read_folder(struct fs_volume *volume, uint32_t node, char *ret_why)
{
	struct ext *ext = volume->data;
	struct folder folder = { volume, node, 0, ret_why };
	struct fs_node *dir = &volume->tree.nodes[node];
	uint64_t number = dir->handle;
	char text[32];
	errcode_t code;

	if (ext->seen[number / 8] & 1u << number % 8)
		return why(ret_why, -EBADMSG,
			   "inode %llu: a folder that is in two",
			   (unsigned long long)number);
	ext->seen[number / 8] |= (uint8_t)(1u << number % 8);
	if (fs_tree_depth(&volume->tree, node) > FS_MAX_DEPTH)
		return why(ret_why, -E2BIG, "folders are more than %u deep",
			   FS_MAX_DEPTH);
	dir->first = volume->tree.nr;
	code = ext2fs_dir_iterate2(ext->fs, (ext2_ino_t)number, 0, NULL,
				   take_entry, &folder);
	if (folder.err == 0 && code)
		return failed(ext, code, inode_text(number, text), ret_why);
	if (folder.err == 0)
		fs_tree_sort(&volume->tree, node);
	return folder.err;
}

/* What is kept in an inode. */
static int keep_inline(struct fs_volume *volume, struct fs_node *node,
		       struct ext2_inode_large *inode, char *ret_why)
{
	struct ext *ext = volume->data;
	ext2_ino_t number = (ext2_ino_t)node->handle;
	cleanup_free char *bytes = NULL;
	char text[32];
	size_t n = 0;
	errcode_t code = ext2fs_inline_data_size(ext->fs, number, &n);

	if (code == 0)
		bytes = malloc(n + 1);
	if (code == 0 && !bytes)
		return why(ret_why, -ENOMEM, "no memory");
	if (code == 0)
		code = ext2fs_inline_data_get(
			ext->fs, number, (struct ext2_inode *)inode, bytes, &n);
	if (code)
		return failed(ext, code, inode_text(number, text), ret_why);
	node->size = MIN(node->size, n);
	return fs_tree_keep(&volume->tree, bytes, node->size, &node->text,
			    ret_why);
}

static int keep_link(struct fs_volume *volume, uint32_t at,
		     struct ext2_inode_large *inode, char *ret_why)
{
	struct fs_node *node = &volume->tree.nodes[at];
	struct fs_runs runs = { .nr = 0 };
	char text[LINK_MAX_TEXT];
	int r = 0;

	if (node->size > sizeof(text))
		return why(ret_why, -EBADMSG,
			   "inode %llu: a symbolic link that is too long",
			   (unsigned long long)node->handle);
	if (ext2fs_is_fast_symlink((struct ext2_inode *)inode)) {
		node->size = MIN(node->size, sizeof(inode->i_block));
		memcpy(text, inode->i_block, node->size);
	} else {
		r = ext_runs(volume, at, &runs, ret_why);
		if (r == 0 && (runs.nr == 0 || runs.runs[0].at != 0 ||
			       runs.runs[0].length < node->size))
			r = why(ret_why, -EBADMSG,
				"inode %llu: a symbolic link in pieces",
				(unsigned long long)node->handle);
		if (r == 0)
			r = commit_disk_read(volume->disk, runs.runs[0].where,
					     text, node->size, ret_why);
		free(runs.runs);
	}
	return r < 0 ? r :
		       fs_tree_keep(&volume->tree, text, node->size,
				    &node->text, ret_why);
}

static int read_node(struct fs_volume *volume, uint32_t at, char *ret_why)
{
	struct ext *ext = volume->data;
	struct fs_node *node = &volume->tree.nodes[at];
	struct ext2_inode_large inode;
	int r;

	if (node->handle == 0 || node->handle > ext->fs->super->s_inodes_count)
		return why(ret_why, -EBADMSG, "inode %llu is not there",
			   (unsigned long long)node->handle);
	r = read_inode(volume, node->handle, &inode, ret_why);
	if (r < 0)
		return r;
	node->mode = inode.i_mode;
	node->uid = inode_uid(inode);
	node->gid = inode_gid(inode);
	node->identity[0] = node->handle | (uint64_t)inode.i_generation << 32;
	node->identity[1] = inode.i_crtime | (uint64_t)inode.i_crtime_extra
						     << 32;
	if (S_ISCHR(node->mode) || S_ISBLK(node->mode))
		node->device = inode.i_block[0] ? inode.i_block[0] :
						  inode.i_block[1];
	if (!S_ISREG(node->mode) && !S_ISLNK(node->mode))
		return 0;
	node->size = EXT2_I_SIZE(&inode);
	if (inode.i_flags & EXT4_INLINE_DATA_FL)
		return keep_inline(volume, node, &inode, ret_why);
	return S_ISLNK(node->mode) ? keep_link(volume, at, &inode, ret_why) : 0;
}

static int read_tree(struct fs_volume *volume, char *ret_why)
{
	struct ext *ext = volume->data;
	char reason[WHY_MAX];
	int r = 0;

	ext->seen = calloc(ext->fs->super->s_inodes_count / 8 + 1, 1);
	if (!ext->seen)
		return why(ret_why, -ENOMEM, "no memory");
	volume->tree.has_modes = true;
	volume->tree.nodes[0].handle = EXT2_ROOT_INO;
	for (uint32_t i = 0; i < volume->tree.nr && r == 0; i++) {
		r = read_node(volume, i, reason);
		if (r == 0 && S_ISDIR(volume->tree.nodes[i].mode))
			r = read_folder(volume, i, reason);
		else if (r == 0 && i == 0)
			r = why(reason, -EBADMSG, "it is no folder");
		if (r < 0) {
			cleanup_free char *path =
				fs_tree_path(&volume->tree, i);

			(void)why(ret_why, r, "%.200s: %.300s",
				  path ? path : "", reason);
		}
	}
	return r;
}

/* --- Opening -------------------------------------------------------------------------- */

/* libext2fs makes tables of what the superblock says, be it in the journal. */
static int check_super(struct fs_volume *volume, char *ret_why)
{
	struct ext2_super_block super;
	struct ext *ext = volume->data;
	uint64_t blocks;
	int r = fs_read(volume, SUPER, &super, sizeof(super), ext->why);

	if (r == 0)
		r = put_journal(volume, SUPER, (uint8_t *)&super,
				sizeof(super));
	if (r < 0)
		return why(ret_why, r, "%s", ext->why);
	blocks = ext2fs_le32_to_cpu(super.s_blocks_count);
	if (ext2fs_le32_to_cpu(super.s_feature_incompat) &
	    EXT4_FEATURE_INCOMPAT_64BIT)
		blocks |= (uint64_t)ext2fs_le32_to_cpu(super.s_blocks_count_hi)
			  << 32;
	if (ext2fs_le32_to_cpu(super.s_log_block_size) > 6)
		return why(ret_why, -EBADMSG, "blocks of an impossible size");
	if (blocks > volume->size >>
	    (10 + ext2fs_le32_to_cpu(super.s_log_block_size)))
		return why(ret_why, -EBADMSG,
			   "%llu blocks, which is more than there is room for",
			   (unsigned long long)blocks);
	if (blocks / MAX(ext2fs_le32_to_cpu(super.s_blocks_per_group), 1u) >
	    GROUPS_MAX)
		return why(ret_why, -E2BIG, "more than %u groups of blocks",
			   GROUPS_MAX);
	return 0;
}

static int open_fs(struct fs_volume *volume, char *ret_why)
{
	struct ext *ext = volume->data;
	errcode_t code;

	opening = volume;
	code = ext2fs_open2("disk", NULL,
			    EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0,
			    0, &manager, &ext->fs);
	opening = NULL;
	if (code)
		return failed(ext, code, "opening it", ret_why);
	ext->block = ext->fs->blocksize;
	return 0;
}

static void close_fs(struct ext *ext)
{
	if (ext->fs)
		(void)ext2fs_close_free(&ext->fs);
}

static int read_journal(struct fs_volume *volume, char *ret_why)
{
	struct ext *ext = volume->data;
	uint32_t number = ext->fs->super->s_journal_inum;
	struct ext2_inode_large inode;
	struct fs_runs runs = { .nr = 0 };
	struct mapping m = { .volume = volume, .runs = &runs, .why = ret_why };
	int r;

	if (number == 0)
		return why(ret_why, -EOPNOTSUPP,
			   "its journal is on another disk");
	r = read_inode(volume, number, &inode, ret_why);
	if (r < 0)
		return r;
	m.size = EXT2_I_SIZE(&inode);
	r = map_inode(&m, number, &inode);
	if (r == 0)
		r = ext_journal_read(&ext->journal, volume, &runs, m.size,
				     ext->block, ret_why);
	free(runs.runs);
	return r;
}

static int ext_read(struct fs_volume *volume, char *ret_why)
{
	struct ext *ext = calloc(1, sizeof(*ext));
	int r;

	volume->data = ext;
	if (!ext)
		return why(ret_why, -ENOMEM, "no memory");
	initialize_ext2_error_table();
	r = check_super(volume, ret_why);
	if (r == 0)
		r = open_fs(volume, ret_why);
	if (r == 0 && ext2fs_has_feature_journal_needs_recovery(ext->fs->super))
		r = read_journal(volume, ret_why);
	if (r == 0 && ext->journal.has_fast)
		(void)snprintf(volume->note, sizeof(volume->note),
			       "what was written last may be missing: it is "
			       "in fast commits");
	if (r == 0 && ext->journal.nr > 0) {
		close_fs(ext);
		r = check_super(volume, ret_why);
		if (r == 0)
			r = open_fs(volume, ret_why);
	}
	return r < 0 ? r : read_tree(volume, ret_why);
}

static void ext_close(struct fs_volume *volume)
{
	struct ext *ext = volume->data;

	if (!ext)
		return;
	close_fs(ext);
	ext_journal_free(&ext->journal);
	free(ext->seen);
	free(ext);
	volume->data = NULL;
}

const struct fs_ops fs_ext_ops = {
	.name = "ext4",
	.read = ext_read,
	.runs = ext_runs,
	.close = ext_close,
};
