/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trees of disks: random edits against a model, and git's own word for each of
 * them; and trees that somebody else has made.
 */
#include "config.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "../../backends/git/refs.h"
#include "../../backends/git/tree-edit.h"
#include "common/util.h"
#include "git-store.h"

#define CHUNK  65536u
#define BLOBS  40u
#define MOST   4000u /* chunks of a model that are not all zero */
#define ROUNDS 11u

static uint8_t blobs[BLOBS][OID_BYTES];
static uint32_t seed = 1;

static uint32_t any(uint32_t below)
{
	seed = seed * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)(seed >> 8) * below >> 24);
}

static int setup(void **state)
{
	if (git_store_setup(state) < 0)
		return -1;
	for (unsigned int i = 0; i < BLOBS; i++)
		git_store_add(OBJECT_BLOB, &i, sizeof(i), blobs[i]);
	return 0;
}

/* --- The model ------------------------------------------------------------------ */

/* Chunks that are not all zero, in ascending order. */
struct model {
	struct git_disk disk;
	unsigned int nr;
	struct {
		uint64_t chunk;
		const uint8_t *oid;
	} at[MOST];
};

static unsigned int lower_bound(const struct model *model, uint64_t chunk)
{
	unsigned int i = 0;

	while (i < model->nr && model->at[i].chunk < chunk)
		i++;
	return i;
}

static const uint8_t *model_get(const struct model *model, uint64_t chunk)
{
	unsigned int i = lower_bound(model, chunk);

	return i < model->nr && model->at[i].chunk == chunk ? model->at[i].oid :
							      NULL;
}

static void model_set(struct model *model, uint64_t chunk, const uint8_t *oid)
{
	unsigned int i = lower_bound(model, chunk);
	bool there = i < model->nr && model->at[i].chunk == chunk;

	if (there && oid) {
		model->at[i].oid = oid;
	} else if (there) {
		model->nr--;
		memmove(&model->at[i], &model->at[i + 1],
			(model->nr - i) * sizeof(model->at[0]));
	} else if (oid) {
		assert_true(model->nr < MOST);
		memmove(&model->at[i + 1], &model->at[i],
			(model->nr - i) * sizeof(model->at[0]));
		model->at[i].chunk = chunk;
		model->at[i].oid = oid;
		model->nr++;
	}
}

static bool same(const uint8_t *a, const uint8_t *b)
{
	return a == b || (a && b && memcmp(a, b, OID_BYTES) == 0);
}

/* --- Maps and models -------------------------------------------------------------- */

static struct chunk_map *open_map(const uint8_t root[OID_BYTES])
{
	struct chunk_map *map;
	char reason[WHY_MAX];

	if (chunk_map_open(&map, &git_store_source, root, reason) < 0)
		fail_msg("%s", reason);
	return map;
}

struct check {
	const struct model *model;
	const struct model *other;
	unsigned int next; /* walk: of the model */
	unsigned int calls;
	uint64_t last;
};

static int check_walk(void *ctx, uint64_t chunk, const uint8_t oid[OID_BYTES])
{
	struct check *check = ctx;

	assert_true(check->next < check->model->nr);
	assert_int_equal(chunk, check->model->at[check->next].chunk);
	assert_true(same(oid, check->model->at[check->next].oid));
	check->next++;
	return 0;
}

static int check_compare(void *ctx, uint64_t chunk, const uint8_t *in_a,
			 const uint8_t *in_b)
{
	struct check *check = ctx;

	assert_true(check->calls++ == 0 || chunk > check->last);
	assert_true(same(in_a, model_get(check->model, chunk)));
	assert_true(same(in_b, model_get(check->other, chunk)));
	assert_false(same(in_a, in_b));
	check->last = chunk;
	return 0;
}

static unsigned int differences(const struct model *a, const struct model *b)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < a->nr; i++)
		n += !same(a->at[i].oid, model_get(b, a->at[i].chunk));
	for (unsigned int i = 0; i < b->nr; i++)
		n += !model_get(a, b->at[i].chunk);
	return n;
}

