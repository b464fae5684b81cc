/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/poison.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "broker/broker.h"
#include "common/msg.h"
#include "common/util.h"

#define WRITE_TIMEOUT_S 20
#define MARK_MAX	(MSG_IDENTITY_MAX + MSG_TEXT_MAX + 256)
#define FIRST_LINE	"xendisk: a flush of this storage has failed\n"

struct mark {
	struct mark *prev;
	struct mark *next;
	char identity[MSG_IDENTITY_MAX];
	char text[MSG_TEXT_MAX + 128];
};

/* A file to be written or removed, and what is to happen then. */
struct job {
	struct job *prev;
	struct job *next;
	struct broker *broker;
	struct poison *poison;
	poison_done_fn done;
	void *ctx;
	char identity[MSG_IDENTITY_MAX];
	char name[40];
	char temporary[48];
	char content[MARK_MAX]; /* empty: remove the file */
};

struct poison {
	char *dir;
	struct mark *marks;
	struct job *jobs; /* the oldest first; one at a time of each name */
};

/* --- Names and texts ------------------------------------------------------ */

/* 128 bits of FNV-1a from two starting points: names need not be secret, and
 * the identity stands in the file as well. */
static void print_file_name(char *buf, size_t len, const char *identity)
{
	uint64_t hash[2] = { 0xcbf29ce484222325ull, 0x9e3779b97f4a7c15ull };

	for (const char *p = identity; *p; p++)
		for (size_t i = 0; i < ARRAY_SIZE(hash); i++)
			hash[i] = (hash[i] ^ (unsigned char)*p) *
				  0x100000001b3ull;
	(void)snprintf(buf, len, "%016" PRIx64 "%016" PRIx64, hash[0], hash[1]);
}

/* "2026-11-23 12:00:00 UTC, guest 5/51728: reason" on one line. */
static void print_text(char *buf, size_t len, const char *guest,
		       const char *reason)
{
	time_t now = time(NULL);
	struct tm tm;
	size_t n;

	gmtime_r(&now, &tm);
	n = strftime(buf, len, "%Y-%m-%d %H:%M:%S UTC", &tm);
	(void)snprintf(buf + n, len - n, ", guest %s: %s", guest, reason);
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
}

/* --- In memory ------------------------------------------------------------ */

static struct mark *find(const struct poison *poison, const char *identity)
{
	struct mark *mark;

	DL_FOREACH(poison->marks, mark)
		if (strcmp(mark->identity, identity) == 0)
			return mark;
	return NULL;
}

const char *poison_find(const struct poison *poison, const char *identity)
{
	const struct mark *mark = find(poison, identity);

	return mark ? mark->text : NULL;
}

static struct mark *remember(struct poison *poison, const char *identity,
			     const char *text)
{
	struct mark *mark = find(poison, identity);

	if (!mark) {
		mark = calloc(1, sizeof(*mark));
		if (!mark)
			return NULL;
		DL_APPEND(poison->marks, mark);
	}
	(void)snprintf(mark->identity, sizeof(mark->identity), "%s", identity);
	(void)snprintf(mark->text, sizeof(mark->text), "%s", text);
	return mark;
}

static void forget(struct poison *poison, const char *identity)
{
	struct mark *mark = find(poison, identity);

	if (!mark)
		return;
	DL_DELETE(poison->marks, mark);
	free(mark);
}

/* --- Reading what is there ------------------------------------------------ */

static ssize_t read_file(int dir, const char *name, char *buf, size_t len)
{
	cleanup_close int fd =
		openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, len - 1);

	if (n >= 0)
		buf[n] = '\0';
	return n;
}

/* FIRST_LINE, then the identity, then the text, a line each. */
static int load_mark(struct poison *poison, int dir, const char *name)
{
	char buf[MARK_MAX];
	char *identity;
	char *text;
	char *end;

	if (read_file(dir, name, buf, sizeof(buf)) < 0 ||
	    strncmp(buf, FIRST_LINE, strlen(FIRST_LINE)) != 0)
		return -EINVAL;
	identity = buf + strlen(FIRST_LINE);
	text = strchr(identity, '\n');
	if (!text || text == identity || text - identity >= MSG_IDENTITY_MAX)
		return -EINVAL;
	*text++ = '\0';
	end = strchr(text, '\n');
	if (end)
		*end = '\0';
	return remember(poison, identity, text) ? 0 : -ENOMEM;
}

static int load_all(struct poison *poison, unsigned int *ret_bad)
{
	DIR *dir = opendir(poison->dir);
	struct dirent *entry;
	unsigned int bad = 0;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		/* A temporary name is a mark that was never answered for. */
		if (entry->d_name[0] == '.')
			continue;
		if (load_mark(poison, dirfd(dir), entry->d_name) < 0)
			bad++;
	}
	(void)closedir(dir);
	*ret_bad = bad;
	return 0;
}

