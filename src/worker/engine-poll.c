/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine-poll.c - waiting with ppoll(), for both engines. */
#include "config.h"

#include <poll.h>
#include <utlist.h>

#include "worker/engine-ops.h"

#define FDS_STEP 8

int engine_polls_init(struct engine_polls *polls)
{
	polls->fds = calloc(FDS_STEP, sizeof(*polls->fds));
	if (!polls->fds)
		return -ENOMEM;
	polls->nr_fds = FDS_STEP;
	return 0;
}

void engine_polls_destroy(struct engine_polls *polls)
{
	free(polls->fds);
}

/* Without memory for all of them the last ones are not looked at for now. */
static bool room_for(struct engine_polls *polls, unsigned int nr)
{
	struct pollfd *fds;

	if (nr <= polls->nr_fds)
		return true;
	fds = reallocarray(polls->fds, nr + FDS_STEP, sizeof(*fds));
	if (!fds)
		return false;
	polls->fds = fds;
	polls->nr_fds = nr + FDS_STEP;
	return true;
}

static unsigned int fill_fds(struct engine *engine, struct engine_polls *polls)
{
	struct call *call;
	unsigned int nr = 1;

	polls->fds[0] =
		(struct pollfd){ .fd = engine->wake_fd, .events = POLLIN };
	DL_FOREACH(engine->polls, call) {
		if (!room_for(polls, nr + 1))
			break;
		polls->fds[nr++] = (struct pollfd){
			.fd = sys_of(call)->fd,
			.events = (short)sys_of(call)->flags,
		};
	}
	return nr;
}

/* A done() may start a poll: it comes last in the list, past the nr that were
 * asked for. */
static int finish_polls(struct engine *engine, struct engine_polls *polls,
			unsigned int nr)
{
	struct call *call, *next;
	unsigned int i = 1;
	int n = 0;

	DL_FOREACH_SAFE(engine->polls, call, next) {
		if (i == nr)
			break;
		if (polls->fds[i++].revents == 0)
			continue;
		engine_done(engine, call,
			    (unsigned short)polls->fds[i - 1].revents);
		n++;
	}
	return n;
}

int engine_polls_wait(struct engine *engine, struct engine_polls *polls,
		      uint64_t wait_ns)
{
	unsigned int nr = fill_fds(engine, polls);
	struct timespec ts = {
		.tv_sec = (time_t)(wait_ns / 1000000000),
		.tv_nsec = (long)(wait_ns % 1000000000),
	};
	int r = ppoll(polls->fds, nr, wait_ns == UINT64_MAX ? NULL : &ts, NULL);

	if (r < 0 && errno != EINTR)
		return errno == ENOMEM ? -EAGAIN : -errno;
	if (r <= 0)
		return 0;
	if (polls->fds[0].revents)
		engine_drain_wake(engine);
	return finish_polls(engine, polls, nr);
}
