/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Committers that a worker can misuse, for fuzz-committer to find. */
#include "config.h"

#include "fuzz.h"

#include <unistd.h>

#include "../../backends/git/commit-place.h"
#include "../../backends/git/committer-private.h"

enum { OTHER_BRANCH, OTHER_QUESTION, LEFT_OPEN, NO_SENTENCE };

const char *const fuzz_faults[] = {
	[OTHER_BRANCH] = "a commit on another branch is noticed",
	[OTHER_QUESTION] = "an answer to no question is noticed",
	[LEFT_OPEN] = "a descriptor that is left over is noticed",
	[NO_SENTENCE] = "a refusal without a sentence is noticed",
	NULL,
};

int __real_commit_place(struct git_repository *repo,
			const struct commit_place *place,
			char ret_ref[REF_NAME_MAX], bool *ret_diverged,
			char *ret_why);
int __wrap_commit_place(struct git_repository *repo,
			const struct commit_place *place,
			char ret_ref[REF_NAME_MAX], bool *ret_diverged,
			char *ret_why);
int __real_cm_send(int sock, struct cm_header *msg, enum cm_type type,
		   const int *fds, unsigned int nr_fds, bool wait);
int __wrap_cm_send(int sock, struct cm_header *msg, enum cm_type type,
		   const int *fds, unsigned int nr_fds, bool wait);
void __real_commit_ask(struct committer *c, const union cm_any *msg,
		       const int *fds);
void __wrap_commit_ask(struct committer *c, const union cm_any *msg,
		       const int *fds);

int __wrap_commit_place(struct git_repository *repo,
			const struct commit_place *place,
			char ret_ref[REF_NAME_MAX], bool *ret_diverged,
			char *ret_why)
{
	struct commit_place changed = *place;

	if (fuzz_fault == OTHER_BRANCH)
		changed.branch = "other";
	return __real_commit_place(repo, &changed, ret_ref, ret_diverged,
				   ret_why);
}

int __wrap_cm_send(int sock, struct cm_header *msg, enum cm_type type,
		   const int *fds, unsigned int nr_fds, bool wait)
{
	if (fuzz_fault == OTHER_QUESTION && type >= CM_OPENED)
		msg->seq += 1000;
	if (fuzz_fault == NO_SENTENCE && type == CM_FAILED)
		((struct cm_failed *)msg)->text[0] = '\0';
	return __real_cm_send(sock, msg, type, fds, nr_fds, wait);
}

void __wrap_commit_ask(struct committer *c, const union cm_any *msg,
		       const int *fds)
{
	if (fuzz_fault == LEFT_OPEN && msg->h.type == CM_COMMIT)
		(void)dup(fds[0]);
	__real_commit_ask(c, msg, fds);
}
