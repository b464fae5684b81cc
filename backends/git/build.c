/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Folders are read in the order of their nodes, and what is in them is added at
 * the end of the array: that makes it breadth first, with the children of a
 * folder side by side, and needs neither recursion nor a queue.  Where each blob
 * is and how large is found out on the way; no content is read but that of
 * symbolic links.
 *
 * In front of all else the root has a folder of our own, /.xendisk, that says
 * what the disk was made of.
 */
#include "config.h"

#include "build.h"

#include <string.h>

#include "common/util.h"
#include "names.h"
#include "tree.h"

#define OWN_FOLDER BUILD_OWN_FOLDER
#define OWN_COMMIT 0u /* children of it */
#define OWN_NAMES  1u
#define NOWHERE	   UINT32_MAX
#define MAX_HOPS   16u /* links on the way to a file */
#define MAX_NAME   255u /* bytes, as on Linux */

struct build {
	const struct build_source *source;
	struct vtree *tree;
	struct odb *odb;
	struct reader *reader;
	struct cache *cache;
	struct build_counts counts;
	char *why;
};

static const char *explain(int err)
{
	switch (err) {
	case -EBADMSG:
		return "is damaged";
	case -EFBIG:
		return "is larger than 64 MiB, which is too much for a tree, "
		       "or for what is stored as changes to another object: "
		       "git -c core.bigFileThreshold=16m repack -adF stores "
		       "it whole";
	default:
		return strerror(-err);
	}
}

/* oid NULL: it is not at hand. */
static int object_fails(const struct build *b, uint32_t node,
			const uint8_t *oid, int err)
{
	bool is_dir = b->tree->nodes[node].kind == VNODE_DIR;
	char path[200], name[OID_HEX + 1] = "";

	if (oid)
		oid_hex(oid, name);
	return why(b->why, err, "%s: %s%s %s",
		   vtree_path(b->tree, node, path, sizeof(path)),
		   oid	  ? "object " :
		   is_dir ? "its tree" :
			    "its content",
		   name, explain(err));
}

/* --- Folders ----------------------------------------------------------------- */

static int add_blob(struct build *b, uint32_t node, const uint8_t *oid,
		    struct place place)
{
	struct vnode *vnode = &b->tree->nodes[node];
	enum object_type type;
	int r = object_size(b->reader, place, &type, &vnode->size);

	/* Of a delta the type is known when it is read. */
	if (r == 0 && (type == OBJECT_COMMIT || type == OBJECT_TREE ||
		       type == OBJECT_TAG))
		r = -EBADMSG;
	if (r == 0 && type != OBJECT_BLOB && vnode->size > ODB_MAX_WHOLE)
		r = -EFBIG;
	b->counts.files++;
	return r < 0 ? object_fails(b, node, oid, r) : 0;
}

/* Finds the object, and keeps where it is. */
static int add_object(struct build *b, uint32_t node, const uint8_t *oid)
{
	char path[200], reason[WHY_MAX];
	struct vnode *vnode = &b->tree->nodes[node];
	struct place place;
	int r = odb_find(b->odb, oid, &place, reason);

	if (r < 0)
		return why(b->why, r, "%s: %.300s",
			   vtree_path(b->tree, node, path, sizeof(path)),
			   reason);
	vnode->pack = place.pack;
	vnode->at = place.at;
	return vnode->kind == VNODE_BLOB ? add_blob(b, node, oid, place) : 0;
}

/* Before there are many of them. */
static int check_name(const struct build *b, uint32_t node)
{
	const char *name = vtree_name(b->tree, node);
	uint16_t units[NAME_UNITS_MAX];
	char path[200];

	if (b->source->posix ? strlen(name) <= MAX_NAME :
			       name_units(name, units) >= 0)
		return 0;
	return why(b->why, -ENAMETOOLONG, "%s: the name has more than 255 %s",
		   vtree_path(b->tree, node, path, sizeof(path)),
		   b->source->posix ? "bytes" : "characters");
}

