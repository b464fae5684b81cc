/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* git-fork.c - a disk that begins as another one is, or was: a branch. */
#include "config.h"

#include <string.h>

#include "git-tool.h"

static enum status fork_disk(const struct invocation *call,
			     struct tool_repo *repo)
{
	const char *name = call->args[2];
	struct chunk_map *map = NULL;
	struct commit_facts commit;
	char ref[REF_NAME_MAX];
	char reason[WHY_MAX];
	enum status status;
	int r;

	status = tool_new_ref(call, repo, name, ref);
	if (status == STATUS_DONE)
		status =
			tool_revision(call, repo, call->args[1], &commit, &map);
	chunk_map_free(map); /* only whether it is a disk */
	if (status != STATUS_DONE)
		return status;
	r = refs_update(repo->git, ref, NULL, commit.id, "xendisk git fork",
			reason);
	return r < 0 ? tool_fail(call, r, name, reason) :
		       tool_committed(call, &commit, ref);
}

enum status verb_fork(const struct invocation *call)
{
	struct tool_repo repo;
	enum status status = tool_open(call, call->args[0], &repo);

	if (status != STATUS_DONE)
		return status;
	status = fork_disk(call, &repo);
	tool_close(&repo);
	return status;
}
