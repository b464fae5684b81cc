/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "layout.h"

#include <string.h>

#include "common/util.h"

static const struct layout_ops *const formats[] = { &fat_ops, &erofs_ops };

const struct layout_ops *layout_ops_of(const char *name)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(formats); i++)
		if (strcmp(formats[i]->name, name) == 0)
			return formats[i];
	return NULL;
}

void layout_free(struct layout *layout)
{
	if (layout)
		layout->ops->free(layout);
}

/* --- Nodes in one piece each ---------------------------------------------------- */

int extents_new(struct extents *ret, const struct vtree *tree, uint32_t room,
		uint32_t block, uint32_t first)
{
	uint32_t *order = calloc(MAX(room, 1u), sizeof(*order));

	if (!order)
		return -ENOMEM;
	*ret = (struct extents){ .tree = tree,
				 .block = block,
				 .first = first,
				 .end = first,
				 .order = order };
	return 0;
}

void extents_free(struct extents *extents)
{
	free(TAKE_PTR(extents->order));
}

void extents_place(struct extents *extents, struct vtree *tree, uint32_t node)
{
	struct vnode *vnode = &tree->nodes[node];

	vnode->block = extents->end;
	extents->end += (uint32_t)DIV_ROUND_UP(vnode->size, extents->block);
	extents->order[extents->nr++] = node;
}

uint32_t extents_owner(const struct extents *extents, uint32_t block)
{
	uint32_t low = 0, high = extents->nr;

	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;

		if (extents->tree->nodes[extents->order[mid]].block <= block)
			low = mid;
		else
			high = mid;
	}
	return low;
}

uint32_t extents_end(const struct extents *extents, uint32_t index)
{
	if (index + 1 >= extents->nr)
		return extents->end;
	return extents->tree->nodes[extents->order[index + 1]].block;
}

struct piece extents_find(const struct extents *extents, uint64_t offset,
			  uint64_t length)
{
	uint64_t block = extents->first + offset / extents->block;
	uint32_t index = extents_owner(extents, (uint32_t)block);
	uint32_t number = extents->order[index];
	const struct vnode *node = &extents->tree->nodes[number];
	uint64_t end = (uint64_t)(extents_end(extents, index) - node->block) *
		       extents->block;
	uint64_t at = offset -
		      (uint64_t)(node->block - extents->first) * extents->block;

	if (at >= node->size)
		return (struct piece){ .length = MIN(length, end - at) };
	return (struct piece){
		.kind = node->kind == VNODE_DIR ? PIECE_FOLDER : PIECE_FILE,
		.length = MIN(length, node->size - at),
		.node = number,
		.at = at,
	};
}

/* --- Partition table -------------------------------------------------------------- */

void layout_mbr(uint8_t ret[LAYOUT_SECTOR], uint32_t serial, uint8_t type,
		uint64_t size)
{
	uint64_t sectors = size / LAYOUT_SECTOR - LAYOUT_PARTITION_AT;
	uint8_t *entry = ret + 446;

	memset(ret, 0, LAYOUT_SECTOR);
	put32(ret + 440, serial);
	/* Cylinders, heads and sectors that say: look at the numbers. */
	memcpy(entry + 1, "\xfe\xff\xff", 3);
	entry[4] = type;
	memcpy(entry + 5, "\xfe\xff\xff", 3);
	put32(entry + 8, LAYOUT_PARTITION_AT);
	put32(entry + 12, (uint32_t)MIN(sectors, (uint64_t)UINT32_MAX));
	ret[510] = 0x55;
	ret[511] = 0xaa;
}