static int add_entry(struct build *b, uint32_t folder,
		     const struct tree_entry *entry)
{
	bool is_dir = entry->kind == TREE_FOLDER || entry->kind == TREE_MODULE;
	uint32_t node;
	int r = vtree_add(b->tree, folder, is_dir ? VNODE_DIR : VNODE_BLOB,
			  entry->name, &node, b->why);

	if (r == 0)
		r = check_name(b, node);
	if (r < 0)
		return r;
	b->tree->nodes[folder].nr++;
	if (entry->kind == TREE_LINK)
		b->tree->nodes[node].mark = VNODE_LINK;
	if (entry->kind == TREE_FILE && entry->mode & 0100)
		b->tree->nodes[node].mark = VNODE_EXEC;
	if (entry->kind == TREE_MODULE) {
		b->tree->nodes[node].mark = VNODE_MODULE;
		b->counts.modules++;
		return 0;
	}
	return add_object(b, node, entry->oid);
}

static int add_entries(struct build *b, uint32_t folder,
		       const struct object *object)
{
	struct tree_cursor cursor = tree_begin(object->data, object->size);
	struct tree_entry entry;
	const char *what = "";
	char path[200];
	int r;

	while ((r = tree_next(&cursor, &entry, &what)) > 0) {
		r = add_entry(b, folder, &entry);
		if (r < 0)
			return r;
	}
	return r < 0 ? why(b->why, r, "%s: its tree has %s",
			   vtree_path(b->tree, folder, path, sizeof(path)),
			   what) :
		       0;
}

static int check_depth(const struct build *b, uint32_t folder)
{
	uint32_t depth = 0;
	char path[200];

	for (uint32_t i = folder; i != 0; i = b->tree->nodes[i].parent)
		depth++;
	if (depth <= VTREE_MAX_DEPTH)
		return 0;
	return why(b->why, -E2BIG, "%s: folders are more than %u deep",
		   vtree_path(b->tree, folder, path, sizeof(path)),
		   VTREE_MAX_DEPTH);
}

static int read_folder(struct build *b, uint32_t folder)
{
	const struct vnode *dir = &b->tree->nodes[folder];
	struct place place = { dir->pack, dir->at };
	const struct object *object;
	int r = check_depth(b, folder);

	if (r < 0)
		return r;
	r = object_read(b->reader, place, &object);
	if (r < 0)
		return object_fails(b, folder, NULL, r);
	if (object->type == OBJECT_TREE)
		r = add_entries(b, folder, object);
	else
		r = object_fails(b, folder, NULL, -EBADMSG);
	cache_put(b->cache, object);
	b->counts.folders++;
	return r;
}

/* --- /.xendisk ----------------------------------------------------------------- */

/* The root's first child. */
static int add_own_folder(struct build *b)
{
	uint32_t node;
	int r = vtree_add(b->tree, 0, VNODE_DIR, ".xendisk", &node, b->why);

	b->tree->nodes[0].first = OWN_FOLDER;
	b->tree->nodes[0].nr = 1;
	return r;
}

static int fill_own_folder(struct build *b)
{
	uint32_t node;
	int r;

	r = vtree_add(b->tree, OWN_FOLDER, VNODE_TEXT, "commit", &node, b->why);
	if (r == 0)
		r = vtree_add(b->tree, OWN_FOLDER, VNODE_TEXT, "names", &node,
			      b->why);
	b->tree->nodes[OWN_FOLDER].nr = 2;
	return r;
}

static int set_text(struct build *b, uint32_t child, const char *text)
{
	uint32_t at;
	int r = vtree_keep(b->tree, text, strlen(text), &at);
	struct vnode *node =
		&b->tree->nodes[b->tree->nodes[OWN_FOLDER].first + child];

	if (r < 0)
		return why(b->why, r, "the names: %s", strerror(-r));
	node->at = at;
	node->size = strlen(text);
	return 0;
}

static int read_folders(struct build *b)
{
	int r = add_own_folder(b);

	for (uint32_t i = 0; i < b->tree->nr && r == 0; i++) {
		struct vnode *node = &b->tree->nodes[i];

		if (node->kind != VNODE_DIR)
			continue;
		if (i != 0)
			node->first = b->tree->nr;
		if (i == OWN_FOLDER)
			r = fill_own_folder(b);
		else if (node->mark != VNODE_MODULE)
			r = read_folder(b, i);
	}
	return r;
}

/* --- Symbolic links ------------------------------------------------------------ */

