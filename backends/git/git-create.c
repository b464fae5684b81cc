/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* git-create.c - repositories and disks that are new: init and create. */
#include "config.h"

#include <git2.h>
#include <string.h>
#include <sys/stat.h>

#include "git-tool.h"
#include "pack-write.h"
#include "repo-settings.h"
#include "repo.h"
#include "tree-edit.h"

/* libgit2 would take what is there for a repository of its own. */
static int make_folder(const char *path, char *ret_why)
{
	struct stat st;

	if (lstat(path, &st) == 0 && rmdir(path) < 0)
		return why(ret_why, -EEXIST, "%s",
			   S_ISDIR(st.st_mode) ? "the folder is not empty" :
						 "it is there already");
	if (mkdir(path, 0777) < 0)
		return why(ret_why, -errno, "%s", strerror(errno));
	return 0;
}

/* Nothing of a template: no hooks. */
static int make_repository(const char *path, char *ret_why)
{
	git_repository_init_options options;
	git_repository *repo = NULL;
	int r = make_folder(path, ret_why);

	if (r < 0)
		return r;
	if (git_libgit2_init() < 0 ||
	    git_repository_init_options_init(
		    &options, GIT_REPOSITORY_INIT_OPTIONS_VERSION) < 0)
		return repo_why(ret_why, -EIO, "libgit2", "");
	options.flags = GIT_REPOSITORY_INIT_BARE |
			GIT_REPOSITORY_INIT_NO_REINIT;
	options.initial_head = "main";
	if (git_repository_init_ext(&repo, path, &options) < 0)
		r = repo_why(ret_why, -EIO, "libgit2", "");
	else
		r = repo_settings_write(repo, 0, ret_why);
	git_repository_free(repo);
	(void)git_libgit2_shutdown();
	return r;
}

enum status verb_init(const struct invocation *call)
{
	const char *path = call->args[0];
	char reason[WHY_MAX];
	int r = make_repository(path, reason);

	return r < 0 ? tool_fail(call, r, path, reason) : STATUS_DONE;
}

static int make_disk(struct tool_repo *repo, const struct git_disk *disk,
		     struct commit_facts *facts, const char *ref, char *ret_why)
{
	const struct pack_options options = { .dir = repo->packs,
					      .keep_text = "xendisk git" };
	struct pack_writer *pack = NULL;
	struct tree_edit *edit = NULL;
	uint8_t root[OID_BYTES];
	int r = pack_writer_new(&pack, &options, ret_why);

	if (r == 0)
		r = tree_edit_new(&edit, NULL, NULL, disk, pack, ret_why);
	if (r == 0)
		r = tree_edit_finish(edit, root, ret_why);
	if (r == 0)
		r = tool_publish(repo, pack, root, facts, ref, NULL, ret_why);
	tree_edit_free(edit);
	pack_writer_free(pack);
	return r;
}

enum status tool_new_disk(const struct invocation *call, uint64_t size,
			  struct git_disk *ret)
{
	char reason[WHY_MAX];
	enum status status;
	uint64_t chunk;

	status = tool_size(call, "chunk", &chunk);
	if (status != STATUS_DONE)
		return status;
	if (option(call, "chunk") &&
	    (chunk < GIT_CHUNK_MIN || chunk > GIT_CHUNK_MAX))
		return tool_usage(call, "--chunk: 16K to 1M");
	if (git_disk_new(ret, size, (uint32_t)chunk, reason) < 0)
		return tool_usage(call, "%s", reason);
	return STATUS_DONE;
}

enum status tool_new_ref(const struct invocation *call, struct tool_repo *repo,
			 const char *disk, char ret[REF_NAME_MAX])
{
	uint8_t there[OID_BYTES];
	char reason[WHY_MAX];

	if (refs_check_branch(disk, reason) < 0)
		return tool_usage(call, "%s", reason);
	(void)snprintf(ret, REF_NAME_MAX, REFS_HEADS "%s", disk);
	if (refs_read(repo->git, ret, there, reason) != -ENOENT)
		return tool_fail(call, -EEXIST, disk, "it is there already");
	return STATUS_DONE;
}

void tool_message(const struct invocation *call, const char *otherwise,
		  struct commit_facts *ret)
{
	const char *text = option(call, "message");

	(void)snprintf(ret->message, sizeof(ret->message), "%s",
		       text && *text ? text : otherwise);
}

enum status verb_create(const struct invocation *call)
{
	struct commit_facts facts = { .has_parent = false };
	const char *name = call->args[1];
	char ref[REF_NAME_MAX];
	char reason[WHY_MAX];
	struct tool_repo repo;
	struct git_disk disk;
	enum status status;
	uint64_t size;
	int r;

	if (!option(call, "size"))
		return tool_usage(call, "--size is missing");
	status = tool_size(call, "size", &size);
	if (status == STATUS_DONE)
		status = tool_new_disk(call, size, &disk);
	if (status == STATUS_DONE)
		status = tool_open(call, call->args[0], &repo);
	if (status != STATUS_DONE)
		return status;
	status = tool_new_ref(call, &repo, name, ref);
	if (status == STATUS_DONE) {
		tool_message(call, "a new disk", &facts);
		r = make_disk(&repo, &disk, &facts, ref, reason);
		status = r < 0 ? tool_fail(call, r, name, reason) :
				 tool_committed(call, &facts, ref);
	}
	tool_close(&repo);
	return status;
}
