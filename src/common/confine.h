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
 * Should: end as that user, in no other group, without a capability; uid 0 stays
 * who it is, and loses the capabilities only.
 * Mustn't: be asked for another user by one that cannot change it: then the
 * process would run as more than was meant, and this fails.
 */
int confine_become(uint32_t uid, uint32_t gid);

/* The broker is the last that the kernel should kill for memory, and its children
 * inherit that; whoever calls this is as any other process. */
void confine_ordinary(void);

/* So many bytes of memory of its own, all in all, and no more; fewer, if that is the
 * limit already.  Not under a sanitizer, which has its own there. */
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