static void is_model(struct chunk_map *map, const struct model *model)
{
	struct check check = { .model = model };
	uint8_t oid[OID_BYTES];
	char reason[WHY_MAX];

	assert_int_equal(chunk_map_walk(map, &git_store_source, 0, UINT64_MAX,
					check_walk, &check, reason),
			 0);
	assert_int_equal(check.next, model->nr);
	for (unsigned int i = 0; i < 200; i++) {
		uint64_t chunk =
			i % 2 && model->nr ?
				model->at[any(model->nr)].chunk :
				any((uint32_t)git_disk_chunks(&model->disk));
		const uint8_t *wanted = model_get(model, chunk);

		assert_int_equal(chunk_map_get(map, &git_store_source, chunk,
					       oid, reason),
				 wanted != NULL);
		assert_true(!wanted || same(oid, wanted));
	}
}

/* `git ls-tree` has the same to say: for itself, and to see that it would not. */
static bool git_agrees(const uint8_t root[OID_BYTES], const struct model *model)
{
	char hex[OID_HEX + 1], path[GIT_CHUNK_PATH];
	cleanup_free char *says = NULL, *wanted = NULL;
	size_t size;
	FILE *out = open_memstream(&wanted, &size);

	assert_non_null(out);
	for (unsigned int i = 0; i < model->nr; i++) {
		oid_hex(model->at[i].oid, hex);
		fprintf(out, "100644 blob %s\t%s\n", hex,
			git_disk_path(&model->disk, model->at[i].chunk, path));
	}
	assert_int_equal(fclose(out), 0);
	oid_hex(root, hex);
	says = git_store_says("ls-tree -r %s data", hex);
	return strcmp(says, wanted) == 0;
}

static void edit_to(struct chunk_map *base, const struct model *before,
		    const struct model *after, uint8_t ret_root[OID_BYTES])
{
	struct tree_edit *edit;
	char reason[WHY_MAX];
	unsigned int a = 0, b = 0;

	assert_int_equal(tree_edit_new(&edit, base, &git_store_source,
				       &after->disk, NULL, reason),
			 0);
	while (a < before->nr || b < after->nr) {
		uint64_t in_a = a < before->nr ? before->at[a].chunk :
						 UINT64_MAX;
		uint64_t in_b = b < after->nr ? after->at[b].chunk : UINT64_MAX;
		uint64_t chunk = MIN(in_a, in_b);
		const uint8_t *oid = in_b == chunk ? after->at[b].oid : NULL;
		const uint8_t *old = in_a == chunk ? before->at[a].oid : NULL;

		/* Some that stay are set as well. */
		if ((!same(oid, old) || any(4) == 0) &&
		    tree_edit_set(edit, chunk, oid, reason) < 0)
			fail_msg("%s", reason);
		a += in_a == chunk;
		b += in_b == chunk;
	}
	if (tree_edit_finish(edit, ret_root, reason) < 0)
		fail_msg("%s", reason);
	tree_edit_free(edit);
}

/* Some here and there, some side by side, some that go. */
static void change(struct model *model)
{
	uint32_t chunks = (uint32_t)git_disk_chunks(&model->disk);
	uint64_t first = any(chunks);

	for (unsigned int i = any(60); i > 0; i--)
		model_set(model, any(chunks), blobs[any(BLOBS)]);
	for (uint64_t i = any(300); i > 0 && first < chunks; i--)
		model_set(model, first++, any(10) ? blobs[any(BLOBS)] : NULL);
	for (unsigned int i = any(80); i > 0 && model->nr > 0; i--)
		model_set(model, model->at[any(model->nr)].chunk, NULL);
	while (model->nr > MOST - 500)
		model_set(model, model->at[any(model->nr)].chunk, NULL);
	model_set(model, chunks - 1, any(2) ? blobs[any(BLOBS)] : NULL);
}

/* --- Edits ------------------------------------------------------------------------- */

