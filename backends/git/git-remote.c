/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-remote.c - xendisk git push, pull: a disk on another host.
 *
 * Theory of operation
 *
 * Objects are moved by the `git` of the system, which knows the keys, proxies and
 * credentials of who runs it: the administrator's, or those of the repository's owner
 * when root does it for him (git-run.c).  Who pushes has a lease (lease.h): branch and
 * lease go to the server in one atomic push, in which the lease has to be the one that
 * was looked at before (--force-with-lease), and the branch only goes forward.  So of
 * two hosts that push at the same moment one is refused, whatever their clocks say;
 * the time in the lease only says when it is good manners to take it over.
 *
 * A lease keeps snapshots of two hosts from being pushed on top of each other.  It
 * does not keep two guests from writing to one disk.
 *
 * What is pulled goes to a reference of its own first.  When it is a disk, and goes
 * on from where the branch is, the branch follows.
 */
#include "config.h"

#include <fcntl.h>
#include <git2.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "git-run.h"
#include "git-tool.h"
#include "lease.h"

#define REFS_INCOMING "refs/xendisk/incoming/"
#define HOLDER_KEY    "xendisk.holder"
#define LEASE_TIME    3600u /* s, when nothing is said */
#define ARGS_MAX      GIT_RUN_ARGS
#define LS_LINE	      (REF_NAME_MAX + OID_HEX + 2)

struct remote {
	const struct invocation *call;
	struct tool_repo *repo;
	struct git_run run;
	const char *name; /* of the remote: git's name, or a URL */
	const char *disk;
	char branch[REF_NAME_MAX]; /* refs/heads/DISK */
	char lease_ref[REF_NAME_MAX];
	char old[OID_HEX + 1]; /* of the lease there, or "" */
	struct lease lease; /* ... and what it says */
	char why[WHY_MAX];
};

/* --- Running git ------------------------------------------------------------------ */

/* out: where its stdout goes; -1: to our stderr, for it is for people. */
static int run_git(struct remote *remote, const char *const *args, int out)
{
	return git_run(&remote->run, args, out, remote->why);
}

/* The same, with what it writes, which has fewer than size bytes. */
static int read_git(struct remote *remote, const char *const *args, char *ret,
		    size_t size)
{
	cleanup_close int out = memfd_create("stdout", MFD_CLOEXEC);
	off_t n;
	int r = out < 0 ? -errno : run_git(remote, args, out);

	if (out < 0)
		return why(remote->why, r, "git: %s", strerror(-r));
	if (r < 0)
		return r;
	n = lseek(out, 0, SEEK_END);
	if (n < 0 || (size_t)n >= size)
		return why(remote->why, -EFBIG, "git: it says too much");
	ret[n] = '\0';
	return pread_all(out, ret, (size_t)n, 0);
}

/* --- The lease -------------------------------------------------------------------- */

static int new_holder(struct remote *remote, git_config *own,
		      char ret[LEASE_HOLDER])
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return why(remote->why, -EIO, "no random numbers");
	(void)snprintf(ret, LEASE_HOLDER, "%016" PRIx64, random);
	return git_config_set_string(own, HOLDER_KEY, ret) < 0 ?
		       why(remote->why, -EIO, "config: %s cannot be set",
			   HOLDER_KEY) :
		       0;
}

/* It becomes a line of the lease. */
static int take_holder(struct remote *remote, const char *value,
		       char ret[LEASE_HOLDER])
{
	if (!lease_is_holder(value))
		return why(remote->why, -EBADMSG,
			   "%.200s/config: %s is \"%.40s\", not 16 digits of "
			   "0-9 and a-f; without it a new one is made",
			   remote->call->args[0], HOLDER_KEY, value);
	memcpy(ret, value, LEASE_HOLDER);
	return 0;
}

/* Of this repository, not of a user or a machine; the same for ever. */
static int own_holder(struct remote *remote, char ret[LEASE_HOLDER])
{
	git_config *all = NULL, *own = NULL;
	git_buf value = { 0 };
	int r;

	if (git_repository_config(&all, remote->repo->git) < 0 ||
	    git_config_open_level(&own, all, GIT_CONFIG_LEVEL_LOCAL) < 0) {
		git_config_free(all);
		return why(remote->why, -EIO, "the repository's config");
	}
	r = git_config_get_string_buf(&value, own, HOLDER_KEY);
	if (r == 0)
		r = take_holder(remote, value.ptr, ret);
	else if (r == GIT_ENOTFOUND)
		r = new_holder(remote, own, ret);
	else
		r = why(remote->why, -EIO, "config: %s", HOLDER_KEY);
	git_buf_dispose(&value);
	git_config_free(own);
	git_config_free(all);
	return r;
}

