/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-pack - how fast the pack writer is: all of a commit but its trees, from a file
 * in the page cache to packs that are durable.
 *
 * Rows: what the data is like, compressed or not, and on how many CPUs, with as
 * many threads.  Rounds are interleaved, the best one counts.
 */
#include "config.h"

#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "../../backends/git/pack-write.h"
#include "common/util.h"

#define MIB (1u << 20)

static uint64_t size = 256 * MIB;
static uint32_t chunk = 65536;
static unsigned int rounds = 3;
static const char *folder = ".";
/* As on the disk of a guest: programs, scripts, texts, what is compressed. */
static const char *typical[8] = { "/usr/bin", "/usr/lib/python3",
				  "/usr/share/doc", "/usr/share/man",
				  "/usr/share/locale" };
static unsigned int nr_typical;

static _Noreturn void die(const char *what, const char *reason)
{
	(void)fprintf(stderr, "git-pack: %s: %s\n", what, reason);
	exit(1);
}

/* --- Data --------------------------------------------------------------------------- */

static void put(int fd, const void *buf, size_t n, uint64_t at)
{
	int r = pwrite_all(fd, buf, n, at);

	if (r < 0)
		die(folder, strerror(-r));
}

static int new_file(void)
{
	int fd = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

	if (fd < 0)
		die(folder, strerror(errno));
	return fd;
}

static int make_random(void)
{
	uint64_t state = 88172645463325252u;
	static uint64_t buf[8192];
	int fd = new_file();

	for (uint64_t at = 0; at < size; at += sizeof(buf)) {
		for (size_t i = 0; i < ARRAY_SIZE(buf); i++) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			buf[i] = state * 0x2545f4914f6cdd1du;
		}
		put(fd, buf, (size_t)MIN(sizeof(buf), size - at), at);
	}
	return fd;
}

static int typical_fd;
static uint64_t typical_at, typical_end;

/* Each file begins with a chunk's sector, as on a disk. */
static int append(const char *path, const struct stat *st, int type,
		  struct FTW *ftw)
{
	static uint8_t buf[MIB];
	ssize_t n;
	int fd;

	(void)st, (void)ftw;
	if (type != FTW_F)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while (typical_at < typical_end &&
	       (n = read(fd, buf, sizeof(buf))) > 0) {
		n = (ssize_t)MIN((uint64_t)n, typical_end - typical_at);
		put(typical_fd, buf, (size_t)n, typical_at);
		typical_at += (uint64_t)n;
	}
	(void)close(fd);
	typical_at = MIN(ALIGN_UP(typical_at, 4096u), typical_end);
	return typical_at == typical_end;
}

static int make_typical(void)
{
	unsigned int nr = 0;

	while (nr < ARRAY_SIZE(typical) && typical[nr])
		nr++;
	typical_fd = new_file();
	/* As much of each; the first one makes up for those that have less. */
	for (unsigned int i = 0; i <= nr; i++) {
		typical_end = i < nr ? size / nr * (i + 1) : size;
		(void)nftw(typical[i % nr], append, 16, FTW_PHYS);
	}
	if (typical_at < size)
		(void)fprintf(stderr, "git-pack: only %u MiB are typical\n",
			      (unsigned int)(typical_at / MIB));
	return typical_fd;
}

/* --- A run ---------------------------------------------------------------------------- */

struct row {
	const char *data, *way;
	int fd;
	bool store_only;
	unsigned int cpus;
	double best; /* MB/s */
	double ratio;
	double cpu; /* ns per byte, of the best one */
};

static void use_cpus(unsigned int nr)
{
	static cpu_set_t all;
	cpu_set_t some;

	if (CPU_COUNT(&all) == 0 && sched_getaffinity(0, sizeof(all), &all) < 0)
		die("cpus", strerror(errno));
	CPU_ZERO(&some);
	for (size_t cpu = 0; cpu < CPU_SETSIZE && nr > 0; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_SET(cpu, &some);
		nr--;
	}
	if (sched_setaffinity(0, sizeof(some), &some) < 0)
		die("cpus", strerror(errno));
}

