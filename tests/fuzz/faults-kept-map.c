/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Maps that are wrong, for fuzz-kept-map to find. */
#include "config.h"

#include "fuzz.h"

#include "../../backends/kept-map.h"

enum { LEFT_OUT, TOO_MANY, FORGOTTEN };

const char *const fuzz_faults[] = {
	[LEFT_OUT] = "a block that is not set is noticed",
	[TOO_MANY] = "a block that is cleared with others is noticed",
	[FORGOTTEN] = "a map that is not there any more is noticed",
	NULL,
};

int __real_kept_map_set(struct kept_map *map, uint64_t first, uint64_t end,
			uint64_t *ret_changed);
int __wrap_kept_map_set(struct kept_map *map, uint64_t first, uint64_t end,
			uint64_t *ret_changed);
int __real_kept_map_clear(struct kept_map *map, uint64_t first, uint64_t end,
			  uint64_t *ret_changed);
int __wrap_kept_map_clear(struct kept_map *map, uint64_t first, uint64_t end,
			  uint64_t *ret_changed);
int __real_kept_map_open(struct kept_map **ret, struct xd_disk *disk,
			 const char *name, uint64_t blocks, uint32_t block_size,
			 bool *ret_kept);
int __wrap_kept_map_open(struct kept_map **ret, struct xd_disk *disk,
			 const char *name, uint64_t blocks, uint32_t block_size,
			 bool *ret_kept);

int __wrap_kept_map_set(struct kept_map *map, uint64_t first, uint64_t end,
			uint64_t *ret_changed)
{
	bool short_of_one = fuzz_fault == LEFT_OUT && end - first > 1;

	return __real_kept_map_set(map, first, end - short_of_one, ret_changed);
}

int __wrap_kept_map_clear(struct kept_map *map, uint64_t first, uint64_t end,
			  uint64_t *ret_changed)
{
	bool one_before = fuzz_fault == TOO_MANY && first > 0;

	return __real_kept_map_clear(map, first - one_before, end, ret_changed);
}

int __wrap_kept_map_open(struct kept_map **ret, struct xd_disk *disk,
			 const char *name, uint64_t blocks, uint32_t block_size,
			 bool *ret_kept)
{
	int r = __real_kept_map_open(ret, disk, name, blocks, block_size,
				     ret_kept);

	if (r == 0 && fuzz_fault == FORGOTTEN)
		*ret_kept = false;
	return r;
}
