/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * replay.c - gives a fuzzer the inputs of its corpus, and says what came of it
 * in TAP.
 *
 *	replay-NAME [FILE...]		default: all of corpus/NAME
 *
 * The inputs run one after the other in a child.  Where it dies, the input's
 * name is told, and another child goes on behind it.  Then, for each fault that
 * can be put into the product, all of them again until one has found it.
 */
#include "config.h"

#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define INPUT_MAX 65536
#define LIMIT_S	  60 /* one input, on a busy machine and under sanitizers */

int fuzz_fault = -1;

struct corpus {
	char **paths;
	size_t nr;
};

static void die(const char *what)
{
	(void)printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static void add(struct corpus *corpus, char *path)
{
	corpus->paths = reallocarray(corpus->paths, corpus->nr + 1,
				     sizeof(*corpus->paths));
	if (!corpus->paths || !path)
		die("memory");
	corpus->paths[corpus->nr++] = path;
}

static int is_input(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void add_folder(struct corpus *corpus, const char *folder)
{
	struct dirent **entries;
	int n = scandir(folder, &entries, is_input, alphasort);
	char *path;

	if (n < 0)
		die(folder);
	for (int i = 0; i < n; i++) {
		if (asprintf(&path, "%s/%s", folder, entries[i]->d_name) < 0)
			path = NULL;
		add(corpus, path);
		free(entries[i]);
	}
	free(entries);
}

/* Exactly as long as the file is, so that a sanitizer sees one byte too many. */
static uint8_t *read_input(const char *path, size_t *ret_size)
{
	uint8_t *whole = malloc(INPUT_MAX), *exact;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, whole, INPUT_MAX);

	if (n < 0)
		die(path);
	(void)close(fd);
	exact = malloc(n ? (size_t)n : 1);
	memcpy(exact, whole, (size_t)n);
	free(whole);
	*ret_size = (size_t)n;
	return exact;
}

static void run(const char *path)
{
	size_t size;
	uint8_t *data = read_input(path, &size);

	(void)alarm(LIMIT_S);
	(void)LLVMFuzzerTestOneInput(data, size);
	free(data);
}

/* Runs inputs from *at on, which it moves; *at == nr: all are done. */
static int run_in_child(const struct corpus *corpus, volatile size_t *at)
{
	int status;
	pid_t pid;

	(void)fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		if (fuzz_fault >= 0)
			(void)!freopen("/dev/null", "w", stderr);
		for (; *at < corpus->nr; ++*at)
			run(corpus->paths[*at]);
		exit(0);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("wait");
	return status;
}

static volatile size_t *shared_position(void)
{
	void *map = mmap(NULL, sizeof(size_t), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		die("mmap");
	return map;
}

/* How many inputs failed. */
static size_t replay(const struct corpus *corpus, volatile size_t *at)
{
	size_t failed = 0;

	for (*at = 0; *at < corpus->nr; ++*at) {
		int status = run_in_child(corpus, at);

		if (*at == corpus->nr && status == 0)
			break;
		failed++;
		(void)printf("# status %#x at %s\n", (unsigned int)status,
			     *at < corpus->nr ? corpus->paths[*at] : "the end");
	}
	return failed;
}

/* Only a broken promise counts, no crash of another kind. */
static bool finds_fault(const struct corpus *corpus, volatile size_t *at)
{
	int status;

	*at = 0;
	status = run_in_child(corpus, at);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void point(bool good, unsigned int n, const char *text, size_t inputs)
{
	(void)printf("%sok %u - %s (%zu inputs)\n", good ? "" : "not ", n, text,
		     inputs);
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');
	const char *srcdir = getenv("top_srcdir");
	volatile size_t *at = shared_position();
	struct corpus corpus = { NULL, 0 };
	unsigned int nr_faults = 0;
	char folder[4096];
	size_t failed;

	name = strstr(name ? name : argv[0], "replay-");
	if (!name)
		die("what is this program's name?");
	(void)snprintf(folder, sizeof(folder), "%s/tests/fuzz/corpus/%s",
		       srcdir ? srcdir : ".", name + strlen("replay-"));
	for (int i = 1; i < argc; i++)
		add(&corpus, strdup(argv[i]));
	if (argc == 1)
		add_folder(&corpus, folder);
	while (argc == 1 && fuzz_faults && fuzz_faults[nr_faults])
		nr_faults++;
	(void)printf("1..%u\n", 1 + nr_faults);
	failed = replay(&corpus, at);
	point(failed == 0 && corpus.nr > 0, 1, "each input keeps the promises",
	      corpus.nr);
	for (unsigned int i = 0; i < nr_faults; i++) {
		bool found;

		fuzz_fault = (int)i;
		found = finds_fault(&corpus, at);
		point(found, 2 + i, fuzz_faults[i], *at + found);
	}
	for (size_t i = 0; i < corpus.nr; i++)
		free(corpus.paths[i]);
	free(corpus.paths);
	return failed ? 1 : 0;
}
