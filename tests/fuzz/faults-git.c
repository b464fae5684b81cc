/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Readers of repositories that are wrong, for fuzz-git to find. */
#include "config.h"

#include "fuzz.h"

#include "../../backends/git/stream.h"
#include "../../backends/git/vtree.h"

enum { OTHER_BYTE, SAME_NAMES, LARGER, NO_SENTENCE };

const char *const fuzz_faults[] = {
	[OTHER_BYTE] = "a byte that is another in pieces is noticed",
	[SAME_NAMES] = "names that FAT takes for one are noticed",
	[LARGER] = "a size that is not that of the object is noticed",
	[NO_SENTENCE] = "a refusal without a sentence is noticed",
	NULL,
};

int __real_streams_read(struct streams *streams, struct place place,
			const struct object_head *head, uint64_t offset,
			void *ret, size_t n, const atomic_bool *stop);
int __wrap_streams_read(struct streams *streams, struct place place,
			const struct object_head *head, uint64_t offset,
			void *ret, size_t n, const atomic_bool *stop);
int __real_vtree_part_names(struct vtree *tree, char **ret_list, char *ret_why);
int __wrap_vtree_part_names(struct vtree *tree, char **ret_list, char *ret_why);
int __real_object_size(struct reader *reader, struct place place,
		       enum object_type *ret_type, uint64_t *ret);
int __wrap_object_size(struct reader *reader, struct place place,
		       enum object_type *ret_type, uint64_t *ret);
int __real_odb_open(struct odb **ret, int objects, char *ret_why);
int __wrap_odb_open(struct odb **ret, int objects, char *ret_why);

int __wrap_streams_read(struct streams *streams, struct place place,
			const struct object_head *head, uint64_t offset,
			void *ret, size_t n, const atomic_bool *stop)
{
	int r = __real_streams_read(streams, place, head, offset, ret, n, stop);

	if (r == 0 && n > 0 && fuzz_fault == OTHER_BYTE)
		*(uint8_t *)ret ^= 1;
	return r;
}

int __wrap_vtree_part_names(struct vtree *tree, char **ret_list, char *ret_why)
{
	if (fuzz_fault == SAME_NAMES) {
		*ret_list = strdup("");
		return 0;
	}
	return __real_vtree_part_names(tree, ret_list, ret_why);
}

int __wrap_object_size(struct reader *reader, struct place place,
		       enum object_type *ret_type, uint64_t *ret)
{
	int r = __real_object_size(reader, place, ret_type, ret);

	if (r == 0 && fuzz_fault == LARGER)
		(*ret)++;
	return r;
}

int __wrap_odb_open(struct odb **ret, int objects, char *ret_why)
{
	int r = __real_odb_open(ret, objects, ret_why);

	if (r < 0 && fuzz_fault == NO_SENTENCE)
		ret_why[0] = '\0';
	return r;
}