static void commit_and_fsck(const uint8_t root[OID_BYTES])
{
	struct commit_facts facts = { .author = "a <a@example.org>",
				      .time = 1764100612,
				      .message = "the last" };
	cleanup_free char *text = NULL, *says = NULL, *set = NULL;
	cleanup_free char *head = NULL;
	char hex[OID_HEX + 1];
	char reason[WHY_MAX];
	uint8_t commit[OID_BYTES];
	size_t n;

	memcpy(facts.tree, root, OID_BYTES);
	assert_int_equal(commit_text(&facts, &text, &n, reason), 0);
	git_store_add(OBJECT_COMMIT, text, n, commit);
	oid_hex(commit, hex);
	set = git_store_says("update-ref refs/heads/disk %s", hex);
	head = git_store_says("symbolic-ref HEAD refs/heads/disk");
	says = git_store_says("fsck --strict --no-dangling --no-progress");
	assert_string_equal(says, "");
}

static void random_edits(uint64_t size, uint32_t chunk)
{
	struct model *before = calloc(1, sizeof(*before));
	struct model *after = calloc(1, sizeof(*after));
	struct chunk_map *base = NULL;
	uint8_t root[OID_BYTES] = { 0 };
	char reason[WHY_MAX];

	assert_non_null(before);
	assert_non_null(after);
	assert_int_equal(git_disk_new(&after->disk, size, chunk, reason), 0);
	*before = *after;
	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct check check = { .model = before, .other = after };
		struct chunk_map *map;

		change(after);
		if (any(5) == 0)
			after->disk.size += (uint64_t)any(3000) * 4096 + 512;
		edit_to(base, before, after, root);
		map = open_map(root);
		is_model(map, after);
		if (base) {
			assert_int_equal(chunk_map_compare(
						 base, map, &git_store_source,
						 check_compare, &check, reason),
					 0);
			assert_int_equal(check.calls,
					 differences(before, after));
		}
		if (round % 10 == 0)
			assert_true(git_agrees(root, after));
		chunk_map_free(base);
		base = map;
		*before = *after;
	}
	assert_true(git_agrees(root, after));
	model_set(after, after->at[0].chunk, NULL);
	assert_false(git_agrees(root, after));
	commit_and_fsck(root);
	chunk_map_free(base);
	free(before);
	free(after);
}

static void edits(void **state)
{
	(void)state;
	random_edits((uint64_t)4 << 30, CHUNK);
}

/* Four levels, and chunks all over them. */
static void large_edits(void **state)
{
	(void)state;
	random_edits((uint64_t)2000 << 40, 1u << 20);
}

/* --- Single steps ------------------------------------------------------------------- */

static void edit_one(struct chunk_map *base, const struct git_disk *disk,
		     uint64_t chunk, const uint8_t *oid,
		     uint8_t ret_root[OID_BYTES])
{
	struct tree_edit *edit;
	char reason[WHY_MAX];

	assert_int_equal(tree_edit_new(&edit, base, &git_store_source, disk,
				       NULL, reason),
			 0);
	assert_int_equal(tree_edit_set(edit, chunk, oid, reason), 0);
	assert_int_equal(tree_edit_finish(edit, ret_root, reason), 0);
	tree_edit_free(edit);
}

static void empty_folders(void **state)
{
	struct git_disk disk = { 1u << 30, 512, CHUNK, 3 };
	uint8_t one[OID_BYTES], none[OID_BYTES];
	cleanup_free char *before = NULL, *after = NULL;
	struct chunk_map *map;
	char hex[OID_HEX + 1];

	(void)state;
	edit_one(NULL, &disk, 0x123, blobs[0], one);
	oid_hex(one, hex);
	before = git_store_says("ls-tree -r --name-only %s", hex);
	assert_string_equal(before, "data/00/01/23\ndisk\n");
	map = open_map(one);
	edit_one(map, &disk, 0x123, NULL, none);
	chunk_map_free(map);
	oid_hex(none, hex);
	after = git_store_says("ls-tree -r -t --name-only %s", hex);
	assert_string_equal(after, "disk\n");
	/* ... and one into the empty disk again. */
	map = open_map(none);
	edit_one(map, &disk, 0x123, blobs[0], none);
	chunk_map_free(map);
	assert_memory_equal(none, one, OID_BYTES);
}

