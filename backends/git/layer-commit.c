/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The layer is walked in ascending order.  Each chunk that it touches is put
 * together in a buffer of the pack writer: the layer's sectors, and around them
 * those of the base's chunk, which is read only if there is anything around.  The
 * writer's threads test it for zeroes, hash it, compare it with the base's id,
 * compress it; what became of it comes back in the same order (chunk_done()) and
 * goes into the trees, of which the writer gets those that change.  So one thread
 * reads, and all others calculate.
 *
 * No object is left out because the repository happens to have it: nothing would
 * keep that one from being pruned before our reference leads to it.  Only what the
 * base has, which is pinned, is not written again.
 */
#include "config.h"

#include "layer-commit.h"

#include <fcntl.h>
#include <git2.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "commit-points.h"
#include "common/util.h"
#include "tree-edit.h"

#define REPORT_NS 200000000ull
/* What is read ahead of the chunk at hand, of the layer's data. */
#define AHEAD (4u << 20)

struct work {
	const struct layer_commit *job;
	struct object_source source;
	git_odb *odb;
	struct chunk_map *map; /* of the base */
	struct git_disk disk; /* that it becomes */
	struct pack_writer *pack;
	struct tree_edit *edit;
	uint64_t done, all; /* bytes */
	uint64_t reported; /* when, ns */
	uint64_t ahead; /* the data up to here has been asked for */
};

/* --- Objects of the base ------------------------------------------------------ */

static int object_fails(const uint8_t oid[OID_BYTES], int err, char *ret_why)
{
	const git_error *e = git_error_last();
	char name[OID_HEX + 1];

	oid_hex(oid, name);
	return why(ret_why, err, "object %s: %.200s", name,
		   err == -ENOENT  ? "it is not in the repository" :
		   err == -EFBIG   ? "it is too large" :
		   err == -ENOTSUP ? "it is of another type" :
		   e && e->message && *e->message ? e->message :
						    "it cannot be read");
}

static int read_object(git_odb *odb, const uint8_t oid[OID_BYTES],
		       enum object_type type, size_t max, git_odb_object **ret,
		       char *ret_why)
{
	git_object_t is;
	git_oid id;
	size_t n;
	int r;

	memcpy(id.id, oid, OID_BYTES);
	git_error_clear();
	r = git_odb_read_header(&n, &is, odb, &id);
	if (r == 0 && (enum object_type)is != type)
		return object_fails(oid, -ENOTSUP, ret_why);
	if (r == 0 && n > max)
		return object_fails(oid, -EFBIG, ret_why);
	if (r == 0)
		r = git_odb_read(ret, odb, &id);
	return r == 0 ? 0 :
			object_fails(oid,
				     r == GIT_ENOTFOUND ? -ENOENT : -EBADMSG,
				     ret_why);
}

int repo_source_read(void *ctx, const uint8_t oid[OID_BYTES],
		     enum object_type type, size_t max, uint8_t **ret,
		     size_t *ret_n, char *ret_why)
{
	git_odb_object *object;
	git_odb *odb;
	size_t n;
	int r;

	if (git_repository_odb(&odb, ctx) < 0)
		return object_fails(oid, -EIO, ret_why);
	r = read_object(odb, oid, type, max, &object, ret_why);
	git_odb_free(odb);
	if (r < 0)
		return r == -ENOTSUP || r == -EFBIG ? -EBADMSG : r;
	n = git_odb_object_size(object);
	*ret = malloc(n ? n : 1);
	if (*ret) {
		memcpy(*ret, git_odb_object_data(object), n);
		*ret_n = n;
	}
	git_odb_object_free(object);
	return *ret ? 0 : why(ret_why, -ENOMEM, "an object: no memory");
}

