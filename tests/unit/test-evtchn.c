/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is left in the kernel's queue of a guest that has gone.  The device is
 * imitated as Linux has it: a queue of 64 ports, which an unbound port does not leave,
 * and which is of no use any more when it has overflown.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <xenevtchn.h>

#include "worker/evtchn.h"

#define QUEUE 64u
#define RINGS 16u

static struct {
	int fd;
	uint32_t queue[QUEUE];
	unsigned int nr;
	bool overflown;
} dev;

static void fire(uint32_t port)
{
	if (dev.nr == QUEUE)
		dev.overflown = true;
	else
		dev.queue[dev.nr++] = port;
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger,
				 unsigned int flags)
{
	(void)logger;
	(void)flags;
	memset(&dev, 0, sizeof(dev));
	dev.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_true(dev.fd >= 0);
	return (void *)&dev;
}

int xenevtchn_close(xenevtchn_handle *xce)
{
	(void)xce;
	return close(dev.fd);
}

int xenevtchn_restrict(xenevtchn_handle *xce, domid_t domid)
{
	(void)xce;
	(void)domid;
	return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
	(void)xce;
	return dev.fd;
}

/* Xen makes the new port pending. */
xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce,
						     uint32_t domid,
						     evtchn_port_t remote_port)
{
	(void)xce;
	(void)domid;
	fire(remote_port);
	return (xenevtchn_port_or_error_t)remote_port;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce;
	(void)port;
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
	uint32_t port = dev.queue[0];

	(void)xce;
	errno = dev.overflown ? EFBIG : EAGAIN;
	if (dev.overflown || dev.nr == 0)
		return -1;
	memmove(dev.queue, dev.queue + 1, --dev.nr * sizeof(dev.queue[0]));
	return (xenevtchn_port_or_error_t)port;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce;
	(void)port;
	return 0;
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce;
	(void)port;
	return 0;
}

/* Its last ring cannot be had each time, or it goes before anybody has looked. */
static void comes_and_goes(void **state)
{
	struct evtchn *evtchn;
	uint32_t port, ports[RINGS];

	(void)state;
	assert_int_equal(evtchn_open(&evtchn, 5), 0);
	for (unsigned int round = 0; round < 100; round++) {
		for (uint32_t i = 0; i < RINGS; i++)
			assert_int_equal(evtchn_bind(evtchn, i + 1, &ports[i]),
					 0);
		for (uint32_t i = 0; i < RINGS; i++)
			evtchn_unbind(evtchn, ports[i]);
	}
	assert_int_equal(evtchn_bind(evtchn, 7, &port), 0);
	assert_int_equal(evtchn_take(evtchn, &port), 0);
	assert_int_equal(port, 7);
	assert_int_equal(evtchn_take(evtchn, &port), -EAGAIN);
	evtchn_close(evtchn);
}

/* One of several that goes takes nothing from the others. */
static void others_stay(void **state)
{
	struct evtchn *evtchn;
	uint32_t port;

	(void)state;
	assert_int_equal(evtchn_open(&evtchn, 5), 0);
	assert_int_equal(evtchn_bind(evtchn, 1, &port), 0);
	assert_int_equal(evtchn_bind(evtchn, 2, &port), 0);
	evtchn_unbind(evtchn, 1);
	assert_int_equal(evtchn_take(evtchn, &port), 0);
	assert_int_equal(port, 1);
	assert_int_equal(evtchn_take(evtchn, &port), 0);
	assert_int_equal(port, 2);
	evtchn_close(evtchn);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_and_goes),
		cmocka_unit_test(others_stay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
