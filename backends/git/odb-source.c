/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* odb-source.c - whole objects out of packs, for chunk-map.h. */
#include "config.h"

#include <string.h>

#include "chunk-map.h"
#include "common/util.h"

static int bad_object(const uint8_t oid[OID_BYTES], int err, const char *what,
		      char *ret_why)
{
	char hex[OID_HEX + 1];

	oid_hex(oid, hex);
	return why(ret_why, err, "object %s: %s", hex, what);
}

static int copy_object(struct odb_source *from, const struct object *object,
		       uint8_t **ret, size_t *ret_n)
{
	uint8_t *copy = malloc(object->size + 1);

	if (copy) {
		memcpy(copy, object->data, object->size);
		*ret = copy;
		*ret_n = object->size;
	}
	cache_put(from->cache, object);
	return copy ? 0 : -ENOMEM;
}

int odb_source_read(void *ctx, const uint8_t oid[OID_BYTES],
		    enum object_type type, size_t max, uint8_t **ret,
		    size_t *ret_n, char *ret_why)
{
	static const char *const names[] = { [OBJECT_COMMIT] =
						     "it is no commit",
					     [OBJECT_TREE] = "it is no tree",
					     [OBJECT_BLOB] = "it is no blob",
					     [OBJECT_TAG] = "it is no tag" };
	struct odb_source *from = ctx;
	const struct object *object;
	enum object_type stored;
	struct place place;
	uint64_t size;
	int r = odb_find(from->odb, oid, &place, ret_why);

	if (r == -ENOENT)
		return bad_object(oid, -ENOENT, "it is not there", ret_why);
	if (r < 0)
		return r;
	/* Before it is read: what says that it is large may be. */
	r = object_size(from->reader, place, &stored, &size);
	if (r == 0 && size > max)
		r = -EFBIG;
	if (r == 0)
		r = object_read(from->reader, place, &object);
	if (r == 0 && object->type != type) {
		cache_put(from->cache, object);
		return bad_object(oid, -EBADMSG, names[type], ret_why);
	}
	if (r == 0)
		r = copy_object(from, object, ret, ret_n);
	if (r == -EBADMSG)
		return bad_object(oid, r, "it is broken", ret_why);
	return r < 0 ? bad_object(oid, r, strerror(-r), ret_why) : 0;
}
