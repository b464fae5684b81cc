/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Each file of the one tree gets a partner in the other, in two passes from the root
 * down.  In the first those that have the same path are partners.  In the second one
 * that has none gets the file with its identity that has none either: it was renamed.
 * What is in a folder that was renamed has the partner of that name there, and so
 * only the folder is told of.
 *
 * Whether the bytes of two partners are the same is known without reading for
 * those that lie at the same place in a chunk that is the same object, which is
 * most of them.  The others are read and compared.
 *
 * A file may have many names (hard links), and is compared once.  A file system that
 * somebody hostile has made could have any number of files share the same bytes, too:
 * what is read for all of them is no more than the two disks have.
 */
#include "config.h"

#include "fs-compare.h"

#include <string.h>

#include "common/util.h"

#define PIECE 65536u

/* What is known of two files with other names. */
struct known {
	uint64_t a, b; /* as fs_node.handle */
	enum { NOTHING, SAME, OTHER } is;
};
#define NR_KNOWN 65536u /* the last ones; each has one place */

struct comparing {
	struct fs_volume *a, *b;
	uint32_t *by_identity; /* nodes of a */
	/* Of the first one with an identity: so many from there on have partners.
	 * A guest can give a file any number of names. */
	uint32_t *taken;
	uint32_t nr_identities;
	struct fs_runs runs_a, runs_b;
	struct known *known; /* NR_KNOWN */
	uint64_t left; /* bytes that may still be read */
	uint8_t *buf_a, *buf_b; /* PIECE each */
	char *why;
};

/* --- Content -------------------------------------------------------------------- */

/* Where a position in a file is. */
struct spot {
	const struct fs_run *run; /* NULL: there are zeroes */
	uint64_t where;
	uint64_t length; /* from there on */
};

/* next: the first run that does not end before `at`, which goes on from call to
 * call. */
static struct spot find_spot(const struct fs_runs *runs, uint32_t *next,
			     uint64_t at, uint64_t size)
{
	const struct fs_run *run;
	uint64_t skip;

	while (*next < runs->nr &&
	       runs->runs[*next].at + runs->runs[*next].length <= at)
		(*next)++;
	if (*next == runs->nr)
		return (struct spot){ .length = size - at };
	run = &runs->runs[*next];
	if (run->at > at)
		return (struct spot){ .length = MIN(run->at, size) - at };
	skip = at - run->at;
	return (struct spot){ .run = run,
			      .where = run->where + skip,
			      .length = MIN(run->length - skip, size - at) };
}

static int read_spot(struct comparing *c, struct fs_volume *volume,
		     const struct spot *spot, uint8_t *buf, size_t n)
{
	int r;

	if (!spot->run) {
		memset(buf, 0, n);
		return 0;
	}
	r = commit_disk_read(volume->disk, spot->where, buf, n, c->why);
	if (r == 0 && spot->run->escaped && spot->where == spot->run->where)
		memcpy(buf, FS_ESCAPED, MIN(n, sizeof(FS_ESCAPED) - 1));
	return r;
}

/* 1: those n bytes are the same; 0: they are not. */
static int compare_spots(struct comparing *c, const struct spot *a,
			 const struct spot *b, size_t n)
{
	int r;

	if (c->left < n)
		return why(c->why, -E2BIG,
			   "its files have more bytes than there are");
	c->left -= n;
	r = read_spot(c, c->a, a, c->buf_a, n);
	if (r == 0)
		r = read_spot(c, c->b, b, c->buf_b, n);
	return r < 0 ? r : memcmp(c->buf_a, c->buf_b, n) == 0;
}

/* 1, how far: the bytes there are the same; 0: they are not. */
static int compare_piece(struct comparing *c, const struct spot *a,
			 const struct spot *b, uint64_t *ret_n)
{
	uint64_t same = 0;
	int r = 0;

	*ret_n = MIN(a->length, b->length);
	if (!a->run && !b->run)
		return 1;
	if (a->run && b->run && a->where == b->where && !a->run->escaped &&
	    !b->run->escaped)
		r = commit_disk_same(c->a->disk, c->b->disk, a->where, &same,
				     c->why);
	if (r < 0)
		return r;
	if (same > 0) {
		*ret_n = MIN(*ret_n, same);
		return 1;
	}
	*ret_n = MIN(*ret_n, PIECE);
	return compare_spots(c, a, b, (size_t)*ret_n);
}

