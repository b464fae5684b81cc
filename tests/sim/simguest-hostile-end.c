/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The three shapes of a guest's death, each with requests in flight. */
#include "config.h"

#include "simguest-hostile.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xen/io/xenbus.h>

#define NR_REFS 64
#define FILLS	200 /* of the ring, before it dies */

static void keep_busy(struct hostile *h)
{
	uint32_t refs[NR_REFS];

	for (unsigned int i = 0; i < NR_REFS; i++)
		refs[i] = hostile_grant(h, h->pages + (size_t)i * SIMABI_PAGE,
					false);
	for (unsigned int i = 0; i < FILLS; i++)
		(void)hostile_fill_ring(h, refs, NR_REFS);
}

/* The kernel stops, its domain lives: keys and grants stay. */
static int run_killed(struct hostile *h)
{
	int code = SIMGUEST_OK;

	do {
		int status = 0;
		pid_t child;

		hostile_drop(h);
		fflush(stdout);
		child = fork();
		if (child == 0) {
			if (hostile_connect(h) == SIMGUEST_OK) {
				keep_busy(h);
				raise(SIGKILL);
			}
			_exit(SIMGUEST_FAULT);
		}
		if (child < 0 || waitpid(child, &status, 0) < 0)
			return hostile_fault("fork: %s", strerror(errno));
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			return hostile_fault("it did not come to be killed");
		h->count++;
		code = hostile_connect(h);
	} while (code == SIMGUEST_OK && hostile_has_time(h));
	return code;
}

static int begin_at_once(struct hostile *h)
{
	hostile_state(h, XenbusStateInitialising);
	if (hostile_await_backend(h, 1u << XenbusStateInitWait) < 0)
		return hostile_fault("the backend does not begin again");
	return SIMGUEST_OK;
}

/* Another kernel begins, with other rings, and every other time without a
 * Closed. */
static int run_kexec(struct hostile *h)
{
	int code = SIMGUEST_OK;

	do {
		keep_busy(h);
		h->guest->opt.queues = 1 + hostile_random(h, 4);
		h->guest->opt.order = hostile_random(h, 3);
		if (h->count++ % 2)
			code = begin_at_once(h);
		if (code == SIMGUEST_OK)
			code = hostile_connect(h);
		if (code == SIMGUEST_OK)
			code = hostile_work(h);
	} while (code == SIMGUEST_OK && hostile_has_time(h));
	return code;
}

/* As by xl destroy, with the disk at work. */
static int run_destroyed(struct hostile *h)
{
	struct xensim *machine;

	keep_busy(h);
	if (xensim_open(NULL, &machine) < 0)
		return hostile_fault("no simulated machine");
	if (xensim_domain_destroy(machine, h->guest->domid) < 0)
		return hostile_fault("the domain cannot be destroyed");
	h->count++;
	return SIMGUEST_OK;
}

const struct hostile_case hostile_end_cases[] = {
	{ "killed", HOSTILE_GOOD, run_killed, "deaths",
	  "its process is killed, the domain lives" },
	{ "kexec", HOSTILE_GOOD, run_kexec, "kernels",
	  "another kernel begins with other rings" },
	{ "destroyed", HOSTILE_LAST, run_destroyed, "deaths",
	  "the domain is destroyed; it must be made anew" },
	{ 0 },
};
