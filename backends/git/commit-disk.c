/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit-disk.c - chunks that were read last are kept, each in the place that its
 * number gives it: what reads a file system comes back to its tables again and
 * again, and goes through the rest in order.
 */
#include "config.h"

#include "commit-disk.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"

#define KEPT_BYTES (32u << 20)

struct kept {
	uint64_t number; /* plus 1; 0: there is nothing */
	uint8_t *data; /* NULL: all zero */
};

struct commit_disk {
	struct chunk_map *map;
	const struct object_source *source;
	struct git_disk disk;
	uint32_t nr;
	struct kept kept[];
};

int commit_disk_new(struct commit_disk **ret, struct chunk_map *map,
		    const struct object_source *source)
{
	const struct git_disk *disk = chunk_map_disk(map);
	uint32_t nr = KEPT_BYTES / disk->chunk;
	struct commit_disk *new_disk =
		calloc(1, sizeof(*new_disk) + nr * sizeof(struct kept));

	if (!new_disk)
		return -ENOMEM;
	new_disk->map = map;
	new_disk->source = source;
	new_disk->disk = *disk;
	new_disk->nr = nr;
	*ret = new_disk;
	return 0;
}

void commit_disk_free(struct commit_disk *disk)
{
	for (uint32_t i = 0; disk && i < disk->nr; i++)
		free(disk->kept[i].data);
	free(disk);
}

const struct git_disk *commit_disk_facts(const struct commit_disk *disk)
{
	return &disk->disk;
}

static int load(struct commit_disk *disk, uint64_t chunk, struct kept *kept,
		char *ret_why)
{
	uint8_t oid[OID_BYTES];
	char path[GIT_CHUNK_PATH];
	uint8_t *data = NULL;
	size_t n;
	int r = chunk_map_get(disk->map, disk->source, chunk, oid, ret_why);

	if (r > 0)
		r = disk->source->read(disk->source->ctx, oid, OBJECT_BLOB,
				       disk->disk.chunk, &data, &n, ret_why);
	if (r < 0)
		return r;
	if (data && n != git_disk_bytes(&disk->disk, chunk)) {
		free(data);
		return why(ret_why, -EBADMSG,
			   "%s: it is no blob of %" PRIu32 " bytes",
			   git_disk_path(&disk->disk, chunk, path),
			   git_disk_bytes(&disk->disk, chunk));
	}
	free(kept->data);
	*kept = (struct kept){ .number = chunk + 1, .data = data };
	return 0;
}

int commit_disk_read(struct commit_disk *disk, uint64_t offset, void *buf,
		     size_t n, char *ret_why)
{
	uint8_t *to = buf;

	if (offset > disk->disk.size || n > disk->disk.size - offset)
		return why(ret_why, -ENXIO,
			   "%zu bytes at %" PRIu64
			   " are beyond the end of the disk",
			   n, offset);
	while (n > 0) {
		uint64_t chunk = offset / disk->disk.chunk;
		uint32_t skip = (uint32_t)(offset % disk->disk.chunk);
		size_t part = MIN(n, disk->disk.chunk - skip);
		struct kept *kept = &disk->kept[chunk % disk->nr];
		int r = kept->number == chunk + 1 ?
				0 :
				load(disk, chunk, kept, ret_why);

		if (r < 0)
			return r;
		if (kept->data)
			memcpy(to, kept->data + skip, part);
		else
			memset(to, 0, part);
		offset += part;
		to += part;
		n -= part;
	}
	return 0;
}

int commit_disk_same(struct commit_disk *a, struct commit_disk *b,
		     uint64_t offset, uint64_t *ret, char *ret_why)
{
	uint32_t size = a->disk.chunk;
	uint64_t chunk = offset / size;
	uint8_t in_a[OID_BYTES], in_b[OID_BYTES];
	int is_a, is_b;

	*ret = 0;
	if (offset >= a->disk.size || offset >= b->disk.size ||
	    size != b->disk.chunk)
		return 0;
	is_a = chunk_map_get(a->map, a->source, chunk, in_a, ret_why);
	is_b = is_a < 0 ?
		       is_a :
		       chunk_map_get(b->map, b->source, chunk, in_b, ret_why);
	if (is_b < 0)
		return is_b;
	/* Two that are zero, the last one of which may be shorter. */
	if (is_a == is_b && (is_a == 0 || memcmp(in_a, in_b, OID_BYTES) == 0))
		*ret = MIN((chunk + 1) * size,
			   MIN(a->disk.size, b->disk.size)) -
		       offset;
	return 0;
}
