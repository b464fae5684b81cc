/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * fat-match.c says which file of the old tree each one is.  Here the content and
 * the mode of each are found, and trees are written from the last folder to the
 * root: a folder comes before what is in it, so all that it holds has an id by then.
 *
 * A file whose clusters are those that an old one was laid out in, none of them
 * written, is that one: its id is known, and nothing is read.  That also finds
 * those that were renamed, which keep their mode.  All others are read and hashed.
 *
 * Git has no empty folders: one that a guest makes is not in the tree.  A folder in
 * which nothing is different is the old one, by id, whatever oddities its tree has.
 */
#include "config.h"

#include "fat-tree.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "common/util.h"
#include "fat-match.h"
#include "lfs.h"
#include "tree.h"

#define MODE_FILE  0100644u
#define MODE_BYTES 8u /* of a mode in a tree, with a blank */

/* What a node on the FAT is in git. */
struct made {
	uint8_t oid[OID_BYTES];
	uint32_t mode; /* 0: it is not there */
	bool same; /* as in the old tree */
};

struct making {
	struct fat_match match;
	struct fat_volume *volume;
	const struct fat_tree_ops *ops;
	struct made *made; /* for each node on the FAT */
	uint8_t *buf; /* of the file that is read */
	size_t room;
	struct fat_tree_counts counts;
	char *why;
};

/* --- Saying what is different ------------------------------------------------------ */

static void tell(struct making *m, enum fat_change change, char *path)
{
	uint32_t *count = change == FAT_ADDED	? &m->counts.added :
			  change == FAT_REMOVED ? &m->counts.removed :
						  &m->counts.changed;

	(*count)++;
	if (m->ops->changed && path)
		m->ops->changed(m->ops->ctx, change, path);
	free(path);
}

/* Of a file. */
static void tell_file(struct making *m, uint32_t node)
{
	uint32_t base = m->match.found[node].base;
	const struct made *made = &m->made[node];
	enum fat_change change = FAT_ADDED;

	if (made->same)
		return;
	if (base != FAT_NOWHERE)
		change = (made->mode & S_IFMT) ==
					 (m->match.base[base].mode & S_IFMT) ?
				 FAT_CHANGED :
				 FAT_RETYPED;
	tell(m, change, fat_match_path(&m->match, node));
}

static void tell_removed(struct making *m)
{
	for (uint32_t i = 0; i < m->match.laid->nr; i++) {
		const struct fat_base *base = &m->match.base[i];

		if (base->mode != 0 && !S_ISDIR(base->mode) &&
		    base->user == FAT_NOWHERE)
			tell(m, FAT_REMOVED, fat_match_base_path(&m->match, i));
	}
}

/* --- Files -------------------------------------------------------------------------- */

static int node_fails(const struct making *m, uint32_t node, int err,
		      const char *what)
{
	char path[200];

	return why(m->why, err, "%s: %s",
		   vtree_path(m->match.tree, node, path, sizeof(path)), what);
}

static bool is_followed_link(const struct making *m, uint32_t base)
{
	return S_ISLNK(m->match.base[base].mode) &&
	       m->match.laid->nodes[base].mark != VNODE_LINK;
}

/* Its clusters are those of an old file, and as they were: which one? */
static uint32_t find_untouched(const struct making *m, uint32_t node)
{
	uint64_t size = m->match.tree->nodes[node].size;
	struct fat_run run;
	uint32_t old;

	if (!fat_volume_first_run(m->volume, node, &run) ||
	    run.length != size || !m->ops->untouched(m->ops->ctx, &run, &old) ||
	    m->match.laid->nodes[old].size != size ||
	    m->match.base[old].mode == 0)
		return FAT_NOWHERE;
	/* The content of a link that was followed is another one's, and the id
	 * that of where it leads. */
	if (is_followed_link(m, old) && m->match.found[node].base != old)
		return FAT_NOWHERE;
	return old;
}

