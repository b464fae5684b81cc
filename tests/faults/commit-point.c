/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit-point.c - kills a committer at a point of commit-points.def that
 * XENDISK_COMMIT_POINT=NAME[:N] names, when it is passed for the Nth time; once,
 * also when its parent starts another one.  N 0: each time; N `stop`: stops it, the
 * first time, in place of killing it.  NAME may be `list`: prints them.
 */
#include "config.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "commit-points.h"

static const char *const points[] = {
#define COMMIT_AT(name) #name,
#include "commit-points.def"
#undef COMMIT_AT
};

static struct orders {
	char name[64];
	unsigned int nth; /* 0: each time */
	int signal;
	unsigned int passed; /* atomic */
} * orders; /* shared by parent and children */

__attribute__((constructor)) static void commit_point_init(void)
{
	const char *text = getenv("XENDISK_COMMIT_POINT");
	const char *nth;

	if (!text)
		return;
	if (strcmp(text, "list") == 0) {
		for (size_t i = 0; i < sizeof(points) / sizeof(*points); i++)
			puts(points[i]);
		exit(0);
	}
	orders = mmap(NULL, sizeof(*orders), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (orders == MAP_FAILED)
		abort();
	nth = strchr(text, ':');
	(void)snprintf(orders->name, sizeof(orders->name), "%.*s",
		       (int)strcspn(text, ":"), text);
	orders->signal = nth && strcmp(nth, ":stop") == 0 ? SIGSTOP : SIGKILL;
	orders->nth = nth && orders->signal == SIGKILL ?
			      (unsigned int)strtoul(nth + 1, NULL, 10) :
			      1;
}

void commit_point(const char *name)
{
	if (!orders || strcmp(orders->name, name) != 0)
		return;
	if (__atomic_add_fetch(&orders->passed, 1, __ATOMIC_SEQ_CST) ==
		    orders->nth ||
	    orders->nth == 0) {
		(void)dprintf(STDERR_FILENO, "here it ends: %s\n", name);
		(void)kill(getpid(), orders->signal);
	}
}
