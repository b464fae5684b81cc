/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs-tree.h"

#include <string.h>

#include "common/util.h"

#define NAMES_MAX (256u << 20) /* bytes of all names and texts */

/* --- The array ----------------------------------------------------------------- */

/* Room for one more than `nr`; at most max. */
static int reserve(void **array, uint32_t nr, uint32_t *room, uint32_t max,
		   size_t size)
{
	uint32_t more = MIN(max, MAX(256u, 2 * *room));
	void *p;

	if (nr < *room)
		return 0;
	if (nr >= max)
		return -E2BIG;
	p = realloc(*array, more * size);
	if (!p)
		return -ENOMEM;
	*array = p;
	*room = more;
	return 0;
}

int fs_tree_keep(struct fs_tree *tree, const void *bytes, size_t n,
		 uint32_t *ret, char *ret_why)
{
	if (n >= NAMES_MAX - tree->names_used)
		return why(ret_why, -E2BIG, "its names take more than %u bytes",
			   NAMES_MAX);
	if (n + 1 > tree->names_room - tree->names_used) {
		uint32_t room = MIN(NAMES_MAX,
				    MAX(2 * tree->names_room,
					tree->names_used + (uint32_t)n + 4096));
		char *names = realloc(tree->names, room);

		if (!names)
			return why(ret_why, -ENOMEM, "no memory");
		tree->names = names;
		tree->names_room = room;
	}
	*ret = tree->names_used;
	if (n > 0)
		memcpy(tree->names + *ret, bytes, n);
	tree->names[*ret + n] = '\0';
	tree->names_used += (uint32_t)n + 1;
	return 0;
}

int fs_tree_add(struct fs_tree *tree, uint32_t parent, const char *name,
		size_t n, uint32_t *ret, char *ret_why)
{
	void *nodes = tree->nodes;
	uint32_t text;
	int r = reserve(&nodes, tree->nr, &tree->room, FS_MAX_NODES,
			sizeof(*tree->nodes));

	tree->nodes = nodes;
	if (r < 0)
		return r == -E2BIG ? why(ret_why, r, "more than %u files",
					 FS_MAX_NODES) :
				     why(ret_why, r, "no memory");
	r = fs_tree_keep(tree, name, n, &text, ret_why);
	if (r < 0)
		return r;
	tree->nodes[tree->nr] = (struct fs_node){ .name = text,
						  .text = FS_NONE,
						  .parent = parent,
						  .partner = FS_NONE };
	*ret = tree->nr++;
	if (*ret != parent)
		tree->nodes[parent].nr++;
	return 0;
}

static int by_name(const void *a, const void *b, void *names)
{
	const struct fs_node *x = a, *y = b;

	return strcmp((char *)names + x->name, (char *)names + y->name);
}

void fs_tree_sort(struct fs_tree *tree, uint32_t folder)
{
	const struct fs_node *node = &tree->nodes[folder];

	if (node->nr > 1)
		qsort_r(&tree->nodes[node->first], node->nr, sizeof(*node),
			by_name, tree->names);
}

uint32_t fs_tree_depth(const struct fs_tree *tree, uint32_t node)
{
	uint32_t depth = 0;

	for (; node != 0; node = tree->nodes[node].parent)
		depth++;
	return depth;
}

uint32_t fs_tree_find(const struct fs_tree *tree, uint32_t folder,
		      const char *name)
{
	const struct fs_node *dir = &tree->nodes[folder];
	uint32_t low = dir->first, high = dir->first + dir->nr;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strcmp(fs_tree_name(tree, middle), name);

		if (order == 0)
			return middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return FS_NONE;
}

int fs_runs_add(struct fs_runs *runs, const struct fs_run *run, char *ret_why)
{
	struct fs_run *last = runs->nr > 0 ? &runs->runs[runs->nr - 1] : NULL;
	void *array = runs->runs;
	int r;

	if (last && last->at + last->length == run->at &&
	    last->where + last->length == run->where && !last->escaped &&
	    !run->escaped) {
		last->length += run->length;
		return 0;
	}
	if (last && run->at < last->at + last->length)
		return why(ret_why, -EBADMSG, "two places for the same bytes");
	r = reserve(&array, runs->nr, &runs->room, FS_MAX_RUNS, sizeof(*run));
	runs->runs = array;
	if (r < 0)
		return r == -E2BIG ? why(ret_why, r, "more than %u pieces",
					 FS_MAX_RUNS) :
				     why(ret_why, r, "no memory");
	runs->runs[runs->nr++] = *run;
	return 0;
}

/* --- Paths --------------------------------------------------------------------- */

/* How many bytes the character has that begins there; 0: it is none that is shown
 * as it is.  Longer forms than needed, surrogates, and controls are none. */
static unsigned int utf8_length(const unsigned char *p)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned int n = *p < 0x80 ? 1 :
			 *p < 0xc0 ? 0 :
			 *p < 0xe0 ? 2 :
			 *p < 0xf0 ? 3 :
			 *p < 0xf8 ? 4 :
				     0;
	uint32_t c = n > 1 ? *p & (0x7fu >> n) : *p;

	for (unsigned int i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3fu);
	}
	if (n == 0 || c < 0x20 || (c >= 0x7f && c < 0xa0) || c == '\\' ||
	    c < least[n] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
		return 0;
	return n;
}

static void put_name(FILE *out, const char *name)
{
	const unsigned char *p = (const unsigned char *)name;

	while (*p) {
		unsigned int n = utf8_length(p);

		if (n == 0)
			fprintf(out, "\\x%02x", *p++);
		for (; n > 0; n--)
			fputc(*p++, out);
	}
}

char *fs_tree_path(const struct fs_tree *tree, uint32_t node)
{
	uint32_t steps[FS_MAX_DEPTH + 1];
	uint32_t nr = 0;
	char *path = NULL;
	size_t size;
	FILE *out = open_memstream(&path, &size);

	if (!out)
		return NULL;
	for (; node != 0 && nr < ARRAY_SIZE(steps);
	     node = tree->nodes[node].parent)
		steps[nr++] = node;
	if (nr == 0)
		fputc('/', out);
	while (nr > 0) {
		fputc('/', out);
		put_name(out, fs_tree_name(tree, steps[--nr]));
	}
	if (fclose(out) == 0)
		return path;
	free(path);
	return NULL;
}

/* --- Volumes ------------------------------------------------------------------- */

int fs_read(const struct fs_volume *volume, uint64_t offset, void *buf,
	    size_t n, char *ret_why)
{
	if (offset > volume->size || n > volume->size - offset)
		return why(ret_why, -EBADMSG,
			   "what is said to be at byte %llu is beyond its end",
			   (unsigned long long)offset);
	return commit_disk_read(volume->disk, volume->start + offset, buf, n,
				ret_why);
}

int fs_volume_empty(struct fs_volume *volume, char *ret_why)
{
	uint32_t root;
	int r = fs_tree_add(&volume->tree, 0, "", 0, &root, ret_why);

	if (r == 0)
		volume->tree.nodes[root].mode = S_IFDIR;
	return r;
}

int fs_volume_read(struct fs_volume *volume, char *ret_why)
{
	int r = fs_volume_empty(volume, ret_why);

	return r < 0 ? r : volume->ops->read(volume, ret_why);
}

void fs_volume_free(struct fs_volume *volume)
{
	volume->ops->close(volume);
	free(TAKE_PTR(volume->tree.nodes));
	free(TAKE_PTR(volume->tree.names));
}