/* The base's chunk; what it lacks at its end, when the disk has grown, is zero. */
static int read_base(struct work *work, uint64_t chunk,
		     const uint8_t oid[OID_BYTES], uint8_t *ret, char *ret_why)
{
	const struct git_disk *base = chunk_map_disk(work->map);
	uint32_t n = git_disk_bytes(base, chunk);
	char path[GIT_CHUNK_PATH];
	git_odb_object *object;
	int r = read_object(work->odb, oid, OBJECT_BLOB, n, &object, ret_why);

	if (r < 0)
		return r;
	if (git_odb_object_size(object) == n)
		memcpy(ret, git_odb_object_data(object), n);
	else
		r = why(ret_why, -EBADMSG,
			"%s has %zu bytes instead of %" PRIu32,
			git_disk_path(base, chunk, path),
			git_odb_object_size(object), n);
	git_odb_object_free(object);
	memset(ret + n, 0, git_disk_bytes(&work->disk, chunk) - n);
	return r;
}

/* --- Chunks ------------------------------------------------------------------- */

static void report(struct work *work)
{
	const struct layer_commit *job = work->job;
	uint64_t now = now_ns();

	if (!job->progress || now - work->reported < REPORT_NS)
		return;
	work->reported = now;
	job->progress(job->ctx, work->done, work->all);
}

static int chunk_done(void *ctx, uint64_t chunk, const uint8_t *oid,
		      enum pack_fate fate, char *ret_why)
{
	struct work *work = ctx;

	work->done += git_disk_bytes(&work->disk, chunk);
	report(work);
	if (fate == PACK_SAME)
		return 0;
	return tree_edit_set(work->edit, chunk, oid, ret_why);
}

/* Until first..end is under way, and some more. */
static void read_ahead(struct work *work, uint64_t end)
{
	if (end < work->ahead)
		return;
	(void)posix_fadvise(work->job->data_fd, (off_t)end, AHEAD,
			    POSIX_FADV_WILLNEED);
	work->ahead = end + AHEAD / 2;
}

/* The layer's sectors, over what is in ret. */
static int read_layer(const struct work *work, uint64_t first, uint64_t end,
		      uint8_t *ret, char *ret_why)
{
	const struct layer_commit *job = work->job;
	uint64_t at = first, from, to;

	while (at < end && layer_next(job->layer, at, end, &from, &to)) {
		int r = pread_all(job->data_fd,
				  ret + (from - first) * LAYER_SECTOR,
				  (to - from) * LAYER_SECTOR,
				  from * LAYER_SECTOR);

		if (r < 0)
			return why(ret_why, r == -ENODATA ? -EIO : r,
				   "the layer's data, sector %" PRIu64 ": %s",
				   from,
				   r == -ENODATA ? "the file ends before it" :
						   strerror(-r));
		at = to;
	}
	return 0;
}

static int send_chunk(struct work *work, uint64_t chunk, char *ret_why)
{
	uint64_t first = chunk * work->disk.chunk / LAYER_SECTOR;
	uint32_t n = git_disk_bytes(&work->disk, chunk);
	uint64_t end = first + n / LAYER_SECTOR;
	uint8_t oid[OID_BYTES];
	bool set, has = false;
	void *buffer;
	int r = 0;

	if (chunk < git_disk_chunks(chunk_map_disk(work->map)))
		r = chunk_map_get(work->map, &work->source, chunk, oid,
				  ret_why);
	if (r < 0)
		return r;
	has = r > 0;
	read_ahead(work, end * LAYER_SECTOR);
	r = pack_buffer(work->pack, n, &buffer, ret_why);
	if (r < 0)
		return r;
	if (layer_run(work->job->layer, first, end, &set) < end - first ||
	    !set) {
		if (has)
			r = read_base(work, chunk, oid, buffer, ret_why);
		else
			memset(buffer, 0, n);
	}
	if (r == 0)
		r = read_layer(work, first, end, buffer, ret_why);
	if (r == 0)
		r = pack_add_chunk(work->pack, buffer, n, chunk,
				   has ? oid : NULL, ret_why);
	return r;
}

/* The next sector that the layer has, wherever what follows it ends: to know that for
 * each chunk of a long run takes time that grows with its square. */
static bool next_sector(const struct layer *layer, uint64_t first, uint64_t end,
			uint64_t *ret)
{
	bool set;

	if (first >= end)
		return false;
	(void)layer_run(layer, first, first + 1, &set);
	*ret = set ? first : first + layer_run(layer, first, end, &set);
	return *ret < end;
}

/* The next chunk that the layer touches, from chunk on; or the one that was the
 * last, and shorter than others, before the disk grew. */
