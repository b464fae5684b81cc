/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The trees of the commit are read once more, beside the nodes that were made of
 * them: the children of a folder are in the order of its tree, so the n-th child is
 * the n-th entry, whatever it is called on the FAT.
 *
 * Then, folder by folder, what is on the FAT is looked up by name.  Usually that is
 * the name on the FAT.  But where README had made a "readme~1" of its neighbour
 * readme, and the guest has removed README and made a readme, that is the readme of
 * git by now, and readme~1 is a file that is called so.
 */
#include "config.h"

#include "fat-match.h"

#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "build.h"
#include "common/util.h"
#include "tree.h"

struct named {
	const char *name;
	uint32_t node;
};

/* The children of a folder that was laid out, sorted by both their names. */
struct shelf {
	struct named *by_fat, *by_git;
	uint32_t nr;
};

static int no_memory(char *ret_why)
{
	return why(ret_why, -ENOMEM, "there is not enough memory");
}

/* --- What was laid out ----------------------------------------------------------- */

static uint32_t first_child(const struct vtree *laid, uint32_t folder)
{
	return laid->nodes[folder].first + (folder == 0); /* not ours */
}

static uint32_t nr_children(const struct vtree *laid, uint32_t folder)
{
	return laid->nodes[folder].nr - (folder == 0);
}

static int keep_entry(struct fat_match *m, uint32_t node,
		      const struct tree_entry *entry, char *ret_why)
{
	struct fat_base *base = &m->base[node];

	memcpy(base->oid, entry->oid, OID_BYTES);
	base->mode = entry->mode;
	return vtree_keep(&m->names, entry->name, strlen(entry->name),
			  &base->name) < 0 ?
		       no_memory(ret_why) :
		       0;
}

static int keep_entries(struct fat_match *m, uint32_t folder,
			const uint8_t *data, size_t n, char *ret_why)
{
	struct tree_cursor cursor = tree_begin(data, n);
	uint32_t child = first_child(m->laid, folder);
	uint32_t end = child + nr_children(m->laid, folder);
	struct tree_entry entry;
	const char *what = "other entries than when it was laid out";
	char path[200];
	int r;

	while ((r = tree_next(&cursor, &entry, &what)) > 0 && child < end) {
		r = keep_entry(m, child++, &entry, ret_why);
		if (r < 0)
			return r;
	}
	if (r == 0 && child == end)
		return 0;
	return why(ret_why, -EBADMSG, "%s: its tree has %s",
		   vtree_path(m->laid, folder, path, sizeof(path)), what);
}

static int read_base(struct fat_match *m, const uint8_t root[OID_BYTES],
		     const struct fat_tree_ops *ops, char *ret_why)
{
	int r = 0;

	for (uint32_t i = 0; i < m->laid->nr; i++)
		m->base[i].user = FAT_NOWHERE;
	memcpy(m->base[0].oid, root, OID_BYTES);
	m->base[0].mode = S_IFDIR;
	for (uint32_t i = 0; i < m->laid->nr && r == 0; i++) {
		cleanup_free uint8_t *data = NULL;
		size_t n;

		if (!S_ISDIR(m->base[i].mode))
			continue;
		r = ops->read_tree(ops->ctx, m->base[i].oid, &data, &n,
				   ret_why);
		if (r == 0)
			r = keep_entries(m, i, data, n, ret_why);
	}
	return r;
}

/* --- Looking up --------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static const char *base_name(const struct fat_match *match, uint32_t base)
{
	return match->names.names + match->base[base].name;
}

static int shelf_fill(struct shelf *shelf, const struct fat_match *m,
		      uint32_t folder)
{
	uint32_t first = first_child(m->laid, folder);
	uint32_t nr = nr_children(m->laid, folder);

	shelf->by_fat = calloc(nr + 1u, sizeof(*shelf->by_fat));
	shelf->by_git = calloc(nr + 1u, sizeof(*shelf->by_git));
	if (!shelf->by_fat || !shelf->by_git)
		return -ENOMEM;
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t node = first + i;

		shelf->by_fat[i] =
			(struct named){ vtree_name(m->laid, node), node };
		shelf->by_git[i] = (struct named){ base_name(m, node), node };
	}
	qsort(shelf->by_fat, nr, sizeof(*shelf->by_fat), by_name);
	qsort(shelf->by_git, nr, sizeof(*shelf->by_git), by_name);
	shelf->nr = nr;
	return 0;
}

static void shelf_free(struct shelf *shelf)
{
	free(shelf->by_fat);
	free(shelf->by_git);
}

static uint32_t search(const struct named *names, uint32_t nr, const char *name)
{
	struct named key = { name, 0 };
	const struct named *found =
		bsearch(&key, names, nr, sizeof(*names), by_name);

	return found ? found->node : FAT_NOWHERE;
}

/* A submodule is an empty folder; one with files in it is a folder like others. */
static bool is_alike(const struct fat_match *m, uint32_t base, uint32_t node)
{
	bool is_dir = m->tree->nodes[node].kind == VNODE_DIR;

	if (m->base[base].mode == 0)
		return false;
	if (!S_ISDIR(m->base[base].mode) && is_dir)
		return m->laid->nodes[base].kind == VNODE_DIR &&
		       m->tree->nodes[node].nr == 0;
	return is_dir == (m->laid->nodes[base].kind == VNODE_DIR);
}

