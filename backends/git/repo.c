/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo.c - no hook, filter or attribute is ever looked at.  libgit2 checks that
 * the folder belongs to who runs us, or is one of safe.directory.
 */
#include "config.h"

#include "repo.h"

#include <fcntl.h>
#include <git2.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/util.h"
#include "repo-config.h"
#include "repo-files.h"

#define FREE_AS(name, type)                         \
	static inline void cleanup_##name(type **p) \
	{                                           \
		name##_free(*p);                    \
	}
FREE_AS(git_object, git_object)
FREE_AS(git_tree_entry, git_tree_entry)
#define CLEANUP(name) __attribute__((cleanup(cleanup_##name)))

int repo_why(char *ret_why, int err, const char *what, const char *hint)
{
	const git_error *e = git_error_last();

	(void)why(ret_why, err, "%s: %.200s%s", what,
		  e && e->message ? e->message : "it fails", hint);
	for (char *p = ret_why; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return err;
}

static bool is_of_another(int dir)
{
	struct stat st;

	return fstat(dir, &st) == 0 && st.st_uid != geteuid() &&
	       faccessat(dir, "HEAD", F_OK, 0) == 0;
}

static int open_repository(git_repository **ret, int dir, char *ret_why)
{
	char path[40];
	int r;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", dir);
	r = git_repository_open_ext(
		ret, path,
		GIT_REPOSITORY_OPEN_NO_SEARCH | GIT_REPOSITORY_OPEN_BARE, NULL);
	/* libgit2 1.5 says it cannot find the setting, where there is none. */
	if (r == GIT_EOWNER || (r == GIT_ENOTFOUND && is_of_another(dir)))
		return why(ret_why, -EPERM,
			   "it belongs to another user, which git config "
			   "--system --add safe.directory PATH permits");
	if (r == GIT_ENOTFOUND)
		return why(ret_why, -ENOENT,
			   "it is no git repository; if it has files checked "
			   "out, name its folder .git");
	if (r < 0)
		return repo_why(ret_why, -EINVAL, "the repository", "");
	return 0;
}

int repo_open(git_repository **ret, int dir, char *ret_why)
{
	int r = repo_check_files(dir, ret_why);

	if (r < 0)
		return r;
	if (git_libgit2_init() < 0)
		return repo_why(ret_why, -EIO, "libgit2", "");
	r = repo_check_config(dir, ret_why);
	if (r == 0)
		r = open_repository(ret, dir, ret_why);
	if (r < 0)
		(void)git_libgit2_shutdown();
	return r;
}

void repo_close(git_repository *repo)
{
	if (!repo)
		return;
	git_repository_free(repo);
	(void)git_libgit2_shutdown();
}

/* "R:path" in two; slashes around the path do not count. */
static int split(const char *text, char *ret_rev, size_t size, char *ret_path,
		 size_t path_size)
{
	const char *colon = strchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : strlen(text);
	const char *path = colon ? colon + 1 : "";
	size_t length;

	path += strspn(path, "/");
	length = strlen(path);
	while (length > 0 && path[length - 1] == '/')
		length--;
	if (n == 0 || n >= size || length >= path_size)
		return -EINVAL;
	memcpy(ret_rev, text, n);
	ret_rev[n] = '\0';
	memcpy(ret_path, path, length);
	ret_path[length] = '\0';
	return 0;
}

static int find_folder(const git_tree *root, struct revision *ret,
		       char *ret_why)
{
	CLEANUP(git_tree_entry) git_tree_entry *entry = NULL;

	memcpy(ret->tree, git_tree_id(root)->id, OID_BYTES);
	if (!*ret->path)
		return 0;
	if (git_tree_entry_bypath(&entry, root, ret->path) < 0)
		return repo_why(ret_why, -ENOENT, "the path", "");
	if (git_tree_entry_type(entry) != GIT_OBJECT_TREE)
		return why(ret_why, -ENOTDIR, "%.200s is no folder", ret->path);
	memcpy(ret->tree, git_tree_entry_id(entry)->id, OID_BYTES);
	return 0;
}

static int look_up(git_repository *repo, const char *name, struct revision *ret,
		   char *ret_why)
{
	CLEANUP(git_object) git_object *object = NULL;
	CLEANUP(git_object) git_object *commit = NULL;
	CLEANUP(git_object) git_object *tree = NULL;

	if (git_revparse_single(&object, repo, name) < 0)
		return repo_why(ret_why, -ENOENT, "rev", "");
	if (git_object_peel(&commit, object, GIT_OBJECT_COMMIT) == 0) {
		git_commit *c = (git_commit *)commit;

		ret->has_commit = true;
		ret->time = git_commit_time(c);
	}
	if (git_object_peel(&tree, commit ? commit : object, GIT_OBJECT_TREE) <
	    0)
		return repo_why(ret_why, -EINVAL, "rev", "");
	memcpy(ret->id, git_object_id(commit ? commit : tree)->id, OID_BYTES);
	return find_folder((git_tree *)tree, ret, ret_why);
}

int repo_look_up(struct git_repository *repo, const char *rev,
		 struct revision *ret, char *ret_why)
{
	struct revision found = { .has_commit = false };
	char name[256];
	int r;

	if (split(rev, name, sizeof(name), found.path, sizeof(found.path)) < 0)
		return why(ret_why, -EINVAL,
			   "rev is a revision, maybe with \":\" and a path, "
			   "of at most 255 bytes each");
	r = look_up(repo, name, &found, ret_why);
	if (r == 0)
		*ret = found;
	return r;
}

int repo_resolve(int dir, const char *rev, struct revision *ret, char *ret_why)
{
	char reason[WHY_MAX] = "";
	git_repository *repo;
	int r = repo_open(&repo, dir, ret_why);

	if (r < 0)
		return r;
	r = repo_look_up(repo, rev, ret, reason);
	repo_close(repo);
	if (r < 0)
		(void)why(ret_why, r, "%.200s: %s", rev, reason);
	return r;
}

char *revision_about(const struct revision *rev)
{
	char id[OID_HEX + 1], date[40] = "";
	time_t time = (time_t)rev->time;
	struct tm tm;

	oid_hex(rev->id, id);
	if (rev->has_commit && gmtime_r(&time, &tm))
		(void)strftime(date, sizeof(date), "date %Y-%m-%dT%H:%M:%SZ\n",
			       &tm);
	return xasprintf("%s %s\n%spath /%s\n",
			 rev->has_commit ? "commit" : "tree", id, date,
			 rev->path);
}

int repo_setting(int dir, const char *name, char **ret, char *ret_why)
{
	git_repository *repo;
	git_config *all = NULL, *own = NULL;
	git_config_entry *entry = NULL;
	int r = repo_open(&repo, dir, ret_why);

	if (r < 0)
		return r;
	*ret = NULL;
	if (git_repository_config(&all, repo) < 0)
		r = repo_why(ret_why, -EIO, "its configuration", "");
	/* No level, no setting. */
	if (r == 0 &&
	    git_config_open_level(&own, all, GIT_CONFIG_LEVEL_LOCAL) == 0 &&
	    git_config_get_entry(&entry, own, name) == 0 && entry->value) {
		*ret = strdup(entry->value);
		r = *ret ? 0 : why(ret_why, -ENOMEM, "%s: no memory", name);
	}
	git_config_entry_free(entry);
	git_config_free(own);
	git_config_free(all);
	repo_close(repo);
	return r;
}
