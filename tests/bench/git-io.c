/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-io: disks on the real stack in one process, without a ring, and what they
 * take: for tests/bench/git.
 *
 * Orders come on stdin, a line each, numbers with K, M or G; of a measurement a
 * line of JSON goes to stdout, as tests/bench/report takes it.  ROUND is told by
 * the order of that name.
 *
 *   round N
 *   open POINT|- DISK EXPRESSION	ms, and MiB of memory that it takes
 *   close DISK
 *   fill DISK AT BYTES random|text	and flush
 *   write POINT DISK BS COUNT PER AT BYTES	iops; PER requests, then a flush; and
 *						p99_us of the two if PER is 1
 *   read POINT DISK BS COUNT DEPTH AT BYTES	iops, mib_s, cpu_us of this process,
 *						and p50_us at depth 1
 *   snapshot POINT DISK		ms until it is acknowledged
 *   commit POINT DISK BYTES	ms and mib_s from there until it is committed
 *   many POINT DISK COUNT BYTES	COUNT snapshots one after the other, of 4 KiB
 *				each in the first BYTES: medians of the two times, ms;
 *				all of it, s; MiB of memory and open files at the end
 *
 * Blocks are taken in an order that looks random, each once before one is taken
 * again.
 */
#include "config.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "common/util.h"
#include "../unit/rig.h"

#define MAX_DISKS 4u
#define MAX_WORDS 10u
#define MAX_DEPTH 64u
#define FILL	  (1u << 20)
#define CHUNK	  65536u

struct disk {
	char name[32];
	struct rig rig;
	bool open;
	char id[32]; /* of its last snapshot */
	uint64_t asked; /* when that was */
};

static struct disk disks[MAX_DISKS];
static unsigned int round_number = 1;
static unsigned char *buffer; /* MAX_DEPTH * FILL */

static _Noreturn void wrong(const char *what, const char *about)
{
	(void)fprintf(stderr, "git-io: %s: %s\n", what, about);
	exit(1);
}

static uint64_t number_of(const char *text)
{
	uint64_t number;

	if (parse_size(text, &number) < 0)
		wrong("no number", text);
	return number;
}

static struct disk *disk_of(const char *name, bool open)
{
	for (unsigned int i = 0; i < MAX_DISKS; i++)
		if (disks[i].open == open &&
		    (!open || strcmp(disks[i].name, name) == 0))
			return &disks[i];
	wrong(open ? "not open" : "too many disks", name);
}

/* --- What is told ---------------------------------------------------------------- */

struct figure {
	const char *name;
	double value;
};

static void tell(const char *point, const struct disk *disk,
		 const struct figure *figures, unsigned int nr)
{
	if (strcmp(point, "-") == 0)
		return;
	(void)printf("{\"point\":\"%s\",\"server\":\"%s\",\"round\":%u,"
		     "\"figures\":{",
		     point, disk->name, round_number);
	for (unsigned int i = 0; i < nr; i++)
		(void)printf("%s\"%s\":%.6g", i ? "," : "", figures[i].name,
			     figures[i].value);
	(void)printf("}}\n");
	(void)fflush(stdout);
}

static double ms_since(uint64_t begin)
{
	return (double)(now_ns() - begin) / 1e6;
}