static void set_base(struct fat_match *m, uint32_t node, uint32_t base)
{
	m->found[node].base = base;
	m->base[base].user = node;
}

static bool is_renamed(const struct fat_match *m, uint32_t base)
{
	return strcmp(vtree_name(m->laid, base), base_name(m, base)) != 0;
}

/*
 * A name that nothing had on the FAT, but maybe in git.  Then whoever has that
 * file's place by now gives it up, and is new himself; and so on.
 */
static void claim(struct fat_match *m, const struct shelf *shelf, uint32_t node)
{
	while (node != FAT_NOWHERE && m->found[node].base == FAT_NOWHERE) {
		uint32_t base = search(shelf->by_git, shelf->nr,
				       vtree_name(m->tree, node));
		uint32_t user;

		if (base == FAT_NOWHERE || !is_renamed(m, base))
			return;
		user = m->base[base].user;
		m->base[base].user = FAT_NOWHERE;
		if (user != FAT_NOWHERE)
			m->found[user].base = FAT_NOWHERE;
		if (is_alike(m, base, node))
			set_base(m, node, base);
		node = user;
	}
}

static void match_children(struct fat_match *m, const struct shelf *shelf,
			   uint32_t folder)
{
	uint32_t first = m->tree->nodes[folder].first;
	uint32_t end = first + m->tree->nodes[folder].nr;

	for (uint32_t i = first; i < end; i++) {
		uint32_t base = search(shelf->by_fat, shelf->nr,
				       vtree_name(m->tree, i));

		if (base != FAT_NOWHERE && !m->found[i].left_out &&
		    is_alike(m, base, i))
			set_base(m, i, base);
	}
	for (uint32_t i = first; i < end; i++)
		if (!m->found[i].left_out)
			claim(m, shelf, i);
}

static int match_folder(struct fat_match *m, uint32_t folder)
{
	struct shelf shelf = { .nr = 0 };
	uint32_t base = m->found[folder].base;
	int r;

	if (base == FAT_NOWHERE || !S_ISDIR(m->base[base].mode))
		return 0;
	r = shelf_fill(&shelf, m, base);
	if (r == 0)
		match_children(m, &shelf, folder);
	shelf_free(&shelf);
	return r;
}

static void leave_out(struct fat_match *m, uint32_t folder)
{
	const struct vnode *dir = &m->tree->nodes[folder];

	for (uint32_t i = dir->first; i < dir->first + dir->nr; i++)
		m->found[i].left_out =
			m->found[folder].left_out ||
			(folder == 0 && strcasecmp(vtree_name(m->tree, i),
						   BUILD_OWN_NAME) == 0);
}

static int match_all(struct fat_match *m)
{
	int r = 0;

	for (uint32_t i = 0; i < m->tree->nr; i++)
		m->found[i].base = FAT_NOWHERE;
	set_base(m, 0, 0);
	for (uint32_t i = 0; i < m->tree->nr && r == 0; i++) {
		if (m->tree->nodes[i].kind != VNODE_DIR)
			continue;
		leave_out(m, i);
		r = match_folder(m, i);
	}
	return r;
}

int fat_match_make(struct fat_match *ret, const struct vtree *laid,
		   const uint8_t root[OID_BYTES], const struct vtree *tree,
		   const struct fat_tree_ops *ops, char *ret_why)
{
	uint32_t nothing;
	int r;

	*ret = (struct fat_match){ .laid = laid, .tree = tree };
	ret->base = calloc(laid->nr, sizeof(*ret->base));
	ret->found = calloc(tree->nr, sizeof(*ret->found));
	if (!ret->base || !ret->found ||
	    vtree_keep(&ret->names, "", 0, &nothing) < 0)
		return no_memory(ret_why);
	r = read_base(ret, root, ops, ret_why);
	if (r == 0 && match_all(ret) < 0)
		r = no_memory(ret_why);
	return r;
}

void fat_match_free(struct fat_match *match)
{
	free(TAKE_PTR(match->base));
	free(TAKE_PTR(match->found));
	vtree_free(&match->names);
}

/* --- Names and paths ------------------------------------------------------------------- */

const char *fat_match_name(const struct fat_match *match, uint32_t node)
{
	uint32_t base = match->found[node].base;

	return base == FAT_NOWHERE ? vtree_name(match->tree, node) :
				     base_name(match, base);
}

typedef const char *name_function(const struct fat_match *match, uint32_t node);

static char *make_path(const struct fat_match *match, const struct vtree *tree,
		       name_function *name, uint32_t node)
{
	size_t n = 0, bytes;
	char *path;

	for (uint32_t i = node; i != 0; i = tree->nodes[i].parent)
		n += strlen(name(match, i)) + 1;
	path = malloc(n + 1);
	if (!path)
		return NULL;
	path[n ? --n : 0] = '\0';
	for (uint32_t i = node; i != 0; i = tree->nodes[i].parent) {
		bytes = strlen(name(match, i));
		n -= bytes;
		memcpy(path + n, name(match, i), bytes);
		if (n > 0)
			path[--n] = '/';
	}
	return path;
}

char *fat_match_base_path(const struct fat_match *match, uint32_t base)
{
	return make_path(match, match->laid, base_name, base);
}

char *fat_match_path(const struct fat_match *match, uint32_t node)
{
	return make_path(match, match->tree, fat_match_name, node);
}