static void written_trees(void **state)
{
	struct git_disk disk = { 1u << 30, 512, CHUNK, 3 };
	uint8_t root[OID_BYTES], again[OID_BYTES];
	struct chunk_map *map;

	(void)state;
	edit_one(NULL, &disk, 5, blobs[0], root);
	map = open_map(root);
	git_store_added = 0;
	edit_one(map, &disk, 5, blobs[1], again);
	/* Two folders, data/, disk and the root; nothing else. */
	assert_int_equal(git_store_added, 5);
	git_store_added = 0;
	edit_one(map, &disk, 5, blobs[0], again);
	assert_memory_equal(again, root, OID_BYTES);
	assert_int_equal(git_store_added, 3);
	chunk_map_free(map);
}

/* What else is in the root stays where it is. */
static void other_files(void **state)
{
	struct git_disk disk = { 1u << 30, 512, CHUNK, 3 };
	cleanup_free char *text = NULL;
	uint8_t root[OID_BYTES], tree[1024], more[OID_BYTES];
	struct chunk_map *map;
	const uint8_t *raw;
	char hex[OID_HEX + 1];
	size_t n, m = 0;

	(void)state;
	edit_one(NULL, &disk, 5, blobs[0], root);
	map = open_map(root);
	raw = chunk_map_root(map, &n);
	m += (size_t)sprintf((char *)tree, "100755 README") + 1;
	memcpy(tree + m, blobs[2], OID_BYTES);
	memcpy(tree + m + OID_BYTES, raw, n);
	m += OID_BYTES + n;
	m += (size_t)sprintf((char *)tree + m, "120000 link") + 1;
	memcpy(tree + m, blobs[3], OID_BYTES);
	git_store_add(OBJECT_TREE, tree, m + OID_BYTES, more);
	chunk_map_free(map);
	map = open_map(more);
	edit_one(map, &disk, 6, blobs[1], root);
	chunk_map_free(map);
	oid_hex(root, hex);
	text = git_store_says(
		"ls-tree -r --format='%%(objectmode) %%(path)' %s", hex);
	assert_string_equal(text, "100755 README\n100644 data/00/00/05\n"
				  "100644 data/00/00/06\n100644 disk\n"
				  "120000 link\n");
}

static void refused_edits(void **state)
{
	struct git_disk disk = { 3 * CHUNK, 512, CHUNK, 3 };
	struct git_disk other = disk;
	struct tree_edit *edit;
	struct chunk_map *map;
	char reason[WHY_MAX];
	uint8_t root[OID_BYTES];

	(void)state;
	edit_one(NULL, &disk, 0, blobs[0], root);
	map = open_map(root);
	other.chunk *= 2;
	assert_int_equal(tree_edit_new(&edit, map, &git_store_source, &other,
				       NULL, reason),
			 -EINVAL);
	other = disk;
	other.size -= 512;
	assert_int_equal(tree_edit_new(&edit, map, &git_store_source, &other,
				       NULL, reason),
			 -EINVAL);
	assert_int_equal(tree_edit_new(&edit, map, &git_store_source, &disk,
				       NULL, reason),
			 0);
	assert_int_equal(tree_edit_set(edit, 1, blobs[0], reason), 0);
	assert_int_equal(tree_edit_set(edit, 1, blobs[0], reason), -EINVAL);
	assert_int_equal(tree_edit_set(edit, 0, blobs[0], reason), -EINVAL);
	assert_int_equal(tree_edit_set(edit, 3, blobs[0], reason), -EINVAL);
	assert_int_equal(tree_edit_set(edit, 2, blobs[0], reason), 0);
	tree_edit_free(edit);
	chunk_map_free(map);
}

