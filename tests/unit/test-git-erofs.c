/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The EROFS file system of a tree, read back by a reader that knows the format
 * (Linux, fs/erofs/erofs_fs.h) and nothing of how the layout was made.
 */
#include "config.h"

#include <string.h>
#include <sys/stat.h>

#include "../../backends/git/erofs.h"
#include "common/util.h"
#include "layout-fixture.h"

#define BLOCK 4096u
#define MUCH  (1u << 20) /* of a file that is larger, only both ends are read */

/* --- The reader ------------------------------------------------------------------ */

struct mounted {
	const struct layout *layout;
	const struct vtree *tree;
	uint64_t start; /* bytes: of the partition */
	uint32_t blocks;
	uint32_t root;
	uint8_t *taken; /* per block */
	uint32_t found; /* nodes */
	uint32_t large; /* inodes of 64 bytes */
	unsigned int wrong;
};

struct inode {
	uint64_t nid;
	uint32_t mode, links;
	uint64_t size, block;
	int64_t time; /* of a large one */
};

static void read_bytes(const struct mounted *m, uint64_t at, uint8_t *ret,
		       uint64_t n)
{
	read_disk(m->layout, m->tree, m->start + at, ret, n);
}

/* Bit by bit from the other end than the writer's. */
static uint32_t sum(const uint8_t *bytes, size_t n)
{
	uint32_t crc = 0xffffffff;

	for (size_t i = 0; i < 8 * n; i++) {
		uint32_t bit = bytes[i / 8] >> i % 8 & 1;

		crc = (crc & 1) == bit ? crc >> 1 : crc >> 1 ^ 0x82f63b78;
	}
	return crc;
}

static void mount(struct mounted *m, const struct layout *layout,
		  const struct vtree *tree)
{
	uint8_t table[512], super[3072];
	uint32_t wanted;

	*m = (struct mounted){ .layout = layout, .tree = tree };
	read_disk(layout, tree, 0, table, 512);
	if (get16(table + 510) == 0xaa55) {
		assert_int_equal(table[446 + 4], 0x83);
		m->start = get32(table + 446 + 8) * 512ull;
	}
	read_bytes(m, 1024, super, sizeof(super));
	assert_int_equal(get32(super), 0xe0f5e1e2);
	wanted = get32(super + 4);
	memset(super + 4, 0, 4);
	m->wrong += sum(super, sizeof(super)) != wanted;
	assert_int_equal(super[12], 12);
	assert_int_equal(get32(super + 80), 0); /* features one must know */
	m->root = get16(super + 14);
	m->wrong += get64(super + 16) != tree->nr;
	m->wrong += (int64_t)get64(super + 24) != tree->time;
	m->blocks = get32(super + 36);
	m->wrong += m->start + (uint64_t)m->blocks * BLOCK != layout->size;
	assert_int_equal(get32(super + 40),
			 0); /* where inodes are counted from */
	m->taken = calloc(m->blocks, 1);
	m->taken[0] = 1;
}

static struct inode read_inode(struct mounted *m, uint64_t nid)
{
	struct inode inode = { .nid = nid };
	uint8_t b[64];

	assert_true(nid * 32 + 64 <= (uint64_t)m->blocks * BLOCK);
	read_bytes(m, nid * 32, b, sizeof(b));
	inode.mode = get16(b + 4);
	inode.block = get32(b + 16);
	if (get16(b) == 0) {
		inode.links = get16(b + 6);
		inode.size = get32(b + 8);
		m->wrong += get32(b + 12) != 0;
		return inode;
	}
	m->wrong += get16(b) != 1 || nid % 2 != 0; /* it is in one block */
	m->large++;
	inode.size = get64(b + 8);
	inode.time = (int64_t)get64(b + 32);
	inode.links = get32(b + 44);
	m->wrong += inode.time != m->tree->time;
	return inode;
}

/* Its blocks are there, and nobody else's. */
static void take(struct mounted *m, const struct inode *inode)
{
	uint64_t n = DIV_ROUND_UP(inode->size, BLOCK);

	assert_true(n == 0 || inode->block + n <= m->blocks);
	for (uint64_t i = 0; i < n; i++)
		m->wrong += m->taken[inode->block + i]++ != 0;
}

