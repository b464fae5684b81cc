/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-store.h - a repository of a test's own, made by libgit2, and what git says of
 * it.  It stands for packs: pack_add() is here.
 */
#ifndef XENDISK_TEST_GIT_STORE_H
#define XENDISK_TEST_GIT_STORE_H

#include "../../backends/git/chunk-map.h"

extern char git_store_path[];
extern struct git_repository *git_store;
extern const struct object_source git_store_source;
extern unsigned int git_store_added; /* how often pack_add() was called */

int git_store_setup(void **state);
int git_store_teardown(void **state);

/* Writes an object, fails the test when it cannot. */
void git_store_add(enum object_type type, const void *data, size_t n,
		   uint8_t ret[OID_BYTES]);
/* What `git ARGS` says there; its status has to be 0.  To be freed. */
char *git_store_says(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));

#endif
