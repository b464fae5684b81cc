/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Readers of FATs that are wrong, for fuzz-fat to find. */
#include "config.h"

#include "fuzz.h"

#include "../../backends/git/fat-read.h"
#include "../../backends/git/tree.h"

enum { NO_SENTENCE, OTHER_BYTE, SAME_NAMES, ANY_NAME, SLASH };

const char *const fuzz_faults[] = {
	[NO_SENTENCE] = "a refusal without a sentence is noticed",
	[OTHER_BYTE] = "a byte of a file that is another is noticed",
	[SAME_NAMES] = "names that FAT takes for one are noticed",
	[ANY_NAME] = "a name that git cannot have is noticed",
	[SLASH] = "a name with a slash is noticed",
	NULL,
};

int __real_fat_volume_read(struct fat_volume **ret,
			   const struct fat_source *source, uint64_t start,
			   uint64_t size, char *ret_why);
int __wrap_fat_volume_read(struct fat_volume **ret,
			   const struct fat_source *source, uint64_t start,
			   uint64_t size, char *ret_why);
int __real_fat_volume_file(struct fat_volume *volume, uint32_t node, void *buf,
			   char *ret_why);
int __wrap_fat_volume_file(struct fat_volume *volume, uint32_t node, void *buf,
			   char *ret_why);
int __real_vtree_same_names(struct vtree *tree, uint32_t folder,
			    uint32_t *ret_node, char *ret_why);
int __wrap_vtree_same_names(struct vtree *tree, uint32_t folder,
			    uint32_t *ret_node, char *ret_why);
const char *__real_tree_name_fault(const char *name);
const char *__wrap_tree_name_fault(const char *name);
int __real_name_bytes(const uint16_t *units, int n, char ret[NAME_BYTES_MAX]);
int __wrap_name_bytes(const uint16_t *units, int n, char ret[NAME_BYTES_MAX]);

int __wrap_fat_volume_read(struct fat_volume **ret,
			   const struct fat_source *source, uint64_t start,
			   uint64_t size, char *ret_why)
{
	int r = __real_fat_volume_read(ret, source, start, size, ret_why);

	if (r < 0 && fuzz_fault == NO_SENTENCE)
		ret_why[0] = '\0';
	return r;
}

int __wrap_fat_volume_file(struct fat_volume *volume, uint32_t node, void *buf,
			   char *ret_why)
{
	int r = __real_fat_volume_file(volume, node, buf, ret_why);

	if (r == 0 && fuzz_fault == OTHER_BYTE &&
	    fat_volume_tree(volume)->nodes[node].size > 0)
		*(uint8_t *)buf ^= 1;
	return r;
}

int __wrap_vtree_same_names(struct vtree *tree, uint32_t folder,
			    uint32_t *ret_node, char *ret_why)
{
	if (fuzz_fault == SAME_NAMES)
		return 0;
	return __real_vtree_same_names(tree, folder, ret_node, ret_why);
}

/* The fuzzer asks it, too, and tree_next(). */
const char *__wrap_tree_name_fault(const char *name)
{
	if (fuzz_fault == ANY_NAME && strncasecmp(name, ".git", 4) == 0)
		return NULL;
	return __real_tree_name_fault(name);
}

int __wrap_name_bytes(const uint16_t *units, int n, char ret[NAME_BYTES_MAX])
{
	int r = __real_name_bytes(units, n, ret);

	if (r == 0 && fuzz_fault == SLASH)
		ret[0] = '/';
	return r;
}