static int same_runs(struct comparing *c, uint64_t size)
{
	uint32_t next_a = 0, next_b = 0;
	uint64_t n;
	int r = 1;

	for (uint64_t at = 0; at < size && r == 1; at += n) {
		struct spot a = find_spot(&c->runs_a, &next_a, at, size);
		struct spot b = find_spot(&c->runs_b, &next_b, at, size);

		r = compare_piece(c, &a, &b, &n);
	}
	return r;
}

static int read_both(struct comparing *c, uint32_t in_a, uint32_t in_b)
{
	int r;

	c->runs_a.nr = 0;
	c->runs_b.nr = 0;
	r = c->a->ops->runs(c->a, in_a, &c->runs_a, c->why);
	if (r == 0)
		r = c->b->ops->runs(c->b, in_b, &c->runs_b, c->why);
	return r < 0 ? r : same_runs(c, c->a->tree.nodes[in_a].size);
}

static struct known *known_of(struct comparing *c, uint64_t a, uint64_t b)
{
	return &c->known[(a * 0x9e3779b1u + b) % NR_KNOWN];
}

static int same_files(struct comparing *c, uint32_t in_a, uint32_t in_b)
{
	uint64_t a = c->a->tree.nodes[in_a].handle;
	uint64_t b = c->b->tree.nodes[in_b].handle;
	struct known *known = known_of(c, a, b);
	int r;

	if (known->is != NOTHING && known->a == a && known->b == b)
		return known->is == SAME;
	r = read_both(c, in_a, in_b);
	if (r >= 0)
		*known = (struct known){ a, b, r ? SAME : OTHER };
	return r;
}

/* 1: they have the same content; 0: they have not. */
static int same_content(struct comparing *c, uint32_t in_a, uint32_t in_b)
{
	const struct fs_node *a = &c->a->tree.nodes[in_a];
	const struct fs_node *b = &c->b->tree.nodes[in_b];

	if (S_ISDIR(a->mode))
		return 1;
	if (a->size != b->size || a->device != b->device)
		return 0;
	if (a->size == 0)
		return 1;
	if (a->text != FS_NONE || b->text != FS_NONE)
		return a->text != FS_NONE && b->text != FS_NONE &&
		       memcmp(c->a->tree.names + a->text,
			      c->b->tree.names + b->text, a->size) == 0;
	return same_files(c, in_a, in_b);
}

/* --- Partners -------------------------------------------------------------------- */

static bool is_alone(const struct fs_node *node)
{
	return node->partner == FS_NONE;
}

static void pair(struct comparing *c, uint32_t in_a, uint32_t in_b)
{
	c->a->tree.nodes[in_a].partner = in_b;
	c->b->tree.nodes[in_b].partner = in_a;
}

/* The one of that name in the partner of its folder. */
static bool pair_by_name(struct comparing *c, uint32_t in_b)
{
	const struct fs_tree *a = &c->a->tree, *b = &c->b->tree;
	const struct fs_node *node = &b->nodes[in_b];
	uint32_t folder = b->nodes[node->parent].partner;
	uint32_t found = folder == FS_NONE ?
				 FS_NONE :
				 fs_tree_find(a, folder, fs_tree_name(b, in_b));

	if (found == FS_NONE || !is_alone(&a->nodes[found]) ||
	    (a->nodes[found].mode & S_IFMT) != (node->mode & S_IFMT))
		return false;
	pair(c, found, in_b);
	return true;
}

static int order_of(const struct fs_node *x, const struct fs_node *y)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(x->identity); i++)
		if (x->identity[i] != y->identity[i])
			return x->identity[i] < y->identity[i] ? -1 : 1;
	return (int)(x->mode & S_IFMT) - (int)(y->mode & S_IFMT);
}

static int by_identity(const void *x, const void *y, void *nodes)
{
	const struct fs_node *all = nodes;
	uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
	int order = order_of(&all[a], &all[b]);

	return order ? order : (a > b) - (a < b);
}

static bool has_identity(const struct fs_node *node)
{
	return node->identity[0] || node->identity[1];
}

/* Those of a that the first pass has left alone. */
static int list_identities(struct comparing *c)
{
	struct fs_tree *a = &c->a->tree;

	c->by_identity = calloc(a->nr, sizeof(*c->by_identity));
	c->taken = calloc(a->nr, sizeof(*c->taken));
	if (!c->by_identity || !c->taken)
		return why(c->why, -ENOMEM, "no memory");
	for (uint32_t i = 0; i < a->nr; i++)
		if (is_alone(&a->nodes[i]) && has_identity(&a->nodes[i]))
			c->by_identity[c->nr_identities++] = i;
	qsort_r(c->by_identity, c->nr_identities, sizeof(*c->by_identity),
		by_identity, a->nodes);
	return 0;
}

