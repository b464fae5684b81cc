/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "git-tool.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "command/tables.h"
#include "common/suggest.h"
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
	if (what) {
		print_clean(stderr, what);
		fputs(": ", stderr);
	}
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

static int open_rest(struct tool_repo *repo, char *ret_why)
{
	uid_t was = geteuid();
	int r = repo_become_owner(repo->dir, ret_why);

	repo->is_owner = geteuid() != was;
	if (r == 0)
		r = refs_open(&repo->git, repo->dir, ret_why);
	if (r < 0)
		return r;
	repo->objects = open_folder(repo->dir, "objects");
	if (repo->objects < 0)
		return why(ret_why, repo->objects, "objects: %s",
			   strerror(-repo->objects));
	repo->packs = open_folder(repo->objects, "pack");
	if (repo->packs < 0)
		return why(ret_why, repo->packs, "objects/pack: %s",
			   strerror(-repo->packs));
	return 0;
}

enum status tool_open_folder(const struct invocation *call, const char *path,
			     struct tool_repo *ret)
{
	*ret = (struct tool_repo){ .objects = -1, .packs = -1 };
	ret->dir = open_folder(AT_FDCWD, path);
	return ret->dir < 0 ?
		       tool_fail(call, ret->dir, path, strerror(-ret->dir)) :
		       STATUS_DONE;
}

enum status tool_open_rest(const struct invocation *call, const char *path,
			   struct tool_repo *repo)
{
	char reason[WHY_MAX];
	int r = open_rest(repo, reason);

	if (r == 0)
		return STATUS_DONE;
	tool_close(repo);
	/* Its command line is right. */
	return tool_fail(call, r == -EINVAL ? -EBADMSG : r, path, reason);
}

enum status tool_open(const struct invocation *call, const char *path,
		      struct tool_repo *ret)
{
	enum status status = tool_open_folder(call, path, ret);

	return status == STATUS_DONE ? tool_open_rest(call, path, ret) : status;
}

static int add_branch(void *ctx, const char *name, const uint8_t oid[OID_BYTES])
{
	(void)oid;
	suggest_add(ctx, name + strlen(REFS_HEADS));
	return 0;
}

void tool_suggest_branch(struct tool_repo *repo, const char *typed,
			 char *io_why)
{
	struct suggest s = { .typed = typed };
	size_t n = strlen(io_why);
	char ignored[WHY_MAX];

	if (refs_each(repo->git, REFS_HEADS, add_branch, &s, ignored) == 0)
		(void)snprintf(io_why + n, WHY_MAX - n, "%s",
			       suggest_text(&s, NULL));
}

enum status tool_revision(const struct invocation *call, struct tool_repo *repo,
			  const char *rev, struct commit_facts *ret_commit,
			  struct chunk_map **ret_map)
{
	char reason[WHY_MAX];
	int r = refs_resolve(repo->git, rev, ret_commit, reason);

	if (r == -ENOENT)
		tool_suggest_branch(repo, rev, reason);
	if (r < 0)
		return tool_fail(call, r == -EINVAL ? -EBADMSG : r, NULL,
				 reason);
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

/* Who is told to end tells the child, and waits for it. */
static int wait_for(pid_t pid)
{
	bool told = false;
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
		if (tool_interrupted() && !told)
			(void)kill(pid, SIGTERM);
		told = tool_interrupted();
	}
	return status;
}

enum status tool_in_child(const struct invocation *call,
			  enum status (*fn)(void *ctx), void *ctx)
{
	pid_t pid;
	int status;

	(void)tool_interrupted();
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return tool_fail(call, -EAGAIN, "a process", strerror(errno));
	if (pid == 0) {
		enum status done = fn(ctx);

		_exit(fflush(stdout) == 0 ? (int)done : STATUS_FAILED);
	}
	status = wait_for(pid);
	if (WIFEXITED(status))
		return (enum status)WEXITSTATUS(status);
	return tool_fail(call, -EIO, "it has ended",
			 strsignal(WTERMSIG(status)));
}

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
