/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "layout-fixture.h"

#include <string.h>

#include "common/util.h"

/* --- A tree of any shape --------------------------------------------------------- */

static uint64_t seed;

static uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % below;
}

uint32_t add(struct vtree *tree, uint32_t folder, enum vnode_kind kind,
	     const char *name, uint64_t size)
{
	char reason[WHY_MAX];
	uint32_t node;

	assert_int_equal(vtree_add(tree, folder, kind, name, &node, reason), 0);
	tree->nodes[node].size = size;
	if (tree->nodes[folder].nr++ == 0)
		tree->nodes[folder].first = node;
	return node;
}

static void add_some(struct vtree *tree, uint32_t folder, uint32_t nr)
{
	static const char *const endings[] = { "", ".txt", ".LongEnding",
					       " \xc3\xbc\xe2\x82\xac" };

	for (uint32_t i = 0; i < nr; i++) {
		bool is_dir = draw(6) == 0;
		char name[300];

		(void)snprintf(name, sizeof(name), "%.*s%u%s", (int)draw(60),
			       "nAmes of many lengths, longer than any that "
			       "fit into one piece",
			       i, endings[draw(4)]);
		add(tree, folder, is_dir ? VNODE_DIR : VNODE_BLOB, name,
		    is_dir || draw(8) == 0 ? 0 : draw(1u << draw(18)));
	}
}

void make_tree(struct vtree *tree, uint64_t from, uint32_t nodes)
{
	char reason[WHY_MAX];
	uint32_t root;

	seed = from;
	*tree = (struct vtree){ .time = 1741064768 };
	assert_int_equal(vtree_add(tree, 0, VNODE_DIR, "", &root, reason), 0);
	for (uint32_t i = 0; i < tree->nr; i++)
		if (tree->nodes[i].kind == VNODE_DIR && tree->nr < nodes)
			add_some(tree, i, i == 0 ? 20 : draw(40));
}

uint8_t content(uint32_t node, uint64_t at)
{
	return (uint8_t)(node * 31 + at * 7 + (at >> 8));
}

/* --- The disk, byte by byte ---------------------------------------------------------- */

uint64_t spoiled = UINT64_MAX;

static void read_node(const struct layout *layout, const struct vtree *tree,
		      const struct piece *piece, uint8_t *ret)
{
	const struct vnode *node = &tree->nodes[piece->node];
	cleanup_free uint8_t *folder = NULL;

	assert_int_equal(piece->kind == PIECE_FOLDER, node->kind == VNODE_DIR);
	assert_true(piece->at + piece->length <= node->size);
	if (node->kind == VNODE_DIR) {
		folder = malloc(node->size);
		layout->ops->folder(layout, piece->node, folder);
		memcpy(ret, folder + piece->at, piece->length);
		return;
	}
	for (uint64_t i = 0; i < piece->length; i++)
		ret[i] = content(piece->node, piece->at + i);
}

void read_disk(const struct layout *layout, const struct vtree *tree,
	       uint64_t offset, uint8_t *ret, uint64_t n)
{
	const uint32_t unit = layout->ops->unit;

	while (n > 0) {
		struct piece piece = layout->ops->find(layout, offset, n);

		assert_true(piece.length > 0 && piece.length <= n);
		memset(ret, 0, piece.length);
		if (piece.kind == PIECE_META) {
			uint8_t bytes[LAYOUT_UNIT_MAX];

			piece.length = MIN(piece.length, unit - offset % unit);
			layout->ops->meta(layout, offset / unit, bytes);
			memcpy(ret, bytes + offset % unit, piece.length);
		} else if (piece.kind != PIECE_ZERO) {
			read_node(layout, tree, &piece, ret);
		}
		if (spoiled >= offset && spoiled < offset + piece.length)
			ret[spoiled - offset] ^= 1;
		offset += piece.length;
		ret += piece.length;
		n -= piece.length;
	}
}