/* One of two places where a name may be: among files, or among folders. */
static uint32_t search(const struct vtree *tree, uint32_t first, uint32_t end,
		       const char *name, bool folder)
{
	while (first < end) {
		uint32_t mid = first + (end - first) / 2;
		const struct vnode *node = &tree->nodes[mid];
		int order = tree_compare(vtree_name(tree, mid),
					 node->kind == VNODE_DIR &&
						 node->mark != VNODE_MODULE,
					 name, folder);

		if (order == 0)
			return mid;
		if (order < 0)
			first = mid + 1;
		else
			end = mid;
	}
	return NOWHERE;
}

static uint32_t find_child(const struct vtree *tree, uint32_t folder,
			   const char *name)
{
	const struct vnode *dir = &tree->nodes[folder];
	uint32_t first = dir->first + (folder == 0); /* not ours */
	uint32_t end = dir->first + dir->nr;
	uint32_t found = search(tree, first, end, name, false);

	return found != NOWHERE ? found : search(tree, first, end, name, true);
}

static uint32_t follow(struct build *b, uint32_t link, unsigned int *hops);

/* One step of a path; may be a link itself. */
static uint32_t step(struct build *b, uint32_t at, const char *name,
		     unsigned int *hops)
{
	const struct vtree *tree = b->tree;
	uint32_t child;

	if (tree->nodes[at].kind != VNODE_DIR)
		return NOWHERE;
	if (*name == '\0' || strcmp(name, ".") == 0)
		return at;
	if (strcmp(name, "..") == 0)
		return at == 0 ? NOWHERE : tree->nodes[at].parent;
	child = find_child(tree, at, name);
	if (child != NOWHERE && tree->nodes[child].mark == VNODE_LINK)
		return follow(b, child, hops);
	return child;
}

/* Where it ends, or NOWHERE: outside, in a circle, or there is nothing. */
static uint32_t follow(struct build *b, uint32_t link, unsigned int *hops)
{
	const struct vnode *node = &b->tree->nodes[link];
	struct place place = { node->pack, node->at };
	uint32_t at = node->parent;
	const struct object *object;
	char target[VTREE_MAX_LINK + 1];
	char *rest = target, *name;

	if (node->size > VTREE_MAX_LINK || (*hops)-- == 0 ||
	    object_read(b->reader, place, &object) < 0)
		return NOWHERE;
	memcpy(target, object->data, MIN(object->size, VTREE_MAX_LINK));
	target[MIN(object->size, VTREE_MAX_LINK)] = '\0';
	cache_put(b->cache, object);
	if (*target == '/' || *target == '\0')
		return NOWHERE;
	while (at != NOWHERE && (name = strsep(&rest, "/")))
		at = step(b, at, name, hops);
	return at;
}

/* Is that what a link to a file becomes? */
static bool is_file(const struct vnode *node)
{
	return node->kind == VNODE_BLOB || node->kind == VNODE_LFS;
}

static void resolve_link(struct build *b, uint32_t node)
{
	struct vnode *link = &b->tree->nodes[node];
	unsigned int hops = MAX_HOPS;
	uint32_t end = b->source->follow ? follow(b, node, &hops) : NOWHERE;

	if (end == NOWHERE || !is_file(&b->tree->nodes[end])) {
		b->counts.texts++;
		return;
	}
	link->kind = b->tree->nodes[end].kind;
	link->mark = b->tree->nodes[end].mark;
	link->pack = b->tree->nodes[end].pack;
	link->at = b->tree->nodes[end].at;
	link->size = b->tree->nodes[end].size;
}

/* Linux has no link that leads to nothing, or has a longer path. */
static void keep_link(struct build *b, uint32_t node)
{
	struct vnode *link = &b->tree->nodes[node];

	if (link->size >= 1 && link->size <= VTREE_MAX_LINK)
		return;
	link->mark = VNODE_PLAIN;
	b->counts.texts++;
}

static void resolve_links(struct build *b)
{
	for (uint32_t i = 0; i < b->tree->nr; i++) {
		if (b->tree->nodes[i].mark != VNODE_LINK)
			continue;
		if (b->source->posix)
			keep_link(b, i);
		else
			resolve_link(b, i);
	}
}

/* --- Git LFS ------------------------------------------------------------------- */

