/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * layer-commit.h - a frozen layer becomes a commit on top of another one.
 */
#ifndef XENDISK_GIT_LAYER_COMMIT_H
#define XENDISK_GIT_LAYER_COMMIT_H

#include "chunk-map.h"
#include "overlay-map.h"
#include "pack-write.h"
#include "refs.h"

struct layer_commit {
	struct git_repository *repo; /* only this call uses it meanwhile */
	int pack_dir; /* objects/pack */
	unsigned int threads;
	bool store_only;
	const struct layer *layer;
	int data_fd; /* the layer's data; nobody writes to it */
	uint64_t size; /* of the disk, bytes: the base's, or more */
	const uint8_t *base; /* [OID_BYTES] the commit below */
	const struct commit_facts *facts; /* all but id and tree */
	/* Now and then; bytes of the chunks that the layer touches.  May be
	 * NULL. */
	void (*progress)(void *ctx, uint64_t done, uint64_t all);
	void *ctx;
};

struct layer_result {
	uint8_t commit[OID_BYTES], tree[OID_BYTES];
	struct pack_totals totals;
	struct pack_names packs; /* kept: pack_unkeep() and pack_names_free()
				  * are the caller's */
};

/*
 * The objects are durable and in packs with a ".keep" on return; no reference leads
 * to them yet.  The same layer on the same base with the same facts makes the same
 * commit.  An error leaves nothing unfinished behind: -ENOSPC and the like may pass;
 * -EBADMSG: the repository, -EINVAL, -EIO: the layer is wrong.
 */
int layer_commit(const struct layer_commit *job, struct layer_result *ret,
		 char *ret_why);

/* A source of whole objects that is libgit2's: ctx is the repository. */
int repo_source_read(void *ctx, const uint8_t oid[OID_BYTES],
		     enum object_type type, size_t max, uint8_t **ret,
		     size_t *ret_n, char *ret_why);

#endif