static bool next_chunk(const struct work *work, uint64_t *chunk)
{
	const struct git_disk *base = chunk_map_disk(work->map);
	uint64_t each = work->disk.chunk / LAYER_SECTOR;
	uint64_t end = work->disk.size / LAYER_SECTOR;
	uint64_t last = git_disk_chunks(base) - 1;
	uint64_t from, next = UINT64_MAX;

	if (next_sector(work->job->layer, *chunk * each, end, &from))
		next = from / each;
	if (*chunk <= last && last < next &&
	    git_disk_bytes(base, last) < git_disk_bytes(&work->disk, last))
		next = last;
	*chunk = next;
	return next != UINT64_MAX;
}

static int send_chunks(struct work *work, char *ret_why)
{
	int r = 0;

	for (uint64_t chunk = 0; next_chunk(work, &chunk); chunk++)
		work->all += git_disk_bytes(&work->disk, chunk);
	for (uint64_t chunk = 0; r == 0 && next_chunk(work, &chunk); chunk++)
		r = send_chunk(work, chunk, ret_why);
	if (r == 0)
		r = pack_chunks_drain(work->pack, ret_why);
	return r;
}

/* --- All of it ---------------------------------------------------------------- */

static int open_base(struct work *work, char *ret_why)
{
	const struct layer_commit *job = work->job;
	struct commit_facts base;
	int r = refs_commit(job->repo, job->base, &base, ret_why);

	if (r == 0)
		r = chunk_map_open(&work->map, &work->source, base.tree,
				   ret_why);
	if (r < 0)
		return r;
	work->disk = *chunk_map_disk(work->map);
	if (job->size < work->disk.size)
		return why(ret_why, -EINVAL,
			   "the layer's disk has %" PRIu64
			   " bytes, fewer than the commit below",
			   job->size);
	if (job->size % work->disk.sector)
		return why(ret_why, -EINVAL,
			   "the disk's size is no multiple of its sectors");
	work->disk.size = job->size;
	return 0;
}

static int begin(struct work *work, char *ret_why)
{
	const struct layer_commit *job = work->job;
	const struct pack_options options = {
		.dir = job->pack_dir,
		.threads = job->threads,
		.store_only = job->store_only,
		.keep_text = "a snapshot of a disk is being made",
		.done = chunk_done,
		.ctx = work,
	};
	int r;

	if (git_repository_odb(&work->odb, job->repo) < 0)
		return why(ret_why, -EIO, "the objects cannot be opened");
	r = open_base(work, ret_why);
	if (r == 0)
		r = pack_writer_new(&work->pack, &options, ret_why);
	if (r == 0)
		r = tree_edit_new(&work->edit, work->map, &work->source,
				  &work->disk, work->pack, ret_why);
	return r;
}

static int add_commit(struct work *work, struct layer_result *ret,
		      char *ret_why)
{
	struct commit_facts facts = *work->job->facts;
	cleanup_free char *text = NULL;
	size_t n;
	int r;

	memcpy(facts.tree, ret->tree, OID_BYTES);
	r = commit_text(&facts, &text, &n, ret_why);
	if (r == 0)
		r = pack_add(work->pack, OBJECT_COMMIT, text, n, ret->commit,
			     ret_why);
	return r;
}

static int make(struct work *work, struct layer_result *ret, char *ret_why)
{
	int r = begin(work, ret_why);

	if (r == 0)
		r = send_chunks(work, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(chunks_sent);
	r = tree_edit_finish(work->edit, ret->tree, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(trees_added);
	r = add_commit(work, ret, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(commit_added);
	r = pack_writer_finish(work->pack, &ret->packs, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(published);
	pack_totals(work->pack, &ret->totals);
	return 0;
}

int layer_commit(const struct layer_commit *job, struct layer_result *ret,
		 char *ret_why)
{
	struct work work = {
		.job = job,
		.source = { repo_source_read, job->repo },
		.reported = now_ns(),
	};
	struct layer_result result = { .packs = { NULL, 0 } };
	int r = make(&work, &result, ret_why);

	tree_edit_free(work.edit);
	pack_writer_free(work.pack);
	chunk_map_free(work.map);
	git_odb_free(work.odb);
	if (r == 0)
		*ret = result;
	return r;
}
