/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk that is made of a tree, read as a file is.  gitfs-io.c does the same for
 * many at once, who must not wait for each other. */
#include "config.h"

#include "tree-disk.h"

#include <string.h>

#include "common/util.h"
#include "stream.h"

struct tree_reader {
	const struct tree_disk *disk;
	struct reader *reader;
	struct streams *streams;
	atomic_bool stop; /* never */
	uint8_t *folder; /* the one that was read last */
	uint32_t folder_node; /* 0: none; the root is asked for once */
};

int tree_reader_new(struct tree_reader **ret, const struct tree_disk *disk)
{
	struct tree_reader *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	t->disk = disk;
	r = reader_new(&t->reader, disk->odb, disk->cache);
	if (r == 0)
		r = streams_new(&t->streams, disk->odb);
	if (r < 0) {
		tree_reader_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void tree_reader_free(struct tree_reader *reader)
{
	if (!reader)
		return;
	free(reader->folder);
	streams_free(reader->streams);
	reader_free(reader->reader);
	free(reader);
}

static void read_meta(const struct layout *layout, uint64_t offset,
		      uint8_t *ret, uint64_t n)
{
	const uint32_t unit = layout->ops->unit;
	uint8_t bytes[LAYOUT_UNIT_MAX];

	while (n > 0) {
		uint64_t at = offset % unit, part = MIN(n, unit - at);

		layout->ops->meta(layout, offset / unit, bytes);
		memcpy(ret, bytes + at, part);
		offset += part;
		ret += part;
		n -= part;
	}
}

static int read_folder(struct tree_reader *t, const struct piece *piece,
		       uint8_t *ret)
{
	const struct layout *layout = t->disk->layout;

	if (!t->folder || t->folder_node != piece->node) {
		uint8_t *folder = realloc(
			t->folder, t->disk->tree.nodes[piece->node].size);

		if (!folder)
			return -ENOMEM;
		t->folder = folder;
		t->folder_node = piece->node;
		layout->ops->folder(layout, piece->node, folder);
	}
	memcpy(ret, t->folder + piece->at, piece->length);
	return 0;
}

static int read_whole(struct tree_reader *t, struct place place,
		      const struct piece *piece, uint8_t *ret)
{
	const struct object *object;
	int r = object_read(t->reader, place, &object);

	if (r < 0)
		return r;
	if (object->type == OBJECT_BLOB &&
	    object->size == t->disk->tree.nodes[piece->node].size)
		memcpy(ret, object->data + piece->at, piece->length);
	else
		r = -EBADMSG;
	cache_put(t->disk->cache, object);
	return r;
}

static int read_file(struct tree_reader *t, const struct piece *piece,
		     uint8_t *ret)
{
	const struct vnode *node = &t->disk->tree.nodes[piece->node];
	struct place place = { node->pack, node->at };
	struct object_head head;
	int r;

	if (node->kind == VNODE_TEXT) {
		memcpy(ret, t->disk->tree.names + node->at + piece->at,
		       piece->length);
		return 0;
	}
	if (node->kind != VNODE_BLOB)
		return -EBADMSG;
	if (node->size <= TREE_DISK_WHOLE)
		return read_whole(t, place, piece, ret);
	r = object_head(t->reader, place, &head);
	if (r == 0 && head.type >= OBJECT_OFS_DELTA)
		return read_whole(t, place, piece, ret);
	if (r == 0 && (head.type != OBJECT_BLOB || head.size != node->size))
		r = -EBADMSG;
	return r < 0 ? r :
		       streams_read(t->streams, place, &head, piece->at, ret,
				    piece->length, &t->stop);
}

int tree_reader_read(struct tree_reader *reader, uint64_t offset, void *buf,
		     size_t n)
{
	const struct layout *layout = reader->disk->layout;
	uint8_t *to = buf;
	struct piece piece;
	int r = 0;

	for (; n > 0 && r == 0; n -= piece.length) {
		piece = layout->ops->find(layout, offset, n);
		switch (piece.kind) {
		case PIECE_META:
			read_meta(layout, offset, to, piece.length);
			break;
		case PIECE_ZERO:
			memset(to, 0, piece.length);
			break;
		case PIECE_FOLDER:
			r = read_folder(reader, &piece, to);
			break;
		case PIECE_FILE:
			r = read_file(reader, &piece, to);
			break;
		}
		offset += piece.length;
		to += piece.length;
	}
	return r;
}
