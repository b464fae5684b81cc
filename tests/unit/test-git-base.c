/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is in no pack is asked for, and kept: by the whole of its id. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base.h"
#include "common/util.h"

#define CHUNK GIT_CHUNK_MIN

/* All objects there are; an id is what the test says. */
static struct {
	uint8_t oid[OID_BYTES];
	enum object_type type;
	uint8_t data[CHUNK];
	size_t n;
} objects[8];
static unsigned int nr_objects;

static void add(uint8_t first, uint8_t last, enum object_type type,
		const void *data, size_t n, uint8_t ret_oid[OID_BYTES])
{
	memset(objects[nr_objects].oid, first, OID_BYTES);
	objects[nr_objects].oid[OID_BYTES - 1] = last;
	objects[nr_objects].type = type;
	memcpy(objects[nr_objects].data, data, n);
	objects[nr_objects].n = n;
	memcpy(ret_oid, objects[nr_objects++].oid, OID_BYTES);
}

static int answer(void *ctx, const uint8_t oid[OID_BYTES],
		  enum object_type *ret_type, uint64_t *ret_size, int *ret_fd,
		  char *ret_why)
{
	(void)ctx, (void)ret_why;
	for (unsigned int i = 0; i < nr_objects; i++) {
		if (memcmp(objects[i].oid, oid, OID_BYTES) != 0)
			continue;
		*ret_type = objects[i].type;
		*ret_size = objects[i].n;
		*ret_fd = memfd_create("object", MFD_CLOEXEC);
		return pwrite_all(*ret_fd, objects[i].data, objects[i].n, 0);
	}
	return -ENOENT;
}

static size_t entry(uint8_t *to, const char *text, const uint8_t *oid)
{
	size_t n = strlen(text) + 1;

	memcpy(to, text, n);
	memcpy(to + n, oid, OID_BYTES);
	return n + OID_BYTES;
}

/* A disk of two chunks, whose ids begin with the same bytes. */
static void make(uint8_t ret_root[OID_BYTES])
{
	struct git_disk disk;
	uint8_t oid[OID_BYTES], data[CHUNK], tree[200];
	char text[GIT_DISK_TEXT], why[WHY_MAX];
	size_t n = 0;

	assert_int_equal(git_disk_new(&disk, 2 * CHUNK, CHUNK, why), 0);
	memset(data, 0x11, CHUNK);
	add(7, 1, OBJECT_BLOB, data, CHUNK, oid);
	n = entry(tree, "100644 00", oid);
	memset(data, 0x22, CHUNK);
	add(7, 2, OBJECT_BLOB, data, CHUNK, oid);
	n += entry(tree + n, "100644 01", oid);
	add(8, 0, OBJECT_TREE, tree, n, oid);
	n = entry(tree, "40000 00", oid);
	add(9, 0, OBJECT_TREE, tree, n, oid);
	n = entry(tree, "40000 00", oid);
	add(10, 0, OBJECT_TREE, tree, n, oid);
	n = entry(tree, "40000 data", oid);
	add(11, 0, OBJECT_BLOB, text, git_disk_print(&disk, text), oid);
	n += entry(tree + n, "100644 disk", oid);
	add(12, 0, OBJECT_TREE, tree, n, ret_root);
}

static void ids_that_begin_alike(void **state)
{
	static const struct asker asker = { .ask = answer };
	uint8_t root[OID_BYTES];
	struct base_reader *reader;
	const struct object *object;
	struct store *store;
	struct base *base;
	char why[WHY_MAX] = "";

	(void)state;
	make(root);
	assert_int_equal(store_new(&store, 1u << 20, why), 0);
	assert_int_equal(base_reader_new(&reader, &asker), 0);
	if (base_open(&base, store, reader, root, root, why) < 0)
		fail_msg("%s", why);
	/* The second time from memory. */
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(
			base_fetch(base, reader, i % 2, NULL, &object, why), 0);
		assert_int_equal(object->data[0], i % 2 ? 0x22 : 0x11);
		base_uncache(base, object);
	}
	base_put(base);
	base_reader_free(reader);
	store_put(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_that_begin_alike),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
