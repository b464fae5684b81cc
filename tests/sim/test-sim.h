/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For the tests of the simulator: one program is both ends.  As the guest it
 * uses sim.h, as the backend the libraries that LD_LIBRARY_PATH gives it.
 */
#ifndef XENSIM_TEST_SIM_H
#define XENSIM_TEST_SIM_H

#include <errno.h>
#include <glob.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#include "sim.h"

/* Start again inside a machine of our own, unless this is inside one. */
static inline void need_machine(char **argv)
{
	char xensim[4096];
	ssize_t n = readlink("/proc/self/exe", xensim, sizeof(xensim) - 8);
	glob_t found;

	if (getenv("XENSIM_DIR"))
		return;
	if (!getenv("XENSIM_XENSTORED") &&
	    glob("/usr/lib/xen-*/bin/xenstored", 0, NULL, &found)) {
		puts("1..0 # SKIP xenstored (package xen-utils) is missing");
		exit(0);
	}
	xensim[n > 0 ? n : 0] = '\0';
	strcpy(strrchr(xensim, '/') + 1, "xensim");
	execl(xensim, xensim, "run", "--", argv[0], NULL);
	perror(xensim);
	exit(1);
}

struct both {
	struct xensim *machine;
	struct xensim_guest *guest;
	struct xensim_events *events;
	uint32_t domid;
	xengnttab_handle *gnttab;
	xenevtchn_handle *evtchn;
};

static inline int both_setup(void **state)
{
	struct both *b = calloc(1, sizeof(*b));

	assert_int_equal(xensim_open(NULL, &b->machine), 0);
	assert_int_equal(xensim_domain_create_bare(b->machine, 0, &b->domid),
			 0);
	assert_int_equal(xensim_guest_open(b->machine, b->domid, &b->guest), 0);
	assert_int_equal(xensim_events_open(b->guest, &b->events), 0);
	b->gnttab = xengnttab_open(NULL, 0);
	b->evtchn = xenevtchn_open(NULL, 0);
	assert_non_null(b->gnttab);
	assert_non_null(b->evtchn);
	*state = b;
	return 0;
}

static inline int both_teardown(void **state)
{
	struct both *b = *state;

	xengnttab_close(b->gnttab);
	xenevtchn_close(b->evtchn);
	xensim_guest_close(b->guest);
	xensim_domain_destroy(b->machine, b->domid);
	xensim_close(b->machine);
	free(b);
	return 0;
}

/* Run in a child that lives until it is killed; returns when it said "ready". */
static inline pid_t spawn(void (*run)(void *), void *arg)
{
	int fds[2];
	pid_t pid;
	char c = 0;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(fds[0]);
		run(arg);
		if (write(fds[1], "!", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(fds[1]);
	if (read(fds[0], &c, 1) != 1)
		fail_msg("the child failed");
	close(fds[0]);
	return pid;
}

static inline void kill_child(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* In a child: a failed check ends it before it says "ready". */
static inline void require(int ok)
{
	if (!ok)
		_exit(1);
}

#endif
