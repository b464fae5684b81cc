/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk as a guest may have left it, whose files are looked for (xendisk git diff).
 *
 * Input: pieces of it, all else is zero: how many bytes are left out in front of each
 * (16 bits), how many it has (16 bits), and these.
 *
 * What must hold: refused with a sentence, or trees in which folders come before what is in
 * them and names are sorted; a file's pieces are in order; compared with itself nothing has
 * changed, and with an empty one all has been added.
 */
#include "config.h"

#include "../../backends/git/fs-compare.h"
#include "../../backends/git/fs-find.h"
#include "common/util.h"
#include "fuzz.h"

#define SIZE (4u << 20)

/* The commit that is read. */
struct commit_disk {
	struct git_disk facts;
	uint8_t bytes[SIZE];
};

static struct commit_disk disk = {
	.facts = { .size = SIZE, .sector = 512, .chunk = 65536, .levels = 3 },
};

const struct git_disk *commit_disk_facts(const struct commit_disk *of)
{
	return &of->facts;
}

int commit_disk_read(struct commit_disk *of, uint64_t offset, void *buf,
		     size_t n, char *ret_why)
{
	if (offset > SIZE || n > SIZE - offset)
		return why(ret_why, -ENXIO, "beyond the end of the disk");
	memcpy(buf, of->bytes + offset, n);
	return 0;
}

/* Everything is read, so that reading is tried. */
int commit_disk_same(struct commit_disk *a, struct commit_disk *b,
		     uint64_t offset, uint64_t *ret, char *ret_why)
{
	(void)a, (void)b, (void)offset, (void)ret_why;
	*ret = 0;
	return 0;
}

static void fill(struct input in)
{
	uint32_t at = 0;

	memset(disk.bytes, 0, SIZE);
	while (in.left >= 4 && at < SIZE) {
		uint32_t n;

		at += input_u16(&in);
		n = input_u16(&in);
		if (at >= SIZE)
			break;
		n = MIN(MIN(n, SIZE - at), (uint32_t)in.left);
		input_bytes(&in, disk.bytes + at, n);
		at += n;
	}
}

static void check_tree(const struct fs_tree *tree)
{
	for (uint32_t i = 0; i < tree->nr; i++) {
		const struct fs_node *node = &tree->nodes[i];
		char *path = fs_tree_path(tree, i);

		HOLDS(path && *path == '/', "its path");
		free(path);
		HOLDS(i == 0 || node->parent < i, "a folder comes first");
		HOLDS(node->name < tree->names_used, "its name");
		HOLDS(node->nr == 0 ||
			      (S_ISDIR(node->mode) && node->first > i &&
			       node->first + node->nr <= tree->nr),
		      "what is in it");
		for (uint32_t j = 1; j < node->nr; j++)
			HOLDS(strcmp(fs_tree_name(tree, node->first + j - 1),
				     fs_tree_name(tree, node->first + j)) <= 0,
			      "the order of names");
		HOLDS(node->text == FS_NONE ||
			      node->size < tree->names_used - node->text,
		      "its text");
	}
}

static void check_runs(struct fs_volume *volume, uint32_t node)
{
	const struct fs_node *file = &volume->tree.nodes[node];
	struct fs_runs runs = { .nr = 0 };
	char reason[WHY_MAX] = "";
	uint64_t end = 0;
	int r;

	if (!S_ISREG(file->mode) || file->text != FS_NONE)
		return;
	r = volume->ops->runs(volume, node, &runs, reason);
	HOLDS(r == 0 || *reason, "a refusal without a sentence");
	for (uint32_t i = 0; r == 0 && i < runs.nr; i++) {
		const struct fs_run *run = &runs.runs[i];

		HOLDS(run->at >= end && run->length > 0, "the order of pieces");
		HOLDS(run->where >= volume->start &&
			      run->where + run->length <=
				      volume->start + volume->size,
		      "a piece beyond the file system");
		end = run->at + run->length;
	}
	free(runs.runs);
}

static int see_change(void *ctx, const struct fs_change *change)
{
	uint32_t *nr = ctx;

	HOLDS(change->a != FS_NONE || change->b != FS_NONE, "one of them");
	(*nr)++;
	return 0;
}

static int read_it(const struct fs_place *place, struct fs_volume *ret)
{
	char reason[WHY_MAX] = "";
	int r;

	*ret = (struct fs_volume){ .ops = place->ops,
				   .partition = place->partition,
				   .disk = &disk,
				   .start = place->start,
				   .size = place->size };
	r = fs_volume_read(ret, reason);
	HOLDS(r == 0 || *reason, "a refusal without a sentence");
	return r;
}

static void compare(struct fs_volume *a, struct fs_volume *b, uint32_t expected)
{
	char reason[WHY_MAX] = "";
	uint32_t nr = 0;
	int r = fs_compare(a, b, see_change, &nr, reason);

	HOLDS(r == 0 || *reason, "a refusal without a sentence");
	HOLDS(r < 0 || nr == expected, "%u changes, not %u", nr, expected);
}

static bool has_twins(const struct fs_tree *tree)
{
	for (uint32_t i = 2; i < tree->nr; i++)
		if (tree->nodes[i].parent == tree->nodes[i - 1].parent &&
		    strcmp(fs_tree_name(tree, i - 1), fs_tree_name(tree, i)) ==
			    0)
			return true;
	return false;
}

static void check_place(const struct fs_place *place)
{
	struct fs_volume a, b, empty = { .ops = place->ops, .disk = &disk };
	char reason[WHY_MAX];
	int r = read_it(place, &a);

	if (r == 0) {
		check_tree(&a.tree);
		for (uint32_t i = 0; i < a.tree.nr; i++)
			check_runs(&a, i);
		HOLDS(read_it(place, &b) == 0, "the same twice");
		/* Two of one name may be taken for each other. */
		if (!has_twins(&a.tree))
			compare(&a, &b, 0);
		fs_volume_free(&b);
		HOLDS(read_it(place, &b) == 0 &&
			      fs_volume_empty(&empty, reason) == 0,
		      "the same again");
		compare(&empty, &b, b.tree.nr - 1);
		fs_volume_free(&b);
		fs_volume_free(&empty);
	}
	fs_volume_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fs_place places[FS_MAX_PLACES];
	char reason[WHY_MAX] = "";
	int nr;

	fill((struct input){ data, size });
	nr = fs_find(&disk, places, reason);
	HOLDS(nr >= 0 && nr <= (int)FS_MAX_PLACES, "%s", reason);
	for (int i = 0; i < nr && i < 4; i++) {
		HOLDS(places[i].start <= SIZE &&
			      places[i].size <= SIZE - places[i].start,
		      "a partition beyond the disk");
		if (places[i].ops)
			check_place(&places[i]);
	}
	return 0;
}
