/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * refs.c - references are locked, compared and written as git does it, so that
 * git and we never overwrite each other's.  For the locks see ref-lock.c.
 */
#include "config.h"

#include "refs.h"

#include <git2.h>
#include <git2/sys/repository.h>
#include <string.h>

#include "common/util.h"
#include "packed-refs.h"
#include "ref-lock.h"
#include "repo-files.h"
#include "repo.h"

#define FREE_AS(name)                               \
	static inline void cleanup_##name(name **p) \
	{                                           \
		name##_free(*p);                    \
	}
FREE_AS(git_commit)
FREE_AS(git_object)
FREE_AS(git_reference)
FREE_AS(git_reference_iterator)
FREE_AS(git_signature)
FREE_AS(git_transaction)
#define CLEANUP(name) __attribute__((cleanup(cleanup_##name)))

int refs_open(git_repository **ret, int dir, char *ret_why)
{
	int r = repo_open(ret, dir, ret_why);

	if (r < 0)
		return r;
	/* Ids of what was read are not checked again, as in odb.h; what we write
	 * is durable. */
	(void)git_libgit2_opts(GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, 0);
	(void)git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 1);
	return 0;
}

int refs_keep_settings(git_repository *repo, char *ret_why)
{
	git_config *now = NULL;
	int r = git_repository_config_snapshot(&now, repo);

	if (r == 0)
		r = git_repository_set_config(repo, now);
	if (r < 0)
		r = repo_why(ret_why, -EIO, "its configuration", "");
	git_config_free(now);
	return r;
}

void refs_close(git_repository *repo)
{
	repo_close(repo);
}

/* --- References ------------------------------------------------------------------- */

int refs_check_branch(const char *branch, char *ret_why)
{
	char name[REF_NAME_MAX];
	int valid = 0;
	int r;

	if (!*branch || strlen(branch) >= BRANCH_MAX)
		return why(ret_why, -EINVAL,
			   "the name of a disk has 1 to %u bytes",
			   BRANCH_MAX - 1);
	(void)snprintf(name, sizeof(name), REFS_HEADS "%s", branch);
	(void)git_libgit2_init(); /* maybe nothing is open yet */
	r = git_reference_name_is_valid(&valid, name);
	(void)git_libgit2_shutdown();
	if (*branch == '-' || strcmp(branch, "HEAD") == 0 || r < 0 || !valid)
		return why(ret_why, -EINVAL,
			   "\"%s\" cannot be the name of a branch", branch);
	return 0;
}

static int read_ref(git_repository *repo, const char *name,
		    uint8_t ret[OID_BYTES], char *ret_why)
{
	CLEANUP(git_reference) git_reference *ref = NULL;
	int r = git_reference_lookup(&ref, repo, name);

	if (r == GIT_ENOTFOUND)
		return why(ret_why, -ENOENT, "%s: there is no such reference",
			   name);
	if (r < 0)
		return repo_why(ret_why, -EBADMSG, name, "");
	if (git_reference_type(ref) != GIT_REFERENCE_DIRECT)
		return why(ret_why, -EBADMSG,
			   "%s: it only refers to another one", name);
	memcpy(ret, git_reference_target(ref)->id, OID_BYTES);
	return 0;
}

/* The repository was looked at when it was opened, which may be long ago. */
static int check_refs(git_repository *repo, const char *name, char *ret_why)
{
	return repo_check_refs(git_repository_commondir(repo), name, ret_why);
}

int refs_read(git_repository *repo, const char *name, uint8_t ret[OID_BYTES],
	      char *ret_why)
{
	int r = check_refs(repo, name, ret_why);

	return r < 0 ? r : read_ref(repo, name, ret, ret_why);
}

/* Is it what the caller believes? */
static int check_old(git_repository *repo, const char *name, const uint8_t *old,
		     char *ret_why)
{
	uint8_t now[OID_BYTES];
	int r = read_ref(repo, name, now, ret_why);

	if (r == -ENOENT && !old)
		return 0;
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && old && memcmp(now, old, OID_BYTES) == 0)
		return 0;
	return why(ret_why, -ESTALE, "%s: %s", name,
		   !old	 ? "it is there already" :
		   r < 0 ? "it is not there any more" :
			   "somebody else has moved it");
}