/* --- Trees of others ----------------------------------------------------------------- */

struct wrong_tree {
	const char *mode, *name; /* of an entry of a folder at a level */
	unsigned int level;
	const char *says;
};

static const struct wrong_tree wrong_trees[] = {
	{ "100644", "0", 2, "(data/00/00/): a name" },
	{ "100644", "001", 2, "a name" },
	{ "100644", "AA", 2, "a name" },
	{ "100644", "g0", 2, "a name" },
	{ "120000", "00", 2, "no file" },
	{ "40000", "00", 2, "no file" },
	{ "160000", "00", 2, "no file" },
	{ "100644", "00", 1, "(data/00/): an entry that is no folder" },
	{ "100644", "00", 0, "(data/): an entry that is no folder" },
	{ "100644", "03", 2, "beyond the end" },
	{ "40000", "01", 1, "beyond the end" },
	{ "40000", "01", 0, "beyond the end" },
	{ "100644", ".git", 2, ".git" },
};

static void put(enum object_type type, const char *mode, const char *name,
		const uint8_t oid[OID_BYTES], uint8_t ret[OID_BYTES])
{
	uint8_t tree[100];
	size_t n = (size_t)sprintf((char *)tree, "%s %s", mode, name) + 1;

	memcpy(tree + n, oid, OID_BYTES);
	git_store_add(type, tree, n + OID_BYTES, ret);
}

/* A disk of three chunks, with this entry and otherwise right. */
static void make_wrong(const struct wrong_tree *wrong, uint8_t ret[OID_BYTES])
{
	static const char disk[] = "xendisk-git 1\nsize 196608\nsector 512\n"
				   "chunk 65536\nlevels 3\nfeatures -\n";
	uint8_t oid[OID_BYTES], text[OID_BYTES], tree[200];
	size_t n;

	memcpy(oid, blobs[0], OID_BYTES);
	for (unsigned int level = 3; level-- > 0;) {
		bool here = wrong->level == level;
		uint8_t above[OID_BYTES];

		put(OBJECT_TREE,
		    here       ? wrong->mode :
		    level == 2 ? "100644" :
				 "40000",
		    here ? wrong->name : "00", oid, above);
		memcpy(oid, above, OID_BYTES);
	}
	git_store_add(OBJECT_BLOB, disk, strlen(disk), text);
	n = (size_t)sprintf((char *)tree, "40000 data") + 1;
	memcpy(tree + n, oid, OID_BYTES);
	n += OID_BYTES;
	n += (size_t)sprintf((char *)tree + n, "100644 disk") + 1;
	memcpy(tree + n, text, OID_BYTES);
	git_store_add(OBJECT_TREE, tree, n + OID_BYTES, ret);
}

static void wrong_folders(void **state)
{
	static const struct wrong_tree right = { "100644", "00", 2, "" };
	uint8_t root[OID_BYTES], oid[OID_BYTES];
	struct chunk_map *map;
	char reason[WHY_MAX] = "";

	(void)state;
	make_wrong(&right, root);
	map = open_map(root);
	assert_int_equal(chunk_map_get(map, &git_store_source, 0, oid, reason),
			 1);
	chunk_map_free(map);
	for (size_t i = 0; i < ARRAY_SIZE(wrong_trees); i++) {
		make_wrong(&wrong_trees[i], root);
		map = open_map(root);
		assert_int_equal(chunk_map_peek(map, 0, oid), -EAGAIN);
		assert_int_equal(chunk_map_get(map, &git_store_source, 0, oid,
					       reason),
				 -EBADMSG);
		if (!strstr(reason, wrong_trees[i].says))
			fail_msg("%s: %s", wrong_trees[i].says, reason);
		chunk_map_free(map);
	}
}

