/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Readers of repositories that are wrong, for fuzz-git to find. */
#include "config.h"

#include "fuzz.h"

#include <errno.h>

#include "../../backends/git/lfs.h"
#include "../../backends/git/stream.h"
#include "../../backends/git/vtree.h"

enum { OTHER_BYTE, SAME_NAMES, LARGER, NO_SENTENCE, UNSORTED, NO_POINTER };

const char *const fuzz_faults[] = {
	[OTHER_BYTE] = "a byte that is another in pieces is noticed",
	[SAME_NAMES] = "names that FAT takes for one are noticed",
	[LARGER] = "a size that is not that of the object is noticed",
	[NO_SENTENCE] = "a refusal without a sentence is noticed",
	[UNSORTED] = "a folder of EROFS that is not sorted is noticed",
	[NO_POINTER] = "an object of Git LFS with another size is noticed",
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
void __real_qsort_r(void *base, size_t nr, size_t size,
		    int (*compare)(const void *, const void *, void *),
		    void *arg);
void __wrap_qsort_r(void *base, size_t nr, size_t size,
		    int (*compare)(const void *, const void *, void *),
		    void *arg);
int __real_lfs_find(struct lfs *lfs, const struct lfs_pointer *pointer,
		    uint64_t *ret_number, char *ret_why);
int __wrap_lfs_find(struct lfs *lfs, const struct lfs_pointer *pointer,
		    uint64_t *ret_number, char *ret_why);
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

void __wrap_qsort_r(void *base, size_t nr, size_t size,
		    int (*compare)(const void *, const void *, void *),
		    void *arg)
{
	if (fuzz_fault != UNSORTED)
		__real_qsort_r(base, nr, size, compare, arg);
}

/* What it says is believed, not what the file has. */
int __wrap_lfs_find(struct lfs *lfs, const struct lfs_pointer *pointer,
		    uint64_t *ret_number, char *ret_why)
{
	int r = __real_lfs_find(lfs, pointer, ret_number, ret_why);

	if (r == -EBADMSG && fuzz_fault == NO_POINTER) {
		ret_why[0] = '\0';
		*ret_number = 0;
		return 0;
	}
	return r;
}

int __wrap_odb_open(struct odb **ret, int objects, char *ret_why)
{
	int r = __real_odb_open(ret, objects, ret_why);

	if (r < 0 && fuzz_fault == NO_SENTENCE)
		ret_why[0] = '\0';
	return r;
}