static int set_target(git_repository *repo, git_transaction *tx,
		      const char *name, const uint8_t *new_id, const char *log)
{
	CLEANUP(git_signature) git_signature *who = NULL;
	git_oid id;

	memcpy(id.id, new_id, OID_BYTES);
	if (git_signature_default(&who, repo) < 0 &&
	    git_signature_now(&who, "xendiskd", "xendiskd@localhost") < 0)
		return -1;
	return git_transaction_set_target(tx, name, &id, who, log);
}

/* packed-refs has it, and we could not lock that: see packed_refs_forget(). */
static int commit_ref(git_transaction *tx, const char *name, char *ret_why)
{
	int r = git_transaction_commit(tx);

	return r == 0 ? 0 :
			repo_why(ret_why, r == GIT_ELOCKED ? -EBUSY : -EIO,
				 name, "");
}

/* It is locked, and what the caller believes. */
static int carry_out(git_repository *repo, git_transaction *tx,
		     const char *name, const uint8_t *new_id, const char *log,
		     char *ret_why)
{
	struct packed_refs packed = PACKED_REFS_NONE;
	int r = new_id ? 0 : packed_refs_forget(&packed, repo, name, ret_why);

	if (r == 0 && (new_id ? set_target(repo, tx, name, new_id, log) :
				git_transaction_remove(tx, name)) < 0)
		r = repo_why(ret_why, -EIO, name, "");
	if (r == 0)
		r = commit_ref(tx, name, ret_why);
	packed_refs_let_go(&packed);
	return r;
}

static int update(git_repository *repo, const char *name, const uint8_t *old,
		  const uint8_t *new_id, const char *log, char *ret_why)
{
	CLEANUP(git_transaction) git_transaction *tx = NULL;
	int r = check_refs(repo, name, ret_why);

	if (r < 0)
		return r;
	if (git_transaction_new(&tx, repo) < 0)
		return repo_why(ret_why, -ENOMEM, name, "");
	r = ref_lock(tx, repo, name, ret_why);
	if (r == 0)
		r = check_old(repo, name, old, ret_why);
	return r < 0 ? r : carry_out(repo, tx, name, new_id, log, ret_why);
}

int refs_update(git_repository *repo, const char *name, const uint8_t *old,
		const uint8_t *new_id, const char *log, char *ret_why)
{
	int r = update(repo, name, old, new_id, log, ret_why);

	ref_lock_over();
	return r;
}

int refs_each(git_repository *repo, const char *prefix,
	      int (*fn)(void *ctx, const char *name,
			const uint8_t oid[OID_BYTES]),
	      void *ctx, char *ret_why)
{
	CLEANUP(git_reference_iterator) git_reference_iterator *it = NULL;
	cleanup_free char *glob = xasprintf("%s*", prefix);
	git_reference *ref;
	int next, r = check_refs(repo, prefix, ret_why);

	if (r < 0)
		return r;
	if (!glob)
		return why(ret_why, -ENOMEM, "%s: no memory", prefix);
	if (git_reference_iterator_glob_new(&it, repo, glob) < 0)
		return repo_why(ret_why, -EIO, prefix, "");
	while (r == 0 && (next = git_reference_next(&ref, it)) == 0) {
		const git_oid *id = git_reference_target(ref);
		const char *name = git_reference_name(ref);

		if (strlen(name) >= REF_NAME_MAX)
			r = why(ret_why, -ENAMETOOLONG,
				"%.100s...: the name is too long", name);
		else if (id)
			r = fn(ctx, name, id->id);
		git_reference_free(ref);
	}
	if (r == 0 && next != GIT_ITEROVER)
		r = repo_why(ret_why, -EBADMSG, prefix, "");
	return r;
}

/* --- Commits ----------------------------------------------------------------------- */

static void take_commit(const git_commit *commit, struct commit_facts *ret)
{
	const git_signature *who = git_commit_author(commit);

	memset(ret, 0, sizeof(*ret));
	memcpy(ret->id, git_commit_id(commit)->id, OID_BYTES);
	memcpy(ret->tree, git_commit_tree_id(commit)->id, OID_BYTES);
	ret->has_parent = git_commit_parentcount(commit) > 0;
	if (ret->has_parent)
		memcpy(ret->parent, git_commit_parent_id(commit, 0)->id,
		       OID_BYTES);
	ret->time = git_commit_time(commit);
	(void)snprintf(ret->author, sizeof(ret->author), "%s <%s>", who->name,
		       who->email);
	commit_read_message(ret, git_commit_message(commit));
}

int refs_commit(git_repository *repo, const uint8_t id[OID_BYTES],
		struct commit_facts *ret, char *ret_why)
{
	CLEANUP(git_commit) git_commit *commit = NULL;
	char text[sizeof("commit ") + OID_HEX] = "commit ";
	git_oid oid;
	int r;

