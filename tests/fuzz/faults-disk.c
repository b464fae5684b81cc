/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Readers and editors of disks that are wrong, for fuzz-disk to find. */
#include "config.h"

#include "fuzz.h"

#include "../../backends/git/tree-edit.h"

enum { OTHER_ID, ANY_DISK, LOST_CHANGE, ONE_MORE, NO_SENTENCE };

const char *const fuzz_faults[] = {
	[OTHER_ID] = "another object in place of a chunk is noticed",
	[ANY_DISK] = "a disk that cannot be is noticed",
	[LOST_CHANGE] = "a change that is not made is noticed",
	[ONE_MORE] = "a change that nobody wanted is noticed",
	[NO_SENTENCE] = "a refusal without a sentence is noticed",
	NULL,
};

int __real_chunk_map_get(struct chunk_map *map,
			 const struct object_source *source, uint64_t chunk,
			 uint8_t ret_oid[OID_BYTES], char *ret_why);
int __wrap_chunk_map_get(struct chunk_map *map,
			 const struct object_source *source, uint64_t chunk,
			 uint8_t ret_oid[OID_BYTES], char *ret_why);
int __real_git_disk_parse(const void *text, size_t n, struct git_disk *ret,
			  char *ret_why);
int __wrap_git_disk_parse(const void *text, size_t n, struct git_disk *ret,
			  char *ret_why);
int __real_tree_edit_set(struct tree_edit *edit, uint64_t chunk,
			 const uint8_t *oid, char *ret_why);
int __wrap_tree_edit_set(struct tree_edit *edit, uint64_t chunk,
			 const uint8_t *oid, char *ret_why);
int __real_chunk_map_open(struct chunk_map **ret,
			  const struct object_source *source,
			  const uint8_t root[OID_BYTES], char *ret_why);
int __wrap_chunk_map_open(struct chunk_map **ret,
			  const struct object_source *source,
			  const uint8_t root[OID_BYTES], char *ret_why);

int __wrap_chunk_map_get(struct chunk_map *map,
			 const struct object_source *source, uint64_t chunk,
			 uint8_t ret_oid[OID_BYTES], char *ret_why)
{
	int r = __real_chunk_map_get(map, source, chunk, ret_oid, ret_why);

	if (r == 1 && fuzz_fault == OTHER_ID)
		ret_oid[0] ^= 1;
	return r;
}

int __wrap_git_disk_parse(const void *text, size_t n, struct git_disk *ret,
			  char *ret_why)
{
	int r = __real_git_disk_parse(text, n, ret, ret_why);

	if (r < 0 && fuzz_fault == ANY_DISK) {
		*ret = (struct git_disk){ 1000, 512, 65536, 3 };
		return 0;
	}
	return r;
}

int __wrap_tree_edit_set(struct tree_edit *edit, uint64_t chunk,
			 const uint8_t *oid, char *ret_why)
{
	int r;

	if (fuzz_fault == LOST_CHANGE)
		return 0;
	r = __real_tree_edit_set(edit, chunk, oid, ret_why);
	if (r == 0 && fuzz_fault == ONE_MORE)
		(void)__real_tree_edit_set(edit, chunk + 1, oid, ret_why);
	return r;
}

int __wrap_chunk_map_open(struct chunk_map **ret,
			  const struct object_source *source,
			  const uint8_t root[OID_BYTES], char *ret_why)
{
	int r = __real_chunk_map_open(ret, source, root, ret_why);

	if (r < 0 && fuzz_fault == NO_SENTENCE)
		ret_why[0] = '\0';
	return r;
}
