/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * simguest: a guest with one disk, for tests of a block backend.
 *
 * It acts for a domain of the simulated machine: connects the disk as blkfront
 * does, performs one verb, closes the disk.  The verbs are in simguest-*.c.
 */
#include "config.h"

#include "simguest.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct verb {
	const char *name;
	int least, most; /* arguments after the verb */
	int (*run)(struct simguest *guest, int argc, char **argv);
} verbs[] = {
	{ "info", 0, 0, simguest_info },
	{ "read", 2, 2, simguest_read },
	{ "write", 1, 2, simguest_write },
	{ "flush", 0, 0, simguest_flush },
	{ "discard", 2, 3, simguest_discard },
	{ "hold", 0, 0, simguest_hold },
	{ "script", 0, 0, simguest_script },
	{ "verify", 0, 0, simguest_verify },
	{ "load", 0, 0, simguest_load },
	{ "nbd", 0, 0, simguest_nbd },
	{ "hostile", 0, 1, simguest_hostile },
};

static const struct verb *find_verb(const char *name, int arguments)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(verbs[i].name, name) != 0)
			continue;
		if (arguments >= verbs[i].least && arguments <= verbs[i].most)
			return &verbs[i];
		simguest_complain("%s: wrong number of arguments", name);
		return NULL;
	}
	simguest_complain("%s: no such verb", name);
	return NULL;
}

struct simfront_shape simguest_shape(const struct simguest_options *options)
{
	return (struct simfront_shape){
		.abi = simabi_by_name(options->abi),
		.queues = (unsigned int)options->queues,
		.order = (unsigned int)options->order,
		.ring_key = strcmp(options->ring_key, "pages") == 0 ?
				    SIMFRONT_NUM_RING_PAGES :
				    SIMFRONT_RING_PAGE_ORDER,
		.persistent = options->persistent,
	};
}

bool simguest_may_indirect(const struct simguest *guest)
{
	return !guest->opt.no_indirect &&
	       simfront_disk(guest->front)->max_indirect > 0;
}

unsigned int simguest_max_segments(const struct simguest *guest)
{
	unsigned int most = BLKIF_MAX_SEGMENTS_PER_REQUEST;

	if (simguest_may_indirect(guest) &&
	    simfront_disk(guest->front)->max_indirect > most)
		most = simfront_disk(guest->front)->max_indirect;
	if (most > guest->opt.segments)
		most = (unsigned int)guest->opt.segments;
	return most;
}

int simguest_queue_failed(const struct simqueue *queue, int r)
{
	if (r == -EPROTO)
		simguest_complain("disk disabled: %s", simqueue_fault(queue));
	else if (r == -ETIMEDOUT)
		simguest_complain("no answer from the backend");
	else if (r == -ESHUTDOWN)
		simguest_complain("the domain was destroyed");
	else
		simguest_complain("request: %s", strerror(-r));
	return r == -ESHUTDOWN ? SIMGUEST_OK : SIMGUEST_FAULT;
}

static bool pin(const char *cpu)
{
	uint64_t number;
	cpu_set_t set;

	if (!cpu)
		return true;
	CPU_ZERO(&set);
	if (simguest_parse_size(cpu, &number) && number < CPU_SETSIZE)
		CPU_SET(number, &set);
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		return true;
	simguest_complain("--cpu %s: no such CPU", cpu);
	return false;
}

static int connect_disk(struct simguest *g)
{
	struct simfront_shape shape = simguest_shape(&g->opt);
	int r = simfront_open(g->domid, g->devid, (int)g->opt.timeout,
			      &g->front);

	if (r == 0)
		r = simfront_connect(g->front, &shape);
	if (r < 0 && g->front)
		simguest_complain("connect: %s", simfront_error(g->front));
	else if (r < 0)
		simguest_complain("connect: %s", strerror(-r));
	return r;
}

/*
 * Must or may the guest stop as it is?  Then keys, grants and pages stay, as
 * after a crash of its kernel.
 */
static bool just_stops(const struct simguest *g, int code)
{
	return g->opt.stay || !xensim_guest_alive(simfront_guest(g->front)) ||
	       (code == SIMGUEST_FAULT && simfront_pending(g->front) > 0);
}

static int run_verb(struct simguest *g, const struct verb *verb, int argc,
		    char **argv)
{
	int code;

	if (connect_disk(g) < 0)
		return SIMGUEST_FAULT;
	code = verb->run(g, argc, argv);
	if (fflush(stdout) != 0 && code == SIMGUEST_OK) {
		simguest_complain("standard output: %s", strerror(errno));
		code = SIMGUEST_FAULT;
	}
	if (just_stops(g, code))
		_exit(code);
	if (simfront_disconnect(g->front) < 0 && code != SIMGUEST_FAULT) {
		simguest_complain("close: %s", simfront_error(g->front));
		return SIMGUEST_FAULT;
	}
	return code;
}

int main(int argc, char **argv)
{
	struct simguest guest = { 0 };
	const struct verb *verb;
	uint64_t domid;
	int code, n;

	n = simguest_parse(&guest.opt, argc, argv);
	if (n < 0)
		return SIMGUEST_USAGE;
	if (guest.opt.list) {
		simguest_list_hostile();
		return SIMGUEST_OK;
	}
	if (n < 3) {
		simguest_complain("DOMID VDEV VERB are needed; see --help");
		return SIMGUEST_USAGE;
	}
	if (!simguest_parse_size(argv[1], &domid) || domid > UINT16_MAX ||
	    !simguest_parse_vdev(argv[2], &guest.devid)) {
		simguest_complain("%s %s: no domain id and device", argv[1],
				  argv[2]);
		return SIMGUEST_USAGE;
	}
	guest.domid = (uint32_t)domid;
	verb = find_verb(argv[3], n - 3);
	if (!verb || !pin(guest.opt.cpu))
		return SIMGUEST_USAGE;
	code = run_verb(&guest, verb, n - 2, argv + 3);
	simfront_free(guest.front);
	return code;
}