static void check_bytes(struct mounted *m, uint32_t node,
			const struct inode *inode, uint64_t at, uint64_t n)
{
	cleanup_free uint8_t *bytes = malloc(n + 1);

	read_bytes(m, inode->block * BLOCK + at, bytes, n);
	for (uint64_t i = 0; i < n; i++)
		m->wrong += bytes[i] !=
			    (at + i < inode->size ? content(node, at + i) : 0);
}

static void check_file(struct mounted *m, uint32_t node,
		       const struct inode *inode)
{
	uint64_t n = ALIGN_UP(inode->size, BLOCK);

	m->wrong += inode->links != 1;
	check_bytes(m, node, inode, 0, MIN(n, MUCH));
	if (n > MUCH)
		check_bytes(m, node, inode, n - MUCH, MUCH);
}

/* --- Folders ------------------------------------------------------------------------ */

struct folder {
	uint64_t nid, up;
	uint32_t *children; /* nodes, by name */
	uint32_t nr, next; /* of children */
	uint32_t entries, subfolders;
	char before[256];
};

static int by_name(const void *a, const void *b, void *tree)
{
	return strcmp(vtree_name(tree, *(const uint32_t *)a),
		      vtree_name(tree, *(const uint32_t *)b));
}

static uint32_t *sort_children(const struct vtree *tree, uint32_t node)
{
	const struct vnode *dir = &tree->nodes[node];
	uint32_t *children = calloc(dir->nr + 1, sizeof(*children));

	for (uint32_t i = 0; i < dir->nr; i++)
		children[i] = dir->first + i;
	qsort_r(children, dir->nr, sizeof(*children), by_name,
		(void *)(uintptr_t)tree);
	return children;
}

static void check_node(struct mounted *m, uint32_t node, uint64_t nid,
		       uint64_t up, uint8_t type);

static void check_child(struct mounted *m, struct folder *folder,
			const char *name, uint64_t nid, uint8_t type)
{
	uint32_t node = folder->children[folder->next];

	if (folder->next == folder->nr ||
	    strcmp(vtree_name(m->tree, node), name) != 0) {
		m->wrong++;
		return;
	}
	folder->next++;
	folder->subfolders += type == 2;
	check_node(m, node, nid, folder->nid, type);
}

static void check_entry(struct mounted *m, struct folder *folder,
			const char *name, uint64_t nid, uint8_t type)
{
	m->wrong += folder->entries++ > 0 && strcmp(folder->before, name) >= 0;
	(void)snprintf(folder->before, sizeof(folder->before), "%s", name);
	if (strcmp(name, ".") == 0)
		m->wrong += nid != folder->nid || type != 2;
	else if (strcmp(name, "..") == 0)
		m->wrong += nid != folder->up || type != 2;
	else
		check_child(m, folder, name, nid, type);
}

/* n: bytes of the block that are in the folder. */
static void check_block(struct mounted *m, struct folder *folder,
			const uint8_t *block, uint32_t n)
{
	uint32_t nr = get16(block + 8) / 12;

	m->wrong += nr == 0 || get16(block + 8) % 12 != 0;
	for (uint32_t i = 0; i < nr; i++) {
		const uint8_t *entry = block + 12 * (size_t)i;
		uint32_t at = get16(entry + 8);
		uint32_t end = i + 1 < nr ? get16(entry + 20) : n;
		char name[256] = "";

		assert_true(at >= 12 * nr && at < end && end <= n);
		/* The last one ends with the block, or by a NUL. */
		assert_true(end - at <= 255 || i + 1 == nr);
		(void)snprintf(name, sizeof(name), "%.*s",
			       (int)MIN(end - at, 255u), block + at);
		check_entry(m, folder, name, get64(entry), entry[10]);
	}
}

static void check_folder(struct mounted *m, uint32_t node,
			 const struct inode *inode, uint64_t up)
{
	struct folder folder = { .nid = inode->nid,
				 .up = up,
				 .children = sort_children(m->tree, node),
				 .nr = m->tree->nodes[node].nr };
	uint8_t block[BLOCK];

	for (uint64_t at = 0; at < inode->size; at += BLOCK) {
		read_bytes(m, inode->block * BLOCK + at, block, BLOCK);
		check_block(m, &folder, block,
			    (uint32_t)MIN(inode->size - at, BLOCK));
	}
	m->wrong += folder.entries != folder.nr + 2;
	m->wrong += folder.subfolders + 2 != inode->links;
	free(folder.children);
}