static double cpu_seconds(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int ignore(void *ctx, uint64_t tag, const uint8_t *oid,
		  enum pack_fate fate, char *ret_why)
{
	(void)ctx, (void)tag, (void)oid, (void)fate, (void)ret_why;
	return 0;
}

static int write_all(struct pack_writer *writer, int fd, char *ret_why)
{
	for (uint64_t at = 0; at < size; at += chunk) {
		size_t n = (size_t)MIN(chunk, size - at);
		void *buffer;
		int r = pack_buffer(writer, n, &buffer, ret_why);

		if (r == 0 && pread_all(fd, buffer, n, at) < 0)
			die(folder, "cannot be read");
		if (r == 0)
			r = pack_add_chunk(writer, buffer, n, at, NULL,
					   ret_why);
		if (r < 0)
			return r;
	}
	return pack_chunks_drain(writer, ret_why);
}

static void remove_packs(int dir, const struct pack_names *names)
{
	static const char *const suffixes[] = { "idx", "pack" };
	char name[PACK_NAME_MAX + 8];

	for (unsigned int i = 0; i < names->nr; i++)
		for (size_t s = 0; s < ARRAY_SIZE(suffixes); s++) {
			(void)snprintf(name, sizeof(name), "%s.%s",
				       names->packs[i].name, suffixes[s]);
			(void)unlinkat(dir, name, 0);
		}
}

static void run(struct row *row, int dir)
{
	struct pack_options options = { .dir = dir,
					.threads = row->cpus,
					.store_only = row->store_only,
					.done = ignore };
	char text[WHY_MAX] = "";
	struct pack_writer *writer;
	struct pack_totals totals;
	struct pack_names names;
	double cpu, seconds;
	uint64_t begin;
	int r;

	use_cpus(row->cpus);
	begin = now_ns();
	cpu = cpu_seconds();
	r = pack_writer_new(&writer, &options, text);
	if (r == 0)
		r = write_all(writer, row->fd, text);
	if (r == 0)
		r = pack_writer_finish(writer, &names, text);
	if (r == 0)
		r = pack_unkeep(dir, &names, text);
	if (r < 0)
		die(folder, text);
	seconds = (double)(now_ns() - begin) / 1e9;
	pack_totals(writer, &totals);
	if ((double)size / 1e6 / seconds > row->best) {
		row->best = (double)size / 1e6 / seconds;
		row->cpu = (cpu_seconds() - cpu) * 1e9 / (double)size;
	}
	row->ratio = (double)totals.packed / (double)size;
	pack_writer_free(writer);
	remove_packs(dir, &names);
	pack_names_free(&names);
}

static int usage(void)
{
	(void)fputs("usage: git-pack [--size SIZE] [--chunk SIZE] "
		    "[--rounds N]\n"
		    "                [--folder DIR] [--typical DIR...]\n",
		    stderr);
	return 2;
}

static bool parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "chunk", required_argument, NULL, 'c' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "folder", required_argument, NULL, 'f' },
		{ "typical", required_argument, NULL, 't' },
		{ 0 },
	};
	uint64_t value;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's' && parse_size(optarg, &size) == 0)
			continue;
		if (c == 'c' && parse_size(optarg, &value) == 0 && value > 0 &&
		    value <= PACK_MAX_CHUNK)
			chunk = (uint32_t)value;
		else if (c == 'r' && parse_u32(optarg, 1000, &rounds) == 0)
			;
		else if (c == 'f')
			folder = optarg;
		else if (c == 't' && nr_typical < ARRAY_SIZE(typical))
			typical[nr_typical++] = optarg;
		else
			return false;
	}
	if (nr_typical > 0 && nr_typical < ARRAY_SIZE(typical))
		typical[nr_typical] = NULL;
	return optind == argc;
}

int main(int argc, char **argv)
{
	static struct row rows[8];
	int dir;

	if (!parse(argc, argv))
		return usage();
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		die(folder, strerror(errno));
	for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++)
		rows[i] = (struct row){
			.data = i & 4 ? "typical" : "random",
			.way = i & 2 ? "deflated" : "stored",
			.store_only = !(i & 2),
			.cpus = 1 + (i & 1),
		};
	rows[0].fd = make_random();
	rows[4].fd = make_typical();
	for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++)
		rows[i].fd = rows[i & 4].fd;
	for (unsigned int round = 0; round < rounds; round++)
		for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++)
			run(&rows[i], dir);
	(void)printf("%-8s %-9s %4s %6s %6s %9s\n", "data", "way", "cpus",
		     "MB/s", "ratio", "CPU ns/B");
	for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++)
		(void)printf("%-8s %-9s %4u %6.0f %6.3f %9.2f\n", rows[i].data,
			     rows[i].way, rows[i].cpus, rows[i].best,
			     rows[i].ratio, rows[i].cpu);
	return 0;
}
