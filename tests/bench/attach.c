/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attach COMMAND...: guests that get a disk for each line "DOMID DEVID" of stdin
 * and keep it, idle, until stdin ends.
 *
 * For each, one after the other, `COMMAND DOMID` attaches one; the guest takes
 * the disk as soon as it is in xenstore.  Printed per line: the time in us from
 * the start of the command, and from the moment at which the guest saw the disk,
 * until it was connected.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "simabi.h"
#include "simfront.h"

#define TIMEOUT_S 30

extern char **environ;

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static pid_t start(char **command, int nr, char *domid)
{
	char **argv = calloc((size_t)nr + 2, sizeof(*argv));
	posix_spawn_file_actions_t actions;
	pid_t pid = -1;

	if (!argv)
		return -1;
	for (int i = 0; i < nr; i++)
		argv[i] = command[i];
	argv[nr] = domid;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", 1, 0);
	if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ))
		pid = -1;
	posix_spawn_file_actions_destroy(&actions);
	free(argv);
	return pid;
}

/* The disk appears while we look for it. */
static struct simfront *find_disk(uint32_t domid, uint32_t devid)
{
	const struct timespec moment = { .tv_nsec = 500000 };
	uint64_t end = now_us() + TIMEOUT_S * 1000000ull;
	struct simfront *front;

	for (;;) {
		int r = simfront_open(domid, devid, TIMEOUT_S, &front);

		if (r == 0)
			return front;
		if (r != -ENODEV || now_us() > end) {
			fprintf(stderr, "attach: %s\n",
				front ? simfront_error(front) : strerror(-r));
			simfront_free(front);
			return NULL;
		}
		simfront_free(front);
		nanosleep(&moment, NULL);
	}
}

/* The guest stays; the end of this program is its end. */
static bool attach(char **command, int nr, char *domid, uint32_t devid)
{
	const struct simfront_shape shape = {
		.abi = simabi_by_name("x86_64"),
		.queues = 1,
	};
	uint64_t begun = now_us(), seen;
	pid_t pid = start(command, nr, domid);
	struct simfront *front;
	int status = -1;

	if (pid < 0) {
		perror("attach: the command");
		return false;
	}
	front = find_disk((uint32_t)strtoul(domid, NULL, 10), devid);
	seen = now_us();
	if (front && simfront_connect(front, &shape) < 0)
		fprintf(stderr, "attach: domain %s: %s\n", domid,
			simfront_error(front));
	else if (front)
		printf("%" PRIu64 " %" PRIu64 "\n", now_us() - begun,
		       now_us() - seen);
	fflush(stdout);
	waitpid(pid, &status, 0);
	return front && status == 0;
}

int main(int argc, char **argv)
{
	char line[32];

	if (argc < 2) {
		fprintf(stderr, "usage: attach COMMAND...\n");
		return 2;
	}
	while (fgets(line, sizeof(line), stdin)) {
		char *devid = strchr(line, ' ');

		if (!devid) {
			fprintf(stderr, "attach: no DEVID: %s", line);
			return 2;
		}
		*devid++ = '\0';
		if (!attach(argv + 1, argc - 1, line,
			    (uint32_t)strtoul(devid, NULL, 10)))
			return 1;
	}
	return 0;
}
