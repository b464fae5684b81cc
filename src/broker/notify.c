/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/notify.h"

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "common/util.h"

#ifdef HAVE_SYSTEMD
static void feed(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	(void)sd_notify(0, "WATCHDOG=1");
}

/* How often to feed it: twice in the time that it allows.  0: never. */
static uint64_t interval_us(void)
{
	uint64_t allowed = 0;

	return sd_watchdog_enabled(0, &allowed) > 0 ? allowed / 2 : 0;
}

static void tell(const char *state)
{
	(void)sd_notify(0, state);
}
#else
static void feed(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

static uint64_t interval_us(void)
{
	return 0;
}

static void tell(const char *state)
{
	(void)state;
}
#endif

int notify_start(struct event_base *base, struct event **ret)
{
	uint64_t us = interval_us();
	struct timeval interval = { .tv_sec = (time_t)(us / 1000000),
				    .tv_usec = (suseconds_t)(us % 1000000) };
	struct event *watchdog;

	*ret = NULL;
	if (us == 0)
		return 0;
	watchdog = event_new(base, -1, EV_PERSIST, feed, NULL);
	if (!watchdog || event_add(watchdog, &interval) < 0) {
		notify_stop(watchdog);
		return -ENOMEM;
	}
	*ret = watchdog;
	return 0;
}

void notify_stop(struct event *watchdog)
{
	if (watchdog)
		event_free(watchdog);
}

void notify_ready(void)
{
	tell("READY=1");
}

void notify_stopping(void)
{
	tell("STOPPING=1");
}