static uint32_t mode_of(const struct vnode *vnode)
{
	if (vnode->kind == VNODE_DIR)
		return S_IFDIR | 0755;
	if (vnode->kind == VNODE_TEXT)
		return S_IFREG | 0444;
	return vnode->mark == VNODE_LINK ? S_IFLNK | 0777 :
	       vnode->mark == VNODE_EXEC ? S_IFREG | 0755 :
					   S_IFREG | 0644;
}

static void check_node(struct mounted *m, uint32_t node, uint64_t nid,
		       uint64_t up, uint8_t type)
{
	const struct vnode *vnode = &m->tree->nodes[node];
	struct inode inode = read_inode(m, nid);

	m->found++;
	m->wrong += inode.mode != mode_of(vnode);
	m->wrong += type != (S_ISDIR(inode.mode) ? 2 :
			     S_ISLNK(inode.mode) ? 7 :
						   1);
	take(m, &inode);
	if (vnode->kind == VNODE_DIR) {
		check_folder(m, node, &inode, up);
		return;
	}
	m->wrong += inode.size != vnode->size;
	check_file(m, node, &inode);
}

/* How much is wrong. */
static unsigned int check_disk(const struct layout *layout,
			       const struct vtree *tree, uint32_t *ret_large)
{
	struct mounted m;

	mount(&m, layout, tree);
	check_node(&m, 0, m.root, m.root, 2);
	m.wrong += m.found != tree->nr;
	if (ret_large)
		*ret_large = m.large;
	free(m.taken);
	return m.wrong;
}

/* --- The tests ---------------------------------------------------------------------- */

static const struct layout_options plain = { .label = "test" };

static struct layout *lay_out(struct vtree *tree,
			      const struct layout_options *options)
{
	char reason[WHY_MAX] = "";
	struct layout *layout = NULL;

	if (erofs_ops.make(&layout, tree, options, reason) < 0)
		fail_msg("%s", reason);
	return layout;
}

static void is_right(struct vtree *tree, const struct layout_options *options,
		     uint32_t large)
{
	struct layout *layout = lay_out(tree, options);
	uint32_t got;

	assert_int_equal(check_disk(layout, tree, &got), 0);
	assert_int_equal(got, large);
	layout_free(layout);
	vtree_free(tree);
}

static void every_file_is_found(void **state)
{
	static const struct layout_options mbr = { .label = "test",
						   .partition = LAYOUT_MBR };

	(void)state;
	for (uint64_t i = 1; i <= 6; i++) {
		struct vtree tree;

		make_tree(&tree, i, i == 1 ? 1 : 900);
		for (uint32_t k = 1; k < tree.nr; k++)
			if (tree.nodes[k].kind == VNODE_BLOB)
				tree.nodes[k].mark = k % 7 == 0 ? VNODE_EXEC :
						     k % 7 == 1 ? VNODE_LINK :
								  VNODE_PLAIN;
		is_right(&tree, i % 2 ? &plain : &mbr, 0);
	}
}

/* Names before "." and between "." and "..", one folder of many blocks, and
 * blocks that are full to the last byte. */
static void names_are_sorted(void **state)
{
	static const char *const stems[] = { "-", ".-", "...", "a", "\xff", "" };
	struct vtree tree;
	uint32_t full;
	char name[256];

	(void)state;
	make_tree(&tree, 1, 1);
	for (uint32_t i = 0; i < 3000; i++) {
		(void)snprintf(name, sizeof(name), "%s%u",
			       stems[i % ARRAY_SIZE(stems)], i);
		add(&tree, 0, i % 5 ? VNODE_BLOB : VNODE_DIR, name, 0);
	}
	full = add(&tree, 0, VNODE_DIR, "full", 0);
	/* "." and ".." take 27 bytes, then 14 times 252 + 12, 200 + 12, and
	 * 149 + 12, which is 4096. */
	memset(name, 'n', sizeof(name));
	for (char c = 'a'; c < 'z'; c++) {
		uint32_t n = c < 'a' + 14 ? 252 : c == 'o' ? 200 : 149;

		name[0] = c;
		name[n] = '\0';
		add(&tree, full, VNODE_BLOB, name, (uint8_t)c);
		name[n] = 'n';
	}
	is_right(&tree, &plain, 0);
}

