/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cputime PID: the CPU time that a process has used so far, ns: all its
 * threads, those that have ended and the kernel's own for it (io_uring) too.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int main(int argc, char **argv)
{
	struct timespec ts;
	clockid_t clock;
	char *end = NULL;
	long pid = argc == 2 ? strtol(argv[1], &end, 10) : 0;
	int r;

	if (pid <= 0 || *end) {
		fprintf(stderr, "usage: cputime PID\n");
		return 2;
	}
	r = clock_getcpuclockid((pid_t)pid, &clock);
	if (r || clock_gettime(clock, &ts) < 0) {
		fprintf(stderr, "cputime: process %ld: %s\n", pid,
			r ? strerror(r) : "its clock cannot be read");
		return 1;
	}
	printf("%" PRIu64 "\n",
	       (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
	return 0;
}