int poison_new(struct poison **ret, const char *state_dir,
	       unsigned int *ret_bad)
{
	struct poison *poison = calloc(1, sizeof(*poison));
	int r;

	if (!poison)
		return -ENOMEM;
	poison->dir = xasprintf("%s/poison", state_dir);
	r = poison->dir ? make_dirs(poison->dir, 0700) : -ENOMEM;
	if (r == 0)
		r = load_all(poison, ret_bad);
	if (r < 0) {
		poison_free(poison);
		return r;
	}
	*ret = poison;
	return 0;
}

void poison_free(struct poison *poison)
{
	struct mark *mark;
	struct mark *next;

	if (!poison)
		return;
	DL_FOREACH_SAFE(poison->marks, mark, next)
		free(mark);
	free(poison->dir);
	free(poison);
}

/* --- Writing, in an errand ------------------------------------------------ */

static int write_mark(int dir, const struct job *job)
{
	cleanup_close int fd = openat(
		dir, job->temporary,
		O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = pwrite_all(fd, job->content, strlen(job->content), 0);
	if (r < 0)
		return r;
	if (fsync(fd) < 0 || renameat(dir, job->temporary, dir, job->name) < 0)
		return -errno;
	return 0;
}

static void work(const void *arg)
{
	const struct job *job = arg;
	int dir = open(job->poison->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (dir < 0)
		r = -errno;
	else if (job->content[0])
		r = write_mark(dir, job);
	else
		r = unlinkat(dir, job->name, 0) < 0 && errno != ENOENT ?
			    -errno :
			    0;
	if (r == 0 && fsync(dir) < 0)
		r = -errno;
	errand_report(0, r, -1);
}

/* --- One after the other -------------------------------------------------- */

/* A mark that is made while an older one is being removed must outlive that. */
static struct job *first_of(struct poison *poison, const char *name)
{
	struct job *job;

	DL_FOREACH(poison->jobs, job)
		if (strcmp(job->name, name) == 0)
			return job;
	return NULL;
}

static void work_done(void *ctx, struct errand_result *results);

static int begin(struct job *job)
{
	const struct errand_spec spec = { .work = work,
					  .arg = job,
					  .fd = -1,
					  .nr_results = 1,
					  .timeout_s = WRITE_TIMEOUT_S,
					  .done = work_done,
					  .ctx = job };
	struct errand *errand;

	return errand_start(&errand, job->broker, &spec);
}

/* Takes it off the list and tells; the next of its name begins. */
static void finish(struct job *job, int err)
{
	struct poison *poison = job->poison;
	struct job *next;
	int r = 0;

	DL_DELETE(poison->jobs, job);
	next = first_of(poison, job->name);
	/* A job behind a removal is a newer mark. */
	if (err == 0 && !job->content[0] && !next)
		forget(poison, job->identity);
	if (next)
		r = begin(next);
	job->done(job->ctx, err);
	free(job);
	if (r < 0)
		finish(next, r);
}

static void work_done(void *ctx, struct errand_result *results)
{
	finish(ctx, results[0].err);
}

static struct job *new_job(struct broker *broker, const char *identity,
			   poison_done_fn done, void *ctx)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->broker = broker;
	job->poison = broker->poison;
	job->done = done;
	job->ctx = ctx;
	(void)snprintf(job->identity, sizeof(job->identity), "%s", identity);
	print_file_name(job->name, sizeof(job->name), identity);
	(void)snprintf(job->temporary, sizeof(job->temporary), ".%s.new",
		       job->name);
	return job;
}

/* Takes over the job, unless it fails. */
static int queue(struct job *job)
{
	struct poison *poison = job->poison;
	int r = first_of(poison, job->name) ? 0 : begin(job);

	if (r == 0)
		DL_APPEND(poison->jobs, job);
	return r;
}

int poison_mark(struct broker *broker, const char *identity, const char *guest,
		const char *reason, poison_done_fn done, void *ctx)
{
	cleanup_free struct job *job = NULL;
	struct mark *mark;
	char text[sizeof(mark->text)];
	int r;

	if (!identity[0] || !is_one_line(identity))
		return -EINVAL;
	print_text(text, sizeof(text), guest, reason);
	mark = remember(broker->poison, identity, text);
	job = new_job(broker, identity, done, ctx);
	if (!mark || !job)
		return -ENOMEM;
	(void)snprintf(job->content, sizeof(job->content), "%s%s\n%s\n",
		       FIRST_LINE, identity, text);
	r = queue(job);
	if (r == 0)
		TAKE_PTR(job);
	return r;
}

int poison_clear(struct broker *broker, const char *identity,
		 poison_done_fn done, void *ctx)
{
	cleanup_free struct job *job = NULL;
	int r;

	if (!poison_find(broker->poison, identity))
		return -ENOENT;
	job = new_job(broker, identity, done, ctx);
	if (!job)
		return -ENOMEM;
	r = queue(job);
	if (r == 0)
		TAKE_PTR(job);
	return r;
}