	oid_hex(id, text + strlen(text));
	memcpy(oid.id, id, OID_BYTES);
	r = git_commit_lookup(&commit, repo, &oid);
	if (r < 0)
		return repo_why(ret_why,
				r == GIT_ENOTFOUND ? -ENOENT : -EBADMSG, text,
				"");
	take_commit(commit, ret);
	return 0;
}

/* A disk is a branch, so that is what a name means first; git takes a tag. */
static int find_revision(git_object **ret, git_repository *repo,
			 const char *rev)
{
	char name[REF_NAME_MAX];
	size_t n = strcspn(rev, "~^@:");

	if (n > 0 && strlen(rev) < REF_NAME_MAX - sizeof(REFS_HEADS)) {
		(void)snprintf(name, sizeof(name), REFS_HEADS "%s", rev);
		if (git_revparse_single(ret, repo, name) == 0)
			return 0;
	}
	return git_revparse_single(ret, repo, rev);
}

int refs_resolve(git_repository *repo, const char *rev,
		 struct commit_facts *ret, char *ret_why)
{
	CLEANUP(git_object) git_object *object = NULL;
	CLEANUP(git_object) git_object *commit = NULL;
	char what[100];
	int r;

	(void)snprintf(what, sizeof(what), "%.80s", rev);
	r = find_revision(&object, repo, rev);
	if (r == GIT_ENOTFOUND)
		return why(ret_why, -ENOENT, "%s: there is no such revision",
			   what);
	if (r < 0)
		return repo_why(ret_why, -ENOENT, what, "");
	if (git_object_peel(&commit, object, GIT_OBJECT_COMMIT) < 0)
		return why(ret_why, -EINVAL, "%s: that is no commit", what);
	take_commit((git_commit *)commit, ret);
	return 0;
}

int refs_history(git_repository *repo, const uint8_t from[OID_BYTES],
		 int (*fn)(void *ctx, const struct commit_facts *commit),
		 void *ctx, char *ret_why)
{
	struct commit_facts commit;
	uint8_t next[OID_BYTES];
	int r;

	memcpy(next, from, OID_BYTES);
	for (unsigned int i = 0; i < HISTORY_MAX; i++) {
		r = refs_commit(repo, next, &commit, ret_why);
		/* git clone --depth leaves out what was before. */
		if (r == -ENOENT && i > 0 &&
		    git_repository_is_shallow(repo) == 1)
			return 0;
		if (r == 0)
			r = fn(ctx, &commit);
		if (r != 0 || !commit.has_parent)
			return r;
		memcpy(next, commit.parent, OID_BYTES);
	}
	return why(ret_why, -ELOOP, "a history of more than %u commits",
		   HISTORY_MAX);
}

static int is_id(void *ctx, const struct commit_facts *commit)
{
	return memcmp(commit->id, ctx, OID_BYTES) == 0;
}

bool refs_comes_after(git_repository *repo, const uint8_t later[OID_BYTES],
		      const uint8_t earlier[OID_BYTES])
{
	char ignored[WHY_MAX];
	uint8_t wanted[OID_BYTES];
	git_oid a, b;

	/* Of a shallow clone libgit2 wants what is not there, and forgets to free what it
	 * has when it fails. */
	if (git_repository_is_shallow(repo) == 1) {
		memcpy(wanted, earlier, OID_BYTES);
		return memcmp(later, earlier, OID_BYTES) != 0 &&
		       refs_history(repo, later, is_id, wanted, ignored) == 1;
	}
	memcpy(a.id, later, OID_BYTES);
	memcpy(b.id, earlier, OID_BYTES);
	return git_graph_descendant_of(repo, &a, &b) == 1;
}

void refs_author(git_repository *repo, char ret[COMMIT_LINE_MAX])
{
	CLEANUP(git_signature) git_signature *who = NULL;
	char text[COMMIT_LINE_MAX];
	char host[65] = "localhost";

	if (git_signature_default(&who, repo) == 0 &&
	    snprintf(text, sizeof(text), "%s <%s>", who->name, who->email) <
		    (int)sizeof(text)) {
		memcpy(ret, text, sizeof(text));
		return;
	}
	(void)gethostname(host, sizeof(host) - 1);
	(void)snprintf(ret, COMMIT_LINE_MAX, "xendiskd <xendiskd@%s>", host);
}
