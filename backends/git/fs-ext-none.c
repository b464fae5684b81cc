/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs-ext-none.c - in place of fs-ext.c where there is no libext2fs. */
#include "config.h"

#include "common/util.h"
#include "fs-tree.h"

static int none_read(struct fs_volume *volume, char *ret_why)
{
	(void)volume;
	return why(ret_why, -EOPNOTSUPP, "this was built without libext2fs");
}

static int none_runs(struct fs_volume *volume, uint32_t node,
		     struct fs_runs *ret, char *ret_why)
{
	(void)node, (void)ret;
	return none_read(volume, ret_why);
}

static void none_close(struct fs_volume *volume)
{
	(void)volume;
}

const struct fs_ops fs_ext_ops = {
	.name = "ext4",
	.read = none_read,
	.runs = none_runs,
	.close = none_close,
};