static uint64_t cpu_us(void)
{
	struct rusage used;

	if (getrusage(RUSAGE_SELF, &used) < 0)
		wrong("getrusage", strerror(errno));
	return (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) *
		       1000000 +
	       (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/* Memory that is this process's own. */
static double own_mib(void)
{
	cleanup_file FILE *file = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %lu", &kib) == 1)
			break;
	return (double)kib / 1024;
}

/* --- Requests ---------------------------------------------------------------------- */

struct job {
	struct disk *disk;
	enum xd_op op;
	uint64_t bs, count, at, blocks, stride;
	unsigned int depth; /* in flight */
	bool flush; /* after each depth */
	uint64_t *took; /* ns, of each burst; or NULL */
};

/*
 * What is added to a block's number for the next one: near the golden section of them,
 * so that the next ones are far away, and no divisor in common, so that each block
 * gets its turn.
 */
static uint64_t stride_of(uint64_t blocks)
{
	uint64_t stride = (uint64_t)((double)blocks * 0.6180339887) | 1;

	for (;; stride += 2) {
		uint64_t a = blocks, b = stride;

		while (b > 0) {
			uint64_t rest = a % b;

			a = b;
			b = rest;
		}
		if (a == 1)
			return stride;
	}
}

static uint64_t block_of(uint64_t i, uint64_t stride, uint64_t blocks)
{
	return (i * stride + i / blocks) % blocks;
}

static void flush(struct disk *disk)
{
	int r = rig_io(&disk->rig, 0, XD_FLUSH, 0, 0, 0, NULL);

	if (r < 0)
		wrong("a flush failed", strerror(-r));
}

static void burst(const struct job *job, uint64_t first, unsigned int n)
{
	static struct rig_op ops[MAX_DEPTH];

	for (unsigned int i = 0; i < n; i++)
		rig_start(&job->disk->rig, 0, &ops[i], job->op, 0,
			  job->at + block_of(first + i, job->stride,
					     job->blocks) *
					    job->bs,
			  job->bs, buffer + (size_t)i * job->bs);
	rig_wait(&job->disk->rig, 0, ops, n);
	for (unsigned int i = 0; i < n; i++)
		if (ops[i].err < 0)
			wrong("a request failed", strerror(-ops[i].err));
	if (job->flush)
		flush(job->disk);
}

/* Returns the seconds that it took. */
static double run(const struct job *job)
{
	uint64_t begin = now_ns();

	for (uint64_t i = 0; i < job->count; i += job->depth) {
		uint64_t now = job->took ? now_ns() : 0;

		burst(job, i, (unsigned int)MIN(job->depth, job->count - i));
		if (job->took)
			job->took[i] = now_ns() - now;
	}
	return (double)(now_ns() - begin) / 1e9;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static struct job job_of(enum xd_op op, char **word)
{
	struct job job = {
		.disk = disk_of(word[2], true),
		.op = op,
		.bs = number_of(word[3]),
		.count = number_of(word[4]),
		.depth = (unsigned int)number_of(word[5]),
		.at = number_of(word[6]),
		.flush = op == XD_WRITE,
	};

	job.blocks = number_of(word[7]) / MAX(job.bs, 1u);
	if (job.bs == 0 || job.bs > FILL || job.blocks == 0 || job.count == 0 ||
	    job.depth == 0 || job.depth > MAX_DEPTH)
		wrong("impossible", word[1]);
	job.stride = stride_of(job.blocks);
	return job;
}

/* --- Orders -------------------------------------------------------------------------- */

static void do_round(char **word)
{
	round_number = (unsigned int)number_of(word[1]);
}

static void do_open(char **word)
{
	struct disk *disk = disk_of(word[2], false);
	double before, ms;
	uint64_t begin;
	int r;

	rig_new(&disk->rig, true);
	before = own_mib();
	begin = now_ns();
	r = rig_open(&disk->rig, 1, word[3]);
	ms = ms_since(begin);
	if (r < 0)
		wrong("cannot open", disk->rig.why);
	(void)snprintf(disk->name, sizeof(disk->name), "%s", word[2]);
	disk->open = true;
	tell(word[1], disk,
	     (struct figure[]){ { "ms", ms }, { "mib", own_mib() - before } },
	     2);
}

static void do_close(char **word)
{
	struct disk *disk = disk_of(word[1], true);

	if (rig_close(&disk->rig) < 0)
		wrong("cannot close", disk->rig.why);
	rig_free(&disk->rig);
	disk->open = false;
}

/* Bytes that do not compress, or do, and are different everywhere. */
static void make_bytes(unsigned char *to, size_t n, bool text, uint64_t *state)
{
	for (size_t i = 0; i < n; i += 8) {
		*state ^= *state << 13;
		*state ^= *state >> 7;
		*state ^= *state << 17;
		if (text && i % 64)
			memcpy(to + i, "xendisk ", 8);
		else
			memcpy(to + i, state, 8);
	}
}

static void do_fill(char **word)
{
	struct disk *disk = disk_of(word[1], true);
	uint64_t at = number_of(word[2]), end = at + number_of(word[3]);
	static uint64_t state = 88172645463325252ull;
	int r = 0;

	for (; at < end && r == 0; at += FILL) {
		uint64_t n = MIN(end - at, FILL);

		make_bytes(buffer, n, strcmp(word[4], "text") == 0, &state);
		r = rig_io(&disk->rig, 0, XD_WRITE, 0, at, n, buffer);
	}
	if (r < 0)
		wrong("a write failed", strerror(-r));
	flush(disk);
}

/* What a share of them took at most, in us. */
static double took_us(const struct job *job, unsigned int percent)
{
	qsort(job->took, job->count, sizeof(*job->took), compare);
	return (double)job->took[job->count * percent / 100] / 1000;
}

static void do_write(char **word)
{
	struct job job = job_of(XD_WRITE, word);
	struct figure figures[2];
	unsigned int nr = 1;
	double s;

	if (job.depth == 1)
		job.took = calloc(job.count, sizeof(*job.took));
	s = run(&job);
	figures[0] = (struct figure){ "iops", (double)job.count / s };
	if (job.took)
		figures[nr++] = (struct figure){ "p99_us", took_us(&job, 99) };
	tell(word[1], job.disk, figures, nr);
	free(job.took);
}

static void do_read(char **word)
{
	struct job job = job_of(XD_READ, word);
	uint64_t cpu = cpu_us();
	struct figure figures[4];
	unsigned int nr = 3;
	double s;

	if (job.depth == 1)
		job.took = calloc(job.count, sizeof(*job.took));
	s = run(&job);
	figures[0] = (struct figure){ "iops", (double)job.count / s };
	figures[1] = (struct figure){ "mib_s", (double)(job.count * job.bs) /
						       s / (1 << 20) };
	figures[2] = (struct figure){ "cpu_us", (double)(cpu_us() - cpu) /
							(double)job.count };
	if (job.took)
		figures[nr++] = (struct figure){ "p50_us", took_us(&job, 50) };
	tell(word[1], job.disk, figures, nr);
	free(job.took);
}

static void ask(struct disk *disk, const char *verb, const char *text,
		char *ret, size_t size)
{
	char reason[MSG_TEXT_MAX] = "";

	ret[0] = '\0';
	if (stack_control(disk->rig.stack, verb, text, ret, size, reason) < 0)
		wrong(verb, reason);
}

static void do_snapshot(char **word)
{
	struct disk *disk = disk_of(word[2], true);
	char answer[MSG_TEXT_MAX];
	double ms;

	disk->asked = now_ns();
	ask(disk, "snapshot", "message=bench\n", answer, sizeof(answer));
	ms = ms_since(disk->asked);
	if (xd_pair(answer, "id", disk->id, sizeof(disk->id)) < 0)
		wrong("a snapshot without id", answer);
	tell(word[1], disk, &(struct figure){ "ms", ms }, 1);
}

static bool is_committed(struct disk *disk)
{
	char text[64], answer[MSG_TEXT_MAX], state[16];

	(void)snprintf(text, sizeof(text), "id=%s\n", disk->id);
	ask(disk, "status", text, answer, sizeof(answer));
	if (xd_pair(answer, "state", state, sizeof(state)) < 0 ||
	    strcmp(state, "failed") == 0)
		wrong("a snapshot failed", answer);
	return strcmp(state, "committed") == 0;
}

static void do_commit(char **word)
{
	struct disk *disk = disk_of(word[2], true);
	uint64_t bytes = number_of(word[3]);
	struct figure figures[2];
	double ms;

	while (!is_committed(disk))
		(void)usleep(1000);
	ms = ms_since(disk->asked);
	figures[0] = (struct figure){ "ms", ms };
	figures[1] = (struct figure){ "mib_s",
				      (double)bytes / (1 << 20) / (ms / 1000) };
	tell(word[1], disk, figures, 2);
}

static unsigned int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int nr = 0;

	while (dir && readdir(dir))
		nr++;
	if (dir)
		(void)closedir(dir);
	return nr;
}

static double median_ms(uint64_t *ns, uint64_t nr)
{
	qsort(ns, nr, sizeof(*ns), compare);
	return (double)ns[nr / 2] / 1e6;
}

/* Takes ret_ns[0] until it is acknowledged, ret_ns[1] until it is a commit. */
static void snap(struct disk *disk, uint64_t at, uint64_t ret_ns[2])
{
	static uint64_t state = 1442695040888963407ull;
	char answer[MSG_TEXT_MAX];

	make_bytes(buffer, 4096, false, &state);
	if (rig_io(&disk->rig, 0, XD_WRITE, 0, at, 4096, buffer) < 0)
		wrong("a write failed", disk->name);
	flush(disk);
	disk->asked = now_ns();
	ask(disk, "snapshot", "message=many\n", answer, sizeof(answer));
	ret_ns[0] = now_ns() - disk->asked;
	if (xd_pair(answer, "id", disk->id, sizeof(disk->id)) < 0)
		wrong("a snapshot without id", answer);
	while (!is_committed(disk))
		(void)usleep(500);
	ret_ns[1] = now_ns() - disk->asked;
}

static void do_many(char **word)
{
	struct disk *disk = disk_of(word[2], true);
	uint64_t count = number_of(word[3]), begin = now_ns(), ns[2];
	uint64_t chunks = number_of(word[4]) / CHUNK;
	uint64_t stride = stride_of(MAX(chunks, 1u));
	uint64_t *acks = calloc(count + 1, sizeof(*acks));
	uint64_t *commits = calloc(count + 1, sizeof(*commits));

	if (!acks || !commits || !chunks || !count)
		wrong("impossible", word[1]);
	for (uint64_t i = 0; i < count; i++) {
		snap(disk, block_of(i, stride, chunks) * CHUNK, ns);
		acks[i] = ns[0];
		commits[i] = ns[1];
	}
	tell(word[1], disk,
	     (struct figure[]){ { "ack_ms", median_ms(acks, count) },
				{ "commit_ms", median_ms(commits, count) },
				{ "s", ms_since(begin) / 1000 },
				{ "mib", own_mib() },
				{ "files", open_files() } },
	     5);
	free(acks);
	free(commits);
}

static const struct {
	const char *name;
	unsigned int words;
	void (*act)(char **word);
} orders[] = {
	{ "round", 2, do_round },	{ "open", 4, do_open },
	{ "close", 2, do_close },	{ "fill", 5, do_fill },
	{ "write", 8, do_write },	{ "read", 8, do_read },
	{ "snapshot", 3, do_snapshot }, { "commit", 4, do_commit },
	{ "many", 5, do_many },
};

static void obey(char *line)
{
	char *word[MAX_WORDS], *rest = NULL;
	unsigned int nr = 0;

	for (char *w = strtok_r(line, " \n", &rest); w && nr < MAX_WORDS;
	     w = strtok_r(NULL, " \n", &rest))
		word[nr++] = w;
	if (nr == 0)
		return;
	for (unsigned int i = 0; i < ARRAY_SIZE(orders); i++)
		if (strcmp(word[0], orders[i].name) == 0 &&
		    nr == orders[i].words) {
			orders[i].act(word);
			return;
		}
	wrong("no such order", word[0]);
}

int main(void)
{
	char line[1024];

	buffer = malloc((size_t)MAX_DEPTH * FILL);
	if (!buffer)
		wrong("no memory", "buffer");
	memset(buffer, 7, (size_t)MAX_DEPTH * FILL);
	while (fgets(line, sizeof(line), stdin))
		obey(line);
	return 0;
}
