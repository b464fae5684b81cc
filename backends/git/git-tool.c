/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "git-tool.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "command/tables.h"
#include "pack-write.h"
#include "repo-confine.h"

/* Bytes of objects, trees nearly all of them, that are kept in memory. */
#define CACHE_BYTES (64u << 20)

/* --- Errors --------------------------------------------------------------------- */

static enum status status_of(int err)
{
	switch (-err) {
	case EINVAL:
		return STATUS_USAGE;
	case ENOENT:
		return STATUS_NOT_FOUND;
	case EACCES:
	case EBUSY:
	case EEXIST:
	case EPERM:
	case EROFS:
	case ESTALE:
	case EXDEV:
		return STATUS_REFUSED;
	default:
		return STATUS_FAILED;
	}
}

enum status tool_fail(const struct invocation *call, int err, const char *what,
		      const char *reason)
{
	fprintf(stderr, "xendisk: git %s: ", call->verb->name);
	print_clean(stderr, what);
	fputs(": ", stderr);
	print_clean(stderr, reason);
	fputc('\n', stderr);
	return status_of(err);
}

enum status tool_usage(const struct invocation *call, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "xendisk: git %s: ", call->verb->name);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return STATUS_USAGE;
}

enum status tool_size(const struct invocation *call, const char *name,
		      uint64_t *ret)
{
	const char *text = option(call, name);

	*ret = 0;
	if (!text || parse_size(text, ret) == 0)
		return STATUS_DONE;
	return tool_usage(call,
			  "--%s: \"%s\": a size is a number, maybe with K, M, "
			  "G or T",
			  name, text);
}

/* --- The repository ------------------------------------------------------------- */

void tool_close(struct tool_repo *repo)
{
	refs_close(TAKE_PTR(repo->git));
	reader_free(TAKE_PTR(repo->from.reader));
	cache_free(TAKE_PTR(repo->from.cache));
	odb_close(TAKE_PTR(repo->from.odb));
	if (repo->packs >= 0)
		(void)close(TAKE_FD(repo->packs));
	if (repo->objects >= 0)
		(void)close(TAKE_FD(repo->objects));
	if (repo->dir >= 0)
		(void)close(TAKE_FD(repo->dir));
}

static int open_folder(int dir, const char *path)
{
	int fd = openat(dir, path,
			O_RDONLY | O_DIRECTORY | O_CLOEXEC |
				(dir == AT_FDCWD ? 0 : O_NOFOLLOW));

	return fd < 0 ? -errno : fd;
}

int tool_objects(struct tool_repo *repo, char *ret_why)
{
	int r;

	if (repo->from.reader)
		return 0;
	r = odb_open(&repo->from.odb, repo->objects, ret_why);
	if (r < 0)
		return r;
	if (cache_new(&repo->from.cache, CACHE_BYTES) < 0 ||
	    reader_new(&repo->from.reader, repo->from.odb, repo->from.cache) <
		    0)
		return why(ret_why, -ENOMEM, "no memory");
	repo->source = (struct object_source){ .read = odb_source_read,
					       .ctx = &repo->from };
	return 0;
}

static int open_repo(const char *path, bool as_owner, struct tool_repo *ret,
		     char *ret_why)
{
	int r = 0;

	ret->dir = open_folder(AT_FDCWD, path);
	if (ret->dir < 0)
		return why(ret_why, ret->dir, "%s", strerror(-ret->dir));
	if (as_owner)
		r = repo_become_owner(ret->dir, ret_why);
	if (r == 0)
		r = refs_open(&ret->git, ret->dir, ret_why);
	if (r < 0)
		return r;
	ret->objects = open_folder(ret->dir, "objects");
	if (ret->objects < 0)
		return why(ret_why, ret->objects, "objects: %s",
			   strerror(-ret->objects));
	ret->packs = open_folder(ret->objects, "pack");
	if (ret->packs < 0)
		return why(ret_why, ret->packs, "objects/pack: %s",
			   strerror(-ret->packs));
	return 0;
}

static enum status open_as(const struct invocation *call, const char *path,
			   bool as_owner, struct tool_repo *ret)
{
	char reason[WHY_MAX];
	int r;

	*ret = (struct tool_repo){ .dir = -1, .objects = -1, .packs = -1 };
	r = open_repo(path, as_owner, ret, reason);
	if (r == 0)
		return STATUS_DONE;
	tool_close(ret);
	/* Its command line is right. */
	return tool_fail(call, r == -EINVAL ? -EBADMSG : r, path, reason);
}

enum status tool_open(const struct invocation *call, const char *path,
		      struct tool_repo *ret)
{
	return open_as(call, path, false, ret);
}

enum status tool_open_as_owner(const struct invocation *call, const char *path,
			       struct tool_repo *ret)
{
	return open_as(call, path, true, ret);
}

enum status tool_revision(const struct invocation *call, struct tool_repo *repo,
			  const char *rev, struct commit_facts *ret_commit,
			  struct chunk_map **ret_map)
{
	char reason[WHY_MAX];
	int r = refs_resolve(repo->git, rev, ret_commit, reason);

	if (r == 0)
		r = tool_objects(repo, reason);
	if (r == 0)
		r = chunk_map_open(ret_map, &repo->source, ret_commit->tree,
				   reason);
	if (r == -EINVAL) /* the command line is right */
		r = -EBADMSG;
	return r < 0 ? tool_fail(call, r, rev, reason) : STATUS_DONE;
}

/* --- Commits --------------------------------------------------------------------- */

int tool_publish(struct tool_repo *repo, struct pack_writer *pack,
		 const uint8_t root[OID_BYTES], struct commit_facts *facts,
		 const char *ref, const uint8_t *old, char *ret_why)
{
	struct pack_names names = { NULL, 0 };
	cleanup_free char *text = NULL;
	char ignored[WHY_MAX];
	size_t n;
	int r;

	refs_author(repo->git, facts->author);
	facts->time = time(NULL);
	memcpy(facts->tree, root, OID_BYTES);
	r = commit_text(facts, &text, &n, ret_why);
	if (r == 0)
		r = pack_add(pack, OBJECT_COMMIT, text, n, facts->id, ret_why);
	if (r == 0)
		r = pack_writer_finish(pack, &names, ret_why);
	if (r < 0)
		return r;
	r = refs_update(repo->git, ref, old, facts->id, "xendisk git", ret_why);
	/* Also when there is no reference: then gc may have them. */
	(void)pack_unkeep(repo->packs, &names, ignored);
	pack_names_free(&names);
	return r;
}

enum status tool_committed(const struct invocation *call,
			   const struct commit_facts *commit, const char *ref)
{
	char hex[OID_HEX + 1];

	oid_hex(commit->id, hex);
	if (call->json)
		return print_json(
			json_pack("{s:s,s:s}", "commit", hex, "ref", ref));
	puts(hex);
	return STATUS_DONE;
}

/* --- The process ----------------------------------------------------------------- */

unsigned int tool_threads(void)
{
	cpu_set_t set;
	int n = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	return (unsigned int)MIN(MAX(n, 1), (int)PACK_MAX_THREADS);
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

bool tool_interrupted(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	static bool ready;
	struct sigaction action = { .sa_handler = on_signal };

	for (size_t i = 0; i < ARRAY_SIZE(signals) && !ready; i++)
		(void)sigaction(signals[i], &action, NULL);
	ready = true;
	return interrupted;
}
