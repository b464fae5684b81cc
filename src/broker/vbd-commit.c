/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd-commit.c - which commit a disk shows, in xenstore: BACKEND/xendisk-commit.
 *
 * A guest may read it, and watch it.  It comes from the worker; supervise-ask.c
 * has seen to it that it is hexadecimal digits and nothing else.
 */
#include <string.h>

#include "broker/vbd-private.h"

static int write_commit(struct vbd *vbd)
{
	const char *commit = target_commit(vbd->target);

	return *commit ? store_write(vbd->store, vbd->path, "xendisk-commit",
				     "%s", commit) :
			 store_remove(vbd->store, vbd->path, "xendisk-commit");
}

void vbd_publish_commit(struct vbd *vbd)
{
	const char *commit = target_commit(vbd->target);

	/* What does not succeed is tried at the next look. */
	if (strcmp(vbd->commit, commit) != 0 &&
	    vbd_change(vbd, write_commit) == 0)
		(void)snprintf(vbd->commit, sizeof(vbd->commit), "%s", commit);
}