/* "OID<tab>REF\n", or nothing: there is none. */
static int look_at_lease(struct remote *remote)
{
	const char *const args[] = { "ls-remote", remote->name,
				     remote->lease_ref, NULL };
	char line[LS_LINE + 1];
	int r = read_git(remote, args, line, sizeof(line));

	if (r < 0)
		return r;
	remote->old[0] = '\0';
	if (!*line)
		return 0;
	if (strspn(line, "0123456789abcdef") != OID_HEX ||
	    line[OID_HEX] != '\t')
		return why(remote->why, -EBADMSG,
			   "what it says of the lease is none");
	memcpy(remote->old, line, OID_HEX);
	remote->old[OID_HEX] = '\0';
	return 1;
}

static int read_lease(struct remote *remote)
{
	const char *const fetch[] = { "fetch",	    "-q",
				      "--no-tags",  "--no-write-fetch-head",
				      remote->name, remote->lease_ref,
				      NULL };
	const char *const show[] = { "cat-file", "blob", remote->old, NULL };
	char text[LEASE_TEXT];
	int r = run_git(remote, fetch, -1);

	if (r == 0)
		r = read_git(remote, show, text, sizeof(text));
	if (r < 0)
		return r;
	if (lease_parse(text, strlen(text), &remote->lease) < 0)
		return why(remote->why, -EBADMSG, "%s is no lease",
			   remote->lease_ref);
	return 0;
}

/* The lease that is there: ours, given up, too old; or somebody else's. */
static int check_lease(struct remote *remote, const char *holder)
{
	time_t now = time(NULL);
	char date[32] = "?";
	time_t expires;
	struct tm tm;
	int r = look_at_lease(remote);

	if (r <= 0)
		return r;
	r = read_lease(remote);
	if (r < 0)
		return r;
	expires = (time_t)remote->lease.expires;
	if (strcmp(remote->lease.holder, holder) == 0 || expires <= now ||
	    option(remote->call, "take"))
		return 0;
	if (gmtime_r(&expires, &tm))
		(void)strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S UTC",
			       &tm);
	return why(remote->why, -EBUSY,
		   "%s has the lease until %s; --take takes it all the same",
		   remote->lease.host, date);
}

/* Ours; its id, as git names it.  A blob, loose: it is small. */
static int make_lease(struct remote *remote, const char *holder,
		      uint64_t seconds, char ret[OID_HEX + 1])
{
	struct lease lease = {
		.sequence = remote->lease.sequence + 1,
		.expires = seconds ? (uint64_t)time(NULL) + seconds : 0,
	};
	char text[LEASE_TEXT];
	git_oid id;
	size_t n;

	memcpy(lease.holder, holder, LEASE_HOLDER);
	pin_host(lease.host);
	n = lease_print(&lease, text);
	if (git_blob_create_from_buffer(&id, remote->repo->git, text, n) < 0)
		return why(remote->why, -EIO, "the lease cannot be written");
	(void)git_oid_tostr(ret, OID_HEX + 1, &id);
	return 0;
}

/* --- push ------------------------------------------------------------------------- */

static int lease_seconds(struct remote *remote, uint64_t *ret)
{
	const char *text = option(remote->call, "lease");
	uint64_t ns;

	*ret = LEASE_TIME;
	if (option(remote->call, "release")) {
		*ret = 0;
		return 0;
	}
	if (!text)
		return 0;
	if (parse_time(text, &ns) < 0 || ns < 1000000000)
		return why(remote->why, -EINVAL,
			   "--lease: \"%.40s\": a number with s, m or h is "
			   "meant, at least a second",
			   text);
	*ret = ns / 1000000000;
	return 0;
}

/* "!<tab>FROM:TO<tab>[rejected] (stale info)": a reference that was not taken, and why;
 * line is cut in two.  What is only in the company of another has no reason of its
 * own. */
static const char *find_refusal(char *line, const char **ret_ref)
{
	char *to = strncmp(line, "!\t", 2) == 0 ? strchr(line, ':') : NULL;
	char *reason = to ? strchr(to, '\t') : NULL;

	if (!reason || strstr(reason, "(atomic push fail"))
		return NULL;
	*reason++ = '\0';
	reason[strcspn(reason, "\n")] = '\0';
	*ret_ref = to + 1;
	return reason;
}

