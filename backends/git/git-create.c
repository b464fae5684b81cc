/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* git-create.c - repositories that are new: init. */
#include "config.h"

#include <git2.h>
#include <string.h>
#include <sys/stat.h>

#include "git-tool.h"
#include "repo-settings.h"
#include "repo.h"

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
