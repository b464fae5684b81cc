/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * confine.h - what a process of ours gives up before it looks at what somebody
 * hostile wrote.  All of it is for good.  0 or -errno.
 */
#ifndef XENDISK_CONFINE_H
#define XENDISK_CONFINE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Becomes that user, in no other group, without a capability.  uid 0: keeps the
 * present user, and gives up the capabilities only.  Fails where the process may
 * not change its user: going on would be with more rights than were meant.
 */
int confine_become(uint32_t uid, uint32_t gid);

/* The kernel is told to kill the broker last when memory runs out, and children
 * inherit that: makes this process an ordinary one again. */
void confine_ordinary(void);

/* Limits the memory of this process to so many bytes in all, or to fewer if it is
 * limited already.  Does nothing under a sanitizer, which maps more by itself. */
int confine_memory(uint64_t bytes);

enum confine_rights {
	CONFINE_READ, /* and execute, of files; list, of folders */
	CONFINE_ALL,
};

struct confine_path {
	int fd; /* a folder with all that is in it, or a file */
	enum confine_rights rights;
};

/*
 * Landlock: denies the calling thread, and those that it starts, every access to
 * a path but these, and to the network.  What is open stays open.  Needs
 * no_new_privs or CAP_SYS_ADMIN.  0, too, where the kernel has no Landlock.
 */
int confine_paths(const struct confine_path *paths, size_t nr);

#endif