static void wrong_roots(void **state)
{
	static const struct {
		const char *mode, *name;
		int blob; /* 0: a blob; 1: the empty tree */
		const char *says;
	} roots[] = {
		{ "100644", "other", 0, "no disk" },
		{ "40000", "disk", 1, "no disk" },
		{ "100644", "data", 0, "data is no folder" },
		{ "100644", "disk", 0, "no disk of ours" },
	};
	uint8_t root[OID_BYTES], empty[OID_BYTES];
	char reason[WHY_MAX], hex[OID_HEX + 1];
	struct chunk_map *map;

	(void)state;
	git_store_add(OBJECT_TREE, "", 0, empty);
	for (size_t i = 0; i < ARRAY_SIZE(roots); i++) {
		put(OBJECT_TREE, roots[i].mode, roots[i].name,
		    roots[i].blob ? empty : blobs[0], root);
		assert_int_equal(chunk_map_open(&map, &git_store_source, root,
						reason),
				 -EBADMSG);
		oid_hex(root, hex);
		assert_non_null(strstr(reason, hex));
		assert_non_null(strstr(reason, roots[i].says));
	}
	memset(root, 1, sizeof(root));
	assert_int_equal(chunk_map_open(&map, &git_store_source, root, reason),
			 -ENOENT);
}

/* --- Memory, threads ------------------------------------------------------------------ */

struct asker {
	struct chunk_map *map;
	const struct model *model;
	pthread_t thread;
	uint32_t seed;
	bool good;
};

static void *ask(void *arg)
{
	struct asker *asker = arg;
	uint8_t oid[OID_BYTES];
	char reason[WHY_MAX];
	uint32_t x = asker->seed;

	asker->good = true;
	for (unsigned int i = 0; i < 3000; i++) {
		const uint8_t *wanted;
		uint64_t chunk;
		int r;

		x = x * 1664525 + 1013904223;
		chunk = asker->model->at[(x >> 8) % asker->model->nr].chunk ^
			(x >> 7 & 1);
		wanted = model_get(asker->model, chunk);
		r = i % 2 ? chunk_map_get(asker->map, &git_store_source, chunk,
					  oid, reason) :
			    chunk_map_peek(asker->map, chunk, oid);
		if (r == -EAGAIN && i % 2 == 0)
			continue;
		asker->good &= r == (wanted != NULL) &&
			       (!wanted || same(oid, wanted));
	}
	return NULL;
}

/* Far less memory than the folders take (CHUNK_MAP_MAX of this test), so that
 * they come and go under each other's feet. */
static void many_threads(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	struct asker askers[4];
	uint8_t root[OID_BYTES];
	char reason[WHY_MAX];
	struct chunk_map *map;

	(void)state;
	assert_non_null(model);
	assert_int_equal(git_disk_new(&model->disk, (uint64_t)256 << 30, CHUNK,
				      reason),
			 0);
	for (unsigned int i = 0; i < 400; i++)
		model_set(model, any(4u << 20) & ~1u, blobs[any(BLOBS)]);
	edit_to(NULL, &(struct model){ .nr = 0 }, model, root);
	map = open_map(root);
	for (unsigned int i = 0; i < ARRAY_SIZE(askers); i++) {
		askers[i] = (struct asker){ map, model, 0, 7 * i + 1, false };
		assert_int_equal(pthread_create(&askers[i].thread, NULL, ask,
						&askers[i]),
				 0);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(askers); i++) {
		assert_int_equal(pthread_join(askers[i].thread, NULL), 0);
		assert_true(askers[i].good);
	}
	is_model(map, model);
	chunk_map_free(map);
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(edits),
		cmocka_unit_test(large_edits),
		cmocka_unit_test(empty_folders),
		cmocka_unit_test(written_trees),
		cmocka_unit_test(other_files),
		cmocka_unit_test(refused_edits),
		cmocka_unit_test(wrong_folders),
		cmocka_unit_test(wrong_roots),
		cmocka_unit_test(many_threads),
	};

	if (system("git --version >/dev/null 2>&1") != 0) {
		printf("1..0 # SKIP git is not installed\n");
		return 0;
	}
	return cmocka_run_group_tests_name("git trees", tests, setup,
					   git_store_teardown);
}
