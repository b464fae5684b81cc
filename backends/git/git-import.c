/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-import.c - an image becomes a disk.
 *
 * Only what the file has is read (SEEK_DATA), a chunk at a time; the pack writer's
 * threads do the rest, and tell in the order of the chunks which object each has
 * become, which is the order that the tree is made in.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "git-image.h"
#include "git-tool.h"
#include "pack-write.h"
#include "tree-edit.h"

struct import {
	const struct invocation *call;
	int image;
	uint64_t size; /* of the image, bytes */
	bool store_only; /* chunks are not compressed */
	struct git_disk disk;
	struct tool_repo repo;
	struct pack_writer *pack;
	struct tree_edit *edit;
	struct progress progress;
};

/* --- Its chunks ------------------------------------------------------------------ */

static int chunk_done(void *ctx, uint64_t tag, const uint8_t *oid,
		      enum pack_fate fate, char *ret_why)
{
	struct import *import = ctx;

	(void)fate;
	return oid ? tree_edit_set(import->edit, tag, oid, ret_why) : 0;
}

static int add_chunk(struct import *import, uint64_t chunk, char *ret_why)
{
	uint32_t n = git_disk_bytes(&import->disk, chunk);
	uint64_t at = chunk * import->disk.chunk;
	void *buffer;
	int r = pack_buffer(import->pack, n, &buffer, ret_why);

	if (r < 0)
		return r;
	r = pread_all(import->image, buffer, n, at);
	if (r < 0)
		return why(ret_why, r, "the image at byte %" PRIu64 ": %s", at,
			   strerror(-r));
	return pack_add_chunk(import->pack, buffer, n, chunk, NULL, ret_why);
}

/* The next chunk with data in the file; how many there are: none any more. */
static uint64_t next_chunk(const struct import *import, uint64_t chunk)
{
	uint64_t from = chunk * import->disk.chunk;
	off_t data = lseek(import->image, (off_t)from, SEEK_DATA);

	if (data < 0 && errno == ENXIO)
		return git_disk_chunks(&import->disk);
	/* What cannot tell is read. */
	return data < 0 ? chunk : (uint64_t)data / import->disk.chunk;
}

static int add_chunks(struct import *import, char *ret_why)
{
	uint64_t nr = git_disk_chunks(&import->disk);
	int r = 0;

	for (uint64_t i = next_chunk(import, 0); i < nr && r == 0;
	     i = next_chunk(import, i + 1)) {
		if (tool_interrupted())
			return why(ret_why, -EINTR, "interrupted");
		r = add_chunk(import, i, ret_why);
		progress_show(&import->progress, i * import->disk.chunk);
		if (i + 1 == nr)
			break;
	}
	return r < 0 ? r : pack_chunks_drain(import->pack, ret_why);
}

static int make_disk(struct import *import, struct commit_facts *facts,
		     const char *ref, char *ret_why)
{
	const struct pack_options options = { .dir = import->repo.packs,
					      .threads = tool_threads(),
					      .store_only = import->store_only,
					      .keep_text = "xendisk git import",
					      .done = chunk_done,
					      .ctx = import };
	uint8_t root[OID_BYTES];
	int r = pack_writer_new(&import->pack, &options, ret_why);

	if (r == 0)
		r = tree_edit_new(&import->edit, NULL, NULL, &import->disk,
				  import->pack, ret_why);
	progress_start(&import->progress, "import", import->disk.size);
	if (r == 0)
		r = add_chunks(import, ret_why);
	if (r == 0)
		r = tree_edit_finish(import->edit, root, ret_why);
	progress_end(&import->progress);
	if (r == 0)
		r = tool_publish(&import->repo, import->pack, root, facts, ref,
				 NULL, ret_why);
	tree_edit_free(import->edit);
	pack_writer_free(import->pack);
	return r;
}

/* --- The verb --------------------------------------------------------------------- */

/* Opens the repository, in which there is no such disk. */
static enum status open_repo(struct import *import, char ref[REF_NAME_MAX])
{
	const struct invocation *call = import->call;
	enum status status = tool_open(call, call->args[0], &import->repo);

	if (status != STATUS_DONE)
		return status;
	status = tool_new_ref(call, &import->repo, call->args[1], ref);
	if (status != STATUS_DONE)
		tool_close(&import->repo);
	return status;
}

static enum status look_first(void *ctx)
{
	struct import *import = ctx;
	char ref[REF_NAME_MAX];
	enum status status = open_repo(import, ref);

	if (status == STATUS_DONE)
		tool_close(&import->repo);
	return status;
}

static enum status open_image(struct import *import)
{
	const struct invocation *call = import->call;
	const char *format = option(call, "format");
	char reason[WHY_MAX];
	int r = import->image =
		image_open(call->args[2], format ? format : "raw", reason);

	if (r >= 0)
		r = image_size(import->image, &import->size, reason);
	return r < 0 ? tool_fail(call, r, call->args[2], reason) : STATUS_DONE;
}

static enum status import_into(struct import *import, const char *ref)
{
	const struct invocation *call = import->call;
	struct commit_facts facts = { .has_parent = false };
	char reason[WHY_MAX];
	enum status status = tool_new_disk(call, import->size, &import->disk);
	int r;

	if (status != STATUS_DONE)
		return status;
	tool_message(call, "an imported disk", &facts);
	r = make_disk(import, &facts, ref, reason);
	return r < 0 ? tool_fail(call, r, call->args[1], reason) :
		       tool_committed(call, &facts, ref);
}

static enum status read_compress(struct import *import)
{
	const char *how = option(import->call, "compress");

	import->store_only = how && strcmp(how, "none") == 0;
	if (!how || import->store_only || strcmp(how, "auto") == 0)
		return STATUS_DONE;
	return tool_usage(import->call, "--compress: \"%s\": auto or none",
			  how);
}

/* The image is read with the rights of who calls, so it comes first; but unpacking one
 * takes long, and is not begun in vain. */
enum status verb_import(const struct invocation *call)
{
	struct import import = { .call = call, .image = -1 };
	char ref[REF_NAME_MAX];
	enum status status = read_compress(&import);

	if (status == STATUS_DONE)
		status = tool_in_child(call, look_first, &import);
	if (status == STATUS_DONE)
		status = open_image(&import);
	if (status == STATUS_DONE)
		status = open_repo(&import, ref);
	if (status == STATUS_DONE) {
		status = import_into(&import, ref);
		tool_close(&import.repo);
	}
	if (import.image >= 0)
		(void)close(import.image);
	return status;
}
