/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * packed-refs.h - a reference that is removed is taken out of the file packed-refs.
 */
#ifndef XENDISK_GIT_PACKED_REFS_H
#define XENDISK_GIT_PACKED_REFS_H

#include <stdbool.h>

struct git_repository; /* libgit2's */

/* The file's lock, while we have it. */
struct packed_refs {
	int dir; /* of the repository; or -1 */
	int lock; /* packed-refs.lock; -1: it is not ours */
};
#define PACKED_REFS_NONE \
	{                \
		-1, -1   \
	}

/*
 * For whoever has the reference's own lock, and is about to remove it: it is not in the
 * file any more, and nobody puts it there before packed_refs_let_go(), unless somebody
 * had the file locked when it was not in there.  Durable.  -EBUSY: as of ref_lock().
 */
int packed_refs_forget(struct packed_refs *ret, struct git_repository *repo,
		       const char *name, char *ret_why);
void packed_refs_let_go(struct packed_refs *packed);
/* dir: the repository's folder.  True: there was a lock that somebody dead had left, and
 * it is removed. */
bool packed_refs_clean(int dir);

#endif