static uint32_t mode_of(const struct making *m, uint32_t node, uint32_t old)
{
	uint32_t base = m->match.found[node].base;

	if (base != FAT_NOWHERE &&
	    (S_ISREG(m->match.base[base].mode) || base == old))
		return m->match.base[base].mode;
	if (old != FAT_NOWHERE)
		return m->match.base[old].mode;
	return MODE_FILE;
}

static int read_file(struct making *m, uint32_t node)
{
	uint64_t size = m->match.tree->nodes[node].size;

	if (size > FAT_TREE_MAX_FILE)
		return node_fails(m, node, -EFBIG,
				  "a file of more than 256 MiB that was "
				  "changed is too much for a commit");
	if (size > m->room) {
		uint8_t *buf = realloc(m->buf, size);

		if (!buf)
			return node_fails(m, node, -ENOMEM,
					  "there is not enough memory");
		m->buf = buf;
		m->room = size;
	}
	m->counts.read++;
	m->counts.bytes += size;
	return fat_volume_file(m->volume, node, m->buf, m->why);
}

/* The text of a link that was laid out as a text: is it one still? */
static bool is_target(const struct making *m, uint32_t base, uint64_t size)
{
	return m->match.laid->nodes[base].mark == VNODE_LINK && size > 0 &&
	       size <= VTREE_MAX_LINK && !memchr(m->buf, '\0', size) &&
	       !memchr(m->buf, '\n', size);
}

/* A link that was laid out as the file to which it leads: it is one still, if it
 * holds what that had. */
static bool is_as_target(const struct making *m, uint32_t base,
			 const uint8_t *oid)
{
	const struct vtree *laid = m->match.laid;
	const struct vnode *link = &laid->nodes[base];

	for (uint32_t i = 0; i < laid->nr; i++) {
		const struct vnode *node = &laid->nodes[i];

		if (S_ISREG(m->match.base[i].mode) &&
		    node->kind == link->kind && node->pack == link->pack &&
		    node->at == link->at)
			return memcmp(m->match.base[i].oid, oid, OID_BYTES) ==
			       0;
	}
	return false;
}

static int hash_file(struct making *m, uint32_t node)
{
	uint64_t size = m->match.tree->nodes[node].size;
	uint32_t base = m->match.found[node].base;
	struct made *made = &m->made[node];
	int r = size ? read_file(m, node) : 0;

	if (r == 0)
		r = m->ops->put(m->ops->ctx, OBJECT_BLOB,
				size ? (const void *)m->buf : "", size,
				made->oid, m->why);
	if (r < 0)
		return r;
	made->mode = mode_of(m, node, FAT_NOWHERE);
	if (base == FAT_NOWHERE || !S_ISLNK(m->match.base[base].mode))
		return 0;
	if (is_target(m, base, size)) {
		made->mode = m->match.base[base].mode;
	} else if (is_followed_link(m, base) &&
		   is_as_target(m, base, made->oid)) {
		memcpy(made->oid, m->match.base[base].oid, OID_BYTES);
		made->mode = m->match.base[base].mode;
	}
	return 0;
}

/* Of a node of the tree that was laid out. */
static int was_pointer(const struct making *m, uint32_t base)
{
	if (!S_ISREG(m->match.base[base].mode))
		return 0;
	return m->ops->is_pointer(m->ops->ctx, m->match.base[base].oid,
				  m->match.laid->nodes[base].size, m->why);
}

/* What Git LFS keeps elsewhere is not to be in the repository by surprise. */
static int check_pointer(const struct making *m, uint32_t node, uint32_t old)
{
	uint64_t size = m->match.tree->nodes[node].size;
	uint32_t base = m->match.found[node].base;
	struct lfs_pointer pointer;
	int r;

	if (!m->ops->is_pointer || base == FAT_NOWHERE || base == old ||
	    size == 0)
		return 0;
	r = was_pointer(m, base);
	if (r <= 0)
		return r;
	r = old != FAT_NOWHERE ? was_pointer(m, old) :
				 lfs_is_pointer(m->buf, size, &pointer);
	if (r == 0)
		r = node_fails(m, node, -EBADMSG,
			       "it was a pointer of Git LFS, and is none any "
			       "more: lfs=no commits it as it is");
	return MIN(r, 0);
}