static int read_pointer(struct build *b, uint32_t node, struct lfs_pointer *ret,
			bool *ret_is)
{
	const struct vnode *vnode = &b->tree->nodes[node];
	struct place place = { vnode->pack, vnode->at };
	const struct object *object;
	int r = object_read(b->reader, place, &object);

	if (r < 0)
		return object_fails(b, node, NULL, r);
	*ret_is = object->type == OBJECT_BLOB &&
		  lfs_is_pointer(object->data, object->size, ret);
	cache_put(b->cache, object);
	return 0;
}

static int find_pointed(struct build *b, uint32_t node)
{
	char path[200], reason[WHY_MAX] = "";
	struct vnode *vnode = &b->tree->nodes[node];
	struct lfs_pointer pointer;
	uint64_t number;
	bool is_pointer;
	int r = read_pointer(b, node, &pointer, &is_pointer);

	if (r < 0 || !is_pointer)
		return r;
	r = lfs_find(b->source->lfs, &pointer, &number, reason);
	if (r == -ENOENT) {
		b->counts.pointers++;
		return 0;
	}
	if (r < 0)
		return why(b->why, r, "%s: %.300s",
			   vtree_path(b->tree, node, path, sizeof(path)),
			   reason);
	vnode->kind = VNODE_LFS;
	vnode->at = number;
	vnode->size = pointer.size;
	b->counts.lfs++;
	return 0;
}

/* Few files have the size of a pointer; no others are looked into. */
static int find_lfs(struct build *b)
{
	int r = 0;

	if (!b->source->lfs)
		return 0;
	for (uint32_t i = 0; i < b->tree->nr && r == 0; i++) {
		const struct vnode *node = &b->tree->nodes[i];

		if (node->kind == VNODE_BLOB && node->mark != VNODE_LINK &&
		    node->size >= LFS_POINTER_MIN &&
		    node->size <= LFS_POINTER_MAX)
			r = find_pointed(b, i);
	}
	return r;
}

/* --- Names ----------------------------------------------------------------------- */

/* Only one can be taken where all names are as they are: that of our folder. */
static int part_own_name(struct build *b, char **ret_list)
{
	static const char own[] = ".xendisk";
	uint32_t node = find_child(b->tree, 0, own);
	char name[32];
	uint32_t at;
	int r;

	*ret_list = strdup("");
	if (node == NOWHERE)
		return *ret_list ? 0 : why(b->why, -ENOMEM, "no memory");
	for (unsigned int n = 1;; n++) {
		(void)snprintf(name, sizeof(name), "%s~%u", own, n);
		if (find_child(b->tree, 0, name) == NOWHERE)
			break;
	}
	r = vtree_keep(b->tree, name, strlen(name), &at);
	if (r < 0)
		return why(b->why, r, "the names: %s", strerror(-r));
	b->tree->nodes[node].name = at;
	free(*ret_list);
	*ret_list = xasprintf("/%s is /%s\n", name, own);
	return *ret_list ? 0 : why(b->why, -ENOMEM, "no memory");
}

static int part_names(struct build *b)
{
	cleanup_free char *list = NULL;
	int r = b->source->posix ? part_own_name(b, &list) :
				   vtree_part_names(b->tree, &list, b->why);

	for (const char *p = list; r == 0 && (p = strchr(p, '\n')); p++)
		b->counts.renamed++;
	return r < 0 ? r : set_text(b, OWN_NAMES, list);
}

/* --- All of it ------------------------------------------------------------------- */

int build_vtree(struct vtree *ret, struct odb *odb, struct reader *reader,
		struct cache *cache, const struct build_source *source,
		struct build_counts *ret_counts, char *ret_why)
{
	struct build b = { .source = source,
			   .tree = ret,
			   .odb = odb,
			   .reader = reader,
			   .cache = cache,
			   .why = ret_why };
	uint32_t root;
	int r;

	ret->time = source->time;
	r = vtree_add(ret, 0, VNODE_DIR, "", &root, ret_why);
	if (r == 0)
		r = add_object(&b, root, source->tree);
	if (r == 0)
		r = read_folders(&b);
	if (r == 0)
		r = find_lfs(&b);
	if (r < 0)
		return r;
	resolve_links(&b);
	r = part_names(&b);
	if (r == 0)
		r = set_text(&b, OWN_COMMIT, source->about);
	*ret_counts = b.counts;
	return r;
}