/* 4 GiB and more, and more folders in one than 16 bits count. */
static void large_inodes_only_where_needed(void **state)
{
	struct vtree tree;
	uint32_t folder;
	char name[32];

	(void)state;
	make_tree(&tree, 1, 1);
	tree.time = -5;
	add(&tree, 0, VNODE_BLOB, "just not", UINT32_MAX);
	add(&tree, 0, VNODE_BLOB, "large", UINT32_MAX + 1ull);
	add(&tree, 0, VNODE_BLOB, "small", 5);
	add(&tree, 0, VNODE_BLOB, "larger", 5ull << 30);
	folder = add(&tree, 0, VNODE_DIR, "folders", 0);
	add(&tree, 0, VNODE_BLOB, "last", 7);
	for (uint32_t i = 0; i < 65534; i++) {
		(void)snprintf(name, sizeof(name), "%u", i);
		add(&tree, folder, VNODE_DIR, name, 0);
	}
	is_right(&tree, &plain, 3);
}

/* The check can fail: a byte of superblock, inode, folder or file. */
static void the_reader_notices(void **state)
{
	static const uint64_t places[] = { 1024 + 64, BLOCK + 4, BLOCK + 32 };
	struct layout *layout;
	struct vtree tree;
	struct inode root;
	struct mounted m;

	(void)state;
	make_tree(&tree, 2, 900);
	layout = lay_out(&tree, &plain);
	assert_int_equal(check_disk(layout, &tree, NULL), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++) {
		spoiled = places[i];
		assert_int_not_equal(check_disk(layout, &tree, NULL), 0);
	}
	spoiled = UINT64_MAX;
	mount(&m, layout, &tree);
	root = read_inode(&m, m.root);
	free(m.taken);
	spoiled = root.block * BLOCK + root.size - 1; /* in the last name */
	assert_int_not_equal(check_disk(layout, &tree, NULL), 0);
	for (spoiled = layout->size - BLOCK;
	     layout->ops->find(layout, spoiled, 1).kind != PIECE_FILE;
	     spoiled -= BLOCK)
		;
	assert_int_not_equal(check_disk(layout, &tree, NULL), 0);
	spoiled = UINT64_MAX;
	layout_free(layout);
	vtree_free(&tree);
}

static void refuses(struct vtree *tree, const struct layout_options *options,
		    int err, const char *text)
{
	char reason[WHY_MAX] = "";
	struct layout *layout = NULL;

	assert_int_equal(erofs_ops.make(&layout, tree, options, reason), err);
	assert_null(layout);
	if (!strstr(reason, text))
		fail_msg("\"%s\" does not say \"%s\"", reason, text);
	vtree_free(tree);
}

static void limits_are_named(void **state)
{
	static const struct layout_options mbr = { .label = "test",
						   .partition = LAYOUT_MBR };
	struct vtree tree;
	char name[300];

	(void)state;
	for (int bits = 41; bits < 64; bits++) {
		make_tree(&tree, 3, 1);
		add(&tree, 0, VNODE_BLOB, "huge", (1ull << bits) - 1);
		add(&tree, 0, VNODE_BLOB, "huge too", UINT64_MAX);
		refuses(&tree, bits == 41 ? &mbr : &plain, -EFBIG,
			bits == 41 ? "a partition (2 TiB)" :
			bits < 44  ? "/huge too: with its" :
				     "/huge: with its");
	}
	make_tree(&tree, 3, 1);
	memset(name, 'n', 256);
	name[256] = '\0';
	add(&tree, 0, VNODE_BLOB, name, 0);
	refuses(&tree, &plain, -ENAMETOOLONG, "the name has more than 255");
}

static void options_are_checked(void **state)
{
	static const struct {
		struct layout_options options;
		int r;
	} cases[] = {
		{ { .label = "x" }, 0 },
		{ { .label = "123456789012345", .partition = LAYOUT_MBR }, 0 },
		{ { .label = "" }, -EINVAL },
		{ { .label = "1234567890123456" }, -EINVAL },
		{ { .label = "x", .partition = LAYOUT_ESP }, -EINVAL },
	};
	char reason[WHY_MAX];

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(erofs_ops.check(&cases[i].options, reason),
				 cases[i].r);
	assert_ptr_equal(layout_ops_of("erofs"), &erofs_ops);
	assert_null(layout_ops_of("ext4"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_file_is_found),
		cmocka_unit_test(names_are_sorted),
		cmocka_unit_test(large_inodes_only_where_needed),
		cmocka_unit_test(the_reader_notices),
		cmocka_unit_test(limits_are_named),
		cmocka_unit_test(options_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
