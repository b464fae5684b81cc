/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-diff.c - which bytes of a disk are others in another commit, and which files.
 *
 * The trees say which chunks are; those are read, from both, and compared sector by
 * sector.  What one disk has behind the end of the other counts as compared with
 * zeroes, so that only what was written there shows.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "command/tables.h"
#include "git-tool.h"

#define SECTOR 512u

struct diff {
	struct tool_repo repo;
	struct git_disk a, b;
	uint64_t first, end; /* bytes: the range that may go on; equal: none */
	uint64_t changed; /* bytes */
	json_t *list; /* NULL: lines are printed */
	json_t *files; /* the same, of file systems */
	char reason[WHY_MAX];
};

static void put_range(struct diff *diff)
{
	uint64_t n = diff->end - diff->first;

	if (n == 0)
		return;
	diff->changed += n;
	if (diff->list)
		json_array_append_new(diff->list,
				      json_pack("{s:I,s:I}", "offset",
						(json_int_t)diff->first,
						"length", (json_int_t)n));
	else
		printf("%16" PRIu64 " %12" PRIu64 "\n", diff->first, n);
}

static void add_range(struct diff *diff, uint64_t at, uint64_t n)
{
	if (at != diff->end || diff->first == diff->end) {
		put_range(diff);
		diff->first = at;
	}
	diff->end = at + n;
}

/* The bytes of a chunk, as many as the disk has of it, and then zeroes; to be
 * freed. */
static int read_chunk(struct diff *diff, const struct git_disk *disk,
		      uint64_t chunk, const uint8_t *oid, uint8_t **ret)
{
	cleanup_free uint8_t *data = NULL;
	uint8_t *bytes = calloc(1, disk->chunk);
	char path[GIT_CHUNK_PATH];
	size_t n = 0;
	int r = bytes ? 0 : why(diff->reason, -ENOMEM, "no memory");

	if (r == 0 && oid)
		r = diff->repo.source.read(diff->repo.source.ctx, oid,
					   OBJECT_BLOB, disk->chunk, &data, &n,
					   diff->reason);
	if (r == 0 && oid && n != git_disk_bytes(disk, chunk))
		r = why(diff->reason, -EBADMSG,
			"%s: it is no blob of %" PRIu32 " bytes",
			git_disk_path(disk, chunk, path),
			git_disk_bytes(disk, chunk));
	if (r < 0) {
		free(bytes);
		return r;
	}
	if (n > 0)
		memcpy(bytes, data, n);
	*ret = bytes;
	return 0;
}

static int compare_chunk(void *ctx, uint64_t chunk, const uint8_t *in_a,
			 const uint8_t *in_b)
{
	struct diff *diff = ctx;
	cleanup_free uint8_t *a = NULL, *b = NULL;
	int r;

	if (tool_interrupted())
		return why(diff->reason, -EINTR, "interrupted");
	r = read_chunk(diff, &diff->a, chunk, in_a, &a);
	if (r == 0)
		r = read_chunk(diff, &diff->b, chunk, in_b, &b);
	for (uint32_t at = 0; r == 0 && at < diff->a.chunk; at += SECTOR)
		if (memcmp(a + at, b + at, SECTOR) != 0)
			add_range(diff, chunk * diff->a.chunk + at, SECTOR);
	return r;
}

static enum status compare_bytes(const struct invocation *call,
				 struct diff *diff, struct chunk_map *a,
				 struct chunk_map *b)
{
	int r = chunk_map_compare(a, b, &diff->repo.source, compare_chunk, diff,
				  diff->reason);

	if (r < 0)
		return tool_fail(call, r == -EINVAL ? -EBADMSG : r,
				 call->args[2], diff->reason);
	put_range(diff);
	if (!diff->list && diff->a.size != diff->b.size)
		printf("size %" PRIu64 ", was %" PRIu64 "\n", diff->b.size,
		       diff->a.size);
	return STATUS_DONE;
}

static enum status print_end(const struct invocation *call, struct diff *diff)
{
	json_t *all = json_pack("{s:[I,I]}", "sizes", (json_int_t)diff->a.size,
				(json_int_t)diff->b.size);

	if (!option(call, "files")) {
		(void)json_object_set_new(
			all, "changed",
			json_integer((json_int_t)diff->changed));
		(void)json_object_set(all, "ranges", diff->list);
	}
	if (!option(call, "bytes"))
		(void)json_object_set(all, "files", diff->files);
	return print_json(all);
}

/* What is said of files that cannot be read does not keep back the rest. */
static enum status compare(const struct invocation *call, struct diff *diff,
			   struct chunk_map *a, struct chunk_map *b)
{
	enum status status = STATUS_DONE, printed;

	diff->a = *chunk_map_disk(a);
	diff->b = *chunk_map_disk(b);
	if (!option(call, "files"))
		status = compare_bytes(call, diff, a, b);
	if (status != STATUS_DONE)
		return status;
	if (!option(call, "bytes") &&
	    (option(call, "files") || diff->changed > 0 ||
	     diff->a.size != diff->b.size))
		status = tool_diff_files(call, &diff->repo, a, b, diff->files);
	printed = call->json ? print_end(call, diff) : STATUS_DONE;
	return status != STATUS_DONE ? status : printed;
}

enum status verb_diff(const struct invocation *call)
{
	struct diff diff = { .first = 0 };
	struct chunk_map *a = NULL, *b = NULL;
	struct commit_facts commit;
	enum status status;

	if (option(call, "bytes") && option(call, "files"))
		return tool_usage(call, "--bytes or --files, not both");
	(void)tool_interrupted();
	status = tool_open(call, call->args[0], &diff.repo);
	if (status != STATUS_DONE)
		return status;
	diff.list = call->json ? json_array() : NULL;
	diff.files = call->json ? json_array() : NULL;
	status = tool_revision(call, &diff.repo, call->args[1], &commit, &a);
	if (status == STATUS_DONE)
		status = tool_revision(call, &diff.repo, call->args[2], &commit,
				       &b);
	if (status == STATUS_DONE)
		status = compare(call, &diff, a, b);
	chunk_map_free(a);
	chunk_map_free(b);
	json_decref(diff.list);
	json_decref(diff.files);
	tool_close(&diff.repo);
	return status;
}
