/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * supervise-fixture.h - supervision against a fake worker: the test program
 * itself, started by the code under test as `/proc/self/exe --worker
 * DOMID/DEVID`.  How it behaves is the first argument of its expression,
 * fake(BEHAVIOUR, file=PATH).
 */
#ifndef XENDISK_SUPERVISE_FIXTURE_H
#define XENDISK_SUPERVISE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker-fixture.h"
#include "broker/supervise.h"
#include "common/log.h"
#include "common/util.h"

#define STORAGE "fake storage"

/* --- In the fake worker: the broker's socket, and the last message heard. */

extern int fake_sock;
extern unsigned char fake_buf[MSG_MAX];

void fake_say(void *msg, size_t length, enum msg_type type, uint32_t seq);
void fake_say_text(enum msg_type type, uint32_t seq, int result,
		   const char *text);
/* Exits when the broker is gone. */
const struct msg_header *fake_hear(int *ret_fd);

/* --- In the test: a listener to the worker's events. */

struct seen {
	struct fixture *fixture;
	struct worker *worker;
	bool any; /* one of the events below has come */
	const char *event;
	int err;
	char text[MSG_CONTROL_MAX];
	bool poisoned;
	bool paused;
	bool stopped;
	uint64_t size; /* as grew() said */
	unsigned int changes; /* changed()s; then this was the last: */
	uint32_t layer;
	char commit[MSG_COMMIT_MAX];
	char now[MSG_TEXT_MAX];
};

void note(struct seen *seen, const char *event, int err, const char *text);
/* Waits for the next event but condition() and changed(): it is that one. */
void expect(struct seen *seen, const char *event, int err);

/* A new worker for 5/51728, opened. */
struct seen *start_as(void **state, bool read_only, const char *fmt, ...)
	PRINTF(3, 4);
#define start(state, ...) start_as(state, false, __VA_ARGS__)

int supervise_setup(void **state);
int supervise_teardown(void **state);

#endif