/* As git has it, on this side: somebody has been there since it was looked at. */
static bool is_race(const char *reason)
{
	static const char *const races[] = { "(stale info)",
					     "(non-fast-forward)",
					     "(fetch first)" };

	for (size_t i = 0; i < ARRAY_SIZE(races); i++)
		if (strstr(reason, races[i]))
			return true;
	return false;
}

/* On the other side it has no name, but then somebody else has the lease. */
static bool lease_has_moved(struct remote *remote)
{
	char before[OID_HEX + 1], reason[WHY_MAX];
	int r;

	memcpy(before, remote->old, sizeof(before));
	memcpy(reason, remote->why, sizeof(reason));
	r = look_at_lease(remote);
	memcpy(remote->why, reason, sizeof(reason));
	return r >= 0 && strcmp(before, remote->old) != 0;
}

/* What git has written with --porcelain.  Without a reference that was refused it has
 * not come so far, and has said why. */
static int judge_push(struct remote *remote, FILE *said)
{
	const char *ref = NULL, *reason = NULL;
	cleanup_free char *line = NULL;
	size_t room = 0;

	while (!reason && getline(&line, &room, said) > 0)
		reason = find_refusal(line, &ref);
	if (!reason)
		return -EREMOTEIO;
	if (is_race(reason))
		return why(remote->why, -ESTALE,
			   "it was refused: somebody else has pushed: %.200s "
			   "%.100s",
			   ref, reason);
	(void)why(remote->why, -EACCES, "it was refused: %.200s %.200s", ref,
		  reason);
	return lease_has_moved(remote) ?
		       why(remote->why, -ESTALE,
			   "it was refused: somebody else has pushed") :
		       -EACCES;
}

static int run_push(struct remote *remote, const char *const *args)
{
	cleanup_close int out = memfd_create("stdout", MFD_CLOEXEC);
	cleanup_file FILE *said = out < 0 ? NULL : fdopen(out, "r");
	int r;

	if (!said)
		return why(remote->why, -errno, "git: %s", strerror(errno));
	(void)TAKE_FD(out);
	r = run_git(remote, args, fileno(said));
	rewind(said);
	return r == -EREMOTEIO ? judge_push(remote, said) : r;
}

/* refspec: "refs/heads/web:refs/heads/web", or NULL: the lease alone. */
static int push_with(struct remote *remote, const char *lease,
		     const char *refspec)
{
	char expect[REF_NAME_MAX + OID_HEX + 32],
		to[REF_NAME_MAX + OID_HEX + 8];
	char intervals[2 * REF_NAME_MAX + 64];
	const char *args[ARGS_MAX] = {
		"-c",	    "pack.window=0", "push",
		"--atomic", "--porcelain",   "--no-follow-tags",
	};
	size_t n = 6;

	(void)snprintf(expect, sizeof(expect), "--force-with-lease=%s:%s",
		       remote->lease_ref, remote->old);
	/* No "+": that would overrule the lease. */
	(void)snprintf(to, sizeof(to), "%s:%s", lease, remote->lease_ref);
	(void)snprintf(intervals, sizeof(intervals),
		       "+" REFS_AUTO "%s/*:" REFS_AUTO "%s/*", remote->disk,
		       remote->disk);
	args[n++] = expect;
	args[n++] = refspec && remote->run.bar ? "--progress" : "-q";
	args[n++] = remote->name;
	args[n++] = to;
	if (refspec)
		args[n++] = refspec;
	if (refspec && option(remote->call, "auto"))
		args[n++] = intervals;
	return run_push(remote, args);
}

static int take_lease(struct remote *remote, const char *refspec,
		      uint64_t seconds)
{
	char holder[LEASE_HOLDER], lease[OID_HEX + 1];
	int r = own_holder(remote, holder);

	if (r == 0)
		r = check_lease(remote, holder);
	if (r == 0)
		r = make_lease(remote, holder, seconds, lease);
	return r < 0 ? r : push_with(remote, lease, refspec);
}

static int push(struct remote *remote, struct commit_facts *ret)
{
	char refspec[2 * REF_NAME_MAX];
	uint64_t seconds;
	int r = lease_seconds(remote, &seconds);

	(void)snprintf(refspec, sizeof(refspec), "%s:%s", remote->branch,
		       remote->branch);
	if (r == 0)
		r = refs_resolve(remote->repo->git, remote->branch, ret,
				 remote->why);
	return r < 0 ? r : take_lease(remote, refspec, seconds);
}

/* --- pull ------------------------------------------------------------------------- */

