/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git: becomes xendisk-git, which has the verbs, and libgit2.
 */
#include "config.h"

#include <string.h>

#include "command/command.h"

#ifdef WITH_GIT

/* words: NULL at its end is ours to write, and its first element. */
static enum status become(const char **words)
{
	cleanup_free char *path = find_program("xendisk-git", PKGLIBEXECDIR);

	if (!path)
		return fail(STATUS_FAILED, "git: no memory");
	words[0] = "xendisk-git";
	(void)execv(path, (char *const *)(uintptr_t)words);
	return fail(STATUS_FAILED, "git: %s: %s", path, strerror(errno));
}

/* Arguments from one on, behind a word of our own, or none. */
static enum status pass(const struct invocation *call, int from,
			const char *word)
{
	cleanup_free const char **words =
		calloc((size_t)call->nr_args + 4, sizeof(*words));
	int n = 1;

	if (!words)
		return fail(STATUS_FAILED, "git: no memory");
	if (call->json)
		words[n++] = "--json";
	if (word)
		words[n++] = word;
	if (word)
		words[n++] = "--"; /* what is typed is nobody's option */
	for (int i = from; i < call->nr_args; i++)
		words[n++] = call->args[i];
	return become(words);
}

enum status verb_git(const struct invocation *call)
{
	return pass(call, 0, NULL);
}

enum status complete_git(const struct invocation *call)
{
	int from = 0;

	while (from < call->nr_args && strcmp(call->args[from], "git") != 0)
		from++;
	return pass(call, from + 1, "complete");
}

#else

enum status verb_git(const struct invocation *call)
{
	(void)call;
	return fail(STATUS_FAILED, "git: this xendisk was built without git");
}

enum status complete_git(const struct invocation *call)
{
	(void)call;
	return STATUS_DONE;
}

#endif
