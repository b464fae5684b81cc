/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Readers of file systems that are wrong, for fuzz-files to find. */
#include "config.h"

#include "common/util.h"
#include "fuzz.h"

#include "../../backends/git/fs-tree.h"

enum { NO_SENTENCE, UNSORTED, LONGER, ONE_LESS };

const char *const fuzz_faults[] = {
	[NO_SENTENCE] = "a refusal without a sentence is noticed",
	[UNSORTED] = "names that are in no order are noticed",
	[LONGER] = "a piece that is beyond the file system is noticed",
	[ONE_LESS] = "another tree the second time is noticed",
	NULL,
};

int __real_fs_volume_read(struct fs_volume *volume, char *ret_why);
int __wrap_fs_volume_read(struct fs_volume *volume, char *ret_why);
void __real_fs_tree_sort(struct fs_tree *tree, uint32_t folder);
void __wrap_fs_tree_sort(struct fs_tree *tree, uint32_t folder);
int __real_fs_runs_add(struct fs_runs *runs, const struct fs_run *run,
		       char *ret_why);
int __wrap_fs_runs_add(struct fs_runs *runs, const struct fs_run *run,
		       char *ret_why);

int __wrap_fs_volume_read(struct fs_volume *volume, char *ret_why)
{
	static unsigned int calls;
	int r = __real_fs_volume_read(volume, ret_why);

	if (r < 0 && fuzz_fault == NO_SENTENCE)
		ret_why[0] = '\0';
	if (r == 0 && fuzz_fault == ONE_LESS && calls++ % 2 &&
	    volume->tree.nr > 1)
		volume->tree.nodes[1].mode ^= 1;
	return r;
}

void __wrap_fs_tree_sort(struct fs_tree *tree, uint32_t folder)
{
	if (fuzz_fault != UNSORTED)
		__real_fs_tree_sort(tree, folder);
}

int __wrap_fs_runs_add(struct fs_runs *runs, const struct fs_run *run,
		       char *ret_why)
{
	struct fs_run other = *run;

	if (fuzz_fault == LONGER)
		other.where += 1u << 30;
	return __real_fs_runs_add(runs, &other, ret_why);
}