static int make_file(struct making *m, uint32_t node)
{
	uint32_t old = find_untouched(m, node);
	uint32_t base = m->match.found[node].base;
	struct made *made = &m->made[node];
	int r = 0;

	if (old == FAT_NOWHERE) {
		r = hash_file(m, node);
	} else {
		memcpy(made->oid, m->match.base[old].oid, OID_BYTES);
		made->mode = mode_of(m, node, old);
	}
	if (r == 0)
		r = check_pointer(m, node, old);
	if (r < 0)
		return r;
	made->same = base != FAT_NOWHERE &&
		     made->mode == m->match.base[base].mode &&
		     memcmp(made->oid, m->match.base[base].oid, OID_BYTES) == 0;
	tell_file(m, node);
	return 0;
}

/* --- Folders ------------------------------------------------------------------------- */

struct entry {
	const char *name;
	const struct made *made;
};

static int by_git(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return tree_compare(x->name, S_ISDIR(x->made->mode), y->name,
			    S_ISDIR(y->made->mode));
}

/* Returns what they take in a tree. */
static size_t gather(const struct making *m, uint32_t folder, struct entry *ret,
		     uint32_t *ret_nr, bool *ret_same)
{
	const struct vnode *dir = &m->match.tree->nodes[folder];
	uint32_t base = m->match.found[folder].base, nr = 0;
	bool same = base != FAT_NOWHERE;
	size_t bytes = 0;

	for (uint32_t i = dir->first; i < dir->first + dir->nr; i++) {
		const struct made *made = &m->made[i];

		if (made->mode == 0)
			continue;
		same = same && made->same;
		ret[nr] = (struct entry){ fat_match_name(&m->match, i), made };
		bytes += MODE_BYTES + strlen(ret[nr].name) + 1 + OID_BYTES;
		nr++;
	}
	*ret_nr = nr;
	*ret_same = same && nr == m->match.laid->nodes[base].nr - (base == 0);
	return bytes;
}

static int put_tree(struct making *m, uint32_t folder, struct entry *entries,
		    uint32_t nr, size_t bytes)
{
	cleanup_free uint8_t *tree = malloc(bytes + 1);
	const char *what;
	uint8_t *p = tree;

	if (!tree)
		return node_fails(m, folder, -ENOMEM,
				  "there is not enough memory");
	qsort(entries, nr, sizeof(*entries), by_git);
	for (uint32_t i = 0; i < nr; i++) {
		size_t n = strlen(entries[i].name) + 1;

		what = i > 0 && strcmp(entries[i].name, entries[i - 1].name) ==
					       0 ?
			       "the same name twice" :
			       tree_name_fault(entries[i].name);
		if (what)
			return node_fails(m, folder, -EBADMSG, what);
		p += sprintf((char *)p, "%o ", entries[i].made->mode);
		memcpy(p, entries[i].name, n);
		memcpy(p + n, entries[i].made->oid, OID_BYTES);
		p += n + OID_BYTES;
	}
	return m->ops->put(m->ops->ctx, OBJECT_TREE, tree, (size_t)(p - tree),
			   m->made[folder].oid, m->why);
}

static int make_folder(struct making *m, uint32_t folder)
{
	uint32_t room = m->match.tree->nodes[folder].nr + 1u;
	cleanup_free struct entry *entries = calloc(room, sizeof(*entries));
	const struct fat_base *base;
	struct made *made = &m->made[folder];
	uint32_t nr;
	size_t bytes;

	if (!entries)
		return node_fails(m, folder, -ENOMEM,
				  "there is not enough memory");
	bytes = gather(m, folder, entries, &nr, &made->same);
	if (!made->same && nr == 0 && folder != 0)
		return 0;
	made->mode = S_IFDIR;
	if (!made->same)
		return put_tree(m, folder, entries, nr, bytes);
	base = &m->match.base[m->match.found[folder].base];
	memcpy(made->oid, base->oid, OID_BYTES);
	made->mode = base->mode;
	return 0;
}