static int fetch(struct remote *remote, const char *incoming)
{
	char branch[2 * REF_NAME_MAX];
	const char *const args[] = {
		"-c",	      "fetch.fsckObjects=true",
		"-c",	      "fetch.unpackLimit=1",
		"fetch",      remote->run.bar ? "--progress" : "-q",
		"--no-tags",  "--no-write-fetch-head",
		remote->name, branch,
		NULL
	};

	(void)snprintf(branch, sizeof(branch), "+" REFS_HEADS "%s:%s",
		       remote->disk, incoming);
	return run_git(remote, args, -1);
}

/* Only forward. */
static int follow(struct remote *remote, const struct commit_facts *commit)
{
	const char *ref = remote->branch;
	uint8_t here[OID_BYTES];
	int r = refs_read(remote->repo->git, ref, here, remote->why);

	if (r == -ENOENT)
		return refs_update(remote->repo->git, ref, NULL, commit->id,
				   "xendisk git pull", remote->why);
	if (r < 0 || memcmp(here, commit->id, OID_BYTES) == 0)
		return r;
	if (refs_comes_after(remote->repo->git, commit->id, here))
		return refs_update(remote->repo->git, ref, here, commit->id,
				   "xendisk git pull", remote->why);
	if (refs_comes_after(remote->repo->git, here, commit->id))
		return why(remote->why, -ESTALE,
			   "there is nothing new: the disk here is ahead");
	return why(remote->why, -ESTALE,
		   "both have gone on since they were the same: rename one "
		   "of them");
}

static void forget(struct remote *remote, const char *incoming)
{
	char ignored[WHY_MAX];
	uint8_t is[OID_BYTES];

	if (refs_read(remote->repo->git, incoming, is, ignored) == 0)
		(void)refs_update(remote->repo->git, incoming, is, NULL,
				  "xendisk git pull", ignored);
}

static enum status pull(struct remote *remote, struct commit_facts *ret)
{
	char incoming[REF_NAME_MAX];
	struct chunk_map *map = NULL;
	enum status status;
	int r;

	(void)snprintf(incoming, sizeof(incoming), REFS_INCOMING "%s",
		       remote->disk);
	r = fetch(remote, incoming);
	if (r < 0)
		return tool_fail(remote->call, r, remote->name, remote->why);
	status = tool_revision(remote->call, remote->repo, incoming, ret, &map);
	chunk_map_free(map); /* only whether it is a disk */
	if (status == STATUS_DONE) {
		r = follow(remote, ret);
		if (r == 0 && option(remote->call, "take"))
			r = take_lease(remote, NULL, LEASE_TIME);
		if (r < 0)
			status = tool_fail(remote->call, r, remote->disk,
					   remote->why);
	}
	forget(remote, incoming);
	return status;
}

/* --- The verbs -------------------------------------------------------------------- */

static enum status begin(const struct invocation *call, struct remote *remote,
			 struct tool_repo *repo)
{
	enum status status;

	*remote = (struct remote){
		.call = call,
		.repo = repo,
		.name = call->args[1],
		.disk = call->args[2],
	};
	if (remote->name[0] == '-' || !*remote->name)
		return tool_usage(call, "\"%s\" is no remote", remote->name);
	if (refs_check_branch(remote->disk, remote->why) < 0)
		return tool_usage(call, "%s", remote->why);
	(void)snprintf(remote->branch, sizeof(remote->branch), REFS_HEADS "%s",
		       remote->disk);
	(void)snprintf(remote->lease_ref, sizeof(remote->lease_ref),
		       REFS_LEASE "%s", remote->disk);
	status = tool_open(call, call->args[0], repo);
	git_run_begin(&remote->run, call->args[0], repo->is_owner);
	return status;
}

enum status verb_push(const struct invocation *call)
{
	struct commit_facts commit;
	struct tool_repo repo;
	struct remote remote;
	enum status status = begin(call, &remote, &repo);
	int r;

	if (status != STATUS_DONE)
		return status;
	r = push(&remote, &commit);
	status = r < 0 ? tool_fail(call, r, remote.disk, remote.why) :
			 tool_committed(call, &commit, remote.branch);
	tool_close(&repo);
	return status;
}

enum status verb_pull(const struct invocation *call)
{
	struct commit_facts commit;
	struct tool_repo repo;
	struct remote remote;
	enum status status = begin(call, &remote, &repo);

	if (status != STATUS_DONE)
		return status;
	status = pull(&remote, &commit);
	if (status == STATUS_DONE)
		status = tool_committed(call, &commit, remote.branch);
	tool_close(&repo);
	return status;
}
