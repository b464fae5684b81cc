/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker-fixture.h - a broker without xenstore, for the tests of its parts.
 */
#ifndef XENDISK_BROKER_FIXTURE_H
#define XENDISK_BROKER_FIXTURE_H

#include <stdbool.h>

#include "broker/broker.h"

struct fixture {
	struct broker broker;
	struct settings settings;
	char dir[64]; /* a temporary folder, for everything */
};

/* The loop, the children, kept state and poison marks. */
struct fixture *fixture_new(void);
void fixture_free(struct fixture *fixture);

/* Runs the loop until *flag, 5 s at most; false when the time was over. */
bool fixture_run(struct fixture *fixture, const bool *flag);

/* DIR/name, in a buffer that the next call uses again. */
const char *fixture_path(const struct fixture *fixture, const char *name);
void fixture_write(const struct fixture *fixture, const char *name,
		   const char *text);

#endif
