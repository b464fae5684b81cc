/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lfs.h - objects of Git LFS, of which a repository has pointers in their place.
 *
 * A pointer is a small file of three lines (git-lfs, docs/spec.md); what it points
 * to is a plain file, lfs/objects/OI/D1/OID1..., if it has been fetched.  Those are
 * opened before the worker is isolated and stay open.  That their content is what
 * their name says is not checked; their size is.
 *
 * All but lfs_read(), which is any thread's, belongs to one thread.
 */
#ifndef XENDISK_GIT_LFS_H
#define XENDISK_GIT_LFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vtree.h"

#define LFS_OID_HEX 64
/* Bytes of a pointer. */
#define LFS_POINTER_MIN 126u
#define LFS_POINTER_MAX 144u
/* Objects of one disk: each is a descriptor. */
#define LFS_MAX_OBJECTS 10000u

struct lfs_pointer {
	char oid[LFS_OID_HEX + 1]; /* SHA-256, lower case */
	uint64_t size; /* of the object, bytes */
};

/* One that has extensions is none here: its object is not what the file is. */
bool lfs_is_pointer(const uint8_t *bytes, size_t n, struct lfs_pointer *ret);

struct lfs;

/* Of the repository in a folder, whose descriptor stays the caller's.  storage: the
 * folder in it where objects/ is, lfs.storage of git-lfs-config(5); NULL: lfs.  That
 * it is not there is no error; -EXDEV, or what opening a link says: it leads out of
 * the repository. */
int lfs_open(struct lfs **ret, int repo, const char *storage, char *ret_why);
/*
 * Opens an object, or finds that it is open.  -ENOENT: it is not there; any other
 * error, and why: it is no plain file, has another size, or there are too many.
 */
int lfs_find(struct lfs *lfs, const struct lfs_pointer *pointer,
	     uint64_t *ret_number, char *ret_why);
/* No more of them. */
void lfs_settle(struct lfs *lfs);
void lfs_close(struct lfs *lfs);

/* n bytes, all of them within its size; blocks.  -ENODATA: it was cut. */
int lfs_read(const struct lfs *lfs, uint64_t number, uint64_t offset, void *ret,
	     size_t n);

#endif