static bool is_module(const struct making *m, uint32_t node)
{
	uint32_t base = m->match.found[node].base;

	return base != FAT_NOWHERE &&
	       m->match.tree->nodes[node].kind == VNODE_DIR &&
	       !S_ISDIR(m->match.base[base].mode);
}

static void keep_module(struct making *m, uint32_t node)
{
	const struct fat_base *base = &m->match.base[m->match.found[node].base];
	struct made *made = &m->made[node];

	memcpy(made->oid, base->oid, OID_BYTES);
	made->mode = base->mode;
	made->same = true;
}

/* --- All of it -------------------------------------------------------------------------- */

static int make_all(struct making *m)
{
	const struct vtree *tree = m->match.tree;
	int r = 0;

	m->made = calloc(tree->nr, sizeof(*m->made));
	if (!m->made)
		return node_fails(m, 0, -ENOMEM, "there is not enough memory");
	for (uint32_t i = 0; i < tree->nr && r == 0; i++)
		if (tree->nodes[i].kind != VNODE_DIR &&
		    !m->match.found[i].left_out)
			r = make_file(m, i);
	for (uint32_t i = tree->nr; i-- > 0 && r == 0;) {
		if (tree->nodes[i].kind != VNODE_DIR ||
		    m->match.found[i].left_out)
			continue;
		if (is_module(m, i))
			keep_module(m, i);
		else
			r = make_folder(m, i);
	}
	if (r == 0)
		tell_removed(m);
	return r;
}

int fat_tree_make(const struct vtree *base, const uint8_t base_tree[OID_BYTES],
		  struct fat_volume *volume, const struct fat_tree_ops *ops,
		  uint8_t ret_tree[OID_BYTES],
		  struct fat_tree_counts *ret_counts, char *ret_why)
{
	struct making m = { .volume = volume, .ops = ops, .why = ret_why };
	int r = fat_match_make(&m.match, base, base_tree,
			       fat_volume_tree(volume), ops, ret_why);

	if (r == 0)
		r = make_all(&m);
	if (r == 0) {
		memcpy(ret_tree, m.made[0].oid, OID_BYTES);
		*ret_counts = m.counts;
	}
	free(m.made);
	free(m.buf);
	fat_match_free(&m.match);
	return r;
}

/* --- A folder of a larger tree -------------------------------------------------------- */

/* The id of an entry within a tree's bytes, which may be written to. */
static uint8_t *find_folder(uint8_t *data, size_t n, const char *name,
			    size_t length, char *ret_why)
{
	struct tree_cursor cursor = tree_begin(data, n);
	struct tree_entry entry;
	const char *what = "";
	int r;

	while ((r = tree_next(&cursor, &entry, &what)) > 0)
		if (entry.kind == TREE_FOLDER && strlen(entry.name) == length &&
		    memcmp(entry.name, name, length) == 0)
			return data + (entry.oid - data);
	(void)why(ret_why, -ENOENT, "%.*s: %s", (int)MIN(length, 200u), name,
		  r < 0 ? what : "there is no such folder in the tree");
	return NULL;
}

int fat_tree_graft(const uint8_t root[OID_BYTES], const char *path,
		   const uint8_t tree[OID_BYTES],
		   const struct fat_tree_ops *ops, uint8_t ret_root[OID_BYTES],
		   char *ret_why)
{
	size_t length = strcspn(path, "/"), n;
	cleanup_free uint8_t *data = NULL;
	uint8_t *oid;
	int r;

	if (length == 0 && path[0] == '/')
		return fat_tree_graft(root, path + 1, tree, ops, ret_root,
				      ret_why);
	if (length == 0) {
		memcpy(ret_root, tree, OID_BYTES);
		return 0;
	}
	r = ops->read_tree(ops->ctx, root, &data, &n, ret_why);
	if (r < 0)
		return r;
	oid = find_folder(data, n, path, length, ret_why);
	if (!oid)
		return -ENOENT;
	r = fat_tree_graft(oid, path + length, tree, ops, oid, ret_why);
	return r < 0 ? r :
		       ops->put(ops->ctx, OBJECT_TREE, data, n, ret_root,
				ret_why);
}