/* The first one of a with that identity that is alone, or FS_NONE. */
static uint32_t find_identity(const struct comparing *c,
			      const struct fs_node *node)
{
	const struct fs_node *nodes = c->a->tree.nodes;
	uint32_t low = 0, high = c->nr_identities;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (order_of(&nodes[c->by_identity[middle]], node) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (uint32_t first = low; low < c->nr_identities; c->taken[first]++) {
		uint32_t at = first + c->taken[first];

		if (at == c->nr_identities ||
		    order_of(&nodes[c->by_identity[at]], node) != 0)
			break;
		if (is_alone(&nodes[c->by_identity[at]]))
			return c->by_identity[at];
	}
	return FS_NONE;
}

static int pair_by_identity(struct comparing *c, uint32_t in_b)
{
	const struct fs_node *node = &c->b->tree.nodes[in_b];
	uint32_t found = has_identity(node) ? find_identity(c, node) : FS_NONE;
	int r = 1;

	if (found == FS_NONE)
		return 0;
	if (c->b->tree.weak_identity)
		r = same_content(c, found, in_b);
	if (r > 0)
		pair(c, found, in_b);
	return r < 0 ? r : 0;
}

static int find_partners(struct comparing *c)
{
	struct fs_tree *b = &c->b->tree;
	int r;

	pair(c, 0, 0);
	for (uint32_t i = 1; i < b->nr; i++)
		(void)pair_by_name(c, i);
	r = list_identities(c);
	for (uint32_t i = 1; i < b->nr && r == 0; i++)
		if (is_alone(&b->nodes[i]) && !pair_by_name(c, i))
			r = pair_by_identity(c, i);
	return r;
}

/* --- Changes ---------------------------------------------------------------------- */

static bool is_renamed(const struct comparing *c, uint32_t in_a, uint32_t in_b)
{
	const struct fs_tree *a = &c->a->tree, *b = &c->b->tree;

	return b->nodes[b->nodes[in_b].parent].partner !=
		       a->nodes[in_a].parent ||
	       strcmp(fs_tree_name(a, in_a), fs_tree_name(b, in_b)) != 0;
}

/* 1: something is different. */
static int find_change(struct comparing *c, uint32_t in_b,
		       struct fs_change *ret)
{
	const struct fs_node *b = &c->b->tree.nodes[in_b], *a;
	bool modes = c->a->tree.has_modes && c->b->tree.has_modes;
	int r;

	*ret = (struct fs_change){ .a = b->partner, .b = in_b };
	if (is_alone(b))
		return 1;
	a = &c->a->tree.nodes[b->partner];
	ret->renamed = in_b != 0 && is_renamed(c, b->partner, in_b);
	ret->mode = modes && a->mode != b->mode;
	ret->owner = modes && (a->uid != b->uid || a->gid != b->gid);
	r = same_content(c, b->partner, in_b);
	ret->content = r == 0;
	return r < 0 ? r :
		       ret->renamed || ret->mode || ret->owner || ret->content;
}

static int tell_changes(struct comparing *c,
			int (*fn)(void *ctx, const struct fs_change *change),
			void *ctx)
{
	const struct fs_tree *a = &c->a->tree, *b = &c->b->tree;
	struct fs_change change;
	int r = 0;

	for (uint32_t i = 0; i < b->nr && r == 0; i++) {
		r = find_change(c, i, &change);
		if (r > 0)
			r = fn(ctx, &change);
	}
	for (uint32_t i = 1; i < a->nr && r == 0; i++)
		if (is_alone(&a->nodes[i]))
			r = fn(ctx,
			       &(struct fs_change){ .a = i, .b = FS_NONE });
	return r;
}

int fs_compare(struct fs_volume *a, struct fs_volume *b,
	       int (*fn)(void *ctx, const struct fs_change *change), void *ctx,
	       char *ret_why)
{
	struct comparing c = { .a = a,
			       .b = b,
			       .left = 2 * MAX(a->size, b->size),
			       .buf_a = malloc(PIECE),
			       .buf_b = malloc(PIECE),
			       .known = calloc(NR_KNOWN, sizeof(*c.known)),
			       .why = ret_why };
	int r = c.buf_a && c.buf_b && c.known ?
			find_partners(&c) :
			why(ret_why, -ENOMEM, "no memory");

	if (r == 0)
		r = tell_changes(&c, fn, ctx);
	free(c.by_identity);
	free(c.taken);
	free(c.runs_a.runs);
	free(c.runs_b.runs);
	free(c.buf_a);
	free(c.buf_b);
	free(c.known);
	return r;
}
